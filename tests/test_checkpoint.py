import argparse
import io
import json
import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from srcnn.errors import UserError
from srcnn.files import replacing
from srcnn.inspect_ckpt import describe, show
from srcnn.nets import EDSR, ESPCN, FSRCNN, NETWORKS, SRCNN, VDSR, Compact, Network
from srcnn.callbacks import AtomicCheckpointIO
from srcnn.checkpoint import (
    find_checkpoint,
    load_network,
    load_weights,
    read_checkpoint,
    read_run,
    run_of,
    save_weights,
)

ARGUMENTS = {"scale": 2, "widths": [8, 4], "kernels": [5, 1, 3]}
RUN = {
    "overrides": ["optim.lr=1e-3"], "values": {"optim.lr": 1e-3, "data.test": ["Set5"]}, "classes": {"optim": "a.B"},
    "versions": {"torch": "2.13"}, "machine": {"processes": 1}, "psnr": {"Set5": 30.5}, "val_psnr": None,
}  # fmt: skip


def weights_file(**changes: Any) -> dict[str, Any]:
    state = SRCNN(**ARGUMENTS).state_dict()
    return {"network": "SRCNN", "arguments": dict(ARGUMENTS), "state_dict": state, "run": dict(RUN), **changes}


def run_file(**changes: Any) -> dict[str, Any]:
    """What Lightning writes of a run, with our keys."""
    file = weights_file()
    progress = {"epoch_progress": {"current": {"processed": 3}}}
    optimizer = torch.optim.Adam(SRCNN(**ARGUMENTS).parameters())
    state = {f"net.{key}": value for key, value in file["state_dict"].items()} | {"loss.kernel": torch.zeros(3)}
    ours = {"state_dict": state, "loops": {"fit_loop": progress}, "global_step": 21, "callbacks": {"EMA": {}}}
    return file | ours | {"optimizer_states": [optimizer.state_dict()], "pytorch-lightning_version": "2.6.6"} | changes


def test_weights_come_back(tmp_path: Path) -> None:
    net = SRCNN(**ARGUMENTS)
    save_weights(tmp_path / "w.pth", net, ARGUMENTS, RUN)
    loaded, checkpoint = load_network(tmp_path / "w.pth")
    assert set(checkpoint) == {"network", "arguments", "state_dict", "run"}
    assert run_of(tmp_path / "w.pth", checkpoint) == RUN
    assert not loaded.training
    assert list(checkpoint["state_dict"]) == list(net.state_dict())
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in net.state_dict().items())
    with pytest.raises(UserError, match=r"scale=3, but .* was trained for scale 2: leave scale= out"):
        load_network(tmp_path / "w.pth", scale=3)


def test_a_run_and_its_loss(tmp_path: Path) -> None:
    """The network is under "net." there; what a loss has of its own is not the network's."""
    torch.save(run_file(), path := tmp_path / "last.ckpt")
    _, checkpoint = load_network(path)
    assert "scale_assumed" not in checkpoint
    load_weights(SRCNN(**ARGUMENTS), path, checkpoint)
    assert read_run(path)["global_step"] == 21
    facts = describe(path)
    assert (facts["epoch"], facts["step"], facts["network"]) == (3, 21, "SRCNN")
    assert facts["optimizer"]["class"] == "a.B"
    assert facts["optimizer"]["learning rate"] == [1e-3]
    assert json.loads(json.dumps(facts)) == facts
    assert all(len(line) <= 80 for line in show(facts | {"file": "a.ckpt"}).splitlines())


