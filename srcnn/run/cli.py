"""From the command line to a task and back: `key=value` words, errors as one sentence, exit codes, resume, --help.

Only UserError, and what Hydra and OmegaConf say of settings while they compose them, ends as a sentence. Any other
error leaves as a traceback.
"""

import inspect
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from omegaconf import DictConfig, OmegaConf

from srcnn import __version__
from srcnn.errors import UserError
from srcnn.run import CONFIGS
from srcnn.run.schema import ELSEWHERE, check_types, documented, help_page, unknown_key

# Keys whose value is a path, taken as typed: spaces, brackets, commas, "=" and all.
_PATHS = (
    "ckpt_path", "input", "output", "reference", "resume", "init_from", "data.root", "data.train", "data.train_dir",
    "data.val", "hydra.run.dir", "hydra.sweep.dir",
)  # fmt: skip
# Groups, and keys of no group, that a resumed run takes from its checkpoint.
_RESTORED = (
    "data", "model", "loss", "optim", "scheduler", "trainer", "callbacks", "logger", "experiment", "scale", "seed",
    "protocol", "init_from",
)  # fmt: skip


def command(task: Callable[[DictConfig], int | None], name: str) -> NoReturn:
    """Run a task on the settings of configs/NAME.yaml and the command line's key=value words; without Hydra."""
    words = sys.argv[1:]
    with _errors_as_sentences():
        if _asks_for_help(words):
            _print_page(task, name, {})
            sys.exit(0)
        sys.exit(task(parse(name, words)))


def parse(name: str, words: Sequence[str]) -> DictConfig:
    """The settings of configs/NAME.yaml with key=value words laid over; UserError for an unknown key or wrong type.

    A value is YAML where its default is a number, a list or null, and a text as it stands where that is a text.
    """
    cfg = OmegaConf.load(CONFIGS / f"{name}.yaml")
    schema = documented(name, {})
    for word in words:
        key, equals, text = word.partition("=")
        if not equals:
            raise UserError(f"{word}: settings are key=value; --help lists them")
        if key not in schema:
            raise unknown_key(key, schema)
        if text == "":
            raise UserError(f"{key}=: give a value, or leave it out")
        value = _value(text, verbatim=key in _PATHS)
        check_types({key: value}, schema)
        OmegaConf.update(cfg, key, value.replace("${", r"\${") if isinstance(value, str) else value)
    assert isinstance(cfg, DictConfig)
    return cfg


def _value(text: str, verbatim: bool) -> Any:
    """A number, true, false, null, a list of texts in brackets, or else the text itself."""
    if verbatim or text == "null":
        return None if text == "null" else os.path.expanduser(text)
    if re.fullmatch(r"\[.*\]", text):
        inner = text[1:-1]
        items = [inner] if Path(inner).exists() else [item.strip() for item in inner.split(",")]
        return [item for item in items if item]
    if text in ("true", "false"):
        return text == "true"
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


def train_command(task: Callable[[DictConfig, Sequence[str]], Any]) -> None:
    """Run a task on configs/train.yaml under Hydra: one run, or with -m a sweep of them.

    The task gets the composed settings and the key=value words that led to them.
    """
    # Hydra's parser takes -m before or after all settings; people put it between them as well.
    words = sorted(sys.argv[1:], key=lambda word: word not in ("-m", "--multirun"))
    for number in (signal.SIGINT, signal.SIGTERM):  # srcnn.run.callbacks.RunGuard saves before it leaves
        signal.signal(number, _leave)
    job = _Job(task)
    with _errors_as_sentences(job):
        import hydra

        if _asks_for_help(words):
            _print_page(task, "train", _choices([word for word in words if "=" in word]))
            return
        sys.argv[1:] = expand_resume([quote_path(word) for word in words])
        _check_processes(sys.argv[1:])
        # Hydra would print errors in its own words and hide frames; with this it leaves them to us.
        job.verbose = os.environ.setdefault("HYDRA_FULL_ERROR", "0") == "1"
        os.environ["HYDRA_FULL_ERROR"] = "1"
        hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="train")(job.function())()


def _check_processes(words: Sequence[str]) -> None:
    """UserError where several processes would each make a folder of their own."""
    several = [word for word in words if re.fullmatch(r"trainer\.(devices|num_nodes)=(?!1$).*", word)]
    if several and ("-m" in words or "--multirun" in words):
        raise UserError(f"{several[0]}: a sweep takes one process a run; leave it out")
    if "TORCHELASTIC_RUN_ID" in os.environ and not any(word.startswith("hydra.run.dir=") for word in words):
        raise UserError("under torchrun every process has to know the run's folder: name it with hydra.run.dir=…")


