"""SRCNN for inference on a CPU: the same function of the LR image by half the multiply-adds, in a third of the time."""

import torch
import torch.nn.functional as F
from torch import Tensor

from srcnn.image import bicubic_up, cut, grown, shave, symmetric_pad
from srcnn.nets import SRCNN, Network

_LANES = 16  # float32 values in a vector of AVX-512; in AVX2's two registers


class FastSRCNN(Network):
    """An SRCNN of replicated borders and a second layer of 1x1, computed another way: equal but for the last bits.

    - Enlargement and first layer are both linear: together one convolution of the LR image, which gives the features of
      the scale * scale pixels that an LR pixel becomes. Where SRCNN replicates enlarged pixels, in a frame of `frame`
      LR pixels along the image's borders, SRCNN itself is computed.
    - The second layer follows before the pixels are put in their places.
    - The last layer makes several pixels of a row at a time: one pixel's planes would fill 3 of 16 lanes of a vector.
    """

    tile = (32, 128)  # LR pixels, of which each has scale * scale times the features

    def __init__(self, net: SRCNN):
        super().__init__(net.scale, net.channels)
        self.net, self.body_scale = net, net.scale
        self.frame = -(-net.receptive_radius // net.scale)
        self.receptive_radius = self.frame + net.preprocess_radius
        # What a lone pixel of 1 becomes, turned around, is the kernel; around it only zeros.
        units = F.pad(torch.eye(net.channels, dtype=torch.float64)[..., None, None], [2 * self.receptive_radius] * 4)
        weight, last = net.conv1.weight.detach(), net.conv3.weight.detach()
        features = F.conv2d(bicubic_up(units.to(weight.device), net.scale), weight.double(), padding="same")
        kernels = F.pixel_unshuffle(features, net.scale).flip(2, 3).transpose(0, 1).unflatten(0, (len(weight), -1))
        first = kernels.transpose(0, 1).flatten(0, 1)  # [scale * scale * features, C, k, k]
        first = shave(first, int(first.abs().amax((0, 1, 2)).nonzero()[0])).to(weight.dtype)
        self.run = _LANES // net.channels  # pixels of a row that the last layer makes at a time
        planes = torch.cat([F.pad(last, (pixel, self.run - 1 - pixel)) for pixel in range(self.run)])
        for name, kernel in (("first", first), ("last", planes)):  # the latter [run * C, features, k, k + run - 1]
            self.register_buffer(name, kernel.contiguous(memory_format=torch.channels_last), persistent=False)

    def body(self, x: Tensor) -> Tensor:
        return self.body_of_tile(x, [slice(0, side) for side in x.shape[2:]])

    def body_of_tile(self, x: Tensor, core: list[slice]) -> Tensor:
        y = self._inside(x, core)
        for axis, size in enumerate(x.shape[2:]):
            for start, stop in ((0, self.frame), (size - self.frame, size)):
                strip = [*core]
                strip[axis] = slice(max(core[axis].start, start), min(core[axis].stop, stop))
                if strip[axis].start < strip[axis].stop:
                    cut(y, strip, core, self.scale).copy_(self._by_srcnn(x, strip))
        return y

    def _by_srcnn(self, x: Tensor, core: list[slice]) -> Tensor:
        seen = grown(core, self.frame, x)
        read = grown(seen, self.net.preprocess_radius, x)
        enlarged = cut(self.net.preprocess(cut(x, read)), seen, read, self.scale)
        return cut(self.net.body(enlarged), core, seen, self.scale)

    def _inside(self, x: Tensor, core: list[slice]) -> Tensor:
        """SR of a part of x, right wherever no replicated pixel counts."""
        net, scale, first, last = self.net, self.scale, self.get_buffer("first"), self.get_buffer("last")
        radius = last.shape[2] // 2
        # LR pixels around the part, vertically and horizontally, whose features the last layer looks at.
        around = [-(-reach // scale) for reach in (radius, radius + self.run - 1)]
        pads = [margin + first.shape[2] // 2 for margin in around]
        lr = symmetric_pad(symmetric_pad(x, pads[0], -2), pads[1], -1)
        rows, columns = (slice(side.start, side.stop + 2 * pad) for side, pad in zip(core, pads, strict=True))
        y = F.conv2d(lr[..., rows, columns], first, net.conv1.bias.repeat(scale**2)).relu_()
        # Rows as a batch: torch gives a batch of one to a slower library if it has one thread.
        y = y.permute(2, 0, 3, 1).unflatten(3, (scale**2, -1)).flatten(2, 3)  # [rows, N, columns * scale^2, features]
        y = net.conv2(y.permute(0, 3, 1, 2), pad=False).relu_()
        y = y.permute(2, 0, 3, 1).unflatten(2, (-1, scale, scale)).transpose(2, 3)  # [N, rows, scale, columns, …]
        y = y.flatten(1, 2).flatten(2, 3).permute(0, 3, 1, 2)
        y = y[..., around[0] * scale - radius :, around[1] * scale - radius :]
        y = F.conv2d(y, last, net.conv3.bias.repeat(self.run), stride=(1, self.run))
        # [N, run * C, H, W / run] to [N, C, H, W]
        y = y.permute(0, 2, 3, 1).flatten(2).unflatten(2, (-1, self.channels)).permute(0, 3, 1, 2)
        height, width = (scale * (side.stop - side.start) for side in core)
        y = y[..., :height, :width]
        return y + cut(bicubic_up(x, scale), core, ratio=scale) if net.residual else y
