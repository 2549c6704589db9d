"""What a benchmark found: a table to read, and JSON with the machine it was found on."""

import json
import platform
from pathlib import Path
from typing import Any

import torch

from srcnn import __version__
from srcnn.report.terminal import device_name

FOLDER = Path(__file__).parent / "results"


def machine() -> dict[str, str]:
    """What a figure depends on besides the code."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    versions = {"python": platform.python_version(), "torch": str(torch.__version__), "srcnn": __version__}
    return {"device": device_name(device), **versions}


def show(name: str, rows: list[dict[str, Any]], **facts: Any) -> None:
    """Print `rows` as a table and write them, with `facts` and the machine, to results/NAME.json."""
    keys = list(rows[0])
    cells = [[_text(row[key]) for key in keys] for row in rows]
    widths = [max(len(key), *(len(row[i]) for row in cells)) for i, key in enumerate(keys)]
    print()
    for line in [keys, *cells]:
        padded = [cell.rjust(width) for cell, width in zip(line, widths, strict=True)]
        print("  ".join([line[0].ljust(widths[0]), *padded[1:]]))
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{name}.json"
    path.write_text(json.dumps({"rows": rows, **facts, "machine": machine()}, indent=2) + "\n")
    print(path)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
