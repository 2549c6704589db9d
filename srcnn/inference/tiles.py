"""A network over an image of any size, in tiles."""

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import product
from threading import Thread
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from srcnn.image import (
    as_float,
    as_type,
    bicubic_resize,
    bicubic_up,
    cut,
    gray_of,
    grown,
    rgb_to_ycbcr,
    within,
    ycbcr_to_rgb,
)  # fmt: skip
from srcnn.inference.fast_srcnn import FastSRCNN
from srcnn.inference.image_file import ImageFile
from srcnn.nets import SRCNN, Network

_GPU_TILE = 2048  # SR pixels a side: enough to fill a GPU

Progress = Callable[[float, float], None]  # pixels done, of how many


def super_resolve(
    net: Network, lr: Tensor, tile: tuple[int, int] | None = None, progress: Progress | None = None
) -> Tensor:
    """Any LR image [N, 1 or 3, H, W] -> SR with as many channels, whatever the network works on, of the same type.

    tile      height and width of a tile in pixels of `net.body`'s input, by default what suits network and device;
              half as high and wide when memory runs out
    progress  called after each tile with the LR pixels done and all of them

    In tiles, equal to `net(lr)` of the whole but for memory and time: a tile sees `receptive_radius` more pixels around
    it than it yields, so no cut shows. Float in [0, 1], or uint8 or uint16, which are rounded tile by tile so that no
    float image of the whole is made. A network on Y enlarges Cb and Cr bicubically; a gray image goes through an RGB
    network as three equal channels, and their luma comes back.
    """
    device = next((parameter.device for parameter in net.parameters()), lr.device)
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    shape = (*lr.shape[:2], *(side * net.scale for side in lr.shape[2:]))
    sr = torch.empty(shape, dtype=lr.dtype, device=lr.device, memory_format=torch.channels_last)  # as files have it

    @torch.inference_mode()
    def compute(core: list[slice]) -> int:
        rows, columns = (part.stop - part.start for part in core)
        try:
            cut(sr, core, ratio=net.scale).copy_(as_type(_sr_of_tile(net, lr, core, device), lr.dtype))
            return rows * columns
        except RuntimeError as error:  # CUDA's is a subclass, the CPU's has no other name
            if "memory" not in str(error) or rows * columns == 1:
                raise
        # Outside of `except`, whose traceback keeps the tensors of the tile that failed.
        return sum(map(compute, _split(core, (-(-rows // 2), -(-columns // 2)))))

    whole = [slice(0, side) for side in lr.shape[2:]]
    gpu_side = _GPU_TILE // net.body_scale
    sides = tile or (net.tile if device.type == "cpu" else (gpu_side, gpu_side))
    height, width = (max(1, side * net.body_scale // net.scale) for side in sides)
    if not tile and threads > 1:
        height = min(height, max(16, -(-lr.shape[2] // threads)))  # something for every thread to do
    done = 0
    for pixels in _in_threads(compute, _split(whole, (height, width)), threads):
        done += pixels
        if progress:
            progress(done, lr.shape[2] * lr.shape[3])
    return sr


def _split(whole: list[slice], sides: tuple[int, int]) -> list[list[slice]]:
    """A part of an image in tiles of at most these sides."""
    rows, columns = (
        [slice(start, min(start + side, part.stop)) for start in range(part.start, part.stop, side)]
        for part, side in zip(whole, sides, strict=True)
    )
    return [[row, column] for row in rows for column in columns]


def _sr_of_tile(net: Network, lr: Tensor, core: list[slice], device: torch.device) -> Tensor:
    """SR of the part `core` of the LR image, as float: of `seen`, which the body looks at, itself made of `read`."""
    ratio = net.scale // net.body_scale  # pixels of the body's input per LR pixel
    seen = grown(core, math.ceil(net.receptive_radius / ratio), lr)
    read = grown(seen, net.preprocess_radius, lr)
    part = as_float(cut(lr, read).to(device))
    dtype = next((parameter.dtype for parameter in net.parameters()), part.dtype)
    part = part.to(torch.promote_types(torch.float32, dtype))  # bicubic in less precision would show
    if net.channels != part.shape[1]:
        part = part.expand(-1, 3, -1, -1) if net.channels == 3 else rgb_to_ycbcr(part)[:, :1]
    x = cut(net.preprocess(part), seen, read, ratio)
    y = net.body_of_tile(x.to(dtype), within(core, seen, ratio)).to(part.dtype)
    if net.channels == 3 and lr.shape[1] == 1:
        return gray_of(y)
    if net.channels == 1 and lr.shape[1] == 3:
        near = grown(core, 2, lr)  # what bicubic looks at
        chroma = bicubic_up(rgb_to_ycbcr(as_float(cut(lr, near)).to(y))[:, 1:], net.scale)
        return ycbcr_to_rgb(torch.cat([y, cut(chroma, core, near, net.scale)], dim=1))
    return y


def _in_threads(work: Callable[[list[slice]], int], tiles: list[list[slice]], threads: int) -> Iterator[int]:
    """Each tile by one thread alone: torch's own threads would wait for each other after every layer of it."""
    if threads == 1 or len(tiles) == 1:
        yield from map(work, tiles)
        return
    autocast, dtype = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")

    def begin() -> None:
        torch.set_autocast_enabled("cpu", autocast)
        torch.set_autocast_dtype("cpu", dtype)
        torch.get_num_threads()  # else at its first use a thread takes the common number, and undoes the next line
        torch.set_num_threads(1)  # sets this thread's and the common one, which another thread sets back
        other = Thread(target=torch.set_num_threads, args=(threads,))
        other.start()
        other.join()

    pool = ThreadPoolExecutor(threads, initializer=begin)
    try:
        yield from pool.map(work, tiles)
    finally:
        pool.shutdown(cancel_futures=True)


def for_inference(net: Network) -> Network:
    """A network that computes the same in less time, but for a float's last bits: an SRCNN on a CPU as FastSRCNN."""
    if isinstance(net, SelfEnsemble):
        return SelfEnsemble(for_inference(net.net))
    faster = net.for_inference()
    on_cpu = all(parameter.device.type == "cpu" for parameter in net.parameters())
    is_known = type(net) is SRCNN and net.conv1.padding_mode == "replicate" and net.conv2.kernel_size == (1, 1)
    return FastSRCNN(cast(SRCNN, faster)) if is_known and on_cpu else faster


def in_bf16(net: Network) -> Network:
    """The network itself, changed: the convolutions of its body in bf16; what is around it, as bicubic, in float32."""
    device = next(net.parameters()).device.type
    net.body_of_tile = torch.autocast(device, torch.bfloat16)(net.body_of_tile)  # type: ignore[method-assign]
    return net


def enlarge(net: Network, image: ImageFile, progress: Progress | None = None) -> ImageFile:
    """The image `net.scale` times larger, of the same kind: CMYK channel by channel, alpha bicubically."""
    colour, has_alpha = image.planes, image.mode.endswith("A")
    if has_alpha:
        # All that an SR pixel looks at, and 2 more, by which alpha grows as well.
        radius = net.preprocess_radius + math.ceil(net.receptive_radius * net.body_scale / net.scale) + 2
        colour = _spread(colour[:-1], colour[-1:], radius)
    batch = colour[:, None] if image.mode == "CMYK" else colour[None]
    sr = super_resolve(net, batch, progress=progress).flatten(0, 1)
    if has_alpha:
        alpha = bicubic_up(as_float(image.planes[None, -1:]).float(), net.scale)[0]
        sr = torch.cat([sr, as_type(alpha, sr.dtype).to(sr.dtype)])
    return replace(image, planes=sr)


def enlarge_to(net: Network, image: ImageFile, size: tuple[int, int], progress: Progress | None = None) -> ImageFile:
    """The image in this height and width: enlarged by the network as often as is needed, then shrunk bicubically."""
    while net.scale > 1 and any(side < wanted for side, wanted in zip(image.planes.shape[1:], size, strict=True)):
        image = enlarge(net, image, progress)
    if image.planes.shape[1:] == size:
        return enlarge(net, image, progress) if net.scale == 1 else image
    # One plane at a time, so that no float image of the whole is made.
    planes = [as_type(bicubic_resize(as_float(p[None, None]), *size)[0], p.dtype) for p in image.planes]
    return replace(image, planes=torch.cat(planes))


def _spread(colour: Tensor, alpha: Tensor, radius: int) -> Tensor:
    """The visible colours carried `radius` pixels into what is wholly transparent, so that hidden ones do not bleed."""
    known = (as_float(alpha) > 0).float()[None]
    if known.all():
        return colour
    pixels = as_float(colour[None]) * known
    for _ in range(radius):
        weight = F.avg_pool2d(known, 3, 1, 1)
        mean = F.avg_pool2d(pixels, 3, 1, 1) / weight.clamp(min=1e-6)
        pixels = torch.where(known > 0, pixels, mean)
        known = (weight > 0).float()
    return as_type(pixels, colour.dtype)[0].to(colour.dtype)


class SelfEnsemble(Network):
    """The mean of a network's results over 8 orientations: slower by as much, and a little better.

    Lim et al., "Enhanced Deep Residual Networks for Single Image Super-Resolution", CVPRW 2017, section 3.4.
    """

    def __init__(self, net: Network):
        super().__init__(net.scale, net.channels)
        self.net, self.body_scale, self.tile = net, net.body_scale, net.tile
        self.receptive_radius, self.preprocess_radius = net.receptive_radius, net.preprocess_radius

    def preprocess(self, lr: Tensor) -> Tensor:
        return self.net.preprocess(lr)

    def body(self, x: Tensor) -> Tensor:
        results = []
        for turned, flips in product((False, True), ([], [2], [3], [2, 3])):
            y = self.net.body((x.transpose(2, 3) if turned else x).flip(flips)).flip(flips)
            results.append(y.transpose(2, 3) if turned else y)
        return torch.stack(results).mean(0)
