"""A config from its groups, checked against its own YAML; what a resume makes of it; and parts of it made real."""

import difflib
import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from srcnn.checkpoint import (
    CONFIGS,
    NOT_RESTORED,
    build_network,
    flatten,
    load_checkpoint,
    newest_checkpoint,
    settings_in,
)
from srcnn.data.datamodule import SRDataModule
from srcnn.errors import UserError
from srcnn.nets import Network

OmegaConf.register_new_resolver("unique", lambda: os.urandom(2).hex(), use_cache=True, replace=True)

# Keys whose value is a path, taken as typed: spaces, brackets, commas, "=" and all.
_PATHS = (
    "resume", "init_from", "ckpt_path", "input", "output", "data.root", "data.train", "data.train_dir", "data.val",
    "hydra.run.dir", "hydra.sweep.dir",
)  # fmt: skip
# Of what type a value is that is null by default.
_NULLABLE: dict[str, Any] = {
    "scale": 3, "data.test": ["Set5"], "trainer.gradient_clip_val": 1.0, "callbacks.guard.every_n_steps": 1,
}  # fmt: skip
_MOST_PARAMETERS = 10**9


def compose_checked(name: str, overrides: Sequence[str]) -> DictConfig:
    """The config `name` with these overrides; UserError for unknown keys, missing values and wrong types.

    The YAML is the schema: a value must be of the type that stands there, where that is not null.
    """
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        assert isinstance(loader, ConfigLoaderImpl)
        try:
            cfg = compose(name, list(overrides), return_hydra_config=True)
            only_groups = [o.input_line for o in parse(overrides) if loader.repository.group_exists(o.key_or_group)]
            example = compose(name, only_groups, return_hydra_config=True)
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            raise UserError(_in_a_sentence(error, name)) from None
    if cfg.hydra.output_subdir is not None:
        _check_folders(cfg.hydra)
    cfg = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    types = flatten(OmegaConf.to_container(OmegaConf.masked_copy(example, [str(k) for k in example if k != "hydra"])))
    values = flatten(OmegaConf.to_container(cfg))
    for key, value in values.items():
        if value == "???" or (value == "" and key in _PATHS):
            raise UserError(f"{key} has to be given: {key}=…")
        _check_known(key, types)
        _check_type(key, value, types)
    for key in types.keys() - values.keys():
        if types[key] is not None and not key.startswith(("callbacks.", "logger.")) and "{" not in str(types[key]):
            group = any(other.startswith(f"{key}.") for other in values)
            raise UserError(
                f"{key}: " + ("must be a value, not a group" if group else f"has to be there; give {key}=…")
            )
    if values.get("output_dir") != types.get("output_dir"):
        raise UserError("output_dir follows hydra.run.dir: set that")
    return cfg


def _check_known(key: str, example: Mapping[str, Any]) -> None:
    """Refuse an added key (+key=) that nothing would take."""
    free = ("loss.", "model.", "optim.", "trainer.", "scheduler.schedule.", "callbacks.", "logger.", "data.leaves.")
    if key not in example and not key.startswith(free):
        above = [other for other in example if key.startswith(f"{other}.")]
        raise UserError(f"{above[0]}: must be a value, not a group" if above else f"{key}: no such key")


def _check_folders(hydra_cfg: DictConfig) -> None:
    """Whether Hydra will be able to make the run's folder, and all processes the same one."""
    if "TORCHELASTIC_RUN_ID" in os.environ and "${" in str(OmegaConf.to_container(hydra_cfg.run)):
        raise UserError("under torchrun every process has to know the run's folder: name it with hydra.run.dir=…")
    for key, folder in (("hydra.run.dir", hydra_cfg.run.dir), ("hydra.sweep.dir", hydra_cfg.sweep.dir)):
        if not folder:
            raise UserError(f"{key} has to be given: {key}=…")
        there = next(path for path in (Path(folder), *Path(folder).absolute().parents) if path.exists())
        try:
            with TemporaryFile(dir=there):
                pass
        except OSError as error:
            raise UserError(f"{key}={folder}: {there} cannot be written to ({error.strerror}); name another") from None


