"""What do the shipped networks score, and what do they cost?

    python -m benchmarks.zoo            all, written into docs/zoo.md
    python -m benchmarks.zoo NAME ...   these alone, printed

Of every network in srcnn/weights but those for camera images: parameters; multiply-adds, milliseconds and memory for an
output of 1280x720 on the CPU (the median of five, as predict.py computes it; memory as in benchmarks.inference); PSNR
and SSIM on Set5 and Set14 under both protocols; seconds of training and the seed. Beside them figures as published.
"""

import os
import re
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.inference import memory, picture
from benchmarks.table import show
from srcnn.checkpoint import WEIGHTS, load_network
from srcnn.data.degrade import Bicubic
from srcnn.data.samples import read_set
from srcnn.device import device_name
from srcnn.inference.tiles import for_inference, super_resolve
from srcnn.metrics import PROTOCOLS, mean_score
from srcnn.nets import Network

PAGE = Path(__file__).parents[1] / "docs" / "zoo.md"
SIZE = "1280x720"
SETS = ("Set5", "Set14")
# Network, parameters, training data, Set5 PSNR on luma x2, x3, x4, source.
PUBLISHED = [
    ("SRCNN 9-1-5 RGB", "20 k", "T91", None, 32.33, None, "TPAMI 2016, table 5"),
    ("SRCNN 9-1-5", "8 k", "T91", None, 32.39, None, "TPAMI 2016"),
    ("SRCNN 9-5-5", "57 k", "ImageNet", 36.66, 32.75, 30.48, "TPAMI 2016"),
    ("ESPCN", "23 k", "T91", None, 32.55, None, "CVPR 2016"),
    ("ESPCN", "23 k", "ImageNet", None, 33.13, None, "CVPR 2016"),
    ("FSRCNN", "13 k", "T91", 36.94, 33.06, 30.55, "ECCV 2016"),
    ("FSRCNN", "13 k", "T91, General100", None, 33.16, None, "ECCV 2016"),
    ("ECBSR, ETDS", "14-16 k", "DIV2K", None, "33.07-33.14", None, "ETDS's plot, CVPR 2023"),
    ("ECBSR, ETDS", "46 k", "DIV2K", None, "33.49-33.56", None, "ETDS's plot, CVPR 2023"),
    ("NinaSR-B0", "100 k", "DIV2K", 37.72, 33.96, 31.77, "torchSR"),
    ("VDSR", "665 k", "291", 37.53, 33.66, 31.35, "CVPR 2016"),
]


def scores(net: Network, protocol: str) -> dict[str, str]:
    """Set -> PSNR / SSIM."""
    found, evaluate = {}, PROTOCOLS[protocol].evaluate
    for name in SETS:
        samples = read_set(name, os.environ.get("SRCNN_DATA", "data"), net.scale, Bicubic())
        with torch.inference_mode():
            mean = mean_score([evaluate(net.upscale, sample.lr, sample.hr, net.channels) for sample in samples])
        found[name] = f"{mean.psnr:.2f} / {mean.ssim:.4f}".replace("/ 0.", "/ .")
    return found


def milliseconds(net: Network) -> float:
    fast, lr, times = for_inference(net), picture(SIZE), []
    for _ in range(6):
        start = time.perf_counter()
        super_resolve(fast, lr)
        times.append(time.perf_counter() - start)
    return 1000 * median(times[1:])


def row(weights: str) -> dict[str, Any]:
    net, checkpoint = load_network(weights)
    run = checkpoint["run"]
    settings = run.get("settings") or run.get("values", {})
    authors, basicsr = scores(net, "authors"), scores(net, "basicsr")
    return {
        "weights": f"`{weights}`",
        "scale": f"x{net.scale}",
        "parameters": f"{net.parameter_count:,}",
        "multiply-adds": f"{net.multiply_adds() / 1e9:.1f} G",
        "ms": round(milliseconds(net)),
        "MB": round(memory("srcnn", weights, SIZE)),
        **authors,
        **{f"{name}, basicsr": score for name, score in basicsr.items()},
        "seconds": f"{run['seconds']:,.0f}",
        "seed": settings.get("seed", 0),
    }


def markdown(rows: Iterable[dict[str, Any]]) -> str:
    rows = list(rows)
    lines = [list(rows[0]), ["---"] * len(rows[0])] + [["" if v is None else str(v) for v in r.values()] for r in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    if sys.argv[1:]:
        print(markdown(row(name) for name in sys.argv[1:]))
        return
    names = [path.stem for path in WEIGHTS.glob("*.pth") if "camera" not in path.stem]
    rows = [row(name) for name in sorted(names, key=lambda name: (name[-1], name))]
    show("zoo", rows)
    keys = ("network", "parameters", "trained on", "Set5 x2", "x3", "x4", "source")
    published = [dict(zip(keys, values, strict=True)) for values in PUBLISHED]
    text = f"Trained on T91 alone. Milliseconds and MB on {device_name(torch.device('cpu'))}.\n\n{markdown(rows)}\n\n"
    text += f"As published, PSNR on luma:\n\n{markdown(published)}\n"
    page = re.sub(r"(<!-- table -->\n).*(<!-- end -->)", lambda m: m[1] + text + m[2], PAGE.read_text(), flags=re.S)
    PAGE.write_text(page)


if __name__ == "__main__":
    main()
