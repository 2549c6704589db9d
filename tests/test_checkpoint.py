import pickle
from pathlib import Path

import pytest
import torch

from srcnn.checkpoint import AtomicCheckpointIO, load_checkpoint, load_network
from srcnn.errors import UserError
from srcnn.files import replacing
from srcnn.nets import ESPCN, SRCNN


def test_a_stranger_runs_no_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "owned",))

    for name, save in {"torch.ckpt": torch.save, "pickle.ckpt": lambda o, f: f.write_bytes(pickle.dumps(o))}.items():
        save({"state_dict": {}, "evil": Evil()}, tmp_path / name)
        with pytest.raises(UserError, match="not a checkpoint"):
            load_checkpoint(tmp_path / name)
    assert not (tmp_path / "owned").exists()


REFUSED = r"not those of a run of ours|cannot build the network|do not fit this network"


def test_settings_name_a_model_of_this_clone_or_none(tmp_path: Path) -> None:
    good = {"choices": {"model": "srcnn"}, "values": {"scale": 2, "model.widths": [8, 4]}}
    weights = {f"net.{key}": value for key, value in SRCNN(2, widths=(8, 4)).state_dict().items()}
    path = tmp_path / "x.ckpt"
    torch.save({"state_dict": weights, "srcnn": good}, path)
    assert load_network(path)[0].scale == 2
    call = {"_target_": "pathlib.Path.touch", "self": "owned"}
    for values in (
        {"model._target_": "pathlib.Path.touch"},
        {"model.padding_mode": call},
        {"model.padding_mode": [call]},
        {"model.padding_mode": "${oc.env:HOME}"},
        {"model.padding_mode": "reboot"},
        {"model.a.b": 1},
        {"hydra.run.dir": "/"},
        {"model.widths": [10**12, 4]},
    ):
        torch.save({"state_dict": weights, "srcnn": {**good, "values": good["values"] | values}}, path)
        with pytest.raises(UserError, match=REFUSED):
            load_network(path)
    for choices in ({"model": "../../evil"}, {"model": "nothing"}, {"model": None}, {"hydra/launcher": "x"}, {}, None):
        torch.save({"state_dict": weights, "srcnn": {**good, "choices": choices}}, path)
        with pytest.raises(UserError, match=REFUSED):
            load_network(path)


@pytest.mark.parametrize("net", [SRCNN(), SRCNN(channels=1, kernels=(9, 5, 5)), ESPCN(2), ESPCN(4, channels=1)])
def test_bare_weights_tell_their_network(net, tmp_path: Path) -> None:
    """As other repositories save them too, with DataParallel's or torch.compile's prefix."""
    for prefix in ("", "module.", "_orig_mod."):
        torch.save({prefix + key: value for key, value in net.state_dict().items()}, tmp_path / "checkpoint.pth")
        loaded, _ = load_network(tmp_path / "checkpoint.pth")
        assert type(loaded) is type(net)
        assert (loaded.scale, loaded.channels) == (net.scale, net.channels)
        x = torch.rand(1, net.channels, 12, 12)
        assert torch.equal(loaded(x), net(x))
    if isinstance(net, SRCNN):
        assert load_network(tmp_path / "checkpoint.pth", scale=2)[0].scale == 2
    else:
        with pytest.raises(UserError, match="scale=3, but the shapes"):
            load_network(tmp_path / "checkpoint.pth", scale=3)


def test_the_keys_that_do_not_fit_are_named(tmp_path: Path) -> None:
    weights = SRCNN().state_dict()
    weights["conv4.weight"] = weights.pop("conv2.bias")
    torch.save(weights, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"conv2.bias is missing; conv4.weight is not the network's"):
        load_network(tmp_path / "x.pth")


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
