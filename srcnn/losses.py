"""Losses beyond those of torch.nn."""

import torch
from torch import Tensor, nn

from srcnn.errors import check_range
from srcnn.image import rgb_to_y


class PSNRLoss(nn.Module):
    """Minus the mean PSNR of the patches, in dB, on what PSNR is measured on: mostly the luma.

    A mean of squared errors is ruled by the few patches with the strongest edges; decibels are averaged over images,
    where a gain counts by its ratio. [N, 1 or 3, H, W] twice -> scalar. After Chen et al., "HINet", CVPRW 2021.

    rgb    weight of the RGB error beside the luma's, so that colours are learned as well
    floor  added to a patch's squared error, so that nearly uniform ones do not take over
    """

    def __init__(self, rgb: float = 0.1, floor: float = 1e-3):
        super().__init__()
        check_range("rgb", rgb, 0)
        check_range("floor", floor, 1e-12, 1)
        self.rgb, self.floor = rgb, floor

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        error = sr - hr
        squared = error.square().mean((1, 2, 3))
        if error.shape[1] == 3:
            luma = (rgb_to_y(error) - 16 / 255) * (255 / 219)  # of a difference, in its full range
            squared = self.rgb * squared + luma.square().mean((1, 2, 3))
        return 10 * torch.log10(squared + self.floor).mean()