def _in_a_sentence(error: Exception, name: str) -> str:
    text = str(error)
    if found := re.search(r"Could not override '([^']+)'", text):
        key = found[1]
        known = list(flatten(OmegaConf.to_container(compose(name))))
        close = difflib.get_close_matches(key, known, n=1) or [k for k in known if k.split(".")[-1] == key][:1]
        return f"{key}: no such key" + (f"; did you mean {close[0]}?" if close else "; --cfg job lists them all")
    return re.sub(r"\s+", " ", text.split("Config search path")[0].split("full_key:")[0]).strip()


def _check_type(key: str, value: Any, example: Mapping[str, Any]) -> None:
    like = _NULLABLE.get(key) if example.get(key) is None else example[key]
    if any(other.startswith(f"{key}.") for other in example):
        if value is None and key.startswith(("callbacks.", "logger.")):
            return  # left out
        raise UserError(f"{key}={value}: must be a group of settings, as {key}.…=")
    if value is None and isinstance(like, str):
        raise UserError(f"{key}=null: must be given")
    if any(isinstance(v, str) and "${" in v for v in (value, like)) or like is None:
        return
    if value is None and example.get(key) is None:
        return
    if key == "data.hold_out" and isinstance(value, int | list):
        return
    if not _is_like(value, like):
        names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", list: "a list"}
        raise UserError(f"{key}={'null' if value is None else value}: must be {names[type(like)]}")


def _is_like(value: Any, like: Any) -> bool:
    if isinstance(like, float):
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return type(value) is type(like)


def quote_path(argument: str) -> str:
    key, equals, value = argument.partition("=")
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    if key == "data.test" and re.fullmatch(r"\[.*\]", value):
        items = [value[1:-1]] if Path(value[1:-1]).is_dir() else value[1:-1].split(",")
        return f"data.test=[{','.join(quote_path(f'data.train={item}').partition('=')[2] for item in items)}]"
    if not equals or key.lstrip("+") not in _PATHS or quoted or value in ("", "null"):
        return argument
    value = os.path.expanduser(value).replace("${", r"\${")
    value = re.sub(r"(\\+)('|$)", r"\1\1\2", value).replace("'", r"\'")
    return f"{key}='{value}'"


def parse(overrides: Sequence[str]) -> list:
    try:
        return OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise UserError(f"cannot be read as key=value: {error}") from None


def expand_resume(overrides: Sequence[str], multirun: bool) -> list[str]:
    """`resume=CKPT` becomes the saved hyper-parameters, then what the command line says, in the run's own folder."""
    given = parse(overrides)
    keys = {o.key_or_group: o for o in given}
    path = keys["resume"].value() if "resume" in keys else None
    folder = Path(str(keys["hydra.run.dir"].value())) if "hydra.run.dir" in keys else None
    if path == "auto" and (folder is None or multirun):
        raise UserError("resume=auto goes on with what is in the run's folder: name that with hydra.run.dir=…")
    if path is None and folder and _is_first_process() and not multirun and newest_checkpoint(folder):
        raise UserError(f"hydra.run.dir={folder}: holds a run; resume=auto goes on with it, or take another folder")
    if path == "auto" and folder and (found := newest_checkpoint(folder)):
        path = found[0]
        keys.pop("experiment", None)  # the same command starts a run and goes on with it
        overrides = [o.input_line for o in keys.values() if o.key_or_group != "resume"] + [quote_path(f"resume={path}")]
    if path in (None, "auto"):
        return list(overrides)
    path = Path(str(path).replace(r"\${", "${"))
    if multirun:
        raise UserError("resume continues one run: leave -m out, or start a sweep from its weights with init_from=")
    if "experiment" in keys:
        raise UserError("resume takes its settings from the checkpoint: leave experiment= out, and override keys")
    checkpoint = load_checkpoint(path)
    settings = settings_in(path, checkpoint)
    if settings is None or "loops" not in checkpoint or not checkpoint.get("optimizer_states"):
        raise UserError(f"{path} holds weights only, no run to go on with: start one with init_from={path}")
    build_network(path, settings)
    choices, values = settings["choices"], settings["values"]
    changed = {g for g, choice in choices.items() if g in keys and str(keys[g].value()) != choice}
    network = [key for key in keys if key == "scale" or key.startswith("model.")]
    if "model" in changed or any(keys[key].value() != values.get(key) for key in network):
        raise UserError("resume goes on with the same network: leave model and scale out, or start a run (init_from=)")
    if others := _other_classes(overrides, settings):
        raise UserError(f"{path} was made with {' '.join(others)}: say so again, as classes are not taken from a file")
    if state := changed & {"optim", "scheduler"}:
        raise UserError(f"resume goes on with the state of the same {min(state)}: leave {min(state)}= out (init_from=)")
    saved = [f"{group}={choice}" for group, choice in choices.items() if group not in keys and choice]
    saved += [
        f"++{key}={json.dumps(value, ensure_ascii=False)}"
        for key, value in values.items()
        if key.split(".")[0] not in changed
        and not isinstance(value, dict)
        and key not in NOT_RESTORED
        and not any(key == other or key.startswith(f"{other}.") for other in keys)
    ]
    run = path.absolute().parent.parent
    if path.absolute().parent.name == "checkpoints" and (run / ".hydra").is_dir() and "hydra.run.dir" not in keys:
        saved.append(quote_path(f"hydra.run.dir={run}"))
    added = [re.sub(r"^\+(?!\+)", "++", override) for override in overrides]  # the key may be there by now
    return saved + added


