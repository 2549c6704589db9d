"""What a test or a run shows: the table, CSV and JSON, a comparison of images, and a page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import join
from typing import Any

from torch import Tensor

from srcnn.data.samples import Sample
from srcnn.inference.tiles import super_resolve
from srcnn.nets import Network
from srcnn.report.page import card, curves, write_page
from srcnn.report.panels import Comparison, lr_image, write_comparison
from srcnn.report.scores import Scores, TestResult, name_results, psnr, summarise, table, write_scores

__all__ = ["TestResult", "network_result", "psnr", "write", "write_run"]

_MOST_CARDS, _MOST_COMPARED = 10, 5  # images on the page and in comparison.png


def write_run(folder: Path, net: Network, scores: Scores, samples: Sequence[Sample], run: Mapping[str, Any]) -> None:
    """Print and write, as `write` does, what the test of a run found, whose weights.pth is in `folder` already."""
    checkpoint = str(folder / "weights.pth")
    facts = {"protocol": run["protocol"], "degradation": run["degradation"], "checkpoint": checkpoint}
    again = ["-m", "srcnn.evaluate", f"ckpt_path={checkpoint}", f"protocol={run['protocol']}"]  # it tells the test sets
    try:
        result = network_result(net, scores, facts, run, folder / "metrics.csv")
        write(folder, [result], samples[: len(scores)], again)
    except KeyboardInterrupt:
        command = join(["python", *again, f"output={folder}"])
        print(f"\nthe run is trained and tested, its report is not written; to write it: {command}", flush=True)
        raise


def network_result(
    net: Network, scores: Scores, facts: Mapping[str, Any], run: Mapping[str, Any], log: Path | None
) -> TestResult:
    """What the test of a network found: with the network's size, and what of its training scores.json holds."""

    def enlarge(sample: Sample) -> Tensor:
        device = next(net.parameters()).device
        return super_resolve(net, lr_image(sample).to(device)).clamp(0, 1).cpu()

    size = {"parameters": net.parameter_count, "multiply_adds_1280x720": net.multiply_adds(), "scale": net.scale}
    training = {key: run[key] for key in ("val_psnr", "overrides", "steps", "seconds") if key in run}
    return TestResult({"network": type(net).__name__, **size, **facts, **training}, scores, enlarge, run, log)


def write(folder: Path, tested: Sequence[TestResult], samples: Sequence[Sample], again: Sequence[str]) -> None:
    """Print the table of a test; write scores.csv, scores.json, comparison.png and report.html into `folder`.

    Several networks, of one scale and tested alike, are shown beside each other, with their differences to the first.
    `again` are the words that, after `python`, test them again.
    """
    results = name_results(tested)
    networks, several = summarise(results), len({sample.image_set for sample in samples}) > 1
    write_scores(folder, networks)
    cards, compared = [], []
    for number, sample in enumerate(samples[:_MOST_CARDS]):
        image = Comparison(results, sample, number, several)
        cards.append(card(image))
        compared += [image] if number < _MOST_COMPARED else []  # large images are not all kept
    write_comparison(folder / "comparison.png", compared)
    logs = {name: result.log for name, result in results.items()}
    loss = "Training loss" + (", dB" if any("PSNRLoss" in str(result.run) for result in tested) else "")
    write_page(
        folder / "report.html",
        "report.html",
        networks=networks,
        runs={name: result.run for name, result in results.items()},
        again=again,
        cards=cards,
        plots=curves(logs, "val/psnr", "PSNR on the validation images, dB") + curves(logs, "train/loss", loss),
    )
    print(f"\n{table(networks)}\n")
    for name, result in results.items():
        print(f"{'weights' if len(tested) == 1 else name:<11} {result.facts['checkpoint']}")
    print(f"comparison  {folder / 'comparison.png'}\nreport      {folder / 'report.html'}")
