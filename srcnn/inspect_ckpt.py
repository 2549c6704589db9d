"""Show what a checkpoint holds.

python -m srcnn.inspect_ckpt CKPT           network, progress, scores, learning rate, settings, versions
python -m srcnn.inspect_ckpt CKPT --json    the same for a program
"""

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

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
        best = [found.get("best_model_score") for found in checkpoint["callbacks"].values() if found.get("monitor")]
        facts |= {"epoch": checkpoint["epoch"], "step": checkpoint["global_step"]}
        facts |= {"learning_rates": [float(group["lr"]) for group in groups], "best_scores": list(map(float, best))}
        facts["averaged_weights"] = "current_model_state" in checkpoint
    return facts | checkpoint["run"]


def show(facts: dict[str, Any]) -> str:
    """The facts as YAML to read, an object in a line; nothing in it that a terminal would obey."""
    figures = {key: f"{facts[key]:,}" for key in ("bytes", "parameters", "multiply_adds_1280x720")}
    options: Any = {"sort_keys": False, "allow_unicode": True, "default_flow_style": None}
    return yaml.safe_dump(_in_a_line(facts | figures), width=max(40, shutil.get_terminal_size().columns), **options)


def _in_a_line(value: Any) -> Any:
    """Settings with every object as it would be made: Adam(lr=0.0001)."""
    if isinstance(value, list):
        return f"[{', '.join(map(str, map(_in_a_line, value)))}]"
    if not isinstance(value, dict):
        return value
    shown = {key: _in_a_line(part) for key, part in value.items() if not key.startswith("_")}
    if "_target_" not in value:
        return shown
    return f"{str(value['_target_']).rpartition('.')[2]}({', '.join(f'{key}={part}' for key, part in shown.items())})"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m srcnn.inspect_ckpt", description="Show what a checkpoint holds.")
    parser.add_argument("checkpoint")
    parser.add_argument("--json", action="store_true", help="for a program to read")
    arguments = parser.parse_args()
    try:
        facts = describe(find_checkpoint(arguments.checkpoint))
        print(json.dumps(facts, indent=2, ensure_ascii=False) if arguments.json else show(facts), flush=True)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.code)
    except BrokenPipeError:  # as of `… | head`
        sys.stderr.close()


if __name__ == "__main__":
    main()
