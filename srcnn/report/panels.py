"""An image side by side: LR, bicubic, what networks make of it, the ground truth and their errors."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch.nn.functional as F
from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from srcnn.data.samples import Sample
from srcnn.files import replacing
from srcnn.image import as_float, bicubic_up, quantize, rgb_to_y
from srcnn.inference.image_file import to_pillow
from srcnn.report.scores import TestResult

ERROR_GAIN = 5  # errors are shown as many times larger
_CELL, _TITLE, _GAP = 200, 20, 8  # of comparison.png: side of a panel, height of its title, between panels; pixels


def lr_image(sample: Sample) -> Tensor:
    """The LR image of a sample as a file has it: [1, 3, h, w] in [0, 1], rounded to 8 bits."""
    return quantize(as_float(sample.lr)).expand(-1, 3, -1, -1)


class Comparison:
    """The `number`-th image of a test, to be looked at.

    views   by name what there is to compare, all of HR's size: [1, 3, H, W] in [0, 1]
    scores  by the network's name
    """

    def __init__(self, results: Mapping[str, TestResult], sample: Sample, number: int, with_set: bool):
        lr, hr = lr_image(sample), as_float(sample.hr).expand(-1, 3, -1, -1)
        self.name = f"{sample.image_set}/{sample.name}" if with_set else sample.name
        self.views = {"bicubic": bicubic_up(lr, hr.shape[-1] // lr.shape[-1]).clamp(0, 1)}
        self.views |= {name: result.enlarge(sample).expand(-1, 3, -1, -1) for name, result in results.items()}
        self.views |= {"ground truth": hr, "LR": F.interpolate(lr, size=hr.shape[-2:], mode="nearest")}
        self.scores = {name: result.scores[number][2] for name, result in results.items()}
        self.height, self.width = hr.shape[-2:]

    def telling_part(self, height: int, width: int) -> tuple[int, int]:
        """Top and left of the part where the network is most ahead of bicubic, or the last of the first."""
        first, *_, last = [*self.scores] if len(self.scores) > 1 else ["bicubic", *self.scores]
        errors = [(self.views[n] - self.views["ground truth"]).square().mean(1, keepdim=True) for n in (first, last)]
        sums = F.avg_pool2d(F.avg_pool2d(errors[0] - errors[1], (height, 1), stride=1), (1, width), stride=1)
        top, left = divmod(int(sums.argmax()), sums.shape[-1])
        return top, left


def write_comparison(path: Path, images: Sequence[Comparison]) -> None:
    """A PNG of images, a row each: HR with a mark; and of what is marked LR, bicubic, SR, HR and SR's luma errors."""
    columns, pitch = 4 + 2 * len(images[0].scores), _CELL + _GAP
    sheet = Image.new("RGB", (columns * pitch + _GAP, len(images) * (pitch + _TITLE) + _GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.truetype(Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), 12)
    for row, image in enumerate(images):
        side = min(max(24, max(image.height, image.width) // 5), image.height, image.width)
        (y, x), views = image.telling_part(side, side), image.views
        bicubic = f"bicubic {next(iter(image.scores.values())).bicubic_psnr:.2f} dB"
        panels = [(image.name, views["ground truth"]), ("LR", views["LR"]), (bicubic, views["bicubic"])]
        panels += [(f"{name} {score.psnr:.2f} dB", views[name]) for name, score in image.scores.items()]
        panels.append(("ground truth", views["ground truth"]))
        for name in image.scores:
            error = (rgb_to_y(views[name]) - rgb_to_y(views["ground truth"])).abs() * ERROR_GAIN
            panels.append((f"{name}: error ×{ERROR_GAIN}", error.clamp(0, 1).expand(-1, 3, -1, -1)))
        for column, (title, pixels) in enumerate(panels):
            part = pixels[..., y : y + side, x : x + side] if column else pixels
            ratio = _CELL / max(part.shape[-2:])
            size = [max(1, round(length * ratio)) for length in part.shape[:-3:-1]]  # width, height
            left, top = _GAP + column * pitch + (_CELL - size[0]) // 2, _GAP + _TITLE + row * (pitch + _TITLE)
            how = Image.Resampling.NEAREST if column else Image.Resampling.LANCZOS
            sheet.paste(to_pillow(part[0]).resize(size, how), (left, top))
            draw.text((left + size[0] / 2, top - _TITLE), title, "black", font, anchor="ma")
            if not column:
                corners = [left + x * ratio, top + y * ratio, left + (x + side) * ratio, top + (y + side) * ratio]
                draw.rectangle(corners, outline="#e66100", width=2)
    with replacing(path) as temporary:
        sheet.save(temporary, "png")
