"""An image file in, an image file out: pixels, and whatever else a copy needs to be of the same kind."""

import io
import os
import re
import secrets
import shutil
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from srcnn.errors import RunError, UserError
from srcnn.image import as_float, to_uint8

EXTENSIONS = {".bmp", ".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}
MAX_PIXELS = 178_956_970  # beyond it Pillow calls an image a decompression bomb
_FORMATS = {"BMP": ".bmp", "JPEG": ".jpg", "PNG": ".png", "TIFF": ".tif", "WEBP": ".webp"}  # those we write
_TEXTS = {0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298}  # of a TIFF's tags, those not about its layout


@dataclass
class ImageFile:
    """What is in an image file.

    colour    [C, H, W], uint8, uint16, or float in [0, 1]: C is 1 for gray, 3 for RGB, 4 for CMYK
    alpha     [1, H, W] of the same type, or None
    ending    of the files that can hold it, as ".png"
    metadata  as Pillow's `save` takes it: icc_profile, exif, dpi
    """

    colour: Tensor
    alpha: Tensor | None = None
    ending: str = ".png"
    metadata: dict[str, Any] = field(default_factory=dict)


def read_file(path: str | os.PathLike, max_pixels: int = MAX_PIXELS, deep: bool = True) -> ImageFile:
    """An image file as a viewer shows it, EXIF orientation applied; of an animation the first frame.

    Raises UserError for a broken file, one of more than `max_pixels`, and one of 16 bits a channel, unless these are
    wanted (`deep`) and the extra of that name is installed.
    """
    path = Path(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pixels, which are counted here, and about odd metadata
            with _open(path) as file:
                if not 0 < file.width * file.height <= max_pixels:
                    raise UserError(
                        f"{path}: {file.width}x{file.height} pixels; at most {max_pixels} are trusted (max_pixels=)"
                    )
                is_deep, ending = _is_deep(file), _ending(path, file)
                image = file if is_deep else ImageOps.exif_transpose(file)
                if not is_deep:
                    image.load()
                metadata = _metadata(image, file.format == "TIFF", ending)
    except UserError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly anything on a broken file
        if deep and _has_extra() and isinstance(error, UnidentifiedImageError) and _is_tiff(path):
            return _read_deep(path, path.suffix, {}, max_pixels)  # there are such as Pillow does not know
        reason = " ".join(str(error).replace(f" '{path}'", "").split())
        raise UserError(f"{path}: not an image that Pillow can read ({reason})") from error
    if is_deep and not deep:
        raise UserError(f"{path}: more than 8 bits a channel; convert it to 8 bits first")
    if is_deep:
        return _read_deep(path, ending, metadata, max_pixels)
    return ImageFile(*_planes(image), ending, metadata)


def read_image(path: str | os.PathLike) -> Tensor:
    """An image to train or test on: [C, H, W], uint8, C being 1 for a gray image, else 3 (RGB).

    Raises UserError for what `read_file` refuses, and for more than 8 bits or transparency, which would be lost.
    """
    image = read_file(path, deep=False)
    if image.alpha is not None and image.alpha.min() < 255:
        raise UserError(f"{path}: has transparency; flatten it first")
    return _tensor(to_pillow(image).convert("RGB")) if len(image.colour) == 4 else image.colour


def from_pillow(image: Image.Image) -> ImageFile:
    """An image of Pillow's, upright by its EXIF orientation; UserError for more than 8 bits but 16 of gray."""
    if image.mode == "I;16":
        return ImageFile(_tensor(image), metadata=_metadata(image, False, ".png"))
    if image.mode.startswith(("I", "F")):
        raise UserError(f"an image of Pillow's mode {image.mode}: convert it to L, RGB or I;16 first")
    image = ImageOps.exif_transpose(image)
    return ImageFile(*_planes(image), metadata=_metadata(image, False, ".png"))


def to_pillow(image: ImageFile | Tensor) -> Image.Image:
    """An image as Pillow has it; a tensor [C, H, W] in [0, 1] or of integers becomes gray, RGB or RGBA of 8 bits."""
    if isinstance(image, Tensor):
        return Image.fromarray(_rows(to_uint8(as_float(image))))
    planes = _all_planes(image)
    if planes.dtype == torch.uint16 and len(planes) == 1:
        result = Image.fromarray(_rows(planes))
    else:
        mode = {1: "L", 3: "RGB", 4: "CMYK"}[len(image.colour)] + ("" if image.alpha is None else "A")
        result = Image.fromarray(_rows(to_uint8(as_float(planes))), mode)
    result.info.update(image.metadata)
    return result


def ending_of(path: str | os.PathLike) -> str:
    """The ending of the file that can hold what is in this one; its own where it cannot be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with _open(path) as file:
                return _ending(Path(path), file)
    except Exception:
        return Path(path).suffix


def _open(path: str | os.PathLike) -> Image.Image:
    path = Path(path)
    if not path.is_file():  # a FIFO would keep us waiting
        known = {path.is_dir(): "a folder, not an image", path.is_symlink(): "no such file (a dangling link)"}
        raise UserError(f"{path}: {known.get(True, 'not a file' if path.exists() else 'no such file')}")
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # ours is the caller's
    try:
        return Image.open(path)
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _is_deep(file: Image.Image) -> bool:
    """Whether it holds more than 8 bits a channel; of 16-bit RGB Pillow would give 8 without a word."""
    tile = getattr(file, "tile", None)
    stored = str(tile[0].args) if tile else ""  # as "RGB;16B"
    deep_ppm = re.fullmatch(r"\('\w+', (\d+)\)", stored)  # its largest value
    deep = file.mode.startswith(("I", "F")) or re.search(";(16|32)[BLNS]", stored)
    return bool(deep or (deep_ppm and int(deep_ppm[1]) > 255))


def _ending(path: Path, file: Image.Image) -> str:
    """The file's own if its content is of that kind, can be written, and can hold what will be written."""
    kind = {"MPO": "JPEG"}.get(str(file.format), str(file.format))
    if kind not in _FORMATS or file.mode in ("1", "P", "PA") or (kind == "BMP" and file.mode == "RGBA"):
        return ".png"
    if _is_deep(file) and kind != "TIFF":
        return ".png"
    same = Image.registered_extensions().get(path.suffix.lower()) == kind
    return path.suffix if same else _FORMATS[kind]


def _metadata(image: Image.Image, tiff: bool, ending: str) -> dict[str, Any]:
    """ICC profile, EXIF and resolution; of a TIFF's tags, which are all EXIF to Pillow, those not about its layout."""
    found = {key: image.info[key] for key in ("icc_profile", "dpi") if image.info.get(key)}
    kept, exif = Image.Exif(), image.getexif()
    for tag, value in exif.items():
        if tag in _TEXTS or not (tiff or tag in (ExifTags.Base.Orientation, *ExifTags.IFD)):
            kept[tag] = value
    for part in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        if values := dict(exif.get_ifd(part)):
            kept.get_ifd(part).update(values)
    if len(kept) or any(len(kept.get_ifd(part)) for part in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)):
        found["exif"] = kept if ending.lower() in (".tif", ".tiff") else kept.tobytes()
    return found


def _planes(image: Image.Image) -> tuple[Tensor, Tensor | None]:
    """Colour and alpha of a Pillow image of any 8-bit mode."""
    gray = image.mode in ("1", "L", "LA", "La") or (image.mode == "P" and _gray_palette(image))
    if image.mode == "CMYK":
        return _tensor(image), None
    if not image.has_transparency_data:
        return _tensor(image.convert("L" if gray else "RGB")), None
    rgba = _tensor(image.convert("RGBA"))
    colour, alpha = rgba[:1] if gray else rgba[:3], rgba[3:]
    # A palette's transparency that no pixel uses is none; a channel of its own stays.
    return colour.contiguous(), alpha.contiguous() if image.mode.lower().endswith("a") or alpha.min() < 255 else None


def _gray_palette(image: Image.Image) -> bool:
    red, green, blue = (image.getpalette("RGB")[channel::3] for channel in range(3))  # type: ignore[index]
    return red == green == blue


def _tensor(image: Image.Image) -> Tensor:
    array = np.array(image)
    return torch.from_numpy(array).reshape(*array.shape[:2], -1).permute(2, 0, 1).contiguous()


def _all_planes(image: ImageFile) -> Tensor:
    return image.colour if image.alpha is None else torch.cat([image.colour, image.alpha])


def _rows(planes: Tensor) -> np.ndarray:
    array = planes.permute(1, 2, 0).contiguous().cpu().numpy()
    return array[..., 0] if array.shape[2] == 1 else array


def _has_extra() -> bool:
    return bool(find_spec("imagecodecs") and find_spec("tifffile"))


def _is_tiff(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(2) in (b"II", b"MM")


def _read_deep(path: Path, ending: str, metadata: dict[str, Any], max_pixels: int) -> ImageFile:
    if not _has_extra():
        raise UserError(f"{path}: 16 bits a channel need an extra: pip install -e '.[deep]', or convert it to 8 bits")
    import imagecodecs
    import tifffile

    try:
        if _is_tiff(path):
            with tifffile.TiffFile(path) as file:
                if np.prod(file.pages[0].shape) > 4 * max_pixels:
                    raise ValueError(f"{file.pages[0].shape} are more than {max_pixels} pixels; max_pixels=")
                array = file.pages[0].asarray()
        else:
            array = imagecodecs.imread(path)
    except Exception as error:
        raise UserError(f"{path}: not an image that can be read ({' '.join(str(error).split())})") from None
    if array.dtype != np.uint16 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 2, 3, 4)):
        raise UserError(f"{path}: {array.dtype} of {array.shape}: only 8 and 16 bits of gray or RGB are taken")
    planes = torch.from_numpy(array.reshape(*array.shape[:2], -1).copy()).permute(2, 0, 1).contiguous()
    colours = len(planes) - (len(planes) + 1) % 2  # one or three
    return ImageFile(planes[:colours], planes[colours:] if colours < len(planes) else None, ending, metadata)


