from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from srcnn.errors import UserError
from srcnn.files import list_images, read_image, write_image

COLOURS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


@pytest.mark.parametrize("ending", ["bmp", "png", "tif", "webp"])
def test_files_come_back(ending: str, tmp_path: Path) -> None:
    for channels in (3, 1):
        image = torch.from_numpy(COLOURS[..., :channels].copy()).permute(2, 0, 1)
        if ending == "webp":
            Image.fromarray(COLOURS).save(tmp_path / "x.webp", lossless=True)
            image = torch.from_numpy(COLOURS).permute(2, 0, 1)
        else:
            write_image(tmp_path / f"x.{ending}", image)
        assert torch.equal(read_image(tmp_path / f"x.{ending}"), image)


def test_kinds(tmp_path: Path) -> None:
    """Palette, 1-bit, CMYK and turned images: what a viewer shows."""
    colours = Image.fromarray(COLOURS)
    for name, image in {
        "palette": colours.quantize(256),
        "bits": colours.convert("1"),
        "gray-palette": colours.convert("L").convert("P"),
    }.items():
        image.save(tmp_path / f"{name}.png")
        shown = np.asarray(image.convert("RGB"))
        assert np.array_equal(read_image(tmp_path / f"{name}.png").expand(3, -1, -1).permute(1, 2, 0), shown)
    assert len(read_image(tmp_path / "palette.png")) == 3
    assert len(read_image(tmp_path / "bits.png")) == len(read_image(tmp_path / "gray-palette.png")) == 1
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    colours.save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "turned.png").permute(1, 2, 0), np.rot90(COLOURS, -1))


def test_what_would_be_lost_is_refused(tmp_path: Path) -> None:
    deep = np.linspace(0, 65535, 54, dtype=np.uint16).reshape(6, 9)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    alpha = Image.fromarray(np.dstack([COLOURS, np.full((6, 9), 128, np.uint8)]))
    alpha.save(tmp_path / "alpha.png")
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "empty.png").touch()
    whole = tmp_path / "whole.png"
    Image.fromarray(COLOURS).save(whole)
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:-40])
    for name, sentence in {
        "deep": "more than 8 bits",
        "alpha": "transparency",
        "text": "not an image",
        "empty": "not an image",
        "cut": "not an image",
        "absent": "no such file",
    }.items():
        with pytest.raises(UserError, match=sentence) as error:
            read_image(tmp_path / f"{name}.png")
        assert f"{name}.png" in str(error.value)
    opaque = Image.fromarray(np.dstack([COLOURS, np.full((6, 9), 255, np.uint8)]))
    opaque.save(tmp_path / "opaque.png")
    assert torch.equal(read_image(tmp_path / "opaque.png"), read_image(whole))


def test_16_bit_colour_is_not_taken_for_8(tmp_path: Path) -> None:
    """Pillow opens such a PNG as 8-bit RGB without a word; here it is written by hand."""
    import struct
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b"".join(b"\0" + bytes(2 * 3 * 2) for _ in range(2))
    header = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "deep.png").write_bytes(png)
    with pytest.raises(UserError, match="more than 8 bits"):
        read_image(tmp_path / "deep.png")


def test_images_of_a_folder(tmp_path: Path) -> None:
    for name in ("b.png", "a.BMP", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in list_images(tmp_path)] == ["a.BMP", "b.png"]
