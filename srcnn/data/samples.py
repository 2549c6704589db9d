"""Whole images to validate and test on."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from srcnn.data.degrade import Degradation, Given
from srcnn.data.sets import find_images
from srcnn.data.sources import ImagePath, Source, match, read_pair
from srcnn.errors import UserError
from srcnn.files import as_text


class Sample(NamedTuple):
    """A batch of one image: `lr, hr = sample[:2]`.

    lr         [1, C, h, w]: float in [0, 1], not rounded, where MATLAB's bicubic makes it; else uint8
    hr         [1, C, scale*h, scale*w], uint8
    name       of the image
    image_set  what the set is called in tables
    source     the set's name, or the folder as it was typed
    """

    lr: Tensor
    hr: Tensor
    name: str = ""
    image_set: str = "test"
    source: str = ""


def set_images(name: str, root: str) -> dict[str, Source]:
    """The image files of a named set or a folder, by name: without the ending where that tells them apart."""
    paths = find_images(name, root)
    by_stem: dict[str, Source] = {as_text(path.stem): ImagePath(path) for path in paths}
    return by_stem if len(by_stem) == len(paths) else {as_text(path.name): ImagePath(path) for path in paths}


def read_sets(names: Sequence[str], root: str, scale: int, degradation: Degradation) -> list[Sample]:
    """The images of named sets or folders, in memory; UserError for one too small to be scored at `scale`."""
    samples = []
    for name in names:
        samples += read_samples(set_images(name, root), label(name, names), name, scale, degradation)
    return samples


def read_pairs(hr_folder: str, lr_folder: str, scale: int) -> list[Sample]:
    """The images of two folders, HR and LR, matched by name (see `srcnn.data.sources.match`)."""
    return read_samples(match(hr_folder, lr_folder, scale), label(hr_folder, []), hr_folder, scale, Given())


def read_samples(
    images: Mapping[str, Source], image_set: str, source: str, scale: int, degradation: Degradation
) -> list[Sample]:
    """Images to score a network on, with LR images of their own or by the degradation."""
    samples = []
    for name, image in images.items():
        hr, lr = read_pair(image, scale, degradation)
        if min(hr.shape[-2:]) < 3 * scale:
            raise UserError(f"{image}: {hr.shape[2]}x{hr.shape[1]} pixels are too few to be scored at x{scale}")
        lr = degradation.test_lr(hr, scale, name) if lr is None else lr
        samples.append(Sample(lr[None], hr[None], name, image_set, source))
    return samples


def label(name: str, names: Sequence[str]) -> str:
    """What a set or folder is called among others: by the last part of its path, or as many as tell it from them."""
    parts, others = Path(name).parts, [Path(other).parts for other in names if other != name]
    for count in range(1, len(parts)):
        if all(other[-count:] != parts[-count:] for other in others):
            return "/".join(parts[-count:])
    return name
