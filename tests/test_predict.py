"""Any image, any number of them: what goes in comes out larger, and of the same kind."""

import os
import shutil
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, read_csv, run
from PIL import Image, ImageCms

from srcnn.checkpoint import load_network
from srcnn.data.leaves import dead_leaves
from srcnn.files import Picture, read_picture, write_image, write_picture
from srcnn.image import bicubic_down, bicubic_up, modcrop, to_uint8
from srcnn.nets import SRCNN
from srcnn.upscale import Bicubic, SelfEnsemble, enlarge, gray_of, super_resolve, upscale

COLOUR = Image.fromarray(dead_leaves(1, 36, seed=3)[0].permute(1, 2, 0).numpy()[:24])
ALPHA = Image.fromarray(np.kron(np.array([[0, 255, 90], [255, 0, 255]], np.uint8), np.ones((12, 12), np.uint8)))
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def with_alpha(mode: str) -> Image.Image:
    image = COLOUR.convert("RGB" if mode == "RGBA" else "L")
    image.putalpha(ALPHA)
    return image


EXIF = Image.Exif()
EXIF[0x0112], EXIF[0x010F] = 6, "a camera"  # turned by a quarter; its maker
# file, image, how it is saved, then what comes out: ending, format, mode
KINDS = [
    ("rgb.bmp", COLOUR, {}, ".bmp", "BMP", "RGB"),
    ("gray.bmp", COLOUR.convert("L"), {}, ".bmp", "BMP", "L"),
    ("rgb.png", COLOUR, {"icc_profile": ICC, "dpi": (300, 300)}, ".png", "PNG", "RGB"),
    ("gray.png", COLOUR.convert("L"), {}, ".png", "PNG", "L"),
    ("gray_alpha.png", with_alpha("LA"), {}, ".png", "PNG", "LA"),
    ("alpha.png", with_alpha("RGBA"), {}, ".png", "PNG", "RGBA"),
    ("palette.png", COLOUR.quantize(40), {}, ".png", "PNG", "RGB"),
    ("see_through.png", COLOUR.quantize(40), {"transparency": 3}, ".png", "PNG", "RGBA"),
    ("bits.png", COLOUR.convert("1"), {}, ".png", "PNG", "L"),
    ("first.gif", COLOUR.quantize(60), {"save_all": True, "append_images": [COLOUR]}, ".png", "PNG", "RGB"),
    ("rgb.jpg", COLOUR, {"quality": 98, "icc_profile": ICC, "dpi": (240, 240)}, ".jpg", "JPEG", "RGB"),
    ("gray.JPEG", COLOUR.convert("L"), {"quality": 98}, ".JPEG", "JPEG", "L"),
    ("turned.jpg", COLOUR, {"quality": 98, "exif": EXIF}, ".jpg", "JPEG", "RGB"),
    ("cmyk.jpg", COLOUR.convert("CMYK"), {"quality": 98}, ".jpg", "JPEG", "CMYK"),
    ("rgb.webp", COLOUR, {"lossless": True, "icc_profile": ICC}, ".webp", "WEBP", "RGB"),
    ("alpha.webp", with_alpha("RGBA"), {"lossless": True, "exact": True}, ".webp", "WEBP", "RGBA"),
    ("rgb.tif", COLOUR, {"dpi": (150, 150), "icc_profile": ICC}, ".tif", "TIFF", "RGB"),
    ("alpha.tiff", with_alpha("RGBA"), {}, ".tiff", "TIFF", "RGBA"),
    ("cmyk.tif", COLOUR.convert("CMYK"), {}, ".tif", "TIFF", "CMYK"),
    ("bits.tif", COLOUR.convert("1"), {}, ".png", "PNG", "L"),
    ("rgb.ppm", COLOUR, {}, ".png", "PNG", "RGB"),
]


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an image of every kind, and one called otherwise than it is; enlarged into out/."""
    cwd = tmp_path_factory.mktemp("kinds")
    (cwd / "in").mkdir()
    for name, image, options, *_ in KINDS:
        image.save(cwd / "in" / name, **options)
    COLOUR.save(cwd / "in" / "a_png.jpg", "PNG")
    run("predict.py", "input=in", "output=out", cwd=cwd)
    return cwd


def planes(image: Image.Image) -> torch.Tensor:
    array = np.array(image)
    return torch.from_numpy(array).reshape(*array.shape[:2], -1).permute(2, 0, 1)[None].float() / 255


def by_hand(image: Image.Image) -> torch.Tensor:
    """What the network makes of an image of mode L, RGB or CMYK, in [0, 255]."""
    net, _ = load_network(None)
    x = planes(image)
    with torch.no_grad():
        if x.shape[1] == 3:
            y = net(x)
        else:  # each channel as a gray image
            y = torch.cat([gray_of(net(channel.expand(-1, 3, -1, -1))) for channel in x.split(1, 1)], 1)
    return y[0].clamp(0, 1) * 255


@pytest.mark.parametrize(("name", "image", "options", "ending", "kind", "mode"), KINDS, ids=[kind[0] for kind in KINDS])
def test_kind(kinds: Path, name: str, image: Image.Image, options: dict, ending: str, kind: str, mode: str) -> None:
    stem = Path(name).stem if sum(Path(other[0]).stem == Path(name).stem for other in KINDS) == 1 else name
    path = kinds / "out" / f"{stem}_x3{ending}"
    with Image.open(kinds / "in" / name) as file, Image.open(path) as larger:
        turned = "exif" in options
        assert (larger.format, larger.mode) == (kind, mode)
        assert larger.size == ((72, 108) if turned else (108, 72))
        assert larger.info.get("icc_profile") == options.get("icc_profile")
        assert "dpi" not in options or larger.info["dpi"] == pytest.approx(options["dpi"], abs=1)
        if turned:
            assert larger.getexif()[0x010F] == "a camera"
            assert 0x0112 not in larger.getexif()
            file = file.transpose(Image.Transpose.ROTATE_270)
        lr = file.convert(mode)
        lossy = kind in ("JPEG", "WEBP")
        colours = mode.removesuffix("A")
        made = planes(larger)[0] * 255
        if colours == mode:
            difference = (made - by_hand(lr)).abs()
            assert difference.mean() < 2.5 if lossy else difference.max() < 0.51
        else:
            alpha = bicubic_up(planes(lr)[:, -1:], 3)[0].clamp(0, 1) * 255
            assert (made[-1:] - alpha).abs().max() < 0.51
            solid = (planes(lr)[:, -1:] > 0).float()  # where all that the network sees is visible
            inner = 1 - torch.nn.functional.max_pool2d(1 - solid, 9, 1, 4)
            seen = inner[0].repeat_interleave(3, 1).repeat_interleave(3, 2) > 0
            difference = (made[:-1] - by_hand(lr.convert(colours))).abs()[:, seen[0]]
            assert difference.mean() < 2.5 if lossy else difference.max() < 0.51
    if mode in ("L", "RGB", "RGBA"):  # another library sees the same
        imagecodecs, tifffile = pytest.importorskip("imagecodecs"), pytest.importorskip("tifffile")
        other = tifffile.imread(path) if kind == "TIFF" else imagecodecs.imread(path)
        assert other.shape[:2] == made.shape[1:]
        if not lossy:
            assert np.array_equal(other.reshape(*other.shape[:2], -1), made.round().byte().permute(1, 2, 0).numpy())


def test_content_decides_not_the_name(kinds: Path) -> None:
    with Image.open(kinds / "out" / "a_png_x3.png") as larger:
        assert (larger.format, larger.size) == ("PNG", (108, 72))
    assert len(list((kinds / "out").iterdir())) == len(KINDS) + 1


def test_hidden_colour_does_not_bleed() -> None:
    """Red pixels of a white one's picture are transparent: no pixel that shows gets red."""
    colour = torch.full((3, 20, 20), 255, dtype=torch.uint8)
    colour[1:, 8:] = 0
    alpha = torch.full((1, 20, 20), 255, dtype=torch.uint8)
    alpha[:, 8:] = 0
    net, _ = load_network(None)
    white = enlarge(net, Picture(torch.full((3, 20, 20), 255, dtype=torch.uint8)))
    larger = enlarge(net, Picture(colour, alpha))
    shows = larger.alpha[0] > 0
    assert (larger.colour.int() - white.colour.int()).abs().amax(0)[shows].max() <= 2


