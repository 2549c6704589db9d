"""What every network has: a fixed step, a learned step, and the arguments that it was made with."""

import copy
import inspect
from collections.abc import Callable, Sequence
from typing import Any, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srcnn.errors import UserError, check_choice, check_range
from srcnn.image import bicubic_up, cut, gray_of, rgb_to_y, rgb_to_ycbcr, ycbcr_to_rgb

NETWORKS: dict[str, type["Network"]] = {}  # by class name: what a checkpoint may name


class Network(nn.Module):
    """Super-resolution as `net(lr) = body(preprocess(lr))`: [N, C, H, W] -> [N, C, scale*H, scale*W].

    `preprocess` has no parameters; `body` is what is learned: a method of the subclass, or a module assigned to
    `self.body`. A subclass calls `super().__init__(scale, channels)` and sets these:

    scale              enlargement, 1 (the same size) to 8
    channels           3: RGB; 1: the luma Y
    body_scale         enlargement done inside `body`: 1 where `preprocess` enlarges, else `scale`
    receptive_radius   pixels of `body`'s input, on each side, that one of its pixels depends on: tiles overlap by these
    preprocess_radius  pixels of the LR image, on each side, that one pixel of `preprocess` depends on
    margin             LR pixels, on each side, by which training crops are larger than asked for, if `valid` leaves out
                       more than the layers' own radius
    tile               rows and columns of `body`'s input that a CPU computes at a time: their features fit its cache

    `arguments` holds the constructor's arguments, so that a checkpoint can say how to build the network; they must be
    numbers, strings, None, or lists of them. `srcnn.check(net)` tells whether all this holds.
    """

    body: Callable[[Tensor], Tensor]
    body_scale: int
    receptive_radius: int
    preprocess_radius: int = 0
    margin: int = 0
    tile: tuple[int, int] = (128, 256)
    arguments: dict[str, Any]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        known = NETWORKS.get(cls.__name__, cls)
        if known.__module__ != cls.__module__:
            raise UserError(f"{cls.__module__}: {known.__module__} has a network {cls.__name__} too; rename yours")
        NETWORKS[cls.__name__] = cls  # of a cell that is run again the new one

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        net = super().__new__(cls)
        try:
            bound = inspect.signature(cls.__init__).bind(net, *args, **kwargs)
        except TypeError:  # __init__ will say so itself; copy.copy and pickle call without arguments
            return net
        bound.apply_defaults()
        named = dict(list(bound.arguments.items())[1:])  # without self; **options beside the others
        for name, parameter in bound.signature.parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                named |= named.pop(name)
        # A tuple and OmegaConf's lists become lists.
        net.arguments = {
            key: list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
            for key, value in named.items()
        }
        return net

    def __init__(self, scale: int, channels: int = 3):
        super().__init__()
        if type(scale) is not int or scale not in range(1, 9):
            raise UserError(f"scale={scale}: must be a whole number between 1 (the same size) and 8")
        check_choice("channels", channels, (1, 3))
        self.scale, self.channels = scale, channels

    def preprocess(self, lr: Tensor) -> Tensor:
        """The fixed first step: here none."""
        return lr

    def forward(self, lr: Tensor) -> Tensor:
        return self.body(self.preprocess(lr))

    def valid(self, lr: Tensor) -> Tensor:
        """SR of a training crop, or the middle of it: the loss compares it with the middle of HR.

        All of it by default. What pads with zeros, as nn.Conv2d does, treats an image's border as it has learned to
        treat a crop's, so the loss must see that: with a border of `scale` pixels left out, the outermost LR pixel is
        up to 8 dB worse than bicubic. Only where replicated borders are all that is left out, as in SRCNN, may what
        they touch be left out, and then it need not be computed.
        """
        return self(lr)

    def upscale(self, lr: Tensor) -> Tensor:
        """An RGB or gray image [N, 3 or 1, H, W] -> SR with as many channels, whatever the network works on.

        A network on Y enlarges Cb and Cr bicubically; a gray image goes through an RGB network as three equal channels.
        """
        if lr.shape[1] == self.channels:
            return self(lr)
        if self.channels == 3:
            return gray_of(self(lr.expand(-1, 3, -1, -1)))
        chroma = bicubic_up(rgb_to_ycbcr(lr)[:, 1:], self.scale)
        return ycbcr_to_rgb(torch.cat([self(rgb_to_y(lr)), chroma], dim=1))

    def body_of_tile(self, x: Tensor, core: list[slice]) -> Tensor:
        """What `body` makes of the rows and columns `core` of x; the rest of x is what they depend on."""
        return cut(self.body(x), core, ratio=self.body_scale)

    def for_inference(self) -> "Network":
        """A network that computes the same in less time, but for a float's last bits; by default with other strides."""
        return copy.deepcopy(self).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    def multiply_adds(self) -> int:
        """Of `body`'s convolutions for an SR image of 1280x720, as papers count them."""
        counts = []

        def count(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            # Each weight counts once for every output pixel, of a transposed convolution for every input pixel.
            pixels = inputs[0] if isinstance(layer, nn.ConvTranspose2d) else output
            counts.append(pixels[:, 0].numel() * cast(Tensor, layer.weight).numel())

        net, side = copy.deepcopy(self).float().cpu(), 16 * self.scale
        for layer in net.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                layer.register_forward_hook(count)
        with torch.no_grad():
            net.body(torch.zeros(1, self.channels, side // self.body_scale, side // self.body_scale))
        return sum(counts) * 1280 * 720 // side**2


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
        found = f"kernels={list(kernels)} widths={list(planes[1:-1])}"
        raise UserError(f"{found}: three kernels and two widths are needed")
    return [Conv(planes[i], planes[i + 1], kernels[i], padding_mode) for i in range(3)]


class PReLU(nn.PReLU):
    """nn.PReLU with slopes that are learned, one a channel, or all fixed at `slope`, and then in place.

    Learned slopes are computed as two ReLUs, as torch's own take six times as long in bf16 on a CPU. Fixed ones take a
    sixth of the two ReLUs' time, and in a file they look like learned ones. In place: what comes in has to be needed by
    nothing else, as the result of a convolution is not.
    """

    def __init__(self, channels: int, slope: float | None = None):
        super().__init__(channels, 0.25 if slope is None else slope)
        self.slope = slope
        self.weight.requires_grad_(slope is None)

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        if self.slope is not None:  # of a file with learned slopes: what is stored is what is computed
            nn.init.constant_(self.weight, self.slope)

    def forward(self, x: Tensor) -> Tensor:
        if self.slope is not None:
            return F.leaky_relu(x, self.slope, inplace=True)
        if not torch.is_grad_enabled():
            return super().forward(x)
        return F.relu(x) - self.weight.to(x.dtype).view(-1, 1, 1) * F.relu(-x)
