"""Where the pixels of an image come from: an image file, or two of them, HR and LR."""

import os
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from srcnn.data.degrade import Degradation
from srcnn.errors import UserError
from srcnn.files import list_images, read_image
from srcnn.image import as_float, bicubic_resize, modcrop, to_uint8


class Source(Protocol):
    """An image that can be read again and again; it is sent to other processes."""

    def read(self) -> Tensor:
        """HR [C, H, W], uint8, C being 1 (gray) or 3."""

    def read_lr(self) -> Tensor | None:
        """Its own LR image, if it has one."""

    def identity(self) -> list:
        """What changes when the image does: strings and numbers."""


@dataclass(frozen=True)
class ImagePath:
    """An image file, and perhaps the file with its LR image."""

    path: Path
    lr: Path | None = None

    def read(self) -> Tensor:
        return read_image(self.path)

    def read_lr(self) -> Tensor | None:
        return read_image(self.lr) if self.lr else None

    def identity(self) -> list:
        return [(str(file.resolve()), os.stat(file).st_size, os.stat(file).st_mtime_ns) for file in self._files]

    def __str__(self) -> str:
        return " and ".join(map(str, self._files))

    @property
    def _files(self) -> list[Path]:
        return [self.path, self.lr] if self.lr else [self.path]


@dataclass(frozen=True)
class Rescaled:
    """A smaller copy of an image, by bicubic, to train on as well."""

    source: Source
    factor: float

    def read(self) -> Tensor:
        hr = self.source.read()
        height, width = (max(1, round(side * self.factor)) for side in hr.shape[1:])
        return to_uint8(bicubic_resize(as_float(hr[None]), height, width))[0]

    def read_lr(self) -> Tensor | None:
        if self.source.read_lr() is not None:
            raise UserError(f"data.rescale: a copy of {self.source} would need its own LR image; leave it out")
        return None

    def identity(self) -> list:
        return [*self.source.identity(), self.factor]


def read_pair(source: Source, scale: int, degradation: Degradation) -> tuple[Tensor, Tensor | None]:
    """HR and the image's own LR, if it has one; UserError if they don't fit.

    HR is cropped bottom and right, to a multiple of the scale or to LR's size times the scale. Both are uint8, with as
    many channels (a gray one beside RGB becomes RGB).
    """
    hr, lr = source.read(), source.read_lr()
    if lr is None:
        return modcrop(hr, scale), None
    if degradation.makes_lr:
        raise UserError(f"{source}: pairs have their own LR images; choose degradation=none")
    height, width = (scale * side for side in lr.shape[1:])
    if not (0 <= hr.shape[1] - height < scale and 0 <= hr.shape[2] - width < scale):
        sizes = [f"{image.shape[2]}x{image.shape[1]}" for image in (hr, lr)]
        raise UserError(f"{source}: HR of {sizes[0]} is not {scale} times LR of {sizes[1]} pixels")
    channels = max(len(hr), len(lr))
    return hr[:, :height, :width].expand(channels, -1, -1), lr.expand(channels, -1, -1)


def read_versions(name: str, source: Source, scale: int, degradation: Degradation) -> tuple[Tensor, list[Tensor]]:
    """HR and each version of its LR image, uint8; none of an image smaller than the scale."""
    hr, lr = read_pair(source, scale, degradation)
    if lr is not None or not hr.numel():
        return hr, [] if lr is None else [lr]
    versions = [degradation(hr, scale, name, version) for version in range(degradation.versions)]
    expected = (len(hr), hr.shape[1] // scale, hr.shape[2] // scale)
    for lr in versions:
        made = f"{type(degradation).__name__} made {lr.dtype} {tuple(lr.shape)} of {tuple(hr.shape)}"
        assert lr.dtype == torch.uint8 and lr.shape == expected, f"{made}, not uint8 {expected}"
    return hr, versions


def match(hr_folder: str | os.PathLike, lr_folder: str | os.PathLike, scale: int) -> dict[str, ImagePath]:
    """The images of two folders by name without the ending; an LR image may add the scale, as 0001x3.png has it.

    UserError names an image without a partner, and two of one name.
    """
    hr, lr = (_by_stem(Path(folder)) for folder in (hr_folder, lr_folder))
    pairs = {}
    for stem, path in hr.items():
        partner = lr.pop(stem, None) or lr.pop(f"{stem}x{scale}", None)
        if partner is None:
            raise UserError(f"{path} has no LR image of that name in {lr_folder}")
        pairs[stem] = ImagePath(path, partner)
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
