"""Train a super-resolution network, test it, and show how it did.

    python train.py                                            the assignment: SRCNN x3 on T91, tested on Set5
    python train.py experiment=quickstart                      a minute on generated images; fast | best: on T91
    python train.py trainer.accelerator=gpu
    python train.py optim.lr=5e-4 data.batch_size=256 trainer.max_epochs=100
    python train.py -m optim.lr=1e-4,5e-4                      a sweep, ranked by validation
    python train.py resume=outputs/…/checkpoints/last.ckpt     that run goes on, its settings may be overridden
    python train.py hydra.run.dir=runs/a resume=auto           resumes what is in the folder, or starts there
    python train.py init_from=checkpoint.pth                   a new run from these weights (or init_from=srcnn_x3)
    python train.py --help; --cfg job                          what can be chosen; the settings of a run

A run's folder below outputs/ holds its checkpoints, logs, scores and a report: tensorboard --logdir outputs

Ctrl-C and SIGTERM save a checkpoint and leave (130, 143). Exit codes otherwise: 0 done, 1 a run or a sweep's job
failed, 2 a mistake in settings or files, 3 the loss became NaN.
"""

import time
from pathlib import Path

import hydra
import lightning as L
import torch
from hydra.utils import instantiate
from lightning.pytorch.plugins.environments import LightningEnvironment
from omegaconf import DictConfig, OmegaConf

from srcnn import __version__, launch, report
from srcnn.callbacks import best_checkpoint
from srcnn.checkpoint import find_checkpoint, load_weights, save_weights
from srcnn.errors import UserError
from srcnn.report import terminal


def train(cfg: DictConfig) -> float | None:
    """One run with the settings of configs/train.yaml; returns the PSNR in dB on the validation images."""
    if cfg.get("resume"):
        raise UserError("resume= is for the command line; here ckpt_path= takes a checkpoint's state")
    folder = Path(cfg.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    L.seed_everything(cfg.seed, verbose=False)

    net = instantiate(cfg.model, _convert_="all")
    if cfg.init_from and not cfg.ckpt_path:
        load_weights(net, find_checkpoint(cfg.init_from))
    data = instantiate(cfg.data, _convert_="all")
    run = {"overrides": launch.overrides(), "settings": OmegaConf.to_container(cfg, resolve=True)}
    run |= {"versions": {"srcnn": __version__, "torch": str(torch.__version__), "lightning": str(L.__version__)}}
    loss, optimizer, schedule = (instantiate(part, _convert_="all") for part in (cfg.loss, cfg.optim, cfg.scheduler))
    module = instantiate(cfg.module)(net=net, loss=loss, optimizer=optimizer, **schedule, run=run)

    callbacks, loggers = launch.instantiate_all(cfg.get("callbacks")), launch.instantiate_all(cfg.get("logger"))
    make_trainer = instantiate(cfg.trainer, _partial_=True, _convert_="all")
    ours = {"default_root_dir": folder, "callbacks": callbacks, "logger": loggers or False}
    trainer = make_trainer(**{key: value for key, value in ours.items() if key not in cfg.trainer})  # +trainer.logger=…
    launch.check_processes(trainer.num_devices * trainer.num_nodes)
    start = time.monotonic()
    trainer.fit(module, data, ckpt_path=cfg.ckpt_path, weights_only=True if cfg.ckpt_path else None)
    seconds = time.monotonic() - start
    if not trainer.is_global_zero:
        return None
    for path in folder.glob("hpc_ckpt_*.ckpt"):  # of SLURM's requeues: Lightning would load them ever after
        path.unlink()

    # The test is of the weights that weights.pth will hold, by a Trainer of its own on one device: the one that has
    # trained would let its callbacks put other weights in their place.
    checkpoint, val_psnr = best_checkpoint(trainer)
    if checkpoint:
        load_weights(net, checkpoint)
    net.float()  # as a file is loaded
    alone = {"devices": 1, "num_nodes": 1, "strategy": "auto", "plugins": [LightningEnvironment()], "callbacks": []}
    options = {"logger": trainer.loggers or False, "enable_progress_bar": False, "enable_checkpointing": False}
    make_trainer(**options, **alone, precision="32-true").test(module, data, verbose=False)

    described = data.degradation.describe() if hasattr(data, "degradation") else "as given"  # by data of yours
    run |= {"protocol": cfg.protocol, "degradation": described, "machine": terminal.machine(trainer)}
    run |= {"checkpoint": checkpoint or "the last weights", "val_psnr": val_psnr, "name": folder.name}
    run |= {"steps": trainer.global_step, "seconds": round(seconds, 1), "psnr": report.psnr(module.scores)}
    save_weights(folder / "weights.pth", net, run)
    if module.scores and hasattr(data, "testing"):  # not with trainer.limit_test_batches=0, nor with data of yours
        report.write_run(folder, net, module.scores, data.testing, run)
    return val_psnr


@hydra.main(version_base="1.3", config_path=str(launch.CONFIGS), config_name="train")
@launch.job
def main(cfg: DictConfig) -> float | None:
    return train(cfg)


if __name__ == "__main__":
    launch.prepare()
    main()
