"""What a benchmark found: a table to read, and JSON in a folder of the machine that it was found on."""

import json
import os
import platform
import re
import time
from pathlib import Path
from typing import Any

import torch

from srcnn import __version__
from srcnn.device import device_name

FOLDER = Path(__file__).parent / "results"
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def machine() -> dict[str, Any]:
    """What a figure depends on besides the code."""
    rates = {
        str(dtype).removeprefix("torch."): round(matrix_rate(dtype) / 1e9) for dtype in (torch.float32, torch.bfloat16)
    }
    return {
        "device": device_name(DEVICE),
        "family": _family(),
        "vectors": _vectors(),
        "matrix GFLOP/s": rates,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "srcnn": __version__,
    }


def matrix_rate(dtype: torch.dtype, seconds: float = 0.5) -> float:
    """FLOP a second of products of two matrices of 1024x1024, the median of as many as fit into some seconds."""
    a, b = torch.randn(2, 1024, 1024, device=DEVICE).to(dtype)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 2 or time.perf_counter() < end:
        start = time.perf_counter()
        a @ b
        synchronize()
        times.append(time.perf_counter() - start)
    return 2 * 1024**3 / sorted(times)[len(times) // 2]


def synchronize() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def show(name: str, rows: list[dict[str, Any]], **facts: Any) -> Path:
    """Print `rows` as a table and write them, with `facts` and the machine, to results/MACHINE/NAME.json."""
    keys = list(rows[0])
    cells = [[_text(row[key]) for key in keys] for row in rows]
    widths = [max(len(key), *(len(row[i]) for row in cells)) for i, key in enumerate(keys)]
    found_on = machine()
    print("\n" + ", ".join(f"{key} {value}" for key, value in found_on.items()) + "\n")
    for line in [keys, *cells]:
        padded = [cell.rjust(width) for cell, width in zip(line, widths, strict=True)]
        print("  ".join([line[0].ljust(widths[0]), *padded[1:]]))
    kind = device_name(DEVICE).partition(",")[0] if DEVICE.type == "cuda" else f"{_name()} {_family()} {_vectors()}"
    path = FOLDER / re.sub(r"[^a-z0-9]+", "-", kind.lower()).strip("-") / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"rows": rows, **facts, "machine": found_on}, indent=2) + "\n")
    print(path)
    return path


def _name() -> str:
    return device_name(torch.device("cpu")).partition(",")[0]


def _family() -> str:
    """By which processors of one name differ: AMD's 25 is Zen 3 or 4, 26 Zen 5."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"cpu family\s*: (\d+)", info.read_text()) if info.exists() else None
    return found[1] if found else ""


def _vectors() -> str:
    """The widest instructions that the processor has for what a network computes, and what oneDNN is held to."""
    if limit := os.environ.get("ONEDNN_MAX_CPU_ISA"):
        return f"held to {limit.lower()}"
    info = Path("/proc/cpuinfo")
    features = set(info.read_text().split()) if info.exists() else set()
    return next((name for name in ("amx_bf16", "avx512_bf16", "avx512f", "avx2", "asimd") if name in features), "")


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