def write_file(path: str | os.PathLike, image: ImageFile) -> None:
    """Write it in the format that the path's ending names, whole or not at all; UserError if that cannot hold it."""
    write_bytes(path, encode(path, image))


def write_image(path: str | os.PathLike, image: Tensor) -> None:
    """Write [C, H, W], uint8, in the format that the ending names."""
    write_file(path, ImageFile(image))


def save_image(image: Image.Image, path: str | os.PathLike) -> None:
    """Write an image of Pillow's in the format that the ending names."""
    write_bytes(path, _encode(Path(path), image, {}))


def encode(path: str | os.PathLike, image: ImageFile) -> memoryview:
    """The bytes of an image's file: in memory first, so that no full disk leaves half an image."""
    path, planes = Path(path), _all_planes(image)
    if planes.dtype == torch.uint16:
        return _encode_deep(path, _rows(planes), image.metadata)
    return _encode(path, to_pillow(image), image.metadata)


def _encode(path: Path, image: Image.Image, metadata: dict[str, Any]) -> memoryview:
    kind, content = Image.registered_extensions().get(path.suffix.lower()), io.BytesIO()
    try:
        image.save(content, kind or path.suffix, **({"quality": 95} if kind in ("JPEG", "WEBP") else {}), **metadata)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: {kind or path.suffix} cannot hold a {image.mode} image ({error})") from error
    return content.getbuffer()


