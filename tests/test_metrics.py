import math

import numpy as np
import pytest
import torch
from conftest import DATA, needs
from skimage.metrics import structural_similarity
from torch import Tensor

from srcnn.data.sets import find_images
from srcnn.files import read_image
from srcnn.image import bicubic_down, bicubic_up, modcrop, quantize
from srcnn.metrics import PROTOCOLS, Score, mean_score, psnr, ssim
from srcnn.nets import SRCNN
from srcnn.inference.tiles import super_resolve

# (protocol, scale): PSNR and SSIM of bicubic on Set5: TPAMI 2016 and VDSR (CVPR 2016), table 3; basicsr: measured
# with BasicSR's own metrics on MATLAB's bicubic.
PUBLISHED = {
    ("authors", 2): (33.66, 0.9299),
    ("authors", 3): (30.39, 0.8682),
    ("authors", 4): (28.42, 0.8104),
    ("basicsr", 3): (30.405, 0.8690),
}


@needs("Set5")
@pytest.mark.parametrize(("protocol", "scale"), PUBLISHED)
def test_bicubic_on_set5_is_the_published(protocol: str, scale: int) -> None:
    net = SRCNN(scale, init="identity")
    mean = mean_score(
        [PROTOCOLS[protocol].score(net, read_image(path)[None] / 255) for path in find_images("Set5", DATA)]
    )
    published = PUBLISHED[protocol, scale]
    assert mean.bicubic_psnr == pytest.approx(published[0], abs=0.01)
    assert mean.bicubic_ssim == pytest.approx(published[1], abs=0.0005)
    # An SRCNN that passes its input through is bicubic, but for rounding RGB before luma.
    assert mean.psnr == pytest.approx(mean.bicubic_psnr, abs=0.01)


@needs("Set5")
def test_bicubic_per_image() -> None:
    """TPAMI 2016, table 3, the bicubic column."""
    published = {"baby_GT": 33.91, "bird_GT": 32.57, "butterfly_GT": 24.04, "head_GT": 32.88, "woman_GT": 28.56}
    for path in find_images("Set5", DATA):
        score = PROTOCOLS["authors"].score(SRCNN(), read_image(path)[None] / 255, with_ssim=False)
        assert score.bicubic_psnr == pytest.approx(published[path.stem], abs=0.01)


def test_ssim_is_that_of_the_valid_region() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((40, 52)) * 255
    image = np.clip(truth + rng.normal(0, 20, truth.shape), 0, 255)
    _, similarity = structural_similarity(
        truth, image, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255, full=True
    )
    ours = ssim(torch.from_numpy(image)[None, None], torch.from_numpy(truth)[None, None])
    assert ours == pytest.approx(similarity[5:-5, 5:-5].mean(), abs=2e-5)
    assert math.isnan(ssim(torch.zeros(1, 1, 10, 40), torch.zeros(1, 1, 10, 40)))


def test_mean_is_of_decibels() -> None:
    grey = torch.full((1, 1, 20, 20), 100.0)
    values = [psnr(grey + error, grey) for error in (1, 16)]
    assert values == pytest.approx([20 * math.log10(255), 20 * math.log10(255 / 16)], abs=1e-4)
    mean = mean_score([Score(value, 0, 0, 0) for value in values])
    assert mean.psnr == pytest.approx(sum(values) / 2)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("colours", [1, 3])
def test_basicsr_scores_what_a_file_gives(channels: int, colours: int) -> None:
    """The score of `basicsr` is that of an 8-bit LR file, super-resolved into an 8-bit file."""
    torch.manual_seed(0)
    net = SRCNN(channels=channels, residual=True)
    hr = quantize(torch.rand(1, colours, 50, 47))
    cropped = modcrop(hr, 3).expand(-1, 3, -1, -1)
    sr = quantize(super_resolve(net, quantize(bicubic_down(cropped, 3))))
    difference = (_luma(sr) - _luma(cropped))[..., 3:-3, 3:-3]
    expected = 20 * math.log10(255 / difference.square().mean().sqrt())
    assert PROTOCOLS["basicsr"].score(net, hr).psnr == pytest.approx(expected, abs=1e-3)


