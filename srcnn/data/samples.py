"""Whole images to validate and test on."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from srcnn.data.degrade import Degradation
from srcnn.data.sets import find_images
from srcnn.data.sources import ImagePath, Source, read_versions
from srcnn.errors import UserError
from srcnn.files import as_text


class Sample(NamedTuple):
    """A batch of one image: `lr, hr = sample[:2]`.

    lr         [1, C, h, w]: float in [0, 1], not rounded, where MATLAB's bicubic makes it; else uint8
    hr         [1, C, scale*h, scale*w], uint8
    name       of the image
    image_set  what the set is called in tables
    """

    lr: Tensor
    hr: Tensor
    name: str = ""
    image_set: str = "test"


def set_images(name: str, root: str) -> Mapping[str, Source]:
    """The image files of a named set or a folder, by name: without the ending where that tells them apart."""
    paths = find_images(name, root)
    by_stem = {as_text(path.stem): ImagePath(path) for path in paths}
    return by_stem if len(by_stem) == len(paths) else {as_text(path.name): ImagePath(path) for path in paths}


def read_set(name: str, root: str, scale: int, degradation: Degradation) -> list[Sample]:
    """The images of a named set or a folder, in memory; UserError for one too small to be scored at `scale`."""
    return read_samples(set_images(name, root), label(name, [name]), scale, degradation)


def read_samples(images: Mapping[str, Source], image_set: str, scale: int, degradation: Degradation) -> list[Sample]:
    """Images to score a network on, with LR images of their own or by the degradation."""
    samples = []
    for name, image in images.items():
        hr, lr = read_versions(name, image, scale, degradation, count=1)
        if min(hr.shape[-2:]) < 3 * scale:
            raise UserError(f"{image}: {hr.shape[2]}x{hr.shape[1]} pixels are too few to be scored at x{scale}")
        samples.append(Sample(lr[0][None], hr[None], name, image_set))
    return samples


def label(name: str, names: Sequence[str]) -> str:
    """What a set or folder is called among others: by the last part of its path, or as many as tell it from them."""
    parts, others = Path(name).parts, [Path(other).parts for other in names if other != name]
    for count in range(1, len(parts)):
        if all(other[-count:] != parts[-count:] for other in others):
            return "/".join(parts[-count:])
    return name
