"""Show what a checkpoint holds.

python -m srcnn.inspect_ckpt CKPT           network, parameters, hyper-parameters, progress, scores, optimiser, versions
python -m srcnn.inspect_ckpt CKPT --json    the same for a program
"""

import argparse
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from srcnn import __version__
from srcnn.errors import UserError
from srcnn.checkpoint import find_checkpoint, load_network, progress, run_of


def describe(path: Path) -> dict[str, Any]:
    """The facts about a checkpoint, in plain data."""
    net, checkpoint = load_network(path)
    run = run_of(path, checkpoint)
    facts: dict[str, Any] = {
        "file": str(path),
        "bytes": path.stat().st_size,
        "kind": "run" if "loops" in checkpoint else "weights" if run else "bare weights",
        "network": type(net).__name__,
        "scale": net.scale,
        "scale_assumed": checkpoint.get("scale_assumed", False),  # the file does not say
        "parameters": net.parameter_count,
        "multiply_adds_1280x720": net.multiply_adds(),
        "layers": {name: "x".join(map(str, value.shape)) for name, value in net.state_dict().items()},
    }
    if "loops" in checkpoint:
        epoch, step = progress(path, checkpoint)
        facts |= {"epoch": epoch, "step": step, "scores": {"val/psnr": run.get("val_psnr")}}
        facts["averaged_weights"] = "current_model_state" in checkpoint
        try:
            groups = [group for state in checkpoint["optimizer_states"] for group in state["param_groups"]]
            rates = [float(group["lr"]) for group in groups]
        except (LookupError, RuntimeError, TypeError, ValueError):
            raise UserError(f"{path}: its optimizer_states are not an optimiser's") from None
        facts["optimizer"] = {"class": run.get("classes", {}).get("optim"), "learning rate": rates}
    shown = ("classes", "data", *(["val_psnr"] if "scores" in facts else []))
    for key, value in run.items():
        if key not in shown:
            facts.setdefault("hyper_parameters" if key == "values" else key, value)
    return facts


def show(facts: dict[str, Any]) -> str:
    """The facts as YAML to read, of the width of the terminal; nothing in it that a terminal would obey."""
    figures = {key: f"{facts[key]:,}" for key in ("bytes", "parameters", "multiply_adds_1280x720")}
    width = max(40, shutil.get_terminal_size().columns)
    return yaml.safe_dump(facts | figures, sort_keys=False, allow_unicode=True, width=width)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m srcnn.inspect_ckpt", description="Show what a checkpoint holds.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--version", action="version", version=__version__)
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
