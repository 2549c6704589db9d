"""The pages of a test and of a sweep: HTML that holds all it needs, and opens from disk without a network."""

import base64
import csv
import io
import math
import platform
import shlex
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import lightning
import torch
from markupsafe import Markup
from torch import Tensor

from srcnn import __version__
from srcnn.files import replacing, to_pillow
from srcnn.plot import TEMPLATES, Line, plot
from srcnn.terminal import duration

MOST_IMAGES = 12
MOST_BYTES = 8e6  # of pictures
MOST_SIDE = 640  # pixels; of a larger image only a part is shown
_MOST_ROWS = 200
_STYLES = ("c0", "c1", "c2", "c3", "c4", "c5")

# Set5 x3, SRCNN trained on the 91 images: bicubic and network, PSNR in dB. Dong et al., TPAMI 2016.
_PUBLISHED = [
    ("paper, RGB", 30.39, 32.33),
    ("paper, Y", 30.39, 32.39),
]
_PROTOCOL_NOTES = {
    "authors": "the SRCNN authors' code, with the LR in floating point and luma rounded to 8 bits",
    "basicsr": "BasicSR's, with the LR an 8-bit RGB file and luma not rounded",
}


def picture(name: str, bicubic: Tensor, sr: Tensor, hr: Tensor, score: Mapping[str, Any], part: str = "") -> dict:
    """An image for `write_report`: [1, 3, H, W] in [0, 1]; `part` says what of the image it is, if not all."""
    height, width = hr.shape[-2:]
    sources = {"bicubic": _source(bicubic), "sr": _source(sr), "hr": _source(hr)}
    size = f"{width}×{height}"
    return {"name": name, "score": score, "part": part, "size": size, "width": width, "height": height, **sources}


def _source(image: Tensor) -> str:
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
    pictures: Sequence[dict],
    settings: Mapping[str, Any] | None,
    log: Path | None,
    commands: Iterable[tuple[str, Sequence[str]]],
) -> None:
    """The page of a test.

    scores    what scores.json holds
    settings  of the run, as in its checkpoint
    log       the run's metrics.csv
    commands  what each does, and its words
    """
    applies = scores["network"] == "SRCNN" and scores["scale"] == 3
    rows = read_log(log)
    tiles = [("Parameters", f"{scores['parameters']:,}", f"{scores['network']} ×{scores['scale']}")]
    run = scores if "seconds" in scores else (settings or {}).get("run", {})
    if "seconds" in run:
        tiles.append(("Trained for", duration(run["seconds"]), f"{run['steps']:,} steps on {run['device']}"))
    versions = {"srcnn": __version__, "torch": torch.__version__, "lightning": lightning.__version__}
    shown = {key: value for key, value in scores.items() if key not in ("mean", "images")}
    _write(
        path,
        "report.html",
        title=f"{scores['network']} ×{scores['scale']} on {', '.join(scores['mean'])}",
        scores=scores,
        tiles=tiles,
        most_rows=_MOST_ROWS,
        published=_PUBLISHED if applies else [],
        protocol_note=_PROTOCOL_NOTES[scores["protocol"]],
        pictures=pictures,
        count=sum(map(len, scores["images"].values())),
        plots=_training_plots(rows),
        commands=[(what, shlex.join(words)) for what, words in commands],
        facts=[
            ("Test", shown),
            ("Versions of the test", versions | {"python": platform.python_version()}),
            ("Versions of the training", settings and settings["versions"]),
            ("Groups", settings and settings["choices"]),
            ("Settings", settings and settings["values"]),
        ],
    )


def _write(path: Path, template: str, **content: Any) -> None:
    date = datetime.now().strftime("%Y-%m-%d %H:%M")
    with replacing(path) as temporary:
        temporary.write_text(TEMPLATES.get_template(template).render(date=date, **content), encoding="utf-8")


