"""A training set in one file: HR and LR pixels in 8 bits, made once, then mapped by every run and every process."""

import hashlib
import inspect
import json
import mmap
import os
import re
import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from platformdirs import user_cache_dir
from torch import Tensor
from tqdm import tqdm

import srcnn.image
from srcnn.data.degrade import Degradation, Given
from srcnn.data.leaves import Leaves
from srcnn.data.sources import Source, read_versions
from srcnn.errors import RunError
from srcnn.files import replacing
from srcnn.image import as_float, to_uint8

_FORMAT = "srcnn pack 2"  # a change of what lies in the file gets another number


@dataclass(frozen=True)
class Pack:
    """Images as rows of R, G, B: of each image the HR pixels, then those of each version of its LR image.

    pixels  [rows, 3], uint8, a read-only map of the file
    sizes   [images, 2]: height and width of HR, multiples of `scale`; 0 for an image smaller than the scale
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
    def open(cls, path: Path) -> "Pack":
        """Map a file that `_write` has written."""
        with open(path, "rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)  # lives on when the file is closed
        length = int.from_bytes(content[-8:], "little")
        header = json.loads(content[-8 - length : -8])
        sizes, scale, versions = np.array(header["sizes"]), header["scale"], header["versions"]
        hr_rows = sizes.prod(1)
        lr_rows = hr_rows // scale**2
        begin = np.cumsum([0, *(hr_rows + versions * lr_rows)])
        if hasattr(mmap, "MADV_RANDOM") and len(content) > os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2:
            content.madvise(mmap.MADV_RANDOM)  # of what memory cannot hold: patches are a few pixels here and there
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it can't be written
            pixels = torch.frombuffer(content, dtype=torch.uint8)[: 3 * int(begin[-1])].view(-1, 3)
        lr = (begin[:-1] + hr_rows)[:, None] + lr_rows[:, None] * np.arange(versions)
        return cls(path, pixels, scale, sizes, begin[:-1], lr)


def pack(images: Mapping[str, Source], scale: int, degradation: Degradation) -> Pack:
    """The pack of some images, by name; made if it is not there.

    It lies in $SRCNN_CACHE, else in the user's folder for caches, until someone removes it. Whoever wants the same
    pack meanwhile waits for it. RunError where the file can't be written.
    """
    folder = Path(os.environ.get("SRCNN_CACHE") or user_cache_dir("srcnn")) / _key(images, scale, degradation)
    path = folder / "pack"
    if path.exists():
        return Pack.open(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "lock").acquire()  # here, as what follows may raise OSErrors of other files
    except OSError as error:
        raise RunError(f"{folder}: cannot be written ({error.strerror}); name another in $SRCNN_CACHE") from error
    with lock:
        if not path.exists():  # another process may have made it meanwhile
            for left_behind in folder.glob(".*.part"):  # by a process that was killed
                left_behind.unlink()
            with replacing(path, fsync=True) as temporary:
                _write(temporary, images, scale, degradation)
    return Pack.open(path)


def _key(images: Mapping[str, Source], scale: int, degradation: Degradation) -> str:
    """A name for the pack: another if anything is that its pixels depend on, also the code that makes them."""
    code = {_code_of(cls) for cls in {type(degradation), *map(type, images.values())}}
    settings = [type(degradation).__qualname__, sorted(vars(degradation).items())]
    content = [[name, source.identity()] for name, source in images.items()]
    made_of = [_FORMAT, sorted(code), Path(srcnn.image.__file__).read_bytes(), scale, settings, content]
    if not isinstance(degradation, Given):  # whatever else it depends on shows in what it makes
        hr, _ = Leaves(0, 24 * scale, seed=0).read()
        probes = [degradation(hr, scale, "probe", version) for version in range(min(2, degradation.versions))]
        made_of.append([to_uint8(as_float(lr)).numpy().tobytes() for lr in probes])
    words = re.sub(r"\W+", "-", f"x{scale} {degradation.describe()}")[:60]
    return f"{words}-{hashlib.sha256(json.dumps(made_of, default=repr).encode()).hexdigest()[:16]}"


def _code_of(cls: type) -> bytes:
    try:
        return Path(inspect.getfile(cls)).read_bytes()
    except (OSError, TypeError):  # typed in a notebook
        return b""


def _write(path: Path, images: Mapping[str, Source], scale: int, degradation: Degradation) -> None:
    def read(image: tuple[str, Source]) -> tuple[tuple[int, int], np.ndarray]:
        hr, lrs = read_versions(*image, scale, degradation, degradation.versions)
        rows = [x.expand(3, -1, -1).flatten(1).T for x in (hr, *(to_uint8(as_float(lr)) for lr in lrs))]
        return (hr.shape[1], hr.shape[2]), torch.cat(rows).numpy()

    items, sizes, cores = list(images.items()), [], os.cpu_count() or 1
    # Threads, as Pillow and torch let others run while they compute; a few images at a time, or results would pile up
    # where they are written slowly.
    with open(path, "wb") as file, ThreadPoolExecutor(cores) as threads:
        for start in tqdm(range(0, len(items), 2 * cores), "packing", delay=1, disable=None):
            for size, pixels in threads.map(read, items[start : start + 2 * cores]):
                sizes.append(size)
                file.write(pixels.data)
        text = json.dumps({"scale": scale, "versions": degradation.versions, "sizes": sizes}).encode()
        file.write(text + len(text).to_bytes(8, "little"))
