"""SRCNN for inference on a CPU: the same function of the LR image by half the multiply-adds, in a third of the time."""

from itertools import pairwise, product

import torch
import torch.nn.functional as F
from torch import Tensor

from srcnn.image import bicubic_up, cut, symmetric_pad
from srcnn.nets import SRCNN, Network

_LANES = 16  # float32 values in a vector of AVX-512; in AVX2's two registers


class FastSRCNN(Network):
    """An SRCNN of replicated borders and a second layer of 1x1, computed another way: equal but for the last bits.

    - Enlargement and first layer are both linear: for each of the scale * scale pixels that an LR pixel becomes, they
      are one convolution of the LR image (x3: 6 or 7 pixels wide). Where SRCNN replicates enlarged pixels, in a frame
      of `frame` LR pixels along the image's borders, SRCNN itself is computed.
    - The second layer follows before the pixels are put in their places.
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
        radius = net.conv3.kernel_size[0] // 2
        # LR pixels around a part, vertically and horizontally, whose features the last layer looks at.
        self.around = [-(-radius // net.scale), -(-(radius + self.run - 1) // net.scale)]
        planes = [F.pad(net.conv3.weight.detach(), (pixel, self.run - 1 - pixel)) for pixel in range(self.run)]
        last = torch.cat(planes).contiguous(memory_format=torch.channels_last)  # [run * C, features, k, k + run - 1]
        self.register_buffer("last", last, persistent=False)

    def body(self, x: Tensor) -> Tensor:
        return self.body_of_tile(x, [slice(0, side) for side in x.shape[2:]])

    def body_of_tile(self, x: Tensor, core: list[slice]) -> Tensor:
        height, width = (self.scale * (side.stop - side.start) for side in core)
        y = x.new_empty(len(x), height, width, self.channels).permute(0, 3, 1, 2)
        frame, sizes = self.frame, x.shape[2:]
        for rows, columns in product(*(self._bands(*axis) for axis in zip(core, sizes, strict=True))):
            part = [rows, columns]
            is_inside = all(frame <= s.start and s.stop <= n - frame for s, n in zip(part, sizes, strict=True))
            cut(y, part, core, self.scale).copy_(self._inside(x, part) if is_inside else self._by_srcnn(x, part))
        return y

    def _bands(self, side: slice, size: int) -> list[slice]:
        """An axis of a tile, cut where the frame ends."""
        edges = {side.start, side.stop, *({self.frame, size - self.frame} & set(range(side.start, side.stop)))}
        return [slice(start, stop) for start, stop in pairwise(sorted(edges))]

    def _by_srcnn(self, x: Tensor, core: list[slice]) -> Tensor:
        seen = grown(core, self.frame, x)
        read = grown(seen, self.net.preprocess_radius, x)
        enlarged = cut(self.net.preprocess(cut(x, read)), seen, read, self.scale)
        return cut(self.net.body(enlarged), core, seen, self.scale)

    def _inside(self, x: Tensor, core: list[slice]) -> Tensor:
        """SR of a part of x for which no replicated pixel counts."""
        net, scale, pad = self.net, self.scale, self.receptive_radius + max(self.around)  # more than is looked at
        height, width = (side.stop - side.start for side in core)
        rows, columns = (size + 2 * margin for size, margin in zip((height, width), self.around, strict=True))
        y = x.new_empty(len(x), rows * scale, columns * scale, net.conv2.out_channels).permute(0, 3, 1, 2)
        lr = symmetric_pad(symmetric_pad(x, pad, -2), pad, -1)
        for (row, column), (top, left) in self.corners.items():
            kernel = self.get_buffer(f"first{row}{column}")
            top, left = pad + core[0].start - self.around[0] + top, pad + core[1].start - self.around[1] + left
            seen = lr[..., top : top + rows + kernel.shape[2] - 1, left : left + columns + kernel.shape[3] - 1]
            features = F.conv2d(seen, kernel, net.conv1.bias).relu_()
            # Rows as a batch: torch gives a batch of one to a slower library if it has one thread.
            features = net.conv2(features.permute(2, 1, 0, 3), pad=False).relu_()
            y[..., row::scale, column::scale] = features.permute(2, 1, 0, 3)
        first_row, first_column = (margin * scale - net.conv3.kernel_size[0] // 2 for margin in self.around)
        y = y[..., first_row:, first_column:]
        y = F.conv2d(y, self.get_buffer("last"), net.conv3.bias.repeat(self.run), stride=(1, self.run))
        # [N, run * C, H, W / run] to [N, H, W, C]
        y = y.permute(0, 2, 3, 1).flatten(2).unflatten(2, (-1, self.channels))
        y = y[:, : height * scale, : width * scale].permute(0, 3, 1, 2)
        return y + cut(bicubic_up(x, scale), core, ratio=scale) if net.residual else y


def grown(part: list[slice], margin: int, image: Tensor) -> list[slice]:
    """A part of an image and the margin around it, as far as there is one."""
    sizes = image.shape[2:]
    return [slice(max(0, s.start - margin), min(n, s.stop + margin)) for s, n in zip(part, sizes, strict=True)]


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
