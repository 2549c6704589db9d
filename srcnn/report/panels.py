"""An image side by side: LR, bicubic, what networks make of it, the ground truth and their errors."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch.nn.functional as F
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from srcnn.data.samples import Sample
from srcnn.files import replacing
from srcnn.image import as_float, bicubic_up, quantize, rgb_to_y
from srcnn.report.scores import TestResult

ERROR_GAIN = 5  # errors are shown as many times larger


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
    columns = 4 + 2 * len(images[0].scores)
    figure = Figure((2.2 * columns, 2.4 * len(images)), layout="compressed")
    for image, row in zip(images, figure.subplots(len(images), columns, squeeze=False), strict=True):
        side = min(max(24, max(image.height, image.width) // 5), image.height, image.width)
        (y, x), views = image.telling_part(side, side), image.views
        bicubic = f"bicubic {next(iter(image.scores.values())).bicubic_psnr:.2f} dB"
        panels = [(image.name, views["ground truth"]), ("LR", views["LR"]), (bicubic, views["bicubic"])]
        panels += [(f"{name} {score.psnr:.2f} dB", views[name]) for name, score in image.scores.items()]
        panels.append(("ground truth", views["ground truth"]))
        for name in image.scores:
            error = (rgb_to_y(views[name]) - rgb_to_y(views["ground truth"])).abs() * ERROR_GAIN
            panels.append((f"{name}: error ×{ERROR_GAIN}", error.clamp(0, 1).expand(-1, 3, -1, -1)))
        for number, (axis, (title, pixels)) in enumerate(zip(row, panels, strict=True)):
            part = pixels[..., y : y + side, x : x + side] if number else pixels
            axis.imshow(part[0].permute(1, 2, 0).numpy(), interpolation="nearest" if number else "antialiased")
            axis.set_title(title, fontsize=9, parse_math=False)
            axis.axis("off")
        row[0].add_patch(Rectangle((x - 0.5, y - 0.5), side, side, fill=False, edgecolor="#e66100"))
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100, bbox_inches="tight")
