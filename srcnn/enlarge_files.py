"""Many image files: which are enlarged, where to, what is done already, and what goes wrong with one of them."""

import hashlib
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from glob import glob, has_magic
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from srcnn.errors import UserError
from srcnn.files import ImageFile, check_folder, encode, ending_of, is_image_name, read_file, replacing
from srcnn.nets import Network
from srcnn.upscale import enlarge

_RECORD = ".srcnn.jsonl"

Compare = Callable[[Path, ImageFile, ImageFile], None]  # source file, what is in it, the same enlarged


class Job(NamedTuple):
    """An image file to read, and the folder to write to, or the file where the user has named one."""

    source: Path
    output: Path
    is_file: bool = False

    def target(self, scale: int) -> Path:
        """The file to write: with the source's ending in its name where its own has to be another."""
        if self.is_file:
            return self.output
        ending = ending_of(self.source)
        name = self.source.stem if ending == self.source.suffix else self.source.name
        return self.output / f"{name}_x{scale}{ending}"


class Records:
    """What we wrote into which folder: a hidden file there, with a line of JSON for each file.

    The line is written before the file is put in place, so that no kill leaves a result that is not known as one. A
    file that is not as we wrote it is the user's.
    """

    def __init__(self) -> None:
        self._folders: dict[Path, dict[str, dict]] = {}

    def of(self, path: Path) -> dict[str, Any] | None:
        """What is recorded of a file that is there as we wrote it."""
        if path.parent not in self._folders:
            self._folders[path.parent] = _read_record(path.parent / _RECORD)
        entry = self._folders[path.parent].get(path.name)
        same = entry and os.path.isfile(path) and _state(path) == [entry.get("size"), entry.get("mtime")]
        return entry if same else None

    def write(self, path: Path, content: bytes | memoryview, **facts: Any) -> None:
        """Put a file in place, and on record."""
        with replacing(path) as temporary:
            temporary.write_bytes(content)
            self.add(path, temporary, **facts)

    def add(self, path: Path, written: Path, **facts: Any) -> None:
        """Record a file, which is `written` elsewhere yet."""
        size, mtime = _state(written)
        with open(path.parent / _RECORD, "a", encoding="utf-8") as record:  # a line cut off by a kill spoils no other
            record.write("\n" + json.dumps({"file": path.name, "size": size, "mtime": mtime, **facts}))


def _read_record(path: Path) -> dict[str, dict]:
    entries = {}
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # there is none, or it is not for us
        return {}
    for line in lines:
        try:
            entry = json.loads(line)
            entries[entry["file"]] = entry
        except (ValueError, TypeError, KeyError):
            continue
    return entries


def _state(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


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
    if not (inputs := [path for path in images if not records.of(path)]):
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


class Enlarger:
    """A network at work on files: one is read ahead and one written while another is computed.

    weights  the network's `fingerprint`: what has been made by it from the same file is done
    compare  is called with each image that is made, or has been before; raises UserError
    counts   of images: enlarged, there already, left alone, skipped; and of those not scored
    """

    def __init__(
        self, net: Network, weights: str, records: Records, compare: Compare | None, overwrite: bool, max_pixels: int
    ):
        self.net, self.weights, self.records, self.compare = net, weights, records, compare
        self.overwrite, self.max_pixels = overwrite, max_pixels
        self.counts: Counter[str] = Counter()
        self.writing: Future[None] | None = None

    def run(self, jobs: Sequence[Job], rank: int = 0, processes: int = 1) -> str:
        """Do this process's share of the jobs; returns a line about it. What fails, if not the only one, is printed."""
        self.taken, self.single = {job.source.resolve() for job in jobs}, len(jobs) == 1
        folder, self.last = os.path.commonpath([job.output for job in jobs]), ""
        jobs = jobs[rank::processes]
        shown = rank == 0 and sys.stderr.isatty()
        bar = tqdm(total=len(jobs), unit="image", delay=1, leave=False, disable=not shown)
        with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer, bar:
            self.writer, self.writing = writer, None
            reading = [reader.submit(self._read, job) for job in jobs[:1]]
            for number, job in enumerate(jobs):
                reading += [reader.submit(self._read, following) for following in jobs[number + 1 : number + 2]]

                def advance(done: int, total: int, number: int = number) -> None:  # within an image too
                    bar.update(number + done / total - bar.n)

                try:
                    self._enlarge(job, *reading.pop(0).result(), advance)
                except UserError as error:
                    self._report(error)
                advance(1, 1)
            self._finish_writing()
        if self.single and self.last:
            return self.last
        counts = {key: count for key, count in self.counts.items() if key not in ("enlarged", "not scored")}
        done = f"{self.counts['enlarged']} of {len(jobs)} images enlarged x{self.net.scale}"
        return ", ".join([done, *(f"{count} {key}" for key, count in counts.items())]) + f"; in {folder}"

    def _read(self, job: Job) -> tuple[Path, ImageFile | None, list]:
        """Where to write, the image (None if that is done), and which file it is; UserError if another is there."""
        try:
            path, of = job.target(self.net.scale), [job.source.name, *_state(job.source)]
            entry = self.records.of(path)
            if path.resolve() in self.taken:
                raise _OccupiedError(
                    f"{path}: is an image or a result of this run; name another output= for {job.source}"
                )
            self.taken.add(path.resolve())
            if not (self.overwrite or job.is_file) and os.path.lexists(path):
                if entry is None:
                    raise _OccupiedError(f"{path}: is there, and not as srcnn made it; overwrite=true replaces it")
                if (entry.get("weights"), entry.get("of")) == (self.weights, of):
                    return path, None, of
            return path, read_file(job.source, self.max_pixels), of
        except OSError as error:
            raise UserError(f"{job.source}: cannot be read ({error.strerror or error})") from error

    def _enlarge(self, job: Job, path: Path, image: ImageFile | None, of: list, advance: Callable) -> None:
        if image:
            larger = enlarge(self.net, image, advance)
            self._finish_writing()
            self.writing = self.writer.submit(self._write, path, larger, of)
        else:
            self.counts["there already"] += 1
        if self.compare:
            if not image:
                image, larger = read_file(job.source, self.max_pixels), read_file(path, sys.maxsize)
            try:
                self.compare(job.source, image, larger)
            except UserError as error:
                self._report(error, "not scored")

    def _write(self, path: Path, image: ImageFile, of: list) -> None:
        self.records.write(path, encode(path, image), weights=self.weights, of=of)
        self.counts["enlarged"] += 1
        self.last = f"{path}, {image.colour.shape[2]}x{image.colour.shape[1]}"

    def _finish_writing(self) -> None:
        """Wait for the file being written."""
        writing, self.writing = self.writing, None
        try:
            if writing:
                writing.result()
        except UserError as error:
            self._report(error)

    def _report(self, error: UserError, what: str = "skipped") -> None:
        what = "left alone" if isinstance(error, _OccupiedError) else what
        if self.single and what != "not scored":
            raise error
        self.counts[what] += 1
        tqdm.write(f"{what}: {error}", file=sys.stderr)


class _OccupiedError(UserError):
    """A file is there that is not to be replaced."""
