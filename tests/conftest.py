"""What the tests share: small generated images, the real ones where they are, and commands run as a user runs them."""

import csv
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

os.environ["OMP_NUM_THREADS"] = "1"  # several tests run at once
os.environ["SRCNN_CACHE"] = str(Path(tempfile.gettempdir()) / f"srcnn-tests-{os.getuid()}")  # not the user's

from srcnn.data.leaves import dead_leaves
from srcnn.data.sets import SETS
from srcnn.files import write_image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # for train.py
DATA = Path(os.environ.get("SRCNN_DATA", ROOT / "data"))

# Settings of a run on three generated images, four steps an epoch, in this process or another: a second.
SMALL = [
    "data=leaves", "data.leaves.count=3", "data.leaves.size=40", "data.hold_out=1", "data.test=[leaves]",
    "data.patch_size=24", "data.stride=4", "data.batch_size=8", "trainer.accelerator=cpu", "trainer.max_epochs=1",
]  # fmt: skip


def needs(name: str) -> pytest.MarkDecorator:
    """Skip where an image set is not on this machine."""
    found = any((DATA / folder).is_dir() for folder in SETS[name].folders)
    return pytest.mark.skipif(not found, reason=f"{name} is not in {DATA} (set SRCNN_DATA)")


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of eight generated images of 64x64 pixels."""
    folder = tmp_path_factory.mktemp("images")
    for number, image in enumerate(dead_leaves(8, 64, seed=1)):
        write_image(folder / f"image{number}.png", image)
    return folder


@pytest.fixture(scope="session")
def tiny(images: Path) -> list[str]:
    """Settings of a run that takes a second: seven batches an epoch."""
    return [
        "data=folder", f"data.train_dir={images}", f"data.test=[{images}]", "data.hold_out=2", "data.batch_size=8",
        "trainer.accelerator=cpu", "trainer.log_every_n_steps=1", "trainer.max_epochs=1",
    ]  # fmt: skip


def run(*arguments: str | Path, cwd: Path, code: int = 0, env: dict[str, str] | None = None) -> str:
    """A command as a process, as a user types it, in a folder; returns stdout and then stderr."""
    command = [sys.executable, *map(str, arguments)]
    if command[1].endswith(".py"):
        command[1] = str(ROOT / command[1])
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **(env or {})}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == code, f"{command}\nexit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    if code == 2:
        assert "Traceback" not in done.stderr
        assert done.stderr.count("error:") == 1
    return done.stdout + done.stderr


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="session")
def trained(tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of two epochs."""
    cwd = tmp_path_factory.mktemp("trained")
    settings = ["trainer.max_epochs=2", "callbacks.checkpoint.every_n_epochs=1", "hydra.run.dir=run"]
    run("train.py", *tiny, *settings, cwd=cwd)
    return cwd / "run"


@pytest.fixture(scope="session")
def sweep(tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a sweep of four runs of two epochs, and what it printed."""
    cwd = tmp_path_factory.mktemp("sweep")
    settings = ["trainer.max_epochs=2", "optim.lr=1e-4,5e-3", "data.batch_size=8,16", "callbacks.crops.images=1"]
    output = run("train.py", "-m", *tiny, *settings, cwd=cwd)
    (folder,) = (cwd / "outputs").glob("*/*-sweep")
    return folder, output
