"""The page of a network: in a browser it enlarges an image as srcnn.enlarge does, and a user can use it."""

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
import torch.nn.functional as F
from conftest import open_page
from torch import Tensor, nn

import srcnn
from srcnn.data.leaves import dead_leaves
from srcnn.errors import UserError
from srcnn.export import export
from srcnn.inference.image_file import to_pillow
from srcnn.launch import CONFIGS, settings
from srcnn.nets import EDSR, ESPCN, FSRCNN, SRCNN, VDSR, Compact, Network
from srcnn.web.page import write

# Narrow and shallow, for seconds instead of minutes; each kind of operation in the zoo is there once.
NETS = {
    "srcnn": lambda: SRCNN(scale=3, init="identity"),
    "srcnn-residual-y": lambda: SRCNN(2, 1, kernels=(9, 3, 5), widths=(16, 8), residual=True, init="identity"),
    "espcn": lambda: ESPCN(scale=4, widths=(16, 8)),
    "espcn-y": lambda: ESPCN(3, 1, widths=(16, 8), padding_mode="reflect"),
    "fsrcnn": lambda: FSRCNN(scale=2, width=16, shrunk=8, depth=1),
    "fsrcnn-y": lambda: FSRCNN(3, 1, width=16, shrunk=8, depth=1, slope=0.1),
    "vdsr-y": lambda: VDSR(2, 1, width=8, depth=4),
    "compact": lambda: Compact(scale=2, width=12, depth=2, slope=0.2),
    "compact-bicubic-y": lambda: Compact(3, 1, depth=2, skip="bicubic"),
    "edsr": lambda: EDSR(scale=4, width=8, depth=2, residual_scale=0.1),
}
FACTS = {"network": "a network"}


def disturbed(net: Network) -> Network:
    """With random weights, but still an image as its result: clipped to black and white, no fault would show."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
        if isinstance(net, ESPCN):
            net.conv3.bias += 0.5
    return net.eval()


def image_file(path: Path, width: int, height: int, mode: str = "RGB", **options: Any) -> Path:
    to_pillow(dead_leaves(1, max(width, height, 64), seed=5)[0][:, :height, :width]).convert(mode).save(path, **options)
    return path


def enlarged(page: Any, path: Path) -> PIL.Image.Image:
    """The PNG that a user saves."""
    assert wait(page, path).startswith("Done"), page.inner_text("#status")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as PNG").click()
    assert download.value.suggested_filename.startswith(f"{path.stem}_x")
    return PIL.Image.open(download.value.path())


def wait(page: Any, *paths: Path) -> str:
    """What the page says when it has done these files."""
    page.set_input_files("#file", paths)
    page.wait_for_function("() => !/^$|…|Enlarging/.test(document.getElementById('status').textContent)")
    return page.inner_text("#status")


def difference(one: PIL.Image.Image, other: PIL.Image.Image) -> int:
    """The largest, in levels, of colours that are wholly transparent too."""
    a, b = (np.asarray(image.convert("RGBA")).astype(int) for image in (one, other))
    return int(np.abs(a - b).max())


def engine(browser: Any, path: Path, name: str) -> tuple[Any, list[str]]:
    page, faults = open_page(browser, path, at="#plain" if name == "plain" else "")
    if name == "WebGPU" and not page.evaluate("navigator.gpu?.requestAdapter().then(Boolean)"):
        pytest.skip("this Chromium has no WebGPU, not even in software")
    page.set_default_timeout(120_000)
    return page, faults


@pytest.mark.parametrize("name", ["plain", "WebGPU"])
@pytest.mark.parametrize("net_name", NETS)
def test_every_network_as_in_torch(net_name: str, name: str, browser: Any, tmp_path: Path) -> None:
    """In several tiles, and borders everywhere."""
    net = disturbed(NETS[net_name]())
    write(net, tmp_path / "net.html", FACTS)
    page, faults = engine(browser, tmp_path / "net.html", name)
    source = image_file(tmp_path / "image.png", *((100, 13) if name == "plain" else (40, 31)))
    expected = srcnn.enlarge(net, PIL.Image.open(source))
    assert np.std(np.asarray(expected)) > 10
    assert difference(enlarged(page, source), expected) <= 1
    assert ("by WebGPU" in page.inner_text("#status")) == (name == "WebGPU")
    assert not faults
    page.context.close()


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of compact_x3, by the command."""
    path = tmp_path_factory.mktemp("page") / "compact.html"
    export(settings(CONFIGS / "export.yaml", ["ckpt_path=compact_x3", "format=html", f"output={path}"]))
    return path


