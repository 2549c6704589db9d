"""How a run survives: checkpoints written whole, signals, NaN, averaged weights."""

import math
import os
import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import lightning as L
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint, WeightAveraging
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from srcnn.errors import DivergenceError, RunError, UserError, check_range
from srcnn.nets import Network
from srcnn.checkpoint import last_good, load_weights, newest_checkpoint, read_checkpoint, write_checkpoint


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints put in place when they are whole: a kill or a full disk leaves the previous one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | os.PathLike, storage_options: Any = None) -> None:
        try:
            write_checkpoint(path, checkpoint)
        except UserError as error:
            raise RunError(f"{error}; {last_good(Path(path).parent)}") from error

    def load_checkpoint(self, path: str | os.PathLike, *_: Any, **__: Any) -> dict[str, Any]:
        return read_checkpoint(path)


class Checkpoint(ModelCheckpoint):
    """Lightning's, with epochs counted from 1 in file names, and at home in its folder wherever that is moved to.

    What a resumed run calls its best must be the file that is there. After a resume from an earlier checkpoint it may
    be that of a later step: such a file is kept under another name, and the run looks for a best of its own. One that
    is newer than last.ckpt is not kept: the run was killed between the two, and comes to it again.
    """

    def format_checkpoint_name(self, metrics: dict[str, Tensor], *arguments: Any, **options: Any) -> str:
        return super().format_checkpoint_name({**metrics, "epoch": metrics["epoch"] + 1}, *arguments, **options)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.monitor in ("step", "epoch", *trainer.callback_metrics) or self.monitor is None:  # without validation
            super().on_train_epoch_end(trainer, pl_module)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        folder = str(self.dirpath)

        def here(path: str) -> str:
            return os.path.join(folder, os.path.basename(path)) if path else path

        state: dict[str, Any] = {k: here(v) if k.endswith("_path") else v for k, v in state_dict.items()}
        state["best_k_models"] = {here(path): score for path, score in state["best_k_models"].items()}
        state["dirpath"] = folder
        best = Path(state["best_model_path"])
        if self.monitor != "val/psnr" or self._is_there(best, state["best_model_score"]):
            super().load_state_dict(state)

    def _is_there(self, best: Path, score: Tensor | None) -> bool:
        """Whether `best` is the file with this score; a file of another run or step is put aside."""
        path = best if best.name else Path(str(self.dirpath)) / "best.ckpt"
        if not path.exists():
            return not best.name
        try:
            found = read_checkpoint(path)
            if best.name and score is not None and found["run"].get("val_psnr") == float(score):
                return True
            newest = newest_checkpoint(path.parent, but=path)
            if newest and newest[1] < found["global_step"]:
                return False
            aside = path.with_name(f"best_of_step_{found['global_step']}.ckpt")
        except UserError:
            aside = path.with_suffix(".damaged")
        rank_zero_only(path.rename)(aside)
        rank_zero_only(print)(f"{path.name} is not the best of the resumed run: kept as {aside.name}", flush=True)
        return False


def best_weights(trainer: L.Trainer, net: Network, start: Any) -> tuple[str, float | None]:
    """Put the best weights of a run into the network, or leave the last; returns their file and validation PSNR.

    By hand, as `trainer.test(ckpt_path=…)` would have the averaging callback bring back the raw weights.
    """
    kept = [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, Checkpoint)]
    kept = [checkpoint for checkpoint in kept if checkpoint.best_model_path]
    for best in kept:
        if best.monitor == "val/psnr" and best.best_model_score is not None:
            load_weights(net, best.best_model_path)
            return best.best_model_path, float(best.best_model_score)
    if start and trainer.global_step == start.step:  # a run that was done but for its test
        load_weights(net, start.path, start.checkpoint)
    return next((last.best_model_path for last in kept if last.monitor == "step"), "the last"), None


