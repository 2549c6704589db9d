"""The LightningModule: how a network is trained, validated and tested."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Self

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.optim.lr_scheduler import CyclicLR, LambdaLR, OneCycleLR, ReduceLROnPlateau

from srcnn.checkpoint import check_fit, is_plain, load_network
from srcnn.data.graphics import largest_value
from srcnn.errors import UserError, check_choice
from srcnn.image import as_float, quantize, rgb_to_y, shave
from srcnn.metrics import PSNR, Score, find_protocol, mean_score
from srcnn.nets import Network

_OF_THE_STEP = (LambdaLR, OneCycleLR, CyclicLR)  # whose rate depends on nothing but the step


class SuperResolution(L.LightningModule):
    """Trains `net` on batches of (lr, hr) by `loss`; scores it on whole images by `protocol`, beside bicubic.

    A batch is LR [N, C, h, w] and HR [N, C, scale*h, scale*w], aligned, float in [0, 1] or uint8, of any DataLoader.

    optimizer  makes an optimiser of parameters or, where its first argument is called `module`, of a module
    schedule   the learning rate over the run: a function of (steps done, steps in all) that gives a factor, as
               `srcnn.optim.Schedule`; or makes a scheduler of torch.optim.lr_scheduler of an optimiser
    interval   what the schedule counts: "step" or "epoch"
    monitor    what ReduceLROnPlateau looks at, the higher the better
    run        plain data that checkpoints record of the run
    """

    def __init__(
        self,
        net: Network,
        loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        optimizer: Callable[..., torch.optim.Optimizer] = partial(torch.optim.Adam, lr=1e-4),  # noqa: B008
        schedule: Callable[..., Any] | None = None,
        interval: str = "step",
        monitor: str = "val/psnr",
        protocol: str = "authors",
        run: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        check_choice("scheduler.interval", interval, ("step", "epoch"))
        if not isinstance(net, Network):
            raise UserError(f"{type(net).__name__} is not a srcnn.nets.Network; compile the module, not its network")
        if schedule is not None and not callable(schedule):
            raise UserError(f"schedule={schedule}: is no function; for no schedule add ~scheduler.schedule")
        if not is_plain(net.arguments):
            raise UserError(f"{net.arguments}: arguments of a network are numbers and strings, see srcnn.check")
        # As the patches come, so that no convolution has to reorder.
        self.net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.loss, self.protocol = loss or nn.MSELoss(), find_protocol(protocol)
        self.optimizer, self.schedule, self.interval, self.monitor = optimizer, schedule, interval, monitor
        self.run = dict(run or {})
        self.val_psnr, self.bicubic_psnr = PSNR(self.protocol, net.scale), PSNR(self.protocol, net.scale)
        self.scores: list[tuple[str, str, Score]] = []  # of the last test: set, image, score
        self.steps = 0  # of the training that the module has been through
        self._rng_state: Tensor | None = None
        self._has_new_schedule = False  # another than the checkpoint's
        known = {"network": type(net).__name__, "arguments": net.arguments, "interval": interval}
        known |= {"monitor": monitor, "protocol": protocol, "loss": _described(self.loss)}
        known |= {"optimizer": _described(optimizer), "schedule": _described(schedule)}
        self.save_hyperparameters({**known, **self.run}, logger=False)

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls, checkpoint_path: Any, map_location: Any = None, hparams_file: None = None, strict: bool | None = None,
        weights_only: bool | None = None, **options: Any,
    ) -> Self:  # fmt: skip
        """The module of a checkpoint, its network built by class name and arguments, without running code from it.

        strict   refuse weights that are missing or left over; None warns of those that are missing
        options  of the constructor, before those that a subclass has saved: loss, optimizer and schedule, which are
                 not plain data, are not taken from the file
        """
        net, checkpoint = load_network(checkpoint_path)
        saved = checkpoint.get("hyper_parameters", {})
        parameters = inspect.signature(cls).parameters
        taken = {*parameters} - {"net", "loss", "optimizer", "schedule", "run"}
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            taken |= {"protocol", "interval", "monitor"}
        own = saved.keys() & taken
        module = cls(**{"net": net, **{key: saved[key] for key in own}, **options})
        found = module.load_state_dict(checkpoint["state_dict"], bool(strict))  # also a loss's parameters
        if found.missing_keys:
            rank_zero_warn(f"{checkpoint_path} has no weights of {', '.join(found.missing_keys)}")
        is_device = isinstance(map_location, str | int | torch.device)  # or a function or a dictionary: on the CPU
        return module.to(map_location if is_device else "cpu").eval()

    def forward(self, lr: Tensor) -> Tensor:
        return self.net(lr)

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        lr, hr = self._pair(batch)
        sr = self.net.valid(lr)
        loss = self.loss(sr.to(hr.dtype), shave(hr, (hr.shape[-1] - sr.shape[-1]) // 2))
        trainer: Any = self.trainer
        step, every = trainer.global_step + 1, trainer.log_every_n_steps
        is_last = trainer.is_last_batch and trainer.world_size == 1  # of several it costs a wait for the others
        # Not at every step: self.log takes a tenth of a small step's time.
        if every and (step % every == 0 or step == trainer.max_steps or is_last):
            self.log("train/loss", loss, prog_bar=True, sync_dist=trainer.world_size > 1)
            self.log("train/lr", trainer.optimizers[0].param_groups[0]["lr"])
        return loss

    def _pair(self, batch: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """LR and HR in [0, 1], with as many channels as the network has."""
        lr, hr = (as_float(images).to(self.dtype) for images in batch[:2])
        if any(hr.shape[dim] != self.net.scale * lr.shape[dim] for dim in (-2, -1)):
            raise ValueError(f"lr is {list(lr.shape)} and hr {list(hr.shape)}, not {self.net.scale} times as large")
        if self.net.channels == 1 and lr.shape[1] == 3:
            return rgb_to_y(lr), quantize(rgb_to_y(hr))
        return lr.expand(-1, self.net.channels, -1, -1), hr.expand(-1, self.net.channels, -1, -1)

    def validation_step(self, batch: Sequence[Tensor], batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Returns "lr", "sr" and "hr", float in [0, 1]: of luma where that is what the network has worked on."""
        lr, hr = batch[:2]
        # In full precision, whatever the training's: rounding to bf16 would cost decibels.
        with torch.autocast(self.device.type, enabled=False):
            given = self.protocol.network_input(lr, hr, self.net.channels).to(self.dtype)
            sr = self.net.upscale(given)
        self.val_psnr.update(sr, hr)
        self.bicubic_psnr.update(self.protocol.bicubic(lr, hr), hr)
        hr = as_float(hr)
        return {"lr": given, "sr": sr, "hr": rgb_to_y(hr) if sr.shape[1] < hr.shape[1] else hr}

    def on_validation_epoch_start(self) -> None:
        with torch.autocast(self.device.type, enabled=False):  # of the averaged weights, if there are
            largest = largest_value(self.net)
        if largest > 3:  # sound networks stay below, see `largest_value`
            found = f"values up to {largest:.3g} on generated graphics"
            rank_zero_warn(f"{found}: the network explodes outside photographs")

    def on_validation_epoch_end(self) -> None:
        if not self.val_psnr.update_called:  # a subclass's validation_step has figures of its own
            return
        self.log("val/psnr", self.val_psnr, prog_bar=True)
        self.log("val/psnr_bicubic", self.bicubic_psnr)
        if left_out := int(self.val_psnr.left_out):
            rank_zero_warn(f"Left out of val/psnr, as they are exact or of one colour: {left_out} images")

    def on_test_start(self) -> None:
        self.scores = []

    def test_step(self, batch: Sequence[Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        lrs, hrs, *names = batch
        for lr, hr in zip(lrs.split(1), hrs.split(1), strict=True):
            with torch.autocast(self.device.type, enabled=False):
                score = self.protocol.evaluate(self.net.upscale, lr, hr, self.net.channels)
            is_named = len(names) == 2 and isinstance(names[0], str)  # a `srcnn.data.samples.Sample`
            name, image_set = names if is_named else (f"image{len(self.scores)}", "test")
            self.scores.append((image_set, name, score))

    def predict_step(self, batch: Tensor | Sequence[Tensor], batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """SR in [0, 1] of LR images, RGB or gray, or of a batch that begins with them."""
        lr = batch if isinstance(batch, Tensor) else batch[0]
        return self.net.upscale(as_float(lr).to(self.dtype)).clamp(0, 1)

    def on_test_epoch_end(self) -> None:
        for name in dict.fromkeys(image_set for image_set, _, _ in self.scores):
            mean = mean_score([score for image_set, _, score in self.scores if image_set == name])
            figures = {f"test/{name}/psnr": mean.psnr, f"test/{name}/ssim": mean.ssim, "step": float(self.steps)}
            self.log_dict(figures, rank_zero_only=True)

    def configure_optimizers(self) -> Any:
        trained = nn.ModuleList(part for part in (self.net, self.loss) if isinstance(part, nn.Module))
        takes_module = "module" in inspect.signature(self.optimizer).parameters
        optimizer = self.optimizer(trained if takes_module else trained.parameters())
        optimizer.register_load_state_dict_pre_hook(_keep_options)
        if (schedule := self.schedule) is None:
            return optimizer
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]  # as all schedulers of torch note it, but for ReduceLROnPlateau
        steps: float = self.trainer.estimated_stepping_batches
        kind: Any = getattr(schedule, "func", schedule)
        interval = {OneCycleLR: "step", ReduceLROnPlateau: "epoch"}.get(kind, self.interval)
        if "optimizer" in inspect.signature(schedule).parameters:  # one of torch's
            options: dict[Any, dict[str, Any]] = {
                OneCycleLR: {"total_steps": steps},
                ReduceLROnPlateau: {"mode": "max"},
            }
            scheduler = schedule(optimizer, **(options.get(kind, {}) | getattr(schedule, "keywords", {})))
        else:
            total = math.inf if steps < 0 else steps  # -1: of data without a length
            per_unit = steps_per_epoch if interval == "epoch" else lambda trainer: 1
            scheduler = LambdaLR(optimizer, lambda done: schedule(done, max(1, total / per_unit(self.trainer))))
        return [optimizer], [{"scheduler": scheduler, "interval": interval, "monitor": self.monitor}]

    def on_train_start(self) -> None:
        """After Lightning has restored a checkpoint: the rate is what this command's schedule has at that step."""
        if self._rng_state is None:  # nothing was restored
            return
        torch.set_rng_state(self._rng_state)
        self._rng_state = None
        trainer = self.trainer
        for config in trainer.lr_scheduler_configs:
            scheduler: Any = config.scheduler
            if self._has_new_schedule:
                scheduler.last_epoch = trainer.global_step if config.interval == "step" else trainer.current_epoch
            has_closed_form = self._has_new_schedule and hasattr(scheduler, "_get_closed_form_lr")
            if has_closed_form or isinstance(scheduler, _OF_THE_STEP):
                scheduler._update_lr(scheduler.last_epoch)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.trainer.global_step == self.trainer.max_steps:
            self.trainer.should_stop = True  # so that Lightning validates before it stops, also within an epoch

    def on_train_end(self) -> None:
        # A BatchSizeFinder trains before the run, with max_steps of its own.
        self.trainer.should_stop &= self.trainer.global_step != self.trainer.max_steps

    def on_fit_end(self) -> None:
        self.steps = self.trainer.global_step
        self.net.to(memory_format=torch.contiguous_format)  # as a file is loaded: else last bits of results differ

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["network"], checkpoint["arguments"] = type(self.net).__name__, self.net.arguments
        checkpoint["run"] = self.run
        # Plain data alone, whatever a subclass has saved: nothing else is read from a file.
        checkpoint["hyper_parameters"] = {k: v if is_plain(v) else _described(v) for k, v in self.hparams.items()}
        checkpoint["rng_state"] = torch.get_rng_state()  # of dropout and the like: the patches need none
        trainer: Any = self.trainer
        loops, fit_loop = checkpoint["loops"]["fit_loop"], trainer.fit_loop
        batches, validated = (loops[f"epoch_loop.{loop}batch_progress"] for loop in ("", "val_loop."))
        is_step_over = batches["current"]["completed"] == batches["current"]["processed"]
        has_begun = trainer.validating and validated["current"]["completed"] < sum(trainer.num_val_batches)
        if has_begun or (not is_step_over and fit_loop.epoch_loop._should_check_val_fx(fit_loop._data_fetcher)):
            # Within a validation, or before one: it has to be made anew, where Lightning would skip it, or its first
            # images. As it writes what has stopped within the first of them.
            for counter in ("total", "current"):
                batches[counter]["completed"] = batches[counter]["processed"]
                validated[counter] |= {"ready": 1, "started": 1, "processed": 0, "completed": 0}
        if batches["current"]["ready"] < trainer.num_training_batches:
            for counter in ("total", "current"):  # an epoch that `max_steps` has cut short goes on when resumed
                loops["epoch_progress"][counter]["processed"] = loops["epoch_progress"][counter]["completed"]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.trainer.state.fn != "fit":  # to validate, test or predict the weights alone are taken
            return
        path = self.trainer.ckpt_path or "the checkpoint"
        check_fit(path, self.net, checkpoint)
        saved = checkpoint.get("hyper_parameters", {})
        made_by = saved.get("optimizer"), _described(self.optimizer)
        was, now = (made["_target_"] if isinstance(made, dict) else made for made in made_by)
        if was not in (None, now):
            raise UserError(f"{path}: its optimiser is {was}, not {now}; start from its weights with init_from=")
        was_scheduled, kind = (saved.get("schedule"), saved.get("interval")), getattr(self.schedule, "func", None)
        self._has_new_schedule = was_scheduled != (_described(self.schedule), self.interval) or kind is OneCycleLR
        if self._has_new_schedule:  # or its steps depend on the run's length
            checkpoint["lr_schedulers"] = []
        for state in checkpoint["lr_schedulers"]:
            state.pop("base_lrs", None)
        self._rng_state = checkpoint.get("rng_state")


def _keep_options(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """When a checkpoint is loaded: the options of this command win; the rate keeps its share of the initial one."""
    for now, was in zip(optimizer.param_groups, state["param_groups"], strict=False):
        is_scheduled = "initial_lr" in now and was.get("initial_lr")
        rate = was["lr"] * (now["initial_lr"] / was["initial_lr"]) if is_scheduled else now["lr"]
        was |= {**now, "params": was["params"], "lr": rate}


def steps_per_epoch(trainer: L.Trainer) -> float:
    """Of the optimiser; infinite for data without a length."""
    batches = trainer.num_training_batches / trainer.accumulate_grad_batches
    return max(1, math.ceil(batches)) if batches < math.inf else math.inf


def _described(value: Any) -> Any:
    """What an object was made of, as plain data: the name of a class or function, and a partial's arguments."""
    if value is None:
        return None
    if isinstance(value, partial):
        options = {key: option if is_plain(option) else _described(option) for key, option in value.keywords.items()}
        return {"_target_": _described(value.func), **options}
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"
