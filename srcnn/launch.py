"""What surrounds a command: settings from the command line, resume=, exit codes, one sentence for a user's mistake.

Hydra is imported where it is needed, as predict.py has to start quickly.
"""

import functools
import importlib
import inspect
import io
import json
import os
import re
import runpy
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import yaml  # type: ignore[import-untyped]
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from srcnn import __version__
from srcnn.checkpoint import read_resumable
from srcnn.device import keep_freed_memory
from srcnn.errors import UserError

_PACKAGE = Path(__file__).parent
CONFIGS = next(filter(Path.is_dir, (_PACKAGE / "configs", _PACKAGE.parent / "configs")))  # of a wheel; of a clone
_SCRIPTS = next(filter(Path.is_dir, (_PACKAGE / "scripts", _PACKAGE.parent)))  # likewise
_NUMBERS = ("scale", "width", "height")  # settings of predict, evaluate, export that are a number or null


# ---- commands without Hydra: predict, evaluate, export


def command(task: Callable[[Any], int | None], name: str) -> NoReturn:
    """Run a task on the settings of configs/NAME.yaml and the command line's key=value words."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may not be UTF-8, or the terminal
    path = CONFIGS / f"{name}.yaml"
    try:
        if {"-h", "--help"} & set(sys.argv[1:]):
            yaml_text = path.read_text().partition("\n")[2]  # without the first line, which is for editors
            print(inspect.getdoc(inspect.getmodule(task)), yaml_text, sep="\n\n", end="")
            sys.exit(0)
        if "--version" in sys.argv[1:]:
            print(__version__)
            sys.exit(0)
        cfg = settings(path, sys.argv[1:])
        sys.path.insert(0, "")  # as `python -m` has it: modules beside the user
        for module in cfg.get("imports") or []:
            importlib.import_module(module)
        sys.exit(task(cfg) or 0)
    except UserError as error:
        fail(error)
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        fail(UserError(f"{str(error).splitlines()[0]}; --help lists the settings"))
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:  # as of `… --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def settings(path: Path, words: list[str]) -> DictConfig:
    """The settings of a YAML file with key=value words laid over; words that are files or no setting are `input`."""
    cfg = OmegaConf.load(path)
    assert isinstance(cfg, DictConfig)
    OmegaConf.set_struct(cfg, True)
    inputs = []
    for word in words:
        key, equals, text = word.partition("=")
        is_setting = equals and re.fullmatch(r"[A-Za-z_][\w.]*", key)
        is_text = is_setting and key not in _NUMBERS and isinstance(OmegaConf.select(cfg, key), str | None)
        if "input" in cfg and (not is_setting or os.path.exists(word)):
            inputs.append(word)
        elif not is_setting:
            raise UserError(f"{word}: settings are key=value; --help lists them")
        elif is_text and not re.fullmatch(r"null|\[.*\]", text):
            OmegaConf.update(cfg, key, text.replace("${", r"\${"))  # a path may hold any character
        else:
            OmegaConf.update(cfg, key, OmegaConf.from_cli([f"value={text}"]).value)
    if inputs:
        cfg.input = inputs
    return cfg


def fail(error: Exception) -> NoReturn:
    """One sentence on stderr, of the first process, and the exit code."""
    if _is_first():
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    sys.exit(getattr(error, "code", 2))


def _is_first() -> bool:
    """Whether this is the first of the processes that Lightning, torchrun or srun has started."""
    return all(os.environ.get(key, "0") == "0" for key in ("LOCAL_RANK", "RANK", "SLURM_PROCID"))


# ---- train.py under Hydra


def prepare() -> None:
    """Before Hydra reads the command line: resume=, and what would end in a traceback of Hydra's."""
    sys.path.append(os.getcwd())  # modules beside the user, wherever train.py is
    try:
        none = {"logger=null": "~logger", "callbacks=null": "~callbacks"}  # as people type it: Hydra's words
        sys.argv[1:] = expand_resume([none.get(word, word) for word in sys.argv[1:]])
        words = dict(word.partition("=")[::2] for word in sys.argv[1:] if "=" in word)
        if _started_processes() > 1 and "hydra.run.dir" not in words:
            starter = "torchrun" if "TORCHELASTIC_RUN_ID" in os.environ else "srun"
            raise UserError(f"under {starter} every process has to know the run's folder: name it with hydra.run.dir=…")
        folders = {key: words[key].strip("'\"") for key in ("hydra.run.dir", "hydra.sweep.dir") if key in words}
        for key, folder in folders.items():
            if "$" not in folder:
                make_folder(key, Path(folder))
        if not folders and not os.access("outputs" if os.path.exists("outputs") else ".", os.W_OK):
            raise UserError("outputs: cannot be written here; name another folder by hydra.run.dir=, hydra.sweep.dir=")
    except UserError as error:
        fail(error)


