"""What can be known to be wrong with a config before anything is written: ranges, choices, contradictions."""

import math
import os
from pathlib import Path

import lightning as L
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from srcnn.checkpoint import find_checkpoint, load_checkpoint, load_weights, progress
from srcnn.config import made, new_network, plain
from srcnn.data.sets import find_images
from srcnn.errors import UserError
from srcnn.metrics import PROTOCOLS
from srcnn.nets import Network
from srcnn.optim import make_scheduler

_RANGES: dict[str, tuple[float, float]] = {
    "scale": (2, 8), "seed": (0, 2**32 - 1),
    "data.batch_size": (1, math.inf), "data.patch_size": (1, math.inf), "data.stride": (1, math.inf),
    "data.memory": (0, math.inf), "data.leaves.count": (2, 1e6), "data.leaves.size": (24, 8192),
    "loss.rgb": (0, math.inf), "loss.floor": (1e-12, 1),
    "optim.lr": (0, math.inf), "optim.bias_lr": (0, math.inf), "optim.last_layer_lr": (0, math.inf),
    "optim.momentum": (0, 1), "optim.weight_decay": (0, math.inf), "optim.eps": (0, math.inf),
    "optim.whiten": (0, math.inf),
    "scheduler.schedule.warmup": (0, math.inf), "scheduler.schedule.hold": (0, 1),
    "scheduler.schedule.final": (0, 1), "scheduler.schedule.gamma": (0, 1),
    "callbacks.checkpoint.every_n_epochs": (1, math.inf), "callbacks.guard.every_n_steps": (1, math.inf),
    "callbacks.guard.every_n_minutes": (0, math.inf), "callbacks.ema.decay": (0, 1),
    "trainer.devices": (1, math.inf), "trainer.num_nodes": (1, math.inf), "trainer.max_steps": (-1, math.inf),
    "trainer.limit_train_batches": (0, math.inf), "trainer.limit_val_batches": (0, math.inf),
    "trainer.check_val_every_n_epoch": (1, math.inf), "trainer.accumulate_grad_batches": (1, math.inf),
    "trainer.gradient_clip_val": (0, math.inf), "trainer.log_every_n_steps": (1, math.inf),
    "trainer.num_sanity_val_steps": (0, math.inf),
}  # fmt: skip
_CHOICES = {
    "model.channels": (1, 3),
    "model.padding_mode": ("replicate", "zeros", "reflect", "circular"),
    "scheduler.interval": ("step", "epoch"),
    "callbacks.best.mode": ("min", "max"),
    "trainer.deterministic": (False, True, "warn"),
}


def check_train(cfg: DictConfig) -> None:
    """Everything about a training run that can be known to be wrong before it starts."""
    for key, (least, most) in _RANGES.items():
        _range(cfg, key, least, most)
    for key, allowed in _CHOICES.items():
        if (value := OmegaConf.select(cfg, key)) not in (None, *allowed):
            raise UserError(f"{key}={value}: choose {' or '.join(map(str, allowed))}")
    if isinstance(cfg.data.hold_out, int):
        _range(cfg, "data.hold_out", 0)
    if not cfg.data.test:
        raise UserError("data.test=[]: name at least one set or folder to test on")
    if "leaves" in (cfg.data.train, *cfg.data.test) and not cfg.data.leaves:
        raise UserError("images called leaves need their settings: data=leaves")
    if cfg.trainer.max_epochs == 0 or cfg.trainer.max_epochs < -1:
        raise UserError(f"trainer.max_epochs={cfg.trainer.max_epochs}: must be 1 or more (-1: no limit)")
    if cfg.trainer.max_epochs == -1 and cfg.trainer.max_steps == -1:
        raise UserError("trainer.max_epochs=-1 needs trainer.max_steps or the run never ends")
    if cfg.trainer.max_steps == 0:
        raise UserError("trainer.max_steps=0: must be 1 or more (-1: no limit but the epochs)")
    if cfg.resume and cfg.init_from and cfg.resume != "auto":
        raise UserError("resume and init_from exclude each other: resume goes on with a run, init_from starts one")
    check_protocol(cfg)
    check_device(cfg.trainer.accelerator, cfg.trainer.devices)
    if cfg.data.batch_size % (processes := cfg.trainer.devices * cfg.trainer.num_nodes):
        raise UserError(f"data.batch_size={cfg.data.batch_size}: {processes} processes cannot share it evenly")
    net = new_network(cfg)
    inner = cfg.data.patch_size // net.body_scale - 2 * net.receptive_radius
    if cfg.data.patch_size % net.body_scale or inner < 1:
        least = (2 * net.receptive_radius + 1) * net.body_scale
        multiple = f" and a multiple of {net.body_scale}" if net.body_scale > 1 else ""
        raise UserError(f"data.patch_size={cfg.data.patch_size}: this network needs at least {least}{multiple}")
    _try_out(cfg, net)
    if cfg.init_from:
        load_weights(net, cfg.init_from, load_checkpoint(find_checkpoint(cfg.init_from)))
    if cfg.resume and cfg.resume != "auto":
        _check_unfinished(cfg)
    check_sets(cfg)


