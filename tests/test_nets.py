import re
from itertools import product
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import Tensor, nn

from srcnn import check
from srcnn.checkpoint import load_network, save_weights
from srcnn.errors import UserError
from srcnn.image import bicubic_up
from srcnn.launch import CONFIGS
from srcnn.nets import EDSR, ESPCN, FSRCNN, NETWORKS, SRCNN, VDSR, Compact, Network

ZOO = [SRCNN, ESPCN, FSRCNN, VDSR, EDSR, Compact]
SMALL = {VDSR: {"depth": 5, "width": 8}, EDSR: {"depth": 2, "width": 8}}  # for seconds instead of minutes


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
@pytest.mark.parametrize("net_type", ZOO)
def test_network(net_type: type[Network], scale: int) -> None:
    """What every network has to keep, on RGB and on luma."""
    for channels in (1, 3):
        assert check(net_type(scale, channels, **SMALL.get(net_type, {}))) == []
    residual = {"residual": True}
    variants = {SRCNN: residual, ESPCN: residual, FSRCNN: {"slope": 0.1, **residual}}
    variants[Compact] = {"skip": "bicubic", "slope": 0.1}
    if net_type in variants:
        assert check(net_type(scale, **variants[net_type])) == []


def test_check_names_what_is_wrong() -> None:
    class Wrong(SRCNN):
        def __init__(self, fault: str):
            super().__init__(2)
            self.fault = fault
            if fault == "radius":
                self.receptive_radius -= 1
            if fault == "unused":
                self.unused = nn.Parameter(torch.ones(3))
            if fault == "zoom":
                self.body_scale = 2
            if fault == "missing":
                del self.receptive_radius

        def body(self, x: Tensor) -> Tensor:
            y = super().body(x)
            if self.fault == "mean":
                return y - x.mean()
            return y[..., 1:-1, :] if self.fault == "shape" else y

    for fault, sentence in (
        ("radius", "Wrong: a pixel depends on 6 pixels on each side, receptive_radius says 5"),
        ("mean", "Wrong: in tiles its result differs from the whole"),
        ("shape", "Wrong makes [1, 3, "),
        ("unused", "Wrong: no gradient reaches unused"),
        ("zoom", "Wrong.preprocess enlarges 2 times, where scale / body_scale is 1"),
        ("missing", "Wrong does not set receptive_radius"),
    ):
        assert any(found.startswith(sentence) for found in check(Wrong(fault))), fault
    del NETWORKS["Wrong"]


def test_a_network_of_the_users_own_module(tmp_path: Path) -> None:
    """Once its class is defined, its weights load, with the arguments that were given and the defaults."""

    class Doubled(Network):
        receptive_radius = 1

        def __init__(self, scale: int = 2, *, widths: tuple[int, ...] = (4, 5), name: str | None = None):
            super().__init__(scale)
            self.body, self.body_scale = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Upsample(None, scale)), scale

    net = Doubled(widths=(7,))
    assert NETWORKS["Doubled"] is Doubled
    assert net.arguments == {"scale": 2, "widths": [7], "name": None}
    assert check(net) == []
    save_weights(tmp_path / "w.pth", net, {})
    loaded, _ = load_network(tmp_path / "w.pth")
    x = torch.rand(1, 3, 6, 5)
    assert type(loaded) is Doubled and torch.equal(loaded(x), net(x))
    del NETWORKS["Doubled"]
    with pytest.raises(UserError, match="Doubled"):
        load_network(tmp_path / "w.pth")


def test_two_networks_of_one_name() -> None:
    """A file names its network by class: one would be loaded as the other."""
    with pytest.raises(UserError, match=r"mine: srcnn.nets.srcnn has a network SRCNN too; rename yours"):
        type("SRCNN", (SRCNN,), {"__module__": "mine"})


