"""How do step time and memory grow with the training set, from 1 to 100 times T91?

    python -m benchmarks.training_set [--times 1 10 100] [--memory 1.0]

Sets of generated images, 75 of 256x256 (as many pixels as T91) and multiples; beyond --memory GB of pixels the set is a
memory map. Each size in a process of its own, which makes the set and then takes batches alone and whole steps of
SRCNN, as experiment=fast has them. Memory is the process's: anonymous (what it holds) and file (pages of the map that
the kernel can take back). Writes benchmarks/results/training_set.json.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.table import show
from srcnn.data.leaves import dead_leaves
from srcnn.data.patches import Patches
from srcnn.image import bicubic_down, bicubic_up, quantize, shave
from srcnn.nets import SRCNN
from srcnn.optim import Muon

IMAGES = 75  # of 256x256: 4.9 Mpixel, as T91
STEPS = 300


def pairs(times: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Images as SRCNN sees them; every 75 are the same 75 shifted, so that making them does not take the day."""
    images = dead_leaves(IMAGES, 256, seed=0)
    for time_ in range(times):
        for image in images:
            hr = image.roll((time_, 2 * time_), (1, 2))[:, :255, :255]
            yield bicubic_up(quantize(bicubic_down(hr[None].float() / 255, 3)), 3)[0], hr


def memory() -> dict[str, float]:
    """GB of this process: held by itself, and mapped from files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "RssFile"))}
    return {"GB anonymous": kib["RssAnon"] / 2**20, "GB file": kib["RssFile"] / 2**20}


def measure(times: int, limit: float) -> dict[str, Any]:
    start = time.perf_counter()
    patches = Patches(pairs(times), patch_size=36, batch_size=16, random=True, memory=limit)
    made = time.perf_counter() - start
    net = SRCNN(init="identity").to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = Muon(net.parameters(), lr=1e-4)

    def step(number: int) -> None:
        x, hr = patches.batch(number)
        optimizer.zero_grad()
        F.mse_loss(net.body_of_crop(x), shave(hr, net.train_border)).backward()
        optimizer.step()

    def milliseconds(work: Any) -> float:
        for number in range(STEPS):  # the pages that will be looked at are not there at first
            work(number)
        start = time.perf_counter()
        for number in range(STEPS, 2 * STEPS):
            work(number)
        return (time.perf_counter() - start) / STEPS * 1e3

    batch, whole = milliseconds(patches.batch), milliseconds(step)
    size = (patches.inputs.nbytes + patches.targets.nbytes) / 1e9
    row = {"x T91": times, "GB of pixels": size, "in": "a map" if patches.mapped else "memory", "s to make": made}
    return row | {"ms a batch": batch, "ms a step": whole} | memory()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--memory", type=float, default=1.0)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.times[0], arguments.memory)))
        return
    rows = []
    for times in arguments.times:
        command = [sys.executable, "-m", "benchmarks.training_set", "--one", "--times", str(times)]
        command += ["--memory", str(arguments.memory)]
        rows.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    show("training_set", rows, memory=arguments.memory)


if __name__ == "__main__":
    main()
