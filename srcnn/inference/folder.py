"""Many image files: which are enlarged, where to, and what goes wrong with one of them."""

import errno
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from glob import glob
from pathlib import Path

from tqdm import tqdm

from srcnn.checkpoint import WEIGHTS
from srcnn.errors import UserError
from srcnn.files import is_image_name, replacing
from srcnn.inference.image_file import MAX_PIXELS, WRITTEN, ImageFile, encode, format_of, read_file
from srcnn.inference.tiles import enlarge_to
from srcnn.nets import Network


def find_jobs(inputs: Sequence[str], output: str | None, label: str) -> dict[Path, Path]:
    """The image files to read, of files, folders and globs, each with the file to write: photo_LABEL.jpg of photo.jpg.

    Results go beside a file, and into FOLDER_LABEL beside a folder, in a tree as its own; or into `output`. Of a folder
    hidden files are left out; those of other kinds, and results of earlier runs, unless named alone, are counted.
    """
    into = Path(output).expanduser() if output else None
    paths: list[Path] = []
    for word in map(os.path.expanduser, inputs):
        found = [word] if os.path.lexists(word) else sorted(glob(word, recursive=True))
        if not found:
            raise UserError(f"{word or 'input='}: no such file or folder")
        paths += map(Path, found)
    if into and into.suffix and not into.is_dir() and not str(output).endswith("/"):  # perhaps a file
        if len(paths) == 1 and not paths[0].is_dir():
            return {paths[0]: into}
        if is_image_name(into):
            raise UserError(f"output={output}: one file for what may be many; name a folder")
    jobs: dict[Path, Path] = {}  # by target
    left_out = Counter[str]()
    for path in paths:
        root, folder, files = path.parent, into or path.parent, [path]
        if path.is_dir():
            root = path if path.name not in ("", "..") else path.resolve()
            folder = into or root.with_name(f"{root.name}_{label}")
            files = list(_walk(root, folder))
        all_results = len(paths) > 1 and _is_result(path)
        for source in files:
            if source != path and not is_image_name(source):
                left_out[source.suffix.lower() or "without ending"] += 1
            elif all_results or (source != path and _is_result(source)):
                left_out["results of earlier runs"] += 1
            else:
                is_written = format_of(source) in WRITTEN
                name = f"{source.stem}_{label}{source.suffix}" if is_written else f"{source.name}_{label}.png"
                target = folder / source.relative_to(root).with_name(name)
                if jobs.setdefault(target, source) != source:
                    raise UserError(f"{source}: its result would be {target}, as that of {jobs[target]}; rename it")
    if left_out:
        print("left out:", ", ".join(f"{n} {kind}" for kind, n in sorted(left_out.items())), file=sys.stderr)
    if not jobs:
        raise UserError(f"no image files to enlarge in {' '.join(inputs)}")
    return {source: target for target, source in jobs.items()}


def _is_result(path: Path) -> bool:
    """Whether it is called as the result of what lies beside it: photo_x3.jpg, photo.gif_x3.png, photos_w1920."""
    original = re.sub(r"(?<=.)_(x\d|[wh]\d+)(?=(\.\w+)?$)", "", path.name)
    return original != path.name and any(path.with_name(name).exists() for name in (original, Path(original).stem))


def _walk(root: Path, output: Path) -> Iterator[Path]:
    """The files of a folder and of those below, also by links, each folder once; none that is hidden."""
    known = {os.path.realpath(root), os.path.realpath(output)}

    def report(error: OSError) -> None:
        print(f"skipped: {error.filename}: cannot be read ({error.strerror})", file=sys.stderr)

    for folder, folders, files in os.walk(root, onerror=report, followlinks=True):
        paths = [Path(folder, name) for name in sorted(folders, reverse=True) if not name.startswith(".")]
        places = {os.path.realpath(path): path.name for path in paths if not _is_result(path)}
        folders[:] = sorted(name for place, name in places.items() if place not in known)
        known |= places.keys()
        yield from (Path(folder, name) for name in sorted(files) if not name.startswith("."))


