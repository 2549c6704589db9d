"""Images to train on, and files that are written whole or not at all."""

import os
import stat
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from srcnn.errors import RunError, UserError
from srcnn.files import list_images, read_image, replacing

COLOURS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def test_images_to_train_on(tmp_path: Path) -> None:
    colours = Image.fromarray(COLOURS)
    for name, image, channels in (
        ("colour.bmp", colours, 3),
        ("gray.png", colours.convert("L"), 1),
        ("palette.png", colours.quantize(256), 3),
        ("bits.png", colours.convert("1"), 1),
        ("opaque.png", colours.convert("RGBA"), 3),
    ):
        image.save(tmp_path / name)
        found = read_image(tmp_path / name)
        assert (found.dtype, found.shape) == (torch.uint8, (channels, 6, 9))
        assert np.array_equal(found.expand(3, -1, -1).permute(1, 2, 0), np.asarray(image.convert("RGB")))


def test_what_would_be_lost_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.linspace(0, 65535, 54, dtype=np.uint16).reshape(6, 9)).save(tmp_path / "deep.png")
    Image.fromarray(np.dstack([COLOURS, np.full((6, 9), 128, np.uint8)])).save(tmp_path / "alpha.png")
    (tmp_path / "text.png").write_text("hello")
    Image.fromarray(COLOURS).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:-40])
    (tmp_path / "deep.ppm").write_bytes(b"P6 1 1 65535\n" + bytes(6))
    for name, sentence in {
        "deep.png": "more than 8 bits",
        "deep.ppm": "more than 8 bits",
        "alpha.png": "has transparency",
        "text.png": "cannot be read as an image",
        "cut.png": "cannot be read as an image",
        "absent.png": "cannot be read",
    }.items():
        with pytest.raises(UserError, match=f"{name}: {sentence}"):
            read_image(tmp_path / name)


def test_images_of_a_folder(tmp_path: Path) -> None:
    for name in ("b.png", "a.BMP", "c.jfif", "notes.txt", ".hidden.png"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in list_images(tmp_path)] == ["a.BMP", "b.png", "c.jfif"]


def test_replacing(tmp_path: Path) -> None:
    """Permissions as open() gives them; nothing left behind by an error; a name as long as can be."""
    path = tmp_path / "folder" / ("n" * 251 + ".txt")
    for mode in (0o644, 0o640):
        old = os.umask(0o777 - mode - 0o111 & 0o777)
        try:
            with replacing(path) as temporary:
                temporary.write_text("first")
        finally:
            os.umask(old)
        assert stat.S_IMODE(path.stat().st_mode) == 0o644  # the second keeps what is there
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_text(str(1 / 0))
    with pytest.raises(RunError, match=r"cannot be written \(No space left on device\)"), replacing(path):
        Path("/dev/full").write_text("x")  # Linux: a device without room
    assert path.read_text() == "first"
    assert list(path.parent.iterdir()) == [path]


def test_temporaries_of_several_writers(tmp_path: Path) -> None:
    """Of paths that share their first 100 letters, and of one path: each has a file of its own."""
    paths = [tmp_path / f"{'n' * 150}{number % 4}.txt" for number in range(16)]
    barrier = threading.Barrier(len(paths))

    def write(path: Path) -> None:
        with replacing(path) as temporary:
            barrier.wait()
            temporary.write_text(path.name)
            barrier.wait()

    threads = [threading.Thread(target=write, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(tmp_path.iterdir()) == sorted(set(paths))
    assert all(path.read_text() == path.name for path in paths)


@pytest.mark.parametrize("ending", [".avif", ".jp2", ".j2k"])
def test_from_a_stream_as_from_a_file(ending: str, tmp_path: Path) -> None:
    """As an image in an archive is read: where only the file itself says how many bits it holds."""
    Image.fromarray(COLOURS).save(tmp_path / f"a{ending}")
    with open(tmp_path / f"a{ending}", "rb") as stream:
        assert torch.equal(read_image(stream), read_image(tmp_path / f"a{ending}"))
