"""Results scored against HR images of the same names."""

from collections.abc import Sequence
from pathlib import Path

from srcnn.inference.folder import Job, Records, walk
from srcnn.errors import RunError, UserError
from srcnn.evaluate import new_folder
from srcnn.files import as_text, is_image_name, read_image
from srcnn.inference.image_file import ImageFile
from srcnn.image import as_float, quantize
from srcnn.metrics import PROTOCOLS, Score
from srcnn.nets import Network
from srcnn.processes import process_share
from srcnn.report.panels import MOST_COMPARED, Shown, write_comparison
from srcnn.report.scores import Tested, read_csv, table, write_scores


class References:
    """PSNR and SSIM, protocol basicsr, of enlarged images against those in a folder and below it."""

    def __init__(self, net: Network, folder: str, records: Records, jobs: Sequence[Job]):
        if any(job.is_file for job in jobs):
            raise UserError("reference=: output= has to be a folder")
        if process_share()[1] > 1:
            raise UserError("reference= compares all images in one process: start a single one, or leave it out")
        if not Path(folder).is_dir():
            raise UserError(f"reference={folder}: no such folder")
        self.net, self.folder, self.records = net, Path(folder), records
        self.network = type(net).__name__
        self.paths = [path for path in walk(self.folder) if is_image_name(path) and not records.know(path)]
        self.scores: list[tuple[str, str, Score]] = []
        self.shown: list[Shown] = []  # the first

    def compare(self, source: Path, image: ImageFile, larger: ImageFile) -> None:
        """Score one image; UserError where it has no reference of the right size, or cannot be scored."""
        found = [path for path in self.paths if path.stem == source.stem]
        if len(found) != 1:
            raise UserError(f"{source}: {self.folder} has {len(found) or 'no'} images of that name")
        if len(image.colour) == 4:
            raise UserError(f"{source}: CMYK is not scored")
        hr = as_float(read_image(found[0])[None])
        lr, sr = (as_float(one.colour[None]) for one in (image, larger))
        height, width = sr.shape[-2:]
        if not all(0 <= more < self.net.scale for more in (hr.shape[-2] - height, hr.shape[-1] - width)):
            size = f"{hr.shape[-1]}x{hr.shape[-2]} pixels where {width}x{height} were made"
            raise UserError(f"{source}: {found[0]} has {size}")
        hr = hr[..., :height, :width]
        score = PROTOCOLS["basicsr"].compare(quantize(lr), quantize(sr), hr)
        self.scores.append((as_text(self.folder.name), as_text(source.stem), score))
        if len(self.shown) < MOST_COMPARED:
            lr, sr, hr = (one.expand(-1, 3, -1, -1) for one in (lr, sr, hr))
            self.shown.append(Shown(as_text(source.stem), lr, hr, {self.network: sr}, {self.network: score}))

    def write(self, output: str | None, checkpoint: str) -> None:
        """Print the table; write scores and comparison, unless those there are of images that were not scored now."""
        folder = new_folder(output, "predict")
        path = folder / "comparison.png"
        facts = {"protocol": "basicsr", "degradation": "as given", "checkpoint": checkpoint}
        tested = {self.network: Tested(self.net, self.scores, facts)}
        print(f"\n{table(tested)}\n")
        known = read_csv(folder / "scores.csv") if (folder / "scores.csv").exists() else []
        if others := {row.get("image") for row in known} - {"mean", *(name for _, name, _ in self.scores)}:
            kept = f"the scores there are of {len(others)} other images as well, and kept"
            raise RunError(f"{folder}: {kept}; name another output= for these")
        if path.exists() and not self.records.know(path):
            raise RunError(f"{path}: is there, and is not ours; name another output=")
        write_scores(folder, tested)
        write_comparison(path, self.shown)
        self.records.add(path, path)
        print(f"comparison  {path}")