class _Job:
    """One run as Hydra calls it: a mistake leaves nothing behind; in a sweep it is noted and the others go on."""

    def __init__(self, task: Callable[[DictConfig, Sequence[str]], Any]):
        self.task, self.verbose, self.began = task, False, False
        self.kept = _folder_there()

    def function(self) -> Callable[[DictConfig], Any]:
        def run(cfg: DictConfig) -> Any:
            return self._run(cfg)

        run.__module__ = self.task.__module__  # where Hydra takes the job's name from
        return run

    def _run(self, cfg: DictConfig) -> Any:
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        self.began = True
        hydra_cfg = HydraConfig.get()
        folder, overrides = Path(hydra_cfg.runtime.output_dir), list(hydra_cfg.overrides.task)
        if hydra_cfg.mode == RunMode.MULTIRUN:
            return self._run_in_sweep(cfg, overrides, folder)
        try:
            return self._checked(cfg, overrides, hydra_cfg.runtime.choices)
        except UserError as error:  # here, as Hydra would add a line of its own
            if not self.kept:
                _remove_empty(folder)
            _fail(error, self.verbose)

    def _checked(self, cfg: DictConfig, overrides: Sequence[str], choices: Any) -> Any:
        for key in OmegaConf.missing_keys(cfg):
            raise UserError(f"{key} has to be given: {key}=…")
        keys = [override.lstrip("+").partition("=")[0] for override in overrides if not override.startswith("~")]
        values = {key: OmegaConf.select(cfg, key) for key in keys if key not in choices}
        values = {key: OmegaConf.to_container(v) if OmegaConf.is_config(v) else v for key, v in values.items()}
        check_types(values, documented("train", choices))
        return self.task(cfg, overrides)

    def _run_in_sweep(self, cfg: DictConfig, overrides: Sequence[str], folder: Path) -> Any:
        from hydra.core.hydra_config import HydraConfig

        note = folder / "error.txt"  # read by srcnn.report.sweep.SweepTable, perhaps in another process
        note.unlink(missing_ok=True)
        job = HydraConfig.get().job
        try:
            if cfg.resume is None:
                cfg.resume = "same"  # a sweep may be started again
            return self._checked(cfg, overrides, HydraConfig.get().runtime.choices)
        except Exception as error:
            if not isinstance(error, UserError):
                traceback.print_exc()
            note.write_text(f"{job.num} ({job.override_dirname}): {error}", encoding="utf-8")
            return None


def _folder_there() -> bool:
    """Whether the folder that the command line names for the run was there before."""
    named = [word.partition("=")[2].strip("'") for word in sys.argv[1:] if word.startswith("hydra.run.dir=")]
    return bool(named) and Path(named[-1]).exists()


def _remove_empty(folder: Path) -> None:
    """The folder of a run that never began, and those of the day and of all runs, if nothing else is in them."""
    try:
        folder.rmdir()
        for parent in folder.relative_to(Path.cwd()).parents[:-1]:
            parent.rmdir()
    except (OSError, ValueError):  # not empty, or elsewhere
        return


@contextmanager
def _errors_as_sentences(job: _Job | None = None) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        _fail(error, job.verbose if job else os.environ.get("HYDRA_FULL_ERROR") == "1")
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:  # as of `… --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        if job is None or job.began or not type(error).__module__.startswith(("hydra.", "omegaconf.")):
            raise
        _fail(UserError(_sentence(error)), job.verbose)


def _fail(error: UserError, verbose: bool) -> NoReturn:
    """The sentence on stderr, from one process, and what it was made of where HYDRA_FULL_ERROR=1 asks for that."""
    if error.__cause__ and verbose:
        traceback.print_exception(error.__cause__)
    if os.environ.get("LOCAL_RANK", "0") == os.environ.get("SLURM_PROCID", "0") == "0":
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    sys.exit(error.code)


