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
from srcnn.nets import ESPCN, NETWORKS, SRCNN, Compact, Network
from srcnn.run.callbacks import AtomicCheckpointIO
from srcnn.run.checkpoint import (
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
    assert all(len(line) <= 80 for line in show(facts).splitlines())


def test_what_cannot_be_resumed(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    former = {"choices": {"model": "srcnn"}, "values": {"scale": 2, "model.widths": [8, 4], "model.kernels": [5, 1, 3]}}
    for file, sentence in (
        (weights_file(), "holds weights only, no run to resume: start one with init_from="),
        (SRCNN().state_dict(), "holds weights only"),
        (run_file(optimizer_states=[]), "holds weights only"),
        ({k: v for k, v in run_file(srcnn=former).items() if k != "network"}, "former version of srcnn and cannot be"),
        (run_file(optimizer_states=[3]), "its state is not that of a run"),
        (run_file(optimizer_states=[{"state": {}}]), "its state is not that of a run"),
        (run_file(callbacks={"EMA": 3}), "its state is not that of a run"),
        (run_file(callbacks=None), "its state is not that of a run"),
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
        with pytest.raises(UserError, match="not a checkpoint"):
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
        (weights_file(network=["SRCNN"]), "is not in srcnn/nets"),
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
        (weights_file(arguments=ARGUMENTS | {"widths": [60000, 60000]}), "weights do not fit this network"),
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


@pytest.mark.parametrize("net", [SRCNN(), SRCNN(channels=1, kernels=(9, 5, 5)), ESPCN(2), ESPCN(4, channels=1)])
def test_bare_weights_tell_their_network(net: Network, tmp_path: Path) -> None:
    """As other repositories save them too, with DataParallel's or torch.compile's prefix, or with other things."""
    path = tmp_path / "checkpoint.pth"
    for prefix in ("", "module.", "_orig_mod.", "module._orig_mod."):
        for wrap in (
            lambda state: state,
            lambda state: {"model": state, "epoch": 3, "optimizer": {"lr": 0.1}},
            lambda state: {"params": {"x": 1}, "params_ema": state},
            lambda state: {"state_dict": state},
            lambda state: {"generator": state},
        ):
            torch.save(wrap({prefix + key: value for key, value in net.state_dict().items()}), path)
            loaded, checkpoint = load_network(path)
            assert type(loaded) is type(net)
            assert (loaded.scale, loaded.channels) == (net.scale, net.channels)
            assert checkpoint["scale_assumed"] == isinstance(net, SRCNN)
            x = torch.rand(1, net.channels, 12, 12)
            assert torch.equal(loaded(x), net(x))
    if isinstance(net, SRCNN):
        loaded, checkpoint = load_network(path, scale=2)
        assert loaded.scale == 2
        assert not checkpoint["scale_assumed"]
        assert describe(path)["scale_assumed"]
    else:
        with pytest.raises(UserError, match="scale=3, but the shapes"):
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
    assert find_checkpoint(None, 4).name == "srcnn_x4.pth"
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


def test_bare_weights_of_compact(tmp_path: Path) -> None:
    """As other projects save this family too."""
    net = Compact(2, width=8, depth=3)
    torch.save({"params": net.state_dict()}, tmp_path / "x.pth")
    loaded, _ = load_network(tmp_path / "x.pth")
    x = torch.rand(1, 3, 9, 8)
    assert loaded.scale == 2 and torch.equal(loaded(x), net(x))
