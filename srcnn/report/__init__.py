"""What a test or a run shows: the table, CSV and JSON, a comparison of images, and a page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from srcnn.data.samples import Sample
from srcnn.nets import Network
from srcnn.report.page import MOST_BYTES, MOST_IMAGES, card, weight, write_report
from srcnn.report.panels import shown, write_comparison
from srcnn.report.scores import Scores, means, table, write_scores

__all__ = ["Scores", "means", "table", "write", "write_scores"]


def write(
    folder: Path,
    net: Network,
    samples: Sequence[Sample],
    scores: Scores,
    facts: Mapping[str, Any],
    run: Mapping[str, Any],
    log: Path | None = None,
) -> None:
    """Print the table of a test; write scores.csv, scores.json, comparison.png and report.html into `folder`.

    facts  of the test: "protocol", "degradation", "checkpoint" and what else scores.json should hold
    run    what is known of the training, {} for bare weights
    log    the metrics.csv of the training
    """
    network = type(net).__name__
    facts = {"network": network, "parameters": net.parameter_count, "scale": net.scale, **facts}
    document = write_scores(folder, scores, facts)
    cards: list[dict[str, Any]] = []
    images = []
    for number, image in enumerate(shown(net, samples, scores, MOST_IMAGES)):
        if sum(map(weight, cards)) < MOST_BYTES:
            cards.append(card(image, net.scale))
        if number < 5:
            images.append(image)
    write_comparison(folder / "comparison.png", images, network, net.scale)
    sets = f"data.test=[{','.join(dict.fromkeys(sample.source for sample in samples))}]"
    settings = [f"ckpt_path={facts['checkpoint']}", sets, f"protocol={facts['protocol']}"]
    if facts["degradation"] != run.get("degradation", "bicubic"):  # else evaluate takes it by itself
        settings.append(f"degradation={facts['degradation'].split()[0]}")
    commands = [("Test again", ["python", "-m", "srcnn.evaluate", *settings])]
    page = ["python", "-m", "srcnn.export", "format=html", f"ckpt_path={facts['checkpoint']}"]
    commands.append(("A page on which anybody enlarges photographs with these weights", page))
    if "overrides" in run:
        commands.insert(0, ("How these weights were trained", ["python", "train.py", *run["overrides"]]))
    write_report(folder / "report.html", document, cards, run, log, commands)
    print(f"\n{table(scores, network, net.scale, facts['protocol'], facts['degradation'])}\n")
    print(f"weights     {facts['checkpoint']}")
    print(f"comparison  {folder / 'comparison.png'}\nreport      {folder / 'report.html'}")
