"""What can be known to be wrong with a config before anything is written: ranges, choices, contradictions."""

import math
import os
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra.utils import instantiate
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from srcnn.checkpoint import find_checkpoint, load_checkpoint, load_weights, progress
from srcnn.config import made, new_data, new_network, plain
from srcnn.data.sets import find_images
from srcnn.errors import UserError
from srcnn.image import shave
from srcnn.metrics import PROTOCOLS
from srcnn.nets import Network
from srcnn.optim import make_scheduler

_RANGES: dict[str, tuple[float, float]] = {
    "scale": (2, 8), "seed": (0, 2**32 - 1),
    "data.batch_size": (1, math.inf), "data.patch_size": (1, math.inf), "data.stride": (1, math.inf),
    "data.memory": (0, math.inf), "data.leaves.count": (2, 1e6), "data.leaves.size": (24, 8192),
    "data.leaves.seed": (0, 2**63),
    "loss.rgb": (0, math.inf), "loss.floor": (1e-12, 1),
    "optim.lr": (0, math.inf), "optim.bias_lr": (0, math.inf), "optim.last_layer_lr": (0, math.inf),
    "optim.momentum": (0, 1), "optim.weight_decay": (0, math.inf), "optim.eps": (0, math.inf),
    "optim.whiten": (0, math.inf),
    "scheduler.schedule.warmup": (0, math.inf), "scheduler.schedule.hold": (0, 1),
    "scheduler.schedule.final": (0, 1), "scheduler.schedule.gamma": (0, 1),
    "callbacks.checkpoint.every_n_epochs": (1, math.inf), "callbacks.guard.every_n_steps": (1, math.inf),
    "callbacks.guard.every_n_minutes": (0, math.inf), "callbacks.ema.decay": (0, 1),
    "trainer.max_steps": (-1, math.inf),
    "trainer.limit_train_batches": (0, math.inf), "trainer.limit_val_batches": (0, math.inf),
    "trainer.check_val_every_n_epoch": (1, math.inf), "trainer.accumulate_grad_batches": (1, math.inf),
    "trainer.gradient_clip_val": (0, math.inf), "trainer.log_every_n_steps": (1, math.inf),
    "trainer.num_sanity_val_steps": (0, math.inf),
}  # fmt: skip
_MOST_PIXELS = 10**8
_NOT_FOR_US = {"callbacks", "logger", "plugins", "default_root_dir", "enable_checkpointing", "limit_test_batches"}
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
    check_device(cfg.trainer.accelerator, cfg.trainer.devices, cfg.trainer.num_nodes)
    if cfg.data.batch_size % (processes := cfg.trainer.devices * cfg.trainer.num_nodes):
        raise UserError(f"data.batch_size={cfg.data.batch_size}: {processes} processes cannot share it evenly")
    if cfg.data.batch_size * cfg.data.patch_size**2 > _MOST_PIXELS:
        raise UserError(
            f"data.batch_size={cfg.data.batch_size} data.patch_size={cfg.data.patch_size}: a batch has at most "
            f"{_MOST_PIXELS:,} pixels"
        )
    for key in _NOT_FOR_US & cfg.trainer.keys():
        raise UserError(f"trainer.{key}: is not taken; see callbacks, logger and hydra.run.dir")
    if cfg.trainer.limit_train_batches == 0:
        raise UserError("trainer.limit_train_batches=0: nothing would be trained")
    net = new_network(cfg)
    inner = cfg.data.patch_size // net.body_scale - 2 * net.receptive_radius
    if cfg.data.patch_size % net.body_scale or inner < 1:
        least = (2 * net.receptive_radius + 1) * net.body_scale
        multiple = f" and a multiple of {net.body_scale}" if net.body_scale > 1 else ""
        raise UserError(f"data.patch_size={cfg.data.patch_size}: this network needs at least {least}{multiple}")
    start = load_checkpoint(cfg.resume) if cfg.resume not in (None, "auto") else None
    _try_out(cfg, net, start)
    if cfg.init_from:
        load_weights(net, cfg.init_from, load_checkpoint(find_checkpoint(cfg.init_from)))
    if start:
        _check_unfinished(cfg, start)
    check_sets(cfg)


