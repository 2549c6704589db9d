"""Show what a checkpoint holds.

python -m srcnn.inspect_ckpt CKPT           network, progress, scores, learning rate, settings, versions
python -m srcnn.inspect_ckpt CKPT --json    the same for a program
"""

import argparse
import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from srcnn.checkpoint import find_checkpoint, load_network
from srcnn.errors import UserError
from srcnn.launch import fail


def describe(path: Path) -> dict[str, Any]:
    """The facts about a checkpoint, in plain data; the settings of its run come last, as they are long."""
    net, checkpoint = load_network(path)
    kind = "run" if "optimizer_states" in checkpoint else "weights" if "network" in checkpoint else "bare weights"
    facts = {"file": str(path), "bytes": path.stat().st_size, "kind": kind, "network": type(net).__name__}
    facts |= {"scale": net.scale, "scale_assumed": checkpoint.get("scale_assumed", False), "arguments": net.arguments}
    facts |= {"parameters": net.parameter_count, "multiply_adds_1280x720": net.multiply_adds()}
    facts["layers"] = {name: list(value.shape) for name, value in net.state_dict().items()}
    if kind == "run":
        groups = [group for state in checkpoint["optimizer_states"] for group in state["param_groups"]]
        saving = [state for state in checkpoint["callbacks"].values() if state.get("monitor") == "val/psnr"]
        best = [float(state["best_model_score"]) for state in saving if state["best_model_score"] is not None]
        facts |= {"epoch": checkpoint["epoch"], "step": checkpoint["global_step"]}
        facts["learning_rates"] = [float(group["lr"]) for group in groups]
        facts["best_scores"] = best
        facts["averaged_weights"] = "current_model_state" in checkpoint
    facts |= checkpoint["run"]
    return {key: facts[key] for key in sorted(facts, key=lambda key: key == "settings")}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m srcnn.inspect_ckpt", description="Show what a checkpoint holds.")
    parser.add_argument("checkpoint")
    parser.add_argument("--json", action="store_true", help="for a program to read")
    parser.add_argument("--imports", nargs="+", default=[], metavar="MODULE", help="that define networks of yours")
    arguments = parser.parse_args()
    try:
        for module in arguments.imports:
            importlib.import_module(module)
        facts = describe(find_checkpoint(arguments.checkpoint))
        if not arguments.json and "settings" in facts:  # these are long, and mostly the defaults
            facts["settings"] = {k: v for k, v in facts["settings"].items() if k not in ("callbacks", "logger")}
        # YAML escapes what a terminal would obey.
        options: dict[str, Any] = {"sort_keys": False, "allow_unicode": True, "default_flow_style": None}
        text = json.dumps(facts, indent=2) if arguments.json else yaml.safe_dump(facts, width=120, **options).rstrip()
        print(text, flush=True)
    except UserError as error:
        fail(error)
    except BrokenPipeError:  # as of `… | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
