"""An image file in, an image file out: pixels, and what else a copy needs to be of the same kind."""

import io
import math
import os
import re
import warnings
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor

from srcnn.errors import UserError
from srcnn.files import FORMATS, is_deep, replacing
from srcnn.image import as_float, to_uint8

MAX_PIXELS = 178_956_970  # beyond it Pillow calls an image a decompression bomb
WRITTEN = ("BMP", "JPEG", "PNG", "TIFF", "WEBP")  # formats in which a result comes; others become PNG
_SPACES = {"L": b"GRAY", "RGB": b"RGB ", "CMYK": b"CMYK"}  # bytes 16 to 20 of an ICC profile
_TIFF_TEXTS = {0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298}  # tags that are not about the layout of a TIFF
# EXIF about the old file: width, height, orientation, the subject's place, pixels of the sensor, interoperability.
_OUTDATED = {0x0100, 0x0101, 0x0112, 0x9214, 0xA002, 0xA003, 0xA005, 0xA20E, 0xA20F, 0xA214}


@dataclass
class ImageFile:
    """What is in an image file."""

    planes: Tensor  # [C, H, W], uint8, uint16, or float in [0, 1]
    mode: str  # what they are, in Pillow's words: L (gray), LA, RGB, RGBA or CMYK
    format: str | None = None  # of the file, in Pillow's words
    options: dict[str, Any] = field(default_factory=dict)  # of Pillow's `save`: icc_profile, exif, dpi, lossless
    quality: int = 100  # of a JPEG, estimated, 1 to 100
    is_first: bool = False  # whether the file has more pages or frames, which are not read


def read_file(path: str | os.PathLike, max_pixels: int = MAX_PIXELS) -> ImageFile:
    """An image file as a viewer shows it, turned upright by its EXIF; the first of several pages or frames.

    Raises UserError for a file that cannot be read, one of more than `max_pixels`, and more than 8 bits a channel but
    16 of gray and RGB in PNG and TIFF, which need the extra "deep" unless they are plain gray.
    """
    path = Path(path)
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # ours is the caller's
    try:
        if not path.is_file():  # a FIFO would keep us waiting
            kind = "a folder, not an image" if path.is_dir() else "not a file" if path.exists() else "no such file"
            raise UserError(f"{path}: {kind}")
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=FORMATS) as file:  # about odd metadata
            if not 0 < file.width * file.height <= max_pixels:
                size = f"{file.width}x{file.height} pixels"
                raise UserError(f"{path}: {size}; at most {max_pixels} are accepted (max_pixels=)")
            image = _image_file(file, *(_read_deep(path, file) if is_deep(file) else _read_planes(file)))
            # Pillow does not say whether a WebP is lossless: the name of the chunk with its pixels does.
            if file.format == "WEBP" and b"VP8L" in re.findall(rb"VP8[ L]", path.read_bytes())[:1]:
                image.options["lossless"] = True
            return image
    except UserError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly anything on a broken file
        if isinstance(error, OSError) and error.errno:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from error
        is_other = isinstance(error, UnidentifiedImageError)
        reason = f"broken, or none of {', '.join(FORMATS)}" if is_other else " ".join(str(error).split())
        raise UserError(f"{path}: not an image that can be read ({reason})") from error
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def from_pillow(image: Image.Image) -> ImageFile:
    """An image of Pillow's, turned upright by its EXIF; UserError for more than 8 bits but 16 of gray."""
    if image.mode.startswith(("I", "F")) and image.mode != "I;16":
        raise UserError(f"an image of Pillow's mode {image.mode}: convert it to L, RGB or I;16 first")
    return _image_file(image, *((_tensor(image), "L") if image.mode == "I;16" else _read_planes(image)))


def to_pillow(image: ImageFile | Tensor) -> Image.Image:
    """An image as Pillow has it, of 8 bits but for 16-bit gray; also a tensor [1 or 3, H, W], in [0, 1] or integers."""
    image = _as_file(image)
    if (image.planes.dtype, image.mode) == (torch.uint16, "L"):
        result = Image.fromarray(_array(image.planes))
    else:
        result = Image.fromarray(_array(to_uint8(as_float(image.planes))), image.mode)
    result.info.update(image.options)
    return result


