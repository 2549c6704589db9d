"""What a run logs beside Lightning's curves: a metrics.csv that goes on, and what TensorBoard shows else."""

import shutil
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only

from srcnn.callbacks import best_checkpoint
from srcnn.checkpoint import read_resumable
from srcnn.errors import check_range
from srcnn.image import as_float, bicubic_up
from srcnn.report.scores import read_csv


def purge_step(ckpt_path: str | None) -> int | None:
    """The step from which a run that goes on from a checkpoint logs anew."""
    return int(read_resumable(ckpt_path)["global_step"]) if ckpt_path else None


class MetricsCSV(CSVLogger):
    """Lightning's CSV log as `metrics.csv` in `save_dir`, after the rows before `purge_step` that are there already.

    Lightning's own deletes the file that it finds.
    """

    def __init__(self, save_dir: str, purge_step: int | None = None):
        super().__init__(save_dir, name="", version="", flush_logs_every_n_steps=1)
        self.purge_step = purge_step or 0

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        if self._experiment is None:
            path = Path(self.save_dir, "metrics.csv")
            rows = read_csv(path) if self.purge_step and path.is_file() else []
            super().experiment.metrics = [row for row in rows if int(row["step"]) < self.purge_step]
            self.save()
        return super().experiment


def _boards(trainer: L.Trainer) -> list[TensorBoardLogger]:
    return [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]


class HParams(L.Callback):
    """Tells loggers a run's settings: TensorBoard when it ends, beside the best PSNR on the validation images.

    In a run of its own below the log: TensorBoard keeps the first hyper-parameters of a run, and a resumed one has new.
    """

    @rank_zero_only
    def on_fit_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        for logger in trainer.loggers:
            if not isinstance(logger, CSVLogger | TensorBoardLogger):  # as of W&B, of MLflow
                logger.log_hyperparams(dict(pl_module.hparams))

    @rank_zero_only
    def on_fit_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        known, (_, best) = dict(pl_module.hparams), best_checkpoint(trainer)
        typed = dict(word.lstrip("+").partition("=")[::2] for word in known.pop("overrides", None) or [])
        for logger in _boards(trainer) if best is not None else []:
            shutil.rmtree(Path(logger.log_dir, "hparams"), ignore_errors=True)
            board = TensorBoardLogger(logger.log_dir, name="", version="hparams", default_hp_metric=False)
            board.log_hyperparams(typed | {k: v for k, v in known.items() if k != "settings"}, {"hp/val_psnr": best})
            board.finalize("success")


class Crops(L.Callback):
    """Shows TensorBoard at every validation a crop of the first `images`, of `side` HR pixels.

    It is where bicubic does worst: bicubic, network and ground truth beside each other.
    """

    def __init__(self, images: int = 3, side: int = 48):
        check_range("images", images, 0)
        check_range("side", side, 24)
        self.images, self.side = images, side

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        has_images = isinstance(outputs, dict) and {"lr", "sr", "hr"} <= outputs.keys()  # not of every subclass
        boards = _boards(trainer)
        if trainer.sanity_checking or batch_idx >= self.images or not has_images or not boards:
            return
        lr, sr, hr = (as_float(outputs[key][:1].cpu()).float() for key in ("lr", "sr", "hr"))
        bicubic, side = bicubic_up(lr, hr.shape[-1] // lr.shape[-1]), min(self.side, *hr.shape[-2:])
        errors = F.avg_pool2d((bicubic - hr).square().mean(1, keepdim=True), side, stride=1)
        y, x = divmod(int(errors.argmax()), errors.shape[-1])
        crops = torch.cat([image[..., y : y + side, x : x + side].clamp(0, 1) for image in (bicubic, sr, hr)], dim=-1)
        large = crops.expand(-1, 3, -1, -1).repeat_interleave(3, 2).repeat_interleave(3, 3)  # a pixel is a square
        for board in boards:
            tag = f"val/{getattr(batch, 'name', batch_idx)}: bicubic, network, ground truth"
            board.experiment.add_images(tag, large, trainer.global_step - 1)  # the step that the PSNR is logged at
