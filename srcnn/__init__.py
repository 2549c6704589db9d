"""Image super-resolution with SRCNN: a PyTorch Lightning and Hydra research template.

import srcnn

net = srcnn.load("srcnn_x3")
larger = srcnn.enlarge(net, PIL.Image.open("photo.jpg"))
"""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from srcnn.nets import Network

__version__ = "0.1.0"


def load(weights: str | None = None, scale: int | None = None) -> "Network":
    """The network of a checkpoint, weights.pth or bare state_dict, or of weights of ours by name; in eval mode.

    `net(lr)` works on float tensors [N, C, H, W] in [0, 1]. `scale` is for a bare state_dict, which does not tell it,
    or with weights=None for the choice among ours: compact_x2, _x3 or _x4. Raises `srcnn.errors.UserError`.
    """
    from srcnn.checkpoint import load_network  # as below, so that `import srcnn` does not wait for torch

    return load_network(weights, scale)[0]


def check(net: "Network") -> list[str]:
    """What is wrong with a network of yours, a sentence each; empty where all holds that `srcnn.nets.Network` asks."""
    from srcnn.check_net import check

    return check(net)


def enlarge(net: "Network", image: Any) -> Any:
    """The image `net.scale` times larger, in tiles, of the kind that it was.

    A PIL image or the path of an image file, which becomes one: gray, RGB, CMYK, alpha and 16-bit gray stay, palettes
    become RGB; it comes back upright, with its ICC profile, EXIF and dpi in `info`. A NumPy array [H, W] or [H, W, C],
    of uint8, uint16 or float in [0, 1], with C from 1 (gray) to 4 (RGB and alpha). A torch tensor [C, H, W] or
    [N, C, H, W] likewise. Raises `srcnn.errors.UserError`.
    """
    import numpy as np
    import torch

    from srcnn.errors import UserError
    from srcnn.inference.image_file import ImageFile, from_pillow, read_file, to_pillow
    from srcnn.inference.tiles import enlarge as enlarge_file
    from srcnn.inference.tiles import for_inference

    fast = for_inference(net)
    if isinstance(image, str | os.PathLike):
        file = read_file(image)
        if file.planes.dtype == torch.uint16 and file.mode != "L":
            raise UserError(f"{image}: Pillow has 16 bits for gray only; predict.py keeps them, or give an array")
        return to_pillow(enlarge_file(fast, file))

    def larger(planes: torch.Tensor) -> torch.Tensor:
        is_known = planes.is_floating_point() or planes.dtype in (torch.uint8, torch.uint16)
        if not is_known or len(planes) not in (1, 2, 3, 4) or not planes.numel():
            raise UserError(f"an image of {planes.dtype} and {list(planes.shape)}: see the help of srcnn.enlarge")
        sr = enlarge_file(fast, ImageFile(planes, ("L", "LA", "RGB", "RGBA")[len(planes) - 1])).planes
        return (sr.clamp(0, 1) if sr.is_floating_point() else sr).clone(memory_format=torch.contiguous_format)

    if isinstance(image, torch.Tensor):
        if image.ndim not in (3, 4):
            raise UserError(f"an image of {list(image.shape)}: a tensor must be [C, H, W] or [N, C, H, W]")
        return larger(image) if image.ndim == 3 else torch.stack([larger(one) for one in image])
    if isinstance(image, np.ndarray):
        if image.ndim not in (2, 3):
            raise UserError(f"an image of {list(image.shape)}: an array must be [H, W] or [H, W, C]")
        copy = np.array(np.atleast_3d(image), image.dtype.newbyteorder("="))  # it may be read-only
        rows = larger(torch.from_numpy(copy).permute(2, 0, 1))
        return rows.permute(1, 2, 0).numpy().reshape(*rows.shape[1:], *image.shape[2:])
    return to_pillow(enlarge_file(fast, from_pillow(image)))
