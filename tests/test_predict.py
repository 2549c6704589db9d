"""Any image, any number of them: what goes in comes out larger, and of the same kind."""

import os
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, read_csv, run
from PIL import Image, ImageCms
from test_survival import MUTATIONS, mutate

import predict
from srcnn.data.leaves import dead_leaves
from srcnn.inference.folder import Enlarger, Records, find_jobs
from srcnn.errors import RunError, UserError
from srcnn.files import read_image
from srcnn.inference.image_file import ImageFile, read_file, to_pillow, write_image
from srcnn.image import bicubic_down, bicubic_resize, bicubic_up, modcrop, quantize, to_uint8
from srcnn.nets import SRCNN
from srcnn.checkpoint import load_network, save_weights
from srcnn.launch import parse
from srcnn.inference.tiles import gray_of

COLOUR = Image.fromarray(dead_leaves(1, 36, seed=3)[0].permute(1, 2, 0).numpy()[:24])
ALPHA = Image.fromarray(np.kron(np.array([[0, 255, 90], [255, 0, 255]], np.uint8), np.ones((12, 12), np.uint8)))
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def with_alpha(mode: str) -> Image.Image:
    image = COLOUR.convert("RGB" if mode == "RGBA" else "L")
    image.putalpha(ALPHA)
    return image


