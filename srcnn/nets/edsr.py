"""EDSR-baseline: residual blocks without normalisation at the LR size, for a GPU."""

import torch
from torch import Tensor, nn

from srcnn.errors import check_choice, check_range
from srcnn.nets.base import Conv, Network


class EDSR(Network):
    """A convolution, residual blocks, a convolution, pixel shuffles: LR [N, C, H, W] -> SR [N, C, scale*H, scale*W].

    The default, 16 blocks of 64 filters, is EDSR-baseline: 1.37, 1.55 and 1.52 million parameters for x2, x3 and x4.
    A scale of 4 or 8 is reached in steps of 2. All is padded with zeros; the mean colour of DIV2K is taken off before
    and added after.

    Lim et al., "Enhanced Deep Residual Networks for Single Image Super-Resolution", CVPRW 2017, section 3 and table 1.
    Initialisation: "published" is PyTorch's; "identity" the same but that each block starts as nothing added.
    """

    tile = (32, 64)  # LR pixels: the last layers have as many features of each SR pixel

    def __init__(
        self,
        scale: int = 3,
        channels: int = 3,
        width: int = 64,
        depth: int = 16,
        residual_scale: float = 1.0,
        init: str = "identity",
    ):
        check_range("width", width, 1)
        check_range("depth", depth, 1)
        check_choice("init", init, ("identity", "published"))
        super().__init__(scale, channels)
        mean = torch.tensor([0.4488, 0.4371, 0.4040] if channels == 3 else [0.4435])  # of DIV2K; luma: of that colour
        self.register_buffer("mean", mean.view(1, -1, 1, 1), persistent=False)
        self.head = Conv(channels, width, 3, "zeros")
        blocks = [_Block(width, residual_scale) for _ in range(depth)]
        self.blocks = nn.Sequential(*blocks, Conv(width, width, 3, "zeros"))
        steps = [2] * (scale.bit_length() - 1) if scale in (2, 4, 8) else [scale]
        tail: list[nn.Module] = []
        for step in steps:
            tail += [Conv(width, width * step**2, 3, "zeros"), nn.PixelShuffle(step)]
        self.tail = nn.Sequential(*tail, Conv(width, channels, 3, "zeros"))
        if init == "identity":
            for block in blocks:
                nn.init.zeros_(block.conv2.weight)
                nn.init.zeros_(block.conv2.bias)
        # Head, blocks, the convolution after them; 2 for the tail, whose last convolutions look at HR pixels.
        self.body_scale, self.receptive_radius = scale, 1 + 2 * depth + 1 + 2

    def body(self, x: Tensor) -> Tensor:
        mean = self.get_buffer("mean")
        y = self.head(x - mean)
        return self.tail(y + self.blocks(y)) + mean


class _Block(nn.Module):
    def __init__(self, width: int, residual_scale: float):
        super().__init__()
        self.conv1, self.conv2 = (Conv(width, width, 3, "zeros") for _ in range(2))
        self.residual_scale = residual_scale

    def forward(self, x: Tensor) -> Tensor:
        return x + self.residual_scale * self.conv2(torch.relu(self.conv1(x)))
