"""The JSON schema of the settings, by which editors complete keys and mark mistakes: python -m srcnn.schema

Writes configs/schema.json, a definition for each command and group, and names it in each YAML file. Keys and types are
those of the YAML files and of the constructors that `_target_` names there; descriptions are the comments in the YAML.
"""

import inspect
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import lightning
import torch
from hydra.utils import get_object
from omegaconf import OmegaConf

from srcnn.launch import CONFIGS

Schema = dict[str, Any]
VERSIONS = {"lightning": lightning.__version__, "torch": torch.__version__.partition("+")[0]}  # whose arguments it has
_OPEN = ("callbacks", "hydra", "logger")  # groups that take any key
_META = ("_target_", "_partial_", "_args_", "_convert_", "_recursive_", "defaults")
_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
_TYPES |= {NoneType: "null"}


def generate() -> Schema:
    """The whole schema, one definition for each command and group."""
    groups = {folder.name: sorted(folder.glob("*.yaml")) for folder in sorted(CONFIGS.iterdir()) if folder.is_dir()}
    commands = {path.stem: [path] for path in sorted(CONFIGS.glob("*.yaml"))}
    definitions = {name: _definition(name, files) for name, files in (commands | groups).items()}
    of_groups = {group: {"$ref": f"#/definitions/{group}"} for group in groups}
    definitions["experiment"]["properties"] = definitions["train"]["properties"] | of_groups
    choices = {group: {"enum": [*(path.stem for path in files), None]} for group, files in groups.items()}
    choices |= {f"override /{group}": choice for group, choice in choices.items()}
    definitions["defaults"] = {"type": "array", "items": {"type": ["string", "object"], "properties": choices}}
    return {"$schema": "http://json-schema.org/draft-07/schema#", "versions": VERSIONS, "definitions": definitions}


def _definition(name: str, files: Sequence[Path]) -> Schema:
    files = sorted(
        files, key=lambda path: "\n_target_:" in path.read_text()
    )  # what others build on comes last, and wins
    contents: list[Any] = [OmegaConf.to_container(OmegaConf.load(path)) for path in files]
    comments = {key: comment for path in files for key, comment in _comments(path).items()}
    schema = {"type": "object", **_object(contents, comments, "")}
    schema["properties"]["defaults"] = {"$ref": "#/definitions/defaults"}
    return schema if name in _OPEN or "then" in schema else schema | {"additionalProperties": False}


def _comments(path: Path) -> dict[str, str]:
    """The comment after each key of a YAML file, by dotted key."""
    comments, parents = {}, [(-1, "")]
    for line in path.read_text(encoding="utf-8").splitlines():
        if found := re.match(r"( *)(\w+):[^#]*(?:# *(.*))?", line):
            parents = [(indent, parent) for indent, parent in parents if indent < len(found[1])]
            parents.append((len(found[1]), f"{parents[-1][1]}.{found[2]}"))
            if found[3]:
                comments[parents[-1][1]] = found[3]
    return comments


def _object(mappings: Sequence[Mapping[str, Any]], comments: Mapping[str, str], path: str) -> Schema:
    """What several files have at the same place."""
    arguments = {m["_target_"]: _arguments(m) for m in mappings if m.get("_target_")}
    keys = [*dict.fromkeys(key for part in (*mappings, *arguments.values()) for key in part)]
    schema: Schema = {"properties": {}}
    for key in keys:
        values = [mapping[key] for mapping in mappings if key in mapping]
        hints = [of_one[key] for of_one in arguments.values() if key in of_one]
        schema["properties"][key] = _property(values, hints, comments, f"{path}.{key}")
    if arguments:  # a class that is not known here may take any key
        schema["if"] = {"properties": {"_target_": {"enum": [*arguments, None]}}}
        schema["then"] = {"propertyNames": {"enum": [*dict.fromkeys((*keys, *_META))]}}
    return schema


def _arguments(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a mapping's `_target_`, and their types."""
    target: Any = get_object(mapping["_target_"])
    try:
        hints = get_type_hints(target.__init__ if inspect.isclass(target) else target)
        parameters = [*inspect.signature(target).parameters.values()][bool(mapping.get("_partial_")) :]
    except (NameError, ValueError):  # of types that only type checkers import, of a class in C
        return {}
    return {p.name: hints.get(p.name, Any) for p in parameters if p.kind != p.VAR_KEYWORD}


def _property(values: Sequence[Any], hints: Sequence[Any], comments: Mapping[str, str], path: str) -> Schema:
    types = {name for hint in hints for name in _types(hint)}
    types |= {_TYPES[type(value)] for value in values if not str(value).startswith("${")}
    items = sorted({name for hint in hints for name in _types(hint, of_items=True)})
    schema: Schema = {"description": comments[path]} if path in comments else {}
    if mappings := [value for value in values if isinstance(value, dict)]:
        schema |= _object(mappings, comments, path)
    if types <= {"null"}:
        return schema
    if "string" not in types:
        schema |= {"pattern": r"^\$\{", "patternErrorMessage": f"must be {' or '.join(sorted(types))}, or ${{…}}"}
    return schema | {"type": sorted({*types, "string"})} | ({"items": {"type": items}} if items else {})


def _types(hint: Any, of_items: bool = False) -> set[str]:
    """JSON's names for a type, or for what its lists hold."""
    kind, arguments = get_origin(hint) or hint, get_args(hint)
    if kind in (Union, UnionType):
        return {name for argument in arguments for name in _types(argument, of_items)}
    if of_items:
        is_list = inspect.isclass(kind) and issubclass(kind, Sequence)
        return (
            {name for argument in arguments if argument is not ... for name in _types(argument)} if is_list else set()
        )
    if kind is Literal:
        return {_TYPES[type(value)] for value in arguments}
    if kind in _TYPES:
        return {_TYPES[kind]}
    if not inspect.isclass(kind):  # Any
        return set(_TYPES.values())
    return {"array" if issubclass(kind, Sequence) else "string" if hasattr(kind, "__fspath__") else "object"}


def main() -> None:
    """Write the schema, and its line into the YAML files that lack it."""
    (CONFIGS / "schema.json").write_text(json.dumps(generate(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for path in CONFIGS.rglob("*.yaml"):
        place, name = ("", path.stem) if path.parent == CONFIGS else ("../", path.parent.name)
        line = f"# yaml-language-server: $schema={place}schema.json#/definitions/{name}\n"
        text = path.read_text(encoding="utf-8")
        package = "# @package _global_\n" * text.startswith("# @package _global_\n")  # has to be first, for Hydra
        if line not in text:
            path.write_text(package + line + text.removeprefix(package), encoding="utf-8")


if __name__ == "__main__":
    main()
