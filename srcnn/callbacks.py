"""Averaged weights, ends of training (NaN, Ctrl-C, SIGTERM), and checkpoints that are whole or not there."""

import os
import signal
import threading
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, StochasticWeightAveraging, WeightAveraging
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from srcnn.checkpoint import read_checkpoint, read_resumable, write_checkpoint
from srcnn.errors import DivergenceError, check_range


class EMA(WeightAveraging):
    """Exponential moving average of the weights, over few steps at first so that a short run is not held back.

    Lightning validates the average, and saves it as the `state_dict` with the raw weights beside it.
    """

    def __init__(self, decay: float):
        check_range("decay", decay, 0, 1)

        def average(averaged: list[Tensor], current: list[Tensor], count: Tensor) -> None:
            now = min(decay, (1 + int(count)) / (10 + int(count)))
            weights = [weight.to(mean.dtype) for mean, weight in zip(averaged, current, strict=True)]
            get_ema_multi_avg_fn(now)(averaged, weights, count)

        super().__init__(multi_avg_fn=average)
        self.is_swapped = False

    def _swap_models(self, pl_module: L.LightningModule) -> None:
        super()._swap_models(pl_module)
        self.is_swapped = not self.is_swapped

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        if self.is_swapped:  # within a validation: back, as a checkpoint follows
            self._swap_models(pl_module)


class StopOnNaN(Callback):
    """DivergenceError where a loss is NaN or infinite, looked at every `every_n_steps` steps and at each epoch's end.

    Nor is a checkpoint written whose weights are NaN, so what was there stays.
    """

    def __init__(self, every_n_steps: int = 10):
        check_range("every_n_steps", every_n_steps, 1)
        self.every_n_steps = every_n_steps

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        is_due = trainer.global_step % self.every_n_steps == 0 or batch_idx + 1 == trainer.num_training_batches
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if is_due and loss is not None and not loss.isfinite():
            raise self._error(trainer, "the loss")

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        if not all(bool(weight.isfinite().all()) for weight in checkpoint["state_dict"].values()):
            raise self._error(trainer, "a weight")

    @staticmethod
    def _error(trainer: L.Trainer, what: str) -> DivergenceError:
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        found = f"{what} is NaN or infinite at step {trainer.global_step}, at a learning rate of {rate:.3g}"
        return DivergenceError(f"{found}; lower optim.lr, or set trainer.gradient_clip_val")


class StopBetweenSteps(Callback):
    """Ctrl-C and SIGTERM end training between two steps, the same two in all processes; a second Ctrl-C at once.

    Python's handler of Ctrl-C raises anywhere, also where an optimizer has changed half of the weights. Lightning 2.6
    broadcasts in its handler of SIGTERM, while other processes wait in other collectives.
    """

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.received = 0
        if threading.current_thread() is threading.main_thread():  # else Python refuses
            for number in (signal.SIGINT, signal.SIGTERM):  # Lightning puts the former handlers back
                signal.signal(number, self._receive)

    def _receive(self, number: int, frame: Any) -> None:
        if self.received == number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        number = self.received
        if trainer.world_size > 1:  # one that has received nothing stops too
            mine = torch.tensor(number, device=trainer.strategy.root_device)
            number = int(trainer.strategy.reduce(mine, reduce_op="max"))
        if number:
            raise SIGTERMException if number == signal.SIGTERM else KeyboardInterrupt

    on_train_end: Any = on_train_batch_start


class WholeCheckpointIO(TorchCheckpointIO):
    """Checkpoints put in place when they are whole: a kill or a full disk leaves the previous one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | os.PathLike, storage_options: Any = None) -> None:
        write_checkpoint(path, checkpoint)

    def load_checkpoint(self, path: str | os.PathLike, *_: Any, **__: Any) -> dict[str, Any]:
        return read_resumable(path)


def best_checkpoint(trainer: L.Trainer) -> tuple[str | None, float | None]:
    """The best checkpoint of a run and its val/psnr; None where the last weights, or another figure, decide."""
    if any(isinstance(callback, StochasticWeightAveraging) for callback in trainer.callbacks):  # type: ignore[attr-defined]
        return None, None  # its average is what the run ends with
    for callback in trainer.checkpoint_callbacks:
        if not isinstance(callback, ModelCheckpoint) or callback.monitor in (None, "step"):  # the last
            continue
        path = Path(callback.dirpath or "", Path(callback.best_model_path).name)  # the run's folder may have moved
        if path.is_file():
            state = read_checkpoint(path).get("callbacks", {}).get(callback.state_key, {})
            found, expected = state.get("best_model_score"), callback.best_model_score  # None where dirpath is another
            # A run resumed from an earlier checkpoint may find the file of the later steps that it has dropped.
            if found is not None and (expected is None or float(found) == float(expected)):
                return str(path), float(found) if callback.monitor == "val/psnr" else None
    return None, None
