"""SRCNN for inference on a CPU: the same function of the LR image by half the multiply-adds, in a third of the time."""

from dataclasses import dataclass
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from srcnn.image import bicubic_up, cut, symmetric_pad
from srcnn.nets import SRCNN, Network

_LANES = 16  # float32 values in a vector of AVX-512; in AVX2's two registers


@dataclass
class Window:
    """The features that the last layer needs for a part of the image, along one axis: rows or columns.

    first, count  LR pixels whose features are computed: each has `scale` of them
    skip, length  features that the last layer looks at, counted from the first of these
    """

    first: int
    count: int
    skip: int
    length: int


class FastSRCNN(Network):
    """An SRCNN with replicated borders, computed another way: equal but for the last bits of a float.

    - Enlargement and first layer are both linear: for each of the scale * scale pixels that an LR pixel becomes, they
      are one convolution of the LR image (x3: 6 or 7 pixels wide). Where SRCNN replicates enlarged pixels, in a frame
      of `frame` LR pixels along the image's borders, SRCNN itself is computed.
    - A second layer of 1x1 follows before the pixels are put in their places.
    - The last layer makes several pixels of a row at a time: one pixel's planes would fill 3 of 16 lanes of a vector.
    """

    tile = (64, 128)  # LR pixels, of which each has scale * scale times the features

    def __init__(self, net: SRCNN):
        super().__init__(net.scale, net.channels)
        self.net = net
        self.body_scale = net.scale
        self.frame = -(-net.receptive_radius // net.scale)
        self.receptive_radius = self.frame + net.preprocess_radius
        self.corners = {}  # of an enlarged pixel's kernel, counted from the LR pixel that it is part of
        for row, column in product(range(net.scale), repeat=2):
            self.corners[row, column], kernel = _at_lr_size(net.conv1.weight.detach(), net.scale, row, column)
            self.register_buffer(f"first{row}{column}", kernel, persistent=False)
        self.run = _LANES // net.channels  # pixels of a row that the last layer makes at a time
        planes = [F.pad(net.conv3.weight.detach(), (pixel, self.run - 1 - pixel)) for pixel in range(self.run)]
        last = torch.cat(planes).contiguous(memory_format=torch.channels_last)  # [run * C, features, k, k + run - 1]
        self.register_buffer("last", last, persistent=False)

    def body(self, x: Tensor) -> Tensor:
        return self.body_of_tile(x, [slice(0, side) for side in x.shape[2:]])

    def body_of_tile(self, x: Tensor, core: list[slice]) -> Tensor:
        rows, columns = core
        inner = [
            slice(max(s.start, self.frame), min(s.stop, n - self.frame)) for s, n in zip(core, x.shape[2:], strict=True)
        ]
        if any(side.start >= side.stop for side in inner):
            return self._by_srcnn(x, core)
        y = x.new_empty(len(x), *(self.scale * (side.stop - side.start) for side in core), self.channels).permute(
            0, 3, 1, 2
        )
        cut(y, inner, core, self.scale).copy_(self._inside(x, inner))
        above, below = slice(rows.start, inner[0].start), slice(inner[0].stop, rows.stop)
        before, behind = slice(columns.start, inner[1].start), slice(inner[1].stop, columns.stop)
        for part in ([above, columns], [below, columns], [inner[0], before], [inner[0], behind]):
            if all(side.start < side.stop for side in part):
                cut(y, part, core, self.scale).copy_(self._by_srcnn(x, part))
        return y

    def _by_srcnn(self, x: Tensor, core: list[slice]) -> Tensor:
        seen = grown(core, self.frame, x)
        read = grown(seen, self.net.preprocess_radius, x)
        enlarged = cut(self.net.preprocess(cut(x, read)), seen, read, self.scale)
        return cut(self.net.body(enlarged), core, seen, self.scale)

    def _inside(self, x: Tensor, core: list[slice]) -> Tensor:
        """SR of a part of x for which no replicated pixel counts."""
        net, scale, margin = self.net, self.scale, self.receptive_radius + self.run  # more LR pixels than are looked at
        rows, columns = self._window(core[0], 1), self._window(core[1], self.run)
        is_pointwise = net.conv2.kernel_size == (1, 1)
        planes = (net.conv2 if is_pointwise else net.conv1).out_channels
        y = x.new_empty(len(x), rows.count * scale, columns.count * scale, planes).permute(0, 3, 1, 2)
        lr = symmetric_pad(symmetric_pad(x, margin, -2), margin, -1)
        for (row, column), (top, left) in self.corners.items():
            kernel = self.get_buffer(f"first{row}{column}")
            top, left = margin + rows.first + top, margin + columns.first + left
            bottom, right = top + rows.count + kernel.shape[2] - 1, left + columns.count + kernel.shape[3] - 1
            features = F.conv2d(lr[..., top:bottom, left:right], kernel, net.conv1.bias).relu_()
            if is_pointwise:  # rows as a batch: torch gives a batch of one to a slower library if it has one thread
                features = net.conv2(features.permute(2, 1, 0, 3), pad=False).relu_().permute(2, 1, 0, 3)
            y[..., row::scale, column::scale] = features
        if not is_pointwise:
            y = net.conv2(y, pad=False).relu_()
        y = y[..., rows.skip : rows.skip + rows.length, columns.skip : columns.skip + columns.length]
        y = F.conv2d(y, self.get_buffer("last"), net.conv3.bias.repeat(self.run), stride=(1, self.run))
        y = (
            y.permute(0, 2, 3, 1).flatten(2).unflatten(2, (-1, self.channels))
        )  # [N, run * C, H, W / run] -> [N, H, W, C]
        y = y[:, :, : (core[1].stop - core[1].start) * scale].permute(0, 3, 1, 2)
        return y + cut(bicubic_up(x, scale), core, ratio=scale) if net.residual else y

    def _window(self, core: slice, run: int) -> Window:
        """For the LR pixels `core` of an axis on which the last layer makes `run` pixels at a time."""
        second, last = self.net.conv2.kernel_size[0] // 2, self.net.conv3.kernel_size[0] // 2
        before = -(-(second + last) // self.scale)  # LR pixels
        skip = before * self.scale - second - last
        length = -(-(core.stop - core.start) * self.scale // run) * run + 2 * last
        return Window(core.start - before, -(-(skip + length + 2 * second) // self.scale), skip, length)


def grown(part: list[slice], margin: int, image: Tensor) -> list[slice]:
    """A part of an image and the margin around it, as far as there is one."""
    return [
        slice(max(0, s.start - margin), min(n, s.stop + margin)) for s, n in zip(part, image.shape[2:], strict=True)
    ]


def _at_lr_size(weight: Tensor, scale: int, row: int, column: int) -> tuple[tuple[int, int], Tensor]:
    """Enlargement and a layer's weights as one kernel for the pixel (row, column) of each LR pixel's scale * scale.

    Its first row and column, counted from the LR pixel, and the kernel.
    """
    radius = weight.shape[-1] // 2
    middle = radius + 2  # enough LR pixels on each side
    units = torch.eye(2 * middle + 1, dtype=torch.float64)[:, None, None]
    enlarged = bicubic_up(units, scale)[:, 0, 0]  # [LR pixel of a row, enlarged pixel]: what the one gives to the other

    def taps(phase: int) -> tuple[int, Tensor]:
        start = middle * scale + phase - radius
        seen = enlarged[:, start : start + 2 * radius + 1]
        used = seen.abs().sum(1).nonzero()
        first, last = int(used.amin()), int(used.amax())
        return first - middle, seen[first : last + 1]

    (top, rows), (left, columns) = taps(row), taps(column)
    # o: features, i: channels; y and x: enlarged pixels, v and h: LR pixels, vertically and horizontally
    kernel = torch.einsum("oiyx,vy,hx->oivh", weight.double(), rows.to(weight.device), columns.to(weight.device))
    return (top, left), kernel.to(weight.dtype).contiguous(memory_format=torch.channels_last)
