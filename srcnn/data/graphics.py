"""What is not a photograph, as a test set that needs no download: text, flat colours, shapes, lines, noise.

A network trained on photographs has seen none of it, and may make anything of it. Each image stands as an LR image, so
there is no ground truth: what can be asked of a result is that, shrunk again, it gives the image back (see
benchmarks/graphics.py), and that no value runs away.
"""

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from srcnn.image import bicubic_down, rgb_to_y, to_uint8

_HEIGHT, _WIDTH = 64, 96
_WORDS = "File Edit View 1,024 px Save as... Quick brown fox (jumps) 37% over @lazy {dog}; OK Cancel Wi-Fi #42"
_DARK = [(0, 0, 0), (30, 30, 30), (60, 40, 20), (0, 40, 90)]
_LIGHT = [(255, 255, 255), (246, 246, 246), (255, 250, 220), (220, 235, 255)]
_VIVID = [(r, g, b) for r in (0, 255) for g in (0, 255) for b in (0, 255)] + [(255, 128, 0), (0, 90, 200)]

Rng = np.random.Generator
Colour = tuple[int, int, int]


def graphic(kind: str, number: int) -> Tensor:
    """One image [3, 64, 96], uint8, of one of `KINDS`; it depends on (kind, number) alone."""
    pixels = KINDS[kind](np.random.default_rng([list(KINDS).index(kind), number]), number)
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def flat_colours(steps: int = 9) -> Tensor:
    """The colours of a cube of `steps` levels a channel: [steps^3, 3], uint8."""
    levels = torch.linspace(0, 255, steps).round().to(torch.uint8)
    return torch.cartesian_prod(levels, levels, levels)


@torch.no_grad()
def largest_value(net: nn.Module) -> float:
    """How far an `srcnn.nets.Network`'s result leaves [0, 1] on a few of these: 2 where its values reach 2, or -1.

    The highest value or 1 less the lowest, whichever is more; NaN where one is NaN. Sound networks stay below 3, which
    they come near on random bits, bicubic at 1.2; one that runs away passes any bound. Compact: some 15 ms on one core.
    """
    lr = _few().float() / 255
    lr = lr.to(next(net.parameters(), lr))  # its device and type
    sr = net(rgb_to_y(lr) if net.channels == 1 else lr)
    return torch.maximum(sr.amax(), 1 - sr.amin()).item()


@cache
def _few() -> Tensor:
    """The upper left quarter of an image of each kind: [kinds, 3, 32, 48]."""
    return torch.stack([graphic(kind, 1)[:, : _HEIGHT // 2, : _WIDTH // 2] for kind in KINDS])


def _pick(rng: Rng, colours: list[Colour], but: Colour | None = None) -> Colour:
    return [colour for colour in colours if colour != but][rng.integers(len(colours) - (but in colours))]


def _text(rng: Rng, number: int, inks: list[Colour], papers: list[Colour], zoom: int = 1) -> np.ndarray:
    """Lines of words that fill the image, in one of five sizes."""
    ink = _pick(rng, inks)
    image = Image.new("RGB", (_WIDTH * zoom, _HEIGHT * zoom), _pick(rng, papers, but=ink))
    size = (9, 11, 13, 17, 24)[number % 5] * zoom
    for top in range(2 * zoom, image.height, math.ceil(1.3 * size)):
        words = " ".join(rng.permutation(_WORDS.split())[:8])
        ImageDraw.Draw(image).text((3 * zoom, top), words, ink, ImageFont.load_default(size))
    return np.array(image)


def _shrunk_text(rng: Rng, number: int) -> np.ndarray:
    large = _text(rng, number, *((_DARK, _LIGHT) if number % 2 else (_LIGHT, _DARK)), zoom=4)
    return to_uint8(bicubic_down(torch.from_numpy(large).permute(2, 0, 1)[None] / 255, 4))[0].permute(1, 2, 0).numpy()


def _shapes(rng: Rng, number: int) -> np.ndarray:
    """Discs and polygons, in every third image a logo; every second one with smooth edges."""
    zoom = 1 + 3 * (number % 2)
    logo, width, height = number % 3 == 0, _WIDTH * zoom, _HEIGHT * zoom
    image = Image.new("RGB", (width, height), "white" if logo else _pick(rng, _VIVID))
    draw = ImageDraw.Draw(image)
    for shape in range(3 if logo else 12):
        x, y, radius = rng.random(3) * (width, height, height / 3) + (0, 0, 3 * zoom)
        if logo:
            x, y, radius = width / 2, height / 2, height * (0.45 - 0.1 * shape)
        colour, turn = _pick(rng, _VIVID), int(rng.integers(360))
        if shape % 2 or shape == 0:
            draw.circle((x, y), radius, colour)
        else:
            draw.regular_polygon((x, y, radius), 3 + shape // 4, turn, colour)
    if logo:
        draw.text((width / 2, height / 2), "SR", "white", ImageFont.load_default(16 * zoom), anchor="mm")
    return np.array(image.reduce(zoom))


def _lines(rng: Rng, number: int) -> np.ndarray:
    """One pixel wide: rows, columns, a grid, a fan, a checkerboard; every second image black on white."""
    y, x = np.mgrid[:_HEIGHT, :_WIDTH]
    step = (2, 3, 5, 8)[number % 4]
    fan = Image.new("L", (_WIDTH, _HEIGHT))
    for end in range(0, 2 * _WIDTH, 2 * step + 4):
        ImageDraw.Draw(fan).line((0, 0, end, _HEIGHT), 255)
    rows, columns = y % step == 0, x % step == 0
    drawn = [rows, columns, rows | columns, np.array(fan) > 0, (x + y) % 2 == 0][number % 5]
    paper = _pick(rng, _VIVID) if number % 2 else (255, 255, 255)
    ink = _pick(rng, _VIVID, but=paper) if number % 2 else (0, 0, 0)
    return np.where(drawn[..., None], ink, paper).astype(np.uint8)


def _gradients(rng: Rng, number: int) -> np.ndarray:
    """From one colour to another, along a line or from a centre."""
    y, x = np.mgrid[:_HEIGHT, :_WIDTH]
    a, b = rng.random(2)
    along = np.hypot(x - a * _WIDTH, y - b * _HEIGHT) if number % 2 else a * x + b * y
    first = _pick(rng, _VIVID)
    change = np.subtract(_pick(rng, _VIVID, but=first), first)
    return (first + change * (along / along.max())[..., None]).round().astype(np.uint8)


def _noise(rng: Rng, number: int) -> np.ndarray:
    """Uniform over all levels, or Gaussian about gray."""
    shape = (_HEIGHT, _WIDTH, 3)
    values = rng.normal(128, 10 * (1 + number), shape) if number % 2 else rng.uniform(0, 256, shape)
    return values.clip(0, 255).astype(np.uint8)


KINDS: dict[str, Callable[[Rng, int], np.ndarray]] = {
    "text": lambda rng, number: _text(rng, number, _DARK, _LIGHT),
    "dark text": lambda rng, number: _text(rng, number, _LIGHT, _DARK),
    "vivid text": lambda rng, number: _text(rng, number, _VIVID, _VIVID),
    "shrunk text": _shrunk_text,
    "shapes": _shapes,
    "lines": _lines,
    "gradients": _gradients,
    "bits": lambda rng, number: 255 * rng.integers(2, size=(_HEIGHT, _WIDTH, 1), dtype=np.uint8).repeat(3, axis=2),
    "noise": _noise,
}
