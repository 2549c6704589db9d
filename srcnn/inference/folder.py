"""Many image files: which are enlarged, where to, what is done already, and what goes wrong with one of them."""

import hashlib
import json
import math
import os
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from glob import glob, has_magic
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from srcnn.errors import NO_ROOM, UserError
from srcnn.files import is_image_name, replacing
from srcnn.inference.image_file import ImageFile, check_folder, encode, read_file
from srcnn.nets import Network
from srcnn.processes import process_share
from srcnn.checkpoint import WEIGHTS
from srcnn.inference.tiles import enlarge, enlarge_to

_RECORD = ".srcnn.jsonl"

Compare = Callable[[Path, ImageFile, ImageFile], None]  # source file, what is in it, the same enlarged


class Job(NamedTuple):
    """An image file to read, and the folder to write to, or the file where the user has named one."""

    source: Path
    output: Path
    is_file: bool = False


class Records:
    """What we wrote into which folder: a hidden file there, with a line of JSON for each file.

    The line is written before the file is put in place, so that no kill leaves a result that is not known as one. A
    file that is not as we wrote it is the user's. What other processes record meanwhile is read as well.
    """

    def __init__(self) -> None:
        self._ours: set[tuple] = set()  # paths, with size and time
        self._made: dict[str, tuple] = {}  # the like, by folder, weights and source
        self._read: Counter[Path] = Counter()  # bytes, of each folder's record

    def know(self, path: Path) -> bool:
        """Whether a file is there as we wrote it."""
        state = _state(path)  # first, as a file's line is written before it is put in place
        self._catch_up(path.parent)
        return (path, *state) in self._ours

    def find(self, folder: Path, weights: str, of: list) -> Path | None:
        """What was made there by these weights of a file, if it is there as we wrote it."""
        self._catch_up(folder)
        made = self._made.get(str([folder, weights, of]))
        return made[0] if made and made == (made[0], *_state(made[0])) else None

    def add(self, path: Path, written: Path, **facts: Any) -> None:
        """Record a file, which is `written` elsewhere yet."""
        size, mtime = _state(written)
        with open(path.parent / _RECORD, "a", encoding="utf-8") as record:  # a line cut off by a kill spoils no other
            record.write("\n" + json.dumps({"file": path.name, "size": size, "mtime": mtime, **facts}))

    def _catch_up(self, folder: Path) -> None:
        with suppress(OSError), open(folder / _RECORD, "rb") as record:  # there may be none, or it is not for us
            record.seek(self._read[folder])
            for line in record:
                with suppress(ValueError, TypeError, KeyError):
                    entry = json.loads(line)
                    made = (folder / entry["file"], entry["size"], entry["mtime"])
                    self._ours.add(made)
                    self._made[str([folder, entry.get("weights"), entry.get("of")])] = made
                if line.endswith((b"}", b"\n")):  # else another process is about to write the rest
                    self._read[folder] += len(line)


def _state(path: Path) -> list[int]:
    """Size and time of a file; nothing of one that is not there."""
    with suppress(OSError):
        stat = path.stat()
        return [stat.st_size, stat.st_mtime_ns]
    return []


def box_of(cfg: Any, net: Network) -> tuple[float, float] | None:
    """Width and height in pixels that results are to fit into, of cfg's width, height and size; None without them."""
    width, height, size = cfg.width, cfg.height, cfg.size
    found = re.fullmatch(r"(\d+)x(\d+)", str(size or f"{width or 0}x{height or 0}"))
    if not found or (size and (width or height)):
        given = [f"{key}={side}" for key, side in (("width", width), ("height", height), ("size", size)) if side]
        raise UserError(f"{' '.join(given)}: give one, as width=1920, height=1080 or size=1920x1080")
    sides = tuple(int(side) or math.inf for side in found.groups())
    if sides == (math.inf, math.inf):
        return None
    if cfg.input is None or cfg.scale or cfg.reference or net.scale == 1:
        raise UserError("width=, height=, size=: for input=, without scale= or reference=, by a network that enlarges")
    return sides[0], sides[1]


def fingerprint(net: Network, arguments: Any) -> str:
    """A hash that tells networks apart, by class, arguments and weights."""
    digest = hashlib.sha256(json.dumps([type(net).__name__, net.scale, arguments]).encode())
    for key, value in net.state_dict().items():
        digest.update(key.encode() + value.cpu().contiguous().flatten().double().numpy().tobytes())
    return digest.hexdigest()