def test_what_cannot_be_resumed(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    former = {"choices": {"model": "srcnn"}, "values": {"scale": 2, "model.widths": [8, 4], "model.kernels": [5, 1, 3]}}
    for file, sentence in (
        (weights_file(), "holds weights only, no run to resume: start one with init_from="),
        (SRCNN().state_dict(), "holds weights only"),
        (run_file(optimizer_states=[]), "holds weights only"),
        ({k: v for k, v in run_file(srcnn=former).items() if k != "network"}, "former version of srcnn and cannot be"),
        (run_file(global_step=2.5), "its state is not that of a run"),
        (run_file(global_step=float("inf")), "its state is not that of a run"),
        (run_file(loops={"fit_loop": {}}), "its state is not that of a run"),
        (run_file(loops=3), "its state is not that of a run"),
        (run_file(run={"overrides": [5]}), "not what srcnn writes"),
        (run_file(run=RUN | {"values": {"a": torch.zeros(1)}}), "not what srcnn writes"),
        (run_file(run=RUN | {"values": {"a": 10**100}}), "not what srcnn writes"),
        (run_file(run=RUN | {"values": {str(key): 0 for key in range(50_000)}}), "not what srcnn writes"),
        (run_file(run=RUN | {"versions": 5}), "not what srcnn writes"),
        (run_file(run=RUN | {"val_psnr": "high"}), "not what srcnn writes"),
    ):
        torch.save(file, path)
        with pytest.raises(UserError, match=sentence):
            read_run(path)


def test_a_stranger_runs_no_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "owned",))

    for name, save in {"torch.ckpt": torch.save, "pickle.ckpt": lambda o, f: f.write_bytes(pickle.dumps(o))}.items():
        save({"state_dict": {}, "evil": Evil()}, tmp_path / name)
        with pytest.raises(UserError, match=r"holds an object of getattr, and no code is run|not a checkpoint"):
            read_checkpoint(tmp_path / name)
    assert not (tmp_path / "owned").exists()


def test_a_strangers_network(tmp_path: Path) -> None:
    """Only classes of srcnn/nets, plain arguments of a sane size, weights that are there: a sentence, at once."""
    nested: list = []
    nested.append(nested)
    path = tmp_path / "x.pth"
    for file, sentence in (
        (weights_file(network="Path"), "'Path' is not in srcnn/nets"),
        (weights_file(network="Network"), "'Network' is not in srcnn/nets"),
        (weights_file(arguments=None), "not plain numbers and texts"),
        (weights_file(arguments=ARGUMENTS | {"padding_mode": "x" * 10_000}), "not plain numbers and texts"),
        (weights_file(arguments=ARGUMENTS | {"widths": [10**12, 4]}), "not plain numbers and texts"),
        (weights_file(arguments=ARGUMENTS | {"widths": [8] * 1000}), "cannot be built as the file describes it"),
        (weights_file(arguments=ARGUMENTS | {"widths": nested}), "not plain numbers and texts"),
        (weights_file(arguments=ARGUMENTS | {"widths": torch.ones(2)}), "not plain numbers and texts"),
        (weights_file(arguments=ARGUMENTS | {3: 4}), "cannot be built as the file describes it"),
        (weights_file(arguments={"widths": [8, 4]}), "the scale one of them"),
        (weights_file(arguments=ARGUMENTS | {"scale": 100}), "cannot be built as the file describes it"),
        (weights_file(arguments=ARGUMENTS | {"scale": True}), "the scale one of them"),
        (weights_file(arguments=ARGUMENTS | {"nonsense": 1}), "cannot be built as the file describes it"),
        (weights_file(arguments=ARGUMENTS | {"padding_mode": "reboot"}), "cannot be built as the file describes it"),
        (weights_file(arguments=ARGUMENTS | {"kernels": 5}), "cannot be built as the file describes it"),
        (weights_file(arguments=ARGUMENTS | {"kernels": ["a", "b", "c"]}), "cannot be built as the file describes it"),
        (weights_file(arguments=ARGUMENTS | {"widths": [65536, 65536], "kernels": [9, 65535, 9]}), "cannot be|do not"),
        (weights_file(network="ESPCN", arguments={"scale": 2, "kernels": [3]}), "cannot be built as the file"),
        (weights_file(arguments=ARGUMENTS | {"widths": [60000, 60000]}), "weights do not fit SRCNN"),
        (weights_file(state_dict={"conv1.weight": torch.zeros(1).to_sparse()}), "no plain numbers"),
        (weights_file(state_dict={"conv1.weight": torch.zeros(1, dtype=torch.complex64)}), "no plain numbers"),
        (weights_file(state_dict={"conv1.weight": torch.zeros(1).expand(10**6, 10**6)}), "no plain numbers"),
        (weights_file(state_dict={"conv1.weight": 3}), "holds no network's weights"),
        (weights_file(state_dict={}), "holds no network's weights"),
        ([1, 2], "holds no network's weights"),
    ):
        torch.save(file, path)
        begin = time.monotonic()
        with pytest.raises(UserError, match=sentence):
            load_network(path)
        assert time.monotonic() - begin < 2


