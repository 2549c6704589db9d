"""Many image files: which are enlarged, where to, and what goes wrong with one of them."""

import errno
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from glob import glob
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from srcnn.checkpoint import WEIGHTS
from srcnn.errors import UserError
from srcnn.files import is_image_name, replacing
from srcnn.inference.image_file import ENDINGS, ImageFile, encode, read_file
from srcnn.inference.tiles import enlarge, enlarge_to
from srcnn.nets import Network


class Job(NamedTuple):
    """An image file to read, and the folder to write to, or the very file where the user has named one."""

    source: Path
    output: Path
    is_file: bool = False


def find_jobs(inputs: Sequence[str], output: str | None, label: str) -> list[Job]:
    """Each image to read, of files, folders and globs, and where to write its result, photo_LABEL.jpg.

    Beside a file, or into FOLDER_LABEL beside a folder, whose tree is kept; else into `output`. Of a folder, hidden
    files are left out, and those that are not images counted. Results of earlier runs are known by their names, and
    left out unless named alone.
    """
    into, jobs, left_out = Path(output) if output else None, [], Counter[str]()
    paths = [
        Path(path)
        for name in inputs
        for path in ([name] if os.path.lexists(name) else sorted(glob(name, recursive=True)) or [name])
    ]
    is_single = len(paths) == 1
    if into and into.suffix and not (into.is_dir() or str(output).endswith("/")):  # perhaps a file
        if is_single and not paths[0].is_dir():
            return [Job(paths[0], into, is_file=True)]
        if is_image_name(into):
            raise UserError(f"output={output}: one file for what may be many; name a folder")
    for path in paths:
        if not is_single and _is_result(path):
            left_out["results"] += 1
        elif path.is_dir():
            root = path if path.name not in ("", "..") else path.resolve()
            target = into or root.with_name(f"{root.name}_{label}")
            for found in _walk(path, target):
                kind = "results" if _is_result(found) else found.suffix.lower() or "without ending"
                if is_image_name(found) and kind != "results" or found.is_dir():
                    jobs.append(Job(found, target / found.parent.relative_to(path)))
                else:
                    left_out[kind] += 1
        elif os.path.lexists(path):
            jobs.append(Job(path, into or path.parent))
        else:
            raise UserError(f"{path}: no such file or folder")
    if left_out:
        print("left out:", ", ".join(f"{n} {kind}" for kind, n in sorted(left_out.items())), file=sys.stderr)
    if not jobs:
        raise UserError(f"no image files to enlarge in {' '.join(inputs)}")
    return list({job.source: job for job in reversed(jobs)}.values())[::-1]


def _is_result(path: Path) -> bool:
    """Whether it is called as the result of what lies beside it: photo_x3.jpg, photo.gif_x3.png, photos_w1920."""
    named = re.fullmatch(r"(.+)_(?:x\d|[wh]\d+)(\.\w+)?", path.name)
    return bool(named) and any(path.with_name(named[1] + ending).exists() for ending in (named[2] or "", ""))


def _walk(root: Path, output: Path) -> Iterator[Path]:
    """All files below a folder but hidden ones, those of linked folders once; also folders that cannot be read."""
    known, unreadable = {os.path.realpath(root), os.path.realpath(output)}, []

    def is_new(folder: Path) -> bool:
        place = os.path.realpath(folder)
        return not (folder.name.startswith(".") or _is_result(folder) or place in known or known.add(place))

    for folder, folders, files in os.walk(root, onerror=unreadable.append, followlinks=True):
        folders[:] = [name for name in sorted(folders) if is_new(Path(folder, name))]
        yield from (Path(folder, name) for name in sorted(files) if not name.startswith("."))
    yield from (Path(error.filename) for error in unreadable)


def hint_at_camera(compressed: int, scale: int, degradation: str) -> None:
    """On stderr, that there are better weights for so many JPEGs of low quality, if these were not trained on such."""
    better = WEIGHTS / f"srcnn_camera_x{scale}.pth"
    if compressed and degradation.startswith("bicubic") and better.exists():
        hint = f"these weights sharpen its artefacts, ckpt_path={better.stem} smooths them"
        print(f"JPEG of a quality below 90 ({compressed} of them): {hint}", file=sys.stderr)


