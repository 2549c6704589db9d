"""Between Lightning and the run's folder: a log that can be continued, checkpoints, averaged weights."""

import csv
import os
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import ModelCheckpoint, WeightAveraging
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from torch import Tensor

from srcnn.checkpoint import load_checkpoint
from srcnn.files import replacing


class MetricsCSV(CSVLogger):
    """Lightning's CSV log as `metrics.csv` in the run's folder, which a resumed run continues.

    Lightning deletes the file it finds; here its rows stay, but for those from `purge_step` on.
    """

    def __init__(self, save_dir: str, purge_step: int | None = None):
        super().__init__(save_dir, name="", version="")
        self.purge_step = purge_step

    @property
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
            kept = [row for row in reader if int(row["step"]) < step]
            self.metrics_keys = list(reader.fieldnames or [])
        with replacing(path) as temporary, open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=self.metrics_keys)
            writer.writeheader()
            writer.writerows(kept)


class Checkpoint(ModelCheckpoint):
    """Lightning's, counting epochs from 1, and at home in its folder wherever that has been moved to.

    What a resumed run calls its best must be the file that is there. After a resume from an earlier checkpoint it is
    a later branch's: that is kept under another name, and the new branch looks for a best of its own.
    """

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
        best = Path(state["best_model_path"])
        if self.monitor == "val/psnr" and best.name:
            if not best.exists():
                return
            found = load_checkpoint(best)
            if found["srcnn"]["val_psnr"] != float(state["best_model_score"]):
                best.rename(best.with_name(f"{best.stem}_of_step_{found['global_step']}.ckpt"))
                return
        super().load_state_dict(state)


class EMA(WeightAveraging):
    """Exponential moving average of the weights, over few steps at first so that a short run is not held back.

    Lightning validates the average, and saves it as the `state_dict` with the raw weights beside it.
    """

    def __init__(self, decay: float):
        def average(averaged: list[Tensor], current: list[Tensor], count: Tensor) -> None:
            now = min(decay, (1 + int(count)) / (10 + int(count)))
            torch._foreach_lerp_(averaged, current, 1 - now)

        super().__init__(multi_avg_fn=torch.no_grad()(average))
