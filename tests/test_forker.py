"""What people change: their mistakes are tracebacks that end at their line, their additions work to the end."""

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import SMALL, read_csv, run

from srcnn.checkpoint import load_network

MINE = '''
import lightning as L
import torch
from torch import nn

from srcnn.data.datamodule import SRDataModule
from srcnn.data.degrade import Bicubic
from srcnn.nets import Network


class Net(Network):
    receptive_radius = 1

    def __init__(self, scale=3, at=""):
        super().__init__(scale)
        self.at, self.body_scale = at, scale
        self.conv = nn.Conv2d(3, 3 * scale**2, 3, padding=1)
        if at == "init":
            self.missing.append(1)  # AttributeError

    def preprocess(self, lr):
        if self.at == "preprocess":
            raise KeyError("preprocess")
        return lr

    def body(self, x):
        if self.at == "body":
            return self.relu(x)  # AttributeError
        if self.at == "shape":
            return x + torch.zeros(1, 7, 1, 1)  # RuntimeError
        return nn.functional.pixel_shuffle(self.conv(x), self.scale)


class Loss(nn.Module):
    """With a learned parameter and a buffer, as a perceptual loss has them."""

    def __init__(self, at=""):
        super().__init__()
        self.at, self.weight = at, nn.Parameter(torch.ones(3))
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, sr, hr):
        if self.at == "loss":
            return (sr - hr).missing()  # AttributeError
        return ((sr - hr).square().mean((0, 2, 3)) * self.weight).mean()


class Watch(L.Callback):
    def __init__(self, at="", number=0):
        self.at, self.number = at, number

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if self.at == "callback":
            1 / self.number  # ZeroDivisionError


def needs_an_extra():
    raise ModuleNotFoundError("`psutil` is needed: pip install psutil")  # as Lightning does


def interrupted():
    raise KeyboardInterrupt


class Data(SRDataModule):
    def setup(self, stage=None):
        super().setup(stage)
        if self.exclude == ["bug"]:
            {}["missing"]  # KeyError


class Degradation(Bicubic):
    def __init__(self, at=""):
        self.at = at

    def __call__(self, hr, scale, name="", version=0):
        if self.at == "degradation":
            raise OSError("a bug")  # OSError
        return super().__call__(hr, scale, name, version)


def schedule(done, total, at=""):
    if at == "schedule":
        [][1]  # IndexError
    return 1 / (1 + done)
'''

NET = [
    "model=espcn",
    "model._target_=mine.Net",
    "~model.channels",
    "~model.kernels",
    "~model.widths",
    "~model.padding_mode",
]
SCHEDULE = ["scheduler=cosine", "~scheduler.schedule", "+scheduler.schedule._target_=mine.schedule"]


@pytest.fixture
def mine(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "mine.py").write_text(MINE)
    sys.path.insert(0, str(tmp_path))
    importlib.invalidate_caches()
    yield tmp_path / "mine.py"
    sys.path.remove(str(tmp_path))
    sys.modules.pop("mine", None)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ([*NET, "+model.at=init"], "AttributeError"),
        ([*NET, "+model.at=preprocess"], "KeyError"),
        ([*NET, "+model.at=body"], "AttributeError"),
        ([*NET, "+model.at=shape"], "RuntimeError"),
        (["loss._target_=mine.Loss", "+loss.at=loss"], "AttributeError"),
        (["+callbacks.watch={_target_: mine.Watch, at: callback}"], "ZeroDivisionError"),
        (["data._target_=mine.Data", "data.exclude=[bug]"], "KeyError"),
        (["degradation._target_=mine.Degradation", "+degradation.at=degradation"], "OSError"),
        ([*SCHEDULE, "+scheduler.schedule._partial_=true", "+scheduler.schedule.at=schedule"], "IndexError"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[-1],
)
def test_a_bug_ends_at_its_line(words: list[str], error: str, mine: Path, tmp_path: Path) -> None:
    output = run("train.py", *SMALL, *words, "hydra.run.dir=run", cwd=tmp_path, code=1)
    assert f"{error}: " in output and "During handling" not in output
    *_, line = re.findall(rf'File "{re.escape(str(mine))}", line (\d+)', output)
    assert MINE.splitlines()[int(line) - 1].strip() in output.partition(f"line {line}")[2]


@pytest.mark.parametrize(("name", "code"), [("needs_an_extra", 2), ("interrupted", 130)])
def test_what_is_no_bug_has_no_traceback(name: str, code: int, mine: Path, tmp_path: Path) -> None:
    output = run("train.py", *SMALL, f"+callbacks.mine._target_=mine.{name}", cwd=tmp_path, code=code)
    assert "Traceback" not in output and ("error: `psutil` is needed: pip install psutil\n" in output) == (code == 2)


def test_everything_of_ones_own_at_once(mine: Path, tmp_path: Path) -> None:
    """Network, loss with parameters, callback, data module, degradation and schedule: trained, resumed, loaded."""
    words = [*SMALL, *NET, *SCHEDULE, "+scheduler.schedule._partial_=true", "loss._target_=mine.Loss"]
    words += ["data._target_=mine.Data", "degradation._target_=mine.Degradation", "callbacks=ema", "logger=csv"]
    words += ["+callbacks.watch={_target_: mine.Watch, number: 1}", "trainer.log_every_n_steps=1"]
    run("train.py", *words, "hydra.run.dir=run", cwd=tmp_path)
    run("train.py", "resume=run", "trainer.max_epochs=2", cwd=tmp_path)
    rates = [float(row["train/lr"]) for row in read_csv(tmp_path / "run" / "metrics.csv") if row.get("train/lr")]
    assert rates == pytest.approx([1e-4 / (1 + step) for step in range(8)])
    net, checkpoint = load_network(tmp_path / "run" / "weights.pth")
    assert type(net).__name__ == "Net" and checkpoint["run"]["steps"] == 8
    del sys.modules["mine"]
    refused = run("-m", "srcnn.evaluate", "ckpt_path=run", cwd=tmp_path, code=2)
    assert "trained for mine.Degradation, which is not known here: name its module by imports=[…]" in refused
    assert "mean" in run("-m", "srcnn.evaluate", "ckpt_path=run", "imports=[mine]", cwd=tmp_path)