@pytest.mark.parametrize("name", ["plain", "WebGPU"])
def test_every_kind_of_image(name: str, browser: Any, shipped: Path, tmp_path: Path) -> None:
    """Gray, transparent, a palette, turned by EXIF; of one pixel, and of more than one tile of any engine."""
    page, faults = engine(browser, shipped, name)
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    sources = [
        image_file(tmp_path / "gray.png", 40, 30, "L"),
        image_file(tmp_path / "turned.jpg", 40, 30, exif=exif, quality=90),
        image_file(tmp_path / "palette.gif", 30, 20, "P"),
        image_file(tmp_path / "pixel.png", 1, 1),
        image_file(tmp_path / "wide.png", 530, 5),
        image_file(tmp_path / "tall.webp", 5, 110, lossless=True),
    ]
    image = PIL.Image.open(image_file(tmp_path / "clear.png", 48, 40, "RGBA"))
    image.putalpha(PIL.Image.fromarray((np.hypot(*np.mgrid[-20:20, -24:24]) * -16 + 330).clip(0, 255).astype("uint8")))
    image.save(tmp_path / "clear.png")
    net = srcnn.load("compact_x3")
    for source in [*sources, tmp_path / "clear.png"]:
        most = 2 if source.stem == "clear" else 1  # where colours spread, a half may round up or down
        assert difference(enlarged(page, source), srcnn.enlarge(net, PIL.Image.open(source))) <= most, source.name
    assert not faults
    page.context.close()


@pytest.mark.parametrize("width", [360, 1280])
def test_using_it(width: int, browser: Any, shipped: Path, tmp_path: Path) -> None:
    """By keys alone, on a phone's width too; a file that is not an image; the next image takes the place of one."""
    page, faults = open_page(browser, shipped, width, at="#plain")
    page.set_default_timeout(120_000)
    asked = "event.preventDefault(); document.title = 'asked for a file'"
    page.evaluate(f"() => {{ find('file').onclick = (event) => {{ {asked} }} }}")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.title() == "asked for a file"
    for event in ("DragEvent('drop', { dataTransfer: data })", "ClipboardEvent('paste', { clipboardData: data })"):
        name = f"{event.split('Event')[0]}.txt"
        file = f"const data = new DataTransfer(); data.items.add(new File(['text'], '{name}'))"
        page.evaluate(f"() => {{ {file}; dispatchEvent(new {event}) }}")
        page.get_by_text(f"{name} is not an image that this browser can read.").wait_for()
    for name, size in {"tall.png": (30, 200), "wide.png": (300, 20)}.items():
        enlarged(page, image_file(tmp_path / name, *size))
        assert page.locator(".card").count() == 1 and page.locator("h3").inner_text() == name
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.set_input_files("#file", image_file(tmp_path / "first.png", 200, 200))  # and is not waited for
    source = image_file(tmp_path / "second.png", 30, 20)
    assert difference(enlarged(page, source), srcnn.enlarge(srcnn.load("compact_x3"), PIL.Image.open(source))) <= 1
    cut = page.locator(".cut")
    cut.focus()
    page.keyboard.press("Shift+ArrowLeft")
    assert float(cut.input_value()) == 40
    before = page.locator("output").inner_text()
    page.keyboard.press("+")
    assert page.locator("output").inner_text() != before
    page.keyboard.press("g")  # of the report alone
    names = [page.evaluate("document.activeElement.textContent") for _ in range(5) if not page.keyboard.press("Tab")]
    assert names[:4] == ["−", "+", "Whole", "Save as PNG"]
    assert not faults
    page.context.close()


