"""From the command line to a checked config: what surrounds Hydra so that a mistake is one sentence."""

import difflib
import errno
import inspect
import json
import logging
import math
import os
import re
import shutil
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from types import FrameType
from typing import Any, NoReturn

import hydra
import lightning as L
import torch
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from hydra.utils import instantiate
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from srcnn.checkpoint import (
    CONFIGS,
    build_network,
    find_checkpoint,
    flatten,
    load_checkpoint,
    load_weights,
    newest_checkpoint,
    progress,
    settings_in,
    what_stands,
)
from srcnn.data.sets import find_images
from srcnn.errors import RunError, UserError
from srcnn.metrics import PROTOCOLS
from srcnn.nets import Network
from srcnn.optim import make_scheduler

OmegaConf.register_new_resolver("unique", lambda: os.urandom(2).hex(), use_cache=True, replace=True)

# Lightning's tips, and its warnings about what is so on purpose here.
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
warnings.filterwarnings("ignore", message=".*LeafSpec.*")
warnings.filterwarnings("ignore", message="Total length of .* across ranks is zero")
warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
warnings.filterwarnings("ignore", message="predict returned None")

# Keys whose value is a path, taken as typed: spaces, brackets, commas, "=" and all.
_PATHS = (
    "resume", "init_from", "ckpt_path", "input", "output", "data.root", "data.train", "data.train_dir", "data.val",
    "hydra.run.dir", "hydra.sweep.dir",
)  # fmt: skip
# Of what type a value is that is null by default.
_NULLABLE: dict[str, Any] = {
    "scale": 3, "data.test": ["Set5"], "trainer.gradient_clip_val": 1.0, "callbacks.guard.every_n_steps": 1,
}  # fmt: skip
_RANGES: dict[str, tuple[float, float]] = {
    "scale": (2, 8), "seed": (0, 2**32 - 1),
    "data.batch_size": (1, math.inf), "data.patch_size": (1, math.inf), "data.stride": (1, math.inf),
    "data.memory": (0, math.inf), "data.leaves.count": (2, 1e6), "data.leaves.size": (24, 8192),
    "loss.rgb": (0, math.inf), "loss.floor": (1e-12, 1),
    "optim.lr": (0, math.inf), "optim.bias_lr": (0, math.inf), "optim.last_layer_lr": (0, math.inf),
    "optim.momentum": (0, 1), "optim.weight_decay": (0, math.inf), "optim.eps": (0, math.inf),
    "optim.whiten": (0, math.inf),
    "scheduler.schedule.warmup": (0, math.inf), "scheduler.schedule.hold": (0, 1),
    "scheduler.schedule.final": (0, 1), "scheduler.schedule.gamma": (0, 1),
    "callbacks.checkpoint.every_n_epochs": (1, math.inf), "callbacks.guard.every_n_steps": (1, math.inf),
    "callbacks.guard.every_n_minutes": (0, math.inf), "callbacks.ema.decay": (0, 1),
    "trainer.devices": (1, math.inf), "trainer.num_nodes": (1, math.inf), "trainer.max_steps": (-1, math.inf),
    "trainer.limit_train_batches": (0, math.inf), "trainer.limit_val_batches": (0, math.inf),
    "trainer.check_val_every_n_epoch": (1, math.inf), "trainer.accumulate_grad_batches": (1, math.inf),
    "trainer.gradient_clip_val": (0, math.inf), "trainer.log_every_n_steps": (1, math.inf),
    "trainer.num_sanity_val_steps": (0, math.inf),
}  # fmt: skip
_CHOICES = {
    "model.channels": (1, 3),
    "model.padding_mode": ("replicate", "zeros", "reflect", "circular"),
    "scheduler.interval": ("step", "epoch"),
    "callbacks.best.mode": ("min", "max"),
    "trainer.deterministic": (False, True, "warn"),
}
_PROCESSES = ("devices", "num_nodes")
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)