@pytest.mark.parametrize("model", sorted(path.stem for path in (CONFIGS / "model").glob("*.yaml")))
def test_model_files(model: str) -> None:
    """Each makes its network, and is right about its size if it has a word on that."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        net = instantiate(compose("train", [f"model={model}"]).model)
    header = "".join(re.findall("# (.*\n)", (CONFIGS / "model" / f"{model}.yaml").read_text().split("_", 1)[0]))
    if "parameters," in header:
        assert f"{net.parameter_count:,} parameters" in header
    if amount := re.search(r"([\d.]+) G multiply-adds", header):
        assert float(amount[1]) == pytest.approx(net.multiply_adds() / 1e9, rel=3e-3, abs=0.06)


def test_as_many_parameters_as_published() -> None:
    """The rest is one bias a filter, and in FSRCNN one slope."""
    weights = 8_032, 24_416, 57_184  # TPAMI 2016, section 4.1, on luma
    for kernel, count in zip((1, 3, 5), weights, strict=True):
        assert SRCNN(channels=1, kernels=(9, kernel, 5)).parameter_count == count + 64 + 32 + 1
    assert SRCNN().parameter_count == 20_099  # the assignment
    assert FSRCNN(channels=1).parameter_count == 12_464 + 2 * (56 + 12 * 5 + 56) + 1  # ECCV 2016, table 1
    assert FSRCNN(channels=1, width=32, shrunk=5, depth=1).parameter_count == 3_937 + 2 * (32 + 5 * 2 + 32) + 1
    assert VDSR(channels=1).parameter_count == 665_921  # 665k in CVPR 2016
    assert [EDSR(scale).parameter_count for scale in (2, 3, 4)] == [1_369_859, 1_554_499, 1_517_571]  # EDSR-baseline
    assert Compact(4, width=64, depth=16).parameter_count == 621_424  # realesr-animevideov3


def test_srcnn_is_the_assignments() -> None:
    net = SRCNN()
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert [(conv.kernel_size[0], conv.padding[0], conv.out_channels) for conv in convs] == [
        (9, 4, 64), (1, 0, 32), (5, 2, 3)
    ]  # fmt: skip
    lr = torch.rand(1, 3, 9, 8)
    assert torch.equal(net.preprocess(lr), bicubic_up(lr, 3))


def test_what_pads_with_zeros_is_trained_up_to_its_border() -> None:
    """See srcnn.nets.Network.valid; of replicated borders, which are no other pixels, what they touch is left out."""
    lr = torch.rand(1, 3, 15, 15)
    zeros = [SRCNN(padding_mode="zeros"), ESPCN(padding_mode="zeros"), VDSR(), FSRCNN(), Compact(), EDSR(depth=1)]
    assert all(net.valid(lr).shape[-1] == 45 and net.margin == 0 for net in zeros)
    assert SRCNN().valid(lr).shape[-1] == 45 - 2 * (2 * 3 + 6)


@pytest.mark.parametrize(("scale", "channels"), [*product([2, 3, 4], [1, 3])])
def test_identity(scale: int, channels: int) -> None:
    """What `init: identity` starts from; FSRCNN's is bilinear, which shows that SR and HR coincide."""
    lr = torch.rand(1, channels, 12, 11)
    size = (12 * scale, 11 * scale)
    bicubic, nearest = bicubic_up(lr, scale), F.interpolate(lr, size, mode="nearest")
    starts = [
        (SRCNN(scale, channels), bicubic.clamp(min=0)),  # ReLU cuts off what overshoots
        (SRCNN(scale, channels, residual=True), bicubic),
        (VDSR(scale, channels), bicubic),
        (Compact(scale, channels), nearest),
        (Compact(scale, channels, skip="bicubic"), bicubic),
        (FSRCNN(scale, channels), F.interpolate(lr, size, mode="bilinear")),
        (FSRCNN(scale, channels, residual=True), nearest),
        (ESPCN(scale, channels, residual=True), nearest),
    ]
    for net, expected in starts:
        torch.testing.assert_close(net(lr), expected, atol=1e-5, rtol=0)


def test_published_initialisations() -> None:
    paper = SRCNN(init="paper")
    assert paper.conv1.weight.std().item() == pytest.approx(1e-3, rel=0.05)  # TPAMI 2016, section 3.2
    assert paper.conv3.bias.abs().max().item() == 0
    assert VDSR(init="published").layers[9].weight.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.05)
    assert FSRCNN(init="published").deconv.weight.std().item() == pytest.approx(
        1e-3, rel=0.05
    )  # ECCV 2016, section 3.2


@pytest.mark.parametrize("net", [SRCNN(init="default"), ESPCN()], ids=["SRCNN", "ESPCN"])
def test_replicated_borders(net: Network) -> None:
    """A flat image stays flat up to its borders, whatever the weights."""
    phases = F.pixel_unshuffle(net(torch.full((1, 3, 12, 12), 0.5)), 3)
    torch.testing.assert_close(phases, phases[..., 5:6, 5:6].expand_as(phases))


@pytest.mark.parametrize(
    ("net_type", "settings", "named"),
    [
        (SRCNN, {"scale": 9}, "scale=9"),
        (SRCNN, {"scale": 2.0}, r"scale=2\.0"),
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
