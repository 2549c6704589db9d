"""A run's settings: made into objects, and recorded."""

import ctypes
import inspect
import math
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.plugins.environments import LightningEnvironment, SLURMEnvironment
from omegaconf import DictConfig
from torch import nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from srcnn import __version__
from srcnn.data.datamodule import SRDataModule
from srcnn.errors import UserError
from srcnn.processes import process_share
from srcnn.callbacks import AtomicCheckpointIO
from srcnn.run.make import find_class, make, plain
from srcnn.run.precision import best_precision
from srcnn.run.schema import ELSEWHERE, flatten
from srcnn.inference.tiles import device_of


def make_optimizer(settings: DictConfig, net: nn.Module, loss: nn.Module) -> torch.optim.Optimizer:
    """The optimiser of the network's parameters and, after them, of those that the loss has.

    One whose constructor has a `module`, as `srcnn.optim.Muon`, gets both as a module instead.
    """
    trained = nn.ModuleList([net, loss])
    target = find_class("optim", settings.get("_target_"))
    takes_module = "module" in inspect.signature(target).parameters
    return make("optim", settings, trained if takes_module else list(trained.parameters()))


def make_schedule(settings: DictConfig | None, optimizer: torch.optim.Optimizer) -> Any:
    """A function of progress (`srcnn.optim.Schedule`), a scheduler of torch on the optimiser, or None."""
    if settings is None:
        return None
    target = find_class("scheduler.schedule", settings.get("_target_"))
    if isinstance(target, type) and issubclass(target, ReduceLROnPlateau):
        raise UserError("scheduler.schedule: ReduceLROnPlateau waits for a metric; take one that counts steps")
    of_torch = isinstance(target, type) and issubclass(target, LRScheduler)
    return make("scheduler.schedule", settings, *([optimizer] if of_torch else []))


def describe(cfg: DictConfig, overrides: Sequence[str]) -> dict[str, Any]:
    """What checkpoints and weights record of a run: what was typed, and what it came to, in plain values."""
    values = flatten(plain(cfg))
    place = str(cfg.output_dir)
    return {
        "overrides": list(overrides),
        "values": {
            key: value
            for key, value in values.items()
            if key not in ELSEWHERE and not re.search(r"(^|\.)_", key) and place not in str(value)
        },
        "classes": {k.removesuffix("._target_"): v for k, v in values.items() if k.endswith("._target_") and v},
        "versions": {"srcnn": __version__, "torch": str(torch.__version__), "lightning": str(L.__version__)},
    }


def steps_per_epoch(trainer: Any, batches: int) -> int:
    """The steps of the optimiser in an epoch of so many batches, as Lightning limits and accumulates them."""
    limit = trainer.limit_train_batches  # which `overfit_batches` sets as well
    batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    return math.ceil(batches / trainer.accumulate_grad_batches)


def keep_freed_memory() -> None:
    """Have glibc keep the memory that a step frees for the next one.

    Else it may give it back to the system and ask for it again at every step: 1,500 page faults, a fifth of a step of
    SRCNN; or it may not, depending on what was allocated before.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(-1, 1 << 29)  # M_TRIM_THRESHOLD, bytes
        libc.mallopt(-3, 1 << 25)  # M_MMAP_THRESHOLD


def new_trainer(
    settings: DictConfig, folder: Path, callbacks: list[Any], loggers: list[Any], data: SRDataModule
) -> tuple[L.Trainer, str]:
    """Lightning's Trainer for a run in `folder`, and in which precision it trains and why."""
    values = plain(settings)
    if values["max_epochs"] == -1 and values["max_steps"] == -1:
        raise UserError("trainer.max_epochs=-1 needs trainer.max_steps, or the run never ends")
    device = device_of(values["accelerator"])
    if device.type == "cpu":
        keep_freed_memory()
    best, why = best_precision(device)
    precision = f"{values['precision']}, as asked for ({why})"
    if values["precision"] == "auto":
        values["precision"], precision = best, f"{best}: {why}"
    plugins: list[Any] = [AtomicCheckpointIO()]
    _, started = process_share()
    if "SLURM_JOB_ID" in os.environ and "TORCHELASTIC_RUN_ID" not in os.environ:
        # One that srun did not start with others may start them itself, as on any machine. Signals are for RunGuard.
        plugins.append(SLURMEnvironment(auto_requeue=False) if started > 1 else LightningEnvironment())
    trainer = make(
        "trainer",
        {"_target_": "lightning.Trainer", **values},
        default_root_dir=folder,
        callbacks=callbacks,
        logger=loggers,
        plugins=plugins,
        enable_model_summary=False,
        enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
    )
    # A row of the log an epoch and a run at least.
    lengths = (trainer.log_every_n_steps, steps_per_epoch(trainer, len(data.patches)), trainer.max_steps)
    trainer.log_every_n_steps = min(length for length in lengths if length > 0)
    if trainer.world_size != started > 1:
        asked = f"trainer.devices={values['devices']} trainer.num_nodes={values['num_nodes']}"
        raise UserError(f"{asked}: srun or torchrun has started {started} processes, which has to be as many")
    if (size := data.sampling["batch_size"]) % trainer.world_size:
        raise UserError(f"data.batch_size={size}: {trainer.world_size} processes cannot share it evenly")
    return trainer, precision
