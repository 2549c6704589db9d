"""A script's task under Hydra: its settings checked first, its manual, and how it ends when something is wrong."""

import errno
import inspect
import json
import logging
import os
import re
import shutil
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import hydra
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from srcnn.checkpoint import CONFIGS, flatten, what_stands
from srcnn.config import compose_checked, expand_resume, parse, quote_path
from srcnn.errors import RunError, UserError

# Lightning's tips, and its warnings about what is so on purpose here.
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
warnings.filterwarnings("ignore", message=".*LeafSpec.*")
warnings.filterwarnings("ignore", message="Total length of .* across ranks is zero")
warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
warnings.filterwarnings("ignore", message="predict returned None")

_LOGS = r"\.hydra|metrics\.csv|bicubic|events\.out\.tfevents.*"  # what a run writes before its first step
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
    sys.argv[1:] = [quote_path(argument) for argument in arguments]
    args = get_args_parser().parse_args()
    if args.help:  # a script's docstring is its manual
        print(inspect.getdoc(inspect.getmodule(task)), _settings_page(name), sep="\n\n")
        return
    if not (args.hydra_help or args.cfg or args.info or args.shell_completion):
        try:
            if args.multirun and name != "train":
                raise UserError("-m is for train.py: give a list of sets, or a folder of images")
            overrides = expand_resume(args.overrides, args.multirun)
            sys.argv[1:] = [arg for arg in sys.argv[1:] if arg not in args.overrides] + overrides
            for job in _jobs(overrides) if args.multirun else [overrides]:
                cfg = compose_checked(name, job)
                _checked(check, cfg)
                if args.multirun and any(OmegaConf.select(cfg, f"trainer.{k}", default=1) != 1 for k in _PROCESSES):
                    raise UserError("-m takes one process a run: leave trainer.devices and trainer.num_nodes at 1")
        except UserError as error:
            _exit(error)
    threading.excepthook = _in_thread
    hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=name)(_guarded(task))()


def _checked(check: Callable[[DictConfig], None], cfg: DictConfig) -> None:
    try:
        check(cfg)
    except UserError:
        raise
    except Exception as error:  # nothing has been written yet, and it has to do with the settings
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"these settings do not go together: {first} (HYDRA_FULL_ERROR=1 shows where)") from error


def _jobs(overrides: Sequence[str]) -> Iterable[Sequence[str]]:
    """The overrides of each job of a sweep, as far as Hydra's basic sweeper makes them."""
    given = parse(overrides)
    try:
        return [job for batch in BasicSweeper.split_arguments(given, max_batch_size=None) for job in batch]
    except (HydraException, ValueError) as error:
        if any(override.key_or_group in ("hydra", "hydra/sweeper") for override in given):
            return []  # another sweeper understands this
        raise UserError(str(error)) from None


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
            if hydra_cfg.output_subdir and all(re.fullmatch(_LOGS, path.name) for path in folder.iterdir()):
                shutil.rmtree(folder)  # nothing has been done here
                _remove_empty(folder.parent)
            _exit(error)

    guarded.__module__ = task.__module__  # where Hydra takes the job's name from
    return guarded


def _remove_empty(folder: Path) -> None:
    """The folders of a day and of all runs, if there is no other run in them."""
    while folder.is_relative_to(Path.cwd() / "outputs") and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def _leave(number: int, _: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _exit(error: UserError) -> NoReturn:
    if error.__cause__ and "HYDRA_FULL_ERROR" in os.environ:
        traceback.print_exception(error.__cause__)
    rank_zero_only(print)(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    sys.exit(error.code)


def _in_thread(failure: threading.ExceptHookArgs) -> None:
    """TensorBoard's writer fails in a thread of its own; the main one hears of it, and has the word."""
    if getattr(failure.exc_value, "errno", None) not in _NO_ROOM:
        threading.__excepthook__(failure)


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
