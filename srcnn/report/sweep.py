"""A sweep's runs: ranked in a table, as CSV and as a page."""

import json
import math
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from srcnn.report.page import curves, write_page
from srcnn.report.plots import colours
from srcnn.report.scores import align, figure, write_csv


class SweepTable(Callback):
    """At the end of a sweep: its runs ranked by validation, printed, as `sweep.csv` and as `sweep.html`.

    A job that failed has left an `error.txt`, also where a launcher ran it in another process: exit code 1.
    """

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        failed = [path.read_text(encoding="utf-8") for path in sorted(folder.glob("*/error.txt"))]
        try:
            words: Any = OmegaConf.to_container(config.hydra.overrides.task)  # as typed, ${…} and all
            rank(folder, words)
        except Exception:  # Hydra would log it and go on to exit code 0
            traceback.print_exc()
            failed.append("the ranking")
        if failed:
            print(f"error: {len(failed)} of the sweep's runs failed: {'; '.join(failed)}", file=sys.stderr)
            raise SystemExit(1)


def rank(folder: Path, words: Sequence[str]) -> None:
    """Write and print what the runs in the folders below came to, best first; `words` were typed for the sweep."""
    paths = folder.glob("*/scores.json")
    runs = [{**json.loads(path.read_text(encoding="utf-8")), "name": path.parent.name} for path in paths]
    if not runs:
        return
    runs.sort(key=lambda run: -(run["val_psnr"] or -math.inf))
    for run, colour in zip(runs, colours(len(runs)), strict=True):
        run["psnr"] = {"validation": run["val_psnr"], **{name: mean["psnr"] for name, mean in run["mean"].items()}}
        run["values"] = dict(word.lstrip("+").partition("=")[::2] for word in run["overrides"])
        run["colour"] = colour
    keys = dict.fromkeys(key for run in runs for key in run["values"])
    varied = [key for key in keys if len({run["values"].get(key) for run in runs}) > 1]
    columns = list(dict.fromkeys(name for run in runs for name in run["psnr"]))
    seeds = over_seeds(runs, varied)
    content = {"runs": runs, "columns": columns, "varied": varied, "seeds": seeds}
    logs = {run["name"]: folder / run["name"] / "metrics.csv" for run in runs}
    content["plots"] = curves(logs, "val/psnr", "PSNR on the validation images, dB")
    write_page(folder / "sweep.html", "sweep.html", **content, command=["python", "train.py", "-m", *words])
    bicubic = {name: mean["bicubic_psnr"] for run in runs for name, mean in run["mean"].items()}
    rows = [*((run["name"], run["psnr"], _settings(run, varied)) for run in runs), ("bicubic", bicubic, "")]
    write_csv(folder / "sweep.csv", [{"run": name, **psnr, "settings": settings} for name, psnr, settings in rows])
    print(f"\nsweep of {len(runs)} runs, ranked by PSNR (dB, protocol {runs[0]['protocol']}) on the validation images")
    table = [["run", *columns], *([name, *(figure(psnr.get(key)) for key in columns)] for name, psnr, _ in rows)]
    for line, (*_, settings) in zip(align(table), [("settings",), *rows], strict=True):
        print(f"{line}  {settings}".rstrip())
    print("\nmean ± standard deviation over seeds (dB)" if seeds else "")
    for text, count, figures in seeds:
        print(f"{text}: {count} runs\n    {', '.join(f'{name} {value}' for name, value in figures.items())}")
    print(f"\ntable     {folder / 'sweep.csv'}\nreport    {folder / 'sweep.html'}")


def _settings(run: Mapping[str, Any], keys: Sequence[str]) -> str:
    """Those of a run's settings that have one of the keys, as typed."""
    return " ".join(f"{key}={value}" for key, value in run["values"].items() if key in keys)


def over_seeds(runs: Sequence[Mapping[str, Any]], varied: Sequence[str]) -> list[tuple[str, int, dict[str, str]]]:
    """Of runs that differ in their seed alone, two or more: their settings, number, and PSNR as "mean ± deviation"."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        groups.setdefault(_settings(run, [key for key in varied if key != "seed"]), []).append(run["psnr"])
    rows = []
    for settings, group in groups.items():
        columns = {name: [psnr[name] for psnr in group if psnr.get(name) is not None] for name in group[0]}
        texts = {name: f"{fmean(v):.3f} ± {stdev(v):.3f}" for name, v in columns.items() if len(v) == len(group) > 1}
        rows += [(settings or "all", len(group), texts)] if texts else []
    return rows
