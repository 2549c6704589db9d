"""The YAML files in configs/ as the description of all settings: keys, defaults, types, and what the comments say."""

import difflib
import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from srcnn.errors import UserError
from srcnn.run import CONFIGS

_TYPES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", list: "a list"}
# Keys of the machine or the place: no part of what a run is.
ELSEWHERE = (
    "output_dir", "resume", "data.root", "trainer.accelerator", "trainer.devices", "trainer.num_nodes",
    "trainer.strategy",
)  # fmt: skip
_SEVERAL_TYPES = ("data.hold_out",)  # names or how many

# The words of the assignment sheet's own command lines.
SHEET = {
    "lr": "optim.lr", "batch_size": "data.batch_size", "num_epoch": "trainer.max_epochs", "resume": "resume",
    "save_freq": "callbacks.checkpoint.every_n_epochs", "checkpoint": "ckpt_path", "cuda": "trainer.accelerator=gpu",
}  # fmt: skip


class Setting(NamedTuple):
    """What a YAML file says of a key."""

    default: Any
    comment: str


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one dictionary of dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else {f"{prefix}{key}": value}
    return flat


def documented(name: str, choices: Mapping[str, str | None]) -> dict[str, Setting]:
    """All settings of configs/NAME.yaml and of the groups' files that are chosen, by dotted key."""
    found = _read(CONFIGS / f"{name}.yaml", "")
    for group, choice in choices.items():
        if choice and group != "experiment" and (path := CONFIGS / group / f"{choice}.yaml").is_file():
            found |= _read(path, f"{group}.")
    return found


def _read(path: Path, prefix: str) -> dict[str, Setting]:
    content: Any = OmegaConf.to_container(OmegaConf.load(path))
    found: dict[str, Setting] = {}
    for base in content.pop("defaults", []):
        if isinstance(base, str) and base != "_self_":
            found |= _read(path.with_name(f"{base}.yaml"), prefix)
    comments = _comments(path)
    for key, value in flatten(content, prefix).items():
        inherited = found[key].comment if key in found else ""
        found[key] = Setting(value, comments.get(key.removeprefix(prefix), inherited))
    return found


def _comments(path: Path) -> dict[str, str]:
    """The comment after each key of a YAML file, by dotted key."""
    comments, parents = {}, [(-1, "")]
    for line in path.read_text(encoding="utf-8").splitlines():
        if found := re.match(r"( *)(\w+):(?:[^#]*)(?:# *(.*))?", line):
            indent = len(found[1])
            parents = [parent for parent in parents if parent[0] < indent]
            key = f"{parents[-1][1]}.{found[2]}".lstrip(".")
            parents.append((indent, key))
            if found[3]:
                comments[key] = found[3]
    return comments


def check_types(values: Mapping[str, Any], schema: Mapping[str, Setting]) -> None:
    """UserError unless each value is of the type that its key has in the YAML, where that is not null."""
    for key, value in values.items():
        default = schema[key].default if key in schema else None
        if default is None or "${" in str(default) or (value is None and key.startswith(("callbacks.", "logger."))):
            continue
        if not _is_like(value, default) and not (key in _SEVERAL_TYPES and isinstance(value, int | list)):
            raise UserError(f"{key}={'null' if value is None else value}: must be {_TYPES[type(default)]}")


def _is_like(value: Any, default: Any) -> bool:
    if isinstance(default, float):
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if isinstance(default, str):
        return isinstance(value, str | int | float)  # a name may look like a number
    return type(value) is type(default)


def unknown_key(key: str, known: Iterable[str]) -> UserError:
    """The error for a key that does not exist, with the nearest one that does."""
    known = list(known)
    same_name = [other for other in known if other.rpartition(".")[2] == key.rpartition(".")[2]]
    theirs = [SHEET[key]] if SHEET.get(key, "").partition("=")[0] in known else []
    nearest = theirs or same_name or difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {nearest[0]}?" if nearest else "--help lists all keys"
    return UserError(f"{key}: no such key; {hint}")


def help_page(name: str, choices: Mapping[str, str | None]) -> str:
    """All settings with their defaults and comments, the groups with their files."""
    lines = ["Settings, as key=value; a group takes the name of one of its files in configs/:"]
    for group, choice in choices.items():
        others = sorted(path.stem for path in (CONFIGS / group).glob("*.yaml") if path.stem != choice)
        lines.append(f"  {group}={choice or 'null'}" + (f"  (or {', '.join(others)})" if others else ""))
    for key, (default, comment) in documented(name, choices).items():
        fixed = key.startswith(("callbacks.", "logger.", "hydra.")) and not comment  # what nobody needs to set
        if not fixed and not key.rpartition(".")[2].startswith("_"):
            shown = default if isinstance(default, str) else json.dumps(default, ensure_ascii=False)
            lines.append(f"  {f'{key}={shown}':<52} {comment}".rstrip())
    return "\n".join(lines)
