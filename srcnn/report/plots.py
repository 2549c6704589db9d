"""Line plots as SVG in the colours of the page around them, by matplotlib."""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from markupsafe import Markup

# Okabe and Ito's colours, and grays: what templates/plot.css calls by these names, for light and dark pages.
COLOURS = {
    "c0": "#0072b2", "c1": "#d55e00", "c2": "#009e73", "c3": "#cc79a7", "c4": "#e69f00", "c5": "#56b4e9",
    "rest": "#a3abb3", "soft": "#59636e", "rule": "#d8dee4",
}  # fmt: skip
_DASHES = {
    "c0": "-", "c1": "--", "c2": ":", "c3": "-.", "c4": (0, (7, 2)), "c5": (0, (2, 1)), "rest": "-", "soft": (0, (1, 2))
}  # fmt: skip
_MOST = 400  # points of a line


def colours(count: int) -> list[str]:
    """For so many runs, best first: the six colours, and gray for the rest."""
    return [f"c{number}" if number < 6 else "rest" for number in range(count)]


@dataclass(frozen=True)
class Line:
    """Points (x, y), joined unless `joined` is false, in one of COLOURS."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: str = "c0"
    joined: bool = True


def plot(
    lines: Sequence[Line],
    x: str,
    y: str,
    log_x: bool = False,
    ticks: Mapping[float, str] = {},
    labels: bool = False,
    style: str = "",
) -> Markup:
    """Lines over each other, for a page.

    x, y    what the axes show
    ticks   what stands where on the x axis, instead of round values
    labels  the lines' names in a legend
    style   a style sheet to put inside, for a file of its own
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    # Text as text; identifiers that are unique on a page with several plots, and the same every time.
    options: Any = {"svg.fonttype": "none", "svg.hashsalt": f"{x} {y} {lines}", "font.size": 11}
    inks = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    options |= dict.fromkeys(inks, COLOURS["soft"])
    with rc_context(options):
        axes = (figure := Figure(figsize=(4.8, 3.1), layout="constrained")).subplots()
        for line in lines:
            points = [*line.points[: -1 : max(1, len(line.points) // _MOST)], *line.points[-1:]]
            mark = "o" if not line.joined or (len(points) <= 30 and line.colour != "soft") else ""
            dash: Any = _DASHES[line.colour] if line.joined else "none"
            xs, ys = zip(*points, strict=True)
            axes.plot(xs, ys, color=COLOURS[line.colour], linestyle=dash, marker=mark, markersize=4, label=line.name)
        axes.set(xlabel=x, title=y, xscale="log" if log_x else "linear")
        axes.title.set(fontsize=11, ha="left", x=0)
        axes.grid(axis="y", color=COLOURS["rule"])
        axes.spines[["top", "right", "left"]].set_visible(False)
        if ticks:
            axes.set_xticks([*ticks], [*ticks.values()])
            axes.minorticks_off()
        if labels:
            axes.legend(frameon=False)
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return Markup(_for_a_page(file.getvalue(), f"{y} over {x}: {', '.join(line.name for line in lines)}", style))


def _for_a_page(svg: str, label: str, style: str) -> str:
    """matplotlib's file as an element that takes its colours and type from the page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' id="[A-Za-z]+\w*_\d+"', "", svg)
    for name, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--{name})")
    sheet = f"<style>{style}</style>" if style else ""
    size = "" if style else 'class="plot" '
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
    svg = svg.replace("<svg ", f'<svg {size}role="img" aria-label="{escape(label)}" ', 1)
    return svg.replace("<defs>", f"{sheet}<defs>", 1)
