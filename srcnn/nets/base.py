"""What every network here has: two steps, one fixed and one learned."""

import copy
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srcnn.errors import UserError, check_choice, check_range
from srcnn.image import cut, shave


class Network(nn.Module):
    """Super-resolution as `net(lr) = body(preprocess(lr))`: [N, C, H, W] -> [N, C, scale*H, scale*W].

    `preprocess` has no parameters; `body` is what is learned: a method of the subclass, or a module assigned to
    `self.body`. A subclass calls `super().__init__(scale, channels)` and sets these:

    scale              enlargement, 1 (the same size) to 8
    channels           3: RGB; 1: the luma Y
    body_scale         enlargement done inside `body`: 1 where `preprocess` enlarges, else `scale`
    receptive_radius   pixels of `body`'s input, on each side, that one of its pixels looks at: by these tiles overlap
    preprocess_radius  pixels of the LR image, on each side, that one pixel of `preprocess` looks at
    tile               rows and columns of `body`'s input that a CPU computes at a time: their features fit its cache
    """

    body: Callable[[Tensor], Tensor]
    body_scale: int
    receptive_radius: int
    preprocess_radius: int = 0
    tile: tuple[int, int] = (128, 256)

    def __init__(self, scale: int, channels: int = 3):
        super().__init__()
        if not 1 <= scale <= 8:
            raise UserError(f"scale={scale}: must be between 1 (the same size) and 8")
        if channels not in (1, 3):
            raise UserError(f"channels={channels}: choose 1 (luma) or 3 (RGB)")
        self.scale, self.channels = scale, channels

    def preprocess(self, lr: Tensor) -> Tensor:
        """The fixed first step: here none."""
        return lr

    def preprocess_of_crop(self, lr: Tensor) -> Tensor:
        """`preprocess` of a crop, less what `preprocess_radius` LR pixels become on each side.

        A network may compute less here (see SRCNN): the values are the same.
        """
        return shave(self.preprocess(lr), self.preprocess_radius * self.scale // self.body_scale)

    def forward(self, lr: Tensor) -> Tensor:
        return self.body(self.preprocess(lr))

    def body_of_tile(self, x: Tensor, core: list[slice]) -> Tensor:
        """What `body` makes of the rows and columns `core` of x; the rest of x lies around them as far as they look."""
        return cut(self.body(x), core, ratio=self.body_scale)

    def for_inference(self) -> "Network":
        """A network that computes the same in less time, but for a float's last bits; by default with other strides."""
        return copy.deepcopy(self).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def train_border(self) -> int:
        """HR pixels of a training patch, on each side, that the loss leaves out: by default as many as a score does.

        What pads with zeros, as nn.Conv2d does, treats an image's border as it has learned to treat a crop's, so the
        loss must see that. PSNR of T91's held-out images x3, and of their outer 12 pixels alone, in dB: a network of
        four layers with nothing left out 28.21, 28.77; with all left out that a border touches 28.05, 27.89. Of ten
        layers, whose crops are border all over, with 0 or 6 pixels left out 28.46, 28.45; with replicated borders
        28.39, 28.43. Zeros and a small border, then. Only where a few replicated borders are all there is, as in
        SRCNN, may what they touch be left out, and then it need not be computed.
        """
        return self.scale

    def body_of_crop(self, x: Tensor) -> Tensor:
        """`body` of a training crop, less `train_border` HR pixels a side.

        A network may compute less where all that is left out is what a border touches (see `Conv`).
        """
        return shave(self.body(x), self.train_border)

    @property
    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    def multiply_adds(self) -> int:
        """Of `body`'s convolutions for an SR image of 1280x720, as papers count them."""
        counts = []

        def count(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            pixels = inputs[0] if isinstance(layer, nn.ConvTranspose2d) else output
            counts.append(pixels[:, 0].numel() * cast(Tensor, layer.weight).numel())

        net, side = copy.deepcopy(self).float().cpu(), 16 * self.scale
        for layer in net.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                layer.register_forward_hook(count)
        with torch.no_grad():
            net.body(torch.zeros(1, self.channels, side // self.body_scale, side // self.body_scale))
        return sum(counts) * 1280 * 720 // side**2


class ShallowNetwork(Network):
    """A network of few `Conv` layers with replicated borders: all that a crop's border touches is not even computed."""

    def layers(self, x: Tensor, pad: bool) -> Tensor:
        """What is learned; with `pad=False` only what no border touches."""
        raise NotImplementedError

    def body(self, x: Tensor) -> Tensor:
        return self.layers(x, pad=True)

    def body_of_crop(self, x: Tensor) -> Tensor:
        return self.layers(x, pad=False)

    @property
    def train_border(self) -> int:
        return self.receptive_radius * self.body_scale


class Conv(nn.Conv2d):
    """A convolution of odd kernel that keeps the size, or with `pad=False` computes only what no border touches."""

    bias: Tensor  # never None

    def __init__(self, in_channels: int, out_channels: int, kernel: int, padding_mode: str):
        check_range("widths", out_channels, 1)
        check_range("kernels", kernel, 1)
        if kernel % 2 == 0:
            raise UserError(f"kernels={kernel}: must be odd, so that a kernel has a middle")
        check_choice("padding_mode", padding_mode, ("replicate", "zeros", "reflect", "circular"))
        mode = cast(Any, padding_mode)
        super().__init__(in_channels, out_channels, kernel, padding=kernel // 2, padding_mode=mode)

    def forward(self, x: Tensor, pad: bool = True) -> Tensor:
        return super().forward(x) if pad else F.conv2d(x, self.weight, self.bias)


def three_layers(planes: Sequence[int], kernels: Sequence[int], padding_mode: str) -> list[Conv]:
    """Convolutions of these kernels between these numbers of channels: the image's, two widths, the result's."""
    if len(kernels) != 3 or len(planes) != 4:
        given = f"kernels={list(kernels)} widths={list(planes[1:-1])}"
        raise UserError(f"{given}: three kernels and two widths are needed")
    return [Conv(planes[i], planes[i + 1], kernels[i], padding_mode) for i in range(3)]


def as_convolution(weight: Tensor, stride: int, before: int) -> tuple[Tensor, list[int]]:
    """A transposed convolution as one that a pixel shuffle follows: its weight, and the zeros that F.pad puts on.

    weight  [in, out, k, k] of a transposed convolution that makes `stride` times as many pixels
    before  its padding: pixels that it cuts off in front
    """
    first, last = -(-(before - weight.shape[2] + 1) // stride), (stride - 1 + before) // stride
    # Pixel `phase` of the output takes weight phase + before - stride * tap of the input pixel `tap` ahead.
    index = torch.arange(stride)[:, None] + before - stride * torch.arange(first, last + 1)  # [phase, tap]
    index = index.to(weight.device)
    there = (index >= 0) & (index < weight.shape[2])
    rows = weight[:, :, index.clamp(0, weight.shape[2] - 1)] * there[:, :, None]  # [in, out, phase, tap, k]
    both = rows[..., index.clamp(0, weight.shape[2] - 1)] * there  # [in, out, phase, tap, phase, tap]
    return both.permute(1, 2, 4, 0, 3, 5).flatten(0, 2), [-first, last] * 2


class PReLU(nn.PReLU):
    """nn.PReLU, trained as two ReLUs: in bf16 on a CPU torch's takes six times as long, more than a convolution."""

    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return super().forward(x)
        return F.relu(x) - self.weight.to(x.dtype).view(-1, 1, 1) * F.relu(-x)
