"""Show what a checkpoint holds.

python -m srcnn.inspect_ckpt CKPT           network, parameters, hyper-parameters, progress, scores, versions
python -m srcnn.inspect_ckpt CKPT --json    the same for a program
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from srcnn.checkpoint import find_checkpoint, load_network, progress
from srcnn.errors import UserError


def describe(path: Path) -> dict[str, Any]:
    """The facts about a checkpoint, in plain data."""
    net, checkpoint = load_network(str(path))
    settings = checkpoint.get("srcnn", {})
    facts: dict[str, Any] = {
        "file": str(path),
        "bytes": path.stat().st_size,
        "network": type(net).__name__,
        "scale": net.scale,
        "parameters": net.parameter_count,
        "layers": {name: list(value.shape) for name, value in net.state_dict().items()},
    }
    if not settings:
        return facts | {"kind": "bare weights"}
    if "loops" in checkpoint:
        epoch, step = progress(path, checkpoint)
        facts |= {"kind": "run", "epoch": epoch, "step": step, "scores": {"val/psnr": settings.get("val_psnr")}}
        facts |= {"averaged_weights": "current_model_state" in checkpoint}
    else:
        facts |= {"kind": "weights", "run": settings.get("run")}
    return facts | {
        "choices": settings["choices"],
        "hyper_parameters": settings["values"],
        "versions": settings.get("versions"),
    }


def show(facts: dict[str, Any]) -> str:
    """The facts as lines to read."""
    lines = []
    for key, value in facts.items():
        if isinstance(value, dict):
            lines.append(f"{key.replace('_', ' ')}")
            width = max(map(len, value), default=0)
            lines += [f"  {name:<{width}}  {_text(item)}" for name, item in value.items()]
        else:
            lines.append(f"{key.replace('_', ' '):<16}  {_text(value)}")
    return "\n".join(lines)


def _text(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m srcnn.inspect_ckpt", description="Show what a checkpoint holds.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--json", action="store_true", help="for a program to read")
    arguments = parser.parse_args()
    try:
        facts = describe(find_checkpoint(arguments.checkpoint))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(json.dumps(facts, indent=2, ensure_ascii=False) if arguments.json else show(facts))


if __name__ == "__main__":
    main()
