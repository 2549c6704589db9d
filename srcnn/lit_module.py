"""The LightningModule: how a network is trained, validated and tested."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MeanMetric

from srcnn.data.datamodule import Sample
from srcnn.image import shave
from srcnn.metrics import Protocol, Score
from srcnn.nets import Network
from srcnn.optim import make_scheduler

_RATES = ("lr", "initial_lr", "max_lr", "min_lr")  # what torch's schedulers keep in an optimiser's groups


class SuperResolution(L.LightningModule):
    """Trains `net` on patches by `loss`, scores it on whole images by `protocol`.

    optimizer   takes the parameters, gives the optimiser
    scheduler   takes the optimiser (and `total`, the run's length in its interval), gives the schedule; or None
    interval    "step" or "epoch": how often the schedule advances
    settings    of the run, in plain data, for its checkpoints (see `srcnn.checkpoint`)
    """

    def __init__(
        self,
        net: Network,
        protocol: Protocol,
        loss: nn.Module | None = None,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] | None = None,
        scheduler: Callable[..., Any] | None = None,
        interval: str = "step",
        settings: dict[str, Any] | None = None,
    ):
        super().__init__()
        for parameter in net.parameters():
            if parameter.ndim == 4:  # as the patches come, so that no convolution has to reorder
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        self.net = net
        self.protocol, self.loss = protocol, loss
        self.optimizer, self.scheduler, self.interval = optimizer, scheduler, interval
        self.settings = settings
        self.val_psnr = MeanMetric()
        self.bicubic_psnr = MeanMetric()
        self.scores: list[tuple[str, str, Score]] = []  # of the last test: set, image, score
        self._rng_state: Tensor | None = None

    def forward(self, lr: Tensor) -> Tensor:
        return self.net(lr)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        assert self.loss is not None
        x, hr = batch
        # A crop's border has lost its surroundings: neither computed nor counted.
        sr = self.net.body(x, pad=False)
        loss = self.loss(sr.float(), shave(hr, self.net.receptive_radius * self.net.body_scale))
        self.log("train/loss", loss, prog_bar=True, sync_dist=self.trainer.world_size > 1)
        return loss

    def validation_step(self, sample: Sample, batch_idx: int) -> None:
        score = self._score(sample, with_ssim=False)
        self.val_psnr.update(score.psnr)
        self.bicubic_psnr.update(score.bicubic_psnr)

    def on_validation_epoch_end(self) -> None:
        self.log("val/psnr", self.val_psnr, prog_bar=True)
        self.log("val/psnr_bicubic", self.bicubic_psnr)

    def on_test_start(self) -> None:
        self.scores = []

    def test_step(self, sample: Sample, batch_idx: int) -> None:
        self.scores.append((sample.image_set, sample.name, self._score(sample, with_ssim=True)))

    def _score(self, sample: Sample, with_ssim: bool) -> Score:
        # In full precision, whatever the training's: rounding to bf16 would cost decibels.
        with torch.autocast(self.device.type, enabled=False):
            return self.protocol.score(self.net, sample.hr[None].float() / 255, with_ssim)

    def configure_optimizers(self) -> Any:
        assert self.optimizer is not None
        optimizer = self.optimizer(self.net.parameters())
        scheduler = None
        if self.scheduler is not None:
            total: int | float = self.trainer.estimated_stepping_batches
            if self.interval == "epoch":
                total = self.trainer.max_epochs or 1
            scheduler = make_scheduler(self.scheduler, optimizer, total)
        self._options = [{key: group[key] for key in group if key != "params"} for group in optimizer.param_groups]
        self._schedule_options = _constructed_with(scheduler) if scheduler is not None else {}
        if scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": self.interval}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        for logger in self.trainer.loggers:  # so that a kill loses no row of a step that the checkpoint has done
            logger.save()
        checkpoint["rng_state"] = torch.get_rng_state()  # of dropout and the like: the patches need none
        if self.settings is not None:
            val_psnr = self.trainer.callback_metrics.get("val/psnr")
            checkpoint["srcnn"] = {**self.settings, "val_psnr": None if val_psnr is None else float(val_psnr)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._rng_state = checkpoint.get("rng_state")

    def on_train_start(self) -> None:
        """Give a resumed run the options it was asked for: Lightning has just restored the saved ones."""
        if self._rng_state is not None:
            torch.set_rng_state(self._rng_state)
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, torch.optim.Optimizer)
        ratios = []
        for group, asked in zip(optimizer.param_groups, self._options, strict=True):
            # A rate may have moved along its schedule since: what was asked for is where it began.
            ratio = asked.get("initial_lr", asked["lr"]) / (group.get("initial_lr", group["lr"]) or 1)
            ratios.append(ratio)
            if ratio != 1:
                group.update({key: group[key] * ratio for key in _RATES if key in group})
            group.update({key: value for key, value in asked.items() if key not in _RATES})
        scheduler = self.lr_schedulers()
        if scheduler is not None and hasattr(scheduler, "base_lrs"):
            scheduler.base_lrs = [rate * ratio for rate, ratio in zip(scheduler.base_lrs, ratios, strict=True)]
        if scheduler is not None:
            vars(scheduler).update(self._schedule_options)
        if isinstance(scheduler, LambdaLR):  # where another length of the run has changed the schedule
            rates = zip(optimizer.param_groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
            for group, rate, factor in rates:
                group["lr"] = rate * factor(scheduler.last_epoch)


def _constructed_with(scheduler: Any) -> dict[str, Any]:
    """The attributes of a schedule that are its settings, as T_max or gamma: named as what its class is made with."""
    names = inspect.signature(type(scheduler)).parameters.keys() - {"optimizer", "last_epoch"}
    return {name: value for name, value in vars(scheduler).items() if name in names}
