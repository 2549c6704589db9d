"""From the command line to a task and back: `key=value` words, errors as one sentence, exit codes, --help.

Only UserError, and what Hydra, OmegaConf and submitit say before a run begins, ends as a sentence. Any other
error leaves as a traceback.
"""

import errno
import inspect
import io
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from omegaconf import DictConfig, OmegaConf

from srcnn import __version__
from srcnn.errors import NO_ROOM, RunError, UserError
from srcnn.processes import alone_in, is_first, process_share
from srcnn.run import CONFIGS
from srcnn.run.make import plain
from srcnn.run.schema import SHEET, check_types, documented, help_page, unknown_key

_FULL_ERROR = "HYDRA_FULL_ERROR"
_VERBOSE = os.environ.get(_FULL_ERROR) == "1"  # as it was asked for: Hydra is always given it
# Keys whose value is a path, taken as typed: spaces, brackets, commas, "=" and all.
_PATHS = (
    "ckpt_path", "input", "output", "reference", "resume", "init_from", "data.root", "data.train", "data.train_dir",
    "data.train_hr", "data.train_lr", "data.test_hr", "data.test_lr", "data.val", "hydra.run.dir", "hydra.sweep.dir",
)  # fmt: skip


def command(task: Callable[[DictConfig], int | None], name: str) -> NoReturn:
    """Run a task on the settings of configs/NAME.yaml and the command line's key=value words; without Hydra."""
    with _errors_as_sentences():
        sys.exit(0 if _answered(task, name) else task(parse(name, sys.argv[1:])))


def parse(name: str, words: Sequence[str]) -> DictConfig:
    """The settings of configs/NAME.yaml with key=value words laid over; UserError for an unknown key or wrong type.

    A path is taken as it stands, any other value as YAML.
    """
    cfg, schema = OmegaConf.load(CONFIGS / f"{name}.yaml"), documented(name, {})
    assert isinstance(cfg, DictConfig)
    for word in words:
        key, equals, text = word.partition("=")
        if not equals and "input" in schema and os.path.exists(word):
            if cfg.input is not None:
                raise UserError(f"{word}: a second input=; name a folder, or a glob in quotes: 'input=*.jpg'")
            key, equals, text = "input", "=", word
        if not equals:
            raise UserError(f"{word}: settings are key=value; --help lists them")
        if key not in schema:
            raise unknown_key(key, schema)
        if text == "":
            raise UserError(f"{key}=: give a value, or leave it out")
        if key in _PATHS and text != "null":
            value: Any = os.path.expanduser(text).replace("${", r"\${")
        else:
            value = plain(OmegaConf.from_dotlist([f"value={text}"]))["value"]
            check_types({key: value}, schema)
        OmegaConf.update(cfg, key, value)
    return cfg


def train_command(task: Callable[[DictConfig, Sequence[str]], Any]) -> None:
    """Run a task on configs/train.yaml under Hydra: one run, or with -m a sweep of them.

    The task gets the composed settings and the key=value words that led to them.
    """
    # Hydra's parser takes -m before or after all settings; people put it between them as well.
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda word: word not in ("-m", "--multirun"))
    for number in (signal.SIGINT, signal.SIGTERM):  # srcnn.callbacks.RunGuard saves before it leaves
        signal.signal(number, _leave)
    threading.excepthook = _hide_full_disk
    if "SLURM_JOB_ID" in os.environ:
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, _queue_again)
    job = _Job(task)
    with _errors_as_sentences(job):
        if _answered(task, "train"):
            return
        import hydra

        from srcnn.run.resume import expand_resume

        sys.argv[1:] = expand_resume([quote_path(word) for word in sys.argv[1:]])
        _check_processes(sys.argv[1:])

        def run(cfg: DictConfig) -> Any:
            return job(cfg)

        run.__module__ = task.__module__  # where Hydra takes the job's name from
        asked = os.environ.get(_FULL_ERROR, "0")
        os.environ[_FULL_ERROR] = "1"  # or Hydra would print errors in its own words, and hide frames
        try:
            hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="train")(run)()
        finally:
            os.environ[_FULL_ERROR] = asked


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
        self.task, self.began = task, False
        named = [word.partition("=")[2].strip("'") for word in sys.argv[1:] if word.startswith("hydra.run.dir=")]
        self.folder_is_new = not named or not Path(named[-1]).exists()

    def __call__(self, cfg: DictConfig) -> Any:
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        self.began = True
        hydra_cfg = HydraConfig.get()
        folder, overrides = Path(hydra_cfg.runtime.output_dir), list(hydra_cfg.overrides.task)
        note = folder / "error.txt"  # of a sweep's job: read by srcnn.report.sweep, perhaps in another process
        in_sweep = hydra_cfg.mode == RunMode.MULTIRUN
        try:
            if in_sweep:
                note.unlink(missing_ok=True)
                cfg.resume = cfg.resume or "same"  # a sweep may be started again
            _check(cfg, overrides, documented("train", hydra_cfg.runtime.choices))
            with alone_in(folder) if is_first() else nullcontext():
                return self.task(cfg, overrides)
        except Exception as error:
            sentence = _sentence(error, folder)
            if in_sweep:
                if not sentence:
                    traceback.print_exc()
                text = f"{hydra_cfg.job.num} ({hydra_cfg.job.override_dirname}): {sentence or error}"
                note.write_text(text, encoding="utf-8")
                return None
            if not sentence:
                raise
            if self.folder_is_new or process_share()[1] > 1:  # another of those started together may have made it
                _remove_empty(folder)
            _fail(sentence)  # here, as Hydra would add a line of its own