def enlarge_files(
    net: Network, jobs: Mapping[Path, Path], overwrite: bool = False, max_pixels: int = MAX_PIXELS, **sides: int
) -> tuple[Counter[str], str]:
    """Do the jobs; returns counts of images, and a line about them.

    sides   width or height of the results, instead of `net.scale` times larger ones
    counts  enlarged, there already, skipped; and compressed: JPEGs of a quality below 90

    An error is printed, and the next image done; it is raised where there is a single job, or no room on the disk.
    """
    counts, several, last = Counter[str](), [], ""
    form = "{l_bar}{bar}| {n:.1f} of {total} [{elapsed}, {remaining} left]"
    with tqdm(total=len(jobs), delay=1, leave=False, disable=not sys.stderr.isatty(), bar_format=form) as bar:
        for number, (source, target) in enumerate(jobs.items()):

            def advance(done: float, total: float, number: int = number) -> None:  # within an image too
                bar.update(number + done / total - bar.n)

            try:
                if os.path.isdir(target):
                    raise UserError(f"{target}: is a folder, where the result of {source} belongs; name an output=")
                if os.path.exists(target) and not overwrite:
                    counts["there already"] += 1
                    continue
                image = read_file(source, max_pixels)
                rows, columns = _size(image, net.scale, **sides)
                is_same = image.format in WRITTEN and source.suffix == target.suffix  # whatever the ending says
                kind = str(image.format) if is_same else format_of(target)
                with replacing(target) as temporary:
                    for strip in ((rows, 1), (1, columns)):  # rather refused now than when it is computed
                        encode(target, replace(image, planes=image.planes[:, :1, :1].expand(-1, *strip)), kind)
                    temporary.write_bytes(encode(target, enlarge_to(net, image, (rows, columns), advance), kind))
                counts["enlarged"] += 1
                counts["compressed"] += image.quality < 90
                several += [source.name] * image.is_first
                last = f"{target}, {columns}x{rows}"
            except UserError as error:
                if len(jobs) == 1 or getattr(error.__cause__, "errno", None) == errno.ENOSPC:
                    raise
                counts["skipped"] += 1
                tqdm.write(f"skipped: {error}", file=sys.stderr)
            advance(1, 1)
    if several:
        more = f" and {len(several) - 3} more" * (len(several) > 3)
        print(f"only the first of several pages or frames: {', '.join(several[:3])}{more}", file=sys.stderr)
    if len(jobs) == 1 and last:
        return counts, last
    kinds = {"there already (overwrite=true makes them again)": counts["there already"], "skipped": counts["skipped"]}
    line = [f"{counts['enlarged']} of {len(jobs)} images enlarged", *(f"{n} {kind}" for kind, n in kinds.items() if n)]
    folders = [target.parent for target in jobs.values()]
    if len({folder.is_absolute() for folder in folders}) > 1:
        folders = [folder.absolute() for folder in folders]
    return counts, f"{', '.join(line)}; in {os.path.commonpath(folders) or '.'}"


def _size(image: ImageFile, scale: int, width: int = 0, height: int = 0) -> tuple[int, int]:
    """Rows and columns of a result; without width and height `scale` times those of the image."""
    rows, columns = image.planes.shape[1:]
    ratio = width / columns or height / rows or scale
    return height or max(1, round(rows * ratio)), width or max(1, round(columns * ratio))


def hint_at_camera(compressed: int, scale: int, degradation: str) -> None:
    """On stderr, that there are better weights for so many JPEGs of low quality, if these were not trained on such."""
    better = WEIGHTS / f"srcnn_camera_x{scale}.pth"
    if compressed and degradation.startswith("bicubic") and better.exists():
        hint = f"these weights sharpen its artefacts, ckpt_path={better.stem} smooths them"
        print(f"JPEG of a quality below 90 ({compressed} of them): {hint}", file=sys.stderr)
