"""Line plots as inline SVG: geometry here, drawing in templates/plot.svg, colours by the page's style sheet."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_WIDTH, _HEIGHT = 420, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 14, 26, 40  # margins
_MOST = 400  # points of a line


@dataclass(frozen=True)
class Line:
    """Points (x, y), joined unless `joined` is false; `style` is a class of the style sheet: c0 to c5, rest, plain."""

    name: str
    points: Sequence[tuple[float, float]]
    style: str = "c0"
    joined: bool = True


def plot(
    lines: Sequence[Line],
    x: str,
    y: str,
    log_x: bool = False,
    categories: Sequence[str] = (),
    ticks: Sequence[float] | None = None,
    labels: bool = False,
    standalone: bool = False,
) -> Markup:
    """Lines over each other.

    x, y        what the axes show
    categories  names of x = 0, 1, 2, …
    ticks       where on the x axis values stand, instead of round ones
    labels      names at the ends of the lines, where no legend tells them
    standalone  a file of its own, with its style inside
    """
    xs = [point[0] for line in lines for point in line.points]
    ys = [point[1] for line in lines for point in line.points]
    low, high = _padded(min(ys), max(ys))
    first, last = (-0.5, len(categories) - 0.5) if categories else (min(xs), max(xs))
    if first == last:
        first, last = (first / 2, last * 2) if log_x else (first - 1, last + 1)
    across = math.log if log_x else float
    margin = (_WIDTH - _LEFT - _RIGHT) * (0.08 if ticks else 0)

    def left(value: float) -> float:
        share = (across(value) - across(first)) / (across(last) - across(first))
        return round(_LEFT + margin + share * (_WIDTH - _LEFT - _RIGHT - 2 * margin), 1)

    def top(value: float) -> float:
        return round(_TOP + (high - value) / (high - low) * (_HEIGHT - _TOP - _BOTTOM), 1)

    drawn: list[dict[str, Any]] = []
    for line in lines:
        step = max(1, len(line.points) // _MOST)
        kept = [*line.points[:-1:step], *line.points[-1:]]
        points = [(left(px), top(py)) for px, py in kept]
        marks = points if len(points) <= 30 and line.style != "plain" else []
        drawn.append({"name": line.name, "style": line.style, "points": points, "joined": line.joined, "marks": marks})
    ends = sorted((line["points"][-1][1], number) for number, line in enumerate(drawn)) if labels else []
    heights: dict[int, float] = {}
    for height, number in ends:  # apart from each other, above their lines
        heights[number] = max(height - 7, max(heights.values(), default=0) + 15)
    x_ticks = [(left(i), name) for i, name in enumerate(categories)] or [
        (left(value), f"{value:,.10g}") for value in ticks or (_log_ticks if log_x else _ticks)(first, last)
    ]
    return Markup(
        TEMPLATES.get_template("plot.svg").render(
            lines=drawn, heights=heights, x=x, y=y, width=_WIDTH, height=_HEIGHT, standalone=standalone,
            frame=(_LEFT, _TOP, _WIDTH - _RIGHT, _HEIGHT - _BOTTOM), x_ticks=x_ticks,
            y_ticks=[(top(value), f"{value:.6g}") for value in _ticks(low, high)],
        )
    )  # fmt: skip


def _padded(low: float, high: float) -> tuple[float, float]:
    margin = (high - low) * 0.08 or max(abs(high) * 0.01, 0.1)
    return low - margin, high + margin


def _ticks(low: float, high: float) -> list[float]:
    """Four to seven round values from low to high."""
    power = 10.0 ** math.floor(math.log10((high - low) / 3))
    step = next(s * power for s in (5, 2.5, 2, 1, 0.5) if (high - low) / (s * power) >= 3)
    return [round(i * step, 10) for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        ticks = [s * 10.0**power for power in powers for s in steps if low <= s * 10.0**power <= high]
        if len(ticks) <= 8:
            break
    return ticks
