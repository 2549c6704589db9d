"""Show what a checkpoint holds.

python -m srcnn.inspect_ckpt CKPT           network, parameters, hyper-parameters, progress, scores, optimiser, versions
python -m srcnn.inspect_ckpt CKPT --json    the same for a program
"""

import argparse
import json
import os
import shutil
import sys
import textwrap
from pathlib import Path
from typing import Any

from srcnn.errors import UserError
from srcnn.run.checkpoint import find_checkpoint, load_network, progress, run_of


def describe(path: Path) -> dict[str, Any]:
    """The facts about a checkpoint, in plain data."""
    net, checkpoint = load_network(path)
    run = run_of(path, checkpoint)
    facts: dict[str, Any] = {
        "file": str(path),
        "bytes": path.stat().st_size,
        "network": type(net).__name__,
        "scale": net.scale,
        "parameters": net.parameter_count,
        "layers": {name: list(value.shape) for name, value in net.state_dict().items()},
    }
    if checkpoint.get("scale_assumed"):
        facts["scale_assumed"] = True
    if not run:
        return facts | {"kind": "bare weights"}
    if "loops" in checkpoint:
        epoch, step = progress(path, checkpoint)
        facts |= {"kind": "run", "epoch": epoch, "step": step, "scores": {"val/psnr": run.get("val_psnr")}}
        facts["averaged_weights"] = "current_model_state" in checkpoint
        facts["optimizer"] = _optimizer(path, checkpoint, run)
    else:
        parts = ("overrides", "values", "classes", "versions", "data")
        facts |= {"kind": "weights", "run": {key: value for key, value in run.items() if key not in parts}}
    facts |= {"overrides": run.get("overrides"), "hyper_parameters": run.get("values"), "versions": run.get("versions")}
    return facts


def _optimizer(path: Path, checkpoint: dict[str, Any], run: dict[str, Any]) -> dict[str, Any]:
    """What there is of the optimiser's state: its class, tensors and learning rates."""
    import torch

    try:
        states = [tensors for state in checkpoint["optimizer_states"] for tensors in state["state"].values()]
        groups = [group for state in checkpoint["optimizer_states"] for group in state["param_groups"]]
        return {
            "class": run.get("classes", {}).get("optim"),
            "parameters with state": len(states),
            "tensors": sum(isinstance(value, torch.Tensor) for tensors in states for value in tensors.values()),
            "kinds": sorted({str(kind) for tensors in states for kind in tensors}),
            "learning rate": [float(group["lr"]) for group in groups],
        }
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError):
        raise UserError(f"{path}: its optimizer_states are not an optimiser's") from None


def show(facts: dict[str, Any]) -> str:
    """The facts as lines to read, of the width of the terminal."""
    lines = []
    for key, value in facts.items():
        if key == "scale" and facts.get("scale_assumed"):
            value = f"{value} (assumed: the file does not say)"
        if isinstance(value, dict):
            width = max(map(len, value), default=0)
            lines += [key.replace("_", " "), *(_line(f"  {name:<{width}}  ", item) for name, item in value.items())]
        elif key != "scale_assumed":
            lines.append(_line(f"{key.replace('_', ' '):<16}  ", value))
    return "\n".join(lines)


def _line(name: str, value: Any) -> str:
    if isinstance(value, dict):
        value = ", ".join(f"{key} {item}" for key, item in value.items())
    if isinstance(value, list) and any(isinstance(item, str) for item in value):
        value = " ".join(map(str, value))
    text = f"{value:,}" if type(value) is int else str(value)
    text = "".join(letter if letter.isprintable() else "?" for letter in text)  # nothing that a terminal obeys
    width = max(40, shutil.get_terminal_size().columns)
    return textwrap.fill(text, width, initial_indent=name, subsequent_indent=" " * len(name), break_on_hyphens=False)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m srcnn.inspect_ckpt", description="Show what a checkpoint holds.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--json", action="store_true", help="for a program to read")
    arguments = parser.parse_args()
    try:
        facts = describe(find_checkpoint(arguments.checkpoint))
        print(json.dumps(facts, indent=2, ensure_ascii=False) if arguments.json else show(facts), flush=True)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # as of `… | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
