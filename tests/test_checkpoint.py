import argparse
import pickle
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from srcnn.callbacks import WholeCheckpointIO
from srcnn.checkpoint import find_checkpoint, load_network, load_weights, read_checkpoint, save_weights
from srcnn.errors import RunError, UserError
from srcnn.files import replacing
from srcnn.nets import ESPCN, NETWORKS, SRCNN, Compact, Network

ARGUMENTS = {"scale": 2, "widths": [8, 4], "kernels": [5, 1, 3]}
RUN = {"overrides": ["optim.lr=1e-3"], "settings": {"data": {"test": ["Set5"]}}, "val_psnr": None, "steps": 5}


def weights_file(**changes: Any) -> dict[str, Any]:
    state = SRCNN(**ARGUMENTS).state_dict()
    return {"network": "SRCNN", "arguments": dict(ARGUMENTS), "state_dict": state, "run": dict(RUN), **changes}


def test_weights_come_back(tmp_path: Path) -> None:
    net = SRCNN(2, widths=(8, 4), kernels=(5, 1, 3)).to(memory_format=torch.channels_last)
    save_weights(tmp_path / "w.pth", net, RUN)
    loaded, checkpoint = load_network(tmp_path / "w.pth")
    assert set(checkpoint) == {"network", "arguments", "state_dict", "run"}
    assert checkpoint["run"] == RUN
    assert checkpoint["arguments"] == loaded.arguments == net.arguments
    assert checkpoint["arguments"].items() >= ARGUMENTS.items()
    assert not loaded.training
    assert list(checkpoint["state_dict"]) == list(net.state_dict())
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in net.state_dict().items())
    assert all(value.is_contiguous() for value in checkpoint["state_dict"].values())
    with pytest.raises(UserError, match=r"scale=3, but .* was trained for scale 2: leave scale= out"):
        load_network(tmp_path / "w.pth", scale=3)


def test_a_checkpoint_of_lightnings(tmp_path: Path) -> None:
    """The network is under "net." there; what a loss has of its own is not the network's."""
    file = weights_file()
    state = {f"net.{key}": value for key, value in file["state_dict"].items()} | {"loss.kernel": torch.zeros(3)}
    torch.save(file | {"state_dict": state, "pytorch-lightning_version": "2.6.6"}, path := tmp_path / "last.ckpt")
    loaded, checkpoint = load_network(path)
    assert "scale_assumed" not in checkpoint
    assert all(torch.equal(value, file["state_dict"][key]) for key, value in loaded.state_dict().items())
    torch.save(weights_file(run={"val_psnr": torch.ones(1)}), path)  # not plain: nothing is known of the run
    assert read_checkpoint(path)["run"] == {}


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_no_code_of_a_file_is_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "touched",))

    for name, save in {"torch.ckpt": torch.save, "pickle.ckpt": lambda o, f: f.write_bytes(pickle.dumps(o))}.items():
        save({"state_dict": {}, "evil": Evil()}, tmp_path / name)
        with pytest.raises(UserError, match=r"holds an object of getattr, and no code is run|not a checkpoint"):
            read_checkpoint(tmp_path / name)
    assert not (tmp_path / "touched").exists()