def _other_classes(overrides: Sequence[str], settings: Mapping[str, Any]) -> list[str]:
    """The classes that a run's checkpoint names, where its groups and these overrides do not lead to them."""
    groups = [f"{group}={choice}" for group, choice in settings["choices"].items() if choice]
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        try:
            cfg = compose("train", groups)
        except HydraException as error:
            raise UserError(_in_a_sentence(error, "train")) from None
    now = flatten(OmegaConf.to_container(cfg)) | {o.key_or_group.lstrip("+"): o.value() for o in parse(overrides)}
    now |= flatten({key: value for key, value in now.items() if isinstance(value, dict)})
    made_of = {f"{part}._target_": name for part, name in settings.get("classes", {}).items()}
    return [f"{key}={name}" for key, name in made_of.items() if str(now.get(key)) != name]


def typed(overrides: Sequence[str]) -> list[str]:
    """The overrides without what `expand_resume` has put in front of them."""
    last = max((number for number, override in enumerate(overrides, 1) if override.startswith("++")), default=0)
    resumed = any(override.startswith("resume=") for override in overrides)
    return [o for o in overrides[last if resumed else 0 :] if not o.startswith("hydra.")]


def _is_first_process() -> bool:
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))


def changes(cfg: DictConfig, settings: Mapping[str, Any]) -> list[str]:
    """What a resumed run does otherwise than the settings in its checkpoint: "key: then -> now"."""
    saved = settings["values"]
    return [
        f"{key}: {value} -> {OmegaConf.select(cfg, key)}"
        for key, value in saved.items()
        if not isinstance(value, dict) and OmegaConf.select(cfg, key) != value
    ]


def plain(cfg: DictConfig) -> dict[str, Any]:
    """A part of the config as plain Python, which is what the code below the entry takes."""
    values = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def new_network(cfg: DictConfig) -> Network:
    """The network of `cfg.model`, with fresh weights."""
    with torch.device("meta"):  # without memory, until the size is known
        size = made("model", lambda: instantiate(cfg.model, scale=cfg.scale, _convert_="all")).parameter_count
    if size > _MOST_PARAMETERS:
        raise UserError(f"model settings: {size:,} parameters; at most {_MOST_PARAMETERS:,} are taken")
    net = made("model", lambda: instantiate(cfg.model, scale=cfg.scale, _convert_="all"))
    assert isinstance(net, Network), f"{cfg.model._target_} is no srcnn.nets.Network"
    return net


def new_data(cfg: DictConfig, net: Network) -> SRDataModule:
    """The data of `cfg.data`; its train_dir (of data=folder) is what `train` points to."""
    values = {key: value for key, value in plain(cfg.data).items() if key != "train_dir"}
    return SRDataModule(net, seed=cfg.seed, **values)


def made(group: str, make: Callable[[], Any]) -> Any:
    """What `make` makes of the settings of a group; UserError in whatever words it refuses them."""
    try:
        return make()
    except Exception as error:
        cause = error.__cause__ or error
        raise UserError(f"{group} settings: {(str(cause) or type(cause).__name__).splitlines()[0]}") from None
