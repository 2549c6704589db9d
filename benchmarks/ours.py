"""Our contender: a recipe through Lightning, as train.py runs it but for validation, logs and checkpoints."""

import logging
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any

import lightning as L
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor

from srcnn.data.datamodule import SRDataModule
from srcnn.data.samples import read_samples, set_images
from srcnn.image import quantize
from srcnn.launch import CONFIGS
from srcnn.lit_module import SuperResolution
from srcnn.metrics import PROTOCOLS
from srcnn.nets import Network


def prepare(settings: Sequence[str]) -> tuple[DictConfig, SuperResolution, SRDataModule]:
    """The settings of a run, its module with a fresh network, and its data, read."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose("train", [*settings])
    L.seed_everything(cfg.seed, verbose=False)
    data = instantiate(cfg.data, _convert_="all")
    data.setup()
    return cfg, fresh_module(cfg), data


def fresh_module(cfg: DictConfig) -> SuperResolution:
    """A module as train.py makes it."""
    loss, optimizer, schedule = (instantiate(part, _convert_="all") for part in (cfg.loss, cfg.optim, cfg.scheduler))
    return SuperResolution(instantiate(cfg.model), loss, optimizer, **schedule, protocol=cfg.protocol)


def fit(cfg: DictConfig, module: SuperResolution, data: SRDataModule, **options: Any) -> None:
    """Train the module, with `options` for the Trainer."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    instantiate(cfg.trainer, **(quiet | {"limit_val_batches": 0} | options)).fit(module, data)


def psnr(net: Network, data: SRDataModule) -> float:
    """Mean PSNR in dB on the data's test images, protocol authors."""
    device = next(net.parameters()).device
    with torch.no_grad():
        scores = [
            PROTOCOLS["authors"].evaluate(net.upscale, sample.lr.to(device), sample.hr, net.channels, with_ssim=False)
            for sample in data.testing
        ]
    return fmean(score.psnr for score in scores)


def training_pairs(net: Network, data: SRDataModule) -> Iterator[tuple[Tensor, Tensor]]:
    """Each training image as what the network's body takes, float, and as the HR it should give, uint8."""
    left_out = {*data.exclude, *(sample.name for sample in data.validation)}
    images = {name: image for name, image in set_images(data.train, data.root).items() if name not in left_out}
    for sample in read_samples(images, data.train, net.scale, data.degradation):
        with torch.no_grad():
            yield net.preprocess(quantize(sample.lr).expand(-1, 3, -1, -1))[0], sample.hr[0].expand(3, -1, -1)
