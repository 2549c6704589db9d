"""The LightningModule: how a network is trained, validated and tested."""

from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MeanMetric

from srcnn.data.datamodule import Sample
from srcnn.errors import check_choice
from srcnn.image import shave
from srcnn.metrics import Protocol, Score, mean_score
from srcnn.nets import Network


class SuperResolution(L.LightningModule):
    """Trains `net` on patches by `loss`, scores it on whole images by `protocol`.

    schedule   the learning rate as a factor of the optimiser's own, a function of (steps done, steps of the run) as
               `srcnn.optim.Schedule`; or a scheduler of torch; or None for a constant one
    interval   "step" or "epoch": what the schedule counts
    arguments  of the network's constructor
    run        what checkpoints record of the run (see `srcnn.run.options.describe`)
    """

    def __init__(
        self,
        net: Network,
        protocol: Protocol,
        loss: nn.Module,
        optimizer: torch.optim.Optimizer,
        schedule: Callable[[int, float], float] | LRScheduler | None = None,
        interval: str = "step",
        arguments: dict[str, Any] | None = None,
        run: dict[str, Any] | None = None,
    ):
        super().__init__()
        check_choice("scheduler.interval", interval, ("step", "epoch"))
        for parameter in net.parameters():
            if parameter.ndim == 4:  # as the patches come, so that no convolution has to reorder
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        self.net, self.protocol, self.loss = net, protocol, loss
        self.optimizer, self.schedule, self.interval = optimizer, schedule, interval
        self.arguments, self.run = arguments, run
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        self._options = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
        self.val_psnr = MeanMetric()
        self.bicubic_psnr = MeanMetric()
        self.scores: list[tuple[str, str, Score]] = []  # of the last test: set, image, score
        self._rng_state: Tensor | None = None
        self._validated = -1  # the step after which it was

    def forward(self, lr: Tensor) -> Tensor:
        return self.net(lr)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, hr = batch
        loss = self.loss(self.net.body_of_crop(x).to(hr.dtype), shave(hr, self.net.train_border))
        trainer: Any = self.trainer
        if (trainer.global_step + 1) % trainer.log_every_n_steps == 0:  # each takes a tenth of a small step
            self.log("train/loss", loss, prog_bar=True, sync_dist=trainer.world_size > 1)
            self.log("train/lr", trainer.optimizers[0].param_groups[0]["lr"])
        return loss

    def validation_step(self, sample: Sample, batch_idx: int) -> None:
        score = self._score(sample, with_ssim=False)
        self.val_psnr.update(score.psnr)
        self.bicubic_psnr.update(score.bicubic_psnr)

    def on_validation_epoch_end(self) -> None:
        self.log("val/psnr", self.val_psnr, prog_bar=True)
        self.log("val/psnr_bicubic", self.bicubic_psnr)
        self._validated = self.trainer.global_step

    def on_test_start(self) -> None:
        self.scores = []
        for parameter in self.net.parameters():  # as a file is loaded: else last bits differ on some processors
            parameter.data = parameter.data.contiguous()

    def test_step(self, sample: Sample, batch_idx: int) -> None:
        self.scores.append((sample.image_set, sample.name, self._score(sample, with_ssim=True)))

    def on_test_epoch_end(self) -> None:
        for name in dict.fromkeys(image_set for image_set, _, _ in self.scores):
            mean = mean_score([score for image_set, _, score in self.scores if image_set == name])
            self.log_dict({f"test/{name}/psnr": mean.psnr, f"test/{name}/ssim": mean.ssim}, rank_zero_only=True)

    def _score(self, sample: Sample, with_ssim: bool) -> Score:
        # In full precision, whatever the training's: rounding to bf16 would cost decibels.
        with torch.autocast(self.device.type, enabled=False):
            hr, lr = sample.tensors(self.device)
            return self.protocol.score(self.net, hr, with_ssim, lr)

    def configure_optimizers(self) -> Any:
        if isinstance(self.schedule, LRScheduler):
            return [self.optimizer], [{"scheduler": self.schedule, "interval": self.interval}]
        return self.optimizer

    def on_fit_start(self) -> None:
        """Hide `max_steps` where Lightning restores its state: it would end the epoch that was over a second time."""
        loop = self.trainer.fit_loop.epoch_loop
        self._max_steps, loop.max_steps = loop.max_steps, -1

    def on_train_start(self) -> None:
        """Give a resumed run the options that it was asked for, where Lightning has just restored the saved ones."""
        if self._rng_state is not None:
            torch.set_rng_state(self._rng_state)
        self.trainer.fit_loop.epoch_loop.max_steps = self._max_steps
        if isinstance(self.schedule, LRScheduler):
            return  # its state and the optimiser's belong together
        for group, options in zip(self.trainer.optimizers[0].param_groups, self._options, strict=True):
            group.update(options)
        self._steps = self.trainer.estimated_stepping_batches
        self._set_rate()

    def on_train_epoch_start(self) -> None:
        self._set_rate()

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._set_rate()

    def _set_rate(self) -> None:
        """The learning rate of the next step, from how far the run has come."""
        if self.schedule is None or isinstance(self.schedule, LRScheduler):
            return
        if self.interval == "step":
            factor = self.schedule(self.trainer.global_step, self._steps)
        else:
            factor = self.schedule(self.trainer.current_epoch, self.trainer.max_epochs or 1)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = group["initial_lr"] * factor

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        for logger in self.trainer.loggers:  # so that a kill loses no row of a step that the checkpoint has done
            logger.save()
        checkpoint["rng_state"] = torch.get_rng_state()  # of dropout and the like: the patches need none
        loops = checkpoint["loops"]["fit_loop"]
        batches, epochs = loops["epoch_loop.batch_progress"], loops["epoch_progress"]
        if batches["current"]["ready"] > batches["current"]["started"]:  # a batch is at hand, and still to be done
            for counter in ("total", "current"):
                batches[counter]["ready"] = batches[counter]["started"]
            batches["is_last_batch"] = False
            if self._validated == self.trainer.global_step:  # Lightning will count the step before it again
                loops["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1
        if batches["current"]["ready"] < self.trainer.num_training_batches:
            for counter in ("total", "current"):  # an epoch that `max_steps` has cut short is not over
                epochs[counter]["processed"] = epochs[counter]["completed"]
        known = self._validated == self.trainer.global_step  # else the metric is that of former weights
        val_psnr = float(self.trainer.callback_metrics["val/psnr"]) if known else None
        checkpoint["network"], checkpoint["arguments"] = type(self.net).__name__, self.arguments
        checkpoint["run"] = {**(self.run or {}), "val_psnr": val_psnr}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._rng_state = checkpoint.get("rng_state")