def test_more_weights_than_the_file_has_room_for(tmp_path: Path) -> None:
    """The same numbers under three names."""
    arguments = {"scale": 3, "channels": 1, "kernels": [15, 1, 15], "widths": [256, 256]}
    own = SRCNN(**arguments).state_dict()
    for dtype in (torch.float32, torch.float16):
        shared = torch.zeros(256 * 256, dtype=dtype)
        state = {key: shared[: value.numel()].view(value.shape) for key, value in own.items()}
        torch.save(weights_file(arguments=arguments, state_dict=state), tmp_path / f"{dtype}.pth")
    load_network(tmp_path / "torch.float32.pth")
    with pytest.raises(UserError, match="is too small for the 181,249 weights it describes"):
        load_network(tmp_path / "torch.float16.pth")


@pytest.mark.parametrize("net", [SRCNN(), ESPCN(2)])
def test_the_scale_of_bare_weights(net: Network, tmp_path: Path) -> None:
    torch.save({f"module._orig_mod.{key}": v for key, v in net.state_dict().items()}, path := tmp_path / "x.pth")
    if isinstance(net, SRCNN):
        loaded, checkpoint = load_network(path, scale=2)
        assert loaded.scale == 2
        assert not checkpoint["scale_assumed"]
        assert describe(path)["scale_assumed"]
    else:
        with pytest.raises(UserError, match="scale=3, but"):
            load_network(path, scale=3)
        assert not describe(path)["scale_assumed"]


def test_the_former_layout(tmp_path: Path) -> None:
    """A run's checkpoint and weights.pth of srcnn before "network" and "arguments" were in them."""
    values = {"scale": 4, "optim.lr": 0.1, "model.channels": 1, "model.padding_mode": "zeros", "data.test": ["Set14"]}
    for name, net in {
        "srcnn": SRCNN(4, channels=1, padding_mode="zeros"),
        "srcnn_residual": SRCNN(4, channels=1, padding_mode="zeros", residual=True),
        "espcn": ESPCN(4, channels=1, padding_mode="zeros"),
    }.items():
        changed = values | ({"model.residual": True} if "residual" in name else {})
        settings = {"choices": {"model": name, "optim": "adam"}, "values": changed, "versions": {"torch": "2.12"}}
        state = {f"net.{key}": value for key, value in net.state_dict().items()}
        for extra in ({}, {"pytorch-lightning_version": "2.6.6", "global_step": 3}):
            torch.save({"state_dict": state, "srcnn": settings, **extra}, path := tmp_path / "x.ckpt")
            loaded, checkpoint = load_network(path)
            x = torch.rand(1, 1, 9, 9)
            assert torch.equal(loaded(x), net(x))
            assert run_of(path, checkpoint)["values"]["data.test"] == ["Set14"]
    for change in ({"choices": {"model": "../../evil"}}, {"choices": {}}, {"choices": None}, {"values": 3}):
        torch.save({"state_dict": state, "srcnn": settings | change}, path)
        with pytest.raises(UserError, match="not those of a run of srcnn"):
            load_network(path)


