"""The page of a test: HTML that holds all it needs, and opens from disk without a network."""

import base64
import csv
import io
import math
import platform
import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from torch import Tensor

from srcnn import __version__
from srcnn.files import replacing, to_pillow
from srcnn.image import bicubic_up
from srcnn.report.panels import Shown, telling_crop
from srcnn.report.plots import Line, plot
from srcnn.report.scores import finite, read_csv

MOST_IMAGES = 12  # on a page
MOST_BYTES = 8e6  # of images on a page
_MOST_SIDE = 640  # pixels; of a larger image only a part is shown
_MOST_ROWS = 200
_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
# Set5 x3, SRCNN trained on the 91 images: bicubic and network, PSNR in dB. Dong et al., TPAMI 2016.
_PUBLISHED = [
    ("paper, RGB", 30.39, 32.33),
    ("paper, Y", 30.39, 32.39),
]
_PROTOCOL_NOTES = {
    "authors": "the SRCNN authors' code, with the LR in floating point and luma rounded to 8 bits",
    "basicsr": "BasicSR's, with the LR an 8-bit RGB file and luma not rounded",
}


def card(image: Shown, scale: int) -> dict[str, Any]:
    """An image as the page compares it; of a large one the part where the network is most ahead of bicubic."""
    height, width = image.hr.shape[-2:]
    bicubic = bicubic_up(image.lr, scale).clamp(0, 1)
    nearest = image.lr.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    views = {"lr": nearest, "bicubic": bicubic, "sr": image.sr, "hr": image.hr}
    part = ""
    if max(height, width) > 1.2 * _MOST_SIDE:
        y, x, side = telling_crop(bicubic, image.sr, image.hr)
        places = ((y, height), (x, width))
        top, left = (max(0, min(at + side // 2 - _MOST_SIDE // 2, whole - _MOST_SIDE)) for at, whole in places)
        views = {name: view[..., top : top + _MOST_SIDE, left : left + _MOST_SIDE] for name, view in views.items()}
        shown_height, shown_width = views["hr"].shape[-2:]
        part = f"{shown_width}×{shown_height} pixels at ({left}, {top}) of {width}×{height}"
        height, width = shown_height, shown_width
    sources = {name: _data_address(view) for name, view in views.items()}
    facts = {"name": image.name, "score": finite(image.score), "part": part, "size": f"{width}×{height}"}
    return facts | {"width": width, "height": height, **sources}


def weight(shown: Mapping[str, Any]) -> int:
    """Bytes that a card takes on the page."""
    return sum(len(shown[name]) for name in ("lr", "bicubic", "sr", "hr"))


def _data_address(image: Tensor) -> str:
    """A data address of the exact pixels, as PNG or WebP, whichever is smaller."""
    pixels = to_pillow(image[0])
    found = []
    for kind, options in (("png", {"optimize": True}), ("webp", {"lossless": True, "quality": 50})):
        file = io.BytesIO()
        pixels.save(file, kind, **options)
        found.append((len(file.getvalue()), kind, file.getvalue()))
    _, kind, data = min(found)
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def write_report(
    path: Path,
    scores: Mapping[str, Any],
    cards: Sequence[Mapping[str, Any]],
    run: Mapping[str, Any],
    log: Path | None,
    commands: Sequence[tuple[str, Sequence[str]]],
) -> None:
    """The page of a test.

    scores    what scores.json holds
    run       what is known of the training (see `srcnn.run.options.describe`)
    log       the run's metrics.csv
    commands  what each does, and its words
    """
    applies = scores["network"] == "SRCNN" and scores["scale"] == 3
    tiles = [("Parameters", f"{scores['parameters']:,}", f"{scores['network']} ×{scores['scale']}")]
    if "seconds" in run:
        device = run.get("machine", {}).get("device", run.get("device", ""))
        tiles.append(("Trained for", duration(run["seconds"]), f"{run['steps']:,} steps on {device}"))
    versions = {"srcnn": __version__, "torch": torch.__version__, "python": platform.python_version()}
    shown = {key: value for key, value in scores.items() if not isinstance(value, dict | list)}
    write_page(
        path,
        "report.html",
        title=f"{scores['network']} ×{scores['scale']} on {', '.join(scores['mean'])}",
        scores=scores,
        tiles=tiles,
        most_rows=_MOST_ROWS,
        published=_PUBLISHED if applies else [],
        protocol_note=_PROTOCOL_NOTES.get(scores["protocol"], ""),
        cards=cards,
        count=sum(map(len, scores["images"].values())),
        plots=_training_plots(read_log(log)),
        commands=[(what, shlex.join(words)) for what, words in commands],
        facts=[
            ("Test", shown),
            ("Versions of the test", versions),
            ("Versions of the training", run.get("versions")),
            ("Machine of the training", run.get("machine")),
            ("Classes", run.get("classes")),
            ("Settings", run.get("values")),
        ],
    )


def write_page(path: Path, template: str, **content: Any) -> None:
    """A page from one of the templates."""
    date = datetime.now().strftime("%Y-%m-%d %H:%M")
    with replacing(path) as temporary:
        temporary.write_text(_TEMPLATES.get_template(template).render(date=date, **content), encoding="utf-8")


def read_log(path: Path | None) -> list[dict[str, float]]:
    """The rows of a metrics.csv, each with the figures it has; none, and a line printed, where it is damaged."""
    if path is None or not path.is_file():
        return []
    try:
        rows = [{key: float(value) for key, value in row.items() if value} for row in read_csv(path)]
    except (ValueError, TypeError, csv.Error):  # no UTF-8, no numbers, more values than columns, no CSV
        print(f"{path}: damaged, so the page has no curves of it", flush=True)
        return []
    return [row for row in rows if "step" in row]


def points(rows: Sequence[Mapping[str, float]], name: str) -> list[tuple[float, float]]:
    """A metric over the number of steps done."""
    return [(row["step"] + 1, row[name]) for row in rows if math.isfinite(row.get(name, math.nan))]


def _training_plots(rows: Sequence[Mapping[str, float]]) -> list[Markup]:
    plots = []
    if psnr := points(rows, "val/psnr"):
        lines = [Line("bicubic", points(rows, "val/psnr_bicubic"), "soft"), Line("network", psnr)]
        plots.append(plot(lines, "step", "PSNR on the validation images, dB", labels=True))
    if loss := points(rows, "train/loss"):
        plots.append(plot([Line("loss", loss)], "step", "Training loss"))
    return plots


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"
