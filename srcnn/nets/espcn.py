"""ESPCN: the same idea at the LR size, about scale^2 times cheaper; also the pattern for adding a network."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srcnn.nets.base import Network, three_layers


class ESPCN(Network):
    """Three convolutions on the LR image, then a pixel shuffle: LR [N, C, H, W] -> SR [N, C, scale*H, scale*W].

    Shi et al., "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel Convolutional Neural
    Network", CVPR 2016, equations 1 to 4; tanh as in its section 3.2. `residual` adds the input, enlarged by nearest
    neighbours, to the output; the network then starts as that.
    """

    def __init__(
        self,
        scale: int = 3,
        channels: int = 3,
        kernels: Sequence[int] = (5, 3, 3),
        widths: Sequence[int] = (64, 32),
        residual: bool = False,
        padding_mode: str = "replicate",
    ):
        super().__init__(scale, channels)
        self.body_scale, self.residual = scale, residual
        self.receptive_radius = sum(kernel // 2 for kernel in kernels)
        planes = (channels, *widths, channels * scale**2)
        self.conv1, self.conv2, self.conv3 = three_layers(planes, kernels, padding_mode)
        if residual:
            nn.init.zeros_(self.conv3.weight)
            nn.init.zeros_(self.conv3.bias)

    def body(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.conv1(x))
        y = torch.tanh(self.conv2(y))
        y = self.conv3(y)
        if self.residual:  # the nearest neighbour, added before the shuffle, as in Compact
            y = y + x.repeat_interleave(self.scale**2, dim=1)
        return F.pixel_shuffle(y, self.scale)
