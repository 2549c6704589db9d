import math
from functools import partial

import numpy as np
import pytest
import torch
from conftest import DATA, needs
from skimage.metrics import structural_similarity
from torch import Tensor

from srcnn.data.degrade import Bicubic
from srcnn.data.samples import read_set
from srcnn.errors import UserError
from srcnn.image import as_float, bicubic_down, bicubic_up, quantize, rgb_to_y, to_uint8
from srcnn.inference.tiles import super_resolve
from srcnn.metrics import PROTOCOLS, PSNR, SSIM, Protocol, Score, find_protocol, mean_score, psnr, ssim
from srcnn.nets import SRCNN

# (protocol, set, scale): PSNR and SSIM of bicubic: VDSR (CVPR 2016), table 3, as TPAMI 2016 has it for Set5; basicsr:
# measured with BasicSR's own metrics on MATLAB's bicubic.
PUBLISHED = {
    ("authors", "Set5", 2): (33.66, 0.9299),
    ("authors", "Set5", 3): (30.39, 0.8682),
    ("authors", "Set5", 4): (28.42, 0.8104),
    ("authors", "Set14", 3): (27.54, 0.7736),
    ("basicsr", "Set5", 3): (30.405, 0.8690),
}


@pytest.mark.parametrize(("protocol", "name", "scale"), [pytest.param(*key, marks=needs(key[1])) for key in PUBLISHED])
def test_bicubic_is_the_published(protocol: str, name: str, scale: int) -> None:
    samples = read_set(name, str(DATA), scale, Bicubic())
    scores = [PROTOCOLS[protocol].evaluate(partial(bicubic_up, scale=scale), *sample[:2]) for sample in samples]
    mean = mean_score(scores)
    assert mean.bicubic_psnr == pytest.approx(PUBLISHED[protocol, name, scale][0], abs=0.01)
    assert mean.bicubic_ssim == pytest.approx(PUBLISHED[protocol, name, scale][1], abs=0.0005)
    assert mean.psnr == pytest.approx(mean.bicubic_psnr, abs=0.01)  # but for rounding RGB before luma
    if (protocol, name, scale) == ("authors", "Set5", 3):
        found = {sample.name: score.bicubic_psnr for sample, score in zip(samples, scores, strict=True)}
        published = {"baby_GT": 33.91, "bird_GT": 32.57, "butterfly_GT": 24.04, "head_GT": 32.88, "woman_GT": 28.56}
        assert found == pytest.approx(published, abs=0.01)  # TPAMI 2016, table 3


def test_ssim_is_that_of_the_valid_region() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((40, 52)) * 255
    image = np.clip(truth + rng.normal(0, 20, truth.shape), 0, 255)
    _, similarity = structural_similarity(
        truth, image, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255, full=True
    )
    ours = ssim(torch.from_numpy(image)[None, None], torch.from_numpy(truth)[None, None])
    assert ours == pytest.approx(similarity[5:-5, 5:-5].mean(), abs=1e-9)
    assert math.isnan(ssim(torch.zeros(1, 1, 10, 40), torch.zeros(1, 1, 10, 40)))
    white = torch.full((1, 1, 20, 20), 235.0)
    assert ssim(white, white) == 1  # in float32 0.9987


def _luma(image: Tensor, protocol: str) -> Tensor:
    """The luma of [N, 1 or 3, H, W] in [0, 1], in 255ths, as the protocol has it."""
    if protocol == "authors" and image.shape[1] == 1:  # a gray image is its own luma
        return image.double() * 255
    r, g, b = image.expand(-1, 3, -1, -1).double().unbind(1)
    exact = (16 + 65.481 * r + 128.553 * g + 24.966 * b)[:, None]
    return (exact + 0.5).floor() if protocol == "authors" else exact


def _psnr(sr: Tensor, hr: Tensor, protocol: str, border: int = 3) -> float:
    difference = _luma(quantize(sr), protocol) - _luma(hr, protocol)
    kept = difference[..., border : hr.shape[-2] - border, border : hr.shape[-1] - border]
    return 20 * math.log10(255 / kept.square().mean().sqrt())


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("as_bytes", [False, True])
def test_an_lr_in_8_bits_is_what_is_enlarged(protocol: str, colours: int, channels: int, as_bytes: bool) -> None:
    """By the network and by bicubic, in bytes or the same as floats; for `authors` floats are not rounded."""
    torch.manual_seed(0)
    net = SRCNN(channels=channels, residual=True)
    hr, lr = quantize(torch.rand(1, colours, 51, 48)), quantize(torch.rand(1, colours, 17, 16))
    if not as_bytes and protocol == "authors":
        lr = torch.rand(1, colours, 17, 16)
    images = (to_uint8(lr), to_uint8(hr)) if as_bytes else (lr, hr)
    with torch.no_grad():
        score = PROTOCOLS[protocol].evaluate(lambda x: super_resolve(net, x), *images, channels=channels)
        if as_bytes or protocol == "basicsr":
            assert score.psnr == pytest.approx(_psnr(super_resolve(net, lr), hr, protocol), abs=1e-3)
            assert score.bicubic_psnr == pytest.approx(_psnr(bicubic_up(lr, 3), hr, protocol), abs=1e-3)
        sr = super_resolve(net, PROTOCOLS[protocol].network_input(*images, channels))
    assert PROTOCOLS[protocol].compare(sr, *images) == score
    assert PROTOCOLS[protocol].compare(to_uint8(sr), *images) == score