def test_a_network_that_reads_its_own_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its constructor cannot run without memory; its errors are its own."""

    class Mine(Network):
        body_scale, receptive_radius = 1, 1

        def __init__(self, scale: int, bug: bool = False):
            super().__init__(scale)
            self.conv = nn.Conv2d(3, 3, 3, padding=1)
            self.norm = nn.BatchNorm2d(3)  # with a tensor of integers
            self.sum = float(self.conv.weight.sum().item())
            if bug:
                self.missing.append(1)

        def body(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(self.conv(x))

    monkeypatch.setitem(NETWORKS, "Mine", Mine)
    net = Mine(2)
    save_weights(tmp_path / "w.pth", net, {"scale": 2}, {})
    x = torch.rand(1, 3, 5, 5)
    assert torch.equal(load_network(tmp_path / "w.pth")[0](x), net.eval()(x))
    save_weights(tmp_path / "w.pth", net, {"scale": 2, "bug": True}, {})
    with pytest.raises(AttributeError, match="missing"):
        load_network(tmp_path / "w.pth")


def test_the_keys_that_do_not_fit_are_named(tmp_path: Path) -> None:
    weights = SRCNN().state_dict()
    weights["conv4.weight"] = weights.pop("conv2.bias")
    torch.save(weights, tmp_path / "x.pth")
    with pytest.raises(
        UserError, match=r"conv2.bias is missing instead of \[32\]; conv4.weight is \[32\] instead of nothing"
    ):
        load_network(tmp_path / "x.pth")
    wider = SRCNN(widths=(64, 33))
    with pytest.raises(UserError, match=r"conv2.weight is \[32, 64, 1, 1\] instead of \[33, 64, 1, 1\]; conv2.bias"):
        load_weights(wider, path := find_checkpoint("srcnn_x3"), read_checkpoint(path))


def test_weights_of_ours_go_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_checkpoint("srcnn_x2").is_file()
    assert find_checkpoint(None, 4).name == "compact_x4.pth"
    Path("srcnn_x2").touch()
    assert find_checkpoint("srcnn_x2") == Path("srcnn_x2")  # one's own comes first
    assert not find_checkpoint("elsewhere/srcnn_x3").exists()
    with pytest.raises(UserError, match="scale=7: no weights are shipped for it"):
        find_checkpoint(None, 7)
    for name in ("folder", "absent"):
        Path("folder").mkdir(exist_ok=True)
        with pytest.raises(UserError, match=f"{name}: no such checkpoint"):
            read_checkpoint(name)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"state_dict": {}, "step": 1}, path)
    before = path.read_bytes()
    with pytest.raises(Exception, match="pickle"):
        AtomicCheckpointIO().save_checkpoint({"cannot": lambda: 0}, path)
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_text(str(1 / 0))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_inspect_on_a_pipe(tmp_path: Path) -> None:
    """`… | head` ends without a traceback; what a stranger wrote moves no cursor."""
    torch.save(weights_file(run=RUN | {"name": "\x1b[2J" + "long " * 100}), tmp_path / "x.pth")
    text = show(describe(tmp_path / "x.pth"))
    assert "\x1b" not in text
    command = f"{sys.executable} -m srcnn.inspect_ckpt x.pth | head -1"
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "file: x.pth\n"
    assert not done.stderr


def test_content_is_loaded_from_the_file_alone(tmp_path: Path) -> None:
    content = io.BytesIO()
    torch.save(weights_file(), content)
    for cut in (1, 100, len(content.getvalue()) // 2):
        (tmp_path / "x.pth").write_bytes(content.getvalue()[:-cut])
        with pytest.raises(UserError, match="not a checkpoint, or a damaged one"):
            read_checkpoint(tmp_path / "x.pth")


# Keys as other projects have them, in the order of the layers.
_OTHERS: dict[str, tuple[Network, Any]] = {
    "three names": (SRCNN(channels=1), ["features.0", "map.0", "reconstruction"]),
    "a sequence": (SRCNN(kernels=(9, 5, 5)), ["0", "2", "4"]),
    "two parts": (ESPCN(4, channels=1), ["first_part.0", "first_part.2", "last_part.0"]),
    "compact as published": (Compact(2, width=8, depth=3), [f"body.{i}" for i in range(9)]),
    "compact renamed": (Compact(4, width=8, depth=2), [f"layers.{i}.block" for i in range(7)]),
    "vdsr": (VDSR(channels=1, width=8, depth=5), ["conv1.0", *(f"trunk.{i}.conv" for i in range(3)), "conv2"]),
    "edsr as published": (EDSR(4, width=8, depth=2), ["head.0", "body.0.body.0", "body.0.body.2", "body.1.body.0",
        "body.1.body.2", "body.2", "tail.0.0", "tail.0.2", "tail.1"]),
    "edsr of basicsr": (EDSR(3, width=8, depth=1), ["conv_first", "body.0.conv1", "body.0.conv2", "conv_after_body",
        "upsample.0", "conv_last"]),
    "edsr of our names": (EDSR(3, width=8, depth=1), None),
    "fsrcnn of our names": (FSRCNN(3, width=8, shrunk=4, depth=1), None),
}  # fmt: skip
_WRAPS = {
    "bare": lambda state: state,
    "model": lambda state: {"model": state, "epoch": 3, "optimizer": {"lr": 0.1}},
    "params_ema": lambda state: {"params": {key: value + 1 for key, value in state.items()}, "params_ema": state},
    "generator": lambda state: {"generator": {"state_dict": state}, "discriminator": {"x": torch.zeros(1)}},
    "net": lambda state: {"net": {f"module.{key}": value for key, value in state.items()}, "best_psnr": 31.5},
    "lightning": lambda state: {"state_dict": {f"model.{key}": value for key, value in state.items()},
        "pytorch-lightning_version": "1.9.0", "epoch": 3, "global_step": 5, "loops": {}, "optimizer_states": []},
}  # fmt: skip


def other_names(net: Network, layers: list[str] | None) -> dict[str, torch.Tensor]:
    """The weights of a network, drawn anew, under another project's keys."""
    own = net.state_dict()
    for value in own.values():
        value.normal_(std=0.05)
    if layers is None:
        return own
    kinds = [key.rpartition(".")[2] for key in own]
    indices = torch.tensor([kind == "weight" for kind in kinds]).cumsum(0) - 1
    named = {f"{layers[i]}.{kind}": value for i, kind, value in zip(indices, kinds, own.values(), strict=True)}
    if isinstance(net, EDSR):
        named = {key: value * 255 if key.endswith("bias") else value for key, value in named.items()}
    if "head.0.weight" in named:
        named = {"sub_mean.weight": torch.eye(3).view(3, 3, 1, 1), "sub_mean.bias": torch.ones(3), **named}
    return named