def find_jobs(source: str, output: str | None, records: Records) -> list[Job]:
    """Each image to read, of a file, a folder or a glob, and where to write; the tree of a folder is kept.

    What we wrote ourselves is no input, unless it is named by itself. Hidden files and folders are left out, and those
    of other kinds than we read are counted.
    """
    given, into = Path(source), Path(output) if output else None
    if into and into.suffix and not (into.is_dir() or str(output).endswith("/")):  # perhaps a file
        if given.is_file():
            return [Job(given, into, is_file=True)]
        if is_image_name(into):
            raise UserError(f"output={output}: one file for what may be many; name a folder")
    check_folder(f"output={output}", into or ".")
    if given.is_file():
        return [Job(given, into or given.parent)]
    if given.is_dir():
        root, paths = given, walk(given)
    elif has_magic(source):
        root, paths = Path(re.split(r"[*?\[]", source)[0] + "x").parent, sorted(map(Path, glob(source, recursive=True)))
    else:
        raise UserError(f"input={source}: no such file or folder")
    images = [path for path in paths if is_image_name(path)]
    if others := Counter(path.suffix.lower() for path in paths if not is_image_name(path) and path.is_file()):
        kinds = ", ".join(f"{count} {kind or 'without ending'}" for kind, count in sorted(others.items()))
        print(f"not read, as of no kind known here: {kinds}", file=sys.stderr)
    if not (inputs := [path for path in images if not records.know(path)]):
        raise UserError(f"no image files to enlarge in {source}" + " but results of earlier runs" * bool(images))
    return [Job(path, (into or root) / path.parent.relative_to(root)) for path in inputs]


def walk(root: Path) -> list[Path]:
    """All files and folders below a folder, by name, but for hidden ones; a folder that cannot be read is reported."""
    paths: list[Path] = []

    def report(error: OSError) -> None:
        print(f"skipped: {error.filename}: cannot be read ({error.strerror})", file=sys.stderr)

    for folder, folders, files in os.walk(root, onerror=report):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths += [Path(folder, name) for name in (*folders, *files) if not name.startswith(".")]
    return sorted(paths)


def _share(jobs: Sequence[Job], rank: int, processes: int) -> list[Job]:
    """One process's jobs: files whose results may have one name, as those of a.gif and a.gif.png, are one process's."""
    sources, together = {job.source for job in jobs}, defaultdict(list)
    for job in jobs:
        first = job.source
        while first.suffix and first.with_suffix("") in sources:
            first = first.with_suffix("")
        together[first].append(job)
    return [job for group in list(together.values())[rank::processes] for job in group]


def hint_at_camera(compressed: int, scale: int, run: Mapping[str, Any]) -> None:
    """On stderr, that there are better weights for so many JPEGs of low quality, if `run` was not trained on such."""
    better = WEIGHTS / f"srcnn_camera_x{scale}.pth"
    if compressed and run.get("degradation", "bicubic") == "bicubic" and better.exists():
        hint = f"these weights sharpen its artefacts, ckpt_path={better.stem} smooths them"
        print(f"JPEG of a quality below 90 ({compressed} of them): {hint}", file=sys.stderr)


