"""Our contender: `experiment=fast` through Lightning, as train.py runs it but for validation, logs and checkpoints."""

from typing import Any

import lightning as L
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from srcnn.data.datamodule import SRDataModule
from srcnn.lit_module import SuperResolution
from srcnn.metrics import PROTOCOLS
from srcnn.run import CONFIGS
from srcnn.run.options import make, make_optimizer, make_schedule, plain
from srcnn.run.precision import best_precision
from srcnn.upscale import device_of


def fast(settings: list[str]) -> tuple[DictConfig, SRDataModule]:
    """The recipe with `settings` laid over it, and its data, read, with a fresh network in `data.net`."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose("train", ["experiment=fast", "output_dir=none", *settings])
    if cfg.trainer.precision == "auto":
        cfg.trainer.precision, _ = best_precision(device_of(cfg.trainer.accelerator))
    L.seed_everything(cfg.seed, verbose=False)
    data = make("data", cfg.data, make("model", cfg.model, scale=cfg.scale), seed=cfg.seed)
    data.load()
    return cfg, data


def fit(cfg: DictConfig, data: SRDataModule, **options: Any) -> None:
    """Train `data.net`, with `options` for the Trainer."""
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    quiet |= {"enable_model_summary": False, "limit_val_batches": 0}
    loss = make("loss", cfg.loss)
    optimizer = make_optimizer(cfg.optim, data.net, loss)
    schedule = make_schedule(cfg.scheduler.schedule, optimizer)
    module = SuperResolution(data.net, PROTOCOLS[cfg.protocol], loss, optimizer, schedule, cfg.scheduler.interval)
    L.Trainer(**(plain(cfg.trainer) | quiet | options)).fit(module, data)