def enlarged(folder: Path, *words: str) -> int:
    """predict.py with these settings in a folder; its exit code."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        return predict.predict(parse("predict", words))
    finally:
        os.chdir(before)


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
    assert enlarged(cwd, "ckpt_path=srcnn_x3", "input=in", "output=out") == 0
    return cwd


def planes(image: Image.Image) -> torch.Tensor:
    array = np.array(image)
    return torch.from_numpy(array).reshape(*array.shape[:2], -1).permute(2, 0, 1)[None].float() / 255


def by_hand(image: Image.Image) -> torch.Tensor:
    """What the network makes of an image of mode L, RGB or CMYK, in [0, 255]."""
    net, _ = load_network("srcnn_x3")
    x = planes(image)
    with torch.no_grad():
        if x.shape[1] == 3:
            y = net(x)
        else:  # each channel as a gray image
            y = torch.cat([gray_of(net(channel.expand(-1, 3, -1, -1))) for channel in x.split(1, 1)], 1)
    return y[0].clamp(0, 1) * 255


@pytest.mark.parametrize(("name", "image", "options", "ending", "kind", "mode"), KINDS, ids=[kind[0] for kind in KINDS])
def test_kind(kinds: Path, name: str, image: Image.Image, options: dict, ending: str, kind: str, mode: str) -> None:
    stem = Path(name).stem if Path(name).suffix == ending else name
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
    with Image.open(kinds / "out" / "a_png.jpg_x3.png") as larger:
        assert (larger.format, larger.size) == ("PNG", (108, 72))
    assert len(list((kinds / "out").glob("*_x3.*"))) == len(KINDS) + 1


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_16_bits_stay(ending: str, channels: int, tmp_path: Path) -> None:
    pytest.importorskip("imagecodecs")
    deep = torch.from_numpy(np.random.default_rng(0).integers(0, 65536, (channels, 9, 7), dtype=np.uint16))
    colours = channels - (channels + 1) % 2
    alpha = deep[colours:] if colours < channels else None
    write_image(tmp_path / f"deep{ending}", ImageFile(deep[:colours], alpha))
    if (ending, channels) == (".tif", 2):  # which Pillow does not know
        return
    back = read_file(tmp_path / f"deep{ending}")
    assert torch.equal(back.colour, deep[:colours])
    assert (back.alpha is None) == (alpha is None)
    assert alpha is None or torch.equal(back.alpha, alpha)
    assert enlarged(tmp_path, f"input=deep{ending}") == 0
    larger = read_file(tmp_path / f"deep_x3{ending}")
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
    assert f"{991 - len(before)} of 1000 images enlarged x3, " in output
    assert f", {len(before)} there already" in output
    assert ", 9 skipped" in output
    for name in ("truncated.png", "empty.png", "text.png", "zip.png", "zero.png", "bomb.png", "folder.png", "cut.jpg"):
        assert f"skipped: in/{name}: " in output
    assert "dangling.png: no such file" in output
    assert "bomb.png: 50000x50000 pixels; at most" in output
    assert "Traceback" not in output
    assert {path.name for path in out.rglob(".*") if path.suffix != ".part"} == {".srcnn.jsonl"}


def test_processes_share_a_folder(thousand: Path, tmp_path: Path) -> None:
    """As torchrun and srun tell them their ranks; without torch.distributed."""
    shutil.rmtree(thousand / "below")
    done, failed = 0, 0
    slurm = {"SLURM_PROCID": "1", "SLURM_NTASKS": "2", "SLURM_STEP_ID": "0"}  # the last one by srun only
    for number, env in enumerate([{"RANK": "0", "WORLD_SIZE": "2"}, slurm]):
        output = run("predict.py", "input=in", "output=out", cwd=tmp_path, code=1, env=env)
        assert f"(process {number} of 2)" in output
        done += int(output.split(" of 25", 1)[0].rsplit("\n", 1)[-1])
        failed += output.count("skipped: ")
    assert (done, failed) == (496, 9)
    assert len(list((tmp_path / "out").rglob("*_x3.*"))) == 496
    env = {"SLURM_PROCID": "0", "SLURM_NTASKS": "2"}  # a batch script without srun is one process
    output = run("predict.py", "input=in", "output=out", cwd=tmp_path, code=1, env=env)
    assert "0 of 505 images enlarged x3" in output
    assert "496 there already" in output
    refused = run("predict.py", "input=in", "reference=in", cwd=tmp_path, code=2, env={"RANK": "0", "WORLD_SIZE": "2"})
    assert "reference= compares all images in one process" in refused


def test_one_name_for_two_results_in_two_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever process comes first, the result is that of the first file, as in a single process."""
    for number, name in enumerate(("a.gif", "a.gif.png", "b.png", "c.png")):  # the first two become a.gif_x3.png
        to_pillow(dead_leaves(1, 12, seed=number)[0]).save(tmp_path / name)
    enlarged(tmp_path, "input=*.*", "output=alone")
    for ranks in ((0, 1), (1, 0)):
        for rank in ranks:
            monkeypatch.setenv("RANK", str(rank))
            monkeypatch.setenv("WORLD_SIZE", "2")
            enlarged(tmp_path, "input=*.*", f"output=out{ranks[0]}")
        assert names(tmp_path / f"out{ranks[0]}") == {"a.gif_x3.png", "b_x3.png", "c_x3.png"}
        for name in names(tmp_path / "alone"):
            one, other = (read_image(tmp_path / folder / name) for folder in ("alone", f"out{ranks[0]}"))
            assert torch.equal(one, other)


