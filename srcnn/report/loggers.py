"""Where a run logs to: metrics.csv and TensorBoard, both of which a resumed run continues."""

import csv
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import OmegaConf
from torch import Tensor, nn

from srcnn.data.samples import Sample
from srcnn.errors import check_range
from srcnn.image import bicubic_up, quantize, rgb_to_y, to_uint8
from srcnn.nets import Network
from srcnn.report.panels import lr_and_hr, magnified, sheet
from srcnn.report.scores import Scores, means, read_csv, write_csv
from srcnn.inference.tiles import super_resolve

_PSNR = "psnr/val"  # in TensorBoard
# What TensorBoard's hparams tab has a column for, beside what was typed; few, as it shows five at first.
_HPARAMS = ("model", "optim.lr", "data.batch_size")
_PLACES = ("hydra", "logger", "resume", "init_from", "data.root", "data.train_dir", "data.test")  # make no run another


def begin(loggers: Sequence[Logger], run: Mapping[str, Any]) -> None:
    """Give every logger the settings of the run; TensorBoard gets them at the end, as it needs a figure beside them."""
    for logger in loggers:
        if isinstance(logger, TensorBoard):
            logger.begin(run["overrides"])
        else:
            logger.log_hyperparams({**_class_names(run), **run["values"]})


def finish(loggers: Sequence[Logger], run: Mapping[str, Any], scores: Scores) -> None:
    """End the run in every logger, so that the next job of a sweep is another run there."""
    for logger in loggers:
        if isinstance(logger, TensorBoard):
            logger.show_result(run, scores)
        logger.save()
        if callable(end := getattr(getattr(logger, "experiment", None), "finish", None)):  # Weights & Biases'
            end()


def _class_names(run: Mapping[str, Any]) -> dict[str, str]:
    return {group: name.rpartition(".")[2] for group, name in run["classes"].items() if "." not in group}


