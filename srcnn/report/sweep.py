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
from markupsafe import Markup
from omegaconf import DictConfig, OmegaConf

from srcnn.report.page import command_line, curves, figure, read_log, write_page
from srcnn.report.plots import Line, colours, plot
from srcnn.report.scores import write_csv


class SweepTable(Callback):
    """At the end of a sweep: its runs ranked by validation, test beside it, printed, as `sweep.csv` and as a page.

    A job that failed has left an `error.txt`, also where a launcher ran it in another process: exit code 1.
    """

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        folder, ranked = Path(config.hydra.sweep.dir), True
        try:
            words: Any = OmegaConf.to_container(config.hydra.overrides.task)  # as typed, ${…} and all
            rank(folder, words)
        except Exception:  # Hydra would log it and go on to exit code 0
            traceback.print_exc()
            ranked = False
        failed = [path.read_text(encoding="utf-8") for path in sorted(folder.glob("*/error.txt"))]
        if failed:
            print(f"error: {len(failed)} of the sweep's runs failed: {'; '.join(failed)}", file=sys.stderr)
        if failed or not ranked:
            raise SystemExit(1)


def rank(folder: Path, overrides: Sequence[str]) -> None:
    """Write and print what the runs in the folders below came to, best first."""
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*/scores.json")]
    if not runs:
        return
    runs.sort(key=lambda run: -(run["val_psnr"] or -math.inf))
    for run, style in zip(runs, colours(len(runs)), strict=True):
        run["style"], run["values"] = style, dict(word.lstrip("+").partition("=")[::2] for word in run["overrides"])
    keys = dict.fromkeys(key for run in runs for key in run["values"])
    parameters = [key for key in keys if len({run["values"].get(key) for run in runs}) > 1]
    tests = list(dict.fromkeys(name for run in runs for name in run["mean"]))
    rows = []
    for number, run in enumerate(runs, 1):
        row = {"rank": number, "run": run["name"], "val_psnr": run["val_psnr"]}
        row |= {f"{name}_{key}": value for name, mean in run["mean"].items() for key, value in mean.items()}
        rows.append(row | {"protocol": run["protocol"], "overrides": _settings(run, parameters)})
    write_csv(folder / "sweep.csv", rows)
    seeds = over_seeds(runs, parameters)
    if seeds:
        write_csv(folder / "sweep_seeds.csv", seeds)
    write_sweep(folder, runs, parameters, tests, seeds, ["python", "train.py", "-m", *overrides])
    print(f"\nsweep of {len(rows)} runs, ranked by PSNR (dB) on the validation images")
    print("  ".join(["rank", *(f"{name:>6}" for name in ("val", *tests)), "run", "overrides"]))
    for row in rows:
        figures = [figure(row.get(key)).rjust(6) for key in ("val_psnr", *(f"{name}_psnr" for name in tests))]
        print("  ".join([f"{row['rank']:>4}", *figures, f"{row['run']:>3}", row["overrides"]]))
    if seeds:
        print("\nmean ± standard deviation over seeds (dB)")
    for row in seeds:
        names = [name for name in ("validation", *tests) if f"{name}_mean" in row]
        figures = [f"{name} {row[f'{name}_mean']:.3f} ± {row[f'{name}_std']:.3f}" for name in names]
        print(f"{row['settings'] or 'all'}: {row['runs']} runs\n    {', '.join(figures)}")
    print(f"\ntable     {folder / 'sweep.csv'}\nreport    {folder / 'sweep.html'}")


def _settings(run: Mapping[str, Any], keys: Sequence[str]) -> str:
    """Those of a run's settings, as typed, which have one of the keys."""
    return " ".join(word for word in run["overrides"] if word.lstrip("+").partition("=")[0] in keys)


def over_seeds(runs: Sequence[Mapping[str, Any]], parameters: Sequence[str]) -> list[dict[str, Any]]:
    """Mean and standard deviation of PSNR over the runs that differ in their seed alone; for two seeds or more.

    A row has "settings", "runs" and, of the validation and each test set that all of them have, NAME_mean and NAME_std.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        groups.setdefault(_settings(run, [key for key in parameters if key != "seed"]), []).append(run)
    rows = []
    for settings, group in groups.items():
        if len(group) < 2:
            continue
        figures = {"validation": [run["val_psnr"] for run in group]}
        figures |= {name: [run["mean"].get(name, {}).get("psnr") for run in group] for name in group[0]["mean"]}
        row: dict[str, Any] = {"settings": settings, "runs": len(group)}
        for name, values in figures.items():
            if None not in values:
                row |= {f"{name}_mean": fmean(values), f"{name}_std": stdev(values)}
        rows.append(row)
    return rows


def write_sweep(
    folder: Path,
    runs: Sequence[Mapping[str, Any]],
    parameters: Sequence[str],
    tests: Sequence[str],
    seeds: Sequence[Mapping[str, Any]],
    command: Sequence[str],
) -> None:
    """The page of a sweep: its runs, best first, each as its scores.json, with its "style" and "values" as typed."""
    logs = {f"run {run['name']}": read_log(folder / run["name"] / "metrics.csv") for run in runs}
    lines = curves(logs, "val/psnr")
    ranked = [run for run in runs if run["val_psnr"] is not None]
    with_setting = {key: [run for run in ranked if key in run["values"]] for key in parameters}
    write_page(
        folder / "sweep.html",
        "sweep.html",
        title=f"Sweep of {len(runs)} runs over {', '.join(parameters) or 'nothing'}",
        runs=runs,
        seeds=seeds,
        tests=tests,
        parameters=parameters,
        protocol=runs[0]["protocol"],
        bicubic=next((line.points[0][1] for line in lines if line.name == "bicubic"), None),
        spread=ranked[0]["val_psnr"] - ranked[-1]["val_psnr"] if ranked else None,
        plots=[_parameter_plot(key, known) for key, known in with_setting.items() if known],
        curves=plot(lines, "step", "PSNR on the validation images, dB") if lines else None,
        command=command_line(command),
    )


def _parameter_plot(key: str, runs: Sequence[Mapping[str, Any]]) -> Markup:
    """Validation PSNR over the values of a setting: numbers, or words beside each other."""
    texts = [run["values"][key] for run in runs]
    try:
        places, words = [float(text) for text in texts], []
    except ValueError:
        words = sorted(set(texts))
        places = [float(words.index(text)) for text in texts]
    log = not words and 0 < 5 * min(places) <= max(places)
    dots = [
        Line(f"run {run['name']}", [(place, run["val_psnr"])], run["style"], joined=False)
        for run, place in zip(runs, places, strict=True)
    ][::-1]  # the best on top
    ticks = {place: words[int(place)] if words else f"{place:,.10g}" for place in sorted(places)}
    return plot(dots, key, "Validation PSNR, dB", log_x=log, ticks=ticks if words or len(ticks) <= 6 else {})
