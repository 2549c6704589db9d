"""The datamodule, and runs on data of other kinds: pairs, another degradation, restoration at the same size."""

import json
from pathlib import Path

import pytest
import torch
from conftest import SMALL, read_csv, run
from PIL import Image

from srcnn.checkpoint import load_network
from srcnn.data.datamodule import SRDataModule
from srcnn.data.leaves import dead_leaves
from srcnn.errors import UserError
from srcnn.files import read_image
from srcnn.inference.image_file import to_pillow, write_image

SHORT = ["data.patch_size=24", "data.stride=4", "data.batch_size=8", "trainer.accelerator=cpu", "trainer.max_epochs=1"]


def names(data: SRDataModule) -> tuple[list[str], list[str], list[str]]:
    """Of the images to train, validate and test on."""
    data.setup()
    training = data._split()[0]
    assert len(data.patches.pack.sizes) == len(training)
    return list(training), [sample.name for sample in data.validation], [sample.name for sample in data.testing]


@pytest.mark.parametrize(
    ("hold_out", "expected"),
    [(2, ["image0", "image4"]), (-2, ["image6", "image7"]), (["image5"], ["image5"]), ([], [])],
)
def test_images_held_out(hold_out: int | list[str], expected: list[str], images: Path) -> None:
    data = SRDataModule(3, train_dir=str(images), test=[str(images)], hold_out=hold_out, exclude=["image1"])
    training, validation, testing = names(data)
    assert validation == expected
    assert training == [f"image{i}" for i in range(8) if i != 1 and f"image{i}" not in expected]
    assert testing == [f"image{i}" for i in range(8)]
    lr, hr = next(iter(data.train_dataloader()))  # also without Lightning
    assert lr.shape == (128, 3, 11, 11) and hr.shape == (128, 3, 33, 33)
    assert len(data.val_dataloader()) == len(expected)


def test_other_images_to_validate_on(images: Path, tmp_path: Path) -> None:
    for number, image in enumerate(dead_leaves(2, 40, seed=5)):
        write_image(tmp_path / f"{number}.png", image)
    data = SRDataModule(3, train_dir=str(images), val=str(tmp_path), test=["photos", str(tmp_path)])
    training, validation, testing = names(data)
    assert len(training) == 8 and validation == ["0", "1"] and len(testing) == 6
    sample = data.testing[-1]
    assert (sample.name, sample.image_set) == ("1", tmp_path.name)


def test_smaller_copies_are_trained_on(images: Path) -> None:
    data = SRDataModule(2, train_dir=str(images), test=[str(images)], hold_out=1, rescale=[0.9, 0.5])
    data.setup()
    assert sorted(map(tuple, data.patches.pack.sizes)) == [(32, 32)] * 7 + [(58, 58)] * 7 + [(64, 64)] * 7


def test_images_that_are_not_trained_on_are_counted(images: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "a" / "b" / "deep.png", torch.zeros(3, 64, 64, dtype=torch.uint8))
    write_image(tmp_path / "small.png", torch.zeros(3, 20, 64, dtype=torch.uint8))
    write_image(tmp_path / "large.png", torch.zeros(3, 64, 64, dtype=torch.uint8))
    data = SRDataModule(3, train_dir=str(tmp_path), test=[str(images)])
    data.setup()
    assert data.ignored == 1 and data.patches.left_out == 1


@pytest.mark.parametrize(("name", "value"), [("patch_size", 24.5), ("patch_size", 2), ("batch_size", 8.5)])
def test_wrong_sizes(name: str, value: float) -> None:
    with pytest.raises(UserError, match=rf"data\.{name}={value}: must be a (whole number|number, at least 3)"):
        SRDataModule(3, **{name: value})


