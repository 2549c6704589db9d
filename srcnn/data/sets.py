"""The named image sets: where they are looked for, where they are downloaded from, and their sha256."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import pooch
from filelock import FileLock
from tqdm import tqdm

from srcnn.errors import UserError
from srcnn.files import is_image_name, list_images


@dataclass(frozen=True)
class ImageSet:
    """Where a named set is: `folders` below data.root to look in, and where it is fetched from, if it can be.

    urls     base addresses of its files, tried one after the other; SETNAME.sha256 beside this module lists the files
    archive  or the address of a zip archive, of which no sha256 is published

    No source states a licence for most of these images, so they are fetched on demand and never shipped.
    """

    folders: Sequence[str]
    urls: Sequence[str] = ()
    archive: str | None = None


def _benchmark(name: str) -> list[str]:
    """Folders in which others keep a test set."""
    return [name, f"{name}/HR", f"benchmark/{name}/HR"]


_TEGG89 = "https://raw.githubusercontent.com/tegg89/SRCNN-Tensorflow/78be1a24697935fc39a3a8cf59a6632264afade7"
_JINSUYOO = "https://raw.githubusercontent.com/jinsuyoo/SRCNN-Tensorflow/96bc774846f0817ebb9a985e291cb28af2ef1c4c"
_QOBILIDOP = "https://raw.githubusercontent.com/qobilidop/srcnn/110fcc574a22e0e87d88007670fa1dd1e553254b"
_T91 = (f"{_TEGG89}/Train", f"{_JINSUYOO}/Train/91", f"{_QOBILIDOP}/data/91-image")
_SET5 = (f"{_TEGG89}/Test/Set5", f"{_JINSUYOO}/Test/Set5", f"{_QOBILIDOP}/data/Set5")
_DIV2K = "http://data.vision.ee.ethz.ch/cvl/DIV2K/DIV2K_train_HR.zip"  # 3.5 GB; not served by https

SETS = {
    "T91": ImageSet(["T91", "91-image", "91-Image"], _T91),
    "Set5": ImageSet(_benchmark("Set5"), _SET5),
    "Set14": ImageSet(_benchmark("Set14"), [f"{_TEGG89}/Test/Set14"]),
    "BSD100": ImageSet(_benchmark("BSD100") + _benchmark("B100")),
    "Urban100": ImageSet(_benchmark("Urban100")),
    "DIV2K": ImageSet(["DIV2K/DIV2K_train_HR", "DIV2K_train_HR", "DIV2K"], archive=_DIV2K),
    "DF2K": ImageSet(["DF2K/DF2K_HR", "DF2K_HR", "DF2K"]),
}
PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png")


def find_images(name: str, root: str | Path) -> list[Path]:
    """The image files of a named set (one of SETS, or "photos"), or of a folder, by name.

    A named set is looked for below `root`, its known files checked against their sha256; what is missing of a set
    with an address is downloaded there. Raises UserError.
    """
    if name == "photos":
        return _photos()
    if name in SETS:
        return _named(name, Path(root))
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


def _named(name: str, root: Path) -> list[Path]:
    folders, sums = [root / folder for folder in SETS[name].folders], _sums(name)
    for folder in folders:
        known = [path for file in sums if (path := folder / file).is_file()]
        for path in known:
            if pooch.file_hash(str(path)) != sums[path.name]:
                raise UserError(f"{path} is damaged or another image, by its sha256: delete it and run again")
        if known:
            return _download(name, folder)  # what is missing
        if folder.is_dir() and (paths := list_images(folder)):
            return paths  # somebody's own copy, under names of their own
    return _download(name, folders[0])


def _sums(name: str) -> dict[str, str]:
    """File name -> sha256 of a set, from a list as `sha256sum` writes it; empty where there is none."""
    path = Path(__file__).with_name(f"{name}.sha256")
    lines = path.read_text().splitlines() if path.is_file() else []
    return {file: digest for digest, file in map(str.split, lines)}


def _download(name: str, folder: Path) -> list[Path]:
    image_set, sums = SETS[name], _sums(name)
    remedy = (
        f"put its images into {folder}, or name the folder that has {image_set.folders[0]} in $SRCNN_DATA; "
        "without any download, data=leaves trains on generated images and data.test=[photos] tests on photographs"
    )
    if not (image_set.urls or image_set.archive):
        raise UserError(f"image set {name} is not below {folder.parent}, and has no download: {remedy}")
    pooch.get_logger().setLevel("WARNING")
    missing = [file for file in sums if not (folder / file).exists()]
    try:
        if image_set.archive:
            _fetch_archive(image_set.archive, folder)
        for file in tqdm(missing, f"downloading {name}", unit="file", disable=not missing):
            _fetch([f"{url}/{file}" for url in image_set.urls], sums[file], folder / file)
    except (OSError, ValueError, BadZipFile) as error:  # ValueError: pooch's, for a file of another sha256
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{name} could not be downloaded ({reason}): {remedy}") from error
    return [folder / file for file in sorted(sums)] or list_images(folder)


def _fetch(urls: Sequence[str], sha256: str, path: Path) -> None:
    """Download a file from the first of some addresses that has it; it is written whole or not at all."""
    failure: Exception
    for url in urls:
        try:
            pooch.retrieve(url, sha256, path.name, path.parent, downloader=pooch.HTTPDownloader(timeout=30))
            return
        except (OSError, ValueError) as error:
            failure = error
    raise failure


def _fetch_archive(url: str, folder: Path) -> None:
    """Download a zip archive; its images are put into `folder`, which appears when all are there."""
    downloader, unpacked = pooch.HTTPDownloader(timeout=30, progressbar=True), folder.with_name(f".{folder.name}.part")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):  # of processes that start together one downloads
        if folder.is_dir() and list_images(folder):
            return
        archive = Path(pooch.retrieve(url, None, f".{folder.name}.zip", folder.parent, downloader=downloader))
        try:
            with ZipFile(archive) as file:
                for member in file.infolist():
                    member.filename = Path(member.filename).name  # out of whatever folder it is in
                    if is_image_name(Path(member.filename)):
                        file.extract(member, unpacked)
        except BadZipFile:
            archive.unlink()  # or it would be taken for the archive again
            raise
        unpacked.rename(folder)
        archive.unlink()
