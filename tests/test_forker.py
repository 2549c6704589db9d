"""What people change: their mistakes are tracebacks that end at their line, their additions work to the end."""

import csv
import importlib
import os
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
import torch
from conftest import ROOT, SMALL, read_csv, run
from hydra import compose, initialize_config_dir

import train
from srcnn.run import CONFIGS
from srcnn.checkpoint import load_network
from srcnn.launch import train_command

MINE = '''
import lightning as L
import torch
from torch import nn

from srcnn.data.datamodule import SRDataModule
from srcnn.nets.base import Network


class Net(Network):
    body_scale, receptive_radius = 3, 1

    def __init__(self, scale=3, channels=3, at=""):
        super().__init__(scale, channels)
        self.at = at
        self.conv = nn.Conv2d(channels, channels * 9, 3, padding=1)
        if at == "init":
            self.missing.append(1)  # AttributeError
        if at == "value":
            int("x")  # ValueError

    def preprocess(self, lr):
        if self.at == "preprocess":
            raise KeyError("preprocess")
        return lr

    def body(self, x):
        if self.at == "body":
            return self.relu(x)  # AttributeError
        if self.at == "shape":
            return x + torch.zeros(1, 7, 1, 1)  # RuntimeError
        if self.at == "assert":
            assert x.shape[1] == 99  # AssertionError
        return nn.functional.pixel_shuffle(self.conv(x), 3)


class Loss(nn.Module):
    """With a buffer and a learned parameter, as a perceptual loss has them."""

    def __init__(self, at=""):
        super().__init__()
        self.at = at
        self.register_buffer("kernel", torch.ones(1, 3, 1, 1))
        self.weight = nn.Parameter(torch.zeros(()))
        if at == "init":
            {}["init"]  # KeyError

    def forward(self, sr, hr):
        if self.at == "forward":
            return sr @ torch.zeros(5, 5)  # RuntimeError
        return ((sr - hr).square() * self.kernel).mean() + (self.weight - 1).square()


class Callback(L.Callback):
    def __init__(self, at=""):
        self.at = at
        if at == "init":
            open("/nowhere/file", "w")  # OSError
        if at == "type":
            len(5)  # TypeError

    def on_train_batch_end(self, trainer, *_):
        if self.at == "step":
            trainer.nothing()  # AttributeError
        if self.at == "open":
            open("/nowhere/file", "w")  # OSError

    def on_validation_end(self, trainer, module):
        if self.at == "validation":
            {}["validation"]  # KeyError


class Data(SRDataModule):
    at = ""

    def __init__(self, net, degradation, at="", **settings):
        super().__init__(net, degradation, **settings)
        self.at = at

    def load(self):
        if self.at == "load":
            None.load()  # AttributeError
        super().load()

    def train_dataloader(self):
        if self.at == "loader":
            assert 1 == 2  # AssertionError
        return super().train_dataloader()
'''
BUGS = [
    ("model._target_=mine.Net +model.at=init", AttributeError),
    ("model._target_=mine.Net +model.at=value", ValueError),
    ("model._target_=mine.Net +model.at=preprocess", KeyError),
    ("model._target_=mine.Net +model.at=body", AttributeError),
    ("model._target_=mine.Net +model.at=shape", RuntimeError),
    ("model._target_=mine.Net +model.at=assert", AssertionError),
    ("loss._target_=mine.Loss +loss.at=init", KeyError),
    ("loss._target_=mine.Loss +loss.at=forward", RuntimeError),
    ("+callbacks.mine._target_=mine.Callback +callbacks.mine.at=init", OSError),
    ("+callbacks.mine._target_=mine.Callback +callbacks.mine.at=type", TypeError),
    ("+callbacks.mine._target_=mine.Callback +callbacks.mine.at=step", AttributeError),
    ("+callbacks.mine._target_=mine.Callback +callbacks.mine.at=open", OSError),
    ("+callbacks.mine._target_=mine.Callback +callbacks.mine.at=validation", KeyError),
    ("data._target_=mine.Data +data.at=load", AttributeError),
    ("data._target_=mine.Data +data.at=loader", AssertionError),
    ("loss._target_=broken.Loss", NameError),
]
PLAIN = ["~model.kernels", "~model.widths", "~model.residual", "~model.padding_mode", "~model.init"]  # SRCNN's settings


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a module of one's own that is found."""
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "broken.py").write_text("import torch\nnothing.here\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    for name in ("mine", "broken"):
        sys.modules.pop(name, None)
    importlib.invalidate_caches()
    return tmp_path


@pytest.mark.parametrize(("words", "kind"), BUGS, ids=[words.split("=", 1)[1] for words, _ in BUGS])
def test_a_bug_is_a_traceback_that_ends_at_its_line(words: str, kind: type, mine: Path, monkeypatch, capsys) -> None:
    plain = PLAIN if "model._target_" in words else []
    monkeypatch.setattr(sys, "argv", ["train.py", *SMALL, *plain, *words.split(" ")])
    with pytest.raises(kind) as error:
        train_command(train.train)
    frames = traceback.extract_tb(error.value.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).parent == mine]
    assert own and (kind.__name__ in str(own[-1].line) or Path(own[-1].filename).name == "broken.py" or own[-1].line)
    assert own[-1] == frames[-1] or "torch" in frames[-1].filename
    assert "error:" not in capsys.readouterr().err


