"""What a run says while it trains: what it is, how long it will take, how far it has come."""

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from srcnn.data.datamodule import SRDataModule
from srcnn.nets import Network

_LONG = 600  # seconds on a CPU, from which on a faster recipe is named


def banner(net: Network, data: SRDataModule, settings: Mapping[str, Any], device: str, folder: Path) -> str:
    """Network, parameters, data, recipe, device and folder, a line each."""
    values, choices, patches = settings["values"], settings["choices"], data.patches
    kernels = "-".join(map(str, values.get("model.kernels", ())))
    name = f"{type(net).__name__} {kernels}".strip()
    side = patches.side * patches.ratio
    length = f"{values['trainer.max_epochs']} epochs" if values["trainer.max_epochs"] > 0 else "epochs"
    recipe = f"{choices['loss']} loss, {choices['optim']} at {values['optim.lr']:g}"
    lines = [
        f"{name} x{net.scale} on {'RGB' if net.channels == 3 else 'luma'}, {net.parameter_count:,} parameters",
        f"data      {len(patches.width)} images of {data.train}, {len(data.validation)} more to validate on; "
        f"test on {', '.join(data.test)}",
        f"training  {length} of {patches.patches_per_epoch:,} patches {side}x{side} in batches of {patches.batch_size}",
        f"          {recipe}",
        f"device    {device}",
        f"folder    {folder}",
    ]
    return "\n".join(lines)


class Meter(L.Callback):
    """Logs at every log point the learning rate, of the first group, and the patch pixels trained on a second."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start()  # also of a run resumed within an epoch

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer._logger_connector.should_update_logs:
            # By hand, as `log` would round it to 32 bits.
            rate = {"train/lr": trainer.optimizers[0].param_groups[0]["lr"]}
            for logger in trainer.loggers:
                logger.log_metrics(rate, trainer.fit_loop.epoch_loop._batches_that_stepped)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start()

    def _start(self) -> None:
        self.since, self.batches = time.perf_counter(), 0

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.batches += 1
        if not trainer._logger_connector.should_update_logs:
            return
        _wait_for(pl_module.device)  # as logging the loss is about to do
        pixels = batch[1].shape[0] * batch[1].shape[-2] * batch[1].shape[-1] * trainer.world_size
        pl_module.log("train/Mpixel_per_s", pixels * self.batches / 1e6 / (time.perf_counter() - self.since))
        self._start()


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"


class PlainProgress(L.Callback):
    """A line per epoch, for output that is no terminal; and early on, how long it will all take.

    faster  what to say where that is long on a CPU
    """

    warm_up, measured = 3, 2.0  # steps left out, seconds that the estimate rests on

    def __init__(self, faster: str | None = None):
        self.faster = faster

    @rank_zero_only
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.begin, self.first = time.monotonic(), trainer.global_step
        self.estimated = False

    @rank_zero_only
    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if self.estimated:
            return
        steps = trainer.global_step - self.first
        if steps == self.warm_up:
            _wait_for(pl_module.device)
            self.warm = time.monotonic()
        elif steps > self.warm_up and time.monotonic() > self.warm + self.measured:
            _wait_for(pl_module.device)
            self.estimated = True
            step = (time.monotonic() - self.warm) / (steps - self.warm_up)
            left = step * (trainer.estimated_stepping_batches - trainer.global_step)
            if left != float("inf"):
                slow = pl_module.device.type == "cpu" and left > _LONG and self.faster
                advice = f"; {self.faster}" if slow else ""
                print(f"time      about {duration(left)}, {1000 * step:.0f} ms a step{advice}", flush=True)

    @rank_zero_only
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        seconds = time.monotonic() - self.begin
        done, total = trainer.global_step - self.first, trainer.estimated_stepping_batches - self.first
        left = f", {duration(seconds * (total / done - 1))} left" if 0 < done < total < float("inf") else ""
        loss = f"loss {float(trainer.callback_metrics['train/loss']):.4g}"
        print("  ".join([_epoch(trainer), loss, *figures(trainer), f"{duration(seconds)}{left}"]), flush=True)


def _epoch(trainer: L.Trainer) -> str:
    limited = trainer.max_epochs is not None and trainer.max_epochs > 0
    return f"epoch {trainer.current_epoch + 1}" + (f"/{trainer.max_epochs}" if limited else "")


def figures(trainer: L.Trainer) -> list[str]:
    """Validation PSNR beside bicubic's and throughput, as far as they are known."""
    known = {name: float(value) for name, value in trainer.callback_metrics.items()}
    shown = []
    if "val/psnr" in known:
        shown.append(f"PSNR {known['val/psnr']:.2f} (bicubic {known['val/psnr_bicubic']:.2f})")
    if "train/Mpixel_per_s" in known:
        shown.append(f"{known['train/Mpixel_per_s']:.2f} Mpixel/s")
    return shown


class Bar(PlainProgress):
    """A bar over the whole run, with loss, PSNR, throughput and the time left; figures as fresh as the log's."""

    @rank_zero_only
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        console = Console(stderr=True)
        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(max(6, min(40, console.width - 70))),
            TextColumn("{task.percentage:.0f} % {task.fields[figures]}"), TimeRemainingColumn(), TextColumn("left"),
            console=console, refresh_per_second=4,
        )  # fmt: skip
        total = trainer.estimated_stepping_batches
        self.task: TaskID = self.bar.add_task(
            "epoch 1", total=None if total == float("inf") else total, completed=trainer.global_step, figures=""
        )
        self.bar.start()

    @rank_zero_only
    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        super().on_train_batch_end(trainer, pl_module)
        self.bar.update(self.task, completed=trainer.global_step)
        if trainer._logger_connector.should_update_logs:
            self._show(trainer)

    def _show(self, trainer: L.Trainer) -> None:
        self.bar.update(self.task, description=_epoch(trainer), figures="  ".join(figures(trainer)))

    @rank_zero_only
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._show(trainer)

    @rank_zero_only
    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.bar.stop()

    @rank_zero_only
    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        if hasattr(self, "bar"):
            self.bar.stop()


def progress(choices: Mapping[str, Any]) -> PlainProgress:
    """A bar on a terminal, else plain lines; where no `experiment` was chosen, with the name of a fast one."""
    faster = {"t91": "fast is past the paper's figure in a minute", "leaves": "quickstart takes a minute"}
    hint = faster.get(str(choices.get("data")))
    return (Bar if sys.stderr.isatty() else PlainProgress)(
        f"experiment={hint}" if hint and not choices.get("experiment") else None
    )
