import re

import pytest
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from torch import nn

from srcnn.errors import UserError
from srcnn.image import bicubic_up, shave
from srcnn.nets import EDSR, ESPCN, FSRCNN, NETWORKS, SRCNN, VDSR, Compact, Network
from srcnn.run import CONFIGS
from srcnn.run.options import make
from srcnn.inference.tiles import super_resolve

ZOO = list(NETWORKS.values())
SMALL = {VDSR: {"depth": 5, "width": 8}, EDSR: {"depth": 2, "width": 8}}  # for seconds instead of minutes


def with_random_weights(net: Network) -> Network:
    """In float64, where the far end of a deep network's view is not lost; no layer of zeros, as some begin with."""
    torch.manual_seed(0)
    for parameter in net.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter)
    return net.double()


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("net_type", ZOO)
def test_network(net_type: type[Network], channels: int, scale: int) -> None:
    """What every network promises in `srcnn.nets.base.Network`."""
    net = with_random_weights(net_type(scale=scale, channels=channels, **SMALL.get(net_type, {})))
    lr = torch.rand(2, channels, 20, 23, dtype=torch.float64)
    sr = net(lr)
    assert sr.shape == (2, channels, 20 * scale, 23 * scale)
    x = net.preprocess(lr)
    assert x.shape[-1] * net.body_scale == 23 * scale
    torch.testing.assert_close(net.body(x), sr)

    # Of a training crop: the inner part of the result.
    torch.testing.assert_close(net.body_of_crop(x), shave(sr, net.train_border))

    # receptive_radius is what the pixels made of one pixel look at, no less and no more.
    radius = net.receptive_radius
    x = torch.rand(1, channels, 2 * radius + 5, 2 * radius + 5, dtype=torch.float64).requires_grad_()
    first, size = (radius + 2) * net.body_scale, net.body_scale
    net.body(x)[..., first : first + size, first : first + size].sum().backward()
    assert x.grad is not None
    touched = x.grad[0].abs().sum(0).nonzero()
    assert (touched.amin().item(), touched.amax().item()) == (2, 2 * radius + 2)

    # So is preprocess_radius.
    lr_ = torch.rand(1, channels, 21, 21).requires_grad_()
    ratio = scale // net.body_scale
    net.preprocess(lr_)[..., 10 * ratio : 11 * ratio, 10 * ratio : 11 * ratio].sum().backward()
    assert lr_.grad is not None
    touched = lr_.grad[0].abs().sum(0).nonzero()
    assert touched.amin().item() == 10 - net.preprocess_radius
    assert touched.amax().item() == 10 + net.preprocess_radius

    # Every parameter learns, but for those whose ReLU is shut.
    net.zero_grad()
    net(lr).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())

    # In tiles, as whole; and any size.
    with torch.no_grad():
        torch.testing.assert_close(
            super_resolve(net, lr, tile=(8 * scale, 9 * scale)), sr.detach(), rtol=1e-9, atol=1e-9
        )
        assert net(lr[..., :1, :1]).shape[-2:] == (scale, scale)


