import os
import stat
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from srcnn.errors import RunError, UserError
from srcnn.files import list_images, read_image, replacing
from srcnn.inference.image_file import ImageFile, from_pillow, read_file, to_pillow, write_image

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


def test_pillow_and_tensors() -> None:
    colours = torch.from_numpy(COLOURS.copy()).permute(2, 0, 1)
    for image in (colours, colours / 255, colours.to(torch.float64) / 255, (colours.int() * 257).to(torch.uint16)):
        assert np.array_equal(np.asarray(to_pillow(image)), COLOURS)
        assert np.array_equal(np.asarray(to_pillow(image[:1])), COLOURS[..., 0])
    for mode in ("L", "LA", "RGB", "RGBA", "CMYK"):
        image = Image.fromarray(COLOURS).convert(mode)
        assert to_pillow(from_pillow(image)).tobytes() == image.tobytes()
        assert to_pillow(from_pillow(image)).mode == mode


def test_only_files_are_read(tmp_path: Path) -> None:
    """A FIFO would keep us waiting for ever."""
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "b.png").mkdir()
    (tmp_path / "c.png").symlink_to("nowhere")
    for name, sentence in {"a": "not a file", "b": "a folder", "c": "no such file", "d": "no such file"}.items():
        with pytest.raises(UserError, match=sentence):
            read_file(tmp_path / f"{name}.png")


def test_only_files_are_replaced(tmp_path: Path) -> None:
    write_image(tmp_path / "whole.png", torch.zeros(3, 4, 4, dtype=torch.uint8))
    before = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "link.png").symlink_to("whole.png")
    (tmp_path / "dangling.png").symlink_to("nowhere.png")
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "fifo.png")
    there = {path.name: path.lstat() for path in tmp_path.iterdir()}
    for name in ("link", "dangling", "folder", "fifo"):
        with pytest.raises(UserError, match=f"{name}.png: a link, a folder or a device") as error:
            write_image(tmp_path / f"{name}.png", torch.ones(3, 4, 4, dtype=torch.uint8))
        assert error.value.code == 2
    with pytest.raises(UserError, match="/dev/null"), replacing("/dev/null"):
        pass
    assert {path.name: path.lstat() for path in tmp_path.iterdir()} == there
    assert (tmp_path / "whole.png").read_bytes() == before
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


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
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"file/x.png: cannot be written"):
        write_image(tmp_path / "file" / "x.png", torch.zeros(3, 4, 4, dtype=torch.uint8))


def test_temporaries_of_several_writers(tmp_path: Path) -> None:
    """Of paths that share their first 100 letters, and of one path: each has a file of its own."""
    paths = [tmp_path / f"{'n' * 150}{number % 4}.txt" for number in range(16)]
    seen: set[Path] = set()
    barrier = threading.Barrier(len(paths))

    def write(path: Path) -> None:
        with replacing(path) as temporary:
            barrier.wait()
            seen.add(temporary)
            temporary.write_text(path.name)
            barrier.wait()

    threads = [threading.Thread(target=write, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 16
    assert sorted(tmp_path.iterdir()) == sorted(set(paths))
    assert all(path.read_text() == path.name for path in paths)


@pytest.mark.parametrize("ending", ["jpg", "bmp", "png"])
def test_a_full_disk_leaves_no_half_image(ending: str, tmp_path: Path) -> None:
    import resource
    import signal

    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 90, 90), dtype=np.uint8))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
        with pytest.raises(RunError, match=rf"x.{ending}: cannot be written \(File too large\)"):
            write_image(tmp_path / f"x.{ending}", image)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, old)
    assert not list(tmp_path.iterdir())


DEEP = np.random.default_rng(0).integers(0, 65536, (6, 9, 4), dtype=np.uint16)


@pytest.mark.parametrize(
    ("channels", "options", "refused"),
    [
        (3, {"photometric": "rgb", "planarconfig": "separate"}, ""),
        (3, {"photometric": "rgb", "tile": (16, 16), "compression": "lzw"}, ""),
        (3, {"photometric": "rgb", "extratags": [(274, 3, 1, 6, False)]}, ""),  # turned by a quarter
        (4, {"photometric": "rgb", "extrasamples": ["unassalpha"]}, ""),
        (4, {"photometric": "rgb", "extrasamples": ["assocalpha"]}, "RGB ASSOCALPHA: beyond 8 bits only"),
        (4, {"photometric": "separated"}, "SEPARATED: beyond 8 bits only"),
        (1, {"photometric": "miniswhite"}, "MINISWHITE: beyond 8 bits only"),
        (3, {"photometric": "cielab"}, "not an image that Pillow can read"),
    ],
)
def test_16_bit_tiffs_are_right_or_refused(channels: int, options: dict, refused: str, tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    path, pixels = tmp_path / "x.tif", DEEP[..., :channels]
    planar = options.get("planarconfig") == "separate"
    tifffile.imwrite(path, np.moveaxis(pixels, -1, 0) if planar else pixels.squeeze(), **options)
    if refused:
        with pytest.raises(UserError, match=refused):
            read_file(path)
        return
    shown = np.rot90(pixels, -1) if "extratags" in options else pixels
    assert np.array_equal(read_file(path).planes.permute(1, 2, 0), shown)
    for kept in range(100, path.stat().st_size, 50):  # no part that is missing becomes black
        with open(tmp_path / "cut.tif", "wb") as cut:
            cut.write(path.read_bytes()[:kept])
        try:
            assert np.array_equal(read_file(tmp_path / "cut.tif").planes.permute(1, 2, 0), shown)
        except UserError:
            continue


def test_a_16_bit_png_keeps_its_metadata(tmp_path: Path) -> None:
    pytest.importorskip("imagecodecs")
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 3, "IDAT"  # upside down, by a camera of that name
    image = ImageFile(torch.from_numpy(DEEP).permute(2, 0, 1)[:3])
    image.metadata = {"icc_profile": icc, "dpi": (300, 300), "exif": exif.tobytes()}
    write_image(tmp_path / "x.png", image)
    back = read_file(tmp_path / "x.png")
    assert torch.equal(back.colour, image.colour.flip(1, 2))
    assert back.metadata["icc_profile"] == icc
    assert back.metadata["dpi"] == pytest.approx((300, 300), abs=1)
    del exif[0x0112]
    assert back.metadata["exif"] == exif.tobytes()


def test_metadata_that_cannot_be_written() -> None:
    """It is left out, and the image read."""
    for metadata in ({"dpi": (float("nan"), 1.0)}, {"icc_profile": 5}):
        image = Image.fromarray(COLOURS)
        image.info.update(metadata)
        assert not from_pillow(image).metadata