def _range(cfg: DictConfig, key: str, least: float, most: float = float("inf")) -> None:
    value = OmegaConf.select(cfg, key)
    if value is not None and not least <= value <= most:
        allowed = f"at least {least}" if most == float("inf") else f"between {least} and {most}"
        raise UserError(f"{key}={value}: must be {allowed}")


def _try_out(cfg: DictConfig, net: Network) -> None:
    """Make the loss, optimiser, schedule and Trainer once, to see whether they take their settings."""
    made("loss", lambda: instantiate(cfg.loss))
    optimizer = made("optim", lambda: instantiate(cfg.optim, _convert_="all")(net.parameters()))
    if cfg.scheduler.schedule:
        make = made("scheduler", lambda: instantiate(cfg.scheduler.schedule, _convert_="all"))
        made("scheduler", lambda: make_scheduler(make, optimizer, total=10))
    made("trainer", lambda: L.Trainer(**(plain(cfg.trainer) | {"logger": False, "enable_checkpointing": False})))


def _check_unfinished(cfg: DictConfig) -> None:
    done, steps = progress(cfg.resume, load_checkpoint(cfg.resume))
    run = Path(cfg.resume).absolute().parent.parent
    if (run / ".hydra").is_dir() and not (run / "weights.pth").exists():
        return  # stopped before its test: that is to be done
    if 0 < cfg.trainer.max_epochs <= done:
        raise UserError(
            f"{cfg.resume}: this run has done its {done} epochs; give it more with trainer.max_epochs={2 * done}"
        )
    if 0 < cfg.trainer.max_steps <= steps:
        raise UserError(f"{cfg.resume}: this run has done its {steps} steps; raise trainer.max_steps")


def check_output(output: str | None) -> None:
    """A folder to write to, or to be made."""
    for path in (Path(output), *Path(output).parents) if output else ():
        if path.is_file():
            raise UserError(f"output={output}: {path} is a file; name a folder")


def check_protocol(cfg: DictConfig) -> None:
    if cfg.protocol not in PROTOCOLS:
        raise UserError(f"protocol={cfg.protocol}: choose one of {', '.join(PROTOCOLS)}")


def check_device(accelerator: str, devices: int = 1) -> None:
    found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    found |= {"auto": True, "cpu": True, "gpu": any(found.values())}
    if accelerator not in found:
        raise UserError(f"trainer.accelerator={accelerator}: choose one of auto, cpu, gpu, cuda, mps")
    if not found[accelerator]:
        raise UserError(f"trainer.accelerator={accelerator}: torch sees no GPU here; use cpu or auto")
    kind = device_of(accelerator).type
    there = {"cpu": os.cpu_count() or 1, "cuda": torch.cuda.device_count(), "mps": 1}[kind]
    if devices > there:
        name = "processor core" if kind == "cpu" else "GPU"
        raise UserError(
            f"trainer.devices={devices}: there {'is' if there == 1 else 'are'} {there} {name}{'s' * (there > 1)}"
        )


def device_of(accelerator: str) -> torch.device:
    """The device that Lightning would take for this accelerator."""
    if accelerator != "cpu" and torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if accelerator != "cpu" and torch.backends.mps.is_available() else "cpu")


def check_sets(cfg: DictConfig) -> None:
    """Find the image sets, or download them; so that what is missing is said before a run begins."""
    for name in (cfg.data.get("train"), cfg.data.get("val"), *cfg.data.test):
        if name and name != "leaves":
            find_images(name, cfg.data.root)
