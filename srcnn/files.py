"""An image file in, an image file out."""

import os
import re
import tempfile
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from srcnn.errors import UserError

EXTENSIONS = {".bmp", ".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}


def read_image(path: str | os.PathLike) -> Tensor:
    """An 8-bit image file as a tensor [C, H, W], uint8: C is 1 for a gray image, else 3 (RGB).

    Palettes are resolved, EXIF orientation is applied. Raises UserError for what has more than 8 bits or
    transparency, which would be lost here without a word, and for broken or huge files.
    """
    path = Path(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as file:
                stored = str(file.tile[0].args) if file.tile else ""  # "RGB;16B": Pillow would give 8 bits of it
                image = ImageOps.exif_transpose(file)
                image.load()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise UserError(f"{path}: a folder, not an image") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UserError(f"{path}: too many pixels for an image that can be trusted") from None
    except Exception as error:  # Pillow's decoders raise nearly anything on a broken file
        raise UserError(f"{path}: not an image that Pillow can read ({error})") from None
    deep_ppm = re.fullmatch(r"\('\w+', (\d+)\)", stored)  # its largest value
    if image.mode.startswith(("I", "F")) or re.search(";16[BLN]", stored) or (deep_ppm and int(deep_ppm[1]) > 255):
        raise UserError(f"{path}: more than 8 bits a channel; convert it to 8 bits first")
    if image.has_transparency_data and np.asarray(image.convert("RGBA"))[..., 3].min() < 255:
        raise UserError(f"{path}: has transparency; flatten it first")
    gray = image.mode in ("1", "L", "LA") or (image.mode == "P" and _gray_palette(image))
    array = np.array(image.convert("L" if gray else "RGB"))
    return torch.from_numpy(array).reshape(*array.shape[:2], -1).permute(2, 0, 1).contiguous()


def _gray_palette(image: Image.Image) -> bool:
    red, green, blue = (image.getpalette("RGB")[channel::3] for channel in range(3))  # type: ignore[index]
    return red == green == blue


def write_image(path: str | os.PathLike, image: Tensor) -> None:
    """Write [C, H, W], uint8, in the format that the ending names: beside its place first, then renamed into it."""
    array = image.permute(1, 2, 0).cpu().numpy()
    save_image(Image.fromarray(array[..., 0] if array.shape[2] == 1 else array), path)


def save_image(image: Image.Image, path: str | os.PathLike) -> None:
    """A Pillow image into a file, whole or not at all; JPEG at quality 95."""
    path = Path(path)
    with replacing(path) as temporary:
        image.save(temporary, quality=95) if path.suffix.lower() in (".jpg", ".jpeg") else image.save(temporary)


class replacing:  # noqa: N801 (reads as open() does)
    """`with replacing(path) as temporary`: write there; it becomes `path` at the end, or vanishes on an error."""

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)

    def __enter__(self) -> Path:
        # The ending stays the last, as Pillow takes the format from it.
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(self.path.suffix, f".{self.path.stem[:40]}-", self.path.parent)
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written ({error.strerror})") from None
        os.close(handle)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        self.temporary = Path(name)
        return self.temporary

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is None:
            os.replace(self.temporary, self.path)
        else:
            self.temporary.unlink(missing_ok=True)


def list_images(folder: str | os.PathLike) -> list[Path]:
    """The image files of a folder, by name."""
    return sorted(path for path in Path(folder).iterdir() if path.suffix.lower() in EXTENSIONS and path.is_file())


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """The files' names, without the ending where that still tells them apart."""
    stems = Counter(path.stem for path in paths)
    names = [path.stem if stems[path.stem] == 1 else path.name for path in paths]
    return names if len(set(names)) == len(names) else [path.name for path in paths]
