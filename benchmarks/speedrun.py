"""How many seconds of training to the paper's PSNR? Prints a line for docs/records.md, which has the rules.

    python -m benchmarks.speedrun [--network srcnn | compact] [--seeds 5] [SETTING ...]

srcnn: the assignment's network to 32.39 dB on Set5 x3; compact: configs/model/compact.yaml to 33.00 dB. SETTINGs are
laid over the recipe. A run's length is part of the recipe, as no test image is looked at before it is over.
"""

import argparse
import shlex
import time
from statistics import fmean, median

import lightning as L
from hydra.utils import instantiate

from benchmarks.ours import fit, prepare, psnr
from benchmarks.table import DEVICE, synchronize
from srcnn.device import device_name

# Recipe and goal in dB. SRCNN's is the paper's figure on Y: Dong et al., TPAMI 2016.
RUNS = {
    "srcnn": (["experiment=fast", "trainer.max_epochs=1", "trainer.limit_train_batches=1.0"], 32.39),
    "compact": (
        ["experiment=zoo", "model=compact", "model.slope=0.25", "trainer.max_epochs=-1", "trainer.max_steps=1200"],
        33.00,
    ),
}


class Stopwatch(L.Callback):
    """Seconds from before the first step to after the last."""

    def on_train_start(self, trainer: L.Trainer, *_: object) -> None:
        self.precision = str(trainer.precision)
        synchronize()
        self.start = time.perf_counter()

    def on_train_end(self, *_: object) -> None:
        synchronize()
        self.seconds = time.perf_counter() - self.start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*")
    parser.add_argument("--network", choices=[*RUNS], default="srcnn")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--goal", type=float, help="dB, for a try")
    arguments = parser.parse_args()
    recipe, goal = RUNS[arguments.network]
    goal, words = arguments.goal or goal, [*recipe, *arguments.settings]
    seconds, figures = [], []
    for seed in range(arguments.seeds):
        cfg, module, data = prepare([*words, f"seed={seed}"])
        watch = Stopwatch()
        fit(cfg, module, data, callbacks=[instantiate(cfg.callbacks.ema), watch])
        seconds.append(watch.seconds)
        figures.append(psnr(module.net, data))
        print(f"seed {seed}: {seconds[-1]:.2f} s, {figures[-1]:.3f} dB", flush=True)
    mean, spread = fmean(figures), f"{min(seconds):.1f} to {max(seconds):.1f}"
    verdict = "reached" if mean >= goal else "MISSED, so this is no record"
    print(f"{median(seconds):.1f} s ({spread}), {mean:.3f} dB in the mean; {goal:.2f} dB {verdict}")
    quality = f"{mean:.2f} ({min(figures):.2f} to {max(figures):.2f})"
    cells = [arguments.network, f"{median(seconds):.1f} ({spread})", quality, str(arguments.seeds)]
    cells += [f"{device_name(DEVICE)}, {watch.precision}", f"`{shlex.join(words)}`"]
    print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
