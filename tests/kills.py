"""Runs killed at random places and resumed, against the run that nobody interrupts.

python tests/kills.py 30            thirty kills, a third of them within the first epoch
"""

import os
import random
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from conftest import SMALL, run

# Whatever a run can have to lose: averaged weights, momentum, a schedule, a checkpoint every second of three steps.
SETTINGS = [
    *SMALL, "trainer.max_epochs=5", "optim=muon", "callbacks=ema", "scheduler=cosine", "scheduler.schedule.warmup=4",
    "callbacks.last.every_n_train_steps=2", "callbacks.last.every_n_epochs=null", "trainer.log_every_n_steps=1",
    "logger=csv", "callbacks.last.save_on_train_epoch_end=false",
]  # fmt: skip
_HOOKS = (
    "on_train_start", "on_train_epoch_start", "on_train_batch_start", "on_before_backward", "on_after_backward",
    "on_before_optimizer_step", "on_before_zero_grad", "on_train_batch_end", "on_validation_start",
    "on_validation_batch_end", "on_validation_end", "on_train_epoch_end", "on_save_checkpoint", "on_train_end",
)  # fmt: skip


class Stop(L.Callback):
    """Sends this process a signal when the hooks of a run have been called `after` times in all."""

    def __init__(self, after: int, number: int = signal.SIGKILL):
        self.calls, self.after, self.number = 0, after, number
        for hook in _HOOKS:
            setattr(self, hook, self._counted)

    def _counted(self, *_: Any, **__: Any) -> None:
        self.calls += 1
        if self.calls == self.after:
            os.kill(os.getpid(), self.number)


def stopped(folder: Path, after: int, number: int = signal.SIGKILL, settings: list[str] = SETTINGS) -> int:
    """Run in a child process that gets a signal; returns its exit code, or minus the signal that ended it."""
    stop = [f"+callbacks.stop={{_target_: kills.Stop, after: {after}, number: {int(number)}}}"]
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        run("train.py", *settings, *stop, f"hydra.run.dir={folder}", cwd=folder.parent)
        code = 0
    except AssertionError as error:  # `run` says which exit code came instead of 0
        code = int(str(error).split("exit code ")[1].split()[0])
    finally:
        os._exit(code)


def resumed(folder: Path) -> None:
    """The run goes on from its last checkpoint, if it has one, to its end."""
    words = [*SETTINGS, f"hydra.run.dir={folder}", "resume=auto", "~callbacks.stop"]
    has_begun = (folder / "checkpoints" / "last.ckpt").exists()
    run("train.py", *(words if has_begun else words[:-1]), cwd=folder.parent)


def differences(one: Any, other: Any, key: str = "") -> list[str]:
    """Where two nested structures of tensors and plain values differ."""
    if isinstance(one, torch.Tensor):
        return [] if torch.equal(one, other) else [key]
    if isinstance(one, dict) and one.keys() == other.keys():
        return [found for name in one for found in differences(one[name], other[name], f"{key}/{name}")]
    if isinstance(one, list | tuple) and len(one) == len(other):
        return [found for i in range(len(one)) for found in differences(one[i], other[i], f"{key}/{i}")]
    return [] if one == other else [key]


def lost(one: Path, other: Path) -> list[str]:
    """What differs between two runs: weights, averages, optimiser, schedule, best score, and what is shipped."""
    read: Callable[..., dict] = lambda *name: torch.load(Path(*name), weights_only=True)  # noqa: E731
    keys = ("state_dict", "current_model_state", "optimizer_states", "lr_schedulers", "global_step", "epoch")
    a, b = (read(folder, "checkpoints", "last.ckpt") for folder in (one, other))
    found = [difference for key in keys for difference in differences(a.get(key), b.get(key), key)]
    a, b = (read(folder, "weights.pth") for folder in (one, other))
    return found + differences(a["state_dict"], b["state_dict"], "weights.pth")


def main(count: int) -> None:
    torch.set_num_threads(1)
    folder, rng, failures = Path(tempfile.mkdtemp()), random.Random(0), 0
    run("train.py", *SETTINGS, "hydra.run.dir=whole", cwd=folder)
    for number in range(count):
        after, name = rng.randint(1, 30 if number % 3 == 0 else 125), folder / f"killed{number}"
        code = stopped(name, after)
        resumed(name)
        found = lost(folder / "whole", name)
        failures += bool(found)
        print(f"killed at hook call {after} ({code}): {', '.join(found[:3]) or 'bit-equal'}", flush=True)
    print(f"{count - failures} of {count} are bit-equal to the uninterrupted run")


if __name__ == "__main__":
    main(int(sys.argv[1]))
