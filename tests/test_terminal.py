"""What a run prints, on a terminal and where there is none."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import lightning as L
import pytest
from conftest import ROOT, SMALL, run
from torch.utils.data import DataLoader

from srcnn.checkpoint import read_checkpoint
from srcnn.data.degrade import Bicubic
from srcnn.data.samples import read_set
from srcnn.lit_module import SuperResolution
from srcnn.nets import SRCNN
from srcnn.report.terminal import Banner, Progress


def test_plain_lines(tiny: list[str], images: Path, tmp_path: Path) -> None:
    """No terminal: a banner, a line an epoch, the table; nothing of Lightning's, nothing drawn."""
    words = [*tiny, "trainer.max_epochs=2", "scheduler=cosine", "hydra.run.dir=run"]
    output = run("train.py", *words, cwd=tmp_path)
    assert "network   SRCNN x3 on RGB, 20,099 parameters\n" in output
    assert f"data      6 images of {images}, 2 more to validate on\n" in output
    assert f"LR        bicubic; test on {images}\n" in output
    assert "training  6 steps in 2 epochs, batches of 8 patches 33x33\n" in output
    assert "recipe    MSELoss, Adam at 0.0001, cosine\n" in output
    assert re.search(r"^precision (bf16-mixed|32-true)$", output, re.MULTILINE)
    assert re.search(r"^folder    \S+run$", output, re.MULTILINE)
    figures = r"loss \S+  PSNR \d+\.\d\d dB \(bicubic \d+\.\d\d\)"
    assert re.search(rf"^epoch 1/2  {figures}  \d+ s, \d+ s left$", output, re.MULTILINE)
    assert re.search(rf"^epoch 2/2  {figures}  \d+ s$", output, re.MULTILINE)
    assert "\x1b" not in output
    assert all(len(line) <= 80 for line in output.splitlines() if str(tmp_path.parent.parent) not in line)
    assert not re.search(r"warn|lightning|tip\b", output, re.IGNORECASE)


@pytest.mark.parametrize(
    ("words", "epochs"),
    [("trainer.accumulate_grad_batches=4", 2), ("trainer.limit_train_batches=2", 2), ("+trainer.overfit_batches=2", 2),
     ("trainer.max_steps=2", 1), ("trainer.max_steps=4", 2)],
)  # fmt: skip
def test_the_banner_tells_the_steps(words: str, epochs: int, tiny: list[str], tmp_path: Path) -> None:
    """As many as Lightning takes, and in how many epochs."""
    output = run("train.py", *tiny, "trainer.max_epochs=2", "hydra.run.dir=run", words, cwd=tmp_path)
    steps = read_checkpoint(tmp_path / "run" / "weights.pth")["run"]["steps"]
    assert f"training  {steps} steps in {epochs} epochs" in output


def test_other_data(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A plain DataLoader, of which nothing is known."""
    samples = read_set(str(images), "", 3, Bicubic())
    loader = DataLoader([(sample.lr[0], sample.hr[0, :, :63, :63]) for sample in samples], batch_size=4)
    options = {"accelerator": "cpu", "max_epochs": 1, "logger": False, "enable_checkpointing": False}
    trainer = L.Trainer(**options, callbacks=[Banner(), Progress()], default_root_dir=tmp_path)  # type: ignore[arg-type]
    trainer.fit(SuperResolution(SRCNN()), loader)
    output = capsys.readouterr().out
    assert (
        "data      DataLoader\n" in output and "training  2 steps in 1 epochs\n" in output and "epoch 1/1  " in output
    )


_SUMMARY = "+callbacks.summary._target_=lightning.pytorch.callbacks.ModelSummary"


def test_bars_on_a_terminal(tmp_path: Path) -> None:
    """Of 80 columns: Lightning's bars below the lines, of which no one wraps."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    command = [sys.executable, str(ROOT / "train.py"), *SMALL, "trainer.log_every_n_steps=1", _SUMMARY]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm"})
    os.close(theirs)
    output = b""
    try:
        while piece := os.read(ours, 65536):
            output += piece
    except OSError:  # how a pseudo-terminal says that the other end is closed
        pass
    os.close(ours)
    assert process.wait() == 0, output.decode()
    lines = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", output.decode()).replace("\r", "\n").splitlines()
    assert any(re.fullmatch(r"Epoch 0: 100%\|.*loss=\S+\] *", line) for line in lines)
    assert any(re.fullmatch(r"epoch 1/1  loss \S+  PSNR \S+ dB \(bicubic \S+\)  \d+ s", line) for line in lines)
    assert all(len(line) <= 80 for line in lines if str(tmp_path) not in line)