def test_the_same_images_are_packed_once(images: Path) -> None:
    one, two, other = (SRDataModule(3, train_dir=str(images), test=[str(images)], hold_out=n) for n in (1, 1, 2))
    for data in (one, two, other):
        data.setup()
    assert one.patches.pack.path == two.patches.pack.path != other.patches.pack.path
    fresh = SRDataModule(3, train_dir=str(images), test=[str(images)], hold_out=1)
    fresh.setup("validate")
    assert len(fresh.validation) == 1 and not hasattr(fresh, "patches")  # packs nothing


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
    assert "LR        as given" in output
    rows = read_csv(tmp_path / "run" / "scores.csv")
    assert [row["image"] for row in rows] == ["0", "2", "mean"]
    # The network has learned nothing yet: it gives back bicubic, of the LR that was given.
    assert all(float(row["gain"]) == pytest.approx(0, abs=0.01) for row in rows)
    assert (tmp_path / "run" / "report.html").is_file()
    test = [f"data.test_hr={pairs}/hr", f"data.test_lr={pairs}/lr", "hydra.run.dir=all"]
    run("train.py", *words, *SHORT, *test, cwd=tmp_path)
    assert [row["image"] for row in read_csv(tmp_path / "all" / "scores.csv")] == ["0", "1", "2", "3", "mean"]


def test_another_degradation_is_named_everywhere(tmp_path: Path) -> None:
    words = [*SMALL, "degradation=camera", "degradation.quality=[40,60]", "hydra.run.dir=run"]
    assert "LR        camera q40-60" in run("train.py", *words, cwd=tmp_path)
    assert json.loads((tmp_path / "run" / "scores.json").read_text())["degradation"] == "camera q40-60"
    assert "camera q40-60" in (tmp_path / "run" / "report.html").read_text()
    assert load_network(tmp_path / "run" / "weights.pth")[1]["run"]["degradation"] == "camera q40-60"
    Image.new("RGB", (40, 40)).save(tmp_path / "black.png")
    output = run("-m", "srcnn.evaluate", "ckpt_path=run/weights.pth", f"data.test=[{tmp_path}]", cwd=tmp_path)
    assert "camera q40-60" in output  # what it was trained for


def test_restoration_at_the_same_size(tmp_path: Path) -> None:
    run("train.py", *SMALL, "degradation=camera", "scale=1", "hydra.run.dir=run", cwd=tmp_path)
    write_image(tmp_path / "photo.png", dead_leaves(1, 30, seed=0)[0])
    run("predict.py", "ckpt_path=run/weights.pth", "photo.png", cwd=tmp_path)
    assert read_image(tmp_path / "photo_x1.png").shape == (3, 30, 30)


def test_a_black_image_among_those_held_out(images: Path, tmp_path: Path) -> None:
    """Its infinite PSNR is left out of the mean, which is said, so that `best` and the report still mean something."""
    (tmp_path / "photos").mkdir()  # a folder, though a set has its name
    for path in sorted(images.iterdir())[:3]:
        (tmp_path / "photos" / path.name).symlink_to(path)
    Image.new("RGB", (64, 64)).save(tmp_path / "photos" / "black.png")
    words = ["data=folder", "data.train_dir=photos", "data.test=[./photos]", "data.hold_out=[black,image0]", *SHORT]
    output = run("train.py", *words, "optim.lr=1e-3", "hydra.run.dir=run", cwd=tmp_path)
    rows = {row["image"]: row for row in read_csv(tmp_path / "run" / "scores.csv")}
    figures = [float(rows[f"image{i}"]["psnr"]) for i in range(3)]
    assert rows["black"]["bicubic_psnr"] == "inf" and "1 image is exact" in output
    assert float(rows["mean"]["psnr"]) == pytest.approx(sum(figures) / 3, abs=0.01)
    assert load_network(tmp_path / "run")[1]["run"]["val_psnr"] == pytest.approx(figures[0], abs=0.1)
    (logged,) = (row for row in read_csv(tmp_path / "run" / "metrics.csv") if row["test/./photos/psnr"])
    assert float(logged["test/./photos/psnr"]) == pytest.approx(sum(figures) / 3, abs=0.01)