def test_several_photographs(browser: Any, shipped: Path, tmp_path: Path) -> None:
    """One after the other, past a file that is not an image; saved by one click."""
    page, faults = open_page(browser, shipped, at="#plain")
    sources = [image_file(tmp_path / f"{size}.png", size, 20) for size in (20, 30)]
    (tmp_path / "note.txt").write_text("text")
    sentence = wait(page, sources[0], tmp_path / "note.txt", sources[1])
    assert sentence == "Done: 2 photographs. note.txt is not an image that this browser can read."
    assert page.locator("h3").all_inner_texts() == ["20.png", "30.png"]
    page.keyboard.press("n")
    assert page.locator(".card.current h3").inner_text() == "30.png"
    saved: list[Any] = []
    page.on("download", lambda download: saved.append(download))
    page.get_by_role("button", name="Save all").click()
    while len(saved) < 2:
        page.wait_for_timeout(50)
    for source, download in zip(sources, saved, strict=True):
        expected = srcnn.enlarge(srcnn.load("compact_x3"), PIL.Image.open(source))
        assert difference(PIL.Image.open(download.path()), expected) <= 1
    assert wait(page, sources[0]).startswith("Done in plain") and page.locator(".card").count() == 1
    assert not page.get_by_role("button", name="Save all").is_visible()
    assert not faults
    page.context.close()


class Forked(Network):
    """A user's network, with operations that the zoo does not have, or not in this way."""

    body_scale = 2
    receptive_radius = 3

    def __init__(self) -> None:
        super().__init__(2)
        self.wide = nn.Conv2d(3, 6, 3, padding="same", dilation=2, bias=False)
        self.each = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1, groups=3), nn.LeakyReLU(0.2, inplace=True))
        self.up = nn.ConvTranspose2d(6, 3, 4, stride=2, padding=1)

    def body(self, x: Tensor) -> Tensor:
        y = self.each((self.wide(2 * x - 1) / 2).sigmoid())
        y = y.clamp(0.1, 0.8).clamp(max=0.7)
        y += 1 + -y * torch.tensor([1.0, 2, 3, 4, 5, 6]).view(1, 6, 1, 1)
        return self.up(self.last(y))

    @staticmethod
    def last(y: Tensor) -> Tensor:
        return y


def test_a_users_network(tmp_path: Path) -> None:
    net, lr = Forked().eval(), torch.rand(1, 3, 11, 14)
    with torch.no_grad():
        torch.testing.assert_close(write(net, tmp_path / "net.html", FACTS)(lr), net(lr), atol=1e-5, rtol=0)
    refused = {
        "silu": F.silu,
        "cat": lambda y: torch.cat([y, y], 1)[:, ::2],
        "product of two of its values": lambda y: y * y,
        "sum or product with more than one number a channel": lambda y: y * torch.rand(y.shape),
        "clamp between tensors": lambda y: y.clamp(torch.zeros(6, 1, 1)),
        "div with these arguments": lambda y: y / y,
        "conv2d with stride=2": lambda y: F.conv2d(y, torch.rand(6, 6, 2, 2), stride=2),
        "pad with mode=circular": lambda y: F.pad(y, (1, 1, 1, 1), "circular"),
    }
    for what, function in refused.items():
        net.last = function
        with pytest.raises(UserError, match=f"format=html: the page has no {what}.*; it has conv2d, "):
            write(net, tmp_path / "other.html", FACTS)
    assert not (tmp_path / "other.html").exists()
