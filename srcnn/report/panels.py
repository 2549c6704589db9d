"""An image side by side: LR, bicubic, what networks make of it, the ground truth and their errors."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch.nn.functional as F
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from srcnn.data.samples import Sample
from srcnn.files import replacing
from srcnn.image import as_float, bicubic_up, quantize, rgb_to_y
from srcnn.metrics import Score
from srcnn.report.scores import TestResult

ERROR_GAIN = 5  # errors are shown as many times larger


class Comparison(NamedTuple):
    """An image to look at: LR, HR and every network's SR are [1, 3, H, W] in [0, 1]."""

    name: str
    lr: Tensor
    hr: Tensor
    sr: Mapping[str, Tensor]  # by the network's name
    scores: Mapping[str, Score]

    def views(self) -> dict[str, Tensor]:
        """What there is to compare, all of HR's size."""
        bicubic = bicubic_up(self.lr, self.hr.shape[-1] // self.lr.shape[-1]).clamp(0, 1)
        nearest = F.interpolate(self.lr, size=self.hr.shape[-2:], mode="nearest")
        return {"bicubic": bicubic, **self.sr, "ground truth": self.hr, "LR": nearest}

    def telling_part(self, height: int, width: int) -> tuple[int, int]:
        """Top and left of the part where the network is most ahead of bicubic, or the last of the first."""
        views, (first, *_, last) = self.views(), [*self.sr] if len(self.sr) > 1 else ["bicubic", *self.sr]
        errors = [(views[name] - self.hr).square().mean(1, keepdim=True) for name in (first, last)]
        sums = F.avg_pool2d(F.avg_pool2d(errors[0] - errors[1], (height, 1), stride=1), (1, width), stride=1)
        top, left = divmod(int(sums.argmax()), sums.shape[-1])
        return top, left


def lr_image(sample: Sample) -> Tensor:
    """The LR image of a sample as a file has it: [1, 3, h, w] in [0, 1], rounded to 8 bits."""
    return quantize(as_float(sample.lr)).expand(-1, 3, -1, -1)


def compare(results: Mapping[str, TestResult], sample: Sample, number: int, name: str) -> Comparison:
    """A test image, the `number`-th of the test, with what the networks make of it."""
    sr = {key: result.enlarge(sample).expand(-1, 3, -1, -1) for key, result in results.items()}
    scores = {key: result.scores[number][2] for key, result in results.items()}
    return Comparison(name, lr_image(sample), as_float(sample.hr).expand(-1, 3, -1, -1), sr, scores)


def write_comparison(path: Path, images: Sequence[Comparison]) -> None:
    """A PNG of images, a row each: HR with a mark; and of what is marked LR, bicubic, SR, HR and SR's luma errors."""
    columns, several = 4 + 2 * len(images[0].sr), len(images[0].sr) > 1
    figure = Figure((2.2 * columns, 2.4 * len(images)), layout="compressed")
    for image, row in zip(images, figure.subplots(len(images), columns, squeeze=False), strict=True):
        side = min(max(24, max(image.hr.shape[-2:]) // 5), *image.hr.shape[-2:])
        y, x = image.telling_part(side, side)
        views, scores = image.views(), image.scores
        panels = {image.name: image.hr, "LR": views["LR"]}
        panels[f"bicubic {next(iter(scores.values())).bicubic_psnr:.2f} dB"] = views["bicubic"]
        for name, sr in image.sr.items():
            gain = "" if several else f" ({scores[name].gain:+.2f})"
            panels[f"{name} {scores[name].psnr:.2f} dB{gain}"] = sr
        panels["ground truth"] = image.hr
        for name, sr in image.sr.items():
            error = (rgb_to_y(sr) - rgb_to_y(image.hr)).abs() * ERROR_GAIN
            panels[f"{f'{name}: ' if several else ''}error ×{ERROR_GAIN}"] = error.clamp(0, 1).expand(-1, 3, -1, -1)
        for number, (axis, (title, pixels)) in enumerate(zip(row, panels.items(), strict=True)):
            part = pixels[..., y : y + side, x : x + side] if number else pixels
            axis.imshow(part[0].permute(1, 2, 0).numpy(), interpolation="nearest" if number else "antialiased")
            axis.set_title(title, fontsize=9)
            axis.axis("off")
        row[0].add_patch(Rectangle((x - 0.5, y - 0.5), side, side, fill=False, edgecolor="#e66100"))
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)
