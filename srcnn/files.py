"""Image files as tensors to train and test on, and files that are written whole or not at all."""

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from srcnn.errors import RunError, UserError

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")  # of Pillow's, those that are read
EXTENSIONS = {  # of files in these formats, as Pillow has them
    ".apng", ".avif", ".avifs", ".bmp", ".gif", ".j2c", ".j2k", ".jfif", ".jp2", ".jpc", ".jpe", ".jpeg", ".jpf",
    ".jpg", ".jpx", ".mpo", ".pbm", ".pfm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp",
}  # fmt: skip


def list_images(folder: str | os.PathLike) -> list[Path]:
    """The image files of a folder, by name."""
    return sorted(path for path in Path(folder).iterdir() if is_image_name(path) and path.is_file())


def is_image_name(path: Path) -> bool:
    """By its ending; hidden files are not images."""
    return path.suffix.lower() in EXTENSIONS and not path.name.startswith(".")


def as_text(name: str) -> str:
    """A file's name with bytes that are not UTF-8 written as \\xff, so that it can be written into files."""
    return os.fsencode(name).decode(errors="backslashreplace")


def read_image(path: str | os.PathLike | IO[bytes]) -> Tensor:
    """An image to train or test on: [C, H, W], uint8, C being 1 for a gray image, else 3 (RGB).

    Raises UserError for what is not an image, and for more than 8 bits or transparency, which would be lost.
    """
    try:
        with Image.open(path) as file:
            if is_deep(file):
                raise UserError(f"{path}: more than 8 bits a channel; convert it to 8 bits first")
            if file.has_transparency_data and np.asarray(file.convert("RGBA").getchannel("A")).min() < 255:
                raise UserError(f"{path}: has transparency; flatten it first")
            pixels = np.array(file.convert("L" if file.mode in ("1", "L", "LA") else "RGB"))
    except UserError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly anything on a broken file
        raise UserError(f"{path}: cannot be read as an image ({' '.join(str(error).split())})") from error
    return torch.from_numpy(np.atleast_3d(pixels)).permute(2, 0, 1).contiguous()


def is_deep(file: Image.Image) -> bool:
    """Whether an image that Pillow has opened holds more than 8 bits a channel, or other than positive numbers.

    Pillow would give 8 bits of them silently.
    """
    if file.format == "TIFF":
        tags: Any = file.tag_v2  # type: ignore[attr-defined]
        return max(tags.get(258, (1,))) > 8 or max(tags.get(339, (1,))) > 1  # bits; 2: signed, 3: floating point
    if file.format in ("AVIF", "JPEG2000"):  # of these only the file itself says it
        stream: IO[bytes] = file.fp  # type: ignore[attr-defined]
        place = stream.tell()
        stream.seek(0)
        content = stream.read()
        stream.seek(place)
        if file.format == "AVIF":  # av1C, the third byte: AV1 Codec ISO Media File Format Binding, section 2.3
            return any(content[found.end() + 2] & 0x40 for found in re.finditer(b"av1C", content))
        start = content.index(b"\xff\x4f\xff\x51") + 42  # SIZ: ITU-T T.800, table A.9; 3 bytes a component
        components = int.from_bytes(content[start - 2 : start])
        return any(content[start + 3 * i] & 0x7F > 7 for i in range(components))
    stored = str([tile.args for tile in getattr(file, "tile", [])[:1]])  # as "RGB;16B", or of a PPM "('RGB', 65535)"
    largest = re.fullmatch(r"\[\('\w+', (\d+)\)\]", stored)
    return file.mode.startswith(("I", "F")) or ";16B" in stored or bool(largest and int(largest[1]) > 255)


@contextmanager
def replacing(path: str | os.PathLike, fsync: bool = False) -> Iterator[Path]:
    """`with replacing(path) as temporary`: write there; it becomes `path` at the end, or vanishes on an error.

    fsync  have it on the disk before it takes the place of what was there, so that not even a power cut loses both

    Raises RunError where it cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.touch(exist_ok=False)
            yield temporary
            if path.exists():
                shutil.copymode(path, temporary)
            if fsync:
                with open(temporary, "rb+") as file:
                    os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        if not error.errno or (error.filename and Path(error.filename) not in (temporary, path, *path.parents)):
            raise  # of another file, or of somebody's code
        raise RunError(f"{path}: cannot be written ({error.strerror or error})") from error
