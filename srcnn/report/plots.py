"""Line plots as SVG by matplotlib, in colours that are legible on light and on dark pages."""

import base64
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib import rc_context
from matplotlib.figure import Figure

COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"]  # Okabe and Ito's, for the colour-blind
GRAY = "#7d8590"
_INKS = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
_OPTIONS: Any = {"svg.fonttype": "none", "svg.hashsalt": "", "font.size": 11, "text.parse_math": False}
_OPTIONS |= dict.fromkeys(_INKS, GRAY)


class Line(NamedTuple):
    """Points (x, y) and what joins them: "-", "--" or ":"."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: str = COLOURS[0]
    dash: str = "-"


def colours(count: int) -> list[str]:
    """For so many runs, best first: the six colours, and gray for the rest."""
    return [*COLOURS, *[GRAY] * count][:count]


def plot(lines: Sequence[Line], x: str, y: str, log_x: bool = False, labels: bool = False) -> str:
    """Lines over each other, as SVG."""
    with rc_context(_OPTIONS):
        axes = (figure := Figure(figsize=(4.8, 3.1), layout="constrained")).subplots()
        for name, points, colour, dash in lines:
            points = [*points[: -1 : 1 + len(points) // 400], *points[-1:]]  # as many as can be seen
            mark = "o" if dash == "-" and len(points) <= 30 else ""
            axes.plot(*zip(*points, strict=True), marker=mark, ls=dash, c=colour, ms=4, label=name)
        axes.set(xlabel=x, xscale="log" if log_x else "linear")
        axes.set_title(y, fontsize=11, loc="left")
        axes.grid(axis="y", alpha=0.3)
        axes.spines[["top", "right", "left"]].set_visible(False)
        if labels:
            axes.legend(frameon=False)
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return file.getvalue()


def data_address(picture: bytes, kind: str) -> str:
    """The address of a picture in a page that holds all it shows."""
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"
