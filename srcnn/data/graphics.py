"""What is not a photograph, as a test set that needs no download: text, flat colours, shapes, lines, noise.

A network trained on photographs alone has seen none of it, so that here it shows what it makes of the unknown. Every
image stands for itself, an LR image without ground truth: what can be asked is that its result, shrunk again, gives it
back (see benchmarks/graphics.py), and that no value runs away.
"""

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from srcnn.image import bicubic_down, rgb_to_y, to_uint8

_HEIGHT, _WIDTH = 64, 96
_WORDS = "File Edit View 1,024 px Save as... Quick brown fox (jumps) 37% over @lazy {dog}; OK Cancel Wi-Fi #42".split()
_SATURATED = [(r, g, b) for r in (0, 255) for g in (0, 255) for b in (0, 255)] + [(255, 128, 0), (0, 90, 200)]
_DARK = [(0, 0, 0), (30, 30, 30), (60, 40, 20), (0, 40, 90)]
_LIGHT = [(255, 255, 255), (246, 246, 246), (255, 250, 220), (220, 235, 255)]

Generator = np.random.Generator


def graphic(kind: str, number: int) -> Tensor:
    """One image [3, 64, 96], uint8, of one of `KINDS`; it depends on (kind, number) alone."""
    pixels = KINDS[kind](np.random.default_rng([sorted(KINDS).index(kind), number]), number)
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1).contiguous()


def flat_colours(steps: int = 9) -> Tensor:
    """The colours of a cube of `steps` levels a channel, [steps^3, 3], uint8."""
    levels = torch.linspace(0, 255, steps).round().to(torch.uint8)
    return torch.cartesian_prod(levels, levels, levels)


@torch.no_grad()
def largest_value(net: torch.nn.Module) -> float:
    """How far a network's result leaves [0, 1] on these images: 2 is where a value reaches 2 or -1.

    net   an `srcnn.nets.Network`, on any device; one of one channel is given the luma

    The larger of the highest value and 1 less the lowest; NaN where one is NaN. Some 10 ms for Compact on one core.
    """
    device = next((parameter.device for parameter in net.parameters()), None)
    lr = _few().to(device).float() / 255
    sr = net(rgb_to_y(lr) if net.channels == 1 else lr)
    return torch.stack([sr.amax(), 1 - sr.amin()]).amax().item()


