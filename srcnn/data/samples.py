"""Whole images to validate and test on."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from srcnn.data.sets import find_images
from srcnn.errors import UserError
from srcnn.files import distinct_names, read_image


class Sample(NamedTuple):
    """An HR image [C, H, W], uint8, with its name and the set it belongs to."""

    image_set: str
    name: str
    hr: Tensor
    source: str  # the set's name, or the folder as it was given


def read_sets(names: Sequence[str], root: str, scale: int = 1) -> list[Sample]:
    """The images of named sets or folders, in memory; UserError for one too small to be scored at `scale`.

    A folder goes by the last part of its path, or by as many as tell it from the others; an image by its name
    without the ending, unless that is another's too.
    """
    samples = []
    for name in names:
        paths = find_images(name, root)
        for path, image in zip(paths, distinct_names(paths), strict=True):
            hr = read_image(path)
            if min(hr.shape[-2:]) < 3 * scale:
                raise UserError(f"{path}: {hr.shape[2]}x{hr.shape[1]} pixels are too few to be scored at x{scale}")
            samples.append(Sample(_label(name, names), image, hr, name))
    return samples


def _label(name: str, names: Sequence[str]) -> str:
    parts, others = Path(name).parts, [Path(other).parts for other in names if other != name]
    for count in range(1, len(parts)):
        if all(other[-count:] != parts[-count:] for other in others):
            return "/".join(parts[-count:])
    return name
