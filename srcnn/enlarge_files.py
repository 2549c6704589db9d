"""Many image files: which are enlarged, where to, what is done already, and what goes wrong with one of them."""

import hashlib
import json
import os
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from glob import glob, has_magic
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from srcnn.errors import UserError
from srcnn.files import (
    EXTENSIONS,
    ImageFile,
    check_folder,
    distinct_names,
    encode,
    ending_of,
    is_image_name,
    read_file,
    replacing,
)
from srcnn.nets import Network
from srcnn.upscale import Progress, enlarge

_RECORD = ".srcnn.jsonl"
# Images that people have and that are not read here.
_UNREAD = {
    ".arw", ".avif", ".cr2", ".cr3", ".dng", ".exr", ".heic", ".heif", ".jp2", ".jxl", ".nef", ".orf", ".psd", ".raw",
    ".rw2", ".svg",
}  # fmt: skip
_FILE = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"


class Job(NamedTuple):
    """An image file to read, and the file to write but for its ending, which what is in the source decides."""

    source: Path
    target: Path
    fixed: bool = False  # the target is named by the user, ending and all

    def written(self) -> Path:
        return self.target if self.fixed else self.target.with_name(self.target.name + ending_of(self.source))


class Found(NamedTuple):
    """The images to enlarge; what to say of files that are not read, and of folders that cannot be."""

    jobs: list[Job]
    unread: str = ""
    failed: Sequence[str] = ()


class Records:
    """What we wrote into which folder: a hidden file there, with a line of JSON for each file.

    The line is written before the file is put in place, so that no kill leaves a result that is not known as one. A
    file that is not as we wrote it is the user's.
    """

    def __init__(self) -> None:
        self._folders: dict[Path, dict[str, dict]] = {}

    def of(self, path: Path) -> dict[str, Any] | None:
        """What is recorded of a file that is there as we wrote it: its source, and the weights by their hash."""
        known = self._folders.get(path.parent)
        if known is None:
            known = self._folders[path.parent] = _read_record(path.parent / _RECORD)
        try:
            if (entry := known.get(path.name)) is None or not path.is_file():
                return None
            size, mtime = _state(path)
            same = size == entry["size"] and (mtime == entry["mtime"] or _sha256(path.read_bytes()) == entry["sha256"])
            return entry if same else None
        except OSError:  # it is gone, or cannot be read
            return None

    def write(self, path: Path, content: bytes | memoryview, **facts: Any) -> None:
        """Put a file in place, and on record."""
        with replacing(path) as temporary:
            temporary.write_bytes(content)
            self.add(path, temporary, **facts)

    def add(self, path: Path, written: Path | None = None, **facts: Any) -> None:
        """Record a file, which may be `written` elsewhere yet."""
        written = written or path
        size, mtime = _state(written)
        entry = {"file": path.name, "size": size, "mtime": mtime, "sha256": _sha256(written.read_bytes()), **facts}
        with open(path.parent / _RECORD, "a", encoding="utf-8") as record:
            record.write(f"\n{json.dumps(entry)}")  # a line cut off by a kill spoils no other


def _read_record(path: Path) -> dict[str, dict]:
    entries = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        try:
            entry = json.loads(line)
            entries[entry["file"]] = dict.fromkeys(("source", "of", "weights", "size", "mtime", "sha256")) | entry
        except (ValueError, TypeError, KeyError):
            continue
    return entries


