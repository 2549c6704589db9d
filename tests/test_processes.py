"""Two processes on the CPU train what one would, also under torchrun and when one of them is stopped."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from conftest import ROOT, SMALL, read_csv, run
from kills import lost

from srcnn.checkpoint import read_checkpoint

pytestmark = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="there is one processor core")

WORDS = [*SMALL, "optim=muon", "callbacks=ema", "trainer.precision=32-true", "trainer.max_epochs=2", "logger=csv",
         "trainer.log_every_n_steps=1"]  # fmt: skip
TWO = [*WORDS, "trainer=ddp", "trainer.devices=2"]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two") / "run"
    run("train.py", *TWO, f"hydra.run.dir={folder}", cwd=folder.parent)
    return folder


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_two_processes_train_as_one(two: Path, tmp_path: Path) -> None:
    """The same batches, shared: weights and losses are one process's but for the order of additions."""
    run("train.py", *WORDS, "hydra.run.dir=run", cwd=tmp_path)
    one, both = (read_checkpoint(folder / "checkpoints" / "last.ckpt") for folder in (tmp_path / "run", two))
    assert one["global_step"] == both["global_step"] == 6
    for key, value in one["state_dict"].items():
        torch.testing.assert_close(both["state_dict"][key], value, atol=1e-5, rtol=1e-4)
    logs = [read_csv(folder / "metrics.csv") for folder in (tmp_path / "run", two)]
    for name, tolerance in (("train/loss", 1e-3), ("val/psnr", 1e-3)):
        alone, shared = ([float(row[name]) for row in log if row[name]] for log in logs)
        assert shared == pytest.approx(alone, rel=tolerance)
    assert files(two) == files(tmp_path / "run")
    assert read_checkpoint(two / "weights.pth")["run"]["machine"]["processes"] == 2


def test_torchrun(two: Path, tmp_path: Path) -> None:
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(ROOT / "train.py"), *TWO]
    run(*command, "hydra.run.dir=run", cwd=tmp_path)
    assert lost(two, tmp_path / "run") == []
    output = run("train.py", *TWO, cwd=tmp_path, code=2, env={"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "2"})
    assert "under torchrun every process has to know the run's folder" in output


STOP = """
import os
import lightning as L

class Stop(L.Callback):
    def __init__(self, rank, number):
        self.rank, self.number = rank, number

    def on_before_backward(self, trainer, pl_module, loss):
        if trainer.global_rank == self.rank and trainer.global_step == 4:
            os.kill(os.getpid(), self.number)
"""


@pytest.mark.parametrize(("rank", "number", "code"), [(1, signal.SIGTERM, 143), (0, signal.SIGINT, 130)])
def test_two_processes_stop_together(rank: int, number: int, code: int, two: Path, tmp_path: Path) -> None:
    """A signal reaches one of them within the fifth step; what both resume is the uninterrupted run."""
    (tmp_path / "mine.py").write_text(STOP)
    stop = f"+callbacks.stop={{_target_: mine.Stop, rank: {rank}, number: {int(number)}}}"
    command = [sys.executable, str(ROOT / "train.py"), *TWO, stop, "hydra.run.dir=run"]
    process = subprocess.Popen(command, cwd=tmp_path, start_new_session=True, stderr=subprocess.PIPE, text=True)
    try:
        _, errors = process.communicate(timeout=120)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == code and "Traceback" not in errors, errors
    assert read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"] == 5
    run("train.py", "resume=run", "trainer.devices=2", "~callbacks.stop", cwd=tmp_path)
    assert lost(two, tmp_path / "run") == []
