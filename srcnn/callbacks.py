"""Between Lightning and the run's folder: checkpoints, logs that a resumed run goes on with, averaged weights."""

import csv
import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import lightning as L
import torch
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.callbacks import ModelCheckpoint, WeightAveraging
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from srcnn.checkpoint import load_checkpoint, what_stands
from srcnn.errors import DivergenceError
from srcnn.files import replacing


class MetricsCSV(CSVLogger):
    """Lightning's CSV log as `metrics.csv` in the run's folder, which a resumed run continues.

    Lightning deletes the file it finds; here its rows stay, but for those from `purge_step` on.
    """

    def __init__(self, save_dir: str, purge_step: int | None = None):
        super().__init__(save_dir, name="", version="")
        self.purge_step = purge_step

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        if self._experiment is None:
            self._experiment = _ContinuedWriter(self.log_dir)
            if self.purge_step is not None:
                self._experiment.go_on(self.purge_step)
        return self._experiment

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """Not here: Hydra has written the whole config beside the log."""


class _ContinuedWriter(ExperimentWriter):
    def _check_log_dir_exists(self) -> None:
        """Lightning's would delete the log."""

    def go_on(self, step: int) -> None:
        path = Path(self.metrics_file_path)
        if not path.exists():
            return
        with open(path, newline="") as file:
            reader = csv.DictReader(file)
            self.metrics_keys = list(reader.fieldnames or [])
            # The last row may have been cut by a kill.
            kept = [row for row in reader if (row.get("step") or "").isdecimal() and int(row["step"]) < step]
        self._write(kept)

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        with open(self.metrics_file_path, newline="") as file:
            rows = list(csv.DictReader(file))
        self._write(rows)

    def _write(self, rows: list[dict[str, str]]) -> None:
        with replacing(self.metrics_file_path) as temporary, open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=self.metrics_keys)
            writer.writeheader()
            writer.writerows(rows)


class Checkpoint(ModelCheckpoint):
    """Lightning's, counting epochs from 1, and at home in its folder wherever that has been moved to.

    `every_n_train_steps` saves between two steps, when the first's row is in the log: Lightning would save before.

    What a resumed run calls its best must be the file that is there. After a resume from an earlier checkpoint it is
    a later branch's: that is kept under another name, and the new branch looks for a best of its own.
    """

    def on_train_batch_end(self, *_: Any) -> None:
        pass

    def between_steps(self, trainer: L.Trainer) -> None:
        if _within_epoch(trainer):
            super().on_train_batch_end(trainer, trainer.lightning_module, None, None, 0)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        with _as_far_as_it_came(trainer):
            super().on_train_epoch_end(trainer, pl_module)
            super().on_train_batch_end(trainer, pl_module, None, None, 0)

    def format_checkpoint_name(self, metrics: dict[str, Tensor], *arguments: Any, **options: Any) -> str:
        return super().format_checkpoint_name({**metrics, "epoch": metrics["epoch"] + 1}, *arguments, **options)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        folder = str(self.dirpath)

        def here(path: str) -> str:
            return os.path.join(folder, os.path.basename(path)) if path else path

        state: dict[str, Any] = {
            key: here(value) if key.endswith("_path") else value for key, value in state_dict.items()
        }
        state["best_k_models"] = {here(path): score for path, score in state["best_k_models"].items()}
        state["dirpath"] = folder
        if state["best_k_models"] and state["kth_best_model_path"] not in state["best_k_models"]:
            raise ValueError("a checkpoint callback's state contradicts itself")
        best = Path(state["best_model_path"])
        if self.monitor == "val/psnr" and best.name:
            if not best.exists():
                return
            found = load_checkpoint(best)
            if found["srcnn"]["val_psnr"] != float(state["best_model_score"]):
                rank_zero_only(best.rename)(best.with_name(f"{best.stem}_of_step_{found['global_step']}.ckpt"))
                return
        super().load_state_dict(state)


def _within_epoch(trainer: L.Trainer) -> bool:
    """Whether this is a place to go on from: no gradients are under way, which no checkpoint holds, and the epoch has
    begun, as before its first step Lightning would take a resumed run to be at its end."""
    done = trainer.fit_loop.epoch_loop.batch_progress.current.ready
    return done > 0 and done % trainer.accumulate_grad_batches == 0


@contextmanager
def _as_far_as_it_came(trainer: L.Trainer) -> Iterator[None]:
    """Have an epoch that `max_steps` cut short saved as begun, as Lightning would count it as done."""
    epoch, batches = trainer.fit_loop.epoch_progress, trainer.fit_loop.epoch_loop.batch_progress
    cut = batches.current.ready < trainer.num_training_batches
    counters: list[Any] = [epoch.current, epoch.total]
    for counter in counters:
        counter.processed -= cut
    yield
    for counter in counters:
        counter.processed += cut


