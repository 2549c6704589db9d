"""What does a training set of photographs' size cost: bytes a pixel, seconds to pack and to open, memory, step time?

    python -m benchmarks.training_set [--images 8 60]

Generated images of 2040x1356, as DIV2K's, are written into a temporary folder, packed, and opened a second time by a
process of its own, which takes batches alone and whole steps of SRCNN, as experiment=fast has them. Memory is that
process's: anonymous (what it holds) and file (pages of the map that the kernel can take back).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.table import show
from srcnn.data.degrade import Bicubic
from srcnn.data.leaves import dead_leaves
from srcnn.data.pack import pack
from srcnn.data.patches import Patches
from srcnn.data.sources import ImagePath, Source
from srcnn.files import list_images
from srcnn.image import as_float, shave
from srcnn.inference.image_file import write_image
from srcnn.nets import SRCNN
from srcnn.optim import Muon

HEIGHT, WIDTH, STEPS = 1356, 2040, 300


def write_images(folder: Path, count: int) -> None:
    """The same 16 leaves images side by side, shifted for each file."""
    tiles = dead_leaves(16, 512, seed=0)
    sheet = torch.cat([torch.cat(tiles[row : row + 4], 2) for row in range(0, 16, 4)], 1)
    for number in range(count):
        write_image(folder / f"{number:04}.png", sheet.roll((7 * number, 13 * number), (1, 2))[:, :HEIGHT, :WIDTH])


def sources(folder: Path) -> dict[str, Source]:
    return {path.stem: ImagePath(path) for path in list_images(folder)}


def memory() -> dict[str, float]:
    """GB of this process: held by itself, and mapped from files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "RssFile"))}
    return {"GB anonymous": kib["RssAnon"] / 2**20, "GB file": kib["RssFile"] / 2**20}


def measure(folder: Path) -> dict[str, Any]:
    net = SRCNN(init="identity").to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    start = time.perf_counter()
    packed = pack(sources(folder), 3, Bicubic())
    patches = Patches(packed, patch_size=36, margin=net.margin, batch_size=16, random=True)
    patches.batch(0)
    opened = time.perf_counter() - start
    optimizer = Muon(net, lr=1e-4)

    def step(number: int) -> None:
        lr, hr = (as_float(crops) for crops in patches.batch(number))
        optimizer.zero_grad()
        sr = net.valid(lr)
        F.mse_loss(sr, shave(hr, (hr.shape[-1] - sr.shape[-1]) // 2)).backward()
        optimizer.step()

    def milliseconds(work: Any) -> float:
        for number in range(STEPS):  # the pages that will be looked at are not there at first
            work(number)
        start = time.perf_counter()
        for number in range(STEPS, 2 * STEPS):
            work(number)
        return (time.perf_counter() - start) / STEPS * 1e3

    hr_pixels = int(packed.sizes.prod(1).sum())
    row = {"Mpixel": hr_pixels / 1e6, "bytes an HR pixel": packed.pixels.numel() / hr_pixels, "s to open": opened}
    return row | {"ms a batch": milliseconds(patches.batch), "ms a step": milliseconds(step)} | memory()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[8, 60])
    parser.add_argument("--of", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.of:
        print(json.dumps(measure(arguments.of)))
        return
    rows = []
    for count in arguments.images:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "images"
            os.environ["SRCNN_CACHE"] = str(Path(temporary) / "cache")
            write_images(folder, count)
            start = time.perf_counter()
            pack(sources(folder), 3, Bicubic())
            packed = time.perf_counter() - start
            command = [sys.executable, "-m", "benchmarks.training_set", "--of", str(folder)]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            rows.append({"images": count, "s to pack": packed} | found)
    show("training_set", rows)


if __name__ == "__main__":
    main()
