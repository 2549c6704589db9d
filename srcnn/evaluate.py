"""Score a checkpoint on named image sets or folders, beside bicubic.

    python -m srcnn.evaluate                                                    our weights on Set5; scale=2 | 3 | 4
    python -m srcnn.evaluate ckpt_path=CKPT                                     on what it was to be tested on
    python -m srcnn.evaluate ckpt_path=CKPT data.test=[Set5,Set14] protocol=basicsr
    python -m srcnn.evaluate degradation=camera                                 on blurred, noisy, compressed LR

Prints a table per set and writes report.html, scores.csv, scores.json and comparison.png into a folder below outputs/,
or output=.
"""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from srcnn.data.degrade import Degradation
from srcnn.errors import UserError, check_choice
from srcnn.files import check_folder, write_image
from srcnn.image import to_uint8
from srcnn.metrics import PROTOCOLS
from srcnn.nets import Network
from srcnn.run import CONFIGS
from srcnn.run.checkpoint import find_checkpoint, load_network, run_of
from srcnn.run.cli import command
from srcnn.run.make import make
from srcnn.upscale import device_of, super_resolve


def new_folder(output: str | None, name: str) -> Path:
    """The folder to write to: `output`, or one of this moment below outputs/."""
    if output:
        check_folder(f"output={output}", output)
    moment = time.strftime("%Y-%m-%d/%H-%M-%S")
    return Path(output or f"outputs/{moment}-{os.urandom(2).hex()}-{name}")


def test_sets(given: Any, run: Mapping[str, Any]) -> list[str]:
    """The sets or folders asked for by data.test, or else those that the checkpoint's run named, or else Set5."""
    named = run.get("values", {}).get("data.test", ["Set5"]) if given is None else given
    if not isinstance(named, Sequence) or isinstance(named, str) or not named:
        raise UserError(f"data.test={named}: must be a list of sets or folders, as data.test=[Set5]")
    if not all(isinstance(name, str) for name in named):
        raise UserError(f"data.test={list(named)}: must be names of sets or folders, as data.test=[Set5]")
    return list(named)


def evaluate(cfg: DictConfig) -> None:
    """Score the checkpoint of cfg.ckpt_path on the sets of cfg.data.test."""
    _score_sets(cfg, new_folder(cfg.output, "evaluate"), *load_network(cfg.ckpt_path, cfg.scale), with_images=False)


def predict_test_sets(cfg: DictConfig, net: Network, checkpoint: dict[str, Any]) -> None:
    """predict.py without input: shrink the test images, super-resolve them, and score and show the result."""
    folder = new_folder(cfg.output, "predict")
    _score_sets(cfg, folder, net, checkpoint, with_images=True)
    print(f"images      {folder}")


def _score_sets(cfg: DictConfig, folder: Path, net: Network, checkpoint: dict[str, Any], with_images: bool) -> None:
    from srcnn import report
    from srcnn.data.samples import read_sets
    from srcnn.report.panels import lr_and_hr

    check_choice("protocol", cfg.protocol, tuple(PROTOCOLS))
    net.to(device_of(cfg.trainer.accelerator))
    path = find_checkpoint(cfg.ckpt_path, cfg.scale)
    run = run_of(path, checkpoint)
    sets = test_sets(cfg.data.test, run)
    if with_images:
        print(f"no input= is given: super-resolving and scoring the test images of {', '.join(sets)}", flush=True)
    degradation, device = _degradation(cfg.degradation, run), next(net.parameters()).device
    samples, scores = read_sets(sets, cfg.data.root, net.scale, degradation), []
    for sample in samples:
        hr = sample.hr[None].to(device).float() / 255
        if with_images:
            sr = super_resolve(net, lr_and_hr(sample, net.scale)[0].to(device))
            write_image(folder / sample.image_set / f"{sample.name}_x{net.scale}.png", to_uint8(sr)[0].cpu())
        lr = None if sample.lr is None else sample.lr[None].to(device).float() / 255
        scores.append((sample.image_set, sample.name, PROTOCOLS[cfg.protocol].score(net, hr, lr=lr)))
    logs = (parent / "metrics.csv" for parent in path.absolute().parents[:2])
    facts = {"protocol": cfg.protocol, "degradation": degradation.describe(), "checkpoint": str(path)}
    report.write(folder, net, samples, scores, facts, run, next((log for log in logs if log.is_file()), None))


def _degradation(name: str | None, run: Mapping[str, Any]) -> Degradation:
    """The degradation of this name in configs/degradation, or else the one that the checkpoint was trained for."""
    names = sorted(path.stem for path in (CONFIGS / "degradation").glob("*.yaml") if path.stem != "none")
    if name is None:
        trained_for = run.get("degradation", "bicubic").split()[0]
        name = trained_for if trained_for in names else "bicubic"
    check_choice("degradation", name, tuple(names))
    return make("degradation", OmegaConf.load(CONFIGS / "degradation" / f"{name}.yaml"))


def main() -> None:
    command(evaluate, "evaluate")


if __name__ == "__main__":
    main()
