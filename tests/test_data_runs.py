"""Runs on data of other kinds: pairs, another degradation, restoration at the same size."""

import json
from pathlib import Path

import pytest
import torch
from conftest import SMALL, read_csv, run
from PIL import Image

from srcnn.data.leaves import dead_leaves
from srcnn.files import read_image
from srcnn.inference.image_file import to_pillow, write_image
from srcnn.checkpoint import load_network

SHORT = ["data.patch_size=24", "data.stride=4", "data.batch_size=8", "trainer.accelerator=cpu", "trainer.max_epochs=1"]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """HR images and LR images that are the mean of 3x3 pixels, which is not bicubic."""
    folder = tmp_path_factory.mktemp("pairs")
    for number, image in enumerate(dead_leaves(4, 48, seed=5)):
        write_image(folder / "hr" / f"{number}.png", image)
        (folder / "lr").mkdir(exist_ok=True)
        to_pillow(image).reduce(3).save(folder / "lr" / f"{number}.png")
    return folder


def test_pairs_train_test_and_report(pairs: Path, tmp_path: Path) -> None:
    words = ["data=pairs", f"data.train_hr={pairs}/hr", f"data.train_lr={pairs}/lr", "data.hold_out=2"]
    output = run("train.py", *words, *SHORT, "optim.lr=0.0", "hydra.run.dir=run", cwd=tmp_path)
    assert "LR as given" in output
    rows = read_csv(tmp_path / "run" / "scores.csv")
    assert [row["image"] for row in rows] == ["0", "2", "mean"]
    # The network has learned nothing yet: it gives back bicubic, of the LR that was given.
    assert all(float(row["gain"]) == pytest.approx(0, abs=0.01) for row in rows)
    assert (tmp_path / "run" / "report.html").is_file()
    write_image(pairs / "lr" / "1.png", torch.zeros(3, 16, 16, dtype=torch.uint8))
    assert "  data.pairs: " in run("train.py", "resume=run/checkpoints/last.ckpt", "trainer.max_epochs=2", cwd=tmp_path)
    write_image(pairs / "lr" / "3.png", torch.zeros(3, 16, 15, dtype=torch.uint8))
    refused = run("train.py", *words, *SHORT, "hydra.run.dir=again", cwd=tmp_path, code=2)
    assert "3.png" in refused and "15x16" in refused and "48x48" in refused


def test_another_degradation_is_named_everywhere(tmp_path: Path) -> None:
    words = [*SMALL, "degradation=camera", "degradation.quality=[40,60]", "hydra.run.dir=run"]
    output = run("train.py", *words, cwd=tmp_path)
    assert "LR camera q40-60" in output
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert scores["degradation"] == "camera q40-60"
    assert "camera q40-60" in (tmp_path / "run" / "report.html").read_text()
    assert load_network(tmp_path / "run" / "weights.pth")[1]["run"]["degradation"] == "camera q40-60"
    Image.new("RGB", (40, 40)).save(tmp_path / "black.png")
    command = ["-m", "srcnn.evaluate", "ckpt_path=run/weights.pth", f"data.test=[{tmp_path}]"]
    assert "LR camera q40-60" in run(*command, cwd=tmp_path)  # what it was trained for
    assert "LR camera q30-95" in run(*command, "degradation=camera", cwd=tmp_path)  # as configs/degradation has it
    assert "LR bicubic" in run(*command, "degradation=bicubic", cwd=tmp_path)
    refused = run(*command, "degradation=fog", cwd=tmp_path, code=2)
    assert "degradation=fog: choose bicubic or camera" in refused


def test_restoration_at_the_same_size(tmp_path: Path) -> None:
    words = [*SMALL, "degradation=camera", "scale=1", "hydra.run.dir=run"]
    run("train.py", *words, cwd=tmp_path)
    write_image(tmp_path / "photo.png", dead_leaves(1, 30, seed=0)[0])
    run("predict.py", "ckpt_path=run/weights.pth", "photo.png", cwd=tmp_path)
    assert read_image(tmp_path / "photo_x1.png").shape == (3, 30, 30)
