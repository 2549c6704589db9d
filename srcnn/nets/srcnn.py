"""SRCNN, the first convolutional network for super-resolution."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srcnn.errors import check_choice
from srcnn.image import bicubic_up, shave
from srcnn.nets.base import Network, three_layers


class SRCNN(Network):
    """Bicubic enlargement, then patch extraction, non-linear mapping and reconstruction: three convolutions.

    LR [N, C, H, W] in [0, 1] -> SR [N, C, scale*H, scale*W]. The default, 9-1-5 with 64 and 32 filters on RGB, has
    20,099 parameters. `residual` adds the enlarged input to the output. Borders are replicated, as the authors'
    MATLAB code does. Initialisation: "identity" starts as bicubic, the first filters passing the image through;
    "default" is PyTorch's; "paper" is Gaussian with deviation 0.001 and no bias.

    Dong et al., "Image Super-Resolution Using Deep Convolutional Networks", TPAMI 2016, equations 1 to 3.
    """

    body_scale = 1
    preprocess_radius = 2  # bicubic's

    def __init__(
        self,
        scale: int = 3,
        channels: int = 3,
        kernels: Sequence[int] = (9, 1, 5),
        widths: Sequence[int] = (64, 32),
        residual: bool = False,
        padding_mode: str = "replicate",
        init: str = "identity",
    ):
        check_choice("init", init, ("default", "identity", "paper"))
        super().__init__(scale, channels)
        self.residual = residual
        self.margin = self.preprocess_radius if padding_mode == "replicate" else 0
        self.receptive_radius = sum(kernel // 2 for kernel in kernels)
        planes = (channels, *widths, channels)
        self.conv1, self.conv2, self.conv3 = three_layers(planes, kernels, padding_mode)
        if init == "identity":
            self._init_identity()
        elif init == "paper":
            for conv in (self.conv1, self.conv2, self.conv3):
                nn.init.normal_(conv.weight, std=1e-3)
                nn.init.zeros_(conv.bias)

    def preprocess(self, lr: Tensor) -> Tensor:
        return bicubic_up(lr, self.scale)

    def body(self, x: Tensor) -> Tensor:
        return self._layers(x, pad=True)

    def valid(self, lr: Tensor) -> Tensor:
        if not self.margin:  # other borders than replicated ones are trained too
            return self(lr)
        # Less what a border touches, of bicubic (2 * scale) and of the layers (receptive_radius).
        return self._layers(bicubic_up(lr, self.scale, pad=False), pad=False)

    def _layers(self, x: Tensor, pad: bool) -> Tensor:
        y = F.relu(self.conv1(x, pad))
        y = F.relu(self.conv2(y, pad))
        y = self.conv3(y, pad)
        if self.residual:
            y = y + (x if pad else shave(x, self.receptive_radius))
        return y

    @torch.no_grad()
    def _init_identity(self) -> None:
        # The image's channels pass through the first filters of each layer (they are positive, so ReLU keeps them);
        # the other filters keep PyTorch's random weights, but the last layer ignores them at first.
        c = self.channels
        for conv in (self.conv1, self.conv2, self.conv3):
            nn.init.dirac_(conv.weight[:c])
            nn.init.zeros_(conv.bias[:c])
        if self.residual:
            nn.init.zeros_(self.conv3.weight)
