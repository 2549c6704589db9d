"""How fast is a training step, against the usual loop on the same network and against this machine's matrix product?

    python -m benchmarks.throughput [--rounds 5] [SETTING ...]

`experiment=fast` through Lightning, as train.py runs it but for validation and checkpoints, in float32 and bf16;
the usual loop (see usual.py) with its DataLoader in the process and in two workers. In each round every contender
trains for the same number of pixels, in alternation; medians of rounds. FLOP are those of the convolutions as they are
computed, and the matrix product is one of 1024x1024.
Where bf16 is slow, it trains for a tenth of the pixels.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median

import lightning as L
import torch
from omegaconf import DictConfig

from benchmarks.ours import fit, fresh_module, prepare, training_pairs
from benchmarks.table import DEVICE, matrix_rate, show, synchronize
from benchmarks.usual import BATCH, PATCH, Usual
from srcnn.callbacks import EMA
from srcnn.data.datamodule import SRDataModule
from srcnn.device import best_precision
from srcnn.nets import SRCNN

WARMUP = 10  # steps


class Stopwatch(L.Callback):
    """Seconds from the end of the warm-up to the end."""

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        if trainer.global_step == WARMUP:
            synchronize()
            self.start = time.perf_counter()

    def on_train_end(self, *_: object) -> None:
        synchronize()
        self.seconds = time.perf_counter() - self.start


def ours(cfg: DictConfig, data: SRDataModule, precision: str, pixels: int) -> Callable[[], float]:
    """Patch pixels a second of `experiment=fast`, over so many pixels, each time it is called."""
    batch = cfg.data.batch_size * cfg.data.patch_size**2
    steps = WARMUP + pixels // batch

    def run() -> float:
        watch = Stopwatch()
        callbacks = [EMA(0.998), watch]
        fit(cfg, fresh_module(cfg), data, callbacks=callbacks, max_steps=steps, max_epochs=-1, precision=precision)
        return (steps - WARMUP) * batch / watch.seconds

    return run


def usual(contender: Usual, pixels: int) -> Callable[[], float]:
    """Patch pixels a second of the usual loop, over so many pixels, each time it is called."""

    def run() -> float:
        for _ in range(WARMUP):
            contender.step()
        synchronize()
        start = time.perf_counter()
        for _ in range(pixels // contender.pixels_per_step):
            contender.step()
        synchronize()
        return pixels // contender.pixels_per_step * contender.pixels_per_step / (time.perf_counter() - start)

    return run


def flop(side: int, padded: bool) -> float:
    """Of the convolutions of one SRCNN step, forward and backward, for one patch of side x side pixels.

    Backward costs as much for the weights and as much again for the input, which the first layer does not need.
    """
    net = SRCNN()
    first, second, third = (conv.weight.numel() for conv in (net.conv1, net.conv2, net.conv3))
    inner = side if padded else side - net.conv1.kernel_size[0] + 1
    last = inner if padded else inner - net.conv3.kernel_size[0] + 1
    return 2 * ((2 * first + 3 * second) * inner**2 + 3 * third * last**2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mpixel", type=float, default=4, help="a round and contender")
    arguments = parser.parse_args()
    pixels = int(arguments.mpixel * 1e6)
    few = pixels if best_precision() == "bf16-mixed" else pixels // 10
    cfg, module, data = prepare(["experiment=fast", *arguments.settings])
    pairs = list(training_pairs(module.net, data))
    side = cfg.data.patch_size
    contenders = {
        "usual loop": (usual(Usual(pairs, DEVICE), pixels), flop(PATCH, True) / PATCH**2, torch.float32),
        "usual loop, 2 workers": (usual(Usual(pairs, DEVICE, 2), pixels), flop(PATCH, True) / PATCH**2, torch.float32),
        "fast": (ours(cfg, data, "32-true", pixels), flop(side, False) / side**2, torch.float32),
        "fast, bf16": (ours(cfg, data, "bf16-mixed", few), flop(side, False) / side**2, torch.bfloat16),
    }
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    matrix: dict[torch.dtype, list[float]] = {torch.float32: [], torch.bfloat16: []}
    for _ in range(arguments.rounds):
        for dtype, found in matrix.items():
            found.append(matrix_rate(dtype))
        for name, (run, _, _) in contenders.items():
            rates[name].append(run())
    base = rates["usual loop"]
    rows = [
        {
            "contender": name,
            "Mpixel/s": median(rates[name]) / 1e6,
            "x usual": median(mine / other for mine, other in zip(rates[name], base, strict=True)),
            "GFLOP/s": median(rates[name]) * per_pixel / 1e9,
            "share of matrix product": median(rates[name]) * per_pixel / median(matrix[dtype]),
        }
        for name, (_, per_pixel, dtype) in contenders.items()
    ]
    facts = {f"matrix GFLOP/s {dtype}": round(median(found) / 1e9) for dtype, found in matrix.items()}
    show("throughput", rows, settings=arguments.settings, rounds=arguments.rounds, batch_usual=BATCH, **facts)
    print(facts)


if __name__ == "__main__":
    main()