@pytest.mark.parametrize("colours", [1, 3])
def test_basicsr_rounds_the_lr(colours: int) -> None:
    hr = quantize(torch.rand(1, colours, 48, 48))
    exact, rounded = bicubic_down(hr, 3), to_uint8(bicubic_down(hr, 3))
    basicsr, authors = (
        [protocol.evaluate(SRCNN().upscale, lr, hr) for lr in (exact, rounded)]
        for protocol in (PROTOCOLS["basicsr"], PROTOCOLS["authors"])
    )
    assert basicsr[0] == basicsr[1]
    assert authors[0] != authors[1]


def test_sr_of_other_channels_than_hr() -> None:
    """Beside a gray image the gray image of RGB is scored; beside RGB one channel is luma."""
    hr, lr = quantize(torch.rand(1, 1, 48, 48)), to_uint8(torch.rand(1, 1, 16, 16))
    colours = quantize(torch.rand(1, 3, 48, 48))
    for protocol in PROTOCOLS.values():
        sr = bicubic_up(quantize(as_float(lr)), 3)
        assert protocol.compare(sr.expand(-1, 3, -1, -1), lr, hr).psnr == pytest.approx(
            protocol.compare(sr, lr, hr).psnr
        )
        luma = protocol.compare(rgb_to_y(colours), lr.expand(-1, 3, -1, -1), colours)
        assert luma.psnr > 58  # but for rounding


def test_at_the_same_size_nothing_is_shaved_off() -> None:
    """As SwinIR and BasicSR score denoising and JPEG artefacts; what bicubic gives is the LR image."""
    hr = quantize(torch.rand(1, 3, 40, 40))
    lr = hr.clone()
    lr[..., 0, 0] = 1 - lr[..., 0, 0]
    score = PROTOCOLS["basicsr"].evaluate(SRCNN(1).upscale, lr, hr)
    assert score.bicubic_psnr == pytest.approx(_psnr(lr, hr, "basicsr", border=0), abs=1e-3)
    assert score.psnr == pytest.approx(score.bicubic_psnr, abs=0.01)


def test_means_are_of_decibels_and_leave_out_exact_images() -> None:
    gray = torch.full((1, 1, 20, 20), 100.0)
    values = [psnr(gray + error, gray) for error in (1, 16, 0)]
    assert values == pytest.approx([20 * math.log10(255), 20 * math.log10(255 / 16), math.inf], abs=1e-4)
    scores = [Score(value, 0.5, 30, math.nan) for value in values]
    scores.append(Score(48, 0.9, math.inf, 1))  # black, where the network is off by a level
    mean = mean_score(scores)
    assert mean.psnr == pytest.approx(sum(values[:2]) / 2)
    assert mean.gain == pytest.approx(mean.psnr - 30) == mean.as_dict()["gain"]
    assert mean.ssim == 0.5 and math.isnan(mean.bicubic_ssim)
    assert all(map(math.isnan, mean_score(scores[2:]))) and math.isnan(mean_score([]).psnr)


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
@pytest.mark.parametrize("error", [0.0, 0.01])
def test_metrics_leave_out_a_black_image(error: float, protocol: Protocol) -> None:
    """Metrics of torchmetrics are the means of images one by one, whether a black one is exact or nearly."""
    black = torch.zeros(1, 3, 30, 30)
    pairs = [(torch.rand(1, 3, 30, 30), torch.rand(1, 3, 30, 30)) for _ in range(2)]
    metrics = [PSNR(protocol, 3), SSIM(protocol, 3)]
    for metric in metrics:
        metric.update(black + error, black)
        for pair in pairs:
            metric.update(*pair)
        assert metric.left_out == 1 and metric.weight == 2
    scores = [protocol.compare(sr, bicubic_down(hr, 3), hr) for sr, hr in [*pairs, (black + error, black)]]
    mean = mean_score(scores)
    assert [metric.compute().item() for metric in metrics] == pytest.approx([mean.psnr, mean.ssim], abs=1e-4)
    metrics[0].reset()
    metrics[0].update(black, black)
    assert metrics[0].compute().isnan()


def test_protocols_have_names() -> None:
    assert find_protocol("authors") is PROTOCOLS["authors"]
    with pytest.raises(UserError, match="protocol=matlab: choose authors or basicsr"):
        find_protocol("matlab")