def _as_file(image: ImageFile | Tensor) -> ImageFile:
    return image if isinstance(image, ImageFile) else ImageFile(image, "L" if len(image) == 1 else "RGB")


def _read_planes(image: Image.Image) -> tuple[Tensor, str]:
    """Planes and mode of a Pillow image of any 8-bit mode."""
    stored = str([tile.args for tile in getattr(image, "tile", [])])  # known until it is loaded
    if image.format == "PNG" and "transparency" in image.info and (bits := re.search("L;([24])", stored)):
        image.info["transparency"] *= 255 // (2 ** int(bits[1]) - 1)  # Pillow does so with the pixels only
    palette = image.getpalette("RGB") or [0, 1, 2]
    is_gray = image.mode in ("1", "L", "LA", "La") or palette[::3] == palette[1::3] == palette[2::3]
    mode = "CMYK" if image.mode == "CMYK" else "L" if is_gray else "RGB"
    if mode == "CMYK" or not image.has_transparency_data:
        return _tensor(image.convert(mode)), mode
    rgba = _tensor((image.convert("LA") if image.mode == "La" else image).convert("RGBA"))
    if rgba[3].min() == 255 and not image.mode.lower().endswith("a"):  # a palette's, which no pixel uses
        return rgba[: len(mode)], mode
    return (rgba[2:] if is_gray else rgba), f"{mode}A"


def _image_file(image: Image.Image, planes: Tensor, mode: str) -> ImageFile:
    """These planes turned upright, with the ICC profile, EXIF and resolution of a Pillow image."""
    profile, tables = image.info.get("icc_profile"), getattr(image, "quantization", None)
    if not isinstance(profile, bytes) or profile[16:20] != _SPACES[mode.removesuffix("A")]:
        profile = None  # of what the pixels were converted from
    exif, turn = _exif_of(image)
    found = {"icc_profile": profile, "exif": exif, "dpi": image.info.get("dpi")}
    options = {key: value for key, value in found.items() if value}
    # libjpeg's table of quality 50 sums up to 3688, that of quality q to 2 - q / 50 times as much, or 50 / q.
    ratio = sum(next(iter(tables.values()))) / 3688 if tables else 0.0
    quality = round(50 / ratio if ratio > 1 else 100 - 50 * ratio)
    is_first = bool(getattr(image, "is_animated", False))
    array = planes.numpy().swapaxes(1, 2) if turn in (5, 6, 7, 8) else planes.numpy()  # torch turns no uint16
    array = np.flip(array, {2: (2,), 3: (1, 2), 4: (1,), 6: (2,), 7: (1, 2), 8: (1,)}.get(turn, ()))
    return ImageFile(torch.from_numpy(array.copy()), mode, image.format, options, quality, is_first)


def _exif_of(image: Image.Image) -> tuple[bytes | None, int]:
    """What is to be kept of EXIF and GPS data, and the orientation.

    Of a TIFF's tags, which are all EXIF to Pillow, the texts.
    """
    kept, turn = Image.Exif(), 1
    with suppress(Exception):  # damaged EXIF raises nearly anything, and the pixels may be sound
        found = image.getexif()
        turn = found.get(ExifTags.Base.Orientation, 1)
        tags = _TIFF_TEXTS if image.format == "TIFF" else set(found) - set(ExifTags.IFD) - _OUTDATED
        kept.update({tag: found[tag] for tag in tags if tag in found})
        for part in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
            if values := {tag: value for tag, value in found.get_ifd(part).items() if tag not in _OUTDATED}:
                kept[part] = values
        return (kept.tobytes() if len(kept) else None), turn
    return None, turn


def _tensor(image: Image.Image | np.ndarray) -> Tensor:
    array = np.array(image)
    return torch.from_numpy(array).reshape(*array.shape[:2], -1).permute(2, 0, 1).contiguous()


def _array(planes: Tensor) -> np.ndarray:
    array = planes.permute(1, 2, 0).contiguous().cpu().numpy()
    return array[..., 0] if array.shape[2] == 1 else array


def format_of(path: Path) -> str:
    """The format that a path's ending names, in Pillow's words."""
    return Image.registered_extensions().get(path.suffix.lower(), path.suffix)