def _leave(number: int, _: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _sentence(error: Exception) -> str:
    """What Hydra or OmegaConf has to say of a setting, in our words where a key does not exist."""
    text = f"{error} {error.__cause__ or ''}"
    if found := re.search(r"Could not override '([^']+)'", text):
        return str(unknown_key(found[1], documented("train", _choices([]))))
    return re.sub(r"\s+", " ", text.split("Config search path")[0].split("full_key:")[0]).strip()


def _asks_for_help(words: Sequence[str]) -> bool:
    if "--version" in words:
        print(__version__)
        sys.exit(0)
    return "--help" in words or "-h" in words


def _print_page(task: Callable[..., Any], name: str, choices: dict[str, str | None]) -> None:
    print(inspect.getdoc(inspect.getmodule(task)), help_page(name, choices), sep="\n\n")
    sys.stdout.flush()


def _choices(words: Sequence[str]) -> dict[str, str | None]:
    """The file chosen of each group, by the defaults and these words."""
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose("train", list(words), return_hydra_config=True)
    return {group: choice for group, choice in cfg.hydra.runtime.choices.items() if not group.startswith("hydra/")}


def quote_path(word: str) -> str:
    """A word whose value is a path, quoted so that Hydra takes it as typed."""
    key, equals, value = word.partition("=")
    if key == "data.test" and re.fullmatch(r"\[.*\]", value):
        items = [value[1:-1]] if Path(value[1:-1]).is_dir() else value[1:-1].split(",")
        return f"data.test=[{','.join(quote_path(f'data.train={item}').partition('=')[2] for item in items)}]"
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    if not equals or key.lstrip("+") not in _PATHS or quoted or value in ("", "null"):
        return word
    value = os.path.expanduser(value).replace("${", r"\${")
    value = re.sub(r"(\\+)('|$)", r"\1\1\2", value).replace("'", r"\'")
    return f"{key}='{value}'"


def expand_resume(words: Sequence[str]) -> list[str]:
    """The words with those of the run that `resume=CHECKPOINT` goes on with in front, in that run's folder.

    What is typed now takes the place of what was typed then. A file is trusted with the choice of our own groups and
    with plain values, not with the name of a class nor with a place to write to.
    """
    from srcnn.run.checkpoint import read_run

    given = {override.key_or_group: override for override in _overrides(words)}
    path = Path(str(given["resume"].value()).replace(r"\${", "${")) if "resume" in given else None
    if str(path) == "auto" and "hydra.run.dir" not in given:
        raise UserError("resume=auto goes on with what is in the run's folder: name it with hydra.run.dir=…")
    if path is None or str(path) in ("None", "auto"):
        return list(words)
    if "init_from" in given:
        raise UserError("resume and init_from exclude each other: resume goes on with a run, init_from starts one")
    if "-m" in words or "--multirun" in words:
        raise UserError("resume continues one run: leave -m out, or start a sweep from its weights with init_from=")
    saved = {override.key_or_group: override for override in _overrides(read_run(path)["run"]["overrides"])}
    for key, override in given.items():
        if key in saved and saved[key].is_add() and not override.is_add():
            words = [f"++{word}" if word.startswith(f"{key}=") else word for word in words]
        if key in saved and saved[key].input_line != override.input_line:  # another choice of a group: other keys
            saved = {other: value for other, value in saved.items() if not other.startswith(f"{key}.")}
    kept = []
    for key, override in saved.items():
        if key in given or key in ELSEWHERE:
            continue
        if not _is_trusted(override):
            line = override.input_line
            raise UserError(f"{path} was made with {line}: type it again, as neither classes nor places come from a file")
        kept.append(override.input_line)
    run = path.absolute().parent.parent
    if path.absolute().parent.name == "checkpoints" and "hydra.run.dir" not in given:
        kept.append(quote_path(f"hydra.run.dir={run}"))
    return [*kept, *words]


def _overrides(words: Sequence[str]) -> list[Any]:
    """Words as Hydra parses them; without its flags."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_overrides([word for word in words if not word.startswith("-")])
    except HydraException as error:
        raise UserError(f"cannot be read as key=value: {error}") from None


def _is_trusted(override: Any) -> bool:
    """Whether a run's setting may be taken from a file: see `expand_resume`."""
    parts = override.key_or_group.split(".")
    if parts[0] not in _RESTORED or not all(re.fullmatch(r"[A-Za-z]\w*", part) for part in parts) or override.package:
        return False
    if override.is_delete():
        return True
    value = override.value()
    if len(parts) == 1 and parts[0] not in ("scale", "seed", "init_from"):  # the name of a file in a group's folder
        return value is None or re.fullmatch(r"\w+", str(value)) is not None
    return not override.is_sweep_override() and _is_plain(value, parts[0] in ("trainer", "callbacks", "logger"))


def _is_plain(value: Any, no_paths: bool) -> bool:
    if isinstance(value, dict):
        return all(re.fullmatch(r"[A-Za-z]\w*", str(key)) for key in value) and _is_plain(list(value.values()), no_paths)
    if isinstance(value, list):
        return len(value) <= 1000 and all(_is_plain(item, no_paths) for item in value)
    text = str(value)
    interpolated = re.search(r"(?<!\\)(\\\\)*\$\{", text)
    return len(text) < 4096 and not interpolated and not (no_paths and re.search(r"[/\\~]|\.\.", text))