def _check(cfg: DictConfig, overrides: Sequence[str], schema: Any) -> None:
    """UserError for a value that is missing, or that was typed and is of the wrong type."""
    for key in OmegaConf.missing_keys(cfg):
        raise UserError(f"{key} has to be given: {key}=…")
    keys = [override.lstrip("+").partition("=")[0] for override in overrides if not override.startswith("~")]
    check_types({key: plain(OmegaConf.select(cfg, key)) for key in keys if key in schema}, schema)
    if "output_dir" in keys:
        raise UserError("output_dir: name the run's folder with hydra.run.dir=… (a sweep's with hydra.sweep.dir=…)")


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
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name may be of no UTF-8, or the terminal
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except Exception as error:
        sentence = _sentence(error, Path.cwd())
        if not sentence and job and not job.began:
            sentence = _sentence_of_hydra(error)
        if sentence:
            _fail(sentence)
        if not isinstance(error, BrokenPipeError) or (job and job.began):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # as of `… --help | head`
        sys.exit(0)


def _sentence(error: Any, place: Path) -> UserError | None:
    """What is to be said of a user's mistake, or with the remedy of a full disk, whoever met it; None for a bug."""
    cause = error
    while cause and getattr(cause, "errno", 0) not in (*NO_ROOM, errno.EFBIG):
        cause = cause.__cause__
    if not cause or (isinstance(error, RunError) and cause.errno in NO_ROOM):  # `replacing` has named the remedy
        return error if isinstance(error, UserError) else None
    what = error if isinstance(error, UserError) else f"{cause.filename or place}: cannot be written ({cause.strerror})"
    sentence = RunError(f"{what}; make room there, and start it again, a run with resume=auto")
    sentence.__cause__ = error
    return sentence


def _sentence_of_hydra(error: Exception) -> UserError | None:
    """What Hydra, OmegaConf or submitit has to say of a setting, in our words where a key does not exist."""
    if not type(error).__module__.startswith(("hydra.", "omegaconf.", "submitit.")):
        return None
    text = f"{error} {error.__cause__ or ''}"
    if found := re.search(r"Could not override '([^']+)'", text):
        return unknown_key(found[1], documented("train", _choices([])))
    return UserError(text.split("Config search path")[0].split("full_key:")[0])


def _hide_full_disk(thread: threading.ExceptHookArgs) -> None:
    if not _sentence(thread.exc_value, Path()):  # of TensorBoard's: the run meets it as well
        threading.__excepthook__(thread)


def _fail(error: UserError) -> NoReturn:
    """The sentence on stderr, of one process, and what it was made from where HYDRA_FULL_ERROR=1 asks for that."""
    if error.__cause__ and _VERBOSE:
        traceback.print_exception(error.__cause__)
    if is_first():
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    sys.exit(error.code)


_leaving = False


def _leave(number: int, _: FrameType | None) -> NoReturn:
    global _leaving
    if _leaving:  # a queue's SIGTERM after its announcement, for one: not into what is being closed
        os._exit(128 + number)
    _leaving = True
    raise SystemExit(128 + number)


def _queue_again(number: int, _: FrameType | None) -> NoReturn:
    """SLURM has announced that the job's time is over. In a sweep's job it is submitit that queues it again."""
    global _leaving
    _leaving = True
    if is_first():
        command = ["scontrol", "requeue", os.environ["SLURM_JOB_ID"]]
        refused = subprocess.run(command, capture_output=True, text=True).stderr.strip()
        print(f"not queued again: {refused}" if refused else "queued again", flush=True)
    raise SystemExit(128 + number)


def _answered(task: Callable[..., Any], name: str) -> bool:
    """Print what --help or --version asks for: a task's manual is its module's docstring, and all settings."""
    if "--version" in sys.argv[1:]:
        print(__version__)
    elif "--help" in sys.argv[1:] or "-h" in sys.argv[1:]:
        choices = _choices([word for word in sys.argv[1:] if "=" in word]) if name == "train" else {}
        print(inspect.getdoc(inspect.getmodule(task)), help_page(name, choices), sep="\n\n")
    else:
        _refuse_sheet(name, sys.argv[1:])
        return False
    sys.stdout.flush()
    return True


def _refuse_sheet(name: str, words: Sequence[str]) -> None:
    """UserError with the equivalent for what the sheet says, as `train --lr=0.1` or `resume x`, and for --key=value."""
    script, ours, given = {"train": "train.py", "predict": "predict.py"}.get(name, f"-m srcnn.{name}"), [], list(words)
    if name == "train" and given[:1] == ["resume"]:
        given[0] = "--resume"
    elif name == "train" and given[:1] in (["train"], ["inspect"]):
        script = "-m srcnn.inspect_ckpt" if given.pop(0) == "inspect" else script
    following = iter(given)
    for word in following:
        key, equals, value = word.removeprefix("--").partition("=")
        here = SHEET.get(key.replace("-", "_")) if word.startswith("--") else None
        if here and "=" not in here:
            ours.append(f"{here}={value if equals else next(following, '…')}")
        else:
            ours.append(here or (word.removeprefix("--") if "." in key and equals else word))
    if ours != list(words):
        theirs = shlex.join(word for word in words if word not in ours)
        raise UserError(f"{theirs}: here that is: {shlex.join(['python', *script.split(), *ours])}")


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