def _state(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def fingerprint(net: Network, arguments: Any) -> str:
    """A hash that tells networks apart, by class, arguments and weights."""
    digest = hashlib.sha256(json.dumps([type(net).__name__, net.scale, arguments]).encode())
    for key, value in net.state_dict().items():
        digest.update(key.encode() + value.cpu().contiguous().flatten().double().numpy().tobytes())
    return digest.hexdigest()


def process_share() -> tuple[int, int]:
    """Rank and number of the processes that torchrun or srun has started, which share the files; (0, 1) without."""
    for rank, size in (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS")):
        if rank in os.environ and size in os.environ:
            return int(os.environ[rank]), int(os.environ[size])
    return 0, 1


def find_jobs(source: str, output: str | None, scale: int, records: Records) -> Found:
    """Each image to read, of a file, a folder or a glob, and where to write; the tree of a folder is kept.

    What we wrote ourselves is no input, unless it is named by itself. Hidden files and folders are left out.
    """
    root, unread, failed = Path(source), "", list[str]()
    if output and root.is_file() and (named := _named_file(output)):
        if named.resolve() == root.resolve():
            raise UserError(f"output={output} is the input itself: name another file")
        return Found([Job(root, named, fixed=True)])
    if output and Path(output).suffix.lower() in EXTENSIONS and not Path(output).is_dir():
        raise UserError(f"output={output}: one file for what may be many; name a folder")
    check_folder(f"output={output}", output or ".")
    if root.is_file():
        root, paths = root.parent, [root]
    elif root.is_dir():
        paths, failed = walk(root)
    elif has_magic(source):
        paths = sorted(path for path in map(Path, glob(source, recursive=True)))
        root = Path(source.split("*")[0].split("?")[0].split("[")[0] + "x").parent
    else:
        raise UserError(f"input={source}: no such file or folder")
    if not Path(source).is_file():  # a file named by itself is taken for what it is
        if kinds := Counter(path.suffix.lower() for path in paths if path.suffix.lower() in _UNREAD):
            counts = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
            unread = f"not read: {counts}; convert them to PNG or JPEG"
        images = [path for path in paths if is_image_name(path)]
        paths = [path for path in images if not records.of(path)]
        if not paths:
            known = f"no image files to enlarge in {source}" + " but results of earlier runs" * bool(images)
            raise UserError("; ".join(filter(None, [known, unread, *failed])))
    jobs: list[Job] = []
    for folder in dict.fromkeys(path.parent for path in paths):
        inside = [path for path in paths if path.parent == folder]
        into = Path(output) / folder.relative_to(root) if output else folder
        targets = [into / f"{name}_x{scale}" for name in distinct_names(inside)]
        jobs += map(Job, inside, targets)
    return Found(jobs, unread, failed)


def _named_file(output: str) -> Path | None:
    """The file that `output` names, or None where it is a folder."""
    path = Path(output)
    if not path.suffix or path.is_dir() or output.endswith(("/", os.sep)):
        return None
    if path.suffix.lower() not in EXTENSIONS:
        kinds = ", ".join(sorted(EXTENSIONS))
        raise UserError(f"output={output}: {path.suffix} is no image format that is written ({kinds}, or a folder/)")
    return path


def walk(root: Path) -> tuple[list[Path], list[str]]:
    """All files and folders below a folder, by name, but for hidden ones; and what to say of folders not readable."""
    paths: list[Path] = []
    failed: list[str] = []

    def note(error: OSError) -> None:
        failed.append(f"{error.filename}: cannot be read ({error.strerror})")

    for folder, folders, files in os.walk(root, onerror=note):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths += [Path(folder, name) for name in [*folders, *files]]
    return sorted(paths), failed


@dataclass
class Outcome:
    """What has become of the files: each is in one of the first four."""

    written: list[tuple[Path, str]] = field(default_factory=list)  # with its size
    done: list[Path] = field(default_factory=list)  # by an earlier run
    left: list[str] = field(default_factory=list)  # another file is in the place of the result
    failed: list[str] = field(default_factory=list)
    again: int = 0  # of those written, in the place of an earlier result
    unscored: list[str] = field(default_factory=list)

    def summary(self, scale: int, folder: str | Path, weights: str) -> str:
        """In a line, what was made by the weights of this name; then what is to be said of the rest."""
        total = len(self.written) + len(self.done) + len(self.left) + len(self.failed)
        if total == 1 and self.written:
            path, size = self.written[0]
            return f"{path}, {size}, by {weights}"
        counts = [f"{len(self.written)} of {total} images enlarged x{scale}"]
        counts += [f"{len(self.done)} were there already"] * bool(self.done)
        counts += [f"{self.again} in the place of earlier results"] * bool(self.again)
        counts += [f"{len(self.left)} left alone"] * bool(self.left)
        counts += [f"{len(self.failed)} failed"] * bool(self.failed)
        lines = [f"{', '.join(counts)}; in {folder}, by {weights}"]
        for what, items in (("left alone", self.left), ("not scored", self.unscored)):
            lines += [f"{what}, {len(items)}:", *(f"  {item}" for item in items)] if items else []
        return "\n".join(lines)


Compare = Callable[[Path, ImageFile, ImageFile], None]  # source file, what is in it, the same enlarged


class Enlarger:
    """A network at work on files: one is read ahead and one written while another is computed.

    weights   the network's `fingerprint`: what has been made by it from the same file is done
    single    one file, named by the user: it is made in any case, and what is wrong with it is raised
    compare   is called with each image that is made, or has been before; raises UserError
    """

    def __init__(
        self, net: Network, weights: str, records: Records, compare: Compare | None = None, *, single: bool,
        overwrite: bool, max_pixels: int,
    ):  # fmt: skip
        self.net, self.weights, self.records, self.compare = net, weights, records, compare
        self.single, self.overwrite, self.max_pixels = single, overwrite, max_pixels
        self.outcome = Outcome()

    def run(self, jobs: Sequence[Job], show_progress: bool) -> Outcome:
        self.sources = {job.source.resolve() for job in jobs}
        bar = tqdm(total=len(jobs), bar_format=_FILE, delay=1, leave=False, disable=not show_progress)
        with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer, bar:
            self.writing: Future | None = None
            for number, (job, read) in enumerate(_ahead(reader, self._read, jobs)):
                name = job.source.name if len(jobs) == 1 else f"image {number + 1} of {len(jobs)}"
                bar.set_description_str(name, refresh=False)

                def advance(done: int, total: int, number: int = number) -> None:  # within an image too
                    bar.update(number + done / total - bar.n)

                try:
                    self._enlarge(job, read.result(), writer, advance)
                except UserError as error:
                    self._note(error)
                advance(1, 1)
            self._finish_writing()
        return self.outcome

    def _read(self, job: Job) -> tuple[Path, ImageFile | None, list[int]]:
        """Where to write, the image (None if that is done), and the state of its file."""
        try:
            path, state = job.written(), _state(job.source) if job.source.is_file() else []
            if os.path.lexists(path) and self._is_done(job, path, state):
                return path, None, state
            return path, read_file(job.source, self.max_pixels), state
        except OSError as error:
            raise UserError(f"{job.source}: cannot be read ({error.strerror or error})") from error

    def _is_done(self, job: Job, path: Path, state: list[int]) -> bool:
        """Whether the result is there; UserError for another file in its place, which is left alone."""
        if job.fixed:
            return False
        if path.resolve() in self.sources:
            raise _OccupiedError(f"{path}: is itself one of the images; name another output= for {job.source}")
        if self.overwrite:
            return False
        entry = self.records.of(path)
        if entry is None:
            raise _OccupiedError(f"{path}: is there already, and not as srcnn made it; overwrite=true replaces it")
        if entry["source"] != job.source.name:
            raise _OccupiedError(f"{path}: is there already, made from {entry['source']}; overwrite=true replaces it")
        return not self.single and (entry["weights"], entry["of"]) == (self.weights, state)

    def _enlarge(self, job: Job, read: tuple, writer: ThreadPoolExecutor, advance: Progress) -> None:
        path, image, state = read
        if image is None:
            self.outcome.done.append(path)
            if self.compare:
                image, larger = read_file(job.source, self.max_pixels), read_file(path, sys.maxsize)
        else:
            larger = enlarge(self.net, image, advance)
            self._finish_writing()
            facts = {"source": job.source.name, "of": state, "weights": self.weights}
            self.writing = writer.submit(self._write, path, larger, facts)
        if self.compare:
            try:
                self.compare(job.source, image, larger)
            except UserError as error:
                self.outcome.unscored.append(str(error))

    def _write(self, path: Path, image: ImageFile, facts: dict[str, Any]) -> None:
        known = self.records.of(path) is not None
        self.records.write(path, encode(path, image), **facts)
        self.outcome.again += known
        self.outcome.written.append((path, f"{image.colour.shape[2]}x{image.colour.shape[1]}"))

    def _finish_writing(self) -> None:
        """Wait for the file being written."""
        writing, self.writing = self.writing, None
        try:
            if writing:
                writing.result()
        except UserError as error:
            self._note(error)

    def _note(self, error: UserError) -> None:
        if self.single:
            raise error
        if isinstance(error, _OccupiedError):
            self.outcome.left.append(str(error))
            return
        self.outcome.failed.append(str(error))
        tqdm.write(f"skipped: {error}", file=sys.stderr)


class _OccupiedError(UserError):
    """A file is there that is not to be replaced."""


def _ahead(pool: ThreadPoolExecutor, read: Callable[[Job], Any], jobs: Sequence[Job]) -> Iterator[tuple[Job, Future]]:
    """Each job with what is read of it, the next being read meanwhile."""
    waiting: deque[tuple[Job, Future]] = deque()
    for job in jobs:
        waiting.append((job, pool.submit(read, job)))
        if len(waiting) > 1:
            yield waiting.popleft()
    yield from waiting
