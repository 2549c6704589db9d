"""What TensorBoard shows of a run: curves, validation crops, first-layer filters, hparams and the test's table."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from srcnn.data.datamodule import Sample
from srcnn.files import to_pillow
from srcnn.image import bicubic_down, bicubic_up, modcrop, quantize, rgb_to_y, to_uint8
from srcnn.nets import Network
from srcnn.report import Scores, means
from srcnn.upscale import lr_radius, super_resolve

# What the hparams tab has a column for in every run, beside what the command line sets; few, as it shows five at first.
HPARAMS = ("model", "optim", "optim.lr", "data.batch_size")
_ELSEWHERE = ("experiment", "hydra", "logger", "resume", "init_from", "data.root", "data.train_dir", "data.test")


class Board(TensorBoardLogger):
    """Lightning's TensorBoard log in the run's folder, bicubic's PSNR a line of its own in the network's chart.

    The line is a run of its own, in the folder `bicubic`. What TensorBoard shows unasked is the first two groups of
    names and, of the hparams, the first figure: so "val/psnr" is called "psnr/val", above "train", and Lightning's
    epoch counter is left out.
    """

    def __init__(self, save_dir: str, purge_step: int | None = None):
        super().__init__(save_dir, name="", version="", default_hp_metric=False, purge_step=purge_step)
        self._bicubic: SummaryWriter | None = None
        self._purge_step = purge_step

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        kept = {name: value for name, value in metrics.items() if name not in ("epoch", "val/psnr_bicubic")}
        if "val/psnr" in kept:
            kept["psnr/val"] = kept.pop("val/psnr")
        super().log_metrics(kept, step)
        if "val/psnr_bicubic" in metrics:
            if self._bicubic is None:
                self._bicubic = SummaryWriter(str(Path(self.log_dir) / "bicubic"), purge_step=self._purge_step)
            self._bicubic.add_scalar("psnr/val", metrics["val/psnr_bicubic"], step)
            self._bicubic.flush()

    def save(self) -> None:
        """Flush; without the hyper-parameters as a file, as Hydra has written the whole config beside the log."""
        super(TensorBoardLogger, self).save()

    @rank_zero_only
    def begin(self, settings: Mapping[str, Any], overrides: Sequence[str]) -> None:
        """Enter the run in the hparams tab, where its figures appear as they come."""
        known = settings["choices"] | settings["values"]
        keys = [override.lstrip("+~").partition("=")[0] for override in overrides]
        keys = [*HPARAMS, *(key for key in keys if not key.startswith(_ELSEWHERE))]
        shown = {key: known[key] for key in keys if known.get(key) is not None}
        shown = {key: v if isinstance(v, bool | int | float | str) else str(v) for key, v in shown.items()}
        # Only the start of a session: TensorBoard then finds out by itself what columns all runs have between them,
        # where a declared experiment would be that of the first run alone, and figures would need a point at step 0.
        self.experiment._get_file_writer().add_summary(hparams(shown, {})[1])

    @rank_zero_only
    def end(self, figures: Mapping[str, float | None], scores: Scores, protocol: str, step: int) -> None:
        """What the hparams tab sorts by, and the test's table as text."""
        super().log_metrics({name: value for name, value in figures.items() if value is not None}, step)
        self.experiment.add_text("test/scores", _markdown(scores, protocol), step)
        self.experiment._get_file_writer().add_summary(hparams({}, {})[2])
        self.experiment.flush()


def _markdown(scores: Scores, protocol: str) -> str:
    lines = [
        f"On luma, protocol {protocol}",
        "",
        "| set | image | bicubic, dB | network, dB | gain | bicubic, SSIM | network, SSIM |",
        "|---" * 7 + "|",
    ]
    for name, mean in means(scores).items():
        rows = [(image, score) for image_set, image, score in scores if image_set == name]
        for image, s in [*rows, ("**mean**", mean)]:
            figures = f"{s.bicubic_psnr:.2f} | {s.psnr:.2f} | {s.gain:+.2f} | {s.bicubic_ssim:.4f} | {s.ssim:.4f}"
            lines.append(f"| {name} | {image} | {figures} |")
    return "\n".join(lines)


class Place(NamedTuple):
    """A square of a validation image: the LR around it as far as the network looks, and what is known beforehand."""

    name: str
    lr: Tensor  # [1, 3, h, w]
    inner: tuple[slice, ...]  # the square within the SR of `lr`
    nearest: Tensor
    bicubic: Tensor
    hr: Tensor


