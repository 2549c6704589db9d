"""Score a checkpoint on named image sets or folders, beside bicubic.

    python -m srcnn.evaluate                                                    our weights on Set5; scale=2 | 3 | 4
    python -m srcnn.evaluate ckpt_path=CKPT                                     on what it was to be tested on
    python -m srcnn.evaluate ckpt_path=CKPT data.test=[Set5,Set14] protocol=basicsr

Prints a table per set and writes report.html, scores.csv, scores.json and comparison.png into a folder below outputs/,
or output=.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from srcnn import report
from srcnn.check import check_device, check_output, check_protocol, device_of
from srcnn.checkpoint import find_checkpoint, load_network
from srcnn.command import command
from srcnn.config import typed
from srcnn.data.datamodule import Sample, read_sets
from srcnn.data.sets import find_images
from srcnn.errors import UserError
from srcnn.metrics import PROTOCOLS
from srcnn.nets import Network


def check(cfg: DictConfig) -> None:
    """What can be known to be wrong before anything is computed."""
    check_protocol(cfg)
    check_device(cfg.trainer.accelerator)
    _, checkpoint = load_network(cfg.ckpt_path, cfg.scale)
    check_output(cfg.output)
    for name in test_sets(cfg, checkpoint):
        find_images(name, cfg.data.root)


def test_sets(cfg: DictConfig, checkpoint: dict[str, Any]) -> Sequence[str]:
    """The sets asked for, or else those that the checkpoint's run named, or else Set5."""
    if cfg.data.test is not None:
        if isinstance(cfg.data.test, str) or not len(cfg.data.test):
            raise UserError(f"data.test={cfg.data.test}: must be a list of sets or folders, as data.test=[Set5]")
        return list(cfg.data.test)
    named = checkpoint.get("srcnn", {}).get("values", {}).get("data.test", ["Set5"])
    if not isinstance(named, list) or not named or not all(isinstance(n, str) and len(n) < 4096 for n in named):
        raise UserError("the checkpoint names no set to test on: give data.test=[Set5]")
    return named


def evaluate(
    net: Network, samples: Sequence[Sample], cfg: DictConfig, checkpoint: dict[str, Any], folder: Path
) -> None:
    """Score `samples`, print the table, write scores, picture and page into `folder`."""
    device = next(net.parameters()).device
    scores = [
        (sample.image_set, sample.name, PROTOCOLS[cfg.protocol].score(net, sample.hr[None].to(device).float() / 255))
        for sample in samples
    ]
    path = find_checkpoint(cfg.ckpt_path, cfg.scale)
    settings = checkpoint.get("srcnn")
    run = (settings or {}).get("run", {})
    commands = [report.evaluation(path, test_sets(cfg, checkpoint), cfg.protocol)]
    if "overrides" in run:
        commands.insert(0, ("How these weights were trained", ["python", "train.py", *typed(run["overrides"])]))
    facts = {"protocol": cfg.protocol, "checkpoint": str(path)}
    log = next((p for p in (folder / "metrics.csv" for folder in path.absolute().parents[:2]) if p.is_file()), None)
    report.write(folder, net, samples, scores, facts, settings, log, commands)


def main(cfg: DictConfig) -> None:
    net, checkpoint = load_network(cfg.ckpt_path, cfg.scale)
    net.to(device_of(cfg.trainer.accelerator))
    samples = read_sets(test_sets(cfg, checkpoint), cfg.data.root, net.scale)
    evaluate(net, samples, cfg, checkpoint, Path(cfg.output or cfg.run_dir))


if __name__ == "__main__":
    command(main, "evaluate", check)
