"""An image side by side: LR, bicubic, what networks make of it, the ground truth and their errors."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from srcnn.data.samples import Sample
from srcnn.inference.image_file import to_pillow, write_image
from srcnn.image import bicubic_down, bicubic_up, modcrop, quantize, rgb_to_y
from srcnn.metrics import Score
from srcnn.report.scores import Tested
from srcnn.inference.tiles import super_resolve

ERROR_GAIN = 5  # errors are shown as many times larger
GAP, CAPTION = 8, 24  # pixels between panels, and above a row for its texts
_WIDTH = 240  # pixels of a panel in comparison.png, the widest an image gets
MOST_COMPARED = 5  # images in comparison.png
_INK, _PAPER, _MARK = (32, 32, 32), (255, 255, 255), (230, 97, 0)


class Shown(NamedTuple):
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

    def telling_crop(self) -> tuple[int, int, int]:
        """Where the network is most ahead of bicubic, or the last network of the first: top, left, side of a square."""
        views, names = self.views(), [*self.sr] if len(self.sr) > 1 else ["bicubic", *self.sr]
        fifth = max(24, max(self.hr.shape[-2:]) // 5)
        side = min(max(side for side in range(24, fifth + 1) if _WIDTH % side == 0), *self.hr.shape[-2:])
        errors = [(views[name] - self.hr).square().mean(1, keepdim=True) for name in (names[0], names[-1])]
        sums = F.avg_pool2d(F.avg_pool2d(errors[0] - errors[1], (side, 1), stride=1), (1, side), stride=1)
        top, left = divmod(int(sums.argmax()), sums.shape[-1])
        return top, left, side


def lr_and_hr(sample: Sample, scale: int) -> tuple[Tensor, Tensor]:
    """The LR image of a sample, 8 bits as a file has it, and its HR: [1, 3, H, W] in [0, 1]."""
    hr = modcrop(sample.hr[None].float() / 255, scale).expand(-1, 3, -1, -1)
    if sample.lr is None:  # the protocol's, bicubic
        return quantize(bicubic_down(hr, scale)), hr
    return (sample.lr[None].float() / 255).expand(-1, 3, -1, -1), hr


def shown(networks: Mapping[str, Tested], samples: Sequence[Sample], most: int) -> Iterator[Shown]:
    """The first `most` test images with what the networks make of them, one at a time: they may be large."""
    several = len({sample.image_set for sample in samples}) > 1
    for number, sample in enumerate(samples[:most]):
        sr = {}
        for name, one in networks.items():
            lr, hr = lr_and_hr(sample, one.net.scale)
            sr[name] = super_resolve(one.net, lr.to(next(one.net.parameters()).device)).clamp(0, 1).cpu()
        scores = {name: one.scores[number][2] for name, one in networks.items()}
        yield Shown(f"{sample.image_set}/{sample.name}" if several else sample.name, lr, hr, sr, scores)


def magnified(images: Sequence[Tensor], zoom: int) -> list[Image.Image]:
    """Crops [1, 3, h, w] of one size as images `zoom` times as large, every pixel a square."""
    crops = [to_pillow(image[0]) for image in images]
    return [crop.resize((crop.width * zoom, crop.height * zoom), Image.Resampling.NEAREST) for crop in crops]


def sheet(rows: Sequence[tuple[Sequence[str], Sequence[Image.Image]]]) -> Image.Image:
    """Rows of images in columns as wide as the widest, under their captions if a row has any."""
    width = max(image.width for _, images in rows for image in images)
    bands, font = [], ImageFont.load_default(14)
    for captions, images in rows:
        caption = CAPTION if captions else 0
        band = Image.new("RGB", (len(images) * (width + GAP) + GAP, caption + images[0].height + GAP), _PAPER)
        for column, image in enumerate(images):
            cell = Image.new("RGB", (width, band.height), _PAPER)
            if captions:
                ImageDraw.Draw(cell).text((0, 2), captions[column], _INK, font)
            cell.paste(image, (0, caption))
            band.paste(cell, (GAP + column * (width + GAP), 0))
        bands.append(band)
    page = Image.new("RGB", (bands[0].width, sum(band.height for band in bands)), _PAPER)
    for number, band in enumerate(bands):
        page.paste(band, (0, sum(other.height for other in bands[:number])))
    return page


def write_comparison(path: Path, images: Sequence[Shown]) -> None:
    """A PNG of the first images: each whole, and zoomed at its telling crop."""
    write_image(path, sheet([row for image in images for row in _rows(image)]))


def _rows(image: Shown) -> list[tuple[list[str], list[Image.Image]]]:
    """LR by nearest neighbour, bicubic, SR, HR and the luma errors of SR: whole under captions, and a crop of each."""
    several, luma = len(image.sr) > 1, rgb_to_y(image.hr)
    views = image.views()
    errors = [((rgb_to_y(sr) - luma).abs() * ERROR_GAIN).expand(-1, 3, -1, -1) for sr in image.sr.values()]
    columns = [views["LR"], views["bicubic"], *image.sr.values(), image.hr, *errors]
    captions = [f"{image.name}: LR, nearest", f"bicubic {next(iter(image.scores.values())).bicubic_psnr:.2f} dB"]
    for name, score in image.scores.items():
        captions.append(f"{name} {score.psnr:.2f} dB" + ("" if several else f" ({score.gain:+.2f})"))
    captions += ["ground truth", *(f"{f'{name}: ' if several else ''}error x{ERROR_GAIN}" for name in image.sr)]
    y, x, side = image.telling_crop()
    height, width = image.hr.shape[-2:]
    fit = min(1.0, _WIDTH / width, 1.5 * _WIDTH / height)
    size = (max(1, round(width * fit)), max(1, round(height * fit)))
    whole = [to_pillow(column[0]).resize(size, Image.Resampling.LANCZOS) for column in columns]
    for panel in whole:
        ImageDraw.Draw(panel).rectangle([round(v * fit) for v in (x, y, x + side - 1, y + side - 1)], outline=_MARK)
    crops = magnified([column[..., y : y + side, x : x + side] for column in columns], _WIDTH // side)
    return [(captions, whole), ([], crops)]