def test_files_that_hold_no_network(tmp_path: Path) -> None:
    """A known class, plain arguments, weights that fit: else a sentence, at once."""
    nested: list = []
    nested.append(nested)
    state, weights = SRCNN().state_dict(), weights_file()["state_dict"]
    for file, sentence in (
        (weights_file(network="Path"), "network 'Path' is not known here .*imports="),
        (weights_file(network="Network"), "network 'Network' is not known here"),
        (weights_file(arguments=None), "not plain numbers and strings"),
        (weights_file(arguments=ARGUMENTS | {"widths": nested}), "not plain numbers and strings"),
        (weights_file(arguments=ARGUMENTS | {"widths": torch.ones(2)}), "not plain numbers and strings"),
        (weights_file(arguments=ARGUMENTS | {"widths": [8] * 1000}), "cannot be built as the file describes it"),
        (weights_file(arguments=ARGUMENTS | {3: 4}), "cannot be built as the file describes it"),
        (weights_file(arguments=ARGUMENTS | {"scale": 100}), "cannot be built as the file describes it"),
        (weights_file(arguments=ARGUMENTS | {"nonsense": 1}), "cannot be built as the file describes it"),
        (weights_file(arguments=ARGUMENTS | {"kernels": ["a", "b", "c"]}), "cannot be built as the file describes it"),
        (weights_file(arguments=ARGUMENTS | {"widths": [10**12, 4]}), "cannot be built as the file describes it"),
        (weights_file(state_dict={"conv1.weight": 3}), "holds no network's weights"),
        (weights_file(state_dict={}), "holds no network's weights"),
        ({"network": "SRCNN", "arguments": ARGUMENTS}, "holds no network's weights"),
        ({"network": {"epoch": 3}}, "holds no network's weights"),
        ([1, 2], "holds no network's weights"),
        (nn.Sequential(nn.Conv2d(3, 3, 3)), "holds an object of torch.nn.modules.container.Sequential, and no code"),
        ({"model": state, "args": argparse.Namespace(lr=1)}, "holds an object of argparse.Namespace, and no code"),
        ({"features.0.weight": torch.zeros(64, 3, 11, 11)}, "bare weights of a network unknown here"),
        (ESPCN(2).state_dict(), "bare weights of a network unknown here"),
        (weights_file(state_dict={key: value * torch.nan for key, value in weights.items()}), "are NaN or infinite"),
    ):
        torch.save(file, path := tmp_path / "x.pth")
        begin = time.monotonic()
        with pytest.raises(UserError, match=sentence):
            load_network(path)
        assert time.monotonic() - begin < 2


