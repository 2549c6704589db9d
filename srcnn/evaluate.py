"""Score a checkpoint on named image sets or folders, beside bicubic.

    python -m srcnn.evaluate                                                    our weights on Set5; scale=2 | 3 | 4
    python -m srcnn.evaluate ckpt_path=CKPT                                     on what it was to be tested on
    python -m srcnn.evaluate ckpt_path=CKPT data.test=[Set5,Set14] protocol=basicsr

Prints a table per set and writes report.html, scores.csv, scores.json and comparison.png into a folder below outputs/,
or output=.
"""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from srcnn.errors import UserError, check_choice
from srcnn.files import check_folder, write_image
from srcnn.image import bicubic_down, modcrop, quantize, to_uint8
from srcnn.metrics import PROTOCOLS
from srcnn.nets import Network
from srcnn.run.checkpoint import find_checkpoint, load_network, run_of
from srcnn.run.cli import command
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

    check_choice("protocol", cfg.protocol, tuple(PROTOCOLS))
    net.to(device_of(cfg.trainer.accelerator))
    path = find_checkpoint(cfg.ckpt_path, cfg.scale)
    run = run_of(path, checkpoint)
    sets = test_sets(cfg.data.test, run)
    if with_images:
        print(f"no input= is given: super-resolving and scoring the test images of {', '.join(sets)}", flush=True)
    samples, device = read_sets(sets, cfg.data.root, net.scale), next(net.parameters()).device
    scores = []
    for sample in samples:
        hr = sample.hr[None].to(device).float() / 255
        if with_images:
            sr = super_resolve(net, quantize(bicubic_down(modcrop(hr, net.scale), net.scale)))
            write_image(folder / sample.image_set / f"{sample.name}_x{net.scale}.png", to_uint8(sr)[0].cpu())
        scores.append((sample.image_set, sample.name, PROTOCOLS[cfg.protocol].score(net, hr)))
    logs = (parent / "metrics.csv" for parent in path.absolute().parents[:2])
    facts = {"protocol": cfg.protocol, "checkpoint": str(path)}
    report.write(folder, net, samples, scores, facts, run, next((log for log in logs if log.is_file()), None))


def main() -> None:
    command(evaluate, "evaluate")


if __name__ == "__main__":
    main()
