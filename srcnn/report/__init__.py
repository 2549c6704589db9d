"""What a test or a run shows: the table, CSV and JSON, a comparison of images, and a page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from srcnn.data.samples import Sample
from srcnn.nets import Network
from srcnn.report.page import MOST_BYTES, MOST_IMAGES, card, write_report
from srcnn.report.panels import MOST_COMPARED, shown, write_comparison
from srcnn.report.scores import Scores, Tested, names, psnr, table, write_scores

__all__ = ["Tested", "psnr", "write", "write_run"]

_FACTS = ("protocol", "degradation", "checkpoint", "val_psnr", "name", "overrides", "steps", "seconds")  # of a run


def write(folder: Path, tested: Sequence[Tested], samples: Sequence[Sample]) -> None:
    """Print the table of a test; write scores.csv, scores.json, comparison.png and report.html into `folder`.

    Several networks, of one scale and tested alike, are shown beside each other, with their differences to the first.
    """
    networks, facts = dict(zip(names(tested), tested, strict=True)), tested[0].facts
    write_scores(folder, networks)
    cards, images, size = [], [], 0
    for number, image in enumerate(shown(networks, samples, MOST_IMAGES)):
        if size < MOST_BYTES:
            cards.append(card(image))
            size += sum(map(len, cards[-1]["views"].values()))
        if number < MOST_COMPARED:
            images.append(image)
    write_comparison(folder / "comparison.png", images)
    commands: dict[str, list[str]] = {}
    for name, one in networks.items():
        if "overrides" in one.run:
            commands[f"How {name} was trained"] = ["python", "train.py", *one.run["overrides"]]
    paths = [str(one.facts["checkpoint"]) for one in tested]
    settings = [f"ckpt_path={paths[0] if len(paths) == 1 else '[' + ','.join(paths) + ']'}"]
    settings.append(f"data.test=[{','.join(dict.fromkeys(sample.source for sample in samples))}]")
    settings.append(f"protocol={facts['protocol']}")
    if {one.run.get("degradation", "bicubic") for one in tested} != {facts["degradation"]}:  # else evaluate finds it
        settings.append(f"degradation={facts['degradation'].split()[0]}")
    commands["Test again"] = ["python", "-m", "srcnn.evaluate", *settings]
    page = ["python", "-m", "srcnn.export", "format=html", f"ckpt_path={paths[0]}"]
    commands[f"A page on which anybody enlarges photographs with {next(iter(networks))}"] = page
    write_report(folder / "report.html", networks, cards, commands)
    print(f"\n{table(networks)}\n")
    for name, path in zip(networks, paths, strict=True):
        print(f"{'weights' if len(tested) == 1 else name:<11} {path}")
    print(f"comparison  {folder / 'comparison.png'}\nreport      {folder / 'report.html'}")


def write_run(folder: Path, net: Network, scores: Scores, samples: Sequence[Sample], run: Mapping[str, Any]) -> None:
    """Print and write, as `write` does, what the test of a run found, with the run's facts and its curves."""
    tested = Tested(net, scores, {key: run[key] for key in _FACTS}, run, folder / "metrics.csv")
    write(folder, [tested], samples[: len(scores)])
