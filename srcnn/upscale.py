"""A network over an image of any size."""

import math

import torch
from torch import Tensor

from srcnn.image import bicubic_up, rgb_to_y, rgb_to_ycbcr, ycbcr_to_rgb
from srcnn.nets import Network

# SR pixels of a tile: on a CPU as many as keep SRCNN's features (13 MB) in the cache, else enough to fill a GPU.
_TILE = {"cpu": (128, 256)}
_LARGE_TILE = (1024, 4096)


@torch.inference_mode()
def upscale(net: Network, lr: Tensor, tile: tuple[int, int] | None = None) -> Tensor:
    """`net(lr)` in tiles, equal to the whole but for memory and time: [N, C, H, W] -> [N, C, scale*H, scale*W].

    tile  height and width of a tile in SR pixels; by default what suits the device

    A tile sees `receptive_radius` more pixels around it than it yields, so no cut shows.
    """
    size, scale = lr.shape[-2:], net.scale
    rows, columns = (max(1, side // scale) for side in tile or _TILE.get(lr.device.type, _LARGE_TILE))
    body_input = scale // net.body_scale  # its pixels per LR pixel
    halo = math.ceil(net.receptive_radius / body_input)
    sr = lr.new_empty(*lr.shape[:2], size[0] * scale, size[1] * scale)
    for top in range(0, size[0], rows):
        for left in range(0, size[1], columns):
            core = [slice(top, min(top + rows, size[0])), slice(left, min(left + columns, size[1]))]
            seen = _grown(core, halo, size)
            read = _grown(seen, net.preprocess_radius, size)
            x = _cut(net.preprocess(_cut(lr, read)), _within(seen, read, body_input))
            target = _cut(sr, _within(core, [slice(0, 0)] * 2, scale))
            target.copy_(_cut(net.body(x), _within(core, seen, scale)))
    return sr


def _grown(part: list[slice], margin: int, size: torch.Size) -> list[slice]:
    return [slice(max(0, s.start - margin), min(n, s.stop + margin)) for s, n in zip(part, size, strict=True)]


def _cut(image: Tensor, part: list[slice]) -> Tensor:
    return image[:, :, part[0], part[1]]


def _within(part: list[slice], whole: list[slice], ratio: int) -> list[slice]:
    """Where a part lies in the whole, in pixels of which `ratio` make one."""
    return [slice((p.start - w.start) * ratio, (p.stop - w.start) * ratio) for p, w in zip(part, whole, strict=True)]


def super_resolve(net: Network, lr: Tensor) -> Tensor:
    """Any LR image [N, 1 or 3, H, W] in [0, 1] -> SR with as many channels, whatever the network works on.

    A network on Y enlarges Cb and Cr bicubically; a gray image goes through an RGB network as three equal channels,
    and their luma comes back.
    """
    gray = lr.shape[1] == 1
    if net.channels == 3:
        sr = upscale(net, lr.expand(-1, 3, -1, -1))
        return gray_of(sr) if gray else sr
    if gray:
        return upscale(net, lr)
    ycbcr = rgb_to_ycbcr(lr)
    return ycbcr_to_rgb(torch.cat([upscale(net, ycbcr[:, :1]), bicubic_up(ycbcr[:, 1:], net.scale)], dim=1))


def gray_of(rgb: Tensor) -> Tensor:
    """The gray image of an RGB one, in the full range: gray (v, v, v) gives v."""
    return (rgb_to_y(rgb) * 255 - 16) / 219
