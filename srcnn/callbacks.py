"""Between Lightning and the run's folder: a log that can be continued, and progress where there is no terminal."""

import csv
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from srcnn.files import replacing


class MetricsCSV(CSVLogger):
    """Lightning's CSV log as `metrics.csv` in the run's folder, which a resumed run continues.

    Lightning deletes the file it finds; here its rows stay, up to the step from which the run goes on.
    """

    def __init__(self, save_dir: str):
        super().__init__(save_dir, name="", version="")

    @property
    def experiment(self) -> Any:
        if self._experiment is None:
            self._experiment = _ContinuedWriter(self.log_dir)
        return self._experiment


class _ContinuedWriter(ExperimentWriter):
    def _check_log_dir_exists(self) -> None:  # called once, when the log is opened
        self._found: list[dict[str, str]] = []
        if Path(self.metrics_file_path).exists():
            with open(self.metrics_file_path, newline="") as file:
                self._found = list(csv.DictReader(file))

    def log_metrics(self, metrics_dict: dict[str, float], step: int | None = None) -> None:
        if self._found and step is not None:
            kept = [row for row in self._found if int(row["step"]) < step]
            with replacing(self.metrics_file_path) as temporary, open(temporary, "w", newline="") as file:
                writer = csv.DictWriter(file, fieldnames=list(self._found[0]))
                writer.writeheader()
                writer.writerows(kept)
            self.metrics_keys = list(self._found[0])
            self._found = []
        super().log_metrics(metrics_dict, step)

    def log_hparams(self, params: dict[str, Any]) -> None:
        """Not here: Hydra has written the whole config beside the log."""


class EMA(WeightAveraging):
    """Exponential moving average of the weights, over few steps at first so that a short run is not held back.

    Lightning validates the average, and saves it as the `state_dict` with the raw weights beside it.
    """

    def __init__(self, decay: float):
        def average(averaged: list[Tensor], current: list[Tensor], count: Tensor) -> None:
            now = min(decay, (1 + int(count)) / (10 + int(count)))
            torch._foreach_lerp_(averaged, current, 1 - now)

        super().__init__(multi_avg_fn=torch.no_grad()(average))


class PlainProgress(L.Callback):
    """A line per epoch, for output that is no terminal."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.start = time.monotonic()

    @rank_zero_only
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        figures = {name: float(value) for name, value in trainer.progress_bar_metrics.items()}
        shown = "  ".join(f"{name} {value:.6g}" for name, value in figures.items())
        seconds = time.monotonic() - self.start
        print(f"epoch {trainer.current_epoch + 1}  step {trainer.global_step}  {seconds:.0f} s  {shown}", flush=True)
