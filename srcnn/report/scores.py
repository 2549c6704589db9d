"""The scores of a test: a table to print, CSV and JSON; and how far several networks differ."""

import csv
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from torch import Tensor

from srcnn.data.samples import Sample
from srcnn.files import replacing
from srcnn.metrics import Score, mean_score

Scores = Sequence[tuple[str, str, Score]]  # set, image, score
Networks = Mapping[str, Mapping[str, Any]]  # what `summarise` returns
VIEWS = ("bicubic", "ground truth", "LR")  # what pages show beside the networks: no network goes by these names


class TestResult(NamedTuple):
    """What a test found of one network, or of a folder of SR images.

    facts    "network", "scale", "protocol", "degradation", "checkpoint" (the file or folder), and more for scores.json
    enlarge  makes the SR image [1, C, H, W] in [0, 1] of a test image, to be looked at
    run      what is known of the training, {} if nothing is
    log      the metrics.csv of the training
    """

    facts: Mapping[str, Any]
    scores: Scores
    enlarge: Callable[[Sample], Tensor]
    run: Mapping[str, Any] = {}
    log: Path | None = None


def name_results(results: Sequence[TestResult]) -> dict[str, TestResult]:
    """By name: a single one by its network, several by the last part of their paths that no other has."""
    if len(results) == 1:
        return {results[0].facts["network"]: results[0]}
    paths = [str(result.facts["checkpoint"]) for result in results]
    parts = [Path(path).with_suffix("").parts for path in paths]
    used = [*VIEWS, *VIEWS, *(part for one in parts for part in set(one))]
    unique = [[part for part in one if used.count(part) == 1] for one in parts]
    return {one[-1] if one else path: result for one, path, result in zip(unique, paths, results, strict=True)}


def summarise(results: Mapping[str, TestResult]) -> dict[str, dict[str, Any]]:
    """What scores.json holds of each network: its facts, and by set the figures of all "images" and their "mean".

    Images that bicubic or a network has exactly, with an infinite PSNR, are counted as "infinite" and are in no mean.
    Of the networks after the first, the mean "difference" to the first in dB, image by image, has its "standard_error".
    """
    networks: dict[str, dict[str, Any]] = {name: {**r.facts, "mean": {}, "images": {}} for name, r in results.items()}
    for image_set in dict.fromkeys(name for result in results.values() for name, *_ in result.scores):
        columns = [{image: s for name, image, s in r.scores if name == image_set} for r in results.values()]
        exact = {image for column in columns for image, s in column.items() if math.inf in (s.psnr, s.bicubic_psnr)}
        kept = [[score for image, score in column.items() if image not in exact] for column in columns]
        for network, column, scores in zip(networks.values(), columns, kept, strict=True):
            mean = mean_score(scores).as_dict() | {"infinite": len(exact)}
            differences = [score.psnr - first.psnr for score, first in zip(scores, kept[0], strict=True)]
            if column is not columns[0] and differences:
                mean["difference"] = fmean(differences)
                mean["standard_error"] = stdev(differences) / len(differences) ** 0.5 if differences[1:] else math.nan
            network["mean"][image_set] = _rounded(mean)
            network["images"][image_set] = {image: _rounded(score.as_dict()) for image, score in column.items()}
    return networks


def _rounded(figures: Mapping[str, float]) -> dict[str, float]:
    return {key: round(value, 6) for key, value in figures.items()}


def psnr(scores: Scores) -> dict[str, float]:
    """The mean PSNR of each set, in dB, for a record."""
    by_set = {name: [score for other, _, score in scores if other == name] for name, *_ in scores}
    return {name: round(mean_score(of_set).psnr, 6) for name, of_set in by_set.items()}


def notes(networks: Networks, image_set: str) -> list[str]:
    """What stands below the table of a set: how many images are left out, and how far the networks differ."""
    first, *_ = networks
    count, lines = networks[first]["mean"][image_set]["infinite"], []
    if count:
        what = "1 image is" if count == 1 else f"{count} images are"
        lines.append(f"{what} exact (infinite PSNR) and left out of the mean")
    images = len(networks[first]["images"][image_set]) - count
    for name, network in networks.items():
        if "difference" in (mean := network["mean"][image_set]):
            text = "{difference:+.3f} dB, standard error {standard_error:.3f}".format(**mean)
            lines.append(f"{name} - {first}: {text} (n = {images})")
    return lines


def table(networks: Networks) -> str:
    """Per image and in the mean: PSNR in dB and SSIM of bicubic and every network; the gain, or the differences."""
    (first, *others), lines = networks.values(), []
    for image_set, images in first["images"].items():
        rows = [["image", "bicubic", *networks, *([] if others else ["gain"])]]
        columns = [[*n["images"][image_set].values(), n["mean"][image_set]] for n in networks.values()]
        for image, *found in zip([*images, "mean"], *columns, strict=True):
            pairs = [(found[0]["bicubic_psnr"], found[0]["bicubic_ssim"])]
            pairs += [(one["psnr"], one["ssim"]) for one in found]
            cells = [f"{figure(psnr)}  {figure(ssim, '.4f')}" for psnr, ssim in pairs]
            short = image if len(image) <= 28 else f"{image[:13]}…{image[-14:]}"
            rows.append([short, *cells, *([] if others else [figure(found[0]["gain"], "+.2f")])])
        conditions = f"protocol {first['protocol']}, LR {first['degradation']}"
        lines.append(f"{image_set} x{first['scale']}: PSNR (dB) and SSIM on luma, {conditions}")
        lines += [*align(rows), *notes(networks, image_set), ""]
    return "\n".join(lines[:-1])


def figure(value: float | None, form: str = ".2f") -> str:
    """A figure to show; a dash for one that is not known."""
    return "–" if value is None or math.isnan(value) else format(value, form).replace("inf", "∞")


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of texts as lines: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]


def write_scores(folder: Path, networks: Networks) -> None:
    """`scores.csv`, a row an image and one a mean, and `scores.json`: of several networks by name under "networks"."""
    rows = []
    for name, network in networks.items():
        facts = {key: network[key] for key in ("protocol", "degradation")}
        for image_set, images in network["images"].items():
            for image, figures in [*images.items(), ("mean", network["mean"][image_set])]:
                rows.append({"network": name, "set": image_set, "image": image, **figures, **facts})
    write_csv(folder / "scores.csv", rows)
    content = json.dumps({"networks": networks} if len(networks) > 1 else next(iter(networks.values())))
    content = json.loads(content, parse_constant=lambda _: None)  # JSON has no NaN and no infinity
    with replacing(folder / "scores.json") as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_csv(path: Path) -> list[dict[str, Any]]:
    """The rows of a CSV file, without a last one that a kill cut off: its numbers may be other numbers."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(line for line in file if line.endswith("\n")))


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows into a CSV file, with a column for every key that any of them has."""
    columns = dict.fromkeys(key for row in rows for key in row)
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=[*columns])
        writer.writeheader()
        writer.writerows(rows)
