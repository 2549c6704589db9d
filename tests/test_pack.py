import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import DATA, needs
from filelock import FileLock

from srcnn.data.camera import Camera
from srcnn.data.degrade import Bicubic, Degradation
from srcnn.data.leaves import Leaves
from srcnn.data.pack import Pack, pack
from srcnn.data.pool import in_order
from srcnn.data.sets import find_images
from srcnn.data.sources import ImagePath
from srcnn.errors import RunError, UserError
from srcnn.files import read_image
from srcnn.inference.image_file import write_image
from srcnn.image import bicubic_down, modcrop, to_uint8

LEAVES = {f"leaves{i}": Leaves(i, 150, 0) for i in range(12)}
BUILD = """
import sys
from functools import partial
import srcnn.data.pack
from srcnn.data.degrade import Bicubic
from srcnn.data.leaves import Leaves

srcnn.data.pack.in_order = partial(srcnn.data.pack.in_order, alone=float(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
pack = srcnn.data.pack.pack({f"leaves{i}": Leaves(i, 150, 0) for i in range(12)}, 3, Bicubic())
print(pack.path, flush=True)
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SRCNN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def pixels_of(packed: Pack, image: int, version: int | None = None) -> torch.Tensor:
    """HR of an image in a pack, or a version of its LR: [3, H, W]."""
    height, width = packed.sizes[image] // (1 if version is None else packed.scale)
    first = packed.hr[image] if version is None else packed.lr[image, version]
    return packed.pixels[first : first + height * width].T.view(3, height, width)


def begin_builds(*alone: float) -> list[subprocess.Popen]:
    """Processes that pack LEAVES, and are past their imports: in them alone for so many seconds, then in a pool."""
    commands = [[sys.executable, "-c", BUILD, str(seconds)] for seconds in alone]
    processes = [subprocess.Popen(c, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for c in commands]
    for process in processes:
        assert process.stdout and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    return processes


def test_a_pack_holds_the_images(tmp_path: Path) -> None:
    images = [Leaves(0, 50, 0).read(), Leaves(1, 37, 0).read()[:1], torch.zeros(3, 2, 60, dtype=torch.uint8)]
    for number, image in enumerate(images):
        write_image(tmp_path / f"image{number}.png", image)
    packed = pack({f"image{i}": ImagePath(tmp_path / f"image{i}.png") for i in range(3)}, 3, Bicubic())
    assert packed.sizes.tolist() == [[48, 48], [36, 36]]  # the third is smaller than the scale
    assert not len(pack({"image2": ImagePath(tmp_path / "image2.png")}, 3, Bicubic()).sizes)
    for number in range(2):
        hr = modcrop(images[number].expand(3, -1, -1), 3)
        assert torch.equal(pixels_of(packed, number), hr)
        assert torch.equal(pixels_of(packed, number, 0), to_uint8(bicubic_down(hr[None].float() / 255, 3))[0])


def test_versions_of_an_image() -> None:
    images = {name: LEAVES[name] for name in ("leaves0", "leaves1")}
    camera = Camera(versions=3)
    packed = pack(images, 3, camera)
    for number, (name, source) in enumerate(images.items()):
        for version in range(3):
            assert torch.equal(pixels_of(packed, number, version), camera(source.read(), 3, name, version))


@needs("T91")
def test_bytes_a_pixel() -> None:
    packed = pack({path.stem: ImagePath(path) for path in find_images("T91", DATA)}, 3, Bicubic())
    assert len(packed.sizes) == 91
    assert packed.path.stat().st_size / packed.sizes.prod(1).sum() < 3.34  # 3 + 3/9


def test_a_pack_is_made_once_and_again_when_anything_changes(tmp_path: Path, cache: Path) -> None:
    class Darker(Degradation):
        def __init__(self, by: int):
            self.by = by

        def __call__(self, hr: torch.Tensor, scale: int, name: str = "", version: int = 0) -> torch.Tensor:
            return hr[:, ::scale, ::scale] // self.by

        def describe(self) -> str:
            return "darker"

    path = tmp_path / "a.png"
    write_image(path, Leaves(0, 48, 0).read())
    one = pack({"a": ImagePath(path)}, 3, Bicubic())
    inode = one.path.stat().st_ino
    assert pack({"a": ImagePath(path)}, 3, Bicubic()).path.stat().st_ino == inode
    others = [
        pack({"b": ImagePath(path)}, 3, Bicubic()),
        pack({"a": ImagePath(path)}, 2, Bicubic()),
        pack({"a": ImagePath(path)}, 3, Camera()),
        pack({"a": ImagePath(path)}, 3, Camera(seed=1)),
        pack({"a": ImagePath(path)}, 3, Darker(2)),
        pack({"a": ImagePath(path)}, 3, Darker(3)),
        pack({"a": Leaves(0, 48, 0)}, 3, Bicubic()),
    ]
    write_image(path, Leaves(1, 48, 0).read())
    changed = pack({"a": ImagePath(path)}, 3, Bicubic())
    assert torch.equal(pixels_of(changed, 0), Leaves(1, 48, 0).read())
    assert len({packed.path for packed in (one, *others, changed)}) == 9
    assert len(list(cache.glob("*.pack"))) == 9


def test_a_damaged_pack_is_made_again() -> None:
    images = {"leaves0": LEAVES["leaves0"]}
    first = pack(images, 3, Bicubic())
    pixels, path = first.pixels.clone(), first.path
    for content in (b"", path.read_bytes()[:-1], path.read_bytes()[1:], b"\xff" * 100):
        path.unlink()
        path.write_bytes(content)
        assert torch.equal(pack(images, 3, Bicubic()).pixels, pixels)


def test_a_pool_makes_the_same() -> None:
    (process,) = begin_builds(0)
    output, _ = process.communicate(timeout=120)
    there = Pack.open(Path(output.strip()))
    assert there
    there.path.rename(there.path.with_suffix(".other"))
    assert torch.equal(there.pixels, pack(LEAVES, 3, Bicubic()).pixels)


def test_two_processes_make_one_pack(cache: Path) -> None:
    outputs = [process.communicate(timeout=120)[0].splitlines() for process in begin_builds(60, 60)]
    assert outputs[0][-1] == outputs[1][-1]
    waited = [output for output in outputs if len(output) == 2]
    assert len(waited) == 1 and "waiting for another run" in waited[0][0]
    assert [path.suffix for path in sorted(cache.iterdir())] == [".lock", ".pack"]


def test_killed_at_any_moment(cache: Path) -> None:
    """SRCNN_KILLS times; every fourth with a pool of processes, of which none may stay."""
    expected = None
    rng = random.Random(0)
    whole = unfinished = 0
    for number in range(int(os.environ.get("SRCNN_KILLS", "3"))):
        (process,) = begin_builds(0 if number % 4 == 3 else 60)
        time.sleep(rng.uniform(0, 3.5 if number % 4 == 3 else 0.7))
        process.send_signal(signal.SIGKILL)
        process.wait()
        found = [Pack.open(path) for path in cache.glob("*.pack")]
        unfinished += bool(list(cache.glob("*.part")))
        whole += len(found)
        for packed in found:
            assert packed
            expected = packed.pixels.clone() if expected is None else expected
            assert torch.equal(packed.pixels, expected)
            packed.path.unlink()  # for the next kill to find none
    packed = pack(LEAVES, 3, Bicubic())
    assert not list(cache.glob("*.part"))
    for number, source in enumerate(LEAVES.values()):
        assert torch.equal(pixels_of(packed, number), source.read())
    print(f"{unfinished} kills left a part, {whole} came after the whole")


def test_leftovers_of_others_are_removed_unless_they_are_being_made(cache: Path) -> None:
    cache.mkdir()
    for name in ("dead", "alive"):
        (cache / f"{name}.part").write_bytes(b"half")
    with FileLock(cache / "alive.lock"):
        pack({"leaves0": LEAVES["leaves0"]}, 3, Bicubic())
    assert [path.name for path in cache.glob("*.part")] == ["alive.part"]


def test_what_can_not_be_packed_leaves_nothing(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"broken\.png: not an image"):
        pack({**LEAVES, "broken": ImagePath(tmp_path / "broken.png")}, 3, Bicubic())
    assert {path.suffix for path in cache.iterdir()} == {".lock"}
    monkeypatch.setenv("SRCNN_CACHE", str(tmp_path / "broken.png"))
    with pytest.raises(RunError, match=r"name another folder in \$SRCNN_CACHE"):
        pack(LEAVES, 3, Bicubic())


def test_a_bug_in_a_degradation_is_a_traceback() -> None:
    class Mine(Bicubic):
        def __call__(self, *_: object, **__: object) -> torch.Tensor:
            raise FileNotFoundError("kernel.npy")

    with pytest.raises(FileNotFoundError, match=r"kernel\.npy"):
        pack(LEAVES, 3, Mine())


def test_a_degradation_of_a_wrong_size_is_named() -> None:
    class Smaller(Bicubic):
        def __call__(self, hr: torch.Tensor, scale: int, name: str = "", version: int = 0) -> torch.Tensor:
            return super().__call__(hr, scale)[:, 1:]

    with pytest.raises(AssertionError, match=r"Smaller made torch.uint8 \(3, 49, 50\) of \(3, 150, 150\)"):
        pack(LEAVES, 3, Smaller())


def test_a_pool_keeps_the_order_and_the_errors() -> None:
    assert list(in_order(np.sqrt, [4.0, 9.0, 16.0, 25.0], alone=0)) == [2, 3, 4, 5]
    with pytest.raises(UserError, match=r"nowhere\.png: no such file"):
        list(in_order(read_image, ["nowhere.png"], alone=0))
