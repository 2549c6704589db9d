"""configs/schema.json: what editors complete and mark in YAML files."""

import json
from typing import Any

import pytest
from omegaconf import OmegaConf

from srcnn.launch import CONFIGS
from srcnn.schema import VERSIONS, generate

jsonschema = pytest.importorskip("jsonschema")
SCHEMA = json.loads((CONFIGS / "schema.json").read_text())


def mistakes(name: str, content: Any) -> list[str]:
    schema = {**SCHEMA, "$ref": f"#/definitions/{name}"}
    plain = OmegaConf.to_container(OmegaConf.create(content))
    return [error.message for error in jsonschema.Draft7Validator(schema).iter_errors(plain)]


def test_it_is_up_to_date() -> None:
    if SCHEMA["versions"] != VERSIONS:
        pytest.skip(f"the schema was written with {SCHEMA['versions']}, these are {VERSIONS}")
    assert generate() == SCHEMA, "run python -m srcnn.schema"


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: str(path.relative_to(CONFIGS)))
def test_every_yaml(path: Any) -> None:
    place, name = ("", path.stem) if path.parent == CONFIGS else ("../", path.parent.name)
    lines = path.read_text().splitlines()
    assert f"# yaml-language-server: $schema={place}schema.json#/definitions/{name}" in lines[:2]
    assert not mistakes(name, OmegaConf.load(path))


WRONG = [
    ("model", "widht: 16"),
    ("model", "{_target_: srcnn.nets.Compact, layers: 8}"),
    ("model", "width: wide"),
    ("model", "depth: 2.5"),
    ("model", "kernels: [nine, 1, 5]"),
    ("model", "residual: 1"),
    ("data", "batch_size: 16.5"),
    ("data", "random: sometimes"),
    ("data", "rescale: 0.9"),
    ("data", "patchsize: 36"),
    ("loss", "rgb: [0.1]"),
    ("optim", "lr: fast"),
    ("optim", "weight_decay: null"),
    ("scheduler", "warmup: 50"),
    ("scheduler", "schedule: {hold: half}"),
    ("trainer", "max_epochs: many"),
    ("trainer", "max_epoch: 10"),
    ("callbacks", "ema: {dekay: 0.999}"),
    ("experiment", "{optim: {lr: fast}}"),
    ("experiment", "defaults: [{override /optim: moun}]"),
    ("experiment", "optimizer: {lr: 0.1}"),
    ("train", "seed: zero"),
    ("train", "defaults: [{model: vgg}]"),
    ("predict", "overwrite: 1"),
    ("export", "fromat: onnx"),
]


@pytest.mark.parametrize(("name", "text"), WRONG, ids=str)
def test_a_wrong_one(name: str, text: str) -> None:
    assert len(mistakes(name, OmegaConf.create(text))) == 1


def test_what_it_leaves_to_you() -> None:
    """Your own classes with their own keys, interpolations, more callbacks, other arguments of a class."""
    assert not mistakes("model", "{_target_: mine.Net, heads: 8}")
    assert not mistakes("model", "{width: '${data.batch_size}', defaults: [compact, _self_]}")
    assert not mistakes("callbacks", "{mine: {_target_: mine.Callback, often: true}}")
    assert not mistakes("trainer", "{max_time: '00:01:00:00', profiler: simple}")
    assert not mistakes("optim", "{_target_: torch.optim.AdamW, _partial_: true, lr: 1e-3}")