def _started_processes() -> int:
    """How many torchrun or srun has started; Lightning starts its own later."""
    return int(os.environ.get("WORLD_SIZE" if "TORCHELASTIC_RUN_ID" in os.environ else "SLURM_STEP_NUM_TASKS", 1))


def check_processes(expected: int) -> None:
    """Refuse what Lightning lets pass: processes that were to be one would each train alone, in one folder."""
    started = _started_processes()
    if started not in (1, expected):
        raise UserError(
            f"srun or torchrun has started {started} processes, which has to be as many as trainer.devices times "
            f"trainer.num_nodes, now {expected}"
        )


def make_folder(key: str, folder: Path) -> None:
    """Make the folder that a setting names; UserError where it cannot be, or cannot be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise UserError(f"{key}={folder}: cannot be written ({error.strerror}); name another folder") from error


def expand_resume(words: list[str]) -> list[str]:
    """Put what was typed for the run that `resume=` names before what is typed now, which wins; in that run's folder.

    resume  a checkpoint; a run's folder, for its last.ckpt; or auto: the last.ckpt in hydra.run.dir, if there is one

    A checkpoint records what was typed. Where it does not lie in its run's folder, choices of groups and plain values
    are taken from it, but no class and no folder.
    """
    settings = [word for word in words if word[:1] == "~" or ("=" in word and word[0] != "-")]  # else flags
    typed = {_key(word): word for word in settings}
    others = [word for word in words if _key(word) != "resume"]
    resume, folder = (typed.get(key, "=null").partition("=")[2].strip("'\"") for key in ("resume", "hydra.run.dir"))
    if resume == "null":
        return others
    if {"-m", "--multirun"} & set(words):
        raise UserError("resume= is for one run: a sweep goes on when it is started again with its hydra.sweep.dir=")
    if resume == "auto" and (folder == "null" or "$" in folder):
        raise UserError("resume=auto goes on with what is in a folder: name it, without ${…}, with hydra.run.dir=…")
    path = Path(folder if resume == "auto" else resume).absolute()
    path = path / "checkpoints" / "last.ckpt" if resume == "auto" or path.is_dir() else path
    if resume == "auto" and not path.exists():
        return others
    saved, in_run = read_resumable(path)["run"].get("overrides") or [], path.parent.name == "checkpoints"
    if not (in_run and (path.parent.parent / ".hydra").is_dir()):
        plain = re.compile(r"(?!\+*hydra)[+\w.]+=[\w.,:\[\]{} +-]*")
        saved = [word for word in saved if plain.fullmatch(word) and "_target_" not in word]
    groups = {key for key in typed if "." not in key} - {"experiment"}  # another choice of a group has other keys

    def is_kept(word: str) -> bool:
        if again := typed.get(_key(word)):
            return word[0] == "+" != again[0]  # what was added has to be there, to be changed or taken away
        return _key(word).split(".")[0] not in groups

    flags = [word for word in others if word not in settings]
    now = [word for word in others if word in settings]
    run_dir = [f"hydra.run.dir={_quoted(path.parent.parent)}"] if in_run and folder == "null" else []
    return [*flags, *filter(is_kept, saved), *now, *run_dir, f"ckpt_path={_quoted(path)}"]


def _quoted(path: Path) -> str:
    """As a value for Hydra, whose own words are some of the characters of a path."""
    return "'" + str(path).replace("'", r"\'") + "'"


def _key(word: str) -> str:
    return word.lstrip("+~").partition("=")[0].partition("@")[0]


def format_difference(cfg: DictConfig) -> str:
    """How a run's settings differ from those of the checkpoint that it goes on from, but for folders."""

    def flat(settings: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
        for key, value in settings.items():
            yield from flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)]

    saved = dict(flat(read_resumable(cfg.ckpt_path)["run"].get("settings") or {}))
    now = dict(flat(OmegaConf.to_container(cfg, resolve=True)))
    keys = [key for key in {**saved, **now} if not re.search(r"(output_dir|dirpath|save_dir|ckpt_path)$", key)]
    changed = [f"{key}={now.get(key)} ({saved.get(key)} before)" for key in keys if saved.get(key) != now.get(key)]
    return f"with {', '.join(changed)}" if changed and saved else "with its own settings"


