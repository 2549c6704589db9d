"""Dead-leaves images: a training set that needs no download.

Opaque shapes whose radii fall as r^-3, each hiding those behind it, have the scale invariance, the edges and the
occlusions of photographs. Lee, Mumford and Huang, "Occlusion Models for Natural Images", IJCV 2001.
"""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter
from torch import Tensor

_OVERSAMPLING = 2
# The axes along which colours of photographs vary (brightness, yellow-blue, red-green), in falling order: Ruderman,
# Cronin and Chiao, "Statistics of cone responses to natural images", JOSA A 1998. The deviations of the two chromatic
# ones are twice a photograph's, as a network that never met strong colours shifts them: 0.17 dB on the photos.
_COLOUR_AXES = np.array([[1, 1, 1], [0.5, 0.5, -1], [1, -1, 0]]) * np.array([[0.22], [0.16], [0.08]])


@dataclass(frozen=True)
class Leaves:
    """A dead-leaves image (see `srcnn.data.sources.Source`); it depends on (seed, number, size) alone."""

    number: int
    size: int
    seed: int

    def read(self) -> tuple[Tensor, None]:
        """[3, size, size], uint8."""
        rng = np.random.default_rng([self.seed, self.number])
        side = self.size * _OVERSAMPLING
        pixels = _render(rng, side, leaves=side**2 // 50, smallest=3.0)[0]
        # In front, fewer and larger leaves; what lies behind is more or less out of focus.
        behind = Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(float(rng.choice([0, 1, 2, 4]))))
        front, covered = _render(rng, side, leaves=max(1, side**2 // 4000), smallest=8.0)
        canvas = Image.composite(Image.fromarray(front), behind, Image.fromarray(covered))
        return torch.from_numpy(np.array(canvas.reduce(_OVERSAMPLING))).permute(2, 0, 1).contiguous(), None

    def identity(self) -> list:
        return ["dead leaves", self.number, self.size, self.seed]


def dead_leaves(count: int, size: int, seed: int) -> list[Tensor]:
    """`count` images [3, size, size], uint8."""
    return [Leaves(number, size, seed).read()[0] for number in range(count)]


def _render(rng: np.random.Generator, side: int, leaves: int, smallest: float) -> tuple[np.ndarray, np.ndarray]:
    """RGB [side, side, 3] and which pixels a leaf covers (255) [side, side], both uint8."""
    largest = side / 3
    radius = (smallest**-2 + rng.random(leaves) * (largest**-2 - smallest**-2)) ** -0.5
    centre = rng.uniform(-0.1, 1.1, (leaves, 2)) * side
    owner = Image.new("I", (side, side), -1)
    draw = ImageDraw.Draw(owner)
    for number, (r, (x, y)) in enumerate(zip(radius, centre, strict=True)):
        corners = int(rng.integers(2, 8))
        if corners < 4:  # a third are discs
            draw.ellipse((x - r, y - r, x + r, y + r), fill=number)
        else:
            angle = np.sort(rng.uniform(0, 2 * np.pi, corners))
            points = np.stack([x + r * np.cos(angle), y + r * np.sin(angle)], 1)
            draw.polygon(points.flatten().tolist(), fill=number)
    leaf = np.array(owner)

    # A leaf has a colour, a shading across it and a share of 1/f texture.
    mean = rng.uniform(0.3, 0.6) + rng.normal(size=3) @ _COLOUR_AXES * 0.5
    colour = mean + rng.normal(size=(leaves, 3)) @ _COLOUR_AXES
    slope = rng.normal(0, 0.5, (leaves, 2)) / radius[:, None]
    roughness = rng.exponential(0.05, leaves)
    y, x = np.mgrid[:side, :side]
    shading = 0.2 * np.tanh(slope[leaf, 0] * (x - centre[leaf, 0]) + slope[leaf, 1] * (y - centre[leaf, 1]))
    value = colour[leaf] + (shading + roughness[leaf] * _texture(rng, side))[..., None]
    return (value.clip(0, 1) * 255).round().astype(np.uint8), np.where(leaf < 0, 0, 255).astype(np.uint8)


def _texture(rng: np.random.Generator, side: int) -> np.ndarray:
    """Noise [side, side] of deviation 1 whose amplitude falls as 1/f."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side))
    frequency[0, 0] = np.inf
    noise = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(side, side))) / frequency, s=(side, side))
    return noise / noise.std()