def read_log(path: Path | None) -> list[dict[str, float]]:
    """The rows of a metrics.csv, each with the figures it has."""
    if path is None or not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]


def _points(rows: Sequence[Mapping[str, float]], name: str) -> list[tuple[float, float]]:
    return [(row["step"] + 1, row[name]) for row in rows if math.isfinite(row.get(name, math.nan))]


def _training_plots(rows: Sequence[Mapping[str, float]]) -> list[Markup]:
    plots = []
    if psnr := _points(rows, "val/psnr"):
        lines = [Line("bicubic", _points(rows, "val/psnr_bicubic"), "plain"), Line("network", psnr)]
        plots.append(plot(lines, "step", "PSNR on the validation images, dB", labels=True))
    if loss := _points(rows, "train/loss"):
        plots.append(plot([Line("loss", loss)], "step", "Training loss"))
    return plots


def write_sweep(path: Path, runs: Sequence[Mapping[str, Any]], command: Sequence[str]) -> None:
    """The page of a sweep: its runs, best first, each as its scores.json, in folders beside the page."""
    values = [dict(override.lstrip("+").partition("=")[::2] for override in run["overrides"]) for run in runs]
    keys = dict.fromkeys(key for run in values for key in run)
    parameters = [key for key in keys if len({run.get(key) for run in values}) > 1]
    logs = [read_log(path.parent / run["run"] / "metrics.csv") for run in runs]
    shown = [
        {
            **run,
            "values": {key: value[key] for key in parameters if key in value},
            "style": _STYLES[rank] if rank < len(_STYLES) else "rest",
            "time": duration(run["seconds"]),
        }
        for rank, (run, value) in enumerate(zip(runs, values, strict=True))
    ]
    curves = [
        Line(f"run {run['run']}", points, run["style"])
        for run, log in zip(shown, logs, strict=True)
        if (points := _points(log, "val/psnr"))
    ][::-1]  # the best on top
    bicubic = _points(logs[0], "val/psnr_bicubic")
    ranked = [run["val_psnr"] for run in runs if run["val_psnr"] is not None]
    _write(
        path,
        "sweep.html",
        title=f"Sweep of {len(runs)} runs over {', '.join(parameters) or 'nothing'}",
        runs=shown,
        tests=list(runs[0]["mean"]),
        parameters=parameters,
        protocol=runs[0]["protocol"],
        bicubic=bicubic[-1][1] if bicubic else None,
        spread=max(ranked) - min(ranked) if ranked else None,
        plots=[_parameter_plot(key, shown) for key in parameters] if ranked else [],
        curves=plot([*_across(bicubic, curves), *curves], "step", "PSNR on the validation images, dB")
        if curves
        else None,
        command=shlex.join(command),
    )


def _across(bicubic: Sequence[tuple[float, float]], curves: Sequence[Line]) -> list[Line]:
    """Bicubic's PSNR from the first to the last step of any run."""
    steps = [step for curve in curves for step, _ in curve.points]
    return [Line("bicubic", [(step, bicubic[-1][1]) for step in (min(steps), max(steps))], "plain")] if bicubic else []


def _parameter_plot(key: str, runs: Sequence[Mapping[str, Any]]) -> Markup:
    known = [run for run in runs if run["val_psnr"] is not None and key in run["values"]]
    texts = [run["values"][key] for run in known]
    try:
        places, categories = [float(text) for text in texts], []
    except ValueError:
        categories = sorted(set(texts))
        places = [float(categories.index(text)) for text in texts]
    log = not categories and min(places) > 0 and max(places) >= 5 * min(places)
    points = [
        Line(f"run {run['run']}", [(place, run["val_psnr"])], run["style"], joined=False)
        for run, place in zip(known, places, strict=True)
    ][::-1]
    ticks = sorted(set(places)) if len(set(places)) <= 6 else None
    return plot(points, key, "Validation PSNR, dB", log_x=log, categories=categories, ticks=ticks)
