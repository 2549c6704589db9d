"""An image file in, an image file out: pixels, and whatever else a copy needs to be of the same kind."""

import os
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from srcnn.errors import UserError
from srcnn.image import to_uint8

EXTENSIONS = {".bmp", ".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}
MAX_PIXELS = 178_956_970  # beyond it Pillow calls an image a decompression bomb
_FORMATS = {"BMP": ".bmp", "JPEG": ".jpg", "PNG": ".png", "TIFF": ".tif", "WEBP": ".webp"}  # those we write
_TEXTS = {0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298}  # of a TIFF's tags, those not about its layout


@dataclass
class Picture:
    """What is in an image file.

    colour    [C, H, W], uint8 or uint16: C is 1 for gray, 3 for RGB, 4 for CMYK
    alpha     [1, H, W] of the same type, or None
    ending    of the files that can hold it, as ".png"
    metadata  as Pillow's `save` takes it: icc_profile, exif, dpi
    """

    colour: Tensor
    alpha: Tensor | None = None
    ending: str = ".png"
    metadata: dict[str, Any] = field(default_factory=dict)


def read_picture(path: str | os.PathLike, max_pixels: int = MAX_PIXELS, deep: bool = True) -> Picture:
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
    except FileNotFoundError:
        raise UserError(f"{path}: no such file" + (" (a dangling link)" if path.is_symlink() else "")) from None
    except IsADirectoryError:
        raise UserError(f"{path}: a folder, not an image") from None
    except Exception as error:  # Pillow's decoders raise nearly anything on a broken file
        if deep and _has_extra() and isinstance(error, UnidentifiedImageError) and _is_tiff(path):
            return _read_deep(path, path.suffix, {}, max_pixels)  # there are such as Pillow does not know
        reason = " ".join(str(error).replace(f" '{path}'", "").split())
        raise UserError(f"{path}: not an image that Pillow can read ({reason})") from None
    if is_deep and not deep:
        raise UserError(f"{path}: more than 8 bits a channel; convert it to 8 bits first")
    if is_deep:
        return _read_deep(path, ending, metadata, max_pixels)
    return Picture(*_planes(image), ending, metadata)


def read_image(path: str | os.PathLike) -> Tensor:
    """An image to train or test on: [C, H, W], uint8, C being 1 for a gray image, else 3 (RGB).

    Raises UserError for what `read_picture` refuses, and for more than 8 bits or transparency, which would be lost.
    """
    picture = read_picture(path, deep=False)
    if picture.alpha is not None and picture.alpha.min() < 255:
        raise UserError(f"{path}: has transparency; flatten it first")
    if len(picture.colour) == 4:
        cmyk = Image.fromarray(_rows(picture.colour), "CMYK")
        return torch.from_numpy(np.array(cmyk.convert("RGB"))).permute(2, 0, 1).contiguous()
    return picture.colour


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


def _rows(planes: Tensor) -> np.ndarray:
    array = planes.permute(1, 2, 0).contiguous().cpu().numpy()
    return array[..., 0] if array.shape[2] == 1 else array


def to_pillow(image: Tensor) -> Image.Image:
    """[C, H, W] in [0, 1] as Pillow has it, in 8 bits."""
    return Image.fromarray(_rows(to_uint8(image)))


def _has_extra() -> bool:
    return bool(find_spec("imagecodecs") and find_spec("tifffile"))


def _is_tiff(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(2) in (b"II", b"MM")


def _read_deep(path: Path, ending: str, metadata: dict[str, Any], max_pixels: int) -> Picture:
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
    return Picture(planes[:colours], planes[colours:] if colours < len(planes) else None, ending, metadata)


def write_picture(path: str | os.PathLike, picture: Picture) -> None:
    """Write it in the format that the path's ending names, whole or not at all; UserError if that cannot hold it."""
    path = Path(path)
    planes = picture.colour if picture.alpha is None else torch.cat([picture.colour, picture.alpha])
    if planes.dtype == torch.uint16:
        return _write_deep(path, _rows(planes), picture.metadata)
    mode = {1: "L", 3: "RGB", 4: "CMYK"}[len(picture.colour)] + ("" if picture.alpha is None else "A")
    save_image(Image.fromarray(_rows(planes), mode), path, **picture.metadata)


def _write_deep(path: Path, array: np.ndarray, metadata: dict[str, Any]) -> None:
    import imagecodecs
    import tifffile

    with replacing(path) as temporary:
        if path.suffix.lower() in (".tif", ".tiff"):
            options: dict[str, Any] = {"photometric": "minisblack" if array.ndim == 2 or array.shape[2] == 2 else "rgb"}
            if array.ndim == 3 and array.shape[2] in (2, 4):
                options["extrasamples"] = ["unassalpha"]
            options |= {"iccprofile": metadata.get("icc_profile"), "compression": "deflate"}
            if dpi := metadata.get("dpi"):
                options |= {"resolution": tuple(map(float, dpi)), "resolutionunit": "INCH"}
            tifffile.imwrite(temporary, array, **options)
        elif path.suffix.lower() == ".png":
            temporary.write_bytes(imagecodecs.png_encode(array))
        else:
            raise UserError(f"{path}: 16 bits a channel go into .png or .tif")


def write_image(path: str | os.PathLike, image: Tensor) -> None:
    """Write [C, H, W], uint8, in the format that the ending names."""
    write_picture(path, Picture(image))


def save_image(image: Image.Image, path: str | os.PathLike, **metadata: Any) -> None:
    """A Pillow image into a file, whole or not at all; JPEG and WebP at quality 95."""
    path = Path(path)
    kind = Image.registered_extensions().get(path.suffix.lower())
    with replacing(path) as temporary:
        try:
            image.save(temporary, kind, **({"quality": 95} if kind in ("JPEG", "WEBP") else {}), **metadata)
        except (OSError, ValueError, KeyError) as error:
            if isinstance(error, OSError) and error.errno:
                raise
            raise UserError(f"{path}: {kind or path.suffix} cannot hold a {image.mode} image ({error})") from None


class replacing:  # noqa: N801 (reads as open() does)
    """`with replacing(path) as temporary`: write there; it becomes `path` at the end, or vanishes on an error.

    fsync  have it on the disk before it takes the place of what was there, so that not even a power cut loses both
    """

    def __init__(self, path: str | os.PathLike, fsync: bool = False):
        self.path, self.fsync = Path(path), fsync

    def __enter__(self) -> Path:
        # Always the same name, so that what a kill leaves behind is overwritten the next time.
        self.temporary = self.path.with_name(f".{self.path.name[:100]}.part")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.temporary.touch()
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written ({error.strerror})") from None
        return self.temporary

    def __exit__(self, kind: type | None, *_: object) -> None:
        try:
            if kind is None:
                if self.fsync:
                    _sync(self.temporary)
                os.replace(self.temporary, self.path)
                if self.fsync and os.name != "nt":  # where a folder cannot be opened
                    _sync(self.path.parent)
        finally:
            self.temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def list_images(folder: str | os.PathLike) -> list[Path]:
    """The image files of a folder, by name."""
    return sorted(path for path in Path(folder).iterdir() if is_image_name(path) and path.is_file())


def walk_images(folder: str | os.PathLike) -> Iterator[Path]:
    """Whatever is called like an image in a folder and those below it, by name: dangling links and folders too."""
    for path in sorted(Path(folder).iterdir()):
        if is_image_name(path):
            yield path
        if path.is_dir() and not path.is_symlink():
            yield from walk_images(path)


def is_image_name(path: Path) -> bool:
    """By its ending; a hidden file is none."""
    return path.suffix.lower() in EXTENSIONS and not path.name.startswith(".")


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """The files' names, without the ending where that still tells them apart."""
    stems = Counter(path.stem for path in paths)
    names = [path.stem if stems[path.stem] == 1 else path.name for path in paths]
    return names if len(set(names)) == len(names) else [path.name for path in paths]