def _luma(rgb: Tensor) -> Tensor:
    r, g, b = rgb.double().unbind(1)
    return 16 + 65.481 * r + 128.553 * g + 24.966 * b


def test_a_gray_image_is_its_own_luma_for_the_authors() -> None:
    gray = quantize(torch.rand(1, 1, 48, 48))
    net = SRCNN(init="identity")
    score = PROTOCOLS["authors"].score(net, gray)
    bicubic = quantize(bicubic_up(bicubic_down(gray.double(), 3), 3))
    difference = ((bicubic - gray) * 255)[..., 3:-3, 3:-3]
    assert score.bicubic_psnr == pytest.approx(20 * math.log10(255 / difference.square().mean().sqrt()), abs=1e-3)
    assert score.psnr == pytest.approx(score.bicubic_psnr, abs=0.02)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_given_lr_is_what_is_enlarged(protocol: str, colours: int, channels: int) -> None:
    """The network and bicubic get the LR of 8 bits that is given; luma is rounded as the protocol has it."""
    torch.manual_seed(0)
    net = SRCNN(channels=channels, residual=True)
    hr, lr = quantize(torch.rand(1, colours, 51, 48)), quantize(torch.rand(1, colours, 17, 16))
    score = PROTOCOLS[protocol].score(net, hr, lr=lr)
    gray_of_authors = colours == 1 and protocol == "authors"  # its own luma

    def luma(image: Tensor) -> Tensor:
        if gray_of_authors:
            return image.double() * 255
        exact = _luma(image.expand(-1, 3, -1, -1))
        return (exact + 0.5).floor() if protocol == "authors" else exact

    for sr, found in ((super_resolve(net, lr), score.psnr), (bicubic_up(lr, 3), score.bicubic_psnr)):
        difference = (luma(quantize(sr)) - luma(hr))[..., 3:-3, 3:-3]
        assert found == pytest.approx(20 * math.log10(255 / difference.square().mean().sqrt()), abs=1e-3)


@pytest.mark.parametrize("colours", [1, 3])
def test_basicsr_with_its_own_lr_given_is_basicsr(colours: int) -> None:
    net = SRCNN(init="identity")
    hr = quantize(torch.rand(1, colours, 48, 48))
    given = PROTOCOLS["basicsr"].score(net, hr, lr=quantize(bicubic_down(hr, 3)))
    assert given.as_dict() == pytest.approx(PROTOCOLS["basicsr"].score(net, hr).as_dict(), abs=0.02)


def test_a_gray_image_with_an_lr_of_rgb() -> None:
    """As of a JPEG file that has colours: its gray image is scored."""
    hr, lr = quantize(torch.rand(1, 1, 48, 48)), quantize(torch.rand(1, 1, 16, 16))
    net = SRCNN()
    for protocol in PROTOCOLS.values():
        one, other = (protocol.score(net, hr, lr=image) for image in (lr, lr.expand(-1, 3, -1, -1)))
        assert one == other


def test_at_the_same_size_nothing_is_shaved_off() -> None:
    """As SwinIR and BasicSR score denoising and JPEG artefacts; what bicubic gives is the LR image."""
    hr = quantize(torch.rand(1, 3, 40, 40))
    lr = hr.clone()
    lr[..., 0, 0] = 1 - lr[..., 0, 0]
    score = PROTOCOLS["basicsr"].score(SRCNN(1, init="identity"), hr, lr=lr)
    difference = _luma(lr) - _luma(hr)
    assert score.bicubic_psnr == pytest.approx(20 * math.log10(255 / difference.square().mean().sqrt()), abs=1e-3)
    assert score.psnr == pytest.approx(score.bicubic_psnr, abs=0.01)