class Pictures(L.Callback):
    """For TensorBoard at every validation: crops at fixed places, and the filters of the first layer.

    images  how many validation images, the first of them; of each the square on which bicubic does worst
    side    of the square, in HR pixels
    """

    zoom, gap, caption, error_gain = 2, 6, 20, 5  # a card of TensorBoard's is small: so are the pictures

    def __init__(self, images: int = 3, side: int = 48):
        self.images, self.side = images, side
        self.places: list[Place] = []

    def on_validation_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        # Before the first image, as an averaging callback has its weights in place by then.
        boards = [logger for logger in trainer.loggers if isinstance(logger, Board)]
        if batch_idx or trainer.sanity_checking or not boards or not trainer.is_global_zero:
            return
        net: Any = pl_module.net
        if not self.places:
            samples: list[Sample] = trainer.datamodule.validation  # type: ignore[attr-defined]
            self.places = [_place(sample, net, self.side) for sample in samples[: self.images]]
        step = trainer.fit_loop.epoch_loop._batches_that_stepped  # the step of the PSNR
        with torch.autocast(pl_module.device.type, enabled=False):
            boards[0].experiment.add_image("val/crops", self._crops(net, pl_module.device), step, dataformats="HWC")
        if (filters := first_filters(net)) is not None:
            boards[0].experiment.add_image("weights/first_layer", filters, step, dataformats="HWC")

    def _crops(self, net: Network, device: torch.device) -> np.ndarray:
        """A row a place: LR, bicubic, network, ground truth and the network's error."""
        width = self.side * self.zoom + self.gap
        height = self.side * self.zoom + self.caption + self.gap
        page = Image.new("RGB", (5 * width + self.gap, self.caption + len(self.places) * height), "white")
        draw, font, name = ImageDraw.Draw(page), ImageFont.load_default(14), type(net).__name__
        titles = ("LR", "bicubic", name, "ground truth", f"error x{self.error_gain}")
        for column, title in enumerate(titles):
            draw.text((self.gap + column * width, 4), title, "black", font)
        for row, place in enumerate(self.places):
            sr = super_resolve(net, place.lr.to(device))[place.inner].cpu().clamp(0, 1)
            errors = [rgb_to_y(quantize(image)) - rgb_to_y(place.hr) for image in (place.bicubic, sr)]
            decibels = [-10 * math.log10(max(float(error.square().mean()), 1e-10)) for error in errors]
            wrong = (errors[1].abs() * self.error_gain).expand(-1, 3, -1, -1)
            top = self.caption + row * height
            for column, image in enumerate((place.nearest, place.bicubic, sr, place.hr, wrong)):
                crop = to_pillow(image[0])
                crop = crop.resize((crop.width * self.zoom, crop.height * self.zoom), Image.Resampling.NEAREST)
                page.paste(crop, (self.gap + column * width, top))
            labels = (place.name[:12], f"{decibels[0]:.2f} dB", f"{decibels[1]:.2f} dB")
            for column, text in enumerate(labels):
                draw.text((self.gap + column * width, top + self.side * self.zoom + 2), text, "black", font)
        return np.asarray(page)


def _place(sample: Sample, net: Network, side: int) -> Place:
    """The square of an image on which bicubic does worst, on the grid of LR pixels."""
    scale = net.scale
    hr = modcrop(sample.hr[None].float() / 255, scale).expand(-1, 3, -1, -1)
    lr = quantize(bicubic_down(hr, scale))
    bicubic = bicubic_up(lr, scale).clamp(0, 1)
    least = min(side // scale, *lr.shape[-2:])  # LR pixels
    wrong = F.avg_pool2d((bicubic - hr).square().mean(1, keepdim=True), least * scale, stride=scale)
    top, left = divmod(int(wrong.argmax()), wrong.shape[-1])
    margin = lr_radius(net)
    seen = [slice(max(0, start - margin), start + least + margin) for start in (top, left)]
    rest = (slice(None), slice(None))
    inner = [
        slice((start - part.start) * scale, (start - part.start + least) * scale)
        for start, part in zip((top, left), seen, strict=True)
    ]
    square = (*rest, *(slice(s * scale, (s + least) * scale) for s in (top, left)))
    nearest = F.interpolate(lr, scale_factor=scale, mode="nearest")
    return Place(sample.name, lr[(*rest, *seen)], (*rest, *inner), nearest[square], bicubic[square], hr[square])


def first_filters(net: nn.Module, zoom: int = 4) -> np.ndarray | None:
    """The first convolution's filters as a grid of pictures, gray where a weight is 0; None if it sees no colours.

    Returns uint8 [H, W, 3]. Each filter is scaled to its own largest weight.
    """
    weight = next((m.weight for m in net.modules() if isinstance(m, nn.Conv2d)), None)
    if weight is None or weight.shape[1] not in (1, 3):
        return None
    filters = weight.detach().float().cpu()
    filters = filters / filters.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-12) / 2 + 0.5
    tiles = to_uint8(filters).expand(-1, 3, -1, -1).repeat_interleave(zoom, 2).repeat_interleave(zoom, 3)
    tiles = F.pad(tiles, (2, 2, 2, 2), value=255)
    columns = math.ceil(math.sqrt(len(tiles)))
    rows = math.ceil(len(tiles) / columns)
    grid = tiles.new_full((rows * columns, *tiles.shape[1:]), 255)
    grid[: len(tiles)] = tiles
    grid = grid.view(rows, columns, *tiles.shape[1:]).permute(0, 3, 1, 4, 2)
    return grid.reshape(rows * tiles.shape[2], columns * tiles.shape[3], 3).numpy()
