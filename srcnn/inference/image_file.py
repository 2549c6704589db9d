"""An image file in, an image file out: pixels, and whatever else a copy needs to be of the same kind."""

import io
import math
import os
import re
import secrets
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import ExifTags, Image
from torch import Tensor

from srcnn.errors import NO_ROOM, RunError, UserError
from srcnn.image import as_float, to_uint8

EXTENSIONS = {".bmp", ".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}
MAX_PIXELS = 178_956_970  # beyond it Pillow calls an image a decompression bomb
_FORMATS = {"BMP": ".bmp", "JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "TIFF": ".tif", "WEBP": ".webp"}  # we write
_TEXTS = {0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298}  # of a TIFF's tags, those not about its layout
_DEEP = {("MINISBLACK",): 1, ("RGB",): 3, ("RGB", "UNASSALPHA"): 4}  # TIFF's words -> channels
_IFDS = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)


@dataclass
class ImageFile:
    """What is in an image file.

    colour    [C, H, W], uint8, uint16, or float in [0, 1]: C is 1 for gray, 3 for RGB, 4 for CMYK
    alpha     [1, H, W] of the same type, or None
    ending    of the files that can hold it, as ".png"
    metadata  as Pillow's `save` takes it: icc_profile, exif, dpi
    quality   of a JPEG, estimated, 1 to 100; else 100
    """

    colour: Tensor
    alpha: Tensor | None = None
    ending: str = ".png"
    metadata: dict[str, Any] = field(default_factory=dict)
    quality: int = 100

    @property
    def planes(self) -> Tensor:
        """Colour and alpha in one tensor."""
        return self.colour if self.alpha is None else torch.cat([self.colour, self.alpha])

    def changed(self, change: Callable[[Tensor], Tensor]) -> "ImageFile":
        """The same of other planes."""
        return replace(self, colour=change(self.colour), alpha=None if self.alpha is None else change(self.alpha))


def read_file(path: str | os.PathLike, max_pixels: int = MAX_PIXELS) -> ImageFile:
    """An image file as a viewer shows it, EXIF orientation applied; of an animation the first frame.

    Metadata that cannot be written again is left out. Raises UserError for a broken file, one of more than
    `max_pixels`, and of more than 8 bits a channel for all but gray and RGB of 16 in PNG and TIFF, which need the
    extra "deep".
    """
    path = Path(path)
    if not path.is_file():  # a FIFO would keep us waiting
        kind = "a folder, not an image" if path.is_dir() else "not a file" if path.exists() else "no such file"
        raise UserError(f"{path}: {kind}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd metadata
            with _open(path) as file:
                if not 0 < file.width * file.height <= max_pixels:
                    size = f"{file.width}x{file.height} pixels"
                    raise UserError(f"{path}: {size}; at most {max_pixels} are trusted (max_pixels=)")
                planes = _read_deep(path, str(file.format)) if _is_deep(file) else _read_planes(file)
                return _image_file(file, *planes, _ending(path, file))
    except UserError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly anything on a broken file
        reason = " ".join(str(error).replace(f" '{path}'", "").split())
        raise UserError(f"{path}: not an image that Pillow can read ({reason})") from error


def read_image(path: str | os.PathLike) -> Tensor:
    """An image to train or test on: [C, H, W], uint8, C being 1 for a gray image, else 3 (RGB).

    Raises UserError for what `read_file` refuses, and for more than 8 bits or transparency, which would be lost.
    """
    image = read_file(path)
    if image.colour.dtype == torch.uint16:
        raise UserError(f"{path}: more than 8 bits a channel; convert it to 8 bits first")
    if image.alpha is not None and image.alpha.min() < 255:
        raise UserError(f"{path}: has transparency; flatten it first")
    return _tensor(to_pillow(image).convert("RGB")) if len(image.colour) == 4 else image.colour


def from_pillow(image: Image.Image) -> ImageFile:
    """An image of Pillow's, upright by its EXIF orientation; UserError for more than 8 bits but 16 of gray."""
    if image.mode.startswith(("I", "F")) and image.mode != "I;16":
        raise UserError(f"an image of Pillow's mode {image.mode}: convert it to L, RGB or I;16 first")
    return _image_file(image, *((_tensor(image), None) if image.mode == "I;16" else _read_planes(image)), ".png")


def to_pillow(image: ImageFile | Tensor) -> Image.Image:
    """An image as Pillow has it; a tensor [C, H, W] in [0, 1] or of integers becomes gray, RGB or RGBA of 8 bits."""
    if isinstance(image, Tensor):
        return Image.fromarray(_rows(to_uint8(as_float(image))))
    planes = image.planes
    if planes.dtype == torch.uint16 and len(planes) == 1:
        result = Image.fromarray(_rows(planes))
    else:
        mode = {1: "L", 3: "RGB", 4: "CMYK"}[len(image.colour)] + ("" if image.alpha is None else "A")
        result = Image.fromarray(_rows(to_uint8(as_float(planes))), mode)
    result.info.update(image.metadata)
    return result


def _open(path: Path) -> Image.Image:
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # ours is the caller's
    try:
        return Image.open(path)
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _is_deep(file: Image.Image) -> bool:
    """Whether it holds more than 8 bits a channel; of 16-bit RGB Pillow would give 8 without a word."""
    if file.format == "TIFF":
        return max(file.tag_v2.get(258, (1,))) > 8  # type: ignore[attr-defined]
    stored = str([tile.args for tile in getattr(file, "tile", [])[:1]])  # as "RGB;16B", or of a PPM "('RGB', 65535)"
    largest = re.fullmatch(r"\[\('\w+', (\d+)\)\]", stored)
    return file.mode.startswith(("I", "F")) or ";16B" in stored or bool(largest and int(largest[1]) > 255)


def _ending(path: Path, file: Image.Image) -> str:
    """The file's own if its content is of that kind, can be written, and can hold what will be written."""
    kind = str(file.format)
    if kind not in _FORMATS or file.mode in ("1", "P", "PA") or (kind == "BMP" and file.mode == "RGBA"):
        return ".png"
    return path.suffix if _FORMATS.get(_format(path)) == _FORMATS[kind] else _FORMATS[kind]


def _format(path: Path) -> str:
    """The format that a path's ending names, in Pillow's words."""
    return Image.registered_extensions().get(path.suffix.lower(), path.suffix)


def _read_planes(image: Image.Image) -> tuple[Tensor, Tensor | None]:
    """Colour and alpha of a Pillow image of any 8-bit mode."""
    palette = image.getpalette("RGB") or [0, 1, 2]
    gray = image.mode in ("1", "L", "LA", "La") or palette[::3] == palette[1::3] == palette[2::3]
    if image.mode == "CMYK" or not image.has_transparency_data:
        return _tensor(image.convert("CMYK" if image.mode == "CMYK" else "L" if gray else "RGB")), None
    rgba = _tensor(image.convert("RGBA"))
    # A palette's transparency that no pixel uses is none; a channel of its own stays.
    has_alpha = image.mode.lower().endswith("a") or rgba[3].min() < 255
    return rgba[: 1 if gray else 3].contiguous(), rgba[3:] if has_alpha else None


def _read_deep(path: Path, kind: str) -> tuple[Tensor, Tensor | None]:
    """Colour and alpha of 16 bits."""
    try:
        import imagecodecs
        import tifffile
    except ImportError:
        remedy = "convert it to 8, or get an extra: pip install -e '.[deep]'"
        raise UserError(f"{path}: more than 8 bits a channel; {remedy}") from None

    tifffile.logger().setLevel("CRITICAL")  # an error has a sentence of its own
    array, found = None, kind
    if kind == "PNG":
        array = imagecodecs.png_decode(path.read_bytes())
    elif kind == "TIFF":
        with tifffile.TiffFile(path) as file:
            page: Any = file.pages[0]
            samples = page.photometric.name, *(sample.name for sample in page.extrasamples)
            found = f"{page.dtype} of {page.bitspersample} bits, {' '.join(samples)}"
            fits = page.samplesperpixel == _DEEP.get(samples) and page.axes in ("YX", "YXS", "SYX")
            if fits and page.dtype == np.uint16 and page.bitspersample == 16:
                parts = list(zip(page.dataoffsets, page.databytecounts, strict=True))
                there = [0 < length <= path.stat().st_size - offset for offset, length in parts]
                if not all(there) or len(there) < math.prod(page.chunked):  # tifffile would make it black
                    raise ValueError("image file is truncated")
                array = np.moveaxis(page.asarray(), 0, -1) if page.axes == "SYX" else page.asarray()
    if array is None:
        wanted = "beyond 8 bits only gray and RGB of 16, not premultiplied, are read, from PNG and TIFF"
        raise UserError(f"{path}: {found}: {wanted}; convert it first")
    planes = _tensor(array)
    colours = 1 if len(planes) < 3 else 3
    return planes[:colours], planes[colours:] if colours < len(planes) else None


def _image_file(image: Image.Image, colour: Tensor, alpha: Tensor | None, ending: str) -> ImageFile:
    """These planes upright, with what else a Pillow image has: ICC profile, EXIF and resolution.

    Of a TIFF's tags, which are all EXIF to Pillow, those not about its layout.
    """
    kept, exif, tables = Image.Exif(), image.getexif(), getattr(image, "quantization", None)
    for tag, value in exif.items():
        if tag in _TEXTS or not (image.format == "TIFF" or tag in (ExifTags.Base.Orientation, *ExifTags.IFD)):
            kept[tag] = value
    parts = {part: values for part in _IFDS if (values := dict(exif.get_ifd(part)))}
    for part, values in parts.items():
        kept.get_ifd(part).update(values)
    found = {key: image.info.get(key) for key in ("icc_profile", "dpi")}
    if len(kept) or parts:
        found["exif"] = kept if ending.lower() in (".tif", ".tiff") else kept.tobytes()
    metadata = {key: value for key, value in found.items() if value and _can_hold(ending, key, value)}
    # libjpeg's table of quality 50 sums up to 3688, that of quality q to 2 - q / 50 times as much, or 50 / q.
    ratio = sum(next(iter(tables.values()))) / 3688 if tables else 0.0
    quality = round(50 / ratio if ratio > 1 else 100 - 50 * ratio)
    turn = exif.get(ExifTags.Base.Orientation)
    return ImageFile(colour, alpha, ending, metadata, quality).changed(lambda planes: _upright(planes, turn))


def _can_hold(ending: str, key: str, value: Any) -> bool:
    """Whether files of that ending can hold some metadata: a NaN as resolution is held by none."""
    try:
        if key == "dpi" and not all(0 < float(side) < math.inf for side in value):
            return False
        Image.new("L", (1, 1)).save(io.BytesIO(), _format(Path(f"x{ending}")), **{key: value})
        return True
    except Exception:  # Pillow's encoders raise nearly anything
        return False


def _upright(planes: Tensor, turn: Any) -> Tensor:
    """Planes as they are to be shown, by EXIF's orientation."""
    array = planes.numpy().swapaxes(1, 2) if turn in (5, 6, 7, 8) else planes.numpy()
    flipped = np.flip(array, {2: (2,), 3: (1, 2), 4: (1,), 6: (2,), 7: (1, 2), 8: (1,)}.get(turn, ()))
    return torch.from_numpy(np.ascontiguousarray(flipped))


def _tensor(image: Image.Image | np.ndarray) -> Tensor:
    array = np.array(image)
    return torch.from_numpy(array).reshape(*array.shape[:2], -1).permute(2, 0, 1).contiguous()


def _rows(planes: Tensor) -> np.ndarray:
    array = planes.permute(1, 2, 0).contiguous().cpu().numpy()
    return array[..., 0] if array.shape[2] == 1 else array


def write_image(path: str | os.PathLike, image: ImageFile | Tensor | Image.Image) -> None:
    """Write an image, as a tensor [C, H, W] of uint8, in the format that the path's ending names; whole or not at all.

    Raises UserError if that format cannot hold it, RunError where it cannot be written.
    """
    if not isinstance(image, ImageFile):
        image = ImageFile(image) if isinstance(image, Tensor) else from_pillow(image)
    content = encode(Path(path), image)
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def encode(path: Path, image: ImageFile) -> memoryview:
    """The bytes of an image's file: in memory first, so that no full disk leaves half an image."""
    kind, content = _format(path), io.BytesIO()
    if kind not in Image.SAVE:
        raise UserError(f"{path}: {kind or 'no ending'} is no format to write; take .png, .jpg, .webp, .tif or .bmp")
    if image.colour.dtype == torch.uint16:
        return _encode_deep(path, kind, image)
    pillow = to_pillow(image)
    try:
        pillow.save(content, kind, quality=95, **image.metadata)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: {kind} cannot hold a {pillow.mode} image ({error})") from error
    return content.getbuffer()


def _encode_deep(path: Path, kind: str, image: ImageFile) -> memoryview:
    import imagecodecs
    import tifffile

    array, metadata, content = _rows(image.planes), image.metadata, io.BytesIO()
    if kind not in ("PNG", "TIFF") or len(image.colour) == 4:
        raise UserError(f"{path}: 16 bits a channel, gray or RGB, go into .png or .tif")
    if kind == "PNG":  # with the chunks between header and pixels that Pillow gives an image of one pixel
        Image.new("L", (1, 1)).save(content, kind, **metadata)
        whole, one = imagecodecs.png_encode(array), content.getvalue()
        return memoryview(whole[:33] + one[33 : one.rindex(b"IDAT") - 4] + whole[33:])
    options: dict[str, Any] = {"photometric": "minisblack" if len(image.colour) == 1 else "rgb"}
    options |= {"extrasamples": None if image.alpha is None else ["unassalpha"], "compression": "deflate"}
    options |= {"resolution": tuple(map(float, metadata.get("dpi", ()))) or None, "resolutionunit": "INCH"}
    tifffile.imwrite(content, array, iccprofile=metadata.get("icc_profile"), **options)
    return content.getbuffer()


@contextmanager
def replacing(path: str | os.PathLike, fsync: bool = False) -> Iterator[Path]:
    """`with replacing(path) as temporary`: write there; it becomes `path` at the end, or vanishes on an error.

    fsync  have it on the disk before it takes the place of what was there, so that not even a power cut loses both

    Raises RunError where it cannot be written, and UserError for what is there and is no regular file: a link, a
    device or a pipe is not replaced.
    """
    path = Path(path)
    # Of no other process or thread, and short, as the path's own name may be as long as can be.
    temporary = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise UserError(f"{path}: a link, a folder or a device, which no file is to replace; name another")
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
        remedy = "; make room there, or name another place" if error.errno in NO_ROOM else ""
        raise RunError(f"{path}: cannot be written ({error.strerror or error}){remedy}") from error


def check_folder(name: str, folder: str | os.PathLike) -> None:
    """UserError, beginning with `name`, unless it is a folder or can be made one."""
    for path in (Path(folder), *Path(folder).absolute().parents):
        if path.exists() and not path.is_dir():
            raise UserError(f"{name}: {path} is a file; name a folder")


def list_images(folder: str | os.PathLike) -> list[Path]:
    """The image files of a folder, by name."""
    return sorted(path for path in Path(folder).iterdir() if is_image_name(path) and path.is_file())


def is_image_name(path: Path) -> bool:
    """By its ending; a hidden file is none."""
    return path.suffix.lower() in EXTENSIONS and not path.name.startswith(".")


def as_text(name: str) -> str:
    """A file's name with what is no UTF-8 in it written as \\xff, so that it can be written into files."""
    return os.fsencode(name).decode(errors="backslashreplace")
