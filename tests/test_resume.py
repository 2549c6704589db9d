"""Runs that are killed, stopped, lengthened or changed go on; what a run ends with is in its exit code."""

import json
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch
from conftest import SMALL, read_csv, run
from kills import SETTINGS, differences, lost, resumed, stopped

from srcnn.checkpoint import WEIGHTS, load_network, read_checkpoint
from srcnn.launch import expand_resume

RATES = [*SMALL, "trainer.log_every_n_steps=1", "logger=csv"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nobody interrupts."""
    folder = tmp_path_factory.mktemp("whole")
    run("train.py", *SETTINGS, "hydra.run.dir=whole", cwd=folder)
    return folder / "whole"


@pytest.mark.parametrize("after", [7, 23, 60, 117], ids="after {} hooks".format)
def test_a_killed_run_is_the_uninterrupted_one(after: int, whole: Path, tmp_path: Path) -> None:
    assert stopped(tmp_path / "run", after) == -signal.SIGKILL
    resumed(tmp_path / "run")
    assert lost(whole, tmp_path / "run") == []
    rows = [[row["step"] for row in read_csv(folder / "metrics.csv")] for folder in (whole, tmp_path / "run")]
    assert rows[0] == rows[1]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_run_saves_and_leaves(number: int, code: int, whole: Path, tmp_path: Path) -> None:
    """In the middle of an epoch, at a step after which no checkpoint was due."""
    assert stopped(tmp_path / "run", 40, number) == code
    assert read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"] == 5
    resumed(tmp_path / "run")
    assert lost(whole, tmp_path / "run") == []


def test_a_run_stopped_in_its_last_validation(whole: Path, tmp_path: Path) -> None:
    assert stopped(tmp_path / "run", 122, signal.SIGTERM) == 143
    assert read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"] == 15
    resumed(tmp_path / "run")
    one, other = (read_checkpoint(folder / "weights.pth")["state_dict"] for folder in (whole, tmp_path / "run"))
    assert not differences(one, other)


FAIL = """
import lightning as L

class Fail(L.Callback):
    def on_{}(self, trainer, *_):
        if trainer.global_step == 9:
            raise RuntimeError("within a validation")
"""
EACH_STEP = ["callbacks.within_epoch.train_time_interval.minutes=0", "callbacks.last.save_on_exception=false"]


@pytest.mark.parametrize(("hook", "words"), [("validation_batch_end", []), ("validation_start", EACH_STEP)])
def test_a_run_that_fails_in_a_validation(hook: str, words: list[str], whole: Path, tmp_path: Path) -> None:
    """When averaged weights are in the place of the raw ones; and with a checkpoint of just before, of a step."""
    (tmp_path / "fails.py").write_text(FAIL.format(hook))
    run("train.py", *SETTINGS, *words, "+callbacks.fail._target_=fails.Fail", "hydra.run.dir=run", cwd=tmp_path, code=1)
    sys.modules.pop("fails")
    assert read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"] == 9
    run("train.py", "resume=run", "~callbacks.fail", cwd=tmp_path)
    one, other = (read_checkpoint(folder / "weights.pth")["state_dict"] for folder in (whole, tmp_path / "run"))
    assert not differences(one, other)
    rows = [[row["step"] for row in read_csv(folder / "metrics.csv")] for folder in (whole, tmp_path / "run")]
    assert rows[0] == rows[1]


def test_nan_ends_a_run(tmp_path: Path) -> None:
    words = [*SMALL, "optim=sgd", "optim.lr=1e6", "trainer.max_epochs=20", "callbacks.nan.every_n_steps=1"]
    output = run("train.py", *words, "hydra.run.dir=run", cwd=tmp_path, code=3)
    assert "NaN or infinite at step" in output and "lower optim.lr" in output
    for path in (tmp_path / "run").rglob("*.ckpt"):
        assert all(weight.isfinite().all() for weight in read_checkpoint(path)["state_dict"].values())


def test_a_sweep_goes_on_past_a_failed_run(tmp_path: Path) -> None:
    words = ["-m", *SMALL, "hydra.sweep.dir=sweep", "logger=none"]
    output = run("train.py", *words, "optim.lr=1e-3,-1,2e-3", cwd=tmp_path, code=1)
    assert "1 of the sweep's runs failed" in output and "sweep of 2 runs" in output
    again = run("train.py", *words, "optim.lr=1e-3,-1,2e-3", cwd=tmp_path, code=1)
    assert again.count("done already") == 2
    for done in (0, 1):  # without a figure of the validation
        again = run("train.py", *words[:-2], "data.hold_out=[]", "hydra.sweep.dir=other", cwd=tmp_path)
        assert again.count("done already") == done


@pytest.mark.parametrize("settings", [[], ["scheduler=multistep", "scheduler.schedule.milestones=[1,3]"]])
def test_two_epochs_and_two_more_are_four(settings: list[str], tmp_path: Path) -> None:
    words = [*SMALL, *settings, "optim=muon", "callbacks=ema"]
    run("train.py", *words, "trainer.max_epochs=4", "hydra.run.dir=whole", cwd=tmp_path)
    run("train.py", *words, "trainer.max_epochs=2", "hydra.run.dir=halves", cwd=tmp_path)
    output = run("train.py", "resume=halves", "trainer.max_epochs=4", cwd=tmp_path)
    assert "last.ckpt, with trainer.max_epochs=4" in output
    assert lost(tmp_path / "whole", tmp_path / "halves") == []


def test_an_epoch_cut_by_max_steps_and_lengthened(tmp_path: Path) -> None:
    words = [*SMALL, "trainer.max_epochs=-1", "trainer.log_every_n_steps=5"]
    run("train.py", *words, "trainer.max_steps=7", "hydra.run.dir=whole", cwd=tmp_path)
    run("train.py", *words, "trainer.max_steps=4", "hydra.run.dir=parts", cwd=tmp_path)
    run("train.py", "resume=parts", "trainer.max_steps=7", cwd=tmp_path)
    assert lost(tmp_path / "whole", tmp_path / "parts") == []
    rows = read_csv(tmp_path / "whole" / "metrics.csv")
    steps = [int(row["step"]) for row in rows if row.get("val/psnr")]
    assert steps[-1] == 6 and len(set(steps)) == len(steps)  # the last step is validated, once
    losses = [row["train/loss"] for row in rows if row.get("train/loss")]
    assert len(set(losses)) == len(losses) == 2  # of steps 5 and 7: each its own


LINEAR = ["scheduler=linear", "scheduler.schedule.warmup=0"]  # to 0 after nine steps; six are done
STEP_LR = "scheduler.schedule={_target_: torch.optim.lr_scheduler.StepLR, _partial_: true, step_size: 1, gamma: 0.5}"

RESTARTS = STEP_LR.replace("StepLR", "CosineAnnealingWarmRestarts").replace("step_size: 1, gamma: 0.5", "T_0: 3")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [([], 1e-2), (LINEAR, 1e-2 / 3), ([STEP_LR, "scheduler.interval=epoch"], 2.5e-3), ([RESTARTS], 1e-2)],
    ids=["constant", "ours", "torch's", "restarts"],
)
def test_a_changed_learning_rate_counts(settings: list[str], expected: float, tmp_path: Path) -> None:
    words = [*RATES, *settings, "optim.lr=1e-3", "trainer.max_epochs=2", "hydra.run.dir=run"]
    run("train.py", *words, cwd=tmp_path)
    run("train.py", "resume=run", "optim.lr=1e-2", "trainer.max_epochs=3", cwd=tmp_path)
    rates = [float(row["train/lr"]) for row in read_csv(tmp_path / "run" / "metrics.csv") if row.get("train/lr")]
    assert len(rates) == 9 and rates[0] == pytest.approx(1e-3)
    assert rates[6] == pytest.approx(expected, rel=1e-3)


COSINE = STEP_LR.replace("StepLR", "CosineAnnealingLR").replace("step_size: 1, gamma: 0.5", "T_max: 2")
ONE_CYCLE = STEP_LR.replace("StepLR", "OneCycleLR").replace("step_size: 1, gamma: 0.5", "max_lr: 1e-2")


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([STEP_LR], [STEP_LR.replace("0.5", "0.1")], 1e-5),
        ([COSINE], [COSINE.replace("T_max: 2", "T_max: 4")], 5e-4),
        ([COSINE], [STEP_LR], 2.5e-4),
        ([STEP_LR], ["~scheduler.schedule", "scheduler=linear", "scheduler.schedule.warmup=0"], 1e-3 / 3),
        ([ONE_CYCLE], [ONE_CYCLE], None),
    ],
    ids=["gamma", "T_max", "class", "ours", "longer"],
)
def test_a_changed_schedule_counts(before: list[str], after: list[str], expected: float | None, tmp_path: Path) -> None:
    """From where the training is; two epochs of three steps are done."""
    by = [] if before == [ONE_CYCLE] else ["scheduler.interval=epoch"]
    run("train.py", *RATES, *before, *by, "optim.lr=1e-3", "trainer.max_epochs=2", "hydra.run.dir=run", cwd=tmp_path)
    again = [word for word in after if word[0] != "~"]
    run("train.py", "resume=run", *again, "trainer.max_epochs=3", cwd=tmp_path)
    rates = [float(row["train/lr"]) for row in read_csv(tmp_path / "run" / "metrics.csv") if row.get("train/lr")]
    assert len(rates) == 9
    if expected:
        assert rates[6] == pytest.approx(expected, rel=1e-3)


def test_some_settings_overridden(tmp_path: Path) -> None:
    """As on the assignment's sheet: batch size and number of epochs."""
    run("train.py", *SMALL, "optim.lr=3e-4", "hydra.run.dir=run", cwd=tmp_path)
    run("train.py", "resume=run/checkpoints/last.ckpt", "data.batch_size=4", "trainer.max_epochs=2", cwd=tmp_path)
    settings = read_checkpoint(tmp_path / "run" / "weights.pth")["run"]["settings"]
    assert settings["optim"]["lr"] == 3e-4 and settings["data"]["batch_size"] == 4
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    output = run("train.py", *SMALL, "ckpt_path=run/checkpoints/last.ckpt", "trainer.max_epochs=3", cwd=tmp_path)
    assert "epoch 3/3" in output  # Lightning's: the state, with the settings typed now
    assert "last.ckpt, with data.batch_size=8 (4 before), optim.lr=0.0001 (0.0003 before), trainer.max_e" in output


def test_from_an_earlier_checkpoint(trained: Path, tmp_path: Path) -> None:
    """The best checkpoint of the steps that were dropped is not this run's; the log's steps are the training's."""
    shutil.copytree(trained, tmp_path / "run")
    first = tmp_path / "run" / "checkpoints" / "epoch_0000.ckpt"
    run("train.py", f"resume={first}", "optim.lr=0", cwd=tmp_path)
    weights = {f"net.{key}": value for key, value in load_network(tmp_path / "run")[0].state_dict().items()}
    assert not differences(weights, read_checkpoint(first)["state_dict"])
    tested = [row for row in read_csv(tmp_path / "run" / "metrics.csv") if any("test/" in k and row[k] for k in row)]
    assert [row["step"] for row in tested] == ["6"]


def test_a_folder_that_was_moved(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "moved")
    assert "nothing left to train" in run("train.py", "resume=moved", cwd=tmp_path)
    best = read_checkpoint(tmp_path / "moved" / "weights.pth")["run"]["checkpoint"]
    assert best == str(tmp_path / "moved" / "checkpoints" / "best.ckpt")


def test_of_a_checkpoint_alone_only_plain_words_are_taken(trained: Path, tmp_path: Path) -> None:
    checkpoint = torch.load(trained / "checkpoints" / "last.ckpt", weights_only=True)
    bad = [
        "model._target_=os.system",
        "+x=${oc.env:HOME}",
        "hydra.run.dir=/elsewhere",
        "logger.csv.save_dir=/elsewhere",
    ]
    checkpoint["run"]["overrides"] = ["optim.lr=3e-3", "experiment=fast", "data.hold_out=[t9,t27]", *bad]
    torch.save(checkpoint, tmp_path / "alone.ckpt")
    words = expand_resume(["--config-dir", "conf", f"resume={tmp_path / 'alone.ckpt'}", "seed=3"])
    assert words == [
        "--config-dir",
        "conf",
        "optim.lr=3e-3",
        "experiment=fast",
        "data.hold_out=[t9,t27]",
        "seed=3",
        f"ckpt_path='{tmp_path / 'alone.ckpt'}'",
    ]


def test_of_a_run_the_words_are_those_of_its_checkpoint(trained: Path, tmp_path: Path) -> None:
    """Which it had begun with, whatever has been refused since; in a folder whose name has an apostrophe."""
    last = tmp_path / "it's" / "checkpoints" / "last.ckpt"
    shutil.copytree(trained, last.parents[1])
    torch.save(read_checkpoint(last) | {"run": {"overrides": []}}, last)
    (last.parents[1] / ".hydra" / "overrides.yaml").write_text("[model=espcn]")
    folder = str(last.parents[1]).replace("'", r"\'")
    words = [f"hydra.run.dir='{folder}'", f"ckpt_path='{folder}/checkpoints/last.ckpt'"]
    assert expand_resume([f"resume={last.parents[1]}"]) == words
    torch.save(read_checkpoint(trained / "checkpoints" / "last.ckpt"), last)
    assert "epoch 3/3" in run("train.py", "resume=it's", "trainer.max_epochs=3", cwd=tmp_path)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["resume=nothing.ckpt"], "nothing.ckpt: no such checkpoint"),
        (["resume=auto"], "with hydra.run.dir="),
        (["resume=auto", "hydra.run.dir=${optim.lr}"], "without ${…}"),
        (["-m", "resume=x.ckpt", "seed=0,1"], "resume= is for one run"),
        (["hydra.run.dir=/proc/run"], "hydra.run.dir=/proc/run: cannot be written"),
        (["-m", "seed=0,1", "hydra.sweep.dir=/proc/sweep"], "hydra.sweep.dir=/proc/sweep: cannot be written"),
        (["ckpt_path=srcnn_x3.pth"], "srcnn_x3.pth: holds weights alone"),
        (["resume=srcnn_x3.pth"], "start one from them with init_from="),
        (["data.test=[nowhere]"], "no image set or folder 'nowhere'"),
        (["optim=muon", "optim.lr=-1"], "lr=-1: must be a number, at least 0"),
        (["init_from=broken.pth"], "broken.pth: not a checkpoint, or a damaged one"),
        (["init_from=compact_x3"], "do not fit SRCNN"),
        (["data.patch_size=600"], "data.patch_size=600: every training image is smaller"),
    ],
)
def test_a_users_mistake_is_one_sentence(words: list[str], expected: str, tmp_path: Path) -> None:
    (tmp_path / "broken.pth").write_bytes(b"PK\x03\x04 and no more")
    shutil.copy(WEIGHTS / "srcnn_x3.pth", tmp_path)
    assert expected in run("train.py", *SMALL, *words, cwd=tmp_path, code=2)


