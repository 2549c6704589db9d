"""Line plots as SVG by matplotlib, in colours that are legible on light and on dark pages."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib import rc_context
from matplotlib.figure import Figure

# Okabe and Ito's colours, which the colour-blind tell apart, and grays; with the dashes of the lines.
STYLES: dict[str, tuple[str, Any]] = {
    "c0": ("#0072b2", "-"), "c1": ("#d55e00", "--"), "c2": ("#009e73", ":"), "c3": ("#cc79a7", "-."),
    "c4": ("#e69f00", (0, (7, 2))), "c5": ("#56b4e9", (0, (2, 1))), "rest": ("#a3abb3", "-"),
    "soft": ("#7d8590", (0, (1, 2))),
}  # fmt: skip
_MOST = 400  # points of a line


class Line(NamedTuple):
    """Points (x, y), joined unless `joined` is false, in one of STYLES."""

    name: str
    points: Sequence[tuple[float, float]]
    style: str = "c0"
    joined: bool = True


def styles(count: int) -> list[str]:
    """For so many runs, best first: the six colours, and gray for the rest."""
    return [f"c{number}" if number < 6 else "rest" for number in range(count)]


def plot(
    lines: Sequence[Line], x: str, y: str, log_x: bool = False, ticks: Mapping[float, str] = {}, legend: bool = False
) -> str:
    """Lines over each other, as SVG; `ticks` are what stands where on the x axis, instead of round values."""
    inks = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "grid.color")
    options: Any = {"svg.fonttype": "none", "font.family": "sans-serif", "font.size": 11, "grid.alpha": 0.3}
    with rc_context(options | dict.fromkeys(inks, STYLES["soft"][0])):
        axes = (figure := Figure(figsize=(4.8, 3.1), layout="constrained")).subplots()
        for name, points, style, joined in lines:
            points = [*points[: -1 : max(1, len(points) // _MOST)], *points[-1:]]
            mark = "o" if not joined or (len(points) <= 30 and style != "soft") else ""
            colour, dashes = STYLES[style]
            axes.plot(*zip(*points, strict=True), mark, ls=dashes if joined else "none", c=colour, ms=4, label=name)
        axes.set(xlabel=x, xscale="log" if log_x else "linear")
        axes.set_title(y, fontsize=11, loc="left")
        axes.grid(axis="y")
        axes.spines[["top", "right", "left"]].set_visible(False)
        if ticks:
            axes.set_xticks([*ticks], [*ticks.values()])
        if legend:
            axes.legend(frameon=False)
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return file.getvalue()


def data_address(picture: bytes, kind: str) -> str:
    """The data address of a picture, for a page that holds all it shows."""
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"
