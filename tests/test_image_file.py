"""What goes in comes out larger, and of the same kind: every sort of image file, as pixels and as a viewer sees it."""

import os
import random
import struct
import tempfile
import time
import zlib
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from srcnn.checkpoint import load_network
from srcnn.data.leaves import dead_leaves
from srcnn.errors import UserError
from srcnn.files import EXTENSIONS, FORMATS
from srcnn.image import bicubic_up
from srcnn.inference.folder import enlarge_files, find_jobs
from srcnn.inference.image_file import ImageFile, from_pillow, read_file, to_pillow, write_image

COLOUR = Image.fromarray(dead_leaves(1, 36, seed=3)[0].permute(1, 2, 0).numpy()[:24])
ALPHA = Image.fromarray(np.kron(np.array([[0, 255, 90], [255, 0, 255]], np.uint8), np.ones((12, 12), np.uint8)))
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
LAB = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
ANIMATED = {"save_all": True, "append_images": [COLOUR.rotate(90)]}
DEEP = np.random.default_rng(0).integers(0, 65536, (6, 9, 4), dtype=np.uint16)
EXIF = Image.Exif()
EXIF[0x0112], EXIF[0x010F] = 6, "a camera"  # turned by a quarter; its maker
EXIF.get_ifd(0x8769).update({0xA002: 36, 0xA003: 24, 0x829A: 0.5})  # ExifImageWidth and Height, ExposureTime


def with_alpha(mode: str) -> Image.Image:
    image = COLOUR.convert("RGB" if mode == "RGBA" else "L")
    image.putalpha(ALPHA)
    return image


