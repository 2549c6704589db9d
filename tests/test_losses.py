import pytest
import torch

from srcnn.image import rgb_to_y
from srcnn.losses import PSNRLoss


def test_psnr_loss_is_minus_the_mean_of_decibels() -> None:
    hr = torch.zeros(2, 1, 4, 4)
    sr = torch.stack([torch.full((1, 4, 4), 0.1), torch.full((1, 4, 4), 0.01)])  # 20 dB and 40 dB
    assert float(PSNRLoss(floor=1e-12)(sr, hr)) == pytest.approx(-30.0)
    assert float(PSNRLoss(floor=1e-2)(sr[:1], hr[:1])) == pytest.approx(-20.0 + 3.0103)  # the error doubled


def test_psnr_loss_of_rgb_is_that_of_its_luma() -> None:
    torch.manual_seed(0)
    sr, hr = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8)
    luma = [rgb_to_y(image) * 255 / 219 for image in (sr, hr)]
    assert float(PSNRLoss(rgb=0.0)(sr, hr)) == pytest.approx(float(PSNRLoss()(*luma)), rel=1e-5)
    assert PSNRLoss(rgb=0.1)(sr, hr) > PSNRLoss(rgb=0.0)(sr, hr)
