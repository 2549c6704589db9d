"""Where images come from: an image file, a file each for HR and LR, or a smaller copy of another image."""

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from srcnn.data.degrade import Degradation
from srcnn.errors import UserError
from srcnn.files import list_images, read_image
from srcnn.image import as_float, bicubic_resize, modcrop, to_uint8


class Source(Protocol):
    """An image that can be read again and again."""

    def read(self) -> tuple[Tensor, Tensor | None]:
        """HR and, where the image brings one, its LR image: [C, H, W], uint8, C being 1 (gray) or 3."""

    def identity(self) -> list:
        """What changes when the image does: strings and numbers."""


@dataclass(frozen=True)
class ImagePath:
    """An image file, and perhaps the file with its LR image."""

    path: Path
    lr: Path | None = None

    def read(self) -> tuple[Tensor, Tensor | None]:
        return read_image(self.path), read_image(self.lr) if self.lr else None

    def identity(self) -> list:
        files = [path.resolve() for path in (self.path, self.lr) if path]
        return [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]

    def __str__(self) -> str:
        return f"{self.path} and {self.lr}" if self.lr else str(self.path)


@dataclass(frozen=True)
class Rescaled:
    """A smaller copy of an image without an LR image, by bicubic, to train on as well."""

    source: Source
    factor: float

    def read(self) -> tuple[Tensor, None]:
        hr, _ = self.source.read()
        height, width = (max(1, round(side * self.factor)) for side in hr.shape[1:])
        return to_uint8(bicubic_resize(as_float(hr[None]), height, width))[0], None

    def identity(self) -> list:
        return [*self.source.identity(), self.factor]


def read_versions(
    name: str, source: Source, scale: int, degradation: Degradation, count: int
) -> tuple[Tensor, list[Tensor]]:
    """HR, uint8, and the image's own LR or else `count` versions by the degradation (none if smaller than the scale).

    HR is cropped bottom and right, to a multiple of the scale or to its LR's size times the scale; a gray image beside
    its RGB one becomes RGB. UserError if they don't fit.
    """
    hr, lr = source.read()
    if lr is None:
        hr = modcrop(hr, scale)
        versions = [degradation(hr, scale, name, version) for version in range(count if hr.numel() else 0)]
        for made in versions:
            expected = (len(hr), hr.shape[1] // scale, hr.shape[2] // scale)
            assert made.shape == expected, f"{type(degradation).__name__} made {tuple(made.shape)}, not {expected}"
        return hr, versions
    height, width = (scale * side for side in lr.shape[1:])
    if not (0 <= hr.shape[1] - height < scale and 0 <= hr.shape[2] - width < scale):
        sizes = [f"{image.shape[2]}x{image.shape[1]}" for image in (hr, lr)]
        raise UserError(f"{source}: HR of {sizes[0]} is not {scale} times LR of {sizes[1]} pixels")
    channels = max(len(hr), len(lr))
    return hr[:, :height, :width].expand(channels, -1, -1), [lr.expand(channels, -1, -1)]


def match(hr_folder: str, lr_folder: str, scale: int) -> Mapping[str, Source]:
    """The images of two folders by name without the ending; LR may add the scale: a_x3.png or ax3.png to a.png.

    UserError names an image without a partner, and two of one name.
    """
    hr, lr = _by_stem(Path(hr_folder)), _by_stem(Path(lr_folder))
    pairs = {}
    for stem, path in hr.items():
        partner = next((name for name in (stem, f"{stem}x{scale}", f"{stem}_x{scale}") if name in lr), None)
        if partner is None:
            raise UserError(f"{path} has no LR image of that name in {lr_folder}")
        pairs[stem] = ImagePath(path, lr.pop(partner))
    for path in lr.values():
        raise UserError(f"{path} has no HR image of that name in {hr_folder}")
    return pairs


def _by_stem(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    found: dict[str, Path] = {}
    for path in list_images(folder):
        stem = unicodedata.normalize("NFC", path.stem)  # é in one character or two, as file systems have it
        if other := found.get(stem):
            raise UserError(f"{other} and {path.name} have one name: pairs are matched by name without the ending")
        found[stem] = path
    if not found:
        raise UserError(f"no image files in {folder}")
    return found