@dataclass
class Enlarger:
    """A network at work on files: one is read ahead and one written while another is computed.

    weights     the network's `fingerprint`: what has been made by it from the same file is done
    compare     is called with each image that is made, or has been before; raises UserError
    box         width and height that a result is to fit into, instead of being `net.scale` times larger
    counts      of images: enlarged, there already, left alone, skipped; and of those not scored
    compressed  how many were JPEGs of a quality below 90
    """

    net: Network
    weights: str
    records: Records
    compare: Compare | None
    overwrite: bool
    max_pixels: int
    box: tuple[float, float] | None = None

    def run(self, jobs: Sequence[Job]) -> str:
        """Do this process's share of the jobs; returns a line about it. What fails, if not the only one, is printed."""
        self.taken, self.single = {job.source.resolve() for job in jobs}, len(jobs) == 1
        self.counts: Counter[str] = Counter()
        folder, self.last, self.compressed = os.path.commonpath([job.output for job in jobs]), "", 0
        rank, processes = process_share()
        jobs = _share(jobs, rank, processes)
        form = "{l_bar}{bar}| {n:.1f} of {total} [{elapsed}, {remaining} left]"
        hidden = rank > 0 or not sys.stderr.isatty()
        bar = tqdm(total=len(jobs), delay=1, leave=False, disable=hidden, bar_format=form)
        with ThreadPoolExecutor(1) as disk, bar:
            reading = [disk.submit(self._read, job) for job in jobs[:1]]
            writing: Future[Any] = disk.submit(list)  # as yet nothing
            for number, job in enumerate(jobs):
                reading += [disk.submit(self._read, following) for following in jobs[number + 1 : number + 2]]

                def advance(done: float, total: float, number: int = number) -> None:  # within an image too
                    bar.update(number + done / total - bar.n)

                with self._reported():
                    path, image, of = reading.pop(0).result()
                    larger = None
                    if image:
                        make = partial(enlarge_to, size=self._size(image)) if self.box else enlarge
                        larger = make(self.net, image, progress=advance)
                        with self._reported():
                            writing.result()
                        writing = disk.submit(self._write, path, larger, of)
                    else:
                        self.counts["there already"] += 1
                    if self.compare:
                        with self._reported("not scored"):
                            lr = image or read_file(job.source, self.max_pixels)
                            self.compare(job.source, lr, larger or read_file(path, sys.maxsize))
                advance(1, 1)
            with self._reported():
                writing.result()
        share = f" (process {rank} of {processes})" if processes > 1 else ""
        if self.single and self.last:
            return self.last + share
        counts = {key: count for key, count in self.counts.items() if key not in ("enlarged", "not scored")}
        by = "" if self.box else f" x{self.net.scale}"
        done = f"{self.counts['enlarged']} of {len(jobs)} images enlarged{by}"
        return ", ".join([done, *(f"{count} {key}" for key, count in counts.items())]) + f"; in {folder}{share}"

    def _size(self, image: ImageFile) -> tuple[int, int]:
        """Height and width of the result."""
        height, width = image.colour.shape[-2:]
        ratio = min(self.box[0] / width, self.box[1] / height) if self.box else self.net.scale
        return max(1, round(height * ratio)), max(1, round(width * ratio))

    def _read(self, job: Job) -> tuple[Path, ImageFile | None, list]:
        """Where to write, the image (None if that is done), and which file it is; UserError if another is there."""
        of = [job.source.name, *_state(job.source), *(self.box or ())] if not job.is_file else []
        if of and not self.overwrite and (done := self.records.find(job.output, self.weights, of)):
            self.taken.add(done.resolve())
            return done, None, of
        image = read_file(job.source, self.max_pixels)
        height, width = self._size(image)
        # The source's ending stays in the name where its own has to be another.
        name = job.source.stem if image.ending == job.source.suffix else job.source.name
        size = f"{width}x{height}" if self.box else f"x{self.net.scale}"
        path = job.output if job.is_file else job.output / f"{name}_{size}{image.ending}"
        if path.resolve() in self.taken:
            raise _OccupiedError(f"{path}: is an image or a result of this run; name another output= for {job.source}")
        self.taken.add(path.resolve())
        if os.path.lexists(path) and not (self.overwrite or job.is_file or self.records.know(path)):
            raise _OccupiedError(f"{path}: is there, and not as srcnn made it; overwrite=true replaces it")
        encode(path, image.changed(lambda planes: planes[:, :1, :1].expand(-1, 1, width)))  # rather refused now than
        encode(path, image.changed(lambda planes: planes[:, :1, :1].expand(-1, height, 1)))  # when it is computed
        return path, image, of

    def _write(self, path: Path, image: ImageFile, of: list) -> None:
        content = encode(path, image)
        with replacing(path) as temporary:
            temporary.write_bytes(content)
            self.records.add(path, temporary, weights=self.weights, of=of)
        self.counts["enlarged"] += 1
        self.compressed += image.quality < 90
        self.last = f"{path}, {image.colour.shape[2]}x{image.colour.shape[1]}"

    @contextmanager
    def _reported(self, what: str = "skipped") -> Iterator[None]:
        """Print an error and go on, unless it is that of the only image, or the others would meet it as well."""
        try:
            yield
        except UserError as error:
            what = "left alone" if isinstance(error, _OccupiedError) else what
            if getattr(error.__cause__, "errno", None) in NO_ROOM or (self.single and what != "not scored"):
                raise
            self.counts[what] += 1
            tqdm.write(f"{what}: {error}", file=sys.stderr)


class _OccupiedError(UserError):
    """A file is there that is not to be replaced."""
