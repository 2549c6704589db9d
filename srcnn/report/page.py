"""The page of a test: HTML that holds all it needs, and opens from disk without a network."""

import base64
import csv
import io
import json
import math
import platform
import re
import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from srcnn import __version__
from srcnn.files import replacing
from srcnn.inference.image_file import to_pillow
from srcnn.report.panels import Shown
from srcnn.report.plots import Line, colours, plot
from srcnn.report.scores import Tested, about, differences, read_csv, rows_of, said

MOST_IMAGES = 12  # on a page
MOST_BYTES = 8e6  # of images on a page
_MOST_SIDE = 640  # pixels; of a larger image only a part is shown
_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
# Set5 x3, SRCNN trained on the 91 images: bicubic, network and gain, PSNR in dB. Dong et al., TPAMI 2016.
_PUBLISHED = [["paper, RGB", "30.39", "32.33", "+1.94"], ["paper, Y", "30.39", "32.39", "+2.00"]]
_PROTOCOL_NOTES = {
    "authors": "the SRCNN authors' code, with the LR in floating point and luma rounded to 8 bits",
    "basicsr": "BasicSR's, with the LR an 8-bit RGB file and luma not rounded",
}


def card(image: Shown) -> dict[str, Any]:
    """An image as the page compares it; of a large one the part around its telling crop."""
    height, width = image.hr.shape[-2:]
    views, part = image.views(), f"{width}×{height}"
    if max(height, width) > 1.2 * _MOST_SIDE:
        y, x, side = image.telling_crop()
        places = ((y, height), (x, width))
        top, left = (max(0, min(at + side // 2 - _MOST_SIDE // 2, whole - _MOST_SIDE)) for at, whole in places)
        views = {name: view[..., top : top + _MOST_SIDE, left : left + _MOST_SIDE] for name, view in views.items()}
        height, width = views["LR"].shape[-2:]
        part = f"{width}×{height} pixels at ({left}, {top}) of {part}"
    addresses = {}
    for name, view in views.items():
        file = io.BytesIO()
        to_pillow(view[0]).save(file, "webp", lossless=True, quality=50)  # the exact pixels
        addresses[name] = f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
    return {**image._asdict(), "part": part, "width": width, "height": height, "views": addresses}


def write_report(
    path: Path,
    networks: Mapping[str, Tested],
    cards: Sequence[Mapping[str, Any]],
    commands: Mapping[str, Sequence[str]],
) -> None:
    """The page of a test of one network, or of several beside each other.

    commands  what each does, and its words
    """
    first, one = next(iter(networks.items()))
    apart, tests = differences(networks), [about(tested) for tested in networks.values()]
    paper = list(networks) == ["SRCNN"] and one.net.scale == 3
    tiles = [("Parameters", f"{tests[0]['parameters']:,}", f"{first} ×{one.net.scale}")]
    tiles.append(("Multiply-adds", f"{tests[0]['multiply_adds_1280x720'] / 1e9:.1f} G", "for 1280×720"))
    if "seconds" in one.run:
        device = one.run.get("machine", {}).get("device", one.run.get("device", ""))
        tiles.append(("Trained for", duration(one.run["seconds"]), f"{one.run['steps']:,} steps on {device}"))
    logs = {name: read_log(one.log) for name, one in networks.items()}
    titles = {"val/psnr": "PSNR on the validation images, dB", "train/loss": "Training loss"}
    plots = [plot(c, "step", titles[key], labels=len(c) > 1) for key in titles if (c := curves(logs, key))]
    write_page(
        path,
        "report.html",
        title=f"{', '.join(networks)} ×{one.net.scale} on {', '.join(apart)}",
        names=list(networks),
        tiles=tiles if len(networks) == 1 else [],
        facts=one.facts,
        shaved=one.net.scale if one.net.scale > 1 else "no",
        protocol_note=_PROTOCOL_NOTES.get(one.facts["protocol"], ""),
        tables={image_set: rows_of(networks, image_set) for image_set in apart},
        published={"Set5": _PUBLISHED} if paper else {},
        apart=apart,
        cards=cards,
        count=len(one.scores),
        plots=plots,
        commands={what: command_line(words) for what, words in commands.items()},
        settings=_settings(tests, [tested.run for tested in networks.values()]),
    )


def _settings(tests: Sequence[Mapping], runs: Sequence[Mapping]) -> dict[str, dict[str, list[Any]]]:
    """Facts of the tests and the trainings by title and key, a value a network; of several networks what differs."""
    versions = {"srcnn": __version__, "torch": torch.__version__, "python": platform.python_version()}
    columns: list[dict[str, Any]] = [
        {
            "Test": {key: value for key, value in test.items() if not isinstance(value, list)},
            "Versions of the test": versions,
            "Versions of the training": run.get("versions", {}),
            "Machine of the training": run.get("machine", {}),
            "Classes": run.get("classes", {}),
            "Settings": run.get("values", {}),
        }
        for test, run in zip(tests, runs, strict=True)
    ]
    found: dict[str, dict[str, list[Any]]] = {}
    for title in columns[0]:
        keys = dict.fromkeys(key for column in columns for key in column[title])
        rows = {key: [column[title].get(key, "–") for column in columns] for key in keys}
        found[title] = {key: row for key, row in rows.items() if len(row) == 1 or any(v != row[0] for v in row)}
    return found


def write_page(path: Path, template: str, **content: Any) -> None:
    """A page from one of the templates."""
    date = datetime.now().strftime("%Y-%m-%d %H:%M")
    with replacing(path) as temporary:
        temporary.write_text(_TEMPLATES.get_template(template).render(date=date, **content), encoding="utf-8")


def command_line(words: Sequence[str]) -> str:
    """Words as a shell takes them; in double quotes where Hydra has put single ones, as in data.test=['Set5']."""
    doubled = [f'"{word}"' if "'" in word and not set(word) & set('"$`\\!') else shlex.quote(word) for word in words]
    return " ".join(doubled)


def figure(value: float | None, form: str = ".2f") -> str:
    """A figure for a page; a dash for one that there is not."""
    return "–" if value is None or not math.isfinite(value) else format(value, form)


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


def curves(logs: Mapping[str, Sequence[Mapping[str, float]]], metric: str) -> list[Line]:
    """A metric of each run over the number of steps done, the first on top, and bicubic's below it if there is one."""
    lines: list[Line] = []
    for (name, rows), colour in zip(logs.items(), colours(len(logs)), strict=True):
        points = [(row["step"] + 1, row[metric]) for row in rows if math.isfinite(row.get(metric, math.nan))]
        if points:
            lines.insert(0, Line(name, points, colour))
    bicubic = [row[f"{metric}_bicubic"] for rows in logs.values() for row in rows if f"{metric}_bicubic" in row]
    steps = [step for line in lines for step, _ in line.points]
    if bicubic and max(bicubic) - min(bicubic) < 0.005:  # dB: of the same images
        lines.insert(0, Line("bicubic", [(min(steps), bicubic[0]), (max(steps), bicubic[0])], "soft"))
    return lines


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"


def breakable(value: Any) -> Markup:
    """A key or a value as one types it, which a narrow screen breaks between its parts, not inside a word."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False).replace('"', "")
    return Markup(re.sub(r"(?<=[/_,])|(?<=\.)(?!\d)", "<wbr>", str(escape(text))))


_TEMPLATES.filters |= {"figure": figure, "duration": duration, "breakable": breakable, "said": said}