def job(task: Callable[[DictConfig], Any]) -> Callable[[DictConfig], Any]:
    """Around a task under Hydra: a user's mistake is one sentence and exit code 2, Ctrl-C 130, SIGTERM 143.

    In a sweep a run that fails leaves error.txt and the others go on; one that is done is not done again.
    """

    @functools.wraps(task)
    def run(cfg: DictConfig) -> Any:
        from hydra.core.hydra_config import HydraConfig
        from hydra.errors import InstantiationException
        from hydra.types import RunMode
        from lightning.pytorch.utilities.exceptions import SIGTERMException

        hydra_cfg = HydraConfig.get()
        cfg.output_dir = hydra_cfg.runtime.output_dir
        note = Path(cfg.output_dir, "error.txt")  # read by srcnn.report.sweep
        in_sweep = hydra_cfg.mode == RunMode.MULTIRUN
        keep_freed_memory()
        try:
            if in_sweep:
                note.unlink(missing_ok=True)
                if done := _done_or_resumed(cfg):
                    return done.get("val_psnr")
            elif cfg.ckpt_path and _is_first():
                print(f"resuming {cfg.ckpt_path}, {format_difference(cfg)}", flush=True)
            return task(cfg)
        except SIGTERMException:
            sys.exit(128 + signal.SIGTERM)
        except KeyboardInterrupt:
            sys.exit(128 + signal.SIGINT)
        except SystemExit as leaving:  # into which Lightning turns Ctrl-C
            sys.exit(128 + signal.SIGINT if isinstance(leaving.__context__, KeyboardInterrupt) else leaving.code)
        except Exception as error:
            # What a constructor has raised: wrapped, Hydra would print it without its traceback.
            is_wrapped = isinstance(error, InstantiationException) and error.__cause__
            cause: BaseException = error.__cause__ if is_wrapped else error  # type: ignore[assignment]
            if isinstance(cause, ModuleNotFoundError) and not cause.name:  # a failed import has one: an extra's lack
                cause = UserError(str(cause))
            if in_sweep:
                if not isinstance(cause, UserError):
                    traceback.print_exception(cause)
                note.write_text(f"{hydra_cfg.job.num} ({hydra_cfg.job.override_dirname}): {cause}", encoding="utf-8")
                return None
            if not isinstance(cause, UserError):
                raise cause from None
            fail(cause)

    return run


def _done_or_resumed(cfg: DictConfig) -> dict[str, Any] | None:
    """What a sweep's run that is done has scored; else the run goes on from its last.ckpt, if it has one."""
    folder, words = Path(cfg.output_dir), overrides()
    scores, last = folder / "scores.json", folder / "checkpoints" / "last.ckpt"
    if scores.is_file() and (found := json.loads(scores.read_text(encoding="utf-8"))).get("overrides") == words:
        print(f"done already: {folder}", flush=True)
        return found
    if last.is_file() and read_resumable(last)["run"].get("overrides") == words:
        cfg.ckpt_path = str(last)
    return None


def overrides() -> list[str] | None:
    """The words that were typed for this run; None in a notebook, where nothing was typed."""
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        return None
    return [word for word in HydraConfig.get().overrides.task if _key(word) != "ckpt_path"]


def instantiate_all(group: DictConfig | None) -> list[Any]:
    """The callbacks or loggers of a group, without those set to null."""
    from hydra.utils import instantiate

    return [instantiate(part, _convert_="all") for part in (group or {}).values() if part and part.get("_target_")]


# ---- console scripts: srcnn-train and srcnn-predict


def train() -> None:
    runpy.run_path(str(_SCRIPTS / "train.py"), run_name="__main__")


def predict() -> None:
    runpy.run_path(str(_SCRIPTS / "predict.py"), run_name="__main__")