def test_a_network_that_reads_its_own_weights(tmp_path: Path) -> None:
    """Its constructor cannot run without memory; its errors are its own."""

    class Mine(Network):
        body_scale, receptive_radius = 1, 1

        def __init__(self, scale: int, bug: bool = False):
            super().__init__(scale)
            self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)  # with a tensor of integers
            self.sum = float(self.conv.weight.sum().item())
            if bug:
                self.missing.append(1)

        def body(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(self.conv(x))

    net, x = Mine(2), torch.rand(1, 3, 5, 5)
    save_weights(tmp_path / "w.pth", net, {})
    state = torch.random.get_rng_state()
    assert torch.equal(load_network(tmp_path / "w.pth")[0](x), net.eval()(x))
    assert torch.equal(torch.random.get_rng_state(), state)  # loading draws no number of the run's
    net.arguments["bug"] = True
    save_weights(tmp_path / "w.pth", net, {})
    with pytest.raises(AttributeError, match="missing"):
        load_network(tmp_path / "w.pth")
    del NETWORKS["Mine"]


_BARE: dict[str, tuple[Network, list[str]]] = {
    "three names": (SRCNN(channels=1), ["features.0", "map.0", "reconstruction"]),
    "a sequence": (SRCNN(kernels=(9, 5, 5)), ["0", "2", "4"]),
    "compact": (Compact(4, width=8, depth=3, init="published"), [f"body.{i}" for i in range(9)]),
}
_WRAPS = {
    "bare": lambda state: state,
    "model": lambda state: {"model": {f"module.{key}": v for key, v in state.items()}, "epoch": 3, "optimizer": {}},
    "params_ema": lambda state: {"params": {key: value + 1 for key, value in state.items()}, "params_ema": state},
    "lightning": lambda state: {"state_dict": {f"model._orig_mod.{key}": value for key, value in state.items()},
        "pytorch-lightning_version": "1.9.0", "epoch": 3, "loops": {}, "optimizer_states": []},
}  # fmt: skip


@pytest.mark.parametrize("wrap", _WRAPS.values(), ids=_WRAPS)
@pytest.mark.parametrize(("net", "layers"), _BARE.values(), ids=_BARE)
def test_bare_weights(net: Network, layers: list[str], wrap: Any, tmp_path: Path) -> None:
    """Of SRCNN by any three names, of Compact by the published ones, within what other projects put around them."""
    own = net.state_dict()
    kinds = [key.rpartition(".")[2] for key in own]
    index = torch.tensor([kind == "weight" for kind in kinds]).cumsum(0) - 1
    named = {f"{layers[i]}.{kind}": value for i, kind, value in zip(index, kinds, own.values(), strict=True)}
    torch.save(wrap(named), path := tmp_path / "x.pth")
    loaded, checkpoint = load_network(path)
    x = torch.rand(1, net.channels, 12, 10)
    assert torch.equal(loaded(x), net(x))
    assert checkpoint["scale_assumed"] == isinstance(net, SRCNN)
    if isinstance(net, SRCNN):
        assert load_network(path, scale=2)[0].scale == 2
    else:
        with pytest.raises(UserError, match="scale=3, but"):
            load_network(path, scale=3)
    again = type(net)(**{**net.arguments, "init": "identity"})  # init_from
    assert torch.equal(load_weights(again, path)(x), net(x))


def test_the_keys_that_do_not_fit_are_named(tmp_path: Path) -> None:
    weights = SRCNN().state_dict()
    weights["conv4.weight"] = weights.pop("conv2.bias")
    torch.save(weights, tmp_path / "x.pth")
    found = r"conv2.bias is missing instead of \[32\]; conv4.weight is \[32\] instead of nothing"
    with pytest.raises(UserError, match=found):
        load_network(tmp_path / "x.pth")
    wider = SRCNN(widths=(64, 33))
    with pytest.raises(UserError, match=r"conv2.weight is \[32, 64, 1, 1\] instead of \[33, 64, 1, 1\]; conv2.bias"):
        load_weights(wider, find_checkpoint("srcnn_x3"))


def test_weights_of_ours_go_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_checkpoint("srcnn_x2").is_file()
    assert find_checkpoint(None, 4).name == "compact_x4.pth"
    Path("srcnn_x2").touch()
    assert find_checkpoint("srcnn_x2") == Path("srcnn_x2")  # the user's own comes first
    assert not find_checkpoint("elsewhere/srcnn_x3").exists()
    with pytest.raises(UserError, match="scale=7: no weights are shipped for it"):
        find_checkpoint(None, 7)
    for name in ("folder", "absent"):
        Path("folder").mkdir(exist_ok=True)
        with pytest.raises(UserError, match=f"{name}: no such checkpoint"):
            read_checkpoint(find_checkpoint(name))
    for name in ("checkpoints/last.ckpt", "checkpoints/best.ckpt", "weights.pth"):  # of a run's folder
        Path("run", name).parent.mkdir(parents=True, exist_ok=True)
        Path("run", name).touch()
        assert find_checkpoint("run") == Path("run", name)


def test_files_are_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    WholeCheckpointIO().save_checkpoint(weights_file(), path)
    before = path.read_bytes()
    with pytest.raises(Exception, match="pickle"):
        WholeCheckpointIO().save_checkpoint({"cannot": lambda: 0}, path)
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_text(str(1 / 0))
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    with pytest.raises(RunError, match=r"last\.ckpt/x\.pth: cannot be written"):
        save_weights(path / "x.pth", SRCNN(), {})
    for cut in (1, 100, len(before) // 2):
        path.write_bytes(before[:-cut])
        with pytest.raises(UserError, match="not a checkpoint, or a damaged one"):
            read_checkpoint(path)
    path.write_bytes(before[:2000] + bytes([before[2000] ^ 1]) + before[2001:])  # of a weight: torch would not see it
    with pytest.raises(UserError, match="not a checkpoint, or a damaged one"):
        read_checkpoint(path)
