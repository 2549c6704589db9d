"""Train a super-resolution network, test it, and show how it did.

    python train.py                                            the assignment: SRCNN x3 on T91, tested on Set5
    python train.py experiment=quickstart                      a minute on generated images; fast | best: on T91
    python train.py trainer.accelerator=gpu
    python train.py optim.lr=5e-4 data.batch_size=256 trainer.max_epochs=100
    python train.py -m optim.lr=1e-4,5e-4                      a sweep, ranked by validation
    python train.py resume=outputs/…/checkpoints/last.ckpt     that run goes on (settings may be overridden)
    python train.py hydra.run.dir=runs/a resume=auto           goes on with what is in the folder, or starts there
    python train.py init_from=checkpoint.pth                   a new run from these weights (or init_from=srcnn_x3)
    python train.py --help                                     this, and all settings with what they mean

A run's folder below outputs/ holds its checkpoints, logs, scores and a picture: tensorboard --logdir outputs

Ctrl-C and SIGTERM save a checkpoint and leave (130, 143). Exit codes else: 0 done, 1 a run or a sweep's job failed, 2 a
mistake in the settings, nothing written, 3 the loss became no number.
"""

import os
import signal

if __name__ == "__main__":
    for _number in (signal.SIGINT, signal.SIGTERM):  # while the libraries load, there is nothing to put in order
        signal.signal(_number, lambda number, _: os._exit(128 + number))

import time
from pathlib import Path
from typing import Any

import lightning as L
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig

from srcnn import report, terminal
from srcnn.board import Board
from srcnn.check import check_train
from srcnn.checkpoint import (
    AtomicCheckpointIO,
    find_checkpoint,
    finished,
    inexact,
    load_checkpoint,
    load_weights,
    resume_in,
    save_weights,
    settings_of,
)
from srcnn.command import command
from srcnn.config import changes, new_data, new_network, plain, typed
from srcnn.errors import UserError
from srcnn.lit_module import SuperResolution
from srcnn.metrics import PROTOCOLS
from srcnn.nets import Network


def train(cfg: DictConfig) -> float | None:
    """One run; returns the validation PSNR in dB, by which sweepers rank."""
    L.seed_everything(cfg.seed, verbose=False)
    hydra_cfg = HydraConfig.get()
    folder = Path(hydra_cfg.runtime.output_dir)
    settings = settings_of(cfg, hydra_cfg.runtime.choices)

    resume = None if cfg.resume == "auto" else cfg.resume  # auto: there was nothing yet
    if hydra_cfg.mode == RunMode.MULTIRUN:  # a sweep may be started again
        if done := finished(folder, settings):
            print(f"done already: {folder}", flush=True)
            return done["val_psnr"]
        resume = resume_in(folder, settings)
    net = new_network(cfg)
    if cfg.init_from and not resume:
        load_weights(net, cfg.init_from, load_checkpoint(find_checkpoint(cfg.init_from)))
    module = new_module(cfg, net, settings)
    data = new_data(cfg, net)
    data.load()
    callbacks = [instantiate(c, _convert_="all") for c in cfg.callbacks.values() if c and c.get("_target_")]
    if not data.validation:
        callbacks = [callback for callback in callbacks if getattr(callback, "monitor", None) != "val/psnr"]
    start = load_checkpoint(resume) if resume else None
    # A log goes on where its checkpoint was written, not where the run was stopped.
    again = {"purge_step": start["global_step"]} if start else {}
    loggers = [instantiate(logger, **again, _convert_="all") for logger in cfg.logger.values() if logger]
    options: dict[str, Any] = {
        "default_root_dir": folder,
        "logger": loggers,
        "callbacks": [*callbacks, terminal.progress(hydra_cfg.runtime.choices)],
        "plugins": [AtomicCheckpointIO()],
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    options |= plain(cfg.trainer)
    options["log_every_n_steps"] = min(options["log_every_n_steps"], len(data.patches))  # once an epoch at least
    trainer = L.Trainer(**options)
    device = report.device_name(trainer.strategy.root_device)
    settings["machine"] = {"device": device, "processes": trainer.world_size, "precision": str(trainer.precision)}
    banner = [terminal.banner(net, data, settings, device, folder)]
    if start:
        banner += [f"resuming {resume} after step {start['global_step']}"]
        banner += [f"  {change}" for change in changes(cfg, start["srcnn"])] or ["  with its own settings"]
        if others := inexact(start["srcnn"], settings):
            banner += [f"  so not bit for bit the run it was: {', '.join(others)} changed"]
    rank_zero_only(print)("\n".join(banner), flush=True)
    boards = [logger for logger in trainer.loggers if isinstance(logger, Board)]
    for board in boards:
        board.begin(settings, hydra_cfg.overrides.task)
    begin = time.monotonic()
    try:
        trainer.fit(module, data, ckpt_path=resume)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, UserError) or trainer.global_step > (start["global_step"] if start else 0):
            raise
        what = f"{resume}: its state" if resume else "a setting"
        raise UserError(f"{what} does not fit this run: {error} (HYDRA_FULL_ERROR=1 shows where)") from error
    seconds = time.monotonic() - begin

    # The test is of the weights one would ship: the best by validation, or the last. They are put into the network
    # by hand, as trainer.test(ckpt_path=...) would have the averaging callback bring the raw ones back.
    by_validation = next((c for c in callbacks if getattr(c, "monitor", None) == "val/psnr"), None)
    best = by_validation.best_model_path if by_validation else ""
    if start and resume and trainer.global_step == start["global_step"]:  # a run that was done but for its test
        load_weights(net, resume, start)
    if best:
        load_weights(net, best, load_checkpoint(best))
    trainer.test(module, data, verbose=False)
    if not trainer.is_global_zero:
        return None
    val_psnr = float(by_validation.best_model_score) if by_validation and best else None
    psnr = {name: round(mean.psnr, 3) for name, mean in report.means(module.scores).items()}
    for board in boards:
        first = next(iter(psnr.values()))
        figures = {"psnr/best_val": val_psnr, "psnr/test": first}
        board.end(figures, module.scores, cfg.protocol, trainer.global_step)
    facts = {
        "protocol": cfg.protocol,
        "checkpoint": best or "the last",
        "val_psnr": val_psnr,
        "run": folder.name,
        "overrides": list(hydra_cfg.overrides.task),
        "steps": trainer.global_step,
        "seconds": round(seconds, 1),  # of training and validation, since the start or the last resume
        "device": device,
    }
    words = ["python", "train.py", *typed(hydra_cfg.overrides.task)]
    commands = [("Train and test", words), report.evaluation(folder / "weights.pth", cfg.data.test, cfg.protocol)]
    samples = data.testing[: len(module.scores)]
    report.write(folder, net, samples, module.scores, facts, settings, folder / "metrics.csv", commands)
    save_weights(folder / "weights.pth", net, settings, {**facts, "psnr": psnr})
    return val_psnr


def new_module(cfg: DictConfig, net: Network, settings: dict[str, Any] | None = None) -> SuperResolution:
    """The network with the loss, optimiser and schedule of `cfg`."""
    return SuperResolution(
        net,
        PROTOCOLS[cfg.protocol],
        instantiate(cfg.loss),
        instantiate(cfg.optim, _convert_="all"),
        instantiate(cfg.scheduler.schedule, _convert_="all"),
        cfg.scheduler.interval,
        settings,
    )


if __name__ == "__main__":
    command(train, "train", check_train)