@pytest.mark.parametrize("wrap", _WRAPS.values(), ids=_WRAPS)
@pytest.mark.parametrize(("net", "layers"), _OTHERS.values(), ids=_OTHERS)
def test_checkpoints_of_other_projects(net: Network, layers: list[str] | None, wrap: Any, tmp_path: Path) -> None:
    state = other_names(net, layers)
    torch.save(wrap(state), path := tmp_path / "x.pth")
    scale_shows = isinstance(net, ESPCN | Compact | EDSR)
    loaded, checkpoint = load_network(path)
    x = torch.rand(1, net.channels, 12, 10)
    assert torch.allclose(loaded(x), net(x), atol=1e-6)
    assert checkpoint["scale_assumed"] != scale_shows
    assert isinstance(net, EDSR) or torch.equal(loaded(x), net(x))
    with torch.random.fork_rng():
        other = load_network(path, net.scale)[0]  # init_from
        assert torch.equal(load_weights(other, path, read_checkpoint(path))(x), loaded(x))


def test_biases_left_out(tmp_path: Path) -> None:
    net = VDSR(channels=1, width=8, depth=4)
    state = other_names(net, ["first", "a", "b", "last"])
    torch.save({key: value for key, value in state.items() if "bias" not in key}, path := tmp_path / "x.pth")
    for key, value in net.state_dict().items():
        value.mul_("bias" not in key)
    x = torch.rand(1, 1, 9, 8)
    assert torch.equal(load_network(path)[0](x), net(x))


def test_what_others_save_and_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    state = SRCNN().state_dict()
    backwards = dict(reversed(other_names(VDSR(width=8, depth=4), ["a", "b", "c", "d"]).items()))
    fsrcnn = other_names(FSRCNN(2, width=8, shrunk=4, depth=1), ["a", "a1", "b", "b1", "c", "c1", "d", "d1", "e"])
    alexnet = {"features.0.weight": torch.zeros(64, 3, 11, 11), "classifier.weight": torch.zeros(10, 64)}
    unknown = "bare weights of a network unknown here|its weights do not fit|cannot be built"
    for content, sentence in (
        (nn.Sequential(nn.Conv2d(3, 3, 3)), "holds an object of torch.nn.modules.container.Sequential, and no code"),
        ({"model": state, "args": argparse.Namespace(lr=1)}, "holds an object of argparse.Namespace, and no code"),
        (backwards, unknown),
        (fsrcnn, "its weights do not fit FSRCNN"),
        (alexnet, unknown),
        ({"model": {key: value * torch.nan for key, value in state.items()}}, "its weights are NaN or infinite"),
    ):
        torch.save(content, path)
        with pytest.raises(UserError, match=sentence):
            load_network(path)
