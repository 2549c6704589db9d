"""The way in from Python, and what importing it costs."""

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from conftest import ROOT

import srcnn
from srcnn.data.leaves import dead_leaves
from srcnn.errors import UserError
from srcnn.inference.image_file import ImageFile, from_pillow, read_file, to_pillow, write_image
from srcnn.inference.tiles import enlarge, for_inference

COLOURS = dead_leaves(1, 36, seed=3)[0][:, :24]


def test_the_four_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the README, in any folder; what comes out is what predict.py writes."""
    monkeypatch.chdir(tmp_path)
    write_image("photo.png", COLOURS)
    net = srcnn.load("srcnn_x3")
    expected = enlarge(for_inference(net), read_file("photo.png")).planes
    for image in (PIL.Image.open("photo.png"), "photo.png", Path("photo.png")):
        larger = srcnn.enlarge(net, image)
        assert larger.size == (108, 72)
        assert np.array_equal(np.asarray(larger), expected.permute(1, 2, 0))
    with torch.no_grad():
        sr = net(COLOURS[None] / 255)
    assert (expected - sr[0].clamp(0, 1) * 255).abs().max() < 0.51
    assert not net.training
    with pytest.raises(UserError, match=r"absent.png: no such file"):
        srcnn.enlarge(net, "absent.png")


def test_16_bits_are_not_taken_for_8(tmp_path: Path) -> None:
    pytest.importorskip("imagecodecs")
    for mode in ("L", "RGB"):
        deep = torch.from_numpy(np.random.default_rng(0).integers(0, 65536, (len(mode), 9, 7), dtype=np.uint16))
        write_image(tmp_path / f"{mode}.png", ImageFile(deep, mode))
    assert srcnn.enlarge(srcnn.load(), tmp_path / "L.png").mode == "I;16"
    with pytest.raises(UserError, match=r"RGB.png: Pillow has 16 bits for gray only"):
        srcnn.enlarge(srcnn.load(), tmp_path / "RGB.png")


def test_load(tmp_path: Path) -> None:
    assert [srcnn.load(f"srcnn_x{scale}").scale for scale in (2, 3, 4)] == [2, 3, 4]
    assert srcnn.load(None, scale=2).scale == 2
    torch.save(srcnn.load("srcnn_x2").state_dict(), tmp_path / "bare.pth")
    assert srcnn.load(str(tmp_path / "bare.pth"), scale=2).scale == 2
    before = torch.random.get_rng_state()
    srcnn.load()
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_pillow_images(mode: str) -> None:
    net, image = srcnn.load(), to_pillow(COLOURS)
    if mode == "I;16":
        image = PIL.Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    else:
        image = image.convert(mode)
    exif, profile = PIL.Image.Exif(), bytearray(128)
    exif[0x0112], exif[0x010F] = 6, "a camera"  # turned by a quarter; its maker
    colours = {"1": "L", "P": "RGB", "I;16": "L"}.get(mode, mode.removesuffix("A"))
    profile[16:20] = {"L": b"GRAY", "RGB": b"RGB ", "CMYK": b"CMYK"}[colours]
    image.info |= {"icc_profile": bytes(profile), "dpi": (300, 300), "exif": exif.tobytes()}
    image.getexif().load(exif.tobytes())
    larger = srcnn.enlarge(net, image)
    assert larger.mode == {"1": "L", "P": "RGB"}.get(mode, mode)
    assert (larger.info["icc_profile"], larger.info["dpi"]) == (profile, (300, 300))
    assert larger.size == (72, 108)
    assert larger.getexif().get(0x0112, 1) == 1 and larger.getexif()[0x010F] == "a camera"
    assert np.array_equal(np.asarray(larger), np.asarray(to_pillow(enlarge(for_inference(net), from_pillow(image)))))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.dtype(">u2"), np.float32, np.float64, np.float16])
@pytest.mark.parametrize("shape", [(24, 36), (24, 36, 1), (24, 36, 2), (24, 36, 3), (24, 36, 4)])
def test_arrays(shape: tuple[int, ...], dtype: type) -> None:
    """Of the same kind; and the same image in whatever type."""
    net = srcnn.load("srcnn_x3")  # Compact makes more of the last bits of noise
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    most = np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1
    larger = srcnn.enlarge(net, (image / 255 * most).astype(dtype))
    assert (larger.shape, larger.dtype) == ((72, 108, *shape[2:]), np.dtype(dtype).newbyteorder("="))
    expected = srcnn.enlarge(net, image).astype(float)
    has_alpha = len(shape) == 3 and shape[2] in (2, 4)
    tolerance = 1.6 if dtype == np.float16 or has_alpha else 0.51  # below what is transparent colours are rounded twice
    shown = expected[..., -1:] > 0 if has_alpha else True
    assert (np.abs(larger.astype(float) / most * 255 - expected) * shown).max() < tolerance


def test_an_array_that_is_read_only() -> None:
    with warnings.catch_warnings(action="error"):
        assert srcnn.enlarge(srcnn.load(), np.asarray(to_pillow(COLOURS))).shape == (72, 108, 3)


def test_tensors() -> None:
    net = srcnn.load()
    batch = torch.rand(2, 3, 20, 30)
    with torch.no_grad():
        expected = net(batch).clamp(0, 1)
    torch.testing.assert_close(srcnn.enlarge(net, batch), expected, atol=2e-6, rtol=0)
    torch.testing.assert_close(srcnn.enlarge(net, batch[0]), expected[0], atol=1e-6, rtol=0)
    larger = srcnn.enlarge(net, (batch * 255).byte())
    larger += 1  # an ordinary tensor, not one of inference mode
    assert (larger.dtype, larger.shape) == (torch.uint8, (2, 3, 60, 90))
    assert larger.is_contiguous()


@pytest.mark.parametrize("image", [torch.rand(3, 3), torch.rand(5, 9, 9), torch.zeros(3, 9, 9, dtype=torch.int64)])
def test_what_is_not_an_image(image: torch.Tensor) -> None:
    with pytest.raises(UserError, match="an image of"):
        srcnn.enlarge(srcnn.load(), image)
    with pytest.raises(UserError, match="an image of"):
        srcnn.enlarge(srcnn.load(), image.permute(*range(1, image.ndim), 0).numpy().astype(np.int64)[None])


# What each command does without, as it takes longer to import than the command takes.
HEAVY = ("lightning", "hydra", "scipy", "torchmetrics", "torch._dynamo", "matplotlib", "tensorboard", "rich")


@pytest.mark.parametrize(
    "code",
    [
        "import srcnn; srcnn.enlarge(srcnn.load(), __import__('numpy').zeros((9, 9)))",
        "import predict; from srcnn.launch import CONFIGS, settings\n"
        "predict.predict(settings(CONFIGS / 'predict.yaml', ['x.png']))",
    ],
)
def test_imports(code: str, tmp_path: Path) -> None:
    write_image(tmp_path / "x.png", COLOURS)
    light = ("torch", "numpy", "PIL") if "predict" not in code else ()
    check = f"import sys; sys.argv = ['x', 'srcnn_x3']; sys.path.insert(0, {str(ROOT)!r}); import srcnn\n"
    check += f"assert not any(name in sys.modules for name in {light}), 'import srcnn'\n"
    check += f"{code}\nfound = [name for name in {HEAVY} if name in sys.modules]\nassert not found, found"
    subprocess.run([sys.executable, "-c", check], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
