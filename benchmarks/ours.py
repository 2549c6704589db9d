"""Our contender: `experiment=fast` through Lightning, as train.py runs it but for validation, logs and checkpoints."""

from collections.abc import Iterator
from typing import Any

import lightning as L
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from torch import Tensor

from srcnn.data.datamodule import SRDataModule
from srcnn.data.sources import read_pair
from srcnn.lit_module import SuperResolution
from srcnn.metrics import PROTOCOLS
from srcnn.run import CONFIGS
from srcnn.run.make import make, plain
from srcnn.run.options import make_optimizer, make_schedule
from srcnn.run.precision import best_precision
from srcnn.inference.tiles import device_of


def fast(settings: list[str]) -> tuple[DictConfig, SRDataModule]:
    """The recipe with `settings` laid over it, and its data, read, with a fresh network in `data.net`."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose("train", ["experiment=fast", "output_dir=none", *settings])
    if cfg.trainer.precision == "auto":
        cfg.trainer.precision, _ = best_precision(device_of(cfg.trainer.accelerator))
    L.seed_everything(cfg.seed, verbose=False)
    net = make("model", cfg.model, scale=cfg.scale)
    data = make("data", cfg.data, net, make("degradation", cfg.degradation), seed=cfg.seed)
    data.load()
    return cfg, data


def training_pairs(data: SRDataModule) -> Iterator[tuple[Tensor, Tensor]]:
    """Each training image as what the network's body takes, float, and as the HR it should give, uint8."""
    for name, source in data.training.items():
        hr, _ = read_pair(source, data.net.scale, data.degradation)
        lr = data.degradation(hr.expand(3, -1, -1), data.net.scale, name, 0)
        with torch.no_grad():
            yield data.net.preprocess(lr[None].float() / 255)[0], hr.expand(3, -1, -1)


def fit(cfg: DictConfig, data: SRDataModule, **options: Any) -> None:
    """Train `data.net`, with `options` for the Trainer."""
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    quiet |= {"enable_model_summary": False, "limit_val_batches": 0}
    loss = make("loss", cfg.loss)
    optimizer = make_optimizer(cfg.optim, data.net, loss)
    schedule = make_schedule(cfg.scheduler.schedule, optimizer)
    module = SuperResolution(data.net, PROTOCOLS[cfg.protocol], loss, optimizer, schedule, cfg.scheduler.interval)
    L.Trainer(**(plain(cfg.trainer) | quiet | options)).fit(module, data)