def command(task: Callable[[DictConfig], Any], name: str, check: Callable[[DictConfig], None]) -> None:
    """Run `task` under Hydra on the config `name`, as @hydra.main does, but check first.

    Each job's config is composed and given to `check` before Hydra makes any folder. The user's mistakes, Hydra's
    words for them included, end in one sentence on stderr and exit code 2.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # no traceback; srcnn.callbacks.RunGuard saves before it leaves
        signal.signal(number, _leave)
    # Hydra's parser takes -m before or after all settings, people also put it between them.
    arguments = sorted(sys.argv[1:], key=lambda argument: argument not in ("-m", "--multirun"))
    sys.argv[1:] = [_quote_path(argument) for argument in arguments]
    args = get_args_parser().parse_args()
    if args.help:  # a script's docstring is its manual
        print(inspect.getdoc(inspect.getmodule(task)), _settings_page(name), sep="\n\n")
        return
    if not (args.hydra_help or args.cfg or args.info or args.shell_completion):
        try:
            overrides = expand_resume(args.overrides, args.multirun)
            sys.argv[1:] = [arg for arg in sys.argv[1:] if arg not in args.overrides] + overrides
            for job in _jobs(overrides) if args.multirun else [overrides]:
                cfg = compose_checked(name, job)
                check(cfg)
                if args.multirun and any(OmegaConf.select(cfg, f"trainer.{k}", default=1) != 1 for k in _PROCESSES):
                    raise UserError("-m takes one process a run: leave trainer.devices and trainer.num_nodes at 1")
        except UserError as error:
            _exit(error)
    threading.excepthook = _in_thread
    hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=name)(_guarded(task))()


def _settings_page(name: str) -> str:
    """All settings with their defaults, and what the comments in the YAML files say of them."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose(name, return_hydra_config=True)
    lines = ["Settings, as key=value; a group takes the name of one of its files in configs/:"]
    comments = _comments(CONFIGS / f"{name}.yaml", "")
    choices = {group: choice for group, choice in cfg.hydra.runtime.choices.items() if "hydra" not in group}
    for group, choice in reversed(choices.items()):
        files = sorted((CONFIGS / group).glob("*.yaml"), key=lambda path: (path.stem != choice, path.stem))
        others = [path.stem for path in files if path.stem != choice]
        lines.append(f"  {group}={choice or 'null'}" + (f"  (or {', '.join(others)})" if others else ""))
        for path in files:
            comments = _comments(path, f"{group}.") | comments
    for key, value in flatten(OmegaConf.to_container(cfg)).items():
        inner = key.startswith(("hydra.", "callbacks.", "logger.")) and key not in comments
        if not inner and not key.rpartition(".")[2].startswith("_"):
            shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            lines.append(f"  {f'{key}={shown}':<52} {comments.get(key, '')}".rstrip())
    return "\n".join(lines)


def _comments(path: Path, prefix: str) -> dict[str, str]:
    """The comment after each key of a YAML file, by dotted key."""
    comments, parents = {}, [(-1, prefix.rstrip("."))]
    for line in path.read_text(encoding="utf-8").splitlines():
        if found := re.match(r"( *)(\w+):(?:[^#]*)(?:# *(.*))?", line):
            indent = len(found[1])
            parents = [parent for parent in parents if parent[0] < indent]
            key = f"{parents[-1][1]}.{found[2]}".lstrip(".")
            parents.append((indent, key))
            if found[3]:
                comments[key] = found[3]
    return comments


def _in_thread(failure: threading.ExceptHookArgs) -> None:
    """TensorBoard's writer fails in a thread of its own; the main one hears of it, and has the word."""
    if getattr(failure.exc_value, "errno", None) not in _NO_ROOM:
        threading.__excepthook__(failure)


