"""How long from the first step to a PSNR on Set5 x3, against the usual recipe on the same network?

    python -m benchmarks.time_to_quality [--usual-seconds 900] [SETTING ...]

The contenders take turns in one process: a few seconds of `experiment=fast` through Lightning (SETTINGs laid over it),
then as long of the usual loop (see usual.py), which afterwards goes on alone until its time is up. Scoring is not
counted. Prints a table, writes its results and draws docs/time_to_quality.svg from them.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import lightning as L
import torch

from benchmarks.ours import fit, prepare, psnr, training_pairs
from benchmarks.table import show
from benchmarks.usual import Usual
from srcnn.callbacks import EMA
from srcnn.data.datamodule import SRDataModule
from srcnn.nets import Network
from srcnn.report.plots import COLOURS, GRAY, Line, plot

PAPER = 32.39  # dB, after 8e8 back-propagations: SRCNN 9-1-5 on Y, TPAMI 2016
BICUBIC = 30.39
GOALS = (32.0, PAPER, 32.5)


class Clock:
    """Seconds of training, the PSNR on the way, and when each goal was reached."""

    def __init__(self, name: str, data: SRDataModule):
        self.name, self.data = name, data
        self.seconds = 0.0
        self.curve: list[tuple[float, float]] = []  # seconds, dB
        self.reached: dict[float, float] = {}

    def run(self, work: Callable[[], None]) -> None:
        start = time.perf_counter()
        work()
        self.seconds += time.perf_counter() - start

    def score(self, net: Network) -> None:
        found = psnr(net, self.data)
        self.curve.append((self.seconds, found))
        for goal in GOALS:
            if found >= goal:
                self.reached.setdefault(goal, self.seconds)
        print(f"{self.name:<24} {self.seconds:7.1f} s  {found:.3f} dB", flush=True)


class Turns(L.Callback):
    """Every `seconds`, stop our clock, score the averaged network, and give the other contender as long."""

    def __init__(self, ours: Clock, usual: Clock, contender: Usual, average: EMA, seconds: float):
        self.ours, self.usual, self.contender, self.average = ours, usual, contender, average
        self.seconds = seconds

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.start = time.perf_counter()

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        elapsed = time.perf_counter() - self.start
        last = trainer.global_step == trainer.estimated_stepping_batches
        if elapsed < self.seconds and not last:
            return
        self.ours.seconds += elapsed
        self.ours.score(cast(Any, self.average._average_model).module.net)
        go_on(self.usual, self.contender, self.ours.seconds)
        self.start = time.perf_counter()


def go_on(clock: Clock, contender: Usual, until: float) -> None:
    def work() -> None:
        start = time.perf_counter()
        while clock.seconds + time.perf_counter() - start < until:
            contender.step()

    clock.run(work)
    clock.score(contender.net)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*")
    parser.add_argument("--usual-seconds", type=float, default=900)
    parser.add_argument("--turn", type=float, default=3.0, help="seconds between scorings")
    parser.add_argument(
        "--draw", type=Path, metavar="RESULTS", help="only draw docs/time_to_quality.svg from this file"
    )
    arguments = parser.parse_args()
    if arguments.draw:
        return draw(arguments.draw)
    cfg, module, data = prepare(["experiment=fast", *arguments.settings])
    average = EMA(cfg.callbacks.ema.decay)
    ours, usual = Clock("experiment=fast", data), Clock("usual recipe", data)
    pairs = list(training_pairs(module.net, data))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    turns = Turns(ours, usual, Usual(pairs, device), average, arguments.turn)
    fit(cfg, module, data, callbacks=[average, turns])
    while usual.seconds < arguments.usual_seconds and GOALS[-1] not in usual.reached:
        go_on(usual, turns.contender, usual.seconds + max(arguments.turn, usual.seconds / 20))
    rows = [
        {
            "contender": clock.name,
            **{f"s to {goal} dB": clock.reached.get(goal) for goal in GOALS},
            "best dB": max(found for _, found in clock.curve),
            "of s": clock.seconds,
        }
        for clock in (ours, usual)
    ]
    curves = {clock.name: [[round(s, 2), round(dB, 3)] for s, dB in clock.curve] for clock in (ours, usual)}
    draw(show("time_to_quality", rows, settings=arguments.settings, curves=curves))


def draw(results: Path) -> None:
    """The curves of a JSON file, from bicubic on, as docs/time_to_quality.svg, with the paper's figure across."""
    found = json.loads(results.read_text())
    curves = {name: [(s, dB) for s, dB in curve if dB >= BICUBIC] for name, curve in found["curves"].items()}
    seconds = [second for curve in curves.values() for second, _ in curve]
    lines = [Line(f"the paper's {PAPER}", [(min(seconds), PAPER), (max(seconds), PAPER)], GRAY, "--")]
    for (name, curve), colour in zip(curves.items(), COLOURS, strict=False):
        lines.append(Line(f"{name}: {max(dB for _, dB in curve):.2f}", curve, colour))
    svg = plot(lines, "seconds of training", "PSNR on Set5 ×3, dB", log_x=True, labels=True)
    Path("docs/time_to_quality.svg").write_text(svg + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