# file, image, how it is saved; what comes out: file, format, mode
KINDS = [
    ("rgb.bmp", COLOUR, {}, "rgb_x3.bmp", "BMP", "RGB"),
    ("palette.bmp", COLOUR.quantize(40), {}, "palette_x3.bmp", "BMP", "RGB"),
    ("rgb.png", COLOUR, {"icc_profile": SRGB, "dpi": (300, 300)}, "rgb_x3.png", "PNG", "RGB"),
    ("gray.png", COLOUR.convert("L"), {}, "gray_x3.png", "PNG", "L"),
    ("gray_alpha.png", with_alpha("LA"), {}, "gray_alpha_x3.png", "PNG", "LA"),
    ("alpha.png", with_alpha("RGBA"), {}, "alpha_x3.png", "PNG", "RGBA"),
    ("palette.png", COLOUR.quantize(40), {}, "palette_x3.png", "PNG", "RGB"),
    ("see_through.png", COLOUR.quantize(40), {"transparency": 3}, "see_through_x3.png", "PNG", "RGBA"),
    ("bits.png", COLOUR.convert("1"), {}, "bits_x3.png", "PNG", "L"),
    ("first.png", COLOUR, ANIMATED, "first_x3.png", "PNG", "RGB"),
    ("first.gif", COLOUR.quantize(60), ANIMATED, "first.gif_x3.png", "PNG", "RGB"),
    ("rgb.jpg", COLOUR, {"quality": 98, "icc_profile": SRGB, "dpi": (240, 240)}, "rgb_x3.jpg", "JPEG", "RGB"),
    ("gray.JPEG", COLOUR.convert("L"), {"quality": 98}, "gray_x3.JPEG", "JPEG", "L"),
    ("turned.jpg", COLOUR, {"quality": 98, "exif": EXIF}, "turned_x3.jpg", "JPEG", "RGB"),
    ("cmyk.jpg", COLOUR.convert("CMYK"), {"quality": 98}, "cmyk_x3.jpg", "JPEG", "CMYK"),
    ("rgb.webp", COLOUR, {"lossless": True, "icc_profile": SRGB}, "rgb_x3.webp", "WEBP", "RGB"),
    ("alpha.webp", with_alpha("RGBA"), {"lossless": True, "exact": True}, "alpha_x3.webp", "WEBP", "RGBA"),
    ("lossy.webp", COLOUR, {"quality": 95}, "lossy_x3.webp", "WEBP", "RGB"),
    ("rgb.tif", COLOUR, {"dpi": (150, 150), "icc_profile": SRGB}, "rgb_x3.tif", "TIFF", "RGB"),
    ("turned.tif", COLOUR, {"exif": EXIF.tobytes()}, "turned_x3.tif", "TIFF", "RGB"),
    ("alpha.tiff", with_alpha("RGBA"), {}, "alpha_x3.tiff", "TIFF", "RGBA"),
    ("cmyk.tif", COLOUR.convert("CMYK"), {}, "cmyk_x3.tif", "TIFF", "CMYK"),
    ("bits.tif", COLOUR.convert("1"), {}, "bits_x3.tif", "TIFF", "L"),
    ("rgb.ppm", COLOUR, {}, "rgb.ppm_x3.png", "PNG", "RGB"),
    ("rgb.avif", COLOUR, {"quality": 100}, "rgb.avif_x3.png", "PNG", "RGB"),
    ("turned.avif", COLOUR, {"quality": 100, "exif": EXIF}, "turned.avif_x3.png", "PNG", "RGB"),
    ("rgb.jp2", COLOUR, {}, "rgb.jp2_x3.png", "PNG", "RGB"),
]


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an image of every kind, and one called otherwise than it is; enlarged into out/."""
    folder = tmp_path_factory.mktemp("kinds")
    (folder / "in").mkdir()
    for name, image, options, *_ in KINDS:
        image.save(folder / "in" / name, **options)
    COLOUR.save(folder / "in" / "a_png.jpg", "PNG")
    counts, _ = enlarge_files(load_network("srcnn_x3")[0], find_jobs([f"{folder}/in"], f"{folder}/out", "x3"))
    assert counts["enlarged"] == len(list((folder / "out").iterdir())) == len(KINDS) + 1
    return folder


def planes(image: Image.Image) -> torch.Tensor:
    array = np.array(image)
    return torch.from_numpy(array).reshape(*array.shape[:2], -1).permute(2, 0, 1)[None].float() / 255


def by_hand(image: Image.Image) -> torch.Tensor:
    """What the network makes of an image of mode L, RGB or CMYK, in [0, 255]."""
    net, x = load_network("srcnn_x3")[0], planes(image)
    with torch.no_grad():
        y = net(x) if x.shape[1] == 3 else torch.cat([net.upscale(channel) for channel in x.split(1, 1)], 1)
    return y[0].clamp(0, 1) * 255


@pytest.mark.parametrize(("name", "image", "options", "result", "kind", "mode"), KINDS, ids=[kind[0] for kind in KINDS])
def test_kind(kinds: Path, name: str, image: Image.Image, options: dict, result: str, kind: str, mode: str) -> None:
    path = kinds / "out" / result
    with Image.open(kinds / "in" / name) as file, Image.open(path) as larger:
        assert (larger.format, larger.mode) == (kind, mode)
        assert larger.size == ((72, 108) if "exif" in options else (108, 72))
        assert larger.info.get("icc_profile") == options.get("icc_profile")
        assert "dpi" not in options or larger.info["dpi"] == pytest.approx(options["dpi"], abs=1)
        if "exif" in options:
            found = larger.getexif()
            assert found[0x010F] == "a camera" and found.get(0x0112, 1) == 1
            assert found.get_ifd(0x8769) == {0x829A: 0.5}
            if not name.endswith(".tif"):  # which Pillow turns by itself
                file = file.transpose(Image.Transpose.ROTATE_270)
        lr = file.convert(mode)
        made = planes(larger)[0] * 255
        is_lossy = kind in ("JPEG", "WEBP") and "lossless" not in options
        seen = torch.ones(72, 108) > 0
        if mode.endswith("A"):
            alpha = bicubic_up(planes(lr)[:, -1:], 3)[0].clamp(0, 1) * 255
            assert (made[-1:] - alpha).abs().max() < 0.51
            solid = (planes(lr)[:, -1:] > 0).float()  # where all that the network sees is visible
            inner = 1 - torch.nn.functional.max_pool2d(1 - solid, 9, 1, 4)
            seen = inner[0, 0].repeat_interleave(3, 0).repeat_interleave(3, 1) > 0
            made, lr = made[:-1], lr.convert(mode.removesuffix("A"))
        difference = (made - by_hand(lr)).abs()[:, seen if "exif" not in options else ...]
        assert difference.mean() < 2.5 if is_lossy else difference.max() < 0.51
    if mode in ("L", "RGB", "RGBA"):  # another library sees the same
        imagecodecs = pytest.importorskip("imagecodecs")
        other = imagecodecs.imread(path)
        assert other.shape[:2] == larger.size[::-1]
        if not is_lossy:
            assert np.array_equal(other, np.array(larger))


def test_content_decides_not_the_name(kinds: Path) -> None:
    with Image.open(kinds / "out" / "a_png_x3.jpg") as larger:
        assert (larger.format, larger.size) == ("PNG", (108, 72))


def test_one_list_of_formats() -> None:
    """A folder's images are those that are read when they are named alone."""
    named = {ending for ending, kind in Image.registered_extensions().items() if kind in (*FORMATS, "MPO")}
    assert named == EXTENSIONS


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, bits: int, colours: int, rows: bytes = b"", sample: bytes = b"") -> bytes:
    """A PNG as bytes; `sample` is the transparent one."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0))
    rest = chunk(b"tRNS", sample) * bool(sample) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + rest


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_the_transparent_gray_is_transparent(bits: int, tmp_path: Path) -> None:
    """Pillow gives the sample of 2 and 4 bits in other units than the pixels."""
    if bits == 16:
        pytest.importorskip("imagecodecs")
    values = list(range(min(8, 2**bits)))
    packed = sum(value << bits * (7 - place) for place, value in enumerate((values * 8)[:8]))
    (tmp_path / "a.png").write_bytes(png(8, 1, bits, 0, b"\0" + packed.to_bytes(bits), struct.pack(">H", 1)))
    image = read_file(tmp_path / "a.png")
    most = torch.iinfo(image.planes.dtype).max
    assert image.mode == "LA"
    assert image.planes[0, 0].tolist() == [value * most // (2**bits - 1) for value in (values * 8)[:8]]
    assert image.planes[1, 0].tolist() == [0 if value == 1 else most for value in (values * 8)[:8]]


def test_a_profile_is_that_of_the_pixels(tmp_path: Path) -> None:
    """Lab becomes RGB, a palette of grays gray: their profiles are for other pixels, and libpng refuses such a file."""
    COLOUR.convert("LAB").save(tmp_path / "lab.tif", icc_profile=LAB)
    COLOUR.convert("L").convert("P").save(tmp_path / "gray.png", icc_profile=SRGB)
    COLOUR.convert("CMYK").save(tmp_path / "cmyk.jpg", icc_profile=SRGB)
    COLOUR.save(tmp_path / "rgb.png", icc_profile=SRGB)
    for name, mode in (("lab.tif", "RGB"), ("gray.png", "L"), ("cmyk.jpg", "CMYK")):
        image = read_file(tmp_path / name)
        assert (image.mode, image.options.get("icc_profile")) == (mode, None)
    assert read_file(tmp_path / "rgb.png").options["icc_profile"] == SRGB


def test_more_than_8_bits_are_not_taken_for_8(tmp_path: Path) -> None:
    imagecodecs, tifffile = pytest.importorskip("imagecodecs"), pytest.importorskip("tifffile")
    rgb, gray = DEEP[..., :3], DEEP[..., 0]
    files = {
        "16.jp2": imagecodecs.jpeg2k_encode(rgb, level=0, codecformat="jp2"),
        "12.j2k": imagecodecs.jpeg2k_encode(rgb >> 4, level=0, codecformat="j2k", bitspersample=12),
        "gray.jp2": imagecodecs.jpeg2k_encode(gray, level=0, codecformat="jp2"),
        "10.avif": imagecodecs.avif_encode(rgb >> 6, level=90, bitspersample=10),
        "12.avif": imagecodecs.avif_encode(rgb >> 4, level=90, bitspersample=12),
        "16.ppm": b"P6 9 6 65535\n" + rgb.astype(">u2").tobytes(),
        "16.pgm": b"P5 9 6 4095\n" + (gray >> 4).astype(">u2").tobytes(),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    tifffile.imwrite(tmp_path / "white_is_0.tif", gray, photometric="miniswhite")
    tifffile.imwrite(tmp_path / "premultiplied.tif", DEEP, photometric="rgb", extrasamples=["assocalpha"])
    tifffile.imwrite(tmp_path / "cmyk.tif", DEEP, photometric="separated")
    tifffile.imwrite(tmp_path / "signed.tif", gray.astype(np.int16))
    tifffile.imwrite(tmp_path / "signed8.tif", gray.astype(np.int8))
    tifffile.imwrite(tmp_path / "float.tif", gray.astype(np.float32))
    for path in tmp_path.iterdir():
        with pytest.raises(UserError, match=rf"{path.name}: \w+ of more than 8 bits, or signed: .*; convert it first"):
            read_file(path)


@pytest.mark.parametrize("ending", [".png", ".tif"])
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_16_bits_stay(ending: str, mode: str, tmp_path: Path) -> None:
    pytest.importorskip("imagecodecs")
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 3, "IDAT"  # upside down, by a camera of that name
    options = {"icc_profile": SRGB, "dpi": (300, 300), "exif": exif.tobytes()}
    deep = torch.from_numpy(DEEP).permute(2, 0, 1)[: len(mode)]
    write_image(tmp_path / f"deep{ending}", ImageFile(deep, mode, options=options))
    if (ending, mode) == (".tif", "LA"):  # which Pillow does not know
        return
    back = read_file(tmp_path / f"deep{ending}")
    is_turned = ending == ".png"  # tifffile writes no EXIF
    assert torch.equal(back.planes.int(), deep.int().flip(1, 2) if is_turned or mode == "L" else deep.int())
    assert back.options["dpi"] == pytest.approx((300, 300), abs=1)
    assert back.options.get("icc_profile") == (SRGB if mode.startswith("RGB") else None)
    del exif[0x0112]
    assert not is_turned or back.options["exif"] == exif.tobytes()
    enlarge_files(load_network(None)[0], find_jobs([str(tmp_path)], str(tmp_path / "out"), "x3"))
    larger = read_file(tmp_path / "out" / f"deep_x3{ending}")
    assert (larger.planes.dtype, larger.planes.shape[1:], larger.mode) == (torch.uint16, (18, 27), mode)
    assert len(np.unique(larger.planes.numpy() & 255)) > 60


@pytest.mark.parametrize(
    "options",
    [
        {"planarconfig": "separate"},
        {"tile": (16, 16), "compression": "lzw"},
        {"extratags": [(274, 3, 1, 6, False)]},  # turned by a quarter
        {"byteorder": ">", "rowsperstrip": 2},
    ],
)
def test_16_bit_tiffs_are_right_or_refused(options: dict, tmp_path: Path) -> None:
    tifffile, pixels = pytest.importorskip("tifffile"), DEEP[..., :3]
    stored = np.moveaxis(pixels, -1, 0) if "planarconfig" in options else pixels
    tifffile.imwrite(tmp_path / "x.tif", stored, photometric="rgb", **options)
    shown = np.rot90(pixels, -1) if "extratags" in options else pixels
    content = (tmp_path / "x.tif").read_bytes()
    for length in (len(content), *range(100, len(content), 50)):  # no part that is missing becomes black
        (tmp_path / "x.tif").write_bytes(content[:length])
        try:
            assert np.array_equal(read_file(tmp_path / "x.tif").planes.permute(1, 2, 0), shown)
        except UserError:
            assert length < len(content)


def test_what_cannot_be_read_is_called_what_it_is(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.png")  # it would keep us waiting for ever
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "dangling.png").symlink_to("nowhere")
    COLOUR.save(tmp_path / "whole.png")
    COLOUR.save(tmp_path / "texture.tga")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:-60])
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "zero.png").write_bytes(png(0, 0, 8, 2))
    (tmp_path / "bomb.png").write_bytes(png(50_000, 50_000, 8, 2))
    for name, sentence in {
        "fifo.png": "not a file",
        "folder.png": "a folder, not an image",
        "dangling.png": "no such file",
        "absent.png": "no such file",
        "cut.png": r"not an image that can be read \(.*truncated",
        "text.png": r"not an image that can be read \(broken, or none of AVIF, BMP, GIF, JPEG, ",
        "texture.tga": r"not an image that can be read \(broken, or none of",
        "zero.png": "not an image that can be read",
        "bomb.png": r"50000x50000 pixels; at most 178956970 are accepted \(max_pixels=\)",
    }.items():
        with pytest.raises(UserError, match=f"{name}: {sentence}"):
            read_file(tmp_path / name)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can read as somebody else")
def test_a_file_of_somebody_else_is_not_called_broken() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        COLOUR.save(f"{folder}/private.png")
        os.chmod(f"{folder}/private.png", 0o600)
        os.seteuid(65534)
        try:
            with pytest.raises(UserError, match=r"private.png: cannot be read \(Permission denied\)"):
                read_file(f"{folder}/private.png")
        finally:
            os.seteuid(0)


def test_several_pages_or_frames(tmp_path: Path) -> None:
    for name in ("a.tif", "a.gif", "a.png", "a.webp", "a.avif", "a.mpo"):
        COLOUR.save(tmp_path / name, **ANIMATED)
        assert read_file(tmp_path / name).is_first
        COLOUR.save(tmp_path / name)
        assert not read_file(tmp_path / name).is_first


def test_pillow_and_tensors() -> None:
    array = np.array(COLOUR)
    colours = torch.from_numpy(array).permute(2, 0, 1)
    for image in (colours, colours / 255, colours.to(torch.float64) / 255, (colours.int() * 257).to(torch.uint16)):
        assert np.array_equal(np.asarray(to_pillow(image)), array)
    assert np.array_equal(np.asarray(to_pillow(colours[:1])), array[..., 0])
    for mode in ("L", "LA", "RGB", "RGBA", "CMYK"):
        image = COLOUR.convert(mode)
        assert (to_pillow(from_pillow(image)).tobytes(), to_pillow(from_pillow(image)).mode) == (image.tobytes(), mode)
    with pytest.raises(UserError, match="mode F"):
        from_pillow(COLOUR.convert("F"))


def test_metadata_that_cannot_be_written(tmp_path: Path) -> None:
    """It is left out, and the image written; Pillow calls a TIFF without resolution one of 1 dpi."""
    for ending in (".png", ".jpg", ".tif", ".webp"):
        image = COLOUR.copy()
        image.info.update({"dpi": (float("nan"), 1.0), "icc_profile": 5})
        file = from_pillow(image)
        write_image(tmp_path / f"x{ending}", replace(file, options={**file.options, "exif": b"x" * 70_000}))
        back = read_file(tmp_path / f"x{ending}")
        assert ending != ".tif" or 282 not in Image.open(tmp_path / f"x{ending}").tag_v2
        assert "icc_profile" not in back.options and back.options.get("dpi") in (None, (1, 1))


@pytest.mark.filterwarnings("ignore")
def test_mutated_images(kinds: Path, tmp_path: Path) -> None:
    """SRCNN_MUTATIONS of them are refused in a sentence, or written as a file that holds what was read."""
    rng, count, refused = random.Random(1), int(os.environ.get("SRCNN_MUTATIONS", 300)), 0
    if find_spec("imagecodecs"):
        for ending in (".png", ".tif"):
            deep = ImageFile(torch.from_numpy(DEEP).permute(2, 0, 1), "RGBA", options={"dpi": (300, 300)})
            write_image(kinds / "in" / f"deep{ending}", deep)
    files = [(path.suffix, path.read_bytes()) for path in sorted((kinds / "in").iterdir())]
    for number in range(count):
        ending, content = files[number % len(files)]
        damaged = bytearray(content[: rng.choice([len(content), rng.randrange(1, len(content))])])
        for _ in range(rng.choice([1, 1, 3, 30])):
            place = rng.randrange(len(damaged))
            damaged[place : place + rng.randrange(1, 5)] = rng.randbytes(rng.randrange(1, 5))
        (tmp_path / f"mutated{ending}").write_bytes(damaged)
        begin = time.monotonic()
        try:
            image = read_file(tmp_path / f"mutated{ending}", max_pixels=10**6)
            written = tmp_path / f"written{'.tif' if image.mode == 'CMYK' else '.png'}"
            write_image(written, image)
        except UserError:
            refused += 1
        else:
            assert torch.equal(read_file(written).planes.int(), image.planes.int())
        assert time.monotonic() - begin < 20
    assert count / 10 < refused < count