@cache
def _few() -> Tensor:
    """A part of one image of each kind, [kinds, 3, 32, 48]."""
    return torch.stack([graphic(kind, 1)[:, : _HEIGHT // 2, : _WIDTH // 2] for kind in KINDS])


def _choose(rng: Generator, colours: list[tuple[int, int, int]]) -> tuple[int, int, int]:
    return colours[rng.integers(len(colours))]


def _two(rng: Generator) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Two saturated colours, never the same."""
    first, second = rng.choice(len(_SATURATED), 2, replace=False)
    return _SATURATED[first], _SATURATED[second]


def _written(rng: Generator, number: int, ink: tuple, paper: tuple, zoom: int = 1) -> np.ndarray:
    """Lines of words that fill the image, in one of five sizes."""
    size = (9, 11, 13, 17, 24)[number % 5] * zoom
    image = Image.new("RGB", (_WIDTH * zoom, _HEIGHT * zoom), paper)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(size)
    for top in range(2 * zoom, image.height, math.ceil(1.3 * size)):
        draw.text((3 * zoom, top), " ".join(rng.permutation(_WORDS)[:8]), ink, font)
    return np.array(image)


def _text(rng: Generator, number: int) -> np.ndarray:
    return _written(rng, number, _choose(rng, _DARK), _choose(rng, _LIGHT))


def _dark_text(rng: Generator, number: int) -> np.ndarray:
    return _written(rng, number, _choose(rng, _LIGHT), _choose(rng, _DARK))


def _coloured_text(rng: Generator, number: int) -> np.ndarray:
    return _written(rng, number, *_two(rng))


def _shrunk_text(rng: Generator, number: int) -> np.ndarray:
    colours = [_choose(rng, _DARK), _choose(rng, _LIGHT)]
    large = _written(rng, number, *(colours if number % 2 else colours[::-1]), zoom=4)
    return to_uint8(bicubic_down(torch.from_numpy(large).permute(2, 0, 1)[None] / 255, 4))[0].permute(1, 2, 0).numpy()


def _shapes(rng: Generator, number: int) -> np.ndarray:
    """Discs and polygons, or a logo; every other one with smooth edges."""
    zoom = 1 + 3 * (number % 2)
    paper, ink = _two(rng)
    image = Image.new("RGB", (_WIDTH * zoom, _HEIGHT * zoom), paper if number % 3 else (255, 255, 255))
    draw = ImageDraw.Draw(image)
    if number % 3 == 0:
        centre, unit = (image.width / 2, image.height / 2), image.height / 2
        draw.circle(centre, 0.9 * unit, ink)
        draw.circle(centre, 0.7 * unit, _choose(rng, _SATURATED))
        draw.regular_polygon((*centre, 0.6 * unit), 3 + number % 4, 20, _choose(rng, _SATURATED))
        draw.text(centre, "SR", "white", ImageFont.load_default(0.5 * unit), anchor="mm")
    else:
        for shape in range(12):
            x, y, radius = rng.random(3) * (image.width, image.height, image.height / 3) + (0, 0, 3 * zoom)
            colour, turn = _choose(rng, _SATURATED), int(rng.integers(360))
            if shape % 2:
                draw.circle((x, y), radius, colour)
            else:
                draw.regular_polygon((x, y, radius), 3 + shape // 4, turn, colour)
    return np.array(image.reduce(zoom))


def _lines(rng: Generator, number: int) -> np.ndarray:
    """One pixel wide: rows, columns, a grid, a fan, a checkerboard; the even ones black on white."""
    y, x = np.mgrid[:_HEIGHT, :_WIDTH]
    step = (2, 3, 5, 8)[number % 4]
    image = Image.new("L", (_WIDTH, _HEIGHT))
    for end in range(0, 2 * _WIDTH, 2 * step + 4):
        ImageDraw.Draw(image).line((0, 0, end, _HEIGHT), 255)
    drawn = [y % step == 0, x % step == 0, (y % step == 0) | (x % step == 0), np.array(image) > 0, (x + y) % 2 == 0]
    paper, ink = _two(rng) if number % 2 else ((255, 255, 255), (0, 0, 0))
    return np.where(drawn[number % 5][..., None], ink, paper).astype(np.uint8)


def _gradients(rng: Generator, number: int) -> np.ndarray:
    """From one colour to another, along a line or from a centre."""
    y, x = np.mgrid[:_HEIGHT, :_WIDTH]
    a, b = rng.random(2)
    along = np.hypot(x - a * _WIDTH, y - b * _HEIGHT) if number % 2 else a * x + b * y
    first, last = np.array(_two(rng))
    return (first + (last - first) * (along / along.max())[..., None]).round().astype(np.uint8)


def _bits(rng: Generator, number: int) -> np.ndarray:
    return (255 * rng.integers(2, size=(_HEIGHT, _WIDTH, 1), dtype=np.uint8)).repeat(3, axis=2)


def _noise(rng: Generator, number: int) -> np.ndarray:
    """Uniform over all levels, or Gaussian about gray."""
    shape = (_HEIGHT, _WIDTH, 3)
    if number % 2:
        return rng.normal(128, 10 * (1 + number), shape).clip(0, 255).astype(np.uint8)
    return rng.integers(256, size=shape, dtype=np.uint8)


KINDS: dict[str, Callable[[Generator, int], np.ndarray]] = {
    "text": _text,
    "dark text": _dark_text,
    "coloured text": _coloured_text,
    "shrunk text": _shrunk_text,
    "shapes": _shapes,
    "lines": _lines,
    "gradients": _gradients,
    "bits": _bits,
    "noise": _noise,
}
