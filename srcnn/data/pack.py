"""A training set in one file: HR and LR pixels in 8 bits, made once, then mapped by every run and every process."""

import hashlib
import inspect
import json
import marshal
import mmap
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from platformdirs import user_cache_dir
from torch import Tensor
from tqdm import tqdm

import srcnn.image
from srcnn.data.degrade import Degradation
from srcnn.data.sources import Source, read_versions
from srcnn.errors import RunError
from srcnn.files import replacing

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
            header = json.loads(content[-8 - text_bytes : -8])
        except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: of an empty or damaged one
            return None
        sizes, scale, versions = np.array(header["sizes"], int).reshape(-1, 2), header["scale"], header["versions"]
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
    if found := Pack.open(path):
        return found
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_suffix(".lock")).acquire()
    except OSError as error:
        raise RunError(f"{folder}: cannot be written ({error.strerror}); name another in $SRCNN_CACHE") from error
    with lock:
        if not Pack.open(path):  # another process may have made it meanwhile
            with replacing(path) as temporary:
                _write(temporary, images, scale, degradation)
        found = Pack.open(path)
        assert found
        return found


def _key(images: Mapping[str, Source], scale: int, degradation: Degradation) -> str:
    """A name for the pack: another if anything is that its pixels depend on, also the code that makes them."""
    sources = {_code_of(cls) for cls in {type(degradation), *map(type, images.values())}}
    code = sorted(hashlib.sha256(text).hexdigest() for text in sources | {Path(srcnn.image.__file__).read_bytes()})
    settings = [type(degradation).__qualname__, sorted(vars(degradation).items())]
    content = [[name, source.identity()] for name, source in images.items()]
    digest = hashlib.sha256(json.dumps([_FORMAT, code, scale, settings, content], default=repr).encode())
    words = re.sub(r"\W+", "-", f"x{scale} {degradation.describe()}")[:60]
    return f"{words}-{digest.hexdigest()[:16]}"


def _code_of(cls: type) -> bytes:
    try:
        return Path(inspect.getfile(cls)).read_bytes()
    except (OSError, TypeError):  # typed in a notebook
        functions = filter(inspect.isfunction, vars(cls).values())
        return b"".join(marshal.dumps(function.__code__) for function in functions)


def _write(path: Path, images: Mapping[str, Source], scale: int, degradation: Degradation) -> None:
    def rows(image: tuple[str, Source]) -> tuple[tuple[int, int], np.ndarray]:
        hr, lr = read_versions(*image, scale, degradation)
        pixels = torch.cat([x.expand(3, -1, -1).flatten(1).T for x in (hr, *lr)]).numpy()
        return (hr.shape[1], hr.shape[2]), pixels

    sizes = []
    with open(path, "wb") as file:
        found = _in_threads(rows, list(images.items()))
        for size, pixels in tqdm(found, "packing", len(images), unit="image", delay=1, disable=None):
            if min(size) > 0:
                sizes.append(size)
                file.write(pixels.data)
        text = json.dumps({"scale": scale, "versions": degradation.versions, "sizes": sizes}).encode()
        file.write(text + len(text).to_bytes(8, "little"))


def _in_threads(function: Callable[[Any], Any], items: Sequence) -> Iterator[Any]:
    """`map(function, items)` by a thread a core; Pillow and torch let others run while they compute."""
    cores = os.cpu_count() or 1
    with ThreadPoolExecutor(cores) as threads:
        for start in range(0, len(items), 2 * cores):  # results would pile up if they are written slowly
            yield from threads.map(function, items[start : start + 2 * cores])
