"""What every network here has: two steps, one fixed and one learned."""

from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor, nn


class Network(nn.Module):
    """Super-resolution as `net(lr) = body(preprocess(lr))`: [N, C, H, W] -> [N, C, scale*H, scale*W].

    `preprocess` has no parameters and runs once over a whole training image; `body` is what is learned, and runs
    on crops of what `preprocess` gave. A subclass defines `body` and these:

    scale             enlargement
    channels          3: RGB; 1: the luma Y
    body_scale        enlargement done inside `body`: 1 when `preprocess` enlarges, else `scale`
    receptive_radius  pixels of `body`'s input, on each side, that one of its pixels looks at
    preprocess_radius pixels of the LR image, on each side, that one pixel of `preprocess` looks at
    """

    scale: int
    channels: int
    body_scale: int
    receptive_radius: int
    preprocess_radius: int = 0

    def preprocess(self, lr: Tensor) -> Tensor:
        """The fixed first step: here none."""
        return lr

    def body(self, x: Tensor, pad: bool = True) -> Tensor:
        """The learned step; with `pad=False` only those pixels that no border touches.

        [N, C, h, w] -> [N, C, body_scale*h, body_scale*w]; with `pad=False` h and w count less 2*receptive_radius,
        and the result equals the inner part of the padded one. Training asks for that: a crop's border is not the
        image's, and computing it would be work thrown away.
        """
        raise NotImplementedError

    def forward(self, lr: Tensor) -> Tensor:
        return self.body(self.preprocess(lr))

    @property
    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())


class Conv(nn.Conv2d):
    """A convolution of odd kernel that keeps the size, or with `pad=False` only what needs no border."""

    bias: Tensor  # never None

    def __init__(self, in_channels: int, out_channels: int, kernel: int, padding_mode: str):
        if kernel % 2 == 0:
            raise ValueError(f"kernel {kernel}: must be odd, so that it has a middle")
        if min(in_channels, out_channels, kernel) < 1:
            raise ValueError(f"kernel {kernel} from {in_channels} to {out_channels} planes: must be at least 1 each")
        mode = cast(Any, padding_mode)  # torch refuses any but its own
        super().__init__(in_channels, out_channels, kernel, padding=kernel // 2, padding_mode=mode)

    def forward(self, x: Tensor, pad: bool = True) -> Tensor:
        return super().forward(x) if pad else F.conv2d(x, self.weight, self.bias)