def test_a_resume_that_is_refused_changes_nothing(trained: Path, tmp_path: Path) -> None:
    """Hydra has put its words into the run's .hydra by then."""
    shutil.copytree(trained, tmp_path / "run")
    last = (tmp_path / "run" / "checkpoints" / "last.ckpt").read_bytes()
    assert "do not fit ESPCN" in run("train.py", "resume=run", "model=espcn", cwd=tmp_path, code=2)
    assert "start from its weights with init_from=" in run("train.py", "resume=run", "optim=muon", cwd=tmp_path, code=2)
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").read_bytes() == last
    assert "epoch 3/3" in run("train.py", "resume=run", "trainer.max_epochs=3", cwd=tmp_path)


def test_a_damaged_checkpoint_is_refused(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    last.write_bytes(content)
    assert "last.ckpt: not a checkpoint, or a damaged one" in run("train.py", "resume=run", cwd=tmp_path, code=2)


def test_what_a_run_ships(trained: Path) -> None:
    """The best weights by validation, tested; averaged ones where they are averaged."""
    net, checkpoint = load_network(trained / "weights.pth")
    best = read_checkpoint(trained / "checkpoints" / "best.ckpt")["state_dict"]
    assert not differences({f"net.{key}": value for key, value in net.state_dict().items()}, best)
    scores = json.loads((trained / "scores.json").read_text())
    assert checkpoint["run"]["val_psnr"] == pytest.approx(scores["val_psnr"]) and checkpoint["run"]["steps"] == 6
