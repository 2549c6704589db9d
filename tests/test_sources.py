import unicodedata
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d

from srcnn.data.datamodule import SRDataModule
from srcnn.data.degrade import Bicubic, Given
from srcnn.data.leaves import Leaves
from srcnn.data.samples import Sample, label, read_samples, set_images
from srcnn.data.sources import ImagePath, Rescaled, match
from srcnn.errors import UserError
from srcnn.files import read_image
from srcnn.inference.image_file import write_image


def write_pair(folder: Path, hr_name: str, lr_name: str, number: int, scale: int = 2) -> tuple[Tensor, Tensor]:
    hr = Leaves(number, 48 + scale * number, 0).read()[0]
    lr = avg_pool2d(hr.float(), scale).round().byte()
    write_image(folder / "hr" / hr_name, hr)
    write_image(folder / "lr" / lr_name, lr)
    return hr, lr


def read_pairs(hr: Path, lr: Path, scale: int) -> list[Sample]:
    return read_samples(match(str(hr), str(lr), scale), "pairs", scale, Given())


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Three HR images and their LR of half the size, named as the field names them."""
    for number, (hr, lr) in enumerate([("a.png", "a.bmp"), ("b.png", "bx2.png"), ("c.png", "c_x2.png")]):
        write_pair(tmp_path, hr, lr, number)
    return tmp_path / "hr", tmp_path / "lr"


def test_pairs_are_matched_by_name(folders: tuple[Path, Path]) -> None:
    """Also é in one character or, as macOS writes it, in two."""
    one, two = (unicodedata.normalize(form, "é.png") for form in ("NFC", "NFD"))
    write_pair(folders[0].parent, one, two, 3)
    samples = read_pairs(*folders, scale=2)
    assert [sample.name for sample in samples] == ["a", "b", "c", one[0]]
    for sample, lr in zip(samples, ("a.bmp", "bx2.png", "c_x2.png", two), strict=True):
        assert torch.equal(sample.lr[0], read_image(folders[1] / lr))


@pytest.mark.parametrize(("height", "fits"), [(126, True), (128, True), (129, False), (125, False)])
def test_hr_is_cropped_to_its_lr(height: int, fits: bool, tmp_path: Path) -> None:
    """The field's pairs at x3 are of 128x128 and 42x42 pixels."""
    write_image(tmp_path / "hr" / "a.png", hr := Leaves(0, 130, 0).read()[0][:, :height, :128])
    write_image(tmp_path / "lr" / "a.png", torch.zeros(3, 42, 42, dtype=torch.uint8))
    if fits:
        (sample,) = read_pairs(tmp_path / "hr", tmp_path / "lr", 3)
        assert torch.equal(sample.hr[0], hr[:, :126, :126])
    else:
        with pytest.raises(
            UserError, match=rf"hr/a\.png and .*lr/a\.png: HR of 128x{height} is not 3 times LR of 42x42"
        ):
            read_pairs(tmp_path / "hr", tmp_path / "lr", 3)


def test_a_gray_lr_beside_rgb(tmp_path: Path) -> None:
    write_image(tmp_path / "hr" / "a.png", Leaves(0, 48, 0).read()[0])
    write_image(tmp_path / "lr" / "a.png", gray := Leaves(0, 24, 0).read()[0][:1])
    (sample,) = read_pairs(tmp_path / "hr", tmp_path / "lr", 2)
    assert torch.equal(sample.lr[0], gray.expand(3, -1, -1))


def test_a_missing_partner_is_named(folders: tuple[Path, Path]) -> None:
    hr, lr = folders
    (lr / "c_x2.png").rename(lr / "d.png")
    with pytest.raises(UserError, match=r"hr/c\.png has no LR image of that name in"):
        match(str(hr), str(lr), 2)
    (hr / "c.png").unlink()
    with pytest.raises(UserError, match=r"lr/d\.png has no HR image of that name in"):
        match(str(hr), str(lr), 2)
    write_image(lr / "a.png", torch.zeros(3, 24, 24, dtype=torch.uint8))
    with pytest.raises(UserError, match=r"a\.bmp and a\.png have one name"):
        match(str(hr), str(lr), 2)
    with pytest.raises(UserError, match="nowhere: no such folder"):
        match(str(hr), str(lr / "nowhere"), 2)


def test_pairs_beside_images_without_lr(folders: tuple[Path, Path], images: Path) -> None:
    """Pairs keep their LR images; what has none is degraded, or refused by `degradation=none`."""
    hr, lr = map(str, folders)
    options: dict[str, Any] = {"train": "pairs", "train_hr": hr, "train_lr": lr, "hold_out": ["c"]}
    module = SRDataModule(2, Bicubic(), test=["pairs", str(images)], rescale=[0.7], patch_size=24, **options)
    module.setup()
    assert [sample.name for sample in module.testing[:2]] == ["c", "image0"]
    assert torch.equal(module.testing[0].lr[0], read_image(folders[1] / "c_x2.png"))
    for settings in ({"test": ["pairs"], "rescale": [0.7]}, {"test": [str(images)]}):
        with pytest.raises(UserError, match=r"the image (a x 0.7|image0) has no LR image"):
            SRDataModule(2, Given(), **options, **settings).setup()


def test_a_smaller_copy(folders: tuple[Path, Path]) -> None:
    image = ImagePath(folders[0] / "b.png")
    copy = Rescaled(image, 0.7)
    smaller, _ = copy.read()
    assert smaller.shape == (3, 35, 35) and smaller.dtype == torch.uint8
    assert (smaller - adaptive_avg_pool2d(image.read()[0].float(), 35)).abs().mean() < 4  # of 255: the same picture
    assert copy.identity() != Rescaled(image, 0.8).identity() != image.identity()


def test_samples(tmp_path: Path) -> None:
    """HR is cropped to the scale; bicubic's LR is not rounded. Names keep their endings where they need them."""
    image, _ = Leaves(0, 50, 0).read()
    write_image(tmp_path / "a.png", image)
    images = set_images(str(tmp_path), "")
    (sample,) = read_samples(images, "set", 3, Bicubic())
    lr, hr, *names = sample
    assert torch.equal(hr[0], image[:, :48, :48]) and names == ["a", "set"]
    assert lr.shape == (1, 3, 16, 16) and lr.is_floating_point()
    assert torch.equal(lr[0], Bicubic()(hr[0], 3))
    write_image(tmp_path / "a.bmp", image[:, :8])
    assert list(set_images(str(tmp_path), "")) == ["a.bmp", "a.png"]
    with pytest.raises(UserError, match=r"a\.bmp: 48x6 pixels are too few to be scored at x3"):
        read_samples(set_images(str(tmp_path), ""), "set", 3, Bicubic())
    assert [label(name, ["x/a", "y/a", "Set5"]) for name in ("x/a", "Set5", "/b/c")] == ["x/a", "Set5", "c"]