@pytest.mark.parametrize("model", sorted(path.stem for path in (CONFIGS / "model").glob("*.yaml")))
def test_model_files(model: str) -> None:
    """Each makes its network, and its header says how large that is."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        net = make("model", compose("train", [f"model={model}", "output_dir=x"]).model, scale=3)
    header = "".join(re.findall("# (.*\n)", (CONFIGS / "model" / f"{model}.yaml").read_text().split("_", 1)[0]))
    if model == "srcnn_residual":
        assert "as many parameters" in header
    else:
        assert f"{net.parameter_count:,} parameters" in header
        amount = re.search(r"([\d.]+) G multiply-adds", header)
        assert amount and float(amount[1]) == pytest.approx(net.multiply_adds() / 1e9, rel=3e-3, abs=0.06)


@pytest.mark.parametrize("net_type", [SRCNN, ESPCN])
def test_replicated_borders(net_type: type[Network]) -> None:
    """A flat image stays flat up to its borders, whatever the weights."""
    net = with_random_weights(net_type(scale=3, channels=3))
    sr = net(torch.full((1, 3, 12, 12), 0.5, dtype=torch.float64))
    phases = F.pixel_unshuffle(sr, 3)
    torch.testing.assert_close(phases, phases[..., 5:6, 5:6].expand_as(phases))


# Parameters as published: SRCNN's weights without biases in TPAMI 2016, table 1 and section 4.1 (8,032 for 9-1-5);
# VDSR 665k; EDSR-baseline 1.37, 1.55 and 1.52 M; Compact 64 wide with 16 layers, the published animevideo-v3 x4.
@pytest.mark.parametrize(
    ("net", "parameters", "biases"),
    [
        (SRCNN(), 20_099, 64 + 32 + 3),
        (SRCNN(channels=1), 8_032 + 97, 97),
        (SRCNN(channels=1, kernels=(9, 3, 5)), 24_416 + 97, 97),
        (SRCNN(channels=1, kernels=(9, 5, 5)), 57_184 + 97, 97),
        (ESPCN(channels=1), 25 * 64 + 9 * 64 * 32 + 9 * 32 * 9 + 105, 64 + 32 + 9),
        (
            FSRCNN(channels=1),
            12_464 + 345,
            56 + 12 * 5 + 56 + 1 + 172,
        ),  # ECCV 2016, table 1: 12,464 weights; 172 slopes
        (
            FSRCNN(channels=1, width=32, shrunk=5, depth=1),
            3_937 + 149,
            32 + 5 * 2 + 32 + 1 + 74,
        ),  # the same table: 3,937
        (VDSR(channels=1), 665_921, 19 * 64 + 1),
        (EDSR(scale=2), 1_369_859, None),
        (EDSR(scale=3), 1_554_499, None),
        (EDSR(scale=4), 1_517_571, None),
        (Compact(scale=4, width=64, depth=16), 621_424, None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Network) else None,
)
def test_as_many_parameters_as_published(net: Network, parameters: int, biases: int | None) -> None:
    assert net.parameter_count == parameters
    if biases is not None:
        assert sum(p.numel() for p in net.parameters() if p.ndim == 1) == biases


def test_srcnn_is_the_assignments() -> None:
    net = SRCNN()
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert [conv.kernel_size[0] for conv in convs] == [9, 1, 5]
    assert [conv.padding[0] for conv in convs] == [4, 0, 2]
    lr = torch.rand(1, 3, 9, 8)
    assert torch.equal(net.preprocess(lr), bicubic_up(lr, 3))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_identity(scale: int, channels: int) -> None:
    """What `init: identity` starts from; FSRCNN's is bilinear, which shows that SR and HR coincide."""
    lr = torch.rand(1, channels, 12, 11)
    size = (12 * scale, 11 * scale)
    bicubic, nearest = bicubic_up(lr, scale), F.interpolate(lr, size, mode="nearest")
    starts = [
        (SRCNN(scale, channels, init="identity"), bicubic.clamp(min=0)),  # ReLU cuts off what overshoots
        (SRCNN(scale, channels, init="identity", residual=True), bicubic),
        (VDSR(scale, channels), bicubic),
        (Compact(scale, channels), nearest),
        (Compact(scale, channels, skip="bicubic"), bicubic),
        (FSRCNN(scale, channels), F.interpolate(lr, size, mode="bilinear")),
    ]
    for net, expected in starts:
        border = scale if isinstance(net, FSRCNN) else 0  # dark there at first: it pads with zeros
        torch.testing.assert_close(shave(net(lr), border), shave(expected, border), atol=1e-5, rtol=0)


def test_published_initialisations() -> None:
    paper = SRCNN(init="paper")
    assert paper.conv1.weight.std().item() == pytest.approx(1e-3, rel=0.05)  # TPAMI 2016, section 3.2
    assert paper.conv3.bias.abs().max().item() == 0
    he = VDSR(init="published").layers[9]
    assert he.weight.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.05)  # CVPR 2016, section 3.2
    small = FSRCNN(init="published").deconv
    assert small.weight.std().item() == pytest.approx(1e-3, rel=0.05)  # ECCV 2016, section 3.2
    slopes = [p for p in Compact(init="published").parameters() if p.shape == (16,)][1]
    assert slopes.eq(0.25).all()
    x = torch.rand(1, 3, 24, 24)
    plain, residual = SRCNN(), SRCNN(residual=True)
    residual.load_state_dict(plain.state_dict())
    torch.testing.assert_close(residual.body(x), plain.body(x) + x)


@pytest.mark.parametrize(
    ("net_type", "settings", "named"),
    [
        (SRCNN, {"scale": 9}, "scale=9"),
        (SRCNN, {"channels": 2}, "channels=2"),
        (SRCNN, {"kernels": (9, 2, 5)}, "kernels"),
        (SRCNN, {"widths": (64, 32, 16)}, r"kernels=\[9, 1, 5\] widths=\[64, 32, 16\]"),
        (ESPCN, {"kernels": (5, 3)}, r"kernels=\[5, 3\]"),
        (FSRCNN, {"scale": 6}, "scale=6"),
        (FSRCNN, {"shrunk": 0}, "shrunk=0"),
        (VDSR, {"depth": 1}, "depth=1"),
        (EDSR, {"init": "he"}, "init=he"),
        (Compact, {"skip": "bilinear"}, "skip=bilinear"),
        (Compact, {"width": 0}, "width=0"),
    ],
)
def test_settings_that_make_no_network(net_type: type[Network], settings: dict, named: str) -> None:
    with pytest.raises(UserError, match=named):
        net_type(**settings)
