"""Pages: HTML that holds all it needs, and opens from disk without a network."""

import io
import platform
import shlex
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
import yaml  # type: ignore[import-untyped]
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from srcnn import __version__
from srcnn.files import replacing
from srcnn.inference.image_file import to_pillow
from srcnn.report.panels import Comparison
from srcnn.report.plots import GRAY, Line, colours, data_address, plot
from srcnn.report.scores import figure, notes, read_csv

_MOST_SIDE = 560  # pixels of an image on a page; of a larger one a part is shown


def write_page(path: Path, template: str, **content: Any) -> None:
    """A page from one of the templates."""
    versions = {"srcnn": __version__, "torch": str(torch.__version__), "python": platform.python_version()}
    content |= {"date": datetime.now().strftime("%Y-%m-%d %H:%M"), "versions": versions}
    with replacing(path) as temporary:
        temporary.write_text(_TEMPLATES.get_template(template).render(**content), encoding="utf-8")


def card(image: Comparison) -> dict[str, Any]:
    """An image as the page compares it; of a large one the part where the network is most ahead."""
    height, width = min(image.height, _MOST_SIDE), min(image.width, _MOST_SIDE)
    (y, x), part, views = image.telling_part(height, width), f"{image.width}×{image.height}", {}
    if (height, width) != (image.height, image.width):
        part = f"{width}×{height} pixels at ({x}, {y}) of {part}"
    for name, view in image.views.items():
        file, pixels = io.BytesIO(), view[0, :, y : y + height, x : x + width]
        to_pillow(pixels).save(file, "webp", lossless=True, quality=50)  # the exact pixels
        views[name] = data_address(file.getvalue(), "webp")
    return {"name": image.name, "scores": image.scores, "part": part, "size": (width, height), "views": views}


def curves(logs: Mapping[str, Path | None], metric: str, title: str) -> list[tuple[str, str]]:
    """A metric of runs, by their metrics.csv, over the steps done: a title and its plot, or nothing to show.

    The first run is on top, bicubic below if it is the same for all.
    """
    lines: list[Line] = []
    bicubic: set[float] = set()
    for (name, path), colour in zip(logs.items(), colours(len(logs)), strict=True):
        rows = read_csv(path) if path and path.is_file() else []
        points = [(float(row["step"]) + 1, float(row[metric])) for row in rows if row.get(metric)]
        bicubic |= {round(float(row[f"{metric}_bicubic"]), 2) for row in rows if row.get(f"{metric}_bicubic")}
        lines[:0] = [Line(name, points, colour)] if points else []
    if len(bicubic) == 1 and lines:
        steps = [step for line in lines for step, _ in line.points]
        level = [(step, min(bicubic)) for step in (min(steps), max(steps))]
        lines.insert(0, Line("bicubic", level, GRAY, ":"))
    return [(title, plot(lines, "step", title, labels=len(logs) < 7))] if lines else []


def duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"


_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, undefined=StrictUndefined,
    trim_blocks=True, lstrip_blocks=True,
)  # fmt: skip
_TEMPLATES.globals |= {"address": lambda svg: data_address(svg.encode(), "svg+xml"), "notes": notes}
_TEMPLATES.filters |= {"figure": figure, "duration": duration, "shell": shlex.join}
_TEMPLATES.filters["yaml"] = lambda facts: yaml.safe_dump(facts, sort_keys=False, allow_unicode=True, width=100)
