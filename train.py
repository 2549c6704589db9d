"""Train a super-resolution network, test it, and show how it did.

    python train.py                                            the assignment: SRCNN x3 on T91, tested on Set5
    python train.py experiment=quickstart                      a minute on generated images; experiment=fast on T91
    python train.py trainer.accelerator=gpu
    python train.py optim.lr=5e-4 data.batch_size=256 trainer.max_epochs=100
    python train.py -m optim.lr=1e-4,5e-4                      a sweep, ranked by validation
    python train.py resume=outputs/…/checkpoints/last.ckpt     that run goes on (settings may be overridden)
    python train.py init_from=checkpoint.pth                   a new run from these weights
    python train.py --cfg job                                  all settings; what they mean stands in configs/

A run's folder below outputs/ holds its checkpoints, logs, scores and a picture: tensorboard --logdir outputs
"""

import logging
import sys
import warnings
from pathlib import Path

import lightning as L
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from srcnn import report
from srcnn.callbacks import PlainProgress
from srcnn.checkpoint import AtomicCheckpointIO, load_checkpoint, load_weights, settings_of
from srcnn.config import changes, check_train, command, new_network
from srcnn.data.datamodule import SRDataModule
from srcnn.lit_module import SuperResolution
from srcnn.metrics import PROTOCOLS


# Lightning's tips, and its warnings about what is so on purpose here.
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
warnings.filterwarnings("ignore", message=".*LeafSpec.*")
warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
warnings.filterwarnings("ignore", message=".*was configured so 1 batch will be used")


def train(cfg: DictConfig) -> float | None:
    """One run; returns the validation PSNR in dB, by which sweepers rank."""
    L.seed_everything(cfg.seed, verbose=False)
    hydra_cfg = HydraConfig.get()
    folder = Path(hydra_cfg.runtime.output_dir)
    settings = settings_of(cfg, hydra_cfg.runtime.choices)

    net = new_network(cfg)
    if cfg.init_from:
        load_weights(net, cfg.init_from, load_checkpoint(cfg.init_from))
    module = SuperResolution(
        net,
        PROTOCOLS[cfg.protocol],
        instantiate(cfg.loss),
        instantiate(cfg.optim, _convert_="all"),
        instantiate(cfg.scheduler.schedule, _convert_="all"),
        cfg.scheduler.interval,
        settings,
    )
    data = new_data(cfg, net)
    callbacks = [instantiate(c, _convert_="all") for c in cfg.callbacks.values() if c and c.get("_target_")]
    start = load_checkpoint(cfg.resume) if cfg.resume else None
    loggers = [instantiate(logger, _convert_="all") for logger in cfg.logger.values() if logger]
    trainer = L.Trainer(
        **OmegaConf.to_container(cfg.trainer, resolve=True),
        default_root_dir=folder,
        logger=loggers,
        callbacks=callbacks + ([] if sys.stderr.isatty() else [PlainProgress()]),
        plugins=[AtomicCheckpointIO()],
        enable_progress_bar=sys.stderr.isatty(),
        enable_model_summary=False,
    )
    print(f"{type(net).__name__} x{net.scale}, {report.parameter_count(net):,} parameters -> {folder}", flush=True)
    if start:
        print(f"resuming {cfg.resume} after step {start['global_step']}")
        print("\n".join(f"  {change}" for change in changes(cfg, start["srcnn"])) or "  with its own settings")
    trainer.fit(module, data, ckpt_path=cfg.resume)
    if not trainer.is_global_zero:
        return None

    # The test is of the weights one would ship: the best by validation, or the last. A Trainer of its own, as the
    # averaging callback would put the raw weights back.
    best = next((c.best_model_path for c in trainer.checkpoint_callbacks if c.monitor == "val/psnr"), "")
    if best:
        load_weights(net, best, load_checkpoint(best))
    tester = L.Trainer(
        accelerator=cfg.trainer.accelerator,
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_test_batches=1 if cfg.trainer.fast_dev_run else None,
    )
    tester.test(module, data, verbose=False)
    scores = (c.best_model_score for c in trainer.checkpoint_callbacks if c.monitor == "val/psnr")
    val_psnr = next((float(score) for score in scores if score is not None), None)
    report.write_scores(
        folder,
        module.scores,
        {
            "protocol": cfg.protocol,
            "scale": net.scale,
            "network": type(net).__name__,
            "parameters": report.parameter_count(net),
            "checkpoint": best,
            "val_psnr": val_psnr,
            "run": folder.name,
            "overrides": list(hydra_cfg.overrides.task),
        },
    )
    report.write_comparison(folder / "comparison.png", net, data.testing[: len(module.scores)], module.scores)
    print(f"\n{report.table(module.scores, net, cfg.protocol)}")
    print(f"\nweights   {best or 'the last'}\npicture   {folder / 'comparison.png'}")
    return val_psnr


def new_data(cfg: DictConfig, net) -> SRDataModule:
    values = OmegaConf.to_container(cfg.data, resolve=True)
    values.pop("train_dir", None)  # data=folder: `train` points to it
    return SRDataModule(net, seed=cfg.seed, **values)


if __name__ == "__main__":
    command(train, "train", check_train)