def test_gray_comes_back_gray() -> None:
    gray = 0.3 + 0.4 * torch.rand(1, 1, 20, 20)
    for channels in (1, 3):
        sr = super_resolve(SRCNN(channels=channels, init="identity"), gray)
        torch.testing.assert_close(sr, bicubic_up(gray, 3), atol=1e-5, rtol=0)


def test_integers_are_rounded_floats() -> None:
    torch.manual_seed(0)
    for channels in (1, 3):
        net = SRCNN(channels=channels)
        lr = torch.randint(256, (1, 3, 50, 70), dtype=torch.uint8)
        expected = to_uint8(super_resolve(net, lr.float() / 255))
        assert torch.equal(super_resolve(net, lr), expected)
        deep = super_resolve(net, (lr.int() * 257).to(torch.uint16))
        assert (deep.int() / 257 - expected.int()).abs().max() <= 0.51


def test_memory_that_runs_out_makes_smaller_tiles() -> None:
    class Small(SRCNN):
        def body(self, x: torch.Tensor, pad: bool = True) -> torch.Tensor:
            if x[0, 0].numel() > 1500:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return super().body(x, pad)

    torch.manual_seed(0)
    net, lr = Small(), torch.rand(1, 3, 40, 30)
    whole = SRCNN()
    whole.load_state_dict(net.state_dict())
    torch.testing.assert_close(upscale(net, lr), upscale(whole, lr), atol=1e-6, rtol=0)


