"""Results scored against HR images of the same names."""

from pathlib import Path

from torch import Tensor

from srcnn.enlarge_files import Records, walk
from srcnn.errors import UserError
from srcnn.evaluate import new_folder
from srcnn.files import ImageFile, is_image_name, read_image
from srcnn.image import as_float, quantize
from srcnn.metrics import PROTOCOLS, Score
from srcnn.nets import Network


class References:
    """PSNR and SSIM, protocol basicsr, of enlarged images against those in a folder and below it.

    scores  set, image, score
    shown   of the first five: name, then LR, SR and HR as [1, 3, H, W] in [0, 1], and the score
    """

    def __init__(self, net: Network, folder: str, records: Records):
        if not Path(folder).is_dir():
            raise UserError(f"reference={folder}: no such folder")
        self.net, self.folder = net, Path(folder)
        self.paths: dict[str, list[Path]] = {}
        for path in walk(self.folder)[0]:
            if is_image_name(path) and not records.of(path):
                self.paths.setdefault(path.stem, []).append(path)
        self.scores: list[tuple[str, str, Score]] = []
        self.shown: list[tuple[str, Tensor, Tensor, Tensor, Score]] = []

    def compare(self, source: Path, image: ImageFile, larger: ImageFile) -> None:
        """Score one image; UserError where it has no reference of the right size, or cannot be scored."""
        found = self.paths.get(source.stem, [])
        if len(found) != 1:
            raise UserError(f"{source}: not scored, as {self.folder} has {len(found) or 'no'} images of that name")
        if len(image.colour) == 4:
            raise UserError(f"{source}: not scored, as it is CMYK")
        hr = as_float(read_image(found[0])[None])
        lr, sr = (as_float(one.colour[None]) for one in (image, larger))
        height, width = sr.shape[-2:]
        if not (0 <= hr.shape[-2] - height < self.net.scale and 0 <= hr.shape[-1] - width < self.net.scale):
            size = f"{hr.shape[-1]}x{hr.shape[-2]} pixels where {width}x{height} were made"
            raise UserError(f"{source}: not scored, as {found[0]} has {size}")
        hr = hr[..., :height, :width]
        score = PROTOCOLS["basicsr"].compare(quantize(lr), quantize(sr), hr)
        self.scores.append((self.folder.name, source.stem, score))
        if len(self.shown) < 5:
            lr, sr, hr = (one.expand(-1, 3, -1, -1) for one in (lr, sr, hr))
            self.shown.append((source.stem, lr, sr, hr, score))

    def write(self, output: str | None, records: Records, checkpoint: str, complete: bool) -> None:
        """Print the table; write scores and comparison, unless they would replace those of more images."""
        from srcnn.report.panels import Shown, write_comparison
        from srcnn.report.scores import table, write_scores

        folder, name = new_folder(output, "predict"), type(self.net).__name__
        print(f"\n{table(self.scores, name, self.net.scale, 'basicsr')}\n")
        if not complete and (folder / "scores.csv").exists():
            print(f"{folder / 'scores.csv'} is left as it is: these are the scores of some of the images only")
            return
        write_scores(folder, self.scores, {"protocol": "basicsr", "checkpoint": checkpoint, "network": name})
        path = folder / "comparison.png"
        write_comparison(path, [Shown(*one) for one in self.shown], name, self.net.scale)
        records.add(path)
        print(f"comparison  {path}")