class RunGuard(L.Callback):
    """Keeps `last.ckpt` fresh within long epochs, leaves in order on a signal, and stops where a loss is no number.

    All of it happens between two steps, when the last one is in the log and weights, average, optimiser and schedule
    belong together; so a run resumed from there is the uninterrupted one. Several processes decide together.

    dirpath          the checkpoints' folder
    every_n_steps    steps after which to save; None: do not count
    every_n_minutes  minutes after which to save; None: do not look at the clock

    SIGTERM and Ctrl-C save and leave with 143 and 130; the second one leaves at once. Under SLURM the signal that
    announces the end of the job's time goes to Lightning's plugin, which saves and has the job queued again.
    """

    def __init__(self, dirpath: str, every_n_steps: int | None = None, every_n_minutes: float | None = None):
        self.path = Path(dirpath) / "last.ckpt"
        self.every_n_steps, self.every_n_minutes = every_n_steps, every_n_minutes
        self._signal = 0
        self._obeyed = ""  # what was done because of it, in words
        self._losses: list[tuple[int, Tensor]] = []  # step and loss, not yet looked at
        self._handlers: dict[int, Any] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._saved_at, self._saved_step = time.monotonic(), trainer.global_step
        if threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
            if hasattr(signal, "SIGUSR1") and callable(requeue := signal.getsignal(signal.SIGUSR1)):
                self._handlers[signal.SIGUSR1] = requeue
            for number in self._handlers:
                signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._signal:
            raise SystemExit(128 + number)
        self._signal = number

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._losses.append((trainer.global_step, outputs["loss"]))
        if trainer.global_step == trainer.max_steps:
            trainer.should_stop = True  # has Lightning validate once more, also within an epoch

    def between_steps(self, trainer: L.Trainer) -> None:
        if self._obeyed:  # at the end of the epoch before
            self._leave(trainer)
        if not _within_epoch(trainer):
            return
        steps = trainer.global_step - self._saved_step
        minutes = (time.monotonic() - self._saved_at) / 60
        due = steps > 0 and (steps >= (self.every_n_steps or math.inf) or minutes >= (self.every_n_minutes or math.inf))
        number, save = _all_agree(trainer, self._signal, due)
        # Not at every step of a GPU, which would have to be waited for.
        if number or save or trainer.strategy.root_device.type == "cpu" or len(self._losses) >= 50:
            self._refuse_divergence(trainer, weights=bool(number or save))
        if number:
            self._obey(trainer, number)
            self._leave(trainer)
        elif save:
            trainer.save_checkpoint(self.path)
            self._saved_at, self._saved_step = time.monotonic(), trainer.global_step

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._refuse_divergence(trainer, weights=True)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._refuse_divergence(trainer, weights=True)  # before the checkpoints are written, which come last
        (number,) = _all_agree(trainer, self._signal)
        if number:  # to leave when the other callbacks have done what is due at the end of an epoch
            with _as_far_as_it_came(trainer):
                self._obey(trainer, number)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._obeyed:
            self._leave(trainer)

    def _obey(self, trainer: L.Trainer, number: int) -> None:
        self._signal = number  # of whichever process it has reached
        if number in (signal.SIGINT, signal.SIGTERM):
            trainer.save_checkpoint(self.path)
            self._obeyed = f"go on with: python train.py resume={self.path}"
        else:
            self._handlers[number](number, None)  # Lightning's plugin, which saves
            self._obeyed = "queued again"

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def _refuse_divergence(self, trainer: L.Trainer, weights: bool = False) -> None:
        if weights:  # a step may ruin them while its loss was still a number
            parameters = trainer.lightning_module.parameters()
            self._losses += [(trainer.global_step, weight.detach().float().sum()) for weight in parameters]
        finite = torch.stack([value for _, value in self._losses]).isfinite().tolist() if self._losses else []
        steps = [step for step, _ in self._losses]
        self._losses = []
        (diverged,) = _all_agree(trainer, not all(finite))
        if not diverged:
            return
        if not trainer.is_global_zero:
            raise SystemExit(0)  # Lightning kills the first process, which has the word, when another one fails
        step = next((step for step, is_finite in zip(steps, finite, strict=True) if not is_finite), trainer.global_step)
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        raise DivergenceError(
            f"the loss is no number any more at step {step}, at a learning rate of {rate:.3g}; "
            f"{what_stands(self.path.parent)}; lower optim.lr, or set trainer.gradient_clip_val"
        )

    def _leave(self, trainer: L.Trainer) -> NoReturn:
        if not trainer.is_global_zero:
            raise SystemExit(0)
        print(f"{signal.Signals(self._signal).name} after step {trainer.global_step}: {self._obeyed}", flush=True)
        raise SystemExit(128 + self._signal)


def _all_agree(trainer: L.Trainer, *values: int) -> tuple[int, ...]:
    """The largest of each value over all processes."""
    if trainer.world_size == 1:
        return values
    everyone = torch.tensor(values, device=trainer.strategy.root_device)
    return tuple(trainer.strategy.reduce(everyone, reduce_op="max").tolist())


class EMA(WeightAveraging):
    """Exponential moving average of the weights, over few steps at first so that a short run is not held back.

    Lightning validates the average, and saves it as the `state_dict` with the raw weights beside it.
    """

    def __init__(self, decay: float):
        def average(averaged: list[Tensor], current: list[Tensor], count: Tensor) -> None:
            now = min(decay, (1 + int(count)) / (10 + int(count)))
            torch._foreach_lerp_(averaged, current, 1 - now)

        super().__init__(multi_avg_fn=torch.no_grad()(average))