def _encode_deep(path: Path, array: np.ndarray, metadata: dict[str, Any]) -> memoryview:
    import imagecodecs
    import tifffile

    if path.suffix.lower() == ".png":
        return memoryview(imagecodecs.png_encode(array))
    if path.suffix.lower() not in (".tif", ".tiff"):
        raise UserError(f"{path}: 16 bits a channel go into .png or .tif")
    options: dict[str, Any] = {"photometric": "minisblack" if array.ndim == 2 or array.shape[2] == 2 else "rgb"}
    if array.ndim == 3 and array.shape[2] in (2, 4):
        options["extrasamples"] = ["unassalpha"]
    options |= {"iccprofile": metadata.get("icc_profile"), "compression": "deflate"}
    if dpi := metadata.get("dpi"):
        options |= {"resolution": tuple(map(float, dpi)), "resolutionunit": "INCH"}
    content = io.BytesIO()
    tifffile.imwrite(content, array, **options)
    return content.getbuffer()


def write_bytes(path: str | os.PathLike, content: bytes | memoryview, fsync: bool = False) -> None:
    """Write a file, whole or not at all: see `replacing`."""
    with replacing(path, fsync) as temporary:
        temporary.write_bytes(content)


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
                _sync(temporary)
            os.replace(temporary, path)
            if fsync and os.name != "nt":  # where a folder cannot be opened
                _sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror or error})") from error


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


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


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """The files' names, without the ending where that still tells them apart."""
    stems = Counter(path.stem for path in paths)
    names = [path.stem if stems[path.stem] == 1 else path.name for path in paths]
    return names if len(set(names)) == len(names) else [path.name for path in paths]
