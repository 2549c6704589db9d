"""Which run goes on from where, whether it fits the settings, and what it will do differently."""

import re
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from torch.optim.lr_scheduler import LRScheduler

from srcnn.errors import UserError
from srcnn.checkpoint import newest_checkpoint, progress, read_checkpoint, read_run, run_of
from srcnn.launch import quote_path
from srcnn.run.make import is_of_libraries
from srcnn.run.schema import ELSEWHERE

# Groups, and keys of no group, that a resumed run takes from its checkpoint.
_RESTORED = (
    "data", "degradation", "model", "loss", "optim", "scheduler", "trainer", "callbacks", "logger", "experiment",
    "scale", "seed", "protocol", "init_from",
)  # fmt: skip


class Start(NamedTuple):
    """The checkpoint that a run is resumed from."""

    path: Path
    checkpoint: dict[str, Any]

    @property
    def step(self) -> int:
        return self.checkpoint["global_step"]


def finished(folder: Path, run: Mapping[str, Any]) -> dict[str, Any] | None:
    """What weights.pth records of the run that has ended in this folder, if it had the settings of `run`."""
    done = _shipped(folder)
    if any(done.get(part) != run[part] for part in ("values", "classes")):
        return None
    newest = newest_checkpoint(folder)
    has_gone_on = newest is not None and newest[1] > done.get("steps", 0)
    return None if has_gone_on else done


def _shipped(folder: Path) -> dict[str, Any]:
    """What weights.pth records of its run; {} without it."""
    path = folder / "weights.pth"
    try:
        return run_of(path, read_checkpoint(path))
    except UserError:
        return {}


def find_start(resume: str | None, folder: Path) -> Start | None:
    """The checkpoint that `resume` names, or with "auto" and "same" the newest in the run's folder, if there is one."""
    if resume not in (None, "auto", "same"):
        return Start(Path(resume), read_run(resume))
    if (found := newest_checkpoint(folder)) is None:
        return None
    if resume is None:
        raise UserError(f"hydra.run.dir={folder}: holds a run; add resume=auto to go on with it, or name another")
    start = Start(found[0], read_run(found[0]))
    # No more than best.ckpt: killed at the end of the first epoch, which is done again with all that is due then.
    return None if start.path.name == "best.ckpt" and progress(*start)[0] <= 1 else start


def check_start(start: Start, resume: str, run: Mapping[str, Any], schedule: Any, folder: Path) -> list[str]:
    """Lines to print about how the resumed run differs; UserError where it cannot go on with these settings."""
    different = _changes(start.checkpoint["run"], run)
    if any(key == "scale" or key.startswith("model") for key in different):
        raise UserError("resume goes on with the same network: leave model and scale out, or start a run (init_from=)")
    if "optim._target_" in different:
        raise UserError("resume goes on with the state of the same optimiser: leave optim= out (or init_from=)")
    ours = [f"{key}: {change}" for key, change in different.items() if not key.startswith(("machine.", "versions."))]
    if resume == "same" and ours:
        raise UserError(f"{folder}: holds a run of other settings ({ours[0]}); take another folder")
    fixed = [key for key in different if key.startswith(("scheduler.", "optim.")) or key == "trainer.max_epochs"]
    if isinstance(schedule, LRScheduler) and fixed:
        name = type(schedule).__name__
        raise UserError(
            f"{fixed[0]} changed, and torch's {name} keeps the old learning rate in its state: take a schedule of "
            "srcnn.optim.Schedule, or start a run (init_from=)"
        )
    (epochs, steps), values = progress(*start), run["values"]
    if _shipped(folder).get("steps", 0) >= steps:  # else its test is still to be done
        if 0 < values["trainer.max_epochs"] <= epochs:
            more = f"give it more with trainer.max_epochs={2 * epochs}"
            raise UserError(f"{start.path}: this run has done its {epochs} epochs; {more}")
        if 0 < values["trainer.max_steps"] <= steps:
            raise UserError(f"{start.path}: this run has done its {steps} steps; raise trainer.max_steps")
    lines = [f"resuming {start.path} after step {steps}"]
    lines += [f"  {line}" for line in ours] or ["  with its own settings"]
    if inexact := [key for key in different if not _is_exact(key, values)]:
        lines.append(f"  so not bit for bit the run it was: {', '.join(inexact)} changed")
    return lines