@dataclass
class Enlarger:
    """A network at work on files: one is read ahead and one written while another is computed.

    label          in the names of results: "x3", "w1920" or "h1080"
    width, height  of the results, one of them, instead of being `net.scale` times larger
    counts         of images: enlarged, there already, skipped; of these: "compressed", JPEGs of a quality below 90
    """

    net: Network
    label: str
    overwrite: bool = False
    max_pixels: int = sys.maxsize
    width: int | None = None
    height: int | None = None

    def run(self, jobs: Sequence[Job]) -> str:
        """Do the jobs; returns a line about it. An error is printed, and raised where there is a single job."""
        self.taken, self.single = {job.source.resolve() for job in jobs}, len(jobs) == 1
        self.counts, self.last, several = Counter[str](), "", []
        form = "{l_bar}{bar}| {n:.1f} of {total} [{elapsed}, {remaining} left]"
        bar = tqdm(total=len(jobs), delay=1, leave=False, disable=not sys.stderr.isatty(), bar_format=form)
        with ThreadPoolExecutor(1) as disk, bar:
            reading = [disk.submit(self._read, job) for job in jobs[:1]]
            writing: Future[Any] = disk.submit(list)  # as yet nothing
            for number, job in enumerate(jobs):
                reading += [disk.submit(self._read, following) for following in jobs[number + 1 : number + 2]]

                def advance(done: float, total: float, number: int = number) -> None:  # within an image too
                    bar.update(number + done / total - bar.n)

                with self._reported():
                    path, image = reading.pop(0).result()
                    if image:
                        is_sized = self.width or self.height
                        make = partial(enlarge_to, size=self._size(image)) if is_sized else enlarge
                        larger = make(self.net, image, progress=advance)
                        several += [job.source.name] * image.is_first
                        with self._reported():
                            writing.result()
                        writing = disk.submit(self._write, path, larger)
                advance(1, 1)
            with self._reported():
                writing.result()
        if several:
            more = f" and {len(several) - 3} more" * (len(several) > 3)
            print(f"only the first of several pages or frames: {', '.join(several[:3])}{more}", file=sys.stderr)
        if self.single and self.last:
            return self.last
        counts = [f"{self.counts['enlarged']} of {len(jobs)} images enlarged {self.label}"]
        if existing := self.counts["there already"]:
            counts.append(f"{existing} there already (overwrite=true makes them again)")
        if skipped := self.counts["skipped"]:
            counts.append(f"{skipped} skipped")
        return f"{', '.join(counts)}; in {os.path.commonpath([job.output for job in jobs])}"

    def _size(self, image: ImageFile) -> tuple[int, int]:
        """Height and width of the result."""
        height, width = image.colour.shape[-2:]
        ratio = self.width / width if self.width else self.height / height if self.height else self.net.scale
        return self.height or max(1, round(height * ratio)), self.width or max(1, round(width * ratio))

    def _read(self, job: Job) -> tuple[Path, ImageFile | None]:
        """Where to write, and the image; None if a result is there."""
        # The source's ending stays in the name where its own has to be another.
        stem, name = (f"{part}_{self.label}" for part in (job.source.stem, job.source.name))
        names = [stem + job.source.suffix, *(name + ending for ending in sorted(set(ENDINGS.values())))]
        for path in [job.output] if job.is_file else [job.output / name for name in names]:
            if path.exists() and path.resolve() not in self.taken and not self.overwrite:
                self.taken.add(path.resolve())
                self.counts["there already"] += 1
                return path, None
        image = read_file(job.source, self.max_pixels)
        height, width = self._size(image)
        name = stem if image.ending == job.source.suffix else name
        path = job.output if job.is_file else job.output / f"{name}{image.ending}"
        if path.resolve() in self.taken:
            raise UserError(f"{path}: is an input or a result of this run; name another output= for {job.source}")
        self.taken.add(path.resolve())
        encode(path, image.changed(lambda planes: planes[:, :1, :1].expand(-1, 1, width)))  # rather refused now than
        encode(path, image.changed(lambda planes: planes[:, :1, :1].expand(-1, height, 1)))  # when it is computed
        return path, image

    def _write(self, path: Path, image: ImageFile) -> None:
        content = encode(path, image)
        with replacing(path) as temporary:
            temporary.write_bytes(content)
        self.counts["enlarged"] += 1
        self.counts["compressed"] += image.quality < 90
        self.last = f"{path}, {image.colour.shape[2]}x{image.colour.shape[1]}"

    @contextmanager
    def _reported(self) -> Iterator[None]:
        """Print an error and go on, unless it is that of the only image, or the others would meet it as well."""
        try:
            yield
        except UserError as error:
            if self.single or getattr(error.__cause__, "errno", None) == errno.ENOSPC:
                raise
            self.counts["skipped"] += 1
            tqdm.write(f"skipped: {error}", file=sys.stderr)
