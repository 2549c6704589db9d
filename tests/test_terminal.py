"""What a run says, on a terminal and where there is none."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, read_csv, run

from srcnn.checkpoint import read_checkpoint
from srcnn.report.page import duration


def test_plain_lines(tiny: list[str], tmp_path: Path) -> None:
    """No terminal: a banner, a line an epoch, the table; nothing of Lightning's, nothing drawn."""
    output = run("train.py", *tiny, "trainer.max_epochs=2", "hydra.run.dir=run", cwd=tmp_path)
    assert "SRCNN x3 on RGB, 20,099 parameters" in output
    assert re.search(r"^data +6 images of .*, 2 more to validate on$", output, re.MULTILINE)
    assert re.search(r"^training +14 steps in 2 epochs, batches of 8 patches 33x33$", output, re.MULTILINE)
    assert "          MSELoss, Adam at 0.0001\n" in output
    assert re.search(r"^precision (bf16-mixed|32-true): the processor has ", output, re.MULTILINE)
    assert re.search(r"^folder +\S+run$", output, re.MULTILINE)
    figures = r"loss \S+  PSNR \d+\.\d\d \(bicubic \d+\.\d\d\)"
    assert re.search(rf"^epoch 1/2  {figures}  \d+ s, \d+ s left$", output, re.MULTILINE)
    assert re.search(rf"^epoch 2/2  {figures}  \d+ s$", output, re.MULTILINE)
    assert "\x1b" not in output
    assert all(len(line) <= 80 for line in output.splitlines() if "/" not in line.replace("/2", ""))  # but for paths
    assert not re.search("warn|lightning|tip", output, re.IGNORECASE)


@pytest.mark.parametrize(
    "words",
    ["trainer.accumulate_grad_batches=4", "trainer.limit_train_batches=3", "trainer.limit_train_batches=0.5",
     "+trainer.overfit_batches=2", "trainer.max_steps=5", "trainer.limit_train_batches=5 trainer.max_steps=13"],
)  # fmt: skip
def test_the_banner_tells_the_steps(words: str, tiny: list[str], tmp_path: Path) -> None:
    """As many as Lightning takes, and a row of the log at least."""
    settings = [word for word in tiny if "log_every" not in word]
    output = run("train.py", *settings, "trainer.max_epochs=2", "hydra.run.dir=run", *words.split(), cwd=tmp_path)
    steps = read_checkpoint(tmp_path / "run" / "weights.pth")["run"]["steps"]
    assert f"training  {steps} steps in 2 epochs" in output
    rows = [row for row in read_csv(tmp_path / "run" / "metrics.csv") if row["train/loss"]]
    assert len(rows) == (2 if "max_steps" not in words or "limit" in words else 1)


def test_a_long_recipe_names_a_faster_one(tmp_path: Path) -> None:
    """Where it would take long on a CPU and no experiment was chosen; here on generated images, which need no T91."""
    settings = [
        "data=leaves",
        "data.leaves.count=6",
        "data.test=[leaves]",
        "data.hold_out=0",
        "trainer.accelerator=cpu",
    ]
    command = [sys.executable, str(ROOT / "train.py"), *settings, "trainer.max_epochs=9000"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        assert process.stdout
        lines = iter(process.stdout)
        line = next(line for line in lines if line.startswith("time"))
        process.kill()
    assert re.fullmatch(r"time +about [\d.]+ (min|h), \d+ ms a step; experiment=fast takes a minute\n", line)


def test_bar(tiny: list[str], tmp_path: Path) -> None:
    """On a terminal of 80 columns: Lightning's bar, each epoch's stays, in one line."""
    ours, theirs = pty.openpty()
    command = [sys.executable, str(ROOT / "train.py"), *tiny, "trainer.max_epochs=2"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    process = subprocess.Popen(command, cwd=tmp_path, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    output = b""
    try:
        while piece := os.read(ours, 65536):
            output += piece
    except OSError:  # how a pseudo-terminal says that the other end is closed
        pass
    os.close(ours)
    assert process.wait() == 0, output.decode()
    last = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", output.decode()).replace("\r", "\n")
    for epoch in (1, 2):
        assert re.search(rf"^epoch {epoch}/2 +━+ 7/7 +[\d:]+ loss: \S+ PSNR: \S+ *$", last, re.MULTILINE)
    assert "mean" in last


@pytest.mark.parametrize(("seconds", "text"), [(5.4, "5 s"), (99, "99 s"), (150, "2 min"), (7200, "2.0 h")])
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