def test_self_ensemble_is_the_mean_over_orientations() -> None:
    torch.manual_seed(0)
    net, lr = SRCNN(), torch.rand(1, 3, 9, 7)
    with torch.no_grad():
        turned = [[lr.rot90(k, (2, 3)), lr.rot90(k, (2, 3)).flip(2)] for k in range(4)]
        results = [(net(a).rot90(-k, (2, 3)), net(b).flip(2).rot90(-k, (2, 3))) for k, (a, b) in enumerate(turned)]
    mean = torch.stack([result for pair in results for result in pair]).mean(0)
    torch.testing.assert_close(upscale(SelfEnsemble(net), lr), mean)
    torch.testing.assert_close(upscale(Bicubic(4), lr[:, :1]), bicubic_up(lr[:, :1], 4))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_16_bits_stay(ending: str, channels: int, tmp_path: Path) -> None:
    pytest.importorskip("imagecodecs")
    deep = torch.from_numpy(np.random.default_rng(0).integers(0, 65536, (channels, 9, 7), dtype=np.uint16))
    colours = channels - (channels + 1) % 2
    alpha = deep[colours:] if colours < channels else None
    write_picture(tmp_path / f"deep{ending}", Picture(deep[:colours], alpha))
    back = read_picture(tmp_path / f"deep{ending}")
    assert torch.equal(back.colour, deep[:colours])
    assert (back.alpha is None) == (alpha is None)
    assert alpha is None or torch.equal(back.alpha, alpha)
    run("predict.py", f"input=deep{ending}", cwd=tmp_path)
    larger = read_picture(tmp_path / f"deep_x3{ending}")
    assert larger.colour.dtype == torch.uint16
    assert larger.colour.shape == (colours, 27, 21)
    assert len(np.unique(larger.colour.numpy() & 255)) > 100


def png(width: int, height: int, body: bytes = b"") -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\0\0\0"
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


@pytest.fixture
def thousand(tmp_path: Path) -> Path:
    """A folder of 1,000 small files, ten of them wrong in ten different ways."""
    folder = tmp_path / "in"
    (folder / "below").mkdir(parents=True)
    small = dead_leaves(1, 12, seed=0)[0]
    for number in range(990):
        write_image(folder / ("below" if number % 2 else ".") / f"{number:03}.png", small.roll(number, 2))
    whole = (folder / "000.png").read_bytes()
    (folder / "truncated.png").write_bytes(whole[:-60])
    (folder / "empty.png").touch()
    (folder / "text.png").write_text("no image")
    (folder / "zip.png").write_bytes(b"PK\x03\x04" + bytes(100))
    (folder / "zero.png").write_bytes(png(0, 0))
    (folder / "bomb.png").write_bytes(png(50_000, 50_000))
    (folder / "dangling.png").symlink_to(tmp_path / "nowhere.png")
    (folder / "folder.png").mkdir()
    write_image(tmp_path / "cut.jpg", dead_leaves(1, 64, seed=0)[0])
    (folder / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:900])
    COLOUR.save(folder / "animated.gif", save_all=True, append_images=[COLOUR.rotate(90)])
    return folder


