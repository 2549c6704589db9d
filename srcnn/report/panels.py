"""An image side by side: LR, bicubic, the network, the ground truth and the network's error."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from srcnn.data.samples import Sample
from srcnn.files import to_pillow, write_image
from srcnn.image import bicubic_down, bicubic_up, modcrop, quantize, rgb_to_y
from srcnn.metrics import Score
from srcnn.nets import Network
from srcnn.report.scores import Scores
from srcnn.upscale import super_resolve

ERROR_GAIN = 5  # errors are shown as many times larger
GAP, CAPTION = 8, 22  # pixels between panels, and above a row for its texts
_WIDTH = 240  # pixels of a panel in comparison.png, the widest an image gets
_ROWS = 5  # images in comparison.png
_INK, _PAPER, _MARK = (32, 32, 32), (255, 255, 255), (230, 97, 0)


class Shown(NamedTuple):
    """An image to look at: LR, SR and HR are [1, 3, H, W] in [0, 1]."""

    name: str
    lr: Tensor
    sr: Tensor
    hr: Tensor
    score: Score


def lr_and_hr(sample: Sample, scale: int) -> tuple[Tensor, Tensor]:
    """The LR image of a sample, 8 bits as a file has it, and its HR: [1, 3, H, W] in [0, 1]."""
    hr = modcrop(sample.hr[None].float() / 255, scale).expand(-1, 3, -1, -1)
    if sample.lr is None:  # the protocol's, bicubic
        return quantize(bicubic_down(hr, scale)), hr
    return (sample.lr[None].float() / 255).expand(-1, 3, -1, -1), hr


def shown(net: Network, samples: Sequence[Sample], scores: Scores, most: int) -> Iterator[Shown]:
    """The first `most` test images with what the network makes of them, one at a time: they may be large."""
    device = next(net.parameters()).device
    several = len({sample.image_set for sample in samples}) > 1
    for sample, (image_set, name, score) in list(zip(samples, scores, strict=True))[:most]:
        lr, hr = lr_and_hr(sample, net.scale)
        sr = super_resolve(net, lr.to(device)).clamp(0, 1).cpu()
        yield Shown(f"{image_set}/{name}" if several else name, lr, sr, hr, score)


def row_of_panels(images: Sequence[Tensor], zoom: int) -> list[Image.Image]:
    """Crops [1, 3, h, w] of one size as images `zoom` times as large, every pixel a square."""
    crops = [to_pillow(image[0]) for image in images]
    return [crop.resize((crop.width * zoom, crop.height * zoom), Image.Resampling.NEAREST) for crop in crops]


def views(lr: Tensor, sr: Tensor, hr: Tensor, scale: int) -> list[Tensor]:
    """What the panels of an image show: LR by nearest neighbour, bicubic, SR, HR, and the luma error of SR."""
    nearest = F.interpolate(lr, scale_factor=scale, mode="nearest")
    error = ((rgb_to_y(sr) - rgb_to_y(hr)).abs() * ERROR_GAIN).expand(-1, 3, -1, -1)
    return [nearest, bicubic_up(lr, scale).clamp(0, 1), sr, hr, error]


def titles(network: str) -> list[str]:
    """The captions of `views`."""
    return ["LR, nearest", "bicubic", network, "ground truth", f"error x{ERROR_GAIN}"]


def write_comparison(path: Path, images: Iterable[Shown], network: str, scale: int) -> None:
    """A PNG of the first images: each whole, and zoomed where the network is most ahead of bicubic."""
    bands = [_band(image, network, scale) for image, _ in zip(images, range(_ROWS), strict=False)]
    sheet = Image.new("RGB", (bands[0].width, sum(band.height for band in bands)), _PAPER)
    for number, band in enumerate(bands):
        sheet.paste(band, (0, sum(other.height for other in bands[:number])))
    write_image(path, sheet)


def _band(image: Shown, network: str, scale: int) -> Image.Image:
    """One image's part of the comparison: captions, a row of whole images, a row of one crop enlarged."""
    columns = views(image.lr, image.sr, image.hr, scale)
    texts, score = titles(network), image.score
    texts[0] = f"{image.name}: {texts[0]}"
    texts[1] += f" {score.bicubic_psnr:.2f} dB"
    texts[2] += f" {score.psnr:.2f} dB ({score.gain:+.2f})"
    y, x, side = telling_crop(columns[1], image.sr, image.hr)
    height, width = image.hr.shape[-2:]
    fit = min(1.0, _WIDTH / width, 1.5 * _WIDTH / height)
    size = (max(1, round(width * fit)), max(1, round(height * fit)))
    band = Image.new("RGB", (5 * (_WIDTH + GAP) + GAP, CAPTION + size[1] + _WIDTH + 3 * GAP), _PAPER)
    draw, font = ImageDraw.Draw(band), ImageFont.load_default(13)
    crops = row_of_panels([column[..., y : y + side, x : x + side] for column in columns], _WIDTH // side)
    for number, (text, column, crop) in enumerate(zip(texts, columns, crops, strict=True)):
        left = GAP + number * (_WIDTH + GAP)
        draw.text((left, 6), text, _INK, font)
        resample = Image.Resampling.LANCZOS if fit < 1 else Image.Resampling.NEAREST
        whole = to_pillow(column[0]).resize(size, resample)
        ImageDraw.Draw(whole).rectangle([round(v * fit) for v in (x, y, x + side - 1, y + side - 1)], outline=_MARK)
        band.paste(whole, (left, CAPTION))
        band.paste(crop, (left, CAPTION + size[1] + GAP))
    return band


def telling_crop(bicubic: Tensor, sr: Tensor, hr: Tensor) -> tuple[int, int, int]:
    """Where the network is most ahead of bicubic: top, left and side of a square a fifth of the image."""
    fifth = max(24, max(hr.shape[-2:]) // 5)
    side = min(max(side for side in range(24, fifth + 1) if _WIDTH % side == 0), *hr.shape[-2:])
    ahead = ((bicubic - hr).square() - (sr - hr).square()).mean(1, keepdim=True)
    sums = F.avg_pool2d(F.avg_pool2d(ahead, (side, 1), stride=1), (1, side), stride=1)
    top, left = divmod(int(sums.argmax()), sums.shape[-1])
    return top, left, side
