"""Show what a checkpoint holds.

python -m srcnn.inspect_ckpt CKPT           network, progress, scores, learning rate, settings, versions
python -m srcnn.inspect_ckpt CKPT --json    the same for a program
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from srcnn.checkpoint import find_checkpoint, load_network
from srcnn.errors import UserError


def describe(path: Path) -> dict[str, Any]:
    """The facts about a checkpoint, in plain data."""
    net, checkpoint = load_network(path)
    kind = "run" if "loops" in checkpoint else "weights" if "network" in checkpoint else "bare weights"
    facts = {"file": str(path), "bytes": path.stat().st_size, "kind": kind, "network": type(net).__name__}
    facts |= {"scale": net.scale, "scale_assumed": checkpoint.get("scale_assumed", False), "arguments": net.arguments}
    facts |= {"parameters": net.parameter_count, "multiply_adds_1280x720": net.multiply_adds()}
    facts["layers"] = {name: "x".join(map(str, value.shape)) for name, value in net.state_dict().items()}
    if kind == "run":
        groups = [group for state in checkpoint["optimizer_states"] for group in state["param_groups"]]
        best = [found["best_model_score"] for found in checkpoint["callbacks"].values() if found.get("monitor")]
        facts |= {"epoch": checkpoint["epoch"], "step": checkpoint["global_step"]}
        facts |= {"learning_rates": [float(group["lr"]) for group in groups], "best_scores": list(map(float, best))}
        facts["averaged_weights"] = "current_model_state" in checkpoint
    return facts | checkpoint["run"]


def lines(facts: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """The facts to read, an object of the settings in a line; nothing in them that a terminal would obey."""
    for key, value in facts.items():
        if (
            isinstance(value, dict)
            and any(isinstance(part, dict) for part in value.values())
            and "_target_" not in value
        ):
            yield f"{indent}{key}:"
            yield from lines(value, indent + "  ")
        else:
            yield "".join(c if c.isprintable() else repr(c)[1:-1] for c in f"{indent}{key}: {_in_a_line(value)}")


def _in_a_line(value: Any) -> str:
    """A value as one types it; an object as it would be made: Adam(lr=0.0001)."""
    if isinstance(value, list):
        return f"[{', '.join(map(_in_a_line, value))}]"
    if not isinstance(value, dict):
        return f"{value:,}" if type(value) is int else "null" if value is None else str(value)
    parts = ", ".join(f"{key}={_in_a_line(part)}" for key, part in value.items() if not key.startswith("_"))
    return f"{value['_target_'].rpartition('.')[2]}({parts})" if value.get("_target_") else parts


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m srcnn.inspect_ckpt", description="Show what a checkpoint holds.")
    parser.add_argument("checkpoint")
    parser.add_argument("--json", action="store_true", help="for a program to read")
    arguments = parser.parse_args()
    try:
        facts = describe(find_checkpoint(arguments.checkpoint))
        print(json.dumps(facts, indent=2) if arguments.json else "\n".join(lines(facts)), flush=True)
    except UserError as error:
        sys.exit(print(f"error: {error}", file=sys.stderr) or error.code)
    except BrokenPipeError:  # as of `… | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
