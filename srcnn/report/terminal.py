"""What a run says while it trains: what it is, how long it will take, how far it has come."""

import logging
import platform
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import RichProgressBarTheme
from lightning.pytorch.utilities import rank_zero_only
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from srcnn.report.page import duration
from srcnn.run.options import steps_per_epoch

_LONG = 600  # seconds on a CPU, from which on a faster recipe is named

# Lightning's tips, and its warnings about what is so on purpose here.
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
for asked_for in ("profilers", "callbacks.early_stopping"):
    logging.getLogger(f"lightning.pytorch.{asked_for}").setLevel(logging.INFO)
warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
warnings.filterwarnings("ignore", message=".*LeafSpec.*")
warnings.filterwarnings("ignore", message="Total length of .* across ranks is zero")
warnings.filterwarnings("ignore", message="The `srun` command is available")  # which is no reason to use it
warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")


def machine(trainer: L.Trainer) -> dict[str, Any]:
    """What the run is computed on, and in which precision."""
    device = device_name(trainer.strategy.root_device)
    return {"device": device, "processes": trainer.world_size, "precision": str(trainer.precision)}


def device_name(device: torch.device) -> str:
    """The GPU's name, or the processor's and how many threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    threads = torch.get_num_threads()
    return f"{names[0] if names else platform.machine()}, {threads} thread{'s' if threads > 1 else ''}"


def banner(module: Any, data: Any, trainer: L.Trainer, folder: Path, precision: str, pixels: str) -> str:
    """Network, data, recipe, length of the run, device and folder, a line each.

    precision  in which it trains, and why
    pixels     how many the training set has, and where they are (see `Patches.to`)
    """
    net, patches, group = module.net, data.patches, module.optimizer.param_groups[0]
    side = patches.side * patches.ratio
    recipe = f"{type(module.loss).__name__}, {type(module.optimizer).__name__} at {group['initial_lr']:g}"
    if module.schedule is not None:
        recipe += f", {getattr(module.schedule, 'shape', type(module.schedule).__name__)}"
    steps, epochs = steps_of(trainer, len(patches)), trainer.max_epochs or -1
    length = (f"{steps:,} steps" if steps else "steps without end") + (f" in {epochs} epochs" if epochs > 0 else "")
    validation = f"{len(data.validation)} more to validate on" if data.validation else "none to validate on"
    return "\n".join(
        [
            f"{type(net).__name__} x{net.scale} on {'RGB' if net.channels == 3 else 'luma'}, "
            f"{net.parameter_count:,} parameters",
            f"data      {len(patches.images)} images of {data.train}, {validation}",
            f"          LR {data.degradation.describe()}; test on {', '.join(data.test)}",
            f"          packed: {pixels}; in {data.pack.path.parent}, delete that to clear",
            f"training  {length}, batches of {patches.batch_size} patches {side}x{side}",
            f"          {recipe}",
            f"device    {device_name(trainer.strategy.root_device)}",
            f"precision {precision}",
            f"folder    {folder}",
        ]
    )


def steps_of(trainer: Any, batches: int) -> int | None:
    """The steps of a run whose epochs have so many batches; None where it has no end."""
    lengths = (steps_per_epoch(trainer, batches) * (trainer.max_epochs or 0), trainer.max_steps)
    return min((length for length in lengths if length > 0), default=None)


class Meter(L.Callback):
    """Logs at every log point the pixels of patches trained on a second."""

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.since, self.batches = time.perf_counter(), 0

    on_train_start = on_validation_end = on_train_epoch_start  # the former also of a run resumed within an epoch

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.batches += 1
        if trainer.global_step % trainer.log_every_n_steps:  # type: ignore[attr-defined]
            return
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)  # as logging the loss is about to do
        pixels = batch[1].shape[0] * batch[1].shape[-2] * batch[1].shape[-1] * trainer.world_size
        pl_module.log("train/Mpixel_per_s", pixels * self.batches / 1e6 / (time.perf_counter() - self.since))
        self.on_train_epoch_start(trainer, pl_module)


class PlainProgress(L.Callback):
    """A line per epoch, for output that is no terminal; and early on, how long it will all take.

    has_recipe  an experiment was chosen: no faster one is named
    """

    warm_up, measured = 3, 2.0  # steps left out, seconds that the estimate rests on

    def __init__(self, has_recipe: bool = False):
        self.has_recipe = has_recipe

    @rank_zero_only
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.begin, self.first, self.estimated = time.monotonic(), trainer.global_step, False

    @rank_zero_only
    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        steps = trainer.global_step - self.first
        if steps == self.warm_up:
            self.warm = time.monotonic()
        elif steps > self.warm_up and not self.estimated and time.monotonic() > self.warm + self.measured:
            self.estimated = True
            step = (time.monotonic() - self.warm) / (steps - self.warm_up)
            left = step * (trainer.estimated_stepping_batches - trainer.global_step)
            if left != float("inf"):
                slow = pl_module.device.type == "cpu" and left > _LONG and not self.has_recipe
                advice = "; experiment=fast takes a minute" if slow else ""
                print(f"time      about {duration(left)}, {1000 * step:.0f} ms a step{advice}", flush=True)

    @rank_zero_only
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        seconds = time.monotonic() - self.begin
        done = trainer.global_step - self.first
        left = trainer.estimated_stepping_batches - trainer.global_step
        ends = f", {duration(seconds / done * left)} left" if done and 0 < left < float("inf") else ""
        figures, known = [_epoch(trainer)], trainer.callback_metrics
        if "train/loss" in known:
            figures.append(f"loss {known['train/loss']:.4g}")
        if "val/psnr" in known:
            figures.append(f"PSNR {known['val/psnr']:.2f} (bicubic {known['val/psnr_bicubic']:.2f})")
        print("  ".join([*figures, f"{duration(seconds)}{ends}"]), flush=True)


def _epoch(trainer: L.Trainer) -> str:
    """The epoch that is computed, the first being 1."""
    limit = trainer.max_epochs or -1
    return f"epoch {trainer.current_epoch + 1}" + (f"/{limit}" if limit > 0 else "")


class EpochBars(RichProgressBar):
    """Lightning's bars, of which each epoch's stays, in 80 columns: its own columns and names would wrap."""

    def __init__(self) -> None:
        super().__init__(leave=True, theme=RichProgressBarTheme(metrics_format=".4g"))

    def configure_columns(self, trainer: L.Trainer) -> list:
        return [
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
        ]

    def _get_train_description(self, current_epoch: int) -> str:
        """Lightning's counts from 0; our lines and checkpoints count from 1."""
        return _epoch(self.trainer)

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        names = {"train/loss": "loss", "val/psnr": "PSNR"}
        return {names.get(name, name): value for name, value in super().get_metrics(trainer, pl_module).items()}


def progress(overrides: Sequence[str]) -> L.Callback:
    """Bars on a terminal; else plain lines."""
    if sys.stdout.isatty():
        return EpochBars()
    return PlainProgress(any(word.startswith("experiment=") for word in overrides))
