"""FSRCNN: SRCNN's successor by the same authors, at the LR size, with a transposed convolution as its last layer."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srcnn.errors import check_choice, check_range
from srcnn.image import shave
from srcnn.nets.base import Conv, Network, PReLU


class FSRCNN(Network):
    """Feature extraction, shrinking, mapping, expanding, then a deconvolution: LR [N, C, H, W] -> SR [N, C, s*H, s*W].

    `width` features (d in the paper), `shrunk` of them while mapping (s), `depth` mapping layers (m), PReLU after
    each; the defaults on luma are the published FSRCNN(56, 12, 4), and (32, 5, 1) is FSRCNN-s. All is padded with
    zeros, but for the deconvolution's features, which are replicated: zeros there cost 2 dB on the outermost pixels.
    It is placed so that SR and HR coincide. `residual` adds the input, enlarged by nearest neighbours, to the output.

    Dong et al., "Accelerating the Super-Resolution Convolutional Neural Network", ECCV 2016, section 3.2.
    Initialisation: "identity" starts as bilinear, the image passing through one filter a channel of each layer, or as
    what is added; "published" is He's for PReLU, with deviation 0.001 for the deconvolution. `slope`: one fixed slope
    for all PReLUs instead of learned ones (None).
    """

    def __init__(
        self,
        scale: int = 3,
        channels: int = 3,
        width: int = 56,
        shrunk: int = 12,
        depth: int = 4,
        residual: bool = False,
        init: str = "identity",
        slope: float | None = None,
    ):
        check_range("scale", scale, 1, 5)  # a kernel of 9 reaches no further
        check_range("width", width, channels)
        check_range("shrunk", shrunk, channels)
        check_range("depth", depth, 0)
        check_choice("init", init, ("identity", "published"))
        super().__init__(scale, channels)
        self.residual = residual
        planes = [(channels, width, 5), (width, shrunk, 1), *[(shrunk, shrunk, 3)] * depth, (shrunk, width, 1)]
        convs = [Conv(inputs, outputs, kernel, "zeros") for inputs, outputs, kernel in planes]
        self.features = nn.Sequential(*(layer for conv in convs for layer in (conv, PReLU(conv.out_channels, slope))))
        self.deconv = _Deconv(width, channels, scale)
        self.body_scale, self.receptive_radius = scale, 2 + depth + (8 - self.deconv.before) // scale
        for conv in convs:
            nn.init.kaiming_normal_(conv.weight, a=0.25)
            nn.init.zeros_(conv.bias)
        nn.init.normal_(self.deconv.weight, std=1e-3)
        nn.init.zeros_(self.deconv.bias)
        if init == "identity":
            self._init_identity()

    def body(self, x: Tensor) -> Tensor:
        y = self.deconv(self.features(x))
        return y + F.interpolate(x, scale_factor=self.scale, mode="nearest") if self.residual else y

    @torch.no_grad()
    def _init_identity(self) -> None:
        c = self.channels
        for layer in self.features:
            if isinstance(layer, Conv):
                nn.init.dirac_(layer.weight[:c])
        # Bilinear: a tent of twice the scale around the middle of the pixel's own.
        distance = torch.arange(9) - self.deconv.before - (self.scale - 1) / 2
        tent = (1 - distance.abs() / self.scale).clamp(min=0)
        nn.init.zeros_(self.deconv.weight)
        for channel in range(0 if self.residual else c):
            self.deconv.weight[channel, channel] = tent[:, None] * tent


class _Deconv(nn.ConvTranspose2d):
    """A transposed convolution, computed as one to scale * scale planes and a shuffle: in a fifth of the time on a CPU.

    In an exported file it is the transposed convolution.
    """

    bias: Tensor  # never None

    def __init__(self, inputs: int, outputs: int, scale: int):
        # Of the 9 pixels that a pixel is spread over, `before` lie before its own `scale` pixels.
        self.before, self.scale = (10 - scale) // 2, scale
        super().__init__(inputs, outputs, 9, scale, self.before, output_padding=2 * self.before + scale - 9)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        weight, pads = as_convolution(self.weight, self.scale, self.before)
        if torch.compiler.is_compiling():
            padded = F.pad(x, [max(pads)] * 4, "replicate")
            return shave(super().forward(padded, output_size), max(pads) * self.scale)
        y = F.conv2d(F.pad(x, pads, "replicate"), weight, self.bias.repeat_interleave(self.scale**2))
        return F.pixel_shuffle(y, self.scale)


def as_convolution(weight: Tensor, stride: int, before: int) -> tuple[Tensor, list[int]]:
    """A transposed convolution as one that a pixel shuffle follows: its weight, and what F.pad puts on before it.

    weight  [in, out, k, k] of a transposed convolution that makes `stride` times as many pixels
    before  its padding: pixels that it cuts off in front
    """
    # Zeros in front, so that the first of `stride` rows that a pixel gives begins a phase, and behind; then in reverse.
    front, last = -before % stride, -(-before // stride)
    kernel = F.pad(weight, (front, -(weight.shape[3] + front) % stride) * 2)
    taps = kernel.unflatten(3, (-1, stride)).unflatten(2, (-1, stride)).flip(2, 4)
    as_planes = taps.permute(1, 3, 5, 0, 2, 4)  # [out, phase y, phase x, in, tap y, tap x]
    return as_planes.flatten(0, 2), [taps.shape[2] - 1 - last, last] * 2
