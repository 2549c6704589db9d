"""What do the networks make of what is not a photograph, and of an image's outermost pixels?

    python -m benchmarks.graphics [NAME or FILE.pth ...]

Of every file in srcnn/weights, into docs/zoo.md; or of those named, which is only printed:

consistency      dB, for each kind of generated image (`srcnn.data.graphics`): PSNR of the result shrunk again by
                 bicubic against the LR image, above that of bicubic's own result; mean / worst of 12. What is above
                 42 dB counts as 42: an error of 2 levels, which nobody sees, and bicubic has none on a gradient
largest          value of the result before the clamp, on all these images
flat             levels by which a pixel is off one of 729 flat colours, at the border or not
outermost pixel  dB above bicubic on the frame of `scale` HR pixels around an image, luma, protocol authors

A network on luma is judged as predict uses it, Cb and Cr by bicubic; its largest value is one of luma. Bold is what
tests/test_weights.py refuses; camera weights, which smooth on purpose, may be less consistent.
"""

import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import torch
from torch import Tensor

from srcnn.checkpoint import WEIGHTS, load_network
from srcnn.data.degrade import Bicubic
from srcnn.data.graphics import KINDS, flat_colours, graphic
from srcnn.data.samples import read_set
from srcnn.image import bicubic_down, bicubic_up, quantize, rgb_to_y
from srcnn.inference.tiles import for_inference, super_resolve
from srcnn.metrics import find_protocol, psnr
from srcnn.nets import Network

PAGE = Path(__file__).parents[1] / "docs" / "zoo.md"
SETS = ("Set5", "Set14")
IMAGES = 12  # of each kind
CEILING = 42.0


class Figure(NamedTuple):
    name: str
    text: str
    good: bool


@torch.inference_mode()
def judge(net: Network, smooths: bool = False) -> list[Figure]:
    """What a network makes of generated images.

    smooths  on purpose: consistency is measured, but all is good
    """
    net, figures, largest, off = for_inference(net), [], [], []
    for kind in KINDS:
        lr = torch.stack([graphic(kind, number) for number in range(IMAGES)]).float() / 255
        sr, top = _enlarged(net, lr)
        pairs = zip(_consistency(sr, lr), _consistency(quantize(bicubic_up(lr, net.scale)), lr), strict=True)
        gains = [ours - bicubic for ours, bicubic in pairs]
        mean, worst = round(fmean(gains), 1) + 0.0, round(min(gains), 1) + 0.0  # never -0.0
        figures.append(Figure(kind, f"{mean:+.1f} / {worst:+.1f}", smooths or (mean >= 0 and worst >= -2)))
        largest.append(top)
    side = 2 * (net.receptive_radius + net.preprocess_radius) + 2  # so that the middle does not depend on the border
    for colours in flat_colours().split(81):
        flat = (colours.float() / 255)[..., None, None]
        sr, top = _enlarged(net, flat.expand(-1, -1, side, side))
        off.append(round(255 * (sr - flat).abs().max().item()))
        largest.append(top)
    top = torch.tensor(largest).max().item()  # NaN where one is NaN
    return [*figures, Figure("largest", f"{top:,.1f}", top < 4), Figure("flat", f"{max(off)}", max(off) <= 4)]


@torch.inference_mode()
def judge_border(net: Network, image_set: str) -> Figure:
    """dB above bicubic on what the outermost LR pixels become."""
    net, authors, gains = for_inference(net), find_protocol("authors"), []
    for sample in read_set(image_set, os.environ.get("SRCNN_DATA", "data"), net.scale, Bicubic()):
        lr, hr = sample.lr, sample.hr
        frame = torch.ones(hr.shape[2:], dtype=torch.bool)
        frame[net.scale : -net.scale, net.scale : -net.scale] = False
        sr = super_resolve(net, authors.network_input(lr, hr, net.channels))
        ours, bicubic = (authors.luma(image, hr) for image in (sr, authors.bicubic(lr, hr)))
        gains.append(psnr(*(luma[..., frame] for luma in ours)) - psnr(*(luma[..., frame] for luma in bicubic)))
    mean = fmean(gains)
    return Figure(f"outermost pixel, {image_set}", f"{mean:+.2f}", mean > 0)


def _enlarged(net: Network, lr: Tensor) -> tuple[Tensor, float]:
    """SR in [0, 1] as 8 bits hold it, and the largest absolute value that the network gave."""
    sr = super_resolve(net, lr)
    own = sr if net.channels == 3 else rgb_to_y(sr)
    return quantize(sr), own.abs().max().item()


def _consistency(sr: Tensor, lr: Tensor) -> list[float]:
    again = bicubic_down(sr, sr.shape[-1] // lr.shape[-1])
    return [min(psnr(255 * image, 255 * truth), CEILING) for image, truth in zip(again, lr, strict=True)]


def table(names: Iterable[str]) -> str:
    """Markdown, a line for each network, printed as they come."""
    lines: list[str] = []

    def add(*cells: str) -> None:
        lines.append("| " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)

    for name in names:
        net, _ = load_network(name)
        figures = judge(net, smooths="camera" in name) + [judge_border(net, image_set) for image_set in SETS]
        if not lines:
            add("weights", *(figure.name for figure in figures))
            add(*["---"] * (len(figures) + 1))
        add(f"`{name}`", *(figure.text if figure.good else f"**{figure.text}**" for figure in figures))
    return "\n".join(lines)


def main() -> None:
    if names := sys.argv[1:]:
        table(names)
        return
    text = table(sorted((path.stem for path in WEIGHTS.glob("*.pth")), key=lambda name: (name[-1], name)))
    marks = r"(<!-- graphics -->\n).*(<!-- end graphics -->)"
    PAGE.write_text(re.sub(marks, lambda m: f"{m[1]}{text}\n{m[2]}", PAGE.read_text(), flags=re.S))


if __name__ == "__main__":
    main()
