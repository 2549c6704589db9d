"""VDSR: twenty layers that learn what the enlarged image lacks."""

import torch.nn.functional as F
from torch import Tensor, nn

from srcnn.errors import check_choice, check_range
from srcnn.image import bicubic_up
from srcnn.nets.base import Conv, Network


class VDSR(Network):
    """Bicubic enlargement, then `depth` 3x3 convolutions whose result is added to it: [N, C, H, W] -> [N, C, s*H, s*W].

    The default on luma, 20 layers of 64 filters with ReLU, has 665,921 parameters. It computes at the HR size: 260
    times the work of Compact at x3. All is padded with zeros.

    Kim et al., "Accurate Image Super-Resolution Using Very Deep Convolutional Networks", CVPR 2016, section 3.1.
    Initialisation: "published" is He's; "identity" the same but for a last layer of zeros, so that it starts as
    bicubic.
    """

    body_scale = 1
    preprocess_radius = 2  # bicubic's

    def __init__(
        self,
        scale: int = 3,
        channels: int = 3,
        width: int = 64,
        depth: int = 20,
        init: str = "identity",
    ):
        check_range("width", width, 1)
        check_range("depth", depth, 2)
        check_choice("init", init, ("identity", "published"))
        super().__init__(scale, channels)
        self.receptive_radius = depth
        planes = [channels, *[width] * (depth - 1), channels]
        layers = [Conv(planes[i], planes[i + 1], 3, "zeros") for i in range(depth)]
        for conv in layers:
            nn.init.kaiming_normal_(conv.weight)
            nn.init.zeros_(conv.bias)
        if init == "identity":
            nn.init.zeros_(layers[-1].weight)
        self.layers = nn.ModuleList(layers)

    def preprocess(self, lr: Tensor) -> Tensor:
        return bicubic_up(lr, self.scale)

    def body(self, x: Tensor) -> Tensor:
        *first, last = self.layers
        y = x
        for conv in first:
            y = F.relu(conv(y))
        return x + last(y)
