import io

import numpy as np
import pytest
import torch
from PIL import Image

from srcnn.data.camera import Camera
from srcnn.data.degrade import Bicubic, Given
from srcnn.data.leaves import Leaves
from srcnn.errors import UserError
from srcnn.image import bicubic_down, to_uint8
from srcnn.metrics import psnr


def test_camera_depends_on_seed_name_and_version_alone() -> None:
    hr, _ = Leaves(0, 60, seed=0).read()
    camera = Camera()
    one = camera(hr, 3, "a", 2)
    camera(hr, 3, "b", 5)
    assert one.shape == (3, 20, 20) and one.dtype == torch.uint8
    assert torch.equal(one, Camera()(hr, 3, "a", 2))
    for other in (camera(hr, 3, "a", 3), camera(hr, 3, "b", 2), Camera(seed=1)(hr, 3, "a", 2)):
        assert not torch.equal(one, other)


def test_camera_without_blur_and_noise_is_jpeg() -> None:
    hr, _ = Leaves(0, 60, seed=0).read()
    small = to_uint8(bicubic_down(hr[None].float() / 255, 2))[0]
    jpegs = []
    for chroma in ("4:4:4", "4:2:0"):
        file = io.BytesIO()
        Image.fromarray(small.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=75, subsampling=chroma)
        jpegs.append(torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1))
    camera = Camera(blur=[0, 0], noise=[0, 0], quality=[75, 75])
    drawn = [camera(hr, 2, "a", version) for version in range(8)]
    assert all(any(torch.equal(lr, jpeg) for jpeg in jpegs) for lr in drawn)
    assert all(any(torch.equal(lr, jpeg) for lr in drawn) for jpeg in jpegs)
    assert camera.describe() == "JPEG q75"
    assert Camera().describe() == "camera q30-95"


def test_blur_and_noise_are_as_strong_as_told() -> None:
    flat = torch.full((3, 120, 120), 128, dtype=torch.uint8)
    noisy = Camera(blur=[0, 0], noise=[5, 5], quality=[100, 100])(flat, 1, "a")
    assert noisy.float().std() == pytest.approx(5, rel=0.3)  # JPEG's chroma takes some of it
    step = torch.zeros(1, 40, 40, dtype=torch.uint8)
    step[:, :, 20:] = 255
    row = Camera(blur=[2, 2], noise=[0, 0], quality=[100, 100])(step, 1, "a")[0, 20].float() / 255
    distance = torch.arange(40) - 19.5
    torch.testing.assert_close(row, 0.5 * (1 + torch.erf(distance / 2 / 2**0.5)), atol=0.02, rtol=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_at_the_same_size(channels: int) -> None:
    hr = Leaves(0, 61, seed=0).read()[0][:channels]
    lr = Camera()(hr, 1, "a")
    assert lr.shape == hr.shape
    assert 20 < psnr(lr[None].double(), hr[None].double()) < 50
    with pytest.raises(UserError, match="changes nothing at scale=1"):
        Bicubic()(hr, 1)


@pytest.mark.parametrize(
    "settings", [{"blur": [0.5, 0.1]}, {"noise": 3}, {"quality": [0, 50]}, {"quality": [20, 101]}, {"versions": 0}]
)
def test_wrong_settings(settings: dict) -> None:
    with pytest.raises(UserError, match=f"{next(iter(settings))}="):
        Camera(**settings)


def test_none_makes_nothing() -> None:
    with pytest.raises(UserError, match="the image baby has no LR image"):
        Given()(torch.zeros(3, 9, 9, dtype=torch.uint8), 3, "baby")
