"""Whole images to validate and test on."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from srcnn.data.degrade import Degradation
from srcnn.data.sets import find_images
from srcnn.data.sources import ImagePath, Source, read_pair
from srcnn.errors import UserError
from srcnn.files import as_text
from srcnn.image import as_float


class Sample(NamedTuple):
    """An HR image [C, H, W], uint8, with its name and the set it belongs to."""

    image_set: str
    name: str
    hr: Tensor
    source: str  # the set's name, or the folder as it was given
    lr: Tensor | None = None  # uint8, where it is not left to the protocol to shrink HR

    def tensors(self, device: torch.device) -> tuple[Tensor, Tensor | None]:
        """HR and LR as a protocol scores them: [1, C, H, W], float32 in [0, 1]."""
        lr = None if self.lr is None else as_float(self.lr[None].to(device))
        return as_float(self.hr[None].to(device)), lr


def set_images(name: str, root: str) -> dict[str, Source]:
    """The image files of a named set or a folder, by name: without the ending where that tells them apart."""
    paths = find_images(name, root)
    by_stem: dict[str, Source] = {as_text(path.stem): ImagePath(path) for path in paths}
    return by_stem if len(by_stem) == len(paths) else {as_text(path.name): ImagePath(path) for path in paths}


def read_sets(names: Sequence[str], root: str, scale: int, degradation: Degradation) -> list[Sample]:
    """The images of named sets or folders, in memory; UserError for one too small to be scored at `scale`.

    Images go by their names without the ending, unless two of them have one.
    """
    samples = []
    for name in names:
        samples += read_samples(set_images(name, root), label(name, names), name, scale, degradation)
    return samples


def read_samples(
    images: Mapping[str, Source], image_set: str, source: str, scale: int, degradation: Degradation
) -> list[Sample]:
    """Images to score a network on, with LR images of their own or by the degradation."""
    samples = []
    for name, image in images.items():
        hr, lr = read_pair(image, scale, degradation)
        if min(hr.shape[-2:]) < 3 * scale:
            raise UserError(f"{image}: {hr.shape[2]}x{hr.shape[1]} pixels are too few to be scored at x{scale}")
        samples.append(Sample(image_set, name, hr, source, degradation.test_lr(hr, scale, name) if lr is None else lr))
    return samples


def label(name: str, names: Sequence[str]) -> str:
    """What a set or folder is called among others: by the last part of its path, or as many as tell it from them."""
    parts, others = Path(name).parts, [Path(other).parts for other in names if other != name]
    for count in range(1, len(parts)):
        if all(other[-count:] != parts[-count:] for other in others):
            return "/".join(parts[-count:])
    return name