def write_image(path: str | os.PathLike, image: ImageFile | Tensor, kind: str | None = None) -> None:
    """Write an image, also a tensor [1 or 3, H, W], whole or not at all; `kind` is its format, if not by the ending.

    Raises UserError if that format cannot hold it, RunError where it cannot be written.
    """
    content = encode(Path(path), _as_file(image), kind)
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def encode(path: Path, image: ImageFile, kind: str | None = None) -> bytes | bytearray | memoryview:
    """What is in the file of an image; metadata that its format cannot hold is left out."""
    kind = kind or format_of(path)
    if kind not in Image.SAVE:
        raise UserError(f"{path}: {kind or 'no ending'} is not a format to write: take .png, .jpg, .webp, .tif or .bmp")
    content, options = io.BytesIO(), {}
    for key, value in image.options.items():
        with suppress(Exception):  # Pillow's encoders raise nearly anything
            if key != "dpi" or all(1 < float(side) < math.inf for side in value):  # 1: Pillow's for a TIFF without
                Image.new("L", (1, 1)).save(io.BytesIO(), kind, **{key: value})
                options[key] = value
    if kind == "BMP" and image.mode.endswith("A"):  # Pillow would write it, and not read it again
        raise UserError(f"{path}: BMP cannot hold transparency: name output=… with .png")
    if image.planes.dtype == torch.uint16 and image.mode != "L":
        return _encode_deep(path, image, kind, options)
    try:
        to_pillow(replace(image, options=options)).save(content, kind, quality=95, **options)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: {kind} cannot hold a {image.mode} image ({error})") from error
    return content.getbuffer()


# 16 bits a channel: plain gray by Pillow, the rest by the extra "deep".


def _read_deep(path: Path, file: Image.Image) -> tuple[Tensor, str]:
    tags = getattr(file, "tag_v2", {})
    layout = tags.get(258), tags.get(262), tags.get(338)  # of a TIFF: bits, photometric interpretation, extra samples
    is_gray = file.format == "PNG" or layout == ((16,), 1, None)  # else Pillow takes 12 bits, or 0 as white, for this
    if is_gray and file.mode in ("I;16", "I;16B") and "transparency" not in file.info:
        return _tensor(np.asarray(file).astype(np.uint16)), "L"
    if file.format != "PNG" and layout not in (((16, 16, 16), 2, None), ((16, 16, 16, 16), 2, (2,))):
        wanted = "only gray and RGB of 16 bits, not premultiplied, are read, from PNG and TIFF"
        raise UserError(f"{path}: {file.format} of more than 8 bits, or signed: {wanted}; convert it first")
    try:
        import imagecodecs  # here, as it may not be installed
    except ImportError:
        remedy = "convert it to 8, or install an extra: pip install -e '.[deep]'"
        raise UserError(f"{path}: more than 8 bits a channel; {remedy}") from None

    decode = imagecodecs.png_decode if file.format == "PNG" else imagecodecs.tiff_decode
    array = decode(path.read_bytes())
    planes = torch.from_numpy(array) if tags.get(284) == 2 else _tensor(array)  # 2: stored plane by plane
    return planes, {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[len(planes)]


def _encode_deep(path: Path, image: ImageFile, kind: str, options: dict[str, Any]) -> bytes | bytearray | memoryview:
    if kind not in ("PNG", "TIFF") or image.mode == "CMYK":
        raise UserError(f"{path}: 16 bits a channel, gray or RGB, go into .png or .tif")
    import imagecodecs  # here, as they may not be installed
    import tifffile

    array, content = _array(image.planes), io.BytesIO()
    if kind == "PNG":  # with the chunks between header and pixels that Pillow gives an image of one pixel
        Image.new("L", (1, 1)).save(content, kind, **options)
        whole, one = imagecodecs.png_encode(array), content.getvalue()
        return whole[:33] + one[33 : one.rindex(b"IDAT") - 4] + whole[33:]
    facts: dict[str, Any] = {"photometric": "rgb" if len(image.planes) > 2 else "minisblack", "compression": "deflate"}
    facts |= {"extrasamples": ["unassalpha"]} if image.mode.endswith("A") else {}
    facts |= {"resolution": tuple(map(float, options["dpi"])), "resolutionunit": "INCH"} if "dpi" in options else {}
    tifffile.imwrite(content, array, iccprofile=options.get("icc_profile"), **facts)
    return content.getbuffer()