def test_a_thousand_files_ten_of_them_broken(thousand: Path, tmp_path: Path) -> None:
    """Killed halfway and started again: nothing is done twice, no file is half written, and nine are reported; the
    tenth, an animation, has a first frame."""
    command = [sys.executable, str(ROOT / "predict.py"), "input=in", "output=out"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    out = tmp_path / "out"
    while len(list(out.rglob("*_x3.*"))) < 300 and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*_x3.*")}
    assert 300 <= len(before) < 900
    for path in before:
        with Image.open(path) as image:
            image.load()
    output = run("predict.py", "input=in", "output=out", cwd=tmp_path, code=1)
    after = {path: path.stat().st_mtime_ns for path in out.rglob("*_x3.*")}
    assert len(after) == 991
    assert all(after[path] == written for path, written in before.items())
    assert f"{991 - len(before)} of 1000 images enlarged x3, {len(before)} were there already" in output
    assert "not done, 9:" in output
    for name in ("truncated.png", "empty.png", "text.png", "zip.png", "zero.png", "bomb.png", "folder.png", "cut.jpg"):
        assert f"in/{name}: " in output.split("not done, 9:")[1]
    assert "dangling.png: no such file (a dangling link)" in output
    assert "bomb.png: 50000x50000 pixels; at most" in output
    assert "Traceback" not in output
    assert not list(out.rglob(".*"))


def test_two_processes_share_a_folder(thousand: Path, tmp_path: Path) -> None:
    shutil.rmtree(thousand / "below")
    settings = ["input=in", "output=out", "trainer.devices=2", "trainer.accelerator=cpu"]
    output = run("predict.py", *settings, cwd=tmp_path, code=1, env={"OMP_NUM_THREADS": "1"})
    assert len(list((tmp_path / "out").rglob("*_x3.*"))) == 496
    assert "496 of 505 images enlarged" in output
    assert "not done, 9:" in output


def test_globs_single_files_and_what_is_there(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.jpg"):
        write_image(tmp_path / "in" / name, dead_leaves(1, 12, seed=0)[0])
    run("predict.py", "input=in/*.png", cwd=tmp_path)
    assert "0 of 2 images enlarged x3, 2 were there already" in run("predict.py", "input=in/*.png", cwd=tmp_path)
    assert {path.name for path in (tmp_path / "in").glob("*_x3*")} == {"a_x3.png", "b_x3.png"}
    run("predict.py", "input=in/c.jpg", "output=c.webp", "self_ensemble=true", cwd=tmp_path)
    with Image.open(tmp_path / "c.webp") as image:
        assert (image.format, image.size) == ("WEBP", (36, 36))
    written = os.stat(tmp_path / "in" / "a_x3.png").st_mtime_ns
    run("predict.py", "input=in/*.png", "overwrite=true", cwd=tmp_path)
    assert os.stat(tmp_path / "in" / "a_x3.png").st_mtime_ns > written
    refused = run("predict.py", "input=in/a.png", "max_pixels=100", cwd=tmp_path, code=2)
    assert "a.png: 12x12 pixels; at most 100 are trusted (max_pixels=)" in refused


def test_scores_against_references(images: Path, tmp_path: Path) -> None:
    """As `evaluate` gives them under protocol basicsr."""
    for path in images.iterdir():
        hr = modcrop(read_picture(path).colour[None] / 255, 3)
        write_image(tmp_path / "lr" / path.name, to_uint8(bicubic_down(hr, 3))[0])
    run("predict.py", "input=lr", "output=sr", f"reference={images}", cwd=tmp_path)
    run("-m", "srcnn.evaluate", f"data.test=[{images}]", "protocol=basicsr", "output=s", cwd=tmp_path)
    columns = ("image", "psnr", "ssim", "bicubic_psnr", "bicubic_ssim")
    rows = [[row[key] for key in columns] for row in read_csv(tmp_path / "sr" / "scores.csv")]
    assert rows == [[row[key] for key in columns] for row in read_csv(tmp_path / "s" / "scores.csv")]
    assert (tmp_path / "sr" / "comparison.png").is_file()
