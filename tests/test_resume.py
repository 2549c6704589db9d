"""A resumed run is the run that was not interrupted, bit for bit."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import read_csv, run

from srcnn.checkpoint import load_network

MUON = ["optim=muon", "callbacks=ema"]


def state(folder: Path, name: str = "last") -> dict[str, Any]:
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)


def differences(one: Any, other: Any, where: str = "") -> list[str]:
    if isinstance(one, torch.Tensor):
        return [] if torch.equal(one, other) else [where]
    if isinstance(one, dict):
        keys = [where + f"/{key}" for key in one.keys() ^ other.keys()]
        return keys + [
            d for key in one.keys() & other.keys() for d in differences(one[key], other[key], f"{where}/{key}")
        ]
    if isinstance(one, list | tuple):
        if len(one) != len(other):
            return [f"{where}: {len(one)} and {len(other)} items"]
        return [d for i, (a, b) in enumerate(zip(one, other, strict=True)) for d in differences(a, b, f"{where}/{i}")]
    return [] if one == other else [where]


def assert_same_run(one: Path, other: Path) -> None:
    """Weights, averaged weights, optimiser and schedule; and a log without gap or double."""
    a, b = state(one), state(other)
    for key in ("state_dict", "current_model_state", "optimizer_states", "lr_schedulers", "global_step", "epoch"):
        assert not differences(a.get(key), b.get(key)), key
    logs = [
        [{key: row[key] for key in row if key != "train/Mpixel_per_s"} for row in read_csv(folder / "metrics.csv")]
        for folder in (one, other)
    ]
    assert logs[0] == logs[1]


STEPS = ["scheduler=multistep", "scheduler.schedule.milestones=[1,3]"]  # per epoch


@pytest.mark.parametrize("settings", [[], MUON, STEPS], ids=["adam", "muon", "multistep"])
def test_two_epochs_and_two_more_are_four(settings: list[str], tiny: list[str], tmp_path: Path) -> None:
    run("train.py", *tiny, *settings, "trainer.max_epochs=4", "hydra.run.dir=whole", cwd=tmp_path)
    run("train.py", *tiny, *settings, "trainer.max_epochs=2", "hydra.run.dir=halves", cwd=tmp_path)
    last = "halves/checkpoints/last.ckpt"
    output = run("train.py", f"resume={last}", "trainer.max_epochs=4", cwd=tmp_path)
    assert "trainer.max_epochs: 2 -> 4" in output
    assert "bit for bit" not in output
    assert_same_run(tmp_path / "whole", tmp_path / "halves")
    assert {path.name for path in tmp_path.iterdir()} == {"whole", "halves"}
    assert "max_epochs: 4" in (tmp_path / "halves" / "config.yaml").read_text()


def test_lengthened_and_killed_in_its_test(trained: Path, tiny: list[str], tmp_path: Path) -> None:
    """The weights.pth of the shorter run does not count as the longer one's."""
    shutil.copytree(trained, tmp_path / "run")
    shorter = (tmp_path / "run" / "weights.pth").read_bytes()
    words = [*tiny, "callbacks.checkpoint.every_n_epochs=1", "hydra.run.dir=run", "resume=auto", "trainer.max_epochs=3"]
    run("train.py", *words, cwd=tmp_path)
    assert "done already" in run("train.py", *words, cwd=tmp_path)
    (tmp_path / "run" / "weights.pth").write_bytes(shorter)
    for command in (words, ["resume=run/checkpoints/last.ckpt"]):
        output = run("train.py", *command, cwd=tmp_path)
        assert "after step 21" in output and "epoch 3" not in output and "mean" in output
        assert load_network(tmp_path / "run" / "weights.pth")[1]["run"]["steps"] == 21
        (tmp_path / "run" / "weights.pth").write_bytes(shorter)
    assert "done already" not in run("train.py", *words[:-1], "trainer.max_epochs=2", cwd=tmp_path)


def test_overridden_settings_take_effect(trained: Path, tiny: list[str], tmp_path: Path) -> None:
    """The rate among them, which Lightning would take from the checkpoint; and the other groups stay as saved."""
    shutil.copytree(trained, tmp_path / "run")
    settings = ["optim.lr=3e-3", "data.batch_size=16", "trainer.max_epochs=3"]
    output = run("train.py", "resume=run/checkpoints/last.ckpt", *settings, cwd=tmp_path)
    assert "optim.lr: 0.0001 -> 0.003" in output
    assert "data.batch_size: 8 -> 16" in output
    assert "so not bit for bit the run it was: " in output
    rows = [row for row in read_csv(tmp_path / "run" / "metrics.csv") if row["train/lr"]]
    rates = [float(row["train/lr"]) for row in rows]
    assert rates == pytest.approx([1e-4] * 14 + [3e-3] * 4)
    assert state(tmp_path / "run")["optimizer_states"][0]["param_groups"][0]["lr"] == 3e-3
    assert state(tmp_path / "run")["global_step"] == 14 + 4
    assert state(tmp_path / "run")["run"]["values"]["data.train_dir"] == tiny[1].partition("=")[2]


