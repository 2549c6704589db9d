"""Which run goes on from where, whether it fits the settings, and what it will do differently."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch.optim.lr_scheduler import LRScheduler

from srcnn.errors import UserError
from srcnn.run.checkpoint import newest_checkpoint, progress, read_checkpoint, read_run, run_of
from srcnn.run.options import changes, is_exact


class Start(NamedTuple):
    """The checkpoint that a run is resumed from."""

    path: Path
    checkpoint: dict[str, Any]

    @property
    def step(self) -> int:
        return self.checkpoint["global_step"]


def finished(folder: Path, run: Mapping[str, Any]) -> dict[str, Any] | None:
    """What weights.pth records of the run that has ended in this folder, if it had the settings of `run`."""
    path = folder / "weights.pth"
    try:
        done = run_of(path, read_checkpoint(path))
    except UserError:
        return None
    return done if all(done.get(part) == run[part] for part in ("values", "classes")) else None


def find_start(resume: str | None, folder: Path) -> Start | None:
    """The checkpoint that `resume` names, or with "auto" and "same" the newest in the run's folder, if there is one."""
    found = newest_checkpoint(folder)
    if resume is None and found:
        raise UserError(f"hydra.run.dir={folder}: holds a run; add resume=auto to go on with it, or take another folder")
    if resume is None or (resume in ("auto", "same") and not found):
        return None
    path = found[0] if found and resume in ("auto", "same") else Path(resume)
    return Start(path, read_run(path))


def check_start(start: Start, resume: str, run: Mapping[str, Any], schedule: Any, folder: Path) -> list[str]:
    """Lines to print about how the resumed run differs; UserError where it cannot go on with these settings."""
    different = changes(start.checkpoint["run"], run)
    keys = [line.partition(":")[0] for line in different]
    if any(key == "scale" or key.startswith("model") for key in keys):
        raise UserError("resume goes on with the same network: leave model and scale out, or start a run (init_from=)")
    if "optim._target_" in keys:
        raise UserError("resume goes on with the state of the same optimiser: leave optim= out (or init_from=)")
    ours = [line for line in different if not line.startswith(("machine.", "versions."))]
    if resume == "same" and ours:
        raise UserError(f"{folder}: holds a run of other settings ({ours[0]}); take another folder")
    fixed = [key for key in keys if key.startswith(("scheduler.", "optim.")) or key in ("trainer.max_epochs",)]
    if isinstance(schedule, LRScheduler) and fixed:
        name = type(schedule).__name__
        raise UserError(
            f"{fixed[0]} changed, and torch's {name} keeps the old learning rate in its state: take a schedule of "
            "srcnn.optim.Schedule, or start a run (init_from=)"
        )
    _check_unfinished(start, run["values"], folder)
    lines = [f"resuming {start.path} after step {start.step}"]
    lines += [f"  {line}" for line in ours] or ["  with its own settings"]
    if inexact := [key for line, key in zip(different, keys, strict=True) if not is_exact(line, run)]:
        lines.append(f"  so not bit for bit the run it was: {', '.join(inexact)} changed")
    return lines


def _check_unfinished(start: Start, values: Mapping[str, Any], folder: Path) -> None:
    epochs, steps = progress(start.path, start.checkpoint)
    if not (folder / "weights.pth").exists():
        return  # stopped before its test: that is still to be done
    if 0 < values["trainer.max_epochs"] <= epochs:
        more = f"give it more with trainer.max_epochs={2 * epochs}"
        raise UserError(f"{start.path}: this run has done its {epochs} epochs; {more}")
    if 0 < values["trainer.max_steps"] <= steps:
        raise UserError(f"{start.path}: this run has done its {steps} steps; raise trainer.max_steps")
