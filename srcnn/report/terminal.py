"""What a run prints while it trains: what it is, and how far it has come."""

import logging
import math
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Timer, TQDMProgressBar
from lightning.pytorch.utilities import rank_zero_only
from tqdm import tqdm

from srcnn.device import device_name
from srcnn.lit_module import steps_per_epoch
from srcnn.losses import PSNRLoss
from srcnn.report.page import duration

# Lightning's tips, and its warnings about what is so on purpose here.
for name, level in {"pytorch": "WARNING", "fabric": "WARNING", "pytorch.callbacks.early_stopping": "INFO"}.items():
    logging.getLogger(f"lightning.{name}").setLevel(level)
for text in (
    "Experiment logs directory", "Checkpoint directory .* exists", ".*LeafSpec", "The `srun` command is",
    "Total length of `list` across ranks is zero", "The number of training batches", "Precision .* model summary",
):  # fmt: skip
    warnings.filterwarnings("ignore", message=text)


def machine(trainer: L.Trainer) -> dict[str, Any]:
    """What a run is computed on, for its record."""
    device = device_name(trainer.strategy.root_device)
    return {"device": device, "processes": trainer.world_size, "precision": str(trainer.precision)}


class Banner(L.Callback):
    """Prints, when training begins, network, data, recipe, length, device, precision and folder, a line each.

    Of data that is not a `SRDataModule` only the class is known. When it ends, why it did not train, or not to the end.
    """

    has_begun = False

    @rank_zero_only
    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        net, data, schedule = pl_module.net, trainer.datamodule, pl_module.schedule
        self.has_begun, steps = True, trainer.estimated_stepping_batches
        recipe = [type(pl_module.loss).__name__ + " in dB" * isinstance(pl_module.loss, PSNRLoss)]
        recipe.append(type(trainer.optimizers[0]).__name__)
        made = pl_module.hparams["optimizer"]
        if isinstance(made, dict) and "lr" in made:  # what Lightning has restored may be another
            recipe[1] += f" at {made['lr']:g}"
        if schedule is not None:
            recipe.append(getattr(schedule, "shape", getattr(schedule, "func", type(schedule)).__name__))
        kind = f"{type(net).__name__} x{net.scale} on {'RGB' if net.channels == 3 else 'luma'}"
        lines = {"network": f"{kind}, {net.parameter_count:,} parameters"}
        lines["data"] = type(data or trainer.train_dataloader).__name__
        length = f"{steps:,} steps in {_epochs(trainer)} epochs" if 0 <= steps < math.inf else "without end"
        if patches := getattr(data, "patches", None):
            images = len(patches.places) - patches.left_out
            lines["data"] = f"{images} images of {Path(data.train)}, {len(data.validation)} more to validate on"
            if not data.validation:  # nor is there a best.ckpt then
                warnings.filterwarnings("ignore", message=".*could not find the monitored key")
            lines["LR"] = f"{data.degradation.describe()}; test on {', '.join(data.test)}"
            left_out = {"smaller than a patch": patches.left_out, "in subfolders": data.ignored}
            lines["left out"] = ", ".join(f"{count} images {why}" for why, count in left_out.items() if count)
            side = (patches.side - 2 * net.margin) * patches.scale
            length += f", batches of {patches.batch_size} patches {side}x{side}"
        lines |= {"training": length, "recipe": ", ".join(recipe)}
        lines["device"] = device_name(trainer.strategy.root_device)
        lines |= {"precision": f"{trainer.precision}", "folder": f"{trainer.default_root_dir}"}
        print(*(f"{name:<10}{text}" for name, text in lines.items() if text), sep="\n", flush=True)

    @rank_zero_only
    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        if not self.has_begun:
            more = "for more of them set trainer.max_epochs=, trainer.max_steps= or +trainer.max_time="
            print(f"nothing left to train: {trainer.global_step:,} steps are done; {more}", flush=True)
        elif any(isinstance(timer, Timer) and (timer.time_remaining() or 0) <= 0 for timer in trainer.callbacks):
            print(f"time is up, as trainer.max_time has it, after {trainer.global_step:,} steps", flush=True)


def _epochs(trainer: Any) -> int:
    """How many epochs a run with an end has."""
    return max(1, math.ceil(trainer.estimated_stepping_batches / steps_per_epoch(trainer)))


class Meter(L.Callback):
    """Logs at every log point the pixels of patches trained on a second."""

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.since, self.pixels = time.perf_counter(), 0

    on_train_start = on_validation_end = on_train_epoch_start  # the former also of a run resumed within an epoch

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.pixels += batch[1][:, 0].numel() * trainer.world_size
        is_last = trainer.should_stop or trainer.global_step == trainer.max_steps  # Lightning logs it as well
        every = trainer.log_every_n_steps
        if every and (trainer.global_step % every == 0 or is_last):
            if pl_module.device.type == "cuda":
                torch.cuda.synchronize(pl_module.device)  # as logging the loss is about to do
            pl_module.log("train/Mpixel_per_s", self.pixels / 1e6 / (time.perf_counter() - self.since))
            self.on_train_epoch_start(trainer, pl_module)


class Progress(TQDMProgressBar):
    """A line an epoch; on a terminal Lightning's bars as well."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=int(sys.stdout.isatty()))

    def on_train_start(self, trainer: L.Trainer, *_: Any) -> None:
        super().on_train_start()
        self.begin, self.first = time.monotonic(), trainer.global_step

    @rank_zero_only
    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        seconds, done, known = time.monotonic() - self.begin, trainer.global_step - self.first, trainer.callback_metrics
        left = seconds / max(1, done) * (trainer.estimated_stepping_batches - trainer.global_step)
        parts = [f"epoch {trainer.current_epoch + 1}" + (f"/{_epochs(trainer)}" if left < math.inf else "")]
        if "train/loss" in known:
            parts.append(f"loss {known['train/loss']:.4g}{' dB' * isinstance(pl_module.loss, PSNRLoss)}")
        if "val/psnr" in known:
            beside = f" (bicubic {known['val/psnr_bicubic']:.2f})" if "val/psnr_bicubic" in known else ""
            parts.append(f"PSNR {known['val/psnr']:.2f} dB{beside}")
        parts.append(duration(seconds) + (f", {duration(left)} left" if 0 < left < math.inf else ""))
        tqdm.write("  ".join(parts))
        sys.stdout.flush()

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        found = super().get_metrics(trainer, pl_module)
        return {"loss": found["train/loss"]} if "train/loss" in found else {}


def progress(enabled: bool = True) -> L.Callback:
    """The progress, unless trainer.enable_progress_bar says otherwise."""
    return Progress() if enabled else L.Callback()
