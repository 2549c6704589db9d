"""ESPCN: the same idea at the LR size, about scale^2 times cheaper; also the pattern for adding a network."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from srcnn.nets.base import Network, three_layers


class ESPCN(Network):
    """Three convolutions on the LR image, then a pixel shuffle: LR [N, C, H, W] -> SR [N, C, scale*H, scale*W].

    Shi et al., "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel Convolutional Neural
    Network", CVPR 2016, equations 1 to 4; tanh as in its section 3.2.
    """

    def __init__(
        self,
        scale: int = 3,
        channels: int = 3,
        kernels: Sequence[int] = (5, 3, 3),
        widths: Sequence[int] = (64, 32),
        padding_mode: str = "replicate",
    ):
        super().__init__(scale, channels)
        self.body_scale = scale
        self.receptive_radius = sum(kernel // 2 for kernel in kernels)
        planes = (channels, *widths, channels * scale**2)
        self.conv1, self.conv2, self.conv3 = three_layers(planes, kernels, padding_mode)

    def body(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.conv1(x))
        y = torch.tanh(self.conv2(y))
        return F.pixel_shuffle(self.conv3(y), self.scale)