def test_the_traceback_is_seen_and_the_exit_code_is_1(mine: Path) -> None:
    words = ["+callbacks.mine._target_=mine.Callback", "+callbacks.mine.at=step"]
    output = run("train.py", *SMALL, *words, cwd=mine, code=1, env={"PYTHONPATH": str(mine)})
    assert "trainer.nothing()  # AttributeError" in output
    assert "mine.py" in output and "settings" not in output
    assert output.rstrip().endswith("AttributeError: 'Trainer' object has no attribute 'nothing'")


def test_a_sweep_shows_the_traceback_and_goes_on(mine: Path) -> None:
    words = ["-m", "hydra.sweep.dir=s", "+loss.at='',forward", "loss._target_=mine.Loss"]
    words += ["+callbacks.mine._target_=mine.Callback", "+callbacks.mine.at='${output_dir}'"]  # resolved in each job
    output = run("train.py", *SMALL, *words, cwd=mine, code=1, env={"PYTHONPATH": str(mine)})
    assert "return sr @ torch.zeros(5, 5)  # RuntimeError" in output
    assert "1 of the sweep's runs failed" in output
    assert (mine / "s" / "0" / "weights.pth").is_file()
    assert len(read_csv(mine / "s" / "sweep.csv")) == 1


def test_a_loss_with_a_buffer_and_a_parameter(mine: Path) -> None:
    """It is trained, saved and resumed with the run; the network is read without it."""
    words = [*SMALL, "loss._target_=mine.Loss", "hydra.run.dir=run", "resume=auto", "optim.lr=1e-2"]
    env = {"PYTHONPATH": str(mine)}
    run("train.py", *words, cwd=mine, env=env)
    state = torch.load(mine / "run" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert "loss.kernel" in state and float(state["loss.weight"]) > 0.02
    for name in ("weights.pth", "checkpoints/last.ckpt", "checkpoints/best.ckpt"):
        net, _ = load_network(mine / "run" / name)
        assert torch.equal(net.conv1.weight, state["net.conv1.weight"])
    run("train.py", *words, "trainer.max_epochs=2", cwd=mine, env=env)
    again = torch.load(mine / "run" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert float(again["loss.weight"]) > float(state["loss.weight"])


def test_a_callback_writes_only_where_it_wants_to(mine: Path, monkeypatch) -> None:
    """Nothing is made on trial: no folder called after a place that does not exist."""
    (mine / "maker.py").write_text(
        "import lightning as L\nfrom pathlib import Path\n"
        "class Maker(L.Callback):\n    def __init__(self, folder):\n        Path(folder).mkdir(parents=True)\n"
    )
    words = [
        "+callbacks.maker._target_=maker.Maker",
        "+callbacks.maker.folder='${output_dir}/made'",
        "hydra.run.dir=run",
    ]
    monkeypatch.setattr(sys, "argv", ["train.py", *SMALL, *words])
    train_command(train.train)
    assert (mine / "run" / "made").is_dir()
    assert {path.name for path in mine.iterdir() if path.is_dir()} <= {"run", "__pycache__"}


def test_train_is_a_function(tmp_path: Path, monkeypatch) -> None:
    """Without Hydra's job: from a notebook, or another program's own @hydra.main."""
    monkeypatch.chdir(tmp_path)
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose("train", [*SMALL, f"output_dir={tmp_path}/run"])
    (tmp_path / "run").mkdir()
    assert train.train(cfg) > 10
    assert load_network(tmp_path / "run" / "weights.pth")[0].scale == 3
    (tmp_path / "program.py").write_text(
        "import hydra, sys\nfrom srcnn.checkpoint import load_network\n"
        "@hydra.main(version_base='1.3', config_path=None)\n"
        "def main(cfg):\n    print(type(load_network(sys.path[0] + '/run/weights.pth')[0]).__name__)\nmain()\n"
    )
    command = [sys.executable, "program.py"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout == "SRCNN\n", done.stderr


@pytest.mark.parametrize("precision", ["64-true", "bf16-true", "bf16-mixed"])
def test_precisions(precision: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py", *SMALL, f"trainer.precision={precision}", "hydra.run.dir=run"])
    train_command(train.train)
    assert (tmp_path / "run" / "weights.pth").is_file()


def test_lightnings_own_tools(tmp_path: Path) -> None:
    """A profiler prints; batches to overfit are the same in every epoch."""
    words = ["+trainer.profiler=simple", "+trainer.overfit_batches=1", "trainer.max_epochs=3", "optim.lr=0.0"]
    words += ["hydra.run.dir=run", "trainer.log_every_n_steps=1", "data.augment=false"]
    output = run("train.py", *SMALL, *words, cwd=tmp_path, env={})
    assert "run_training_epoch" in output
    with open(tmp_path / "run" / "metrics.csv", newline="") as file:
        losses = {row["train/loss"] for row in csv.DictReader(file) if row["train/loss"]}
    assert len(losses) == 1


def test_another_logger(tmp_path: Path) -> None:
    """Lightning's own CSV logger beside ours: hyper-parameters, the test's scores, and a resume."""
    words = [*SMALL, "+logger.other._target_=lightning.pytorch.loggers.CSVLogger", "+logger.other.save_dir=logs",
             "hydra.run.dir=run", "resume=auto"]  # fmt: skip
    run("train.py", *words, cwd=tmp_path)
    run("train.py", *words, "trainer.max_epochs=2", cwd=tmp_path)
    for version in ("version_0", "version_1"):
        folder = tmp_path / "logs" / "lightning_logs" / version
        assert "optim.lr: 0.0001" in (folder / "hparams.yaml").read_text()
        assert "test/leaves/psnr" in (folder / "metrics.csv").read_text()


def test_schedulers_of_torch(tmp_path: Path) -> None:
    """Resumed bit for bit at the same length; refused where another length or rate would be lost in their state."""
    for schedule in (
        ["_target_=torch.optim.lr_scheduler.OneCycleLR", "max_lr=1e-2", "total_steps=40"],
        ["_target_=torch.optim.lr_scheduler.CyclicLR", "base_lr=1e-4", "max_lr=1e-2", "step_size_up=3"],
        ["_target_=torch.optim.lr_scheduler.MultiStepLR", "milestones=[1,2]"],
    ):
        interval = "epoch" if "MultiStep" in schedule[0] else "step"
        folder = schedule[0].rpartition(".")[2]
        words = [*SMALL, *(f"+scheduler.schedule.{word}" for word in schedule), f"scheduler.interval={interval}"]
        words += ["optim=sgd", "resume=auto"]
        run("train.py", *words, "trainer.max_epochs=3", f"hydra.run.dir={folder}/whole", cwd=tmp_path)
        cut = [*words, f"hydra.run.dir={folder}/cut"]
        run("train.py", *cut, "trainer.max_epochs=3", "trainer.max_steps=6", cwd=tmp_path)
        run("train.py", *cut, "trainer.max_epochs=3", cwd=tmp_path)
        states = [
            torch.load(tmp_path / folder / part / "checkpoints" / "last.ckpt", weights_only=True)
            for part in ("whole", "cut")
        ]
        assert states[0]["lr_schedulers"] == states[1]["lr_schedulers"]
        for key, value in states[0]["state_dict"].items():
            assert torch.equal(value, states[1]["state_dict"][key]), (folder, key)
        output = run("train.py", *cut, "trainer.max_epochs=6", cwd=tmp_path, code=2)
        assert "keeps the old learning rate in its state" in output
