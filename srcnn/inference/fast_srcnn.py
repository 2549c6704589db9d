"""SRCNN for inference on a CPU: the same function of the LR image by half the multiply-adds, in a third of the time."""

from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from srcnn.image import bicubic_up, cut, symmetric_pad
from srcnn.nets.base import Network
from srcnn.nets.srcnn import SRCNN

_LANES = 16  # float32 values in a vector of AVX-512; in AVX2's two registers


class FastSRCNN(Network):
    """An SRCNN with replicated borders, computed another way: equal but for the last bits of a float.

    - Enlargement and first layer are both linear: for each of the scale * scale pixels that an LR pixel becomes, they
      are one convolution of the LR image (x3: 6 or 7 pixels wide). Only by the image's borders, where SRCNN
      replicates enlarged pixels, is the first layer computed as it stands.
    - A second layer of 1x1 follows before the pixels are put in their places.
    - The last layer makes several pixels of a row at a time: one pixel's planes would fill 3 of 16 lanes of a vector.
    """

    tile = (64, 128)  # LR pixels, of which each has scale * scale times the features

    def __init__(self, net: SRCNN):
        super().__init__(net.scale, net.channels)
        self.net = net
        self.body_scale = net.scale
        self.receptive_radius = -(-net.receptive_radius // net.scale) + net.preprocess_radius
        self.corners = {}
        for row, column in product(range(net.scale), repeat=2):
            self.corners[row, column], kernel = _at_lr_size(net.conv1.weight.detach(), net.scale, row, column)
            self.register_buffer(f"first{row}{column}", kernel, persistent=False)
        self.is_pointwise = net.conv2.kernel_size == (1, 1)
        self.run = _LANES // net.channels  # pixels of a row that the last layer makes at a time
        planes = [F.pad(net.conv3.weight.detach(), (pixel, self.run - 1 - pixel)) for pixel in range(self.run)]
        last = torch.cat(planes).contiguous(memory_format=torch.channels_last)
        self.register_buffer("last", last, persistent=False)

    def body(self, x: Tensor) -> Tensor:
        return self.body_of_tile(x, [slice(0, side) for side in x.shape[2:]])

    def body_of_tile(self, x: Tensor, core: list[slice]) -> Tensor:
        net, scale = self.net, self.scale
        border, second, last = (conv.kernel_size[0] // 2 for conv in (net.conv1, net.conv2, net.conv3))
        if min(x.shape[2:]) * scale < 2 * border:
            return cut(net(x), core, ratio=scale)

        # Of the LR pixels whose features the core looks at, those that there are; by the image's border all.
        near = []
        for part, side, more in zip(core, x.shape[2:], (0, self.run - 1), strict=True):
            start = max(0, (part.start * scale - second - last) // scale)
            stop = min(side, -(-(part.stop * scale + second + last + more) // scale))
            is_first, is_last = start * scale < border, (side - stop) * scale < border
            near.append(slice(0 if is_first else start, side if is_last else stop))
        pads = []  # what is missing of what the last layer looks at, before and after; negative: what is too much
        for part, seen, more in zip(core[::-1], near[::-1], (-core[1].stop + core[1].start, 0), strict=True):
            before, after = ((part.start - seen.start) * scale, (seen.stop - part.stop) * scale)
            pads += [last - before, last + more * scale % self.run - after]
        y = self._features(x, near, border, [max(0, pad) for pad in pads])
        left, right, top, bottom = (max(0, -pad) for pad in pads)
        y = y[..., top : y.shape[2] - bottom, left : y.shape[3] - right]
        y = F.conv2d(y, self.get_buffer("last"), net.conv3.bias.repeat(self.run), stride=(1, self.run))
        height, width = ((part.stop - part.start) * scale for part in core)
        y = y.permute(0, 2, 3, 1).reshape(len(x), height, -1, self.channels)[:, :, :width].permute(0, 3, 1, 2)
        return y + cut(bicubic_up(x, scale), core, ratio=scale) if net.residual else y

    def _features(self, x: Tensor, near: list[slice], border: int, pads: list[int]) -> Tensor:
        """What the first two layers make of the enlarged pixels of a part of the LR image, padded by replication."""
        scale, reach, (left, right, top, bottom) = self.scale, self.receptive_radius, pads
        height, width = ((seen.stop - seen.start) * scale for seen in near)
        planes = (self.net.conv2 if self.is_pointwise else self.net.conv1).out_channels
        padded = x.new_empty(len(x), top + height + bottom, left + width + right, planes).permute(0, 3, 1, 2)
        y = padded[..., top : top + height, left : left + width]
        lr = symmetric_pad(symmetric_pad(x, reach, -2), reach, -1)
        for (row, column), corner in self.corners.items():
            kernel = self.get_buffer(f"first{row}{column}")
            part = [
                slice(reach + seen.start + tap, reach + seen.stop + tap + taps - 1)
                for seen, tap, taps in zip(near, corner, kernel.shape[2:], strict=True)
            ]
            y[..., row::scale, column::scale] = self._layers(cut(lr, part), kernel)
        if border:
            self._beside_borders(x, near, border, y)
        if not self.is_pointwise:
            return F.pad(self.net.conv2(y).relu_(), pads, mode="replicate")
        padded[..., :left], padded[..., left + width :] = padded[..., [left]], padded[..., [left + width - 1]]
        rows = padded.transpose(2, 3)  # in place, as F.pad would copy it all
        rows[..., :top], rows[..., top + height :] = rows[..., [top]], rows[..., [top + height - 1]]
        return padded

    def _layers(self, part: Tensor, kernel: Tensor) -> Tensor:
        y = F.conv2d(part, kernel, self.net.conv1.bias).relu_()
        if self.is_pointwise:  # rows as a batch: torch gives a batch of one to a slower library if it has one thread
            y = self.net.conv2(y.permute(2, 1, 0, 3), pad=False).relu_().permute(2, 1, 0, 3)
        return y

    def _beside_borders(self, x: Tensor, near: list[slice], border: int, y: Tensor) -> None:
        """The outermost features of `near` where it ends with x, from enlarged pixels that are replicated."""
        scale = self.scale
        for dim, at_end in ((2, False), (2, True), (3, False), (3, True)):
            seen, along, side = near[dim - 2], near[3 - dim], x.shape[dim]
            if seen.stop < side if at_end else seen.start > 0:
                continue
            strip = min(side, -(-2 * border // scale) + self.net.preprocess_radius)  # LR pixels that count
            enlarged = bicubic_up(x.narrow(dim, side - strip if at_end else 0, strip), scale)
            enlarged = enlarged.narrow(dim, strip * scale - 2 * border if at_end else 0, 2 * border)
            pads = [border] * 4
            pads[6 - 2 * dim + (not at_end)] = 0
            outer = self._layers(F.pad(enlarged, pads, mode="replicate"), self.net.conv1.weight)
            outer = outer.narrow(5 - dim, along.start * scale, (along.stop - along.start) * scale)
            y.narrow(dim, y.shape[dim] - border if at_end else 0, border).copy_(outer)


def _at_lr_size(weight: Tensor, scale: int, row: int, column: int) -> tuple[tuple[int, int], Tensor]:
    """Enlargement and a layer's weights as one kernel for the pixel (row, column) of each LR pixel's scale * scale.

    Its first row and column, counted from the LR pixel, and the kernel.
    """
    radius = weight.shape[-1] // 2
    middle = radius + 2  # enough LR pixels on each side
    units = torch.eye(2 * middle + 1, dtype=torch.float64)[:, None, None]
    enlarged = bicubic_up(units, scale)[:, 0, 0]  # what each LR pixel of a row gives to each enlarged one

    def taps(phase: int) -> tuple[int, Tensor]:
        start = middle * scale + phase - radius
        seen = enlarged[:, start : start + 2 * radius + 1]
        used = seen.abs().sum(1).nonzero()
        first, last = int(used.amin()), int(used.amax())
        return first - middle, seen[first : last + 1]

    (top, rows), (left, columns) = taps(row), taps(column)
    kernel = torch.einsum("oiyx,vy,hx->oivh", weight.double(), rows.to(weight.device), columns.to(weight.device))
    return (top, left), kernel.to(weight.dtype).contiguous(memory_format=torch.channels_last)