class RunGuard(L.Callback):
    """Keeps `last.ckpt` fresh within long epochs, saves before it leaves on a signal, and stops where a loss is NaN.

    It acts where a step begins: the one before is then in the log, and weights, average, optimiser and schedule belong
    together, so that a run resumed from there is the uninterrupted one. Several processes decide together.

    dirpath          folder of the checkpoints
    every_n_steps    steps after which to save; None: do not count
    every_n_minutes  minutes after which to save; None: do not look at the clock

    SIGTERM and Ctrl-C save and leave with 143 and 130; the second one leaves at once. SIGUSR1 and SIGUSR2 are a queue's
    announcement that the job's time is over: saved, and left to the handler of before, which has the job queued again.
    """

    def __init__(self, dirpath: str, every_n_steps: int | None = None, every_n_minutes: float | None = None):
        for name, value in (("every_n_steps", every_n_steps), ("every_n_minutes", every_n_minutes)):
            if value is not None:
                check_range(name, value, 1 if name == "every_n_steps" else 0)
        self.path = Path(dirpath) / "last.ckpt"
        self.every_n_steps, self.every_n_minutes = every_n_steps or math.inf, every_n_minutes or math.inf
        self._signal = 0
        self._losses: list[tuple[int, Tensor]] = []  # step and loss, not looked at yet
        self._handlers: dict[int, Any] = {}  # of before

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage == "fit" and "SLURM_JOB_ID" in os.environ:
            self._listen(signal.SIGUSR1, signal.SIGUSR2)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == self._signal and number in (signal.SIGINT, signal.SIGTERM):
            raise SystemExit(128 + number)
        if not self._signal:  # SLURM sends SIGTERM after its announcement
            self._signal = number

    def _listen(self, *numbers: int) -> None:
        if threading.current_thread() is threading.main_thread():
            self._handlers |= {number: signal.signal(number, self._note) for number in numbers}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._listen(signal.SIGINT, signal.SIGTERM)  # Lightning has just set a handler of its own
        self._saved_at, self._saved_step = time.monotonic(), trainer.global_step
        for stopping in trainer.early_stopping_callbacks:  # of a run that had ended so: its test is still to be done
            trainer.should_stop |= stopping.wait_count >= stopping.patience

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx % trainer.accumulate_grad_batches:
            return  # gradients are under way, which no checkpoint holds
        steps, minutes = trainer.global_step - self._saved_step, (time.monotonic() - self._saved_at) / 60
        due = steps > 0 and (steps >= self.every_n_steps or minutes >= self.every_n_minutes)
        number, save = _largest(trainer, self._signal, due)
        # Not at every step of a GPU, which would have to be waited for.
        if number or save or trainer.strategy.root_device.type == "cpu" or len(self._losses) >= 50:
            self._refuse_divergence(trainer, weights=bool(number or save))
        # Before the first step of an epoch there is the checkpoint of the epoch before, or nothing to save.
        if batch_idx and (number or save):
            trainer.save_checkpoint(self.path)
            self._saved_at, self._saved_step = time.monotonic(), trainer.global_step
        if number:
            self._leave(trainer, number)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._losses.append((trainer.global_step, outputs["loss"]))
        if trainer.global_step == trainer.max_steps:
            trainer.should_stop = True  # has Lightning validate once more, also within an epoch

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._refuse_divergence(trainer, weights=True)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._refuse_divergence(trainer, weights=True)  # before the checkpoints, which come last

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        (number,) = _largest(trainer, self._signal)
        if number:
            self._leave(trainer, number)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def _refuse_divergence(self, trainer: L.Trainer, weights: bool = False) -> None:
        if weights:  # a step may ruin them while its loss was still finite
            parameters = trainer.lightning_module.parameters()
            self._losses += [(trainer.global_step, weight.detach().float().sum()) for weight in parameters]
        if not self._losses:
            return
        steps, values = zip(*self._losses, strict=True)
        self._losses = []
        finite = torch.stack(values).isfinite().tolist()
        wrong = [step for step, is_finite in zip(steps, finite, strict=True) if not is_finite]
        (diverged,) = _largest(trainer, bool(wrong))
        if not diverged:
            return
        if not trainer.is_global_zero:
            raise SystemExit(0)  # Lightning would kill rank 0, which prints the error, if another rank failed
        step = wrong[0] if wrong else trainer.global_step
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        raise DivergenceError(
            f"the loss is NaN or infinite at step {step}, at a learning rate of {rate:.3g}; "
            f"{last_good(self.path.parent)}; lower optim.lr, or set trainer.gradient_clip_val"
        )

    def _leave(self, trainer: L.Trainer, number: int) -> NoReturn:
        if not trainer.is_global_zero:
            raise SystemExit(0)
        after = f"{signal.Signals(number).name} after step {trainer.global_step}"
        if number in (signal.SIGINT, signal.SIGTERM):
            print(f"{after}: resume with python train.py resume={self.path}", flush=True)
        else:
            print(f"{after}: saved", flush=True)
            if callable(requeue := self._handlers.get(number)):  # of srcnn.launch, or submitit's
                requeue(number, None)
        raise SystemExit(128 + number)


def _largest(trainer: L.Trainer, *values: int) -> tuple[int, ...]:
    """The largest of each value over all ranks."""
    if trainer.world_size == 1:
        return values
    everyone = torch.tensor(values, device=trainer.strategy.root_device)
    return tuple(trainer.strategy.reduce(everyone, reduce_op="max").tolist())


class EMA(WeightAveraging):
    """Exponential moving average of the weights, over few steps at first so that a short run is not held back.

    Lightning validates the average, and saves it as the `state_dict` with the raw weights beside it.
    """

    def __init__(self, decay: float):
        check_range("decay", decay, 0, 1)

        def average(averaged: list[Tensor], current: list[Tensor], count: Tensor) -> None:
            now = min(decay, (1 + int(count)) / (10 + int(count)))
            torch._foreach_lerp_(averaged, current, 1 - now)  # of all tensors at once; torch has no public name for it

        super().__init__(multi_avg_fn=torch.no_grad()(average))
