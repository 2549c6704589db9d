"""LR images as of a camera. The pattern for a degradation of your own: one file, and a YAML in configs/degradation."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from srcnn.data.degrade import Degradation
from srcnn.errors import UserError, check_range
from srcnn.files import read_image
from srcnn.image import as_float, bicubic_down, symmetric_pad, to_uint8

_CHROMA = ("4:4:4", "4:2:0")  # Pillow's names of JPEG's chroma subsampling: none, and the usual one


@dataclass
class Camera(Degradation):
    """A small photograph from the web: a little blur, bicubic, a little noise, JPEG; the strengths drawn from ranges.

    blur      deviation of a Gaussian, in LR pixels
    noise     deviation of Gaussian noise, in 255ths: one for each image
    quality   of JPEG, 1 to 100; its chroma is subsampled (4:2:0) or not (4:4:4), by chance
    versions  LR images drawn of each training image
    """

    blur: Sequence[float] = (0.0, 0.4)
    noise: Sequence[float] = (0.0, 2.0)
    quality: Sequence[int] = (30, 95)
    versions: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least, most in (("blur", 0, 10), ("noise", 0, 255), ("quality", 1, 100)):
            ends = getattr(self, name)
            if not isinstance(ends, Sequence) or len(ends) != 2:
                raise UserError(f"{name}={ends}: must be a range, as [{least}, {most}]")
            check_range(name, ends[0], least, most)
            check_range(name, ends[1], ends[0], most)
            setattr(self, name, tuple(ends))
        check_range("versions", self.versions, 1)
        check_range("seed", self.seed, 0)

    def __call__(self, hr: Tensor, scale: int, name: str = "", version: int = 0) -> Tensor:
        rng = np.random.default_rng([self.seed, crc32(name.encode("utf-8", "surrogateescape")), version])
        blur, noise = (rng.uniform(ends[0], ends[1]) for ends in (self.blur, self.noise))
        quality, chroma = int(rng.integers(self.quality[0], self.quality[1] + 1)), _CHROMA[rng.integers(2)]
        lr = bicubic_down(_blurred(as_float(hr[None]), blur * scale), scale)[0]
        lr += torch.from_numpy(rng.normal(0, noise / 255, lr.shape)).float()
        pixels, file = to_uint8(lr).permute(1, 2, 0).squeeze(2).numpy(), io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling=chroma)
        return read_image(file)

    def describe(self) -> str:
        name = "camera" if any((*self.blur, *self.noise)) else "JPEG"
        return f"{name} q" + "-".join(map(str, dict.fromkeys(self.quality)))


def _blurred(x: Tensor, deviation: float) -> Tensor:
    """Gaussian blur with mirrored borders. Sums of shifted images: the same bits for any number of threads."""
    radius = int(3 * deviation + 0.5)
    weights = [np.exp(-0.5 * (i / deviation) ** 2) for i in range(-radius, radius + 1)] if radius else [1.0]
    for dim in (-2, -1):
        padded, size = symmetric_pad(x, radius, dim), x.shape[dim]
        x = sum(padded.narrow(dim, i, size) * float(w / sum(weights)) for i, w in enumerate(weights))  # type: ignore
    return x
