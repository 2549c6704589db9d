import time
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from torch import Tensor

from srcnn.data.camera import Camera
from srcnn.data.degrade import Bicubic, Degradation
from srcnn.data.leaves import Leaves
from srcnn.data.pack import Pack, pack
from srcnn.data.sources import ImagePath
from srcnn.errors import RunError, UserError
from srcnn.image import modcrop
from srcnn.inference.image_file import write_image

LEAVES = {f"leaves{i}": Leaves(i, 150, 0) for i in range(12)}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SRCNN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def leaves(number: int, size: int) -> Tensor:
    return Leaves(number, size, 0).read()[0]


def pixels_of(packed: Pack, image: int, version: int | None = None) -> Tensor:
    """HR of an image in a pack, or a version of its LR: [3, H, W]."""
    height, width = packed.sizes[image] // (1 if version is None else packed.scale)
    first = packed.hr[image] if version is None else packed.lr[image, version]
    return packed.pixels[first : first + height * width].T.view(3, height, width)


def test_a_pack_holds_the_images(tmp_path: Path) -> None:
    """HR cropped to a multiple of the scale, gray as RGB, each version of LR; no pixel of an image below the scale."""
    images = [leaves(0, 50), leaves(1, 37)[:1], torch.zeros(3, 2, 60, dtype=torch.uint8)]
    for number, image in enumerate(images):
        write_image(tmp_path / f"image{number}.png", image)
    sources = {f"image{i}": ImagePath(tmp_path / f"image{i}.png") for i in range(3)}
    camera = Camera(versions=3)
    packed = pack(sources, 3, camera)
    assert packed.pixels.dtype == torch.uint8
    assert packed.sizes.tolist() == [[48, 48], [36, 36], [0, 60]]
    for number in range(2):
        hr = modcrop(images[number], 3)
        assert torch.equal(pixels_of(packed, number), hr.expand(3, -1, -1))
        for version in range(3):
            lr = camera(hr, 3, f"image{number}", version)
            assert torch.equal(pixels_of(packed, number, version), lr.expand(3, -1, -1))


def test_a_pack_is_made_once_and_again_when_anything_changes(tmp_path: Path, cache: Path) -> None:
    class Darker(Degradation):
        def __init__(self, by: int):
            self.by = by

        def __call__(self, hr: Tensor, scale: int, name: str = "", version: int = 0) -> Tensor:
            return hr[:, ::scale, ::scale] // self.by

        def describe(self) -> str:
            return "darker"

    path = tmp_path / "a.png"
    write_image(path, leaves(0, 48))

    class Inverse(Darker):
        def __call__(self, hr: Tensor, scale: int, name: str = "", version: int = 0) -> Tensor:
            return 255 - hr[:, ::scale, ::scale]

    Darker.__module__ = Inverse.__module__ = "a notebook"  # where no file has their code
    one = pack({"a": ImagePath(path)}, 3, Bicubic())
    assert pack({"a": ImagePath(path)}, 3, Bicubic()).path.stat().st_ino == one.path.stat().st_ino
    others = [
        pack({"b": ImagePath(path)}, 3, Bicubic()),
        pack({"a": ImagePath(path)}, 2, Bicubic()),
        pack({"a": ImagePath(path)}, 3, Camera()),
        pack({"a": ImagePath(path)}, 3, Camera(seed=1)),
        pack({"a": ImagePath(path)}, 3, Darker(2)),
        pack({"a": ImagePath(path)}, 3, Darker(3)),
        pack({"a": ImagePath(path)}, 3, Inverse(3)),
        pack({"a": Leaves(0, 48, 0)}, 3, Bicubic()),
    ]
    write_image(path, leaves(1, 48))
    changed = pack({"a": ImagePath(path)}, 3, Bicubic())
    assert torch.equal(pixels_of(changed, 0), leaves(1, 48))
    assert len({packed.path for packed in (one, *others, changed)}) == 10


def test_what_a_degradation_computes_with_counts(tmp_path: Path, cache: Path) -> None:
    """A tensor too large to be written out, and what is no attribute."""

    class Blurred(Bicubic):
        def __init__(self, row: int):
            self.kernel = torch.zeros(41, 41)
            self.kernel[row, 20] = 1

        def __call__(self, hr: Tensor, scale: int, name: str = "", version: int = 0) -> Tensor:
            return super().__call__(hr, scale).roll(int(self.kernel.argmax()) // 41 + offset, -1)

    offset, images = 0, {"a": Leaves(0, 48, 0)}
    paths = {pack(images, 3, Blurred(row)).path for row in (19, 20, 19)}
    assert len(paths) == 2
    offset = 5
    assert pack(images, 3, Blurred(19)).path not in paths


def test_killed_and_by_two_at_once(cache: Path) -> None:
    """A kill leaves no pack but a whole one, and a free lock; of two processes one makes the pack, and tidies up."""
    new_process = partial(get_context("fork").Process, target=pack, args=(LEAVES, 3, Bicubic()))
    for seconds in (0.02, 0.2):
        process = new_process()
        process.start()
        time.sleep(seconds)
        process.kill()
        process.join()
    for folder in cache.glob("*"):
        (folder / ".0123.part").write_bytes(b"what the killed one had written")
    both = [new_process(), new_process()]
    for process in both:
        process.start()
    for process in both:
        process.join(timeout=120)
        assert process.exitcode == 0
    lock, path = sorted(cache.glob("*/*"))
    inode, packed = path.stat().st_ino, pack(LEAVES, 3, Bicubic())
    assert packed.path.stat().st_ino == inode and lock.name == "lock"
    for number in range(len(LEAVES)):
        assert torch.equal(pixels_of(packed, number), leaves(number, 150))


def test_what_cannot_be_packed_leaves_nothing(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"broken\.png: cannot be read as an image"):
        pack({**LEAVES, "broken": ImagePath(tmp_path / "broken.png")}, 3, Bicubic())
    assert [path.name for path in cache.glob("*/*")] == ["lock"]
    monkeypatch.setenv("SRCNN_CACHE", str(tmp_path / "broken.png"))
    with pytest.raises(RunError, match=r"name another in \$SRCNN_CACHE"):
        pack(LEAVES, 3, Bicubic())


def test_a_degradation_of_a_wrong_size_is_named() -> None:
    class Smaller(Bicubic):
        def __call__(self, hr: Tensor, scale: int, name: str = "", version: int = 0) -> Tensor:
            return super().__call__(hr, scale)[:, 1:]

    with pytest.raises(AssertionError, match=r"Smaller made \(3, 49, 50\), not \(3, 50, 50\)"):
        pack(LEAVES, 3, Smaller())
