"""Our contender: `experiment=fast` through Lightning, as train.py runs it but for validation, logs and checkpoints."""

from typing import Any

import lightning as L
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from srcnn.checkpoint import CONFIGS
from srcnn.config import new_data, new_network, plain
from srcnn.data.datamodule import SRDataModule
from train import new_module


def fast(settings: list[str]) -> tuple[DictConfig, SRDataModule]:
    """The recipe with `settings` laid over it, and its data, read, with a fresh network in `data.net`."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose("train", ["experiment=fast", "output_dir=none", *settings])
    L.seed_everything(cfg.seed, verbose=False)
    data = new_data(cfg, new_network(cfg))
    data.load()
    return cfg, data


def fit(cfg: DictConfig, data: SRDataModule, **options: Any) -> None:
    """Train `data.net`, with `options` for the Trainer."""
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    quiet |= {"enable_model_summary": False, "limit_val_batches": 0}
    L.Trainer(**(plain(cfg.trainer) | quiet | options)).fit(new_module(cfg, data.net), data)