def test_a_moved_run_keeps_its_best(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "a b,[c]=d")
    run("train.py", "resume=a b,[c]=d/checkpoints/last.ckpt", "trainer.max_epochs=3", "optim.lr=0.0", cwd=tmp_path)
    assert state(tmp_path / "a b,[c]=d", "best")["global_step"] == 14
    assert state(tmp_path / "a b,[c]=d")["global_step"] == 21
    scores = json.loads((tmp_path / "a b,[c]=d" / "scores.json").read_text())
    assert scores["val_psnr"] == state(trained, "best")["run"]["val_psnr"]


def test_another_branch_has_a_best_of_its_own(trained: Path, tmp_path: Path) -> None:
    """Resumed from an earlier checkpoint: the later best is kept under another name, not taken for this branch's."""
    shutil.copytree(trained, tmp_path / "run")
    settings = ["optim.lr=0.5", "optim.betas=[0.5,0.9]"]
    run("train.py", "resume=run/checkpoints/epoch_0001.ckpt", *settings, cwd=tmp_path)
    folder = tmp_path / "run" / "checkpoints"
    assert (folder / "best_of_step_14.ckpt").read_bytes() == (trained / "checkpoints" / "best.ckpt").read_bytes()
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert scores["val_psnr"] == state(tmp_path / "run", "best")["run"]["val_psnr"]
    assert state(tmp_path / "run")["optimizer_states"][0]["param_groups"][0]["betas"] == (0.5, 0.9)


def test_classes_are_said_again(tiny: list[str], tmp_path: Path) -> None:
    """The same command goes on with added keys and a class of the user's; the file alone does not lead to a class."""
    schedule = [f"+scheduler.schedule.{key}" for key in ("_target_=torch.optim.lr_scheduler.ExponentialLR",
                                                         "gamma=0.9")]  # fmt: skip
    command = ["train.py", *tiny, *schedule, "hydra.run.dir=run", "resume=auto"]
    run(*command, "trainer.max_steps=3", cwd=tmp_path)
    refused = run("train.py", "resume=run/checkpoints/last.ckpt", "trainer.max_steps=5", cwd=tmp_path, code=2)
    assert "scheduler.schedule._target_=torch.optim.lr_scheduler.ExponentialLR: type it again" in refused
    assert "after step 3" in run(*command, "trainer.max_steps=5", cwd=tmp_path)
    assert state(tmp_path / "run")["lr_schedulers"][0]["_last_lr"] == pytest.approx([1e-4 * 0.9**5])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["model=espcn"], "resume goes on with the same network"),
        (["model.widths=[8,8]"], "resume goes on with the same network"),
        (["scale=2"], "resume goes on with the same network"),
        (["optim=sgd"], "resume goes on with the state of the same optimiser"),
        (["init_from=x.ckpt"], "resume and init_from exclude each other"),
        ([], "this run has done its 2 epochs"),
        (["-m", "trainer.max_epochs=3,4"], "resume continues one run"),
    ],
)
def test_resume_refuses(arguments: list[str], sentence: str, trained: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    output = run("train.py", f"resume={trained}/checkpoints/last.ckpt", *arguments, cwd=tmp_path, code=2)
    assert sentence in output
    assert not list(tmp_path.iterdir())
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*")} == before


def test_checkpoints_hold_plain_data(trained: Path) -> None:
    """Nothing but tensors, dictionaries, lists, texts and numbers, so `weights_only=True` loads them; no `_target_`."""

    def types(value: Any) -> set[type]:
        if isinstance(value, dict):
            return {type(value)} | {t for key, item in value.items() for t in types(key) | types(item)}
        if isinstance(value, list | tuple):
            return {type(value)} | {t for item in value for t in types(item)}
        return {type(value)}

    checkpoint = state(trained)
    plain = {dict, list, tuple, str, int, float, bool, type(None), torch.Tensor}
    assert {t.__name__ for t in types(checkpoint) - plain} <= {"OrderedDict"}
    assert (checkpoint["network"], checkpoint["arguments"]["kernels"]) == ("SRCNN", [9, 1, 5])
    saved = checkpoint["run"]
    assert saved["classes"]["optim"] == "torch.optim.Adam"
    assert "trainer.max_epochs=2" in saved["overrides"]
    assert not any("_target_" in key for key in saved["values"])
    assert not any(key.startswith(("trainer.accelerator", "data.root", "output_dir")) for key in saved["values"])