def _leave(number: int, _: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _exit(error: UserError) -> NoReturn:
    rank_zero_only(print)(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    sys.exit(error.code)


def _guarded(task: Callable[[DictConfig], Any]) -> Callable[[DictConfig], Any]:
    """The task, with a mistake that only shows while it runs ending as one that shows before: nothing left behind.

    In a sweep whatever goes wrong is noted in the job's folder (see `srcnn.report.SweepTable`), and the others go on.
    """

    def guarded(cfg: DictConfig) -> Any:
        hydra_cfg = HydraConfig.get()
        folder = Path(hydra_cfg.runtime.output_dir)
        note = folder / "error.txt"
        in_sweep = hydra_cfg.mode == RunMode.MULTIRUN
        try:
            if in_sweep:
                note.unlink(missing_ok=True)
            return task(cfg)
        except Exception as error:
            if isinstance(error, OSError) and error.errno in _NO_ROOM:
                place = error.filename or folder
                error = RunError(f"{place}: cannot be written ({error.strerror}); {what_stands(folder)}")
            if in_sweep:
                if not isinstance(error, UserError):
                    traceback.print_exc()
                note.write_text(f"{hydra_cfg.job.num} ({hydra_cfg.job.override_dirname}): {error}", encoding="utf-8")
                return None
            if not isinstance(error, UserError):
                raise
            if hydra_cfg.output_subdir and {path.name for path in folder.iterdir()} <= {hydra_cfg.output_subdir}:
                shutil.rmtree(folder)
                _remove_empty(folder.parent)
            _exit(error)

    guarded.__module__ = task.__module__  # where Hydra takes the job's name from
    return guarded


def _remove_empty(folder: Path) -> None:
    """The folders of a day and of all runs, if there is no other run in them."""
    while folder.is_relative_to(Path.cwd() / "outputs") and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def _quote_path(argument: str) -> str:
    key, equals, value = argument.partition("=")
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    if key == "data.test" and re.fullmatch(r"\[.*\]", value):
        items = [value[1:-1]] if Path(value[1:-1]).is_dir() else value[1:-1].split(",")
        return f"data.test=[{','.join(_quote_path(f'data.train={item}').partition('=')[2] for item in items)}]"
    if not equals or key.lstrip("+") not in _PATHS or quoted or value in ("", "null"):
        return argument
    value = os.path.expanduser(value).replace("${", r"\${")
    value = re.sub(r"(\\+)('|$)", r"\1\1\2", value).replace("'", r"\'")
    return f"{key}='{value}'"


def _parse(overrides: Sequence[str]) -> list:
    try:
        return OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise UserError(f"cannot be read as key=value: {error}") from None


def _jobs(overrides: Sequence[str]) -> Iterable[Sequence[str]]:
    """The overrides of each job of a sweep, as far as Hydra's basic sweeper makes them."""
    given = _parse(overrides)
    try:
        return [job for batch in BasicSweeper.split_arguments(given, max_batch_size=None) for job in batch]
    except HydraException as error:
        if any(override.key_or_group in ("hydra", "hydra/sweeper") for override in given):
            return []  # another sweeper understands this
        raise UserError(str(error)) from None


def compose_checked(name: str, overrides: Sequence[str]) -> DictConfig:
    """The config `name` with these overrides; UserError for unknown keys, missing values and wrong types.

    The YAML is the schema: a value must be of the type that stands there, where that is not null.
    """
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        assert isinstance(loader, ConfigLoaderImpl)
        try:
            cfg = compose(name, list(overrides), return_hydra_config=True)
            only_groups = [o.input_line for o in _parse(overrides) if loader.repository.group_exists(o.key_or_group)]
            example = compose(name, only_groups, return_hydra_config=True)
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            raise UserError(_in_a_sentence(error, name)) from None
    if cfg.hydra.output_subdir is not None:
        _check_folders(cfg.hydra)
    cfg = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    types = flatten(OmegaConf.to_container(example))
    for key, value in flatten(OmegaConf.to_container(cfg)).items():
        if value == "???" or (value == "" and key in _PATHS):
            raise UserError(f"{key} has to be given: {key}=…")
        _check_type(key, value, types)
    return cfg


def _check_folders(hydra_cfg: DictConfig) -> None:
    """Whether Hydra will be able to make the run's folder, and all processes the same one."""
    if "TORCHELASTIC_RUN_ID" in os.environ and "${" in str(OmegaConf.to_container(hydra_cfg.run)):
        raise UserError("under torchrun every process has to know the run's folder: name it with hydra.run.dir=…")
    for key, folder in (("hydra.run.dir", hydra_cfg.run.dir), ("hydra.sweep.dir", hydra_cfg.sweep.dir)):
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


def expand_resume(overrides: Sequence[str], multirun: bool) -> list[str]:
    """`resume=CKPT` becomes the saved hyper-parameters, then what the command line says, in the run's own folder."""
    given = _parse(overrides)
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
        overrides = [o.input_line for o in keys.values() if o.key_or_group != "resume"] + [
            _quote_path(f"resume={path}")
        ]
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
    if state := changed & {"optim", "scheduler"}:
        raise UserError(f"resume goes on with the state of the same {min(state)}: leave {min(state)}= out (init_from=)")
    saved = [f"{group}={choice}" for group, choice in choices.items() if group not in keys and choice]
    saved += [
        f"++{key}={json.dumps(value, ensure_ascii=False)}"
        for key, value in values.items()
        if key.split(".")[0] not in changed and not isinstance(value, dict)
    ]
    run = path.absolute().parent.parent
    if path.absolute().parent.name == "checkpoints" and (run / ".hydra").is_dir() and "hydra.run.dir" not in keys:
        saved.append(_quote_path(f"hydra.run.dir={run}"))
    return saved + list(overrides)


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


def check_train(cfg: DictConfig) -> None:
    """Everything about a training run that can be known to be wrong before it starts."""
    for key, (least, most) in _RANGES.items():
        _range(cfg, key, least, most)
    for key, allowed in _CHOICES.items():
        if (value := OmegaConf.select(cfg, key)) not in (None, *allowed):
            raise UserError(f"{key}={value}: choose {' or '.join(map(str, allowed))}")
    if isinstance(cfg.data.hold_out, int):
        _range(cfg, "data.hold_out", 0)
    if not cfg.data.test:
        raise UserError("data.test=[]: name at least one set or folder to test on")
    if "leaves" in (cfg.data.train, *cfg.data.test) and not cfg.data.leaves:
        raise UserError("images called leaves need their settings: data=leaves")
    if cfg.trainer.max_epochs == 0 or cfg.trainer.max_epochs < -1:
        raise UserError(f"trainer.max_epochs={cfg.trainer.max_epochs}: must be 1 or more (-1: no limit)")
    if cfg.trainer.max_epochs == -1 and cfg.trainer.max_steps == -1:
        raise UserError("trainer.max_epochs=-1 needs trainer.max_steps or the run never ends")
    if cfg.trainer.max_steps == 0:
        raise UserError("trainer.max_steps=0: must be 1 or more (-1: no limit but the epochs)")
    if cfg.resume and cfg.init_from and cfg.resume != "auto":
        raise UserError("resume and init_from exclude each other: resume goes on with a run, init_from starts one")
    check_protocol(cfg)
    check_device(cfg.trainer.accelerator, cfg.trainer.devices)
    if cfg.data.batch_size % (processes := cfg.trainer.devices * cfg.trainer.num_nodes):
        raise UserError(f"data.batch_size={cfg.data.batch_size}: {processes} processes cannot share it evenly")
    net = new_network(cfg)
    inner = cfg.data.patch_size // net.body_scale - 2 * net.receptive_radius
    if cfg.data.patch_size % net.body_scale or inner < 1:
        least = (2 * net.receptive_radius + 1) * net.body_scale
        multiple = f" and a multiple of {net.body_scale}" if net.body_scale > 1 else ""
        raise UserError(f"data.patch_size={cfg.data.patch_size}: this network needs at least {least}{multiple}")
    _try_out(cfg, net)
    if cfg.init_from:
        load_weights(net, cfg.init_from, load_checkpoint(find_checkpoint(cfg.init_from)))
    if cfg.resume and cfg.resume != "auto":
        _check_unfinished(cfg)
    check_sets(cfg)


def _made(group: str, make: Callable[[], Any]) -> Any:
    try:
        return make()
    except Exception as error:
        cause = error.__cause__ or error
        raise UserError(f"{group} settings: {(str(cause) or type(cause).__name__).splitlines()[0]}") from None


def _try_out(cfg: DictConfig, net: Network) -> None:
    """Make the loss, optimiser, schedule and Trainer once, to see whether they take their settings."""
    _made("loss", lambda: instantiate(cfg.loss))
    optimizer = _made("optim", lambda: instantiate(cfg.optim, _convert_="all")(net.parameters()))
    if cfg.scheduler.schedule:
        make = _made("scheduler", lambda: instantiate(cfg.scheduler.schedule, _convert_="all"))
        _made("scheduler", lambda: make_scheduler(make, optimizer, total=10))
    _made("trainer", lambda: L.Trainer(**(plain(cfg.trainer) | {"logger": False, "enable_checkpointing": False})))


def check_output(output: str | None) -> None:
    """A folder to write to, or to be made."""
    for path in (Path(output), *Path(output).parents) if output else ():
        if path.is_file():
            raise UserError(f"output={output}: {path} is a file; name a folder")


def check_protocol(cfg: DictConfig) -> None:
    if cfg.protocol not in PROTOCOLS:
        raise UserError(f"protocol={cfg.protocol}: choose one of {', '.join(PROTOCOLS)}")


def check_device(accelerator: str, devices: int = 1) -> None:
    found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    found |= {"auto": True, "cpu": True, "gpu": any(found.values())}
    if accelerator not in found:
        raise UserError(f"trainer.accelerator={accelerator}: choose one of auto, cpu, gpu, cuda, mps")
    if not found[accelerator]:
        raise UserError(f"trainer.accelerator={accelerator}: torch sees no GPU here; use cpu or auto")
    kind = device_of(accelerator).type
    there = {"cpu": os.cpu_count() or 1, "cuda": torch.cuda.device_count(), "mps": 1}[kind]
    if devices > there:
        name = "processor core" if kind == "cpu" else "GPU"
        raise UserError(
            f"trainer.devices={devices}: there {'is' if there == 1 else 'are'} {there} {name}{'s' * (there > 1)}"
        )


def device_of(accelerator: str) -> torch.device:
    """The device that Lightning would take for this accelerator."""
    if accelerator != "cpu" and torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if accelerator != "cpu" and torch.backends.mps.is_available() else "cpu")


def check_sets(cfg: DictConfig) -> None:
    """Find the image sets, or download them; so that what is missing is said before a run begins."""
    for name in (cfg.data.get("train"), cfg.data.get("val"), *cfg.data.test):
        if name and name != "leaves":
            find_images(name, cfg.data.root)


def new_network(cfg: DictConfig) -> Network:
    """The network of `cfg.model`, with fresh weights."""
    net = _made("model", lambda: instantiate(cfg.model, scale=cfg.scale, _convert_="all"))
    assert isinstance(net, Network), f"{cfg.model._target_} is no srcnn.nets.Network"
    return net


def _range(cfg: DictConfig, key: str, least: float, most: float = float("inf")) -> None:
    value = OmegaConf.select(cfg, key)
    if value is not None and not least <= value <= most:
        allowed = f"at least {least}" if most == float("inf") else f"between {least} and {most}"
        raise UserError(f"{key}={value}: must be {allowed}")


def _check_unfinished(cfg: DictConfig) -> None:
    done, steps = progress(cfg.resume, load_checkpoint(cfg.resume))
    run = Path(cfg.resume).absolute().parent.parent
    if (run / ".hydra").is_dir() and not (run / "weights.pth").exists():
        return  # stopped before its test: that is to be done
    if 0 < cfg.trainer.max_epochs <= done:
        raise UserError(
            f"{cfg.resume}: this run has done its {done} epochs; give it more with trainer.max_epochs={2 * done}"
        )
    if 0 < cfg.trainer.max_steps <= steps:
        raise UserError(f"{cfg.resume}: this run has done its {steps} steps; raise trainer.max_steps")