def _range(cfg: DictConfig, key: str, least: float, most: float = float("inf")) -> None:
    value = OmegaConf.select(cfg, key)
    if value is not None and not least <= value <= most:
        allowed = f"at least {least}" if most == float("inf") else f"between {least} and {most}"
        raise UserError(f"{key}={value}: must be {allowed}")


def _try_out(cfg: DictConfig, net: Network, start: dict[str, Any] | None) -> None:
    """Make everything of the run once, and a step on one gray patch, to see whether it takes its settings."""
    cfg = OmegaConf.merge(cfg, {"output_dir": "none"})  # type: ignore[assignment]
    made("data", lambda: new_data(cfg, net))
    loss = made("loss", lambda: instantiate(cfg.loss))
    optimizer = made("optim", lambda: instantiate(cfg.optim, _convert_="all")(net.parameters()))
    if cfg.scheduler.schedule:
        make = made("scheduler", lambda: instantiate(cfg.scheduler.schedule, _convert_="all"))
        if isinstance(made("scheduler", lambda: make_scheduler(make, optimizer, total=10)), ReduceLROnPlateau):
            raise UserError("scheduler settings: ReduceLROnPlateau waits for a metric; take one that counts steps")
    trainer = made(
        "trainer", lambda: L.Trainer(**(plain(cfg.trainer) | {"logger": False, "enable_checkpointing": False}))
    )
    names = []
    for group in ("callbacks", "logger"):
        for key, part in cfg[group].items():
            if part is None or part.get("_target_", "") is None:
                continue
            if "_target_" not in part:
                raise UserError(f"{group}.{key}: says no _target_, so nothing would be made of it")
            thing = made(f"{group}.{key}", partial(instantiate, part, _convert_="all"))
            if isinstance(thing, ModelCheckpoint):
                names.append(str(thing.filename))
                if os.path.basename(names[-1]) != names[-1]:
                    raise UserError(f"{group}.{key}.filename={names[-1]}: must be a name, without a folder")
    if doubled := [name for name in names if names.count(name) > 1]:
        raise UserError(f"callbacks: two checkpoints cannot both be called {doubled[0]}.ckpt")
    made("loss", lambda: _step(cfg, net, loss))
    if start:
        _try_state(cfg.resume, start, optimizer, trainer)


def _step(cfg: DictConfig, net: Network, loss: nn.Module) -> None:
    side = cfg.data.patch_size // net.body_scale
    x, hr = (torch.full((1, net.channels, side * scale, side * scale), 0.5) for scale in (1, net.body_scale))
    value = loss(net.body(x, pad=False).float(), shave(hr, net.receptive_radius * net.body_scale))
    if value.ndim:
        raise ValueError("must give one number, not one a pixel")
    value.backward()
    net.zero_grad()


def _try_state(path: str, checkpoint: dict[str, Any], optimizer: torch.optim.Optimizer, trainer: L.Trainer) -> None:
    """Whether a run's state can be taken up, before its folder is touched."""
    try:
        optimizer.load_state_dict(checkpoint["optimizer_states"][0])
        for parameter, state in optimizer.state.items():
            wrong = [v.shape for v in state.values() if isinstance(v, Tensor) and v.ndim and v.shape != parameter.shape]
            if wrong:
                raise ValueError(f"{tuple(wrong[0])} for weights of {tuple(parameter.shape)}")
        if checkpoint.get("rng_state") is not None:
            torch.Generator().set_state(checkpoint["rng_state"])
        trainer.fit_loop.load_state_dict(checkpoint["loops"]["fit_loop"])
        for state in checkpoint["callbacks"].values():
            state.items()
    except Exception as error:
        raise UserError(f"{path}: its state does not fit this run ({error}); start one with init_from=") from None


def _check_unfinished(cfg: DictConfig, start: dict[str, Any]) -> None:
    done, steps = progress(cfg.resume, start)
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


def check_device(accelerator: str, devices: int = 1, num_nodes: int = 1) -> None:
    """Whether the devices are there, and for several machines something that starts a process on each."""
    for key, value in (("devices", devices), ("num_nodes", num_nodes)):
        if value < 1:
            raise UserError(f"trainer.{key}={value}: must be at least 1")
    if num_nodes > 1 and not any(name in os.environ for name in ("TORCHELASTIC_RUN_ID", "SLURM_JOB_ID", "MASTER_ADDR")):
        raise UserError(f"trainer.num_nodes={num_nodes}: start it on each machine by torchrun, or by SLURM")
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
