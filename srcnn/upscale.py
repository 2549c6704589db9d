"""A network over an image of any size."""

import torch
from torch import Tensor

from srcnn.image import bicubic_up, rgb_to_y, rgb_to_ycbcr, ycbcr_to_rgb
from srcnn.nets import Network

_STRIP_PIXELS = 2**18  # of the body's input, in one piece: about 70 MB of features for SRCNN


@torch.inference_mode()
def upscale(net: Network, lr: Tensor) -> Tensor:
    """`net(lr)` in strips, equal to the whole but for memory: [N, C, H, W] -> [N, C, scale*H, scale*W].

    A strip carries `receptive_radius` more rows above and below than it yields, so no cut shows.
    """
    x = net.preprocess(lr)
    height, width = x.shape[-2:]
    halo, scale = net.receptive_radius, net.body_scale
    rows = max(16, _STRIP_PIXELS // width)
    strips = []
    for top in range(0, height, rows):
        above = min(halo, top)
        bottom = min(top + rows, height)
        y = net.body(x[..., top - above : min(bottom + halo, height), :])
        strips.append(y[..., above * scale : (above + bottom - top) * scale, :])
    return torch.cat(strips, dim=-2)


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
