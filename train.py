"""Train a super-resolution network, test it, and show how it did.

    python train.py                                            the assignment: SRCNN x3 on T91, tested on Set5
    python train.py experiment=quickstart                      a minute on generated images; fast | best: on T91
    python train.py trainer.accelerator=gpu
    python train.py optim.lr=5e-4 data.batch_size=256 trainer.max_epochs=100
    python train.py -m optim.lr=1e-4,5e-4                      a sweep, ranked by validation
    python train.py resume=outputs/…/checkpoints/last.ckpt     that run goes on (settings may be overridden)
    python train.py hydra.run.dir=runs/a resume=auto           resumes what is in the folder, or starts there
    python train.py init_from=checkpoint.pth                   a new run from these weights (or init_from=srcnn_x3)
    python train.py --help                                     this, and all settings with what they mean

A run's folder below outputs/ holds its checkpoints, logs, scores and a report: tensorboard --logdir outputs

Ctrl-C and SIGTERM save a checkpoint and leave (130, 143). Exit codes otherwise: 0 done, 1 a run or a sweep's job
failed, 2 a mistake in the settings, nothing written, 3 the loss became NaN.
"""

from collections.abc import Sequence
from pathlib import Path

import lightning as L
from omegaconf import DictConfig, OmegaConf

from srcnn import report
from srcnn.lit_module import SuperResolution
from srcnn.metrics import find_protocol
from srcnn.report import loggers, terminal
from srcnn.callbacks import best_weights
from srcnn.checkpoint import find_checkpoint, load_weights, save_weights
from srcnn.launch import train_command
from srcnn.run.make import make, make_all, plain
from srcnn.run.options import describe, make_optimizer, make_schedule, new_trainer
from srcnn.run.resume import check_start, find_start, finished, fit


def train(cfg: DictConfig, overrides: Sequence[str] = ()) -> float | None:
    """One run with the settings of configs/train.yaml; returns the validation PSNR in dB, by which sweeps are ranked.

    overrides  the key=value words that led to the settings, recorded in checkpoints: a resumed run starts from them
    """
    L.seed_everything(cfg.seed, verbose=False)
    folder, run = Path(cfg.output_dir), describe(cfg, overrides)
    if cfg.resume in ("auto", "same") and (done := finished(folder, run)):
        print(f"done already: {folder}", flush=True)
        return done["val_psnr"]
    start = find_start(cfg.resume, folder)

    net = make("model", cfg.model, scale=cfg.scale)
    if cfg.init_from and not start:
        load_weights(net, find_checkpoint(cfg.init_from))
    degradation = make("degradation", cfg.degradation)
    data = make("data", cfg.data, net, degradation, seed=cfg.seed)
    loss = make("loss", cfg.loss)
    optimizer = make_optimizer(cfg.optim, net, loss)
    schedule = make_schedule(cfg.scheduler.schedule, optimizer)
    arguments = {key: value for key, value in plain(cfg.model).items() if key != "_target_"} | {"scale": cfg.scale}
    protocol = find_protocol(cfg.protocol)
    module = SuperResolution(net, protocol, loss, optimizer, schedule, cfg.scheduler.interval, arguments, run)
    callbacks = [*make_all("callbacks", cfg.callbacks), terminal.progress(overrides)]
    logs = make_all("logger", cfg.logger, purge_step=start.step if start else 0)
    data.load()
    trainer, precision = new_trainer(cfg.trainer, folder, callbacks, logs, data)
    run |= {"machine": terminal.machine(trainer), "data": data.fingerprint, "degradation": degradation.describe()}

    pixels = data.patches.to(trainer.strategy.root_device)
    lines = [terminal.banner(module, data, trainer, folder, precision, pixels)]
    lines += check_start(start, cfg.resume, run, schedule, folder) if start else []
    if trainer.is_global_zero:
        print("\n".join(lines), flush=True)
        OmegaConf.save(cfg, folder / "config.yaml", resolve=True)
    loggers.begin(trainer.loggers, run)
    seconds = fit(trainer, module, data, start)

    # The test is of the weights one would ship: the best by validation, or the last.
    checkpoint, val_psnr = best_weights(trainer, net, start)
    trainer.test(module, data, verbose=False)
    if not trainer.is_global_zero:
        return None
    run |= {"protocol": cfg.protocol, "checkpoint": checkpoint, "val_psnr": val_psnr, "name": folder.name}
    run |= {"steps": trainer.global_step, "seconds": round(seconds, 1), "psnr": report.psnr(module.scores)}
    report.write_run(folder, net, module.scores, data.testing, run)
    save_weights(folder / "weights.pth", net, arguments, run)
    loggers.finish(trainer.loggers, run, module.scores)
    return val_psnr


if __name__ == "__main__":
    train_command(train)