class MetricsCSV(Logger):
    """The log as `metrics.csv` in the run's folder; rows from `purge_step` on that are there already are dropped.

    Lightning's CSVLogger would delete the file that it finds.
    """

    name = version = ""

    def __init__(self, save_dir: str, purge_step: int | None = None):
        super().__init__()
        self.path = Path(save_dir) / "metrics.csv"
        self.columns: list[str] = []
        self.purge_step: float = purge_step or 0

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """Not here: they are in config.yaml beside the log."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        row = {"step": step, **{key: float(value) for key, value in metrics.items()}}
        if row.keys() <= set(self.columns):
            with open(self.path, "a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, self.columns).writerow(row)
        else:
            self.columns = write_csv(self.path, [*(self._read() if self.purge_step else []), row])
            self.purge_step = math.inf  # all rows that are there now are of this run

    def _read(self) -> list[dict[str, Any]]:
        """The rows that are there, but for those to drop; a file that is no CSV is kept under another name."""
        if not self.path.exists():
            return []
        try:
            rows = read_csv(self.path)
        except (UnicodeDecodeError, csv.Error):
            aside = self.path.with_name("metrics.damaged.csv")
            print(f"{self.path}: damaged, kept as {aside.name}; the log goes on from here", flush=True)
            self.path.rename(aside)
            return []
        known = [row for row in rows if (row.get("step") or "").isdecimal() and None not in row]
        return [row for row in known if int(row["step"]) < self.purge_step]


class TensorBoard(TensorBoardLogger):
    """Lightning's TensorBoard log below the run's folder, in one named by the settings that were typed.

    TensorBoard opens on the first group of names: so "val/psnr" is called "psnr/val", above "train". What is but one
    dot, as Lightning's epoch counter and the figures of the test, is no curve; the latter are under hparams.
    """

    def __init__(self, save_dir: str, purge_step: int | None = None):
        super().__init__(save_dir, name="", version="", default_hp_metric=False, purge_step=purge_step or None)
        self.folder = Path(save_dir)

    @property
    def log_dir(self) -> str:
        return str(self.folder)

    def begin(self, overrides: Sequence[str]) -> None:
        """Name the run by what it does not share with its sweep; a resumed one goes on where it was."""
        sweep = self.folder.parent / "multirun.yaml"  # by Hydra's sweeper
        shared = OmegaConf.load(sweep).hydra.overrides.task if sweep.is_file() else []
        typed = [word.lstrip("+~") for word in overrides if word not in shared]
        self.typed = dict(word.partition("=")[::2] for word in typed if not word.startswith(_PLACES))
        name = ",".join(f"{key.rpartition('.')[2]}={value}" for key, value in self.typed.items())
        there = next(self.folder.rglob("events.out.tfevents.*"), None)
        self.folder = there.parent if there else self.folder / re.sub(r"[^\w=.,+-]", "_", name)[:100]

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        names = {"val/psnr": _PSNR, "val/psnr_bicubic": f"{_PSNR}_bicubic"}
        kept = {names.get(k, k): v for k, v in metrics.items() if k not in ("epoch", _PSNR) and k[:5] != "test/"}
        super().log_metrics(kept, step)

    def save(self) -> None:
        """Flush; without the hyper-parameters as a file, as config.yaml is beside the log."""
        self.experiment.flush()

    @rank_zero_only
    def show_result(self, run: Mapping[str, Any], scores: Scores) -> None:
        """Settings and results, which the hparams tab sorts by; the results as parameters, so that they draw no dot."""
        known = {**_class_names(run), **run["values"]}
        results = {"best_val": run["val_psnr"], **{name: mean.psnr for name, mean in means(scores).items()}}
        params = dict.fromkeys(_HPARAMS) | self.typed
        params = {key: known.get(key, text) for key, text in params.items()} | results
        self.log_hyperparams({key: value for key, value in params.items() if value is not None}, {_PSNR: 0.0})


class Crops(L.Callback):
    """For TensorBoard at every validation: crops at fixed places, and the filters of the first layer.

    images  how many validation images, the first of them; of each the square on which bicubic does worst
    side    of the square, in HR pixels
    """

    def __init__(self, images: int = 3, side: int = 48):
        check_range("images", images, 0)
        check_range("side", side, 24)
        self.images, self.side = images, side
        self.crops: list[Sample] = []

    def on_validation_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        # Before the first image, as an averaging callback has its weights in place by then.
        boards = [logger for logger in trainer.loggers if isinstance(logger, TensorBoard)]
        if batch_idx or trainer.sanity_checking or not boards or not trainer.is_global_zero or not self.images:
            return
        net: Any = pl_module.net
        if not self.crops:
            samples: list[Sample] = trainer.datamodule.validation  # type: ignore[attr-defined]
            self.crops = [hardest_crop(sample, net.scale, self.side) for sample in samples[: self.images]]
        step = trainer.global_step - 1  # the one that the PSNR is logged at
        with torch.autocast(pl_module.device.type, enabled=False):
            for crop in self.crops:  # an image each, or TensorBoard shows them too small to read
                boards[0].experiment.add_image(f"val/{crop.name}", panels_of(crop, net), step, dataformats="HWC")
        if (filters := first_filters(net)) is not None:
            boards[0].experiment.add_images("weights/first_layer", filters, step)  # as a grid


def panels_of(crop: Sample, net: Network) -> np.ndarray:
    """Bicubic, network and ground truth beside each other, every pixel a square: uint8 [H, W, 3].

    TensorBoard shows an image 350 pixels wide, by nearest neighbour: a wider one's captions would lose lines.
    """
    zoom = max(1, 108 // crop.hr.shape[-1])
    lr, hr = lr_and_hr(crop, net.scale)
    sr = super_resolve(net, lr.to(next(net.parameters()).device)).cpu().clamp(0, 1)
    panels = {"bicubic": bicubic_up(lr, net.scale).clamp(0, 1), type(net).__name__: sr, "ground truth": hr}
    errors = [float((rgb_to_y(quantize(panel)) - rgb_to_y(hr)).square().mean()) for panel in panels.values()]
    decibels = [f" {-10 * math.log10(error):.2f}" if error else "" for error in errors]
    captions = [name + text for name, text in zip(panels, decibels, strict=True)]
    return np.asarray(sheet([(captions, magnified([*panels.values()], zoom))]))


def hardest_crop(sample: Sample, scale: int, side: int) -> Sample:
    """The square of an image on which bicubic does worst, as an image of its own."""
    lr, hr = lr_and_hr(sample, scale)
    side = min(side // scale * scale, *hr.shape[-2:])
    wrong = (bicubic_up(lr, scale).clamp(0, 1) - hr).square().mean(1, keepdim=True)
    sums = F.avg_pool2d(wrong, side, stride=scale)
    top, left = (place * scale for place in divmod(int(sums.argmax()), sums.shape[-1]))
    small = lr[0, :, top // scale : (top + side) // scale, left // scale : (left + side) // scale]
    return sample._replace(hr=sample.hr[:, top : top + side, left : left + side], lr=to_uint8(small))


def first_filters(net: nn.Module, zoom: int = 4) -> Tensor | None:
    """The first convolution's filters, gray where a weight is 0; None if it sees no colours.

    Returns uint8 [N, 3, H, W]. Each filter is scaled to its own largest weight.
    """
    weight = next((m.weight for m in net.modules() if isinstance(m, nn.Conv2d)), None)
    if weight is None or weight.shape[1] not in (1, 3):
        return None
    filters = weight.detach().float().cpu()
    filters = filters / filters.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-12) / 2 + 0.5
    tiles = to_uint8(filters).expand(-1, 3, -1, -1).repeat_interleave(zoom, 2).repeat_interleave(zoom, 3)
    return F.pad(tiles, (2, 2, 2, 2), value=255)
