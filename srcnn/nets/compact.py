"""Compact (SRVGGNetCompact): a plain stack of 3x3 convolutions at the LR size; the zoo's best for its cost."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srcnn.errors import check_choice, check_range
from srcnn.image import bicubic_up
from srcnn.nets.base import Conv, Network, PReLU


class Compact(Network):
    """3x3 convolutions with PReLU on the LR image, a pixel shuffle, and the input enlarged is added.

    LR [N, C, H, W] -> SR [N, C, scale*H, scale*W]. `width` filters a layer, `depth` layers between the first and the
    last. `skip` is what is added: nearest neighbour as published, or bicubic. The convolutions pad with zeros, and
    the weights are named body.0.weight, body.0.bias, body.1.weight (PReLU's slopes) and so on, as published: a file
    of this network on RGB with the nearest skip opens unchanged in chaiNNer and other programs that use spandrel.

    Published as SRVGGNetCompact in Wang et al., "Real-ESRGAN" (ICCVW 2021), its repository's small model, with
    width=64 and depth=16 (animevideo-v3) or 32 (general-v3). Initialisation: "published" is PyTorch's own, with slopes
    of 0.25; "identity" the same but for a last layer of zeros, so that it starts as what is added. `slope`: one fixed
    slope for all PReLUs instead of learned ones (None).
    """

    def __init__(
        self,
        scale: int = 3,
        channels: int = 3,
        width: int = 16,
        depth: int = 8,
        skip: str = "nearest",
        init: str = "identity",
        slope: float | None = None,
    ):
        check_range("width", width, 1)
        check_range("depth", depth, 0)
        check_choice("skip", skip, ("nearest", "bicubic"))
        check_choice("init", init, ("identity", "published"))
        super().__init__(scale, channels)
        self.body_scale, self.receptive_radius = scale, max(depth + 2, 2 * (skip == "bicubic"))
        self.body = _Body(scale, channels, width, depth, skip, init, slope)

    def preprocess(self, lr: Tensor) -> Tensor:
        # An LR image in floating point leaves [0, 1] beside sharp edges, which images of 8 bits, as trained on, never
        # do: without the clamp that costs 4 dB on an image of text.
        return lr.clamp(0, 1)

    def for_inference(self) -> Network:
        net: Any = super().for_inference()
        if (slope := net.body[1].slope) is not None:
            for index in range(0, len(net.body) - 1, 2):
                net.body[index] = _WithLeakyReLU(net.body[index], slope)
                net.body[index + 1] = nn.Identity()
        return net


class _Body(nn.Sequential):
    def __init__(self, scale: int, channels: int, width: int, depth: int, skip: str, init: str, slope: float | None):
        layers: list[nn.Module] = [Conv(channels, width, 3, "zeros"), PReLU(width, slope)]
        for _ in range(depth):
            layers += [Conv(width, width, 3, "zeros"), PReLU(width, slope)]
        last = Conv(width, channels * scale**2, 3, "zeros")
        if init == "identity":
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        super().__init__(*layers, last)
        self.scale, self.skip = scale, skip

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        if self.skip == "bicubic":
            return F.pixel_shuffle(y, self.scale) + bicubic_up(x, self.scale)
        # The nearest neighbour, added before the shuffle: a fifth of the whole's time less on a CPU.
        return F.pixel_shuffle(y + x.repeat_interleave(self.scale**2, dim=1), self.scale)


class _WithLeakyReLU(nn.Module):
    """A 3x3 convolution and a leaky ReLU in one call of oneDNN's: a sixth less time than in two (bf16, Xeon with AMX).

    As torch.compile would call it, which takes longer to compile than images take.
    """

    def __init__(self, conv: Conv, slope: float):
        super().__init__()
        self.conv, self.slope = conv, slope
        self.packed: dict[torch.dtype, tuple[Tensor, Tensor]] = {}  # weight, in oneDNN's own layout, and bias

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"packed": {}}  # such tensors cannot be copied

    def forward(self, x: Tensor) -> Tensor:
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        sides, onednn = ([1, 1], [1, 1], [1, 1], 1), torch.ops.mkldnn  # padding, stride, dilation; groups
        is_known = x.device.type == "cpu" and torch.backends.mkldnn.is_available()
        is_known &= dtype == torch.float32 or (dtype == torch.bfloat16 and onednn._is_mkldnn_bf16_supported())
        if not is_known:
            return F.leaky_relu(self.conv(x), self.slope)
        if dtype not in self.packed:
            weight = onednn._reorder_convolution_weight(self.conv.weight.to(dtype), *sides, list(x.shape))
            self.packed[dtype] = weight, self.conv.bias.to(dtype)
        return onednn._convolution_pointwise(x.to(dtype), *self.packed[dtype], *sides, "leaky_relu", [self.slope], "")
