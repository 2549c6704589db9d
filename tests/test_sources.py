from pathlib import Path

import pytest
import torch

from srcnn.data.degrade import Bicubic, Given
from srcnn.data.leaves import dead_leaves_image
from srcnn.data.pack import pack
from srcnn.data.samples import read_samples
from srcnn.data.sources import ImagePath, Rescaled, match, read_pair
from srcnn.errors import UserError
from srcnn.inference.image_file import write_image
from srcnn.metrics import PROTOCOLS
from srcnn.nets import SRCNN


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Three HR images and their LR, averaged over 2x2 pixels; the second LR image is named as DIV2K's are."""
    for number, (hr_name, lr_name) in enumerate([("a.png", "a.bmp"), ("b.png", "bx2.png"), ("c.png", "c.png")]):
        hr = dead_leaves_image(number, 48 + 2 * number, seed=0)
        lr = torch.nn.functional.avg_pool2d(hr.float(), 2).round().byte()
        write_image(tmp_path / "hr" / hr_name, hr)
        write_image(tmp_path / "lr" / lr_name, lr)
    return tmp_path / "hr", tmp_path / "lr"


def test_pairs_are_matched_by_name(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pairs = match(*folders, scale=2)
    assert [(name, pair.path.name, pair.lr.name) for name, pair in pairs.items() if pair.lr] == [
        ("a", "a.png", "a.bmp"),
        ("b", "b.png", "bx2.png"),
        ("c", "c.png", "c.png"),
    ]
    monkeypatch.setenv("SRCNN_CACHE", str(tmp_path / "cache"))
    packed = pack(pairs, 2, Given())
    hr, lr = read_pair(pairs["b"], 2, Given())
    assert lr is not None
    assert torch.equal(packed.pixels[packed.hr[1] :][:2500], hr.flatten(1).T)
    assert torch.equal(packed.pixels[packed.lr[1, 0] :][:625], lr.flatten(1).T)


def test_pairs_are_scored_with_their_own_lr(folders: tuple[Path, Path]) -> None:
    samples = read_samples(match(*folders, scale=2), "mine", "mine", 2, Given())
    assert [sample.name for sample in samples] == ["a", "b", "c"]
    for sample in samples:
        assert sample.lr is not None
        score = PROTOCOLS["basicsr"].score(SRCNN(2, init="identity"), sample.hr[None] / 255, lr=sample.lr[None] / 255)
        assert score.psnr == pytest.approx(score.bicubic_psnr, abs=0.01)
        assert 15 < score.psnr < 45


def test_a_missing_partner_is_named(folders: tuple[Path, Path]) -> None:
    hr, lr = folders
    (lr / "c.png").rename(lr / "d.png")
    with pytest.raises(UserError, match=r"hr/c\.png has no LR image of that name in"):
        match(hr, lr, 2)
    (hr / "c.png").unlink()
    with pytest.raises(UserError, match=r"lr/d\.png has no HR image of that name in"):
        match(hr, lr, 2)


def test_a_wrong_pair_is_named(folders: tuple[Path, Path]) -> None:
    hr, lr = folders
    write_image(lr / "c.png", torch.zeros(3, 25, 26, dtype=torch.uint8))
    with pytest.raises(UserError, match=r"hr/c\.png and .*lr/c\.png: HR of 52x52 is not 2 times LR of 26x25 pixels"):
        read_samples(match(hr, lr, 2), "mine", "mine", 2, Given())


def test_two_of_one_name_and_no_folder(folders: tuple[Path, Path], tmp_path: Path) -> None:
    hr, lr = folders
    write_image(lr / "a.png", torch.zeros(3, 24, 24, dtype=torch.uint8))
    with pytest.raises(UserError, match=r"a\.bmp and a\.png have one name"):
        match(hr, lr, 2)
    with pytest.raises(UserError, match="nowhere: no such folder"):
        match(hr, tmp_path / "nowhere", 2)


def test_pairs_are_not_degraded_besides(folders: tuple[Path, Path]) -> None:
    with pytest.raises(UserError, match="choose degradation=none"):
        read_samples(match(*folders, scale=2), "mine", "mine", 2, Bicubic())


def test_a_smaller_copy(folders: tuple[Path, Path]) -> None:
    hr, lr = folders
    image = ImagePath(hr / "b.png")
    copy = Rescaled(image, 0.7)
    smaller = copy.read()
    assert smaller.shape == (3, 35, 35) and smaller.dtype == torch.uint8
    average = torch.nn.functional.adaptive_avg_pool2d(image.read().float(), 35)
    assert (smaller - average).abs().mean() < 4  # of 255: the same picture
    assert copy.identity() != Rescaled(image, 0.8).identity() != image.identity()
    with pytest.raises(UserError, match=r"data\.rescale: .* needs an LR image of its own"):
        Rescaled(match(hr, lr, 2)["b"], 0.7).read_lr()
