"""The named image sets: where they are looked for, where they are downloaded from, and their sha256."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from zipfile import BadZipFile

import pooch
from filelock import FileLock
from tqdm import tqdm

from srcnn.errors import UserError
from srcnn.files import is_image_name, list_images


def _sums(name: str) -> dict[str, str]:
    """File name -> sha256, from a list as `sha256sum` writes it."""
    lines = Path(__file__).with_name(f"{name}.sha256").read_text().splitlines()
    return {file: digest for digest, file in (line.split() for line in lines)}


@dataclass(frozen=True)
class ImageSet:
    """A set by its name: `folders` below data.root to look in, and where it is fetched from, if it can be.

    files    file names with their sha256, and their base addresses `urls`, tried one after the other
    archive  or the address of a zip archive, of which no sha256 is published

    No source states a licence for most of these images, so they are fetched on demand and never shipped.
    """

    name: str
    folders: Sequence[str]
    files: Mapping[str, str] = field(default_factory=dict)
    urls: Sequence[str] = ()
    archive: str | None = None


def _benchmark(name: str, *urls: str, other: str | None = None) -> ImageSet:
    """A test set, which others keep in folders of these names; with a list of sums if it has addresses."""
    names = [name, other] if other else [name]
    folders = [*names, *(f"{one}/HR" for one in names), f"benchmark/{names[-1]}/HR"]
    return ImageSet(name, folders, _sums(name) if urls else {}, urls)


_TEGG89 = "https://raw.githubusercontent.com/tegg89/SRCNN-Tensorflow/78be1a24697935fc39a3a8cf59a6632264afade7"
_JINSUYOO = "https://raw.githubusercontent.com/jinsuyoo/SRCNN-Tensorflow/96bc774846f0817ebb9a985e291cb28af2ef1c4c"
_QOBILIDOP = "https://raw.githubusercontent.com/qobilidop/srcnn/110fcc574a22e0e87d88007670fa1dd1e553254b"
_T91 = (f"{_TEGG89}/Train", f"{_JINSUYOO}/Train/91", f"{_QOBILIDOP}/data/91-image")
_SET5 = (f"{_TEGG89}/Test/Set5", f"{_JINSUYOO}/Test/Set5", f"{_QOBILIDOP}/data/Set5")
_DIV2K = "http://data.vision.ee.ethz.ch/cvl/DIV2K/DIV2K_train_HR.zip"  # 3.5 GB; not served by https

_SETS = (
    ImageSet("T91", ("T91", "91-image", "91-Image"), _sums("T91"), _T91),
    _benchmark("Set5", *_SET5),
    _benchmark("Set14", f"{_TEGG89}/Test/Set14"),
    _benchmark("BSD100", other="B100"),
    _benchmark("Urban100"),
    ImageSet("DIV2K", ("DIV2K/DIV2K_train_HR", "DIV2K_train_HR", "DIV2K"), archive=_DIV2K),
    ImageSet("DF2K", ("DF2K/DF2K_HR", "DF2K_HR", "DF2K")),
)
SETS = {image_set.name: image_set for image_set in _SETS}
PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png")


def find_images(name: str, root: str | Path) -> list[Path]:
    """The image files of a named set (one of SETS, or "photos"), or of a folder, by name.

    A named set is looked for below `root`, its known files checked against their sha256; what is missing of a set
    with an address is downloaded there. Raises UserError.
    """
    if name == "photos":
        return _photos()
    if name in SETS:
        return _named(SETS[name], Path(root))
    folder = Path(name)
    if not folder.is_dir():
        raise UserError(f"no image set or folder '{name}'; the named sets are {', '.join(SETS)} and photos")
    paths = list_images(folder)
    if not paths:
        raise UserError(f"no image files in {folder}")
    return paths


def _photos() -> list[Path]:
    spec = find_spec("skimage")
    folder = Path(spec.origin).parent / "data" if spec and spec.origin else Path()
    paths = [folder / name for name in PHOTOS]
    if not all(path.is_file() for path in paths):
        raise UserError("the set 'photos' comes with scikit-image: pip install -e '.[photos]', or choose data.test")
    return paths


def _named(image_set: ImageSet, root: Path) -> list[Path]:
    for folder in (root / name for name in image_set.folders):
        known = [name for name in image_set.files if (folder / name).is_file()]
        if known:
            for path, sha256 in ((folder / name, image_set.files[name]) for name in known):
                if pooch.file_hash(str(path)) != sha256:
                    raise UserError(f"{path} is damaged or another image, by its sha256: delete it and run again")
            if len(known) == len(image_set.files):
                return [folder / name for name in sorted(image_set.files)]
            return _download(image_set, folder)
        if folder.is_dir() and (paths := list_images(folder)):
            return paths  # somebody's own copy, under names of their own
    return _download(image_set, root / image_set.folders[0])


def _download(image_set: ImageSet, folder: Path) -> list[Path]:
    remedy = (
        f"put its images into {folder}, or name the folder that has {image_set.folders[0]} in $SRCNN_DATA; "
        "without any download, data=leaves trains on generated images and data.test=[photos] tests on photographs"
    )
    if not (image_set.urls or image_set.archive):
        raise UserError(f"image set {image_set.name} is not below {folder.parent}, and has no download: {remedy}")
    pooch.get_logger().setLevel("WARNING")
    try:
        if image_set.archive:
            return _fetch_archive(image_set.archive, folder)
        names = sorted(image_set.files)
        return [_fetch(image_set, name, folder) for name in tqdm(names, f"downloading {image_set.name}", unit="file")]
    except (OSError, ValueError, BadZipFile) as error:  # ValueError: pooch's, for a file of another sha256
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{image_set.name} could not be downloaded ({reason}): {remedy}") from error


def _fetch(image_set: ImageSet, name: str, folder: Path) -> Path:
    downloader = pooch.HTTPDownloader(timeout=30)
    for url in image_set.urls:
        # pooch writes beside the place, checks the hash, then renames; a file that exists is not fetched again.
        source = pooch.create(folder, url + "/", registry={name: image_set.files[name]}, retry_if_failed=1)
        try:
            return Path(source.fetch(name, downloader=downloader))
        except (OSError, ValueError) as error:
            failure = error
    raise failure


def _fetch_archive(url: str, folder: Path) -> list[Path]:
    """The images of a zip archive in `folder`, which appears when all are there."""
    downloader, unpacked = pooch.HTTPDownloader(timeout=30, progressbar=True), folder.with_name(f".{folder.name}.part")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):  # of processes that start together one downloads
        if folder.is_dir() and (paths := list_images(folder)):
            return paths
        archive = Path(pooch.retrieve(url, None, f".{folder.name}.zip", folder.parent, downloader=downloader))
        try:
            files = pooch.Unzip(extract_dir=unpacked.name)(str(archive), "download", None)
        except BadZipFile:
            archive.unlink()  # or it would be taken for the archive again
            raise
        for path in filter(is_image_name, map(Path, files)):
            path.rename(unpacked / path.name)  # out of whatever folder it is in
        for path in unpacked.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
        unpacked.rename(folder)
        archive.unlink()
    return list_images(folder)
