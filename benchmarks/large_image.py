"""How much memory does predict.py take for a large image?

    python -m benchmarks.large_image [--sizes 1500x1000 3000x2000 6000x4000]

Each a random JPEG enlarged x3 to a BMP, by predict.py as a process: its peak, beside what the pixels of
input and output take, and beside the same for a 30x20 image, which is Python and torch.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.table import show


def peak(size: str) -> tuple[float, float]:
    """MB and seconds of predict.py on an image of this size."""
    width, height = map(int, size.split("x"))
    with tempfile.TemporaryDirectory() as folder:
        pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(Path(folder) / "in.jpg")
        del pixels
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "predict.py", f"input={folder}/in.jpg", f"output={folder}/out.bmp"],
            stdout=subprocess.DEVNULL,
        )
        _, status, usage = os.wait4(process.pid, 0)
        assert status == 0
        return usage.ru_maxrss * 1024 / 1e6, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["1500x1000", "3000x2000", "6000x4000"])
    arguments = parser.parse_args()
    idle, _ = peak("30x20")
    rows = []
    for size in arguments.sizes:
        width, height = map(int, size.split("x"))
        took, seconds = peak(size)
        pixels = width * height * 3 * (1 + 9) / 1e6
        rows.append({"LR": size, "s": seconds, "MB": took, "MB above 30x20": took - idle, "MB of pixels": pixels})
    show("large_image", rows)


if __name__ == "__main__":
    main()