def small(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        write_image(folder / name, dead_leaves(1, 12, seed=number)[0])


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*_x*.*")}


def test_globs_single_files_and_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    small(tmp_path / "in", "a.png", "b.png", "c.jpg")
    enlarged(tmp_path, "input=in/*.png")
    capsys.readouterr()
    enlarged(tmp_path, "input=in/*.png")
    assert "0 of 2 images enlarged x3, 2 there already; in in, by compact_x3" in capsys.readouterr().out
    assert names(tmp_path / "in") == {"a_x3.png", "b_x3.png"}
    enlarged(tmp_path, "input=in/c.jpg", "output=c.webp", "self_ensemble=true")
    assert capsys.readouterr().out == "c.webp, 36x36, by compact_x3\n"
    with Image.open(tmp_path / "c.webp") as image:
        assert (image.format, image.size) == ("WEBP", (36, 36))
    written = os.stat(tmp_path / "in" / "a_x3.png").st_mtime_ns
    enlarged(tmp_path, "input=in/*.png", "overwrite=true")
    assert os.stat(tmp_path / "in" / "a_x3.png").st_mtime_ns > written
    with pytest.raises(UserError, match=r"a.png: 12x12 pixels; at most 100 are trusted \(max_pixels=\)"):
        enlarged(tmp_path, "input=in/a.png", "scale=2", "max_pixels=100")


def test_a_file_is_named_alone(tmp_path: Path) -> None:
    small(tmp_path, "photo (1) ü.png")
    assert "photo (1) ü_x2.png, 24x24, by compact_x2" in run("predict.py", "photo (1) ü.png", "scale=2", cwd=tmp_path)
    assert "settings are key=value" in run("predict.py", "absent.png", cwd=tmp_path, code=2)


def test_own_results_are_no_inputs(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Wherever they were written and at whatever scale; a user's own file of such a name is one."""
    small(tmp_path / "in", "a.bmp", "logo_x3.png", ".hidden/b.png")
    enlarged(tmp_path, "input=in")
    first = {"a_x3.bmp", "logo_x3.png", "logo_x3_x3.png"}
    assert names(tmp_path / "in") == first
    enlarged(tmp_path, "input=in", "scale=2")
    assert names(tmp_path / "in") == first | {"a_x2.bmp", "logo_x3_x2.png"}
    enlarged(tmp_path, "input=in", "output=in/larger")
    assert names(tmp_path / "in" / "larger") == {"a_x3.bmp", "logo_x3_x3.png"}
    capsys.readouterr()
    enlarged(tmp_path, "input=in", "output=out")
    assert names(tmp_path / "out") == {"a_x3.bmp", "logo_x3_x3.png"}
    assert "2 of 2 images enlarged x3; in out, by compact_x3" in capsys.readouterr().out
    shutil.copytree(tmp_path / "in", tmp_path / "copied", copy_function=shutil.copy2)  # as with cp -a
    assert len(find_jobs(str(tmp_path / "copied"), None, Records())) == 2
    small(tmp_path / "in", "a_x3.bmp")  # edited since: now the user's
    assert len(find_jobs(str(tmp_path / "in"), None, Records())) == 3


def test_results_of_other_weights_are_made_again(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    small(tmp_path / "in", "a.png", "b.png")
    small(tmp_path / "out", "b_x3.png")  # nobody knows whose
    theirs = (tmp_path / "out" / "b_x3.png").read_bytes()
    words = ["input=in", "output=out"]
    assert enlarged(tmp_path, *words) == 0
    output = "".join(capsys.readouterr())
    assert "1 of 2 images enlarged x3, 1 left alone; in out" in output
    assert "left alone: out/b_x3.png: is there, and not as srcnn made it; overwrite=true replaces it" in output
    before = (tmp_path / "out" / "a_x3.png").read_bytes()
    net = SRCNN(init="identity")
    save_weights(tmp_path / "mine.pth", net, {"scale": 3}, {})
    enlarged(tmp_path, *words, "ckpt_path=mine.pth")
    assert "1 of 2 images enlarged x3, 1 left alone" in capsys.readouterr().out
    assert (tmp_path / "out" / "a_x3.png").read_bytes() != before
    enlarged(tmp_path, *words, "ckpt_path=mine.pth")
    assert "0 of 2 images enlarged x3" in (output := capsys.readouterr().out)
    assert "1 there already" in output
    small(tmp_path / "in", "b.png", "a.png")  # other images now
    enlarged(tmp_path, *words, "ckpt_path=mine.pth")
    assert "1 of 2 images enlarged x3, 1 left alone" in capsys.readouterr().out
    assert (tmp_path / "out" / "b_x3.png").read_bytes() == theirs
    enlarged(tmp_path, *words, "overwrite=true")
    assert (tmp_path / "out" / "b_x3.png").read_bytes() != theirs


def test_a_result_is_never_written_over_an_input(tmp_path: Path) -> None:
    small(tmp_path, "logo.png", "logo_x3.png")
    theirs = (tmp_path / "logo_x3.png").read_bytes()
    enlarged(tmp_path, f"input={tmp_path}", "overwrite=true")
    assert (tmp_path / "logo_x3.png").read_bytes() == theirs
    assert names(tmp_path) == {"logo_x3.png", "logo_x3_x3.png"}
    with pytest.raises(UserError, match="is there, and not"):
        enlarged(tmp_path, "input=logo.png")
    for name in ("a.gif", "a.png"):
        small(tmp_path / "in", name)
    enlarged(tmp_path, "input=in/*.gif", "output=out")
    enlarged(tmp_path, "input=in", "output=out")
    assert names(tmp_path / "out") == {"a_x3.png", "a.gif_x3.png"}
    before = read_image(tmp_path / "out" / "a.gif_x3.png")
    small(tmp_path / "in", "0.png", "a.gif.png")  # whose result would have the name of a.gif's
    enlarged(tmp_path, "input=in", "output=out", "overwrite=true")
    assert torch.equal(read_image(tmp_path / "out" / "a.gif_x3.png"), before)


def test_where_results_may_go(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    small(tmp_path / "in", "a.png", "b.png")
    (tmp_path / "in" / "photo.heic").touch()
    (tmp_path / "link.png").symlink_to(tmp_path / "in" / "b.png")
    for words, sentence in {
        ("input=in/a.png", "output=out.xyz"): "out.xyz: .xyz is no format",
        ("input=in/a.png", "output=in/a.png"): "is an image or a result of this run",
        ("input=in/a.png", "output=link.png"): "link.png: a link, a folder or a device",
        ("input=in/a.png", "output=/dev/null"): "/dev/null is a file; name a folder",
        ("input=in", "output=out.png"): "one file for what may be many",
        ("input=in", "output=in/a.png/below"): "in/a.png is a file; name a folder",
        ("input=nowhere",): "no such file or folder",
        ("input=in", "reference=nowhere"): "reference=nowhere: no such folder",
        ("input=in", "trainer.accelerator=tpu"): "trainer.accelerator=tpu: choose",
    }.items():
        with pytest.raises(UserError, match=sentence):
            enlarged(tmp_path, *words)
    assert read_image(tmp_path / "in" / "b.png").shape == (3, 12, 12)
    assert not names(tmp_path)
    capsys.readouterr()
    assert enlarged(tmp_path, "input=in", "output=results.v2") == 0
    assert "not read, as of no kind known here: 1 .heic" in capsys.readouterr().err
    assert names(tmp_path / "results.v2") == {"a_x3.png", "b_x3.png"}


def test_a_record_that_is_damaged(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Without it a file that is there is left alone; a line that is cut off costs no other."""
    small(tmp_path / "in", "a.png", "b.png")
    enlarged(tmp_path, "input=in", "output=out")
    record = tmp_path / "out" / ".srcnn.jsonl"
    first, second = record.read_text().strip().splitlines()
    for text, done in ((f"{first}\n{second[:-20]}", 1), (f"{first[:-20]}\n{second}", 1), ("\0[]\n3\n{}\n", 0)):
        record.write_text(text)
        capsys.readouterr()
        assert enlarged(tmp_path, "input=in", "output=out") == 0
        assert f"{2 - done} left alone" in capsys.readouterr().out


def test_scores_against_references(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """As `evaluate` gives them under protocol basicsr."""
    for path in images.iterdir():
        hr = modcrop(read_file(path).colour[None] / 255, 3)
        write_image(tmp_path / "lr" / path.name, to_uint8(bicubic_down(hr, 3))[0])
    words = ("input=lr", "output=sr", f"reference={images}", "exact=true")
    assert enlarged(tmp_path, *words) == 0
    run("-m", "srcnn.evaluate", f"data.test=[{images}]", "protocol=basicsr", "output=s", cwd=tmp_path)
    columns = ("image", "psnr", "ssim", "bicubic_psnr", "bicubic_ssim")
    rows = [[row[key] for key in columns] for row in read_csv(tmp_path / "sr" / "scores.csv")]
    assert rows == [[row[key] for key in columns] for row in read_csv(tmp_path / "s" / "scores.csv")]
    assert (tmp_path / "sr" / "comparison.png").is_file()
    # Done again, what is there already is scored as well.
    before = (tmp_path / "sr" / "scores.csv").read_text()
    (tmp_path / "sr" / "image1_x3.png").unlink()
    assert enlarged(tmp_path, *words) == 0
    assert (tmp_path / "sr" / "scores.csv").read_text() == before
    write_image(tmp_path / "lonely" / "other.png", to_uint8(hr)[0])
    assert enlarged(tmp_path, "input=lr", "output=sr", f"reference={tmp_path / 'lonely'}") == 1
    assert "not scored: lr/image0.png: " in capsys.readouterr().err
    with pytest.raises(UserError, match=r"no image files to enlarge in .* but results"):  # comparison.png is one
        find_jobs(str(tmp_path / "sr"), None, Records())


def test_scores_of_a_few_do_not_replace_those_of_all(images: Path, tmp_path: Path) -> None:
    for path in sorted(images.iterdir())[:3]:
        hr = modcrop(read_file(path).colour[None] / 255, 3)
        write_image(tmp_path / "lr" / path.name, to_uint8(bicubic_down(hr, 3))[0])
    words = ("output=sr", f"reference={images}")
    assert enlarged(tmp_path, "input=lr", *words) == 0
    before = {name: (tmp_path / "sr" / name).read_bytes() for name in ("scores.csv", "scores.json", "comparison.png")}
    with pytest.raises(RunError, match=r"sr: the scores there are of 2 other images as well, and kept"):
        enlarged(tmp_path, "input=lr/image1.png", "output=sr/", f"reference={images}")
    (tmp_path / "lr" / "image2.png").write_bytes(b"broken")
    with pytest.raises(RunError, match="of 1 other images"):
        enlarged(tmp_path, "input=lr", *words)
    assert before == {name: (tmp_path / "sr" / name).read_bytes() for name in before}


def test_weights_that_make_no_image(tmp_path: Path) -> None:
    """NaN would be black in integers; all images would be."""
    small(tmp_path / "in", "a.png", "b.png")
    net = SRCNN()
    torch.nn.init.constant_(net.conv3.bias, float("nan"))
    save_weights(tmp_path / "mine.pth", net, {"scale": 3}, {})
    with pytest.raises(UserError, match=r"mine.pth: its weights are NaN"):
        enlarged(tmp_path, "input=in", "ckpt_path=mine.pth")
    assert not names(tmp_path / "in")


def test_any_size(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """The network as often as needed, then MATLAB's bicubic down; the aspect is kept."""
    image = to_uint8(torch.from_numpy(np.asarray(COLOUR).copy()).permute(2, 0, 1)[None, :, :12, :20] / 255)[0]
    write_image(tmp_path / "a.png", image)
    for word, size in {
        "width=120": (120, 72),
        "height=36": (60, 36),
        "size=50x200": (50, 30),
        "width=10": (10, 6),
    }.items():
        assert enlarged(tmp_path, "input=a.png", word) == 0
        name = f"a_{size[0]}x{size[1]}.png"
        assert f"{name}, {size[0]}x{size[1]}, by compact_x3" in capsys.readouterr().out
        with Image.open(tmp_path / name) as larger:
            assert larger.size == size
    net, _ = load_network(None)
    with torch.no_grad():
        twice = quantize(net(quantize(net(image[None] / 255))))
    expected = to_uint8(bicubic_resize(twice, 72, 120))[0]
    assert (read_image(tmp_path / "a_120x72.png").int() - expected.int()).abs().max() <= 1
    for words in (
        ("scale=2", "width=9"),
        ("size=9",),
        ("size=9x9", "width=9"),
        ("width=big",),
        ("width=9", "reference=."),
    ):
        with pytest.raises(UserError, match="width="):
            enlarged(tmp_path, "input=a.png", *words)
    small(tmp_path / "in", "b.png")
    for size in ("30x30", "40x40", "30x30"):
        enlarged(tmp_path, "input=in", "output=out", f"size={size}")
    assert "0 of 1 images enlarged, 1 there already" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "out").glob("b*")} == {"b_30x30.png", "b_40x40.png"}


def test_a_network_of_the_same_size(tmp_path: Path) -> None:
    """One for restoration is applied once."""
    small(tmp_path, "a.png")
    torch.manual_seed(0)
    net = SRCNN(scale=1)
    save_weights(tmp_path / "mine.pth", net, {"scale": 1}, {})
    enlarged(tmp_path, "input=a.png", "ckpt_path=mine.pth")
    with torch.no_grad():
        expected = to_uint8(net(read_image(tmp_path / "a.png")[None] / 255))[0]
    assert torch.equal(read_image(tmp_path / "a_x1.png"), expected)
    with pytest.raises(UserError, match="by a network that enlarges"):
        enlarged(tmp_path, "input=a.png", "ckpt_path=mine.pth", "width=50")
    with pytest.raises(UserError, match="for input="):
        enlarged(tmp_path, "width=50")


def test_what_cannot_be_written_is_refused_before_it_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("srcnn.inference.folder.enlarge", None)
    with_alpha("RGBA").save(tmp_path / "a.png")
    write_image(tmp_path / "wide.png", torch.zeros(3, 2, 6000, dtype=torch.uint8))
    for words, sentence in {
        ("input=a.png", "output=a.xyz"): r"a.xyz: .xyz is no format",
        ("input=a.png", "output=a.jpg"): r"a.jpg: JPEG cannot hold a RGBA image",
        ("input=wide.png", "output=a.webp"): r"a.webp: WEBP cannot hold",
    }.items():
        with pytest.raises(UserError, match=sentence):
            enlarged(tmp_path, *words)


def test_weights_for_compressed_photographs_are_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "in").mkdir()
    for quality in (30, 80, 95):
        COLOUR.save(tmp_path / "in" / f"{quality}.jpg", quality=quality)
        assert abs(read_file(tmp_path / "in" / f"{quality}.jpg").quality - quality) <= 1
    hint = "JPEG of a quality below 90 (2 of them): these weights sharpen its artefacts, ckpt_path=srcnn_camera_x3 "
    enlarged(tmp_path, "input=in", "output=out")
    assert hint in capsys.readouterr().err
    for words in (["ckpt_path=srcnn_camera_x3"], ["scale=4"]):
        enlarged(tmp_path, "input=in", "output=out", *words)
        assert "quality" not in capsys.readouterr().err


def test_one_file_never_ends_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """A FIFO, names as long as can be or of no UTF-8, a file and a folder that vanish, a TIFF with odd tags."""
    small(tmp_path / "in", "a.png", "b.png", f"{'n' * 251}.png", "gone.png")
    os.mkfifo(tmp_path / "in" / "fifo.png")
    shutil.copy(tmp_path / "in" / "a.png", os.fsencode(tmp_path / "in") + b"/\xff.png")
    COLOUR.save(tmp_path / "in" / "odd.tif", dpi=(300, 300))
    odd = (tmp_path / "in" / "odd.tif").read_bytes().replace(struct.pack("<II", 300, 1), bytes(8))  # 0 / 0 dpi
    (tmp_path / "in" / "odd.tif").write_bytes(odd)
    jobs = find_jobs(str(tmp_path / "in"), str(tmp_path / "out"), Records())
    (tmp_path / "in" / "gone.png").unlink()
    net, _ = load_network(None)
    enlarger = Enlarger(net, "x", Records(), None, False, 10**6)
    assert enlarger.run(jobs).startswith("4 of 7 images enlarged x3, 3 skipped")
    errors = capsys.readouterr().err
    assert "gone.png: no such file" in errors
    assert "fifo.png: not a file" in errors
    assert "n.png: cannot be written (File name too long)" in errors or "File name too long" in errors
    assert {os.fsencode(path.name) for path in (tmp_path / "out").glob("*_x3.*")} == {
        b"a_x3.png", b"b_x3.png", b"\xff_x3.png", b"odd_x3.tif",
    }  # fmt: skip


def test_a_full_disk_stops_a_folder(tmp_path: Path) -> None:
    """Not a sentence for each of its images."""
    small(tmp_path / "in", "a.png", "b.png")
    mount = f"cd {tmp_path}; mount -t tmpfs -o size=8k none out || exit 99"
    script = f"{mount}; exec $0 {ROOT}/predict.py input=in output=out"
    (tmp_path / "out").mkdir()
    done = subprocess.run(["unshare", "-rm", "sh", "-c", script, sys.executable], capture_output=True, text=True)
    if done.returncode in (99, 127) or "unshare" in done.stderr:
        pytest.skip("no file system can be mounted here")
    assert done.returncode == 1
    sentence = r"error: out/[ab]_x3.png: cannot be written \(No space left on device\); make room there, .*\n"
    assert re.fullmatch(sentence, done.stderr)


def test_two_at_once_in_one_folder(tmp_path: Path) -> None:
    small(tmp_path / "in", *(f"{number}.png" for number in range(20)))
    command = [sys.executable, str(ROOT / "predict.py"), "input=in", "output=out"]
    several = [subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in several:
        assert "of 20 images" in process.communicate()[0]
        assert process.returncode == 0
    assert len(names(tmp_path / "out")) == 20
    assert all(Records().know(path) for path in (tmp_path / "out").glob("*_x3.png"))
    jobs = find_jobs(str(tmp_path), None, Records())
    assert len(jobs) == 20  # the results are known as such


def seeds(folder: Path) -> Iterator[Path]:
    """An image file of every kind that is read, small."""
    for name, image, options, *_ in KINDS:
        image.save(folder / name, **options)
        yield folder / name
    for ending in ("jpg", "webp", "tif", "png"):
        with_exif = folder / f"exif.{ending}"
        COLOUR.save(with_exif, exif=EXIF.tobytes(), icc_profile=ICC, dpi=(300, 300))
        yield with_exif
    COLOUR.convert("LAB").save(folder / "lab.tif")
    COLOUR.save(folder / "packed.tif", compression="tiff_lzw")
    COLOUR.save(folder / "jpeg.tif", compression="jpeg")
    yield from (folder / f"{name}.tif" for name in ("lab", "packed", "jpeg"))
    if find_spec("imagecodecs"):
        deep = torch.from_numpy(np.random.default_rng(0).integers(0, 65536, (4, 9, 7), dtype=np.uint16))
        for ending in ("png", "tif"):
            write_image(folder / f"deep.{ending}", ImageFile(deep[:3], deep[3:], metadata={"dpi": (300, 300)}))
            write_image(folder / f"deep_gray.{ending}", ImageFile(deep[:1]))
            yield from (folder / f"deep.{ending}", folder / f"deep_gray.{ending}")


@pytest.mark.filterwarnings("ignore")
def test_mutated_images(tmp_path: Path) -> None:
    """SRCNN_MUTATIONS of them are refused in a sentence, or written as a file that holds what was read."""
    rng, kinds = random.Random(1), [(path.suffix, path.read_bytes()) for path in seeds(tmp_path)]
    refused = 0
    for number in range(MUTATIONS):
        ending, content = kinds[number % len(kinds)]
        path = tmp_path / f"mutated{ending}"
        path.write_bytes(mutate(content, rng))
        begin = time.monotonic()
        try:
            image = read_file(path, max_pixels=10**6)
            written = path.with_name(f"written{image.ending}")
            write_image(written, image)
        except UserError:
            refused += 1
        else:
            back = read_file(written, max_pixels=10**6)
            assert back.planes.shape == image.planes.shape
            assert image.ending.lower() not in (".png", ".bmp", ".tif", ".tiff") or torch.equal(
                back.planes, image.planes
            )
        assert time.monotonic() - begin < 20
    assert MUTATIONS / 10 < refused < MUTATIONS