def _changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    """What differs between the settings of two runs, as "then -> now" by key."""
    found = {}
    for part in ("classes", "values", "machine", "versions", "data"):
        old, new = then.get(part, {}), now.get(part, {})
        for key in dict.fromkeys([*old, *new]):
            if old.get(key) != new.get(key):
                name = f"{key}._target_" if part == "classes" else key if part == "values" else f"{part}.{key}"
                found[name] = f"{old.get(key)} -> {new.get(key)}"
    return found


def _is_exact(key: str, values: Mapping[str, Any]) -> bool:
    """Whether a run that is resumed with a change of this setting is still bit for bit the uninterrupted one."""
    if key in ("trainer.max_epochs", "trainer.max_steps"):  # if the learning rate does not depend on the run's length
        return values.get("scheduler.schedule", "") is None or values.get("scheduler.schedule.shape") == "multistep"
    return key.startswith(("callbacks.", "logger.")) and not key.startswith("callbacks.ema")


def fit(trainer: L.Trainer, module: L.LightningModule, data: L.LightningDataModule, start: Start | None) -> float:
    """Train, from `start` on, validation included; returns the seconds that it took.

    UserError where torch or Lightning cannot go on with the state that a checkpoint has.
    """
    began = time.monotonic()
    try:
        trainer.fit(module, data, ckpt_path=start.path if start else None)
        return time.monotonic() - began
    except Exception as error:
        if isinstance(error, UserError) or not start or trainer.global_step > start.step:
            raise
        hooks = ("srcnn.lit_module", "srcnn.callbacks", "packaging.version", "pathlib")  # which take it up
        names = {frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__)}
        has_begun = names & {"training_step", "validation_step"}  # where the network and the loss run
        if has_begun or not is_of_libraries(error, *hooks):
            raise
        text = f"its state does not fit this run ({type(error).__name__}: {error})"
        raise UserError(f"{start.path}: {text}: start one from its weights with init_from=") from error


def expand_resume(words: Sequence[str]) -> list[str]:
    """The words with those of the run that `resume=CHECKPOINT` goes on with in front, in that run's folder.

    What is typed now takes the place of what was typed then. A file is trusted with the choice of our own groups and
    with plain values, not with the name of a class nor with a place to write to.
    """
    given = {override.key_or_group: override for override in _overrides(words)}
    path = Path(str(given["resume"].value()).replace(r"\${", "${")) if "resume" in given else None
    if str(path) in ("auto", "same") and "hydra.run.dir" not in given:
        raise UserError("resume=auto goes on with what is in the run's folder: name it with hydra.run.dir=…")
    if path is None or str(path) in ("None", "auto", "same"):
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
            raise UserError(f"{path} was made with {line}: type it again, as no class or place is taken from a file")
        kept.append(override.input_line)
    run = path.absolute().parent.parent
    if path.absolute().parent.name == "checkpoints" and "hydra.run.dir" not in given:
        kept.append(quote_path(f"hydra.run.dir={run}"))
    return [*kept, *words]


def _overrides(words: Sequence[str]) -> list[Any]:
    """Words as Hydra parses them; without its flags."""
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
    text = override.input_line.partition("=")[2]
    if len(parts) == 1 and parts[0] not in ("scale", "seed", "init_from"):  # the name of a file in a group's folder
        return re.fullmatch(r"\w+", text) is not None
    unknown_place = parts[0] in ("trainer", "callbacks", "logger") and re.search(r"[/\\~]|\.\.", text)
    computed = override.is_sweep_override() or "_target_" in text or re.search(r"(?<!\\)(\\\\)*\$\{", text)
    return len(text) < 65536 and not unknown_place and not computed
