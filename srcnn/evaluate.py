"""Score a checkpoint on named image sets or folders, beside bicubic.

    python -m srcnn.evaluate                                                    our weights on Set5; scale=2 | 3 | 4
    python -m srcnn.evaluate ckpt_path=CKPT                                     on what it was to be tested on
    python -m srcnn.evaluate ckpt_path=CKPT data.test=[Set5,Set14] protocol=basicsr
    python -m srcnn.evaluate degradation=camera                                 on blurred, noisy, compressed LR
    python -m srcnn.evaluate ckpt_path=[A,B,srcnn_x3] data.test=[Set5,Set14]    beside each other: how far from A?

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
from srcnn.inference.image_file import check_folder, write_image
from srcnn.image import to_uint8
from srcnn.metrics import find_protocol
from srcnn.nets import Network
from srcnn.run import CONFIGS
from srcnn.checkpoint import find_checkpoint, load_network, run_of
from srcnn.launch import command
from srcnn.run.make import make
from srcnn.inference.tiles import device_of, super_resolve


def new_folder(output: str | None, name: str) -> Path:
    """The folder to write to: `output`, or one of this moment below outputs/."""
    if output:
        check_folder(f"output={output}", output)
    moment = time.strftime("%Y-%m-%d/%H-%M-%S")
    return Path(output or f"outputs/{moment}-{os.urandom(2).hex()}-{name}")


def evaluate(cfg: DictConfig) -> None:
    """Score the checkpoints of cfg.ckpt_path, "[A,B]" or a single one, on the sets of cfg.data.test."""
    given = cfg.ckpt_path
    several = given is not None and given[0] + given[-1] == "[]" and not Path(given).exists()
    paths = [find_checkpoint(name, cfg.scale) for name in (given[1:-1].split(",") if several else [given])]
    score_sets(cfg, {path: load_network(path, cfg.scale) for path in paths})


def score_sets(
    cfg: DictConfig, loaded: Mapping[Path, tuple[Network, dict[str, Any]]], with_images: bool = False
) -> None:
    """Super-resolve the test images, shrunk; score and show the result. `with_images` writes each (predict.py)."""
    from srcnn import report
    from srcnn.data.samples import read_sets
    from srcnn.report.panels import lr_and_hr

    protocol, folder = find_protocol(cfg.protocol), new_folder(cfg.output, "predict" if with_images else "evaluate")
    device, tested = device_of(cfg.trainer.accelerator), []
    runs = {path: run_of(path, checkpoint) for path, (_, checkpoint) in loaded.items()}
    nets = {path: net.to(device) for path, (net, _) in loaded.items()}
    scale, *others = {net.scale for net in nets.values()}
    degradations = {found.describe(): found for found in (_degradation(cfg.degradation, run) for run in runs.values())}
    if others:
        raise UserError(f"ckpt_path={cfg.ckpt_path}: networks of different scales cannot be compared")
    if len(degradations) > 1:
        different = " and ".join(degradations)
        raise UserError(f"ckpt_path={cfg.ckpt_path}: trained for {different}: choose what to test on, by degradation=")
    ((described, degradation),) = degradations.items()
    sets = cfg.data.test or next(iter(runs.values())).get("values", {}).get("data.test") or ["Set5"]
    if isinstance(sets, str) or not isinstance(sets, Sequence) or not all(isinstance(name, str) for name in sets):
        raise UserError(f"data.test={sets}: must be a list of sets or folders, as data.test=[Set5]")
    if with_images:
        print(f"no input= is given: super-resolving and scoring the test images of {', '.join(sets)}", flush=True)
    samples = read_sets(list(sets), cfg.data.root, scale, degradation)
    for path, net in nets.items():
        scores = []
        for sample in samples:
            if with_images:
                sr = super_resolve(net, lr_and_hr(sample, scale)[0].to(device))
                write_image(folder / sample.image_set / f"{sample.name}_x{scale}.png", to_uint8(sr)[0].cpu())
            hr, lr = sample.tensors(device)
            scores.append((sample.image_set, sample.name, protocol.score(net, hr, lr=lr)))
        facts = {"protocol": cfg.protocol, "degradation": described, "checkpoint": str(path)}
        logs = [parent / "metrics.csv" for parent in path.absolute().parents[:2]]
        log = next(filter(Path.is_file, logs), None)
        tested.append(report.Tested(net, scores, facts, runs[path], log))
    report.write(folder, tested, samples)
    if with_images:
        print(f"images      {folder}")


def _degradation(name: str | None, run: Mapping[str, Any]) -> Degradation:
    """The degradation of this name in configs/degradation, or else the one that the checkpoint was trained for."""
    files = [path for path in sorted((CONFIGS / "degradation").glob("*.yaml")) if path.stem != "none"]
    known: dict[str, Any] = {path.stem: OmegaConf.load(path) for path in files}
    if name is not None:
        check_choice("degradation", name, tuple(known))
        return make("degradation", known[name])
    target, values = run.get("classes", {}).get("degradation"), run.get("values", {})
    settings = next((one for one in known.values() if one._target_ == target), known["bicubic"])
    given = {key: values.get(f"degradation.{key}", value) for key, value in settings.items()}
    return make("degradation", OmegaConf.create(given))


def main() -> None:
    command(evaluate, "evaluate")


if __name__ == "__main__":
    main()
