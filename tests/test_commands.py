"""Every command of the README, run as a process the way a user runs it, on tiny data."""

import json
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import read_csv, run
from PIL import Image

from srcnn.checkpoint import load_network


def test_a_run_holds_everything(trained: Path) -> None:
    """Checkpoints, logs, scores and picture, in one folder."""
    names = {path.name for path in (trained / "checkpoints").iterdir()}
    assert names == {"last.ckpt", "best.ckpt", "epoch_0000.ckpt", "epoch_0001.ckpt"}
    rows = read_csv(trained / "metrics.csv")
    assert {"train/loss", "val/psnr", "train/lr"} <= set(rows[0])
    assert sum(bool(row["val/psnr"]) for row in rows) == 2
    assert json.loads((trained / "scores.json").read_text())["protocol"] == "authors"
    table = read_csv(trained / "scores.csv")
    assert len(table) == 9
    assert table[-1]["image"] == "mean"
    assert float(table[-1]["psnr"]) == pytest.approx(np.mean([float(row["psnr"]) for row in table[:-1]]), abs=1e-4)
    with Image.open(trained / "comparison.png") as picture:
        assert picture.width > 1000


def test_train_writes_below_outputs_and_prints_a_table(tiny: list[str], tmp_path: Path) -> None:
    output = run("train.py", *tiny, "optim.lr=5e-4", "data.batch_size=16", cwd=tmp_path)
    assert "protocol authors" in output
    assert "mean" in output
    (run_folder,) = (tmp_path / "outputs").glob("*/*")
    assert "lr: 0.0005" in (run_folder / ".hydra" / "config.yaml").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"outputs"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_gpu(tiny: list[str], tmp_path: Path) -> None:
    assert "mean" in run("train.py", *tiny, "trainer.accelerator=gpu", cwd=tmp_path)


def test_sweep(sweep: tuple[Path, str]) -> None:
    folder, output = sweep
    rows = read_csv(folder / "sweep.csv")
    figures = [float(row["validation"]) for row in rows if row["run"] != "bicubic"]
    assert len(figures) == 4 and figures == sorted(figures, reverse=True) and figures[0] > figures[-1]
    assert "ranked" in output and "optim.lr=" in output
    assert (folder / "sweep.html").is_file()


def test_tensorboard(trained: Path) -> None:
    """tensorboard --logdir outputs: it finds the run and its curves."""
    arguments = ["--logdir", str(trained.parent), "--host", "127.0.0.1", "--port", "0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "tensorboard.main", *arguments], stderr=subprocess.PIPE, text=True, bufsize=1
    )
    try:
        assert process.stderr
        address = next(found[0] for line in process.stderr if (found := re.search(r"http://127[^ ]*:\d+/", line)))
        for _ in range(100):
            with urllib.request.urlopen(f"{address}data/plugin/scalars/tags") as reply:
                tags = {tag for run_tags in json.load(reply).values() for tag in run_tags}
                if "val/psnr" in tags:
                    break
            time.sleep(0.2)
        assert {"train/loss", "val/psnr", "train/lr"} <= tags
    finally:
        process.kill()
        process.communicate()


def test_init_from(tiny: list[str], trained: Path, tmp_path: Path) -> None:
    """A new run, from another's weights."""
    run("train.py", *tiny, f"init_from={trained}", "optim.lr=0", "hydra.run.dir=run", cwd=tmp_path)
    one, other = (load_network(folder / "weights.pth")[0].state_dict() for folder in (trained, tmp_path / "run"))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_predict_without_input(trained: Path, tmp_path: Path) -> None:
    """The card's command, to the letter: the test set, shrunk and super-resolved, with scores."""
    output = run("predict.py", f"ckpt_path={trained / 'checkpoints' / 'best.ckpt'}", cwd=tmp_path)
    assert "mean" in output and "protocol authors" in output
    assert len(list((tmp_path / "outputs").rglob("*_x3.png"))) == 8


@pytest.mark.parametrize("model", ["espcn", "fsrcnn_s", "srcnn_residual", "compact"])
def test_other_models(model: str, tiny: list[str], tmp_path: Path) -> None:
    """Trained, tested, and used on a file of any kind."""
    run("train.py", *tiny, f"model={model}", "scale=2", "data.patch_size=32", "hydra.run.dir=run", cwd=tmp_path)
    Image.fromarray(np.zeros((9, 11, 3), np.uint8)).save(tmp_path / "black.png")
    run("predict.py", "ckpt_path=run", "black.png", cwd=tmp_path)
    with Image.open(tmp_path / "black_x2.png") as larger:
        assert (larger.size, larger.mode) == ((22, 18), "RGB")
