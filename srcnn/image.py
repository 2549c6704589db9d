"""Pure functions on images: float tensors [N, C, H, W] in [0, 1], RGB unless the name says otherwise."""

import torch
import torch.nn.functional as F
from torch import Tensor

# BT.601 studio range, as MATLAB's rgb2ycbcr (ITU-R BT.601-7, section 2.5): rows Y, Cb, Cr; columns R, G, B.
_YCBCR = ((65.481, 128.553, 24.966), (-37.797, -74.203, 112.0), (112.0, -93.786, -18.214))
_OFFSET = (16.0, 128.0, 128.0)


def bicubic_down(hr: Tensor, scale: int) -> Tensor:
    """Shrink as MATLAB's `imresize(hr, 1/scale, "bicubic")`: kernel stretched by the scale against aliasing.

    [N, C, H, W] -> [N, C, H/scale, W/scale]; H and W must be multiples of scale (see `modcrop`).
    """
    height, width = hr.shape[-2:]
    assert height % scale == 0 and width % scale == 0, f"{height}x{width} is not a multiple of {scale}"
    return _imresize(hr, (height // scale, width // scale), pad=2 * scale, shaved=2)


def bicubic_up(lr: Tensor, scale: int) -> Tensor:
    """Enlarge as MATLAB's `imresize(lr, scale, "bicubic")`: [N, C, H, W] -> [N, C, scale*H, scale*W]."""
    height, width = lr.shape[-2:]
    return _imresize(lr, (height * scale, width * scale), pad=2, shaved=2 * scale)


def _imresize(x: Tensor, size: tuple[int, int], pad: int, shaved: int) -> Tensor:
    if x.shape[-2:] == size:
        return x
    # With antialias=True torch's cubic has MATLAB's a = -0.5, enlarging or shrinking, but it renormalises the kernel
    # at the borders where MATLAB mirrors the image, edge pixel included. So we mirror, resize and cut the margin off.
    padded_size = (size[0] + 2 * shaved, size[1] + 2 * shaved)
    y = F.interpolate(symmetric_pad(x, pad), padded_size, mode="bicubic", antialias=True, align_corners=False)
    return shave(y, shaved)


def symmetric_pad(x: Tensor, pad: int) -> Tensor:
    """Mirror the borders with the edge pixel (MATLAB's "symmetric"); the image may be smaller than pad."""

    def mirrored(size: int) -> Tensor:
        index = torch.arange(-pad, size + pad, device=x.device) % (2 * size)
        return torch.minimum(index, 2 * size - 1 - index)

    return x[..., mirrored(x.shape[-2])[:, None], mirrored(x.shape[-1])]


def modcrop(x: Tensor, scale: int) -> Tensor:
    """Crop bottom and right to a multiple of the scale; never resize."""
    height, width = x.shape[-2:]
    return x[..., : height - height % scale, : width - width % scale]


def shave(x: Tensor, border: int) -> Tensor:
    """Leave out `border` pixels on each side."""
    return x[..., border : x.shape[-2] - border, border : x.shape[-1] - border]


def rgb_to_ycbcr(rgb: Tensor) -> Tensor:
    """BT.601 studio range, scaled to [0, 1]: Y lies in [16, 235]/255, as in MATLAB's rgb2ycbcr."""
    matrix = rgb.new_tensor(_YCBCR) / 255
    offset = rgb.new_tensor(_OFFSET).view(3, 1, 1) / 255
    return torch.einsum("oc,...chw->...ohw", matrix, rgb) + offset


def rgb_to_y(rgb: Tensor) -> Tensor:
    """The luma of `rgb_to_ycbcr`: [N, 3, H, W] -> [N, 1, H, W]."""
    weights = rgb.new_tensor(_YCBCR[0]).view(3, 1, 1) / 255
    return (rgb * weights).sum(-3, keepdim=True) + _OFFSET[0] / 255


def ycbcr_to_rgb(ycbcr: Tensor) -> Tensor:
    """The inverse of `rgb_to_ycbcr`."""
    matrix = torch.linalg.inv(torch.tensor(_YCBCR, dtype=torch.float64) / 255).to(ycbcr)
    offset = ycbcr.new_tensor(_OFFSET).view(3, 1, 1) / 255
    return torch.einsum("oc,...chw->...ohw", matrix, ycbcr - offset)


def to_uint8(x: Tensor) -> Tensor:
    """Clip to [0, 1] and round to 8 bits, halves up as MATLAB's uint8()."""
    return (x.clamp(0, 1) * 255 + 0.5).floor().to(torch.uint8)


def quantize(x: Tensor) -> Tensor:
    """What `x` is after a trip through an 8-bit file: `to_uint8`, back in [0, 1]."""
    return to_uint8(x).to(x.dtype) / 255
