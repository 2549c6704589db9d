"""A training set in one file: HR and LR pixels in 8 bits, made once, then mapped by every run and every process."""

import hashlib
import inspect
import json
import mmap
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout
from platformdirs import user_cache_dir
from torch import Tensor
from tqdm import tqdm

import srcnn.image
from srcnn.data.degrade import Degradation
from srcnn.data.pool import in_order
from srcnn.data.sources import Source, read_versions
from srcnn.errors import RunError

_FORMAT = "srcnn pack 1"  # a change of what lies in the file gets another number


@dataclass(frozen=True)
class Pack:
    """Images as rows of R, G, B: of each image the HR pixels, then those of each version of its LR image.

    pixels  [rows, 3], uint8, a read-only map of the file
    sizes   [images, 2]: height and width of HR, multiples of `scale`
    hr      [images]: the row of the first HR pixel
    lr      [images, versions]: the row of the first LR pixel
    """

    path: Path
    pixels: Tensor
    scale: int
    sizes: np.ndarray
    hr: np.ndarray
    lr: np.ndarray

    @classmethod
    def open(cls, path: Path) -> "Pack | None":
        """Map a pack; None where there is none that is whole."""
        try:
            with open(path, "rb") as file:
                content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)  # lives on when the file is closed
            text_bytes = int.from_bytes(content[-8:], "little")
            about = json.loads(content[-8 - text_bytes : -8])
        except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: of an empty or damaged one
            return None
        sizes, scale, versions = np.array(about["sizes"], int).reshape(-1, 2), about["scale"], about["versions"]
        hr_rows = sizes.prod(1)
        lr_rows = hr_rows // scale**2
        first = np.cumsum([0, *(hr_rows + versions * lr_rows)])
        if 3 * first[-1] + text_bytes + 8 != len(content):
            return None
        if hasattr(mmap, "MADV_RANDOM") and len(content) > os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2:
            content.madvise(mmap.MADV_RANDOM)  # patches are a few pixels here and there: read nothing ahead
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it can't be written
            pixels = torch.frombuffer(content, dtype=torch.uint8)[: 3 * int(first[-1])].view(-1, 3)
        lr = (first[:-1] + hr_rows)[:, None] + lr_rows[:, None] * np.arange(versions)
        return cls(path, pixels, scale, sizes, first[:-1], lr)


def pack(images: Mapping[str, Source], scale: int, degradation: Degradation) -> Pack:
    """The pack of some images, by name; made if it is not there. Images smaller than the scale are left out.

    It lies in $SRCNN_CACHE, else in the user's folder for caches, until someone removes it. Whoever wants the same
    pack meanwhile waits for it. RunError where the file can't be written.
    """
    folder = Path(os.environ.get("SRCNN_CACHE") or user_cache_dir("srcnn"))
    path = folder / f"{_key(images, scale, degradation)}.pack"
    if there := Pack.open(path):
        return there
    lock = FileLock(path.with_suffix(".lock"))
    with _writing(path):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            held = lock.acquire(timeout=0)  # the system lets go of it when its holder dies
        except Timeout:
            print(f"waiting for another run, which is packing the same images into {path}", flush=True)
            held = lock.acquire()
    with held:
        if not (there := Pack.open(path)):
            _remove_leftovers(folder)
            _build(path, images, scale, degradation)
            there = Pack.open(path)
        assert there
        return there


def _key(images: Mapping[str, Source], scale: int, degradation: Degradation) -> str:
    """A name for the pack: another if anything is that its pixels depend on, also the code that makes them."""
    classes = {type(degradation), *map(type, images.values())}
    files = {srcnn.image.__file__, *map(inspect.getfile, classes)}
    code = sorted(hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in files)
    settings = [type(degradation).__qualname__, sorted(vars(degradation).items())]
    content = [[name, source.identity()] for name, source in images.items()]
    digest = hashlib.sha256(json.dumps([_FORMAT, code, scale, settings, content], default=repr).encode())
    words = re.sub(r"\W+", "-", f"x{scale} {degradation.describe()}")[:60]
    return f"{words}-{digest.hexdigest()[:16]}"


def _remove_leftovers(folder: Path) -> None:
    """What killed processes left half done; this pack's own will be overwritten."""
    for part in folder.glob("*.part"):
        with suppress(Timeout), FileLock(part.with_suffix(".lock"), timeout=0):
            part.unlink(missing_ok=True)


def _build(path: Path, images: Mapping[str, Source], scale: int, degradation: Degradation) -> None:
    part = path.with_suffix(".part")
    sizes = []
    try:
        with _writing(path):
            file = open(part, "wb")  # noqa: SIM115
        with file:
            make = partial(_rows, scale=scale, degradation=degradation)
            progress = tqdm(in_order(make, images.items()), "packing", len(images), unit="image", delay=1, disable=None)
            for size, rows in progress:
                if min(size) > 0:
                    sizes.append(size)
                    with _writing(path):
                        file.write(rows.data)
            about = {"scale": scale, "versions": degradation.versions, "sizes": sizes}
            text = json.dumps(about).encode()
            with _writing(path):
                file.write(text + len(text).to_bytes(8, "little"))
                file.flush()
                os.fsync(file.fileno())
                file.close()
                os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _rows(image: tuple[str, Source], scale: int, degradation: Degradation) -> tuple[tuple, np.ndarray]:
    """Height and width of an image, and all its pixels."""
    hr, lr = read_versions(*image, scale, degradation)
    return tuple(hr.shape[1:]), torch.cat([x.expand(3, -1, -1).flatten(1).T for x in (hr, *lr)]).numpy()


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        remedy = "make room, or name another folder in $SRCNN_CACHE"
        raise RunError(f"{path}: cannot be written ({error.strerror or error}); {remedy}") from error
