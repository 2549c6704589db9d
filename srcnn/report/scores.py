"""The scores of a test: a table to print, CSV and JSON; and how far several networks differ."""

import csv
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from srcnn.data.samples import Sample
from srcnn.files import replacing
from srcnn.metrics import Score, mean_score

Scores = Sequence[tuple[str, str, Score]]  # set, image, score
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


class SetScores(NamedTuple):
    """The scores of one image set, a column a network.

    note         about images that bicubic or a network has exactly, with an infinite PSNR: no mean has them; or ""
    differences  of the networks after the first, to the first (see `difference`)
    """

    images: dict[str, list[Score]]
    mean: list[Score]
    infinite: int
    note: str
    differences: list[dict[str, float]]


def by_set(columns: Sequence[Scores]) -> dict[str, SetScores]:
    """The scores of networks on the same images, by set."""
    sets: dict[str, SetScores] = {}
    for name in dict.fromkeys(image_set for image_set, *_ in columns[0]):
        by_image = [{image: score for image_set, image, score in scores if image_set == name} for scores in columns]
        images = {image: [scores[image] for scores in by_image] for image in by_image[0]}
        finite = [row for row in images.values() if not any(math.inf in (s.psnr, s.bicubic_psnr) for s in row)]
        means = [mean_score(list(column)) for column in zip(*finite, strict=True)]
        psnr = np.array([[score.psnr for score in row] for row in finite]).reshape(-1, len(columns))
        infinite = len(images) - len(finite)
        what = "1 image is" if infinite == 1 else f"{infinite} images are"
        note = f"{what} exact (infinite PSNR) and left out of the mean" if infinite else ""
        differences = [difference(column - psnr[:, 0]) for column in psnr.T[1:]]
        unknown = [Score(*[math.nan] * 4)] * len(columns)
        sets[name] = SetScores(images, means or unknown, infinite, note, differences)
    return sets


def difference(values: np.ndarray) -> dict[str, float]:
    """The mean "difference" in dB over "n" images, and the ends "low" and "high" of its 95 % interval.

    The interval: percentiles of the mean over 10,000 resamples of the images, each of which is compared with itself
    (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13). Of few images it is too narrow.
    """
    known = values if len(values) else np.array([math.nan])
    means = np.random.default_rng(0).choice(known, (10_000, len(known))).mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return {"difference": float(known.mean()), "low": float(low), "high": float(high), "n": len(values)}


def format_difference(found: Mapping[str, float]) -> str:
    return "{difference:+.3f} dB (95 % interval {low:+.3f} to {high:+.3f}, n = {n})".format(**found)


def psnr(scores: Scores) -> dict[str, float]:
    """The mean PSNR of each set, in dB, for a record."""
    return {name: round(found.mean[0].psnr, 3) for name, found in by_set([scores]).items()}


def name_results(results: Sequence[TestResult]) -> dict[str, TestResult]:
    """By name: a single one by its network, several by the last part of their paths that no other has."""
    if len(results) == 1:
        return {results[0].facts["network"]: results[0]}
    paths = [str(result.facts["checkpoint"]) for result in results]
    parts = [Path(path).with_suffix("").parts for path in paths]
    used = [*VIEWS, *VIEWS, *(part for one in parts for part in set(one))]
    unique = [[part for part in one if used.count(part) == 1] for one in parts]
    return {one[-1] if one else path: result for one, path, result in zip(unique, paths, results, strict=True)}


def table(results: Mapping[str, TestResult]) -> str:
    """Per image and in the mean: PSNR in dB and SSIM of bicubic and every network; the gain, or the differences."""
    (first, *others), lines = results, []
    facts = results[first].facts
    for name, found in by_set([result.scores for result in results.values()]).items():
        rows = [["image", "bicubic", *results, "gain"]]
        for image, row in [*found.images.items(), ("mean", found.mean)]:
            pairs = [(row[0].bicubic_psnr, row[0].bicubic_ssim), *((score.psnr, score.ssim) for score in row)]
            short = image if len(image) <= 28 else f"{image[:13]}…{image[-14:]}"
            rows.append([short, *(f"{psnr:.2f}  {ssim:.4f}" for psnr, ssim in pairs), f"{row[0].gain:+.2f}"])
        conditions = f"protocol {facts['protocol']}, LR {facts['degradation']}"
        lines.append(f"{name} x{facts['scale']}: PSNR (dB) and SSIM on luma, {conditions}")
        lines += align([row[:-1] for row in rows] if others else rows)
        lines += [found.note] if found.note else []
        differences = zip(others, found.differences, strict=True)
        lines += [f"{other} - {first}: {format_difference(how_far)}" for other, how_far in differences] + [""]
    return "\n".join(lines[:-1])


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of texts as lines: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    cells = [[row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows]
    return ["  ".join(row) for row in cells]


def write_scores(folder: Path, results: Mapping[str, TestResult]) -> None:
    """`scores.csv`, a row an image and one a mean, and `scores.json`, the same with the facts it rests on.

    The means of several networks have the difference to the first; the JSON has each of them under "networks".
    """
    sets, rows, documents = by_set([result.scores for result in results.values()]), [], {}
    for number, (name, result) in enumerate(results.items()):
        documents[name] = document = {**result.facts, "mean": {}, "images": {}}
        for image_set, found in sets.items():
            images = {image: _rounded(row[number].as_dict()) for image, row in found.images.items()}
            mean = _rounded(found.mean[number].as_dict() | (found.differences[number - 1] if number else {}))
            mean["infinite"] = found.infinite
            document["images"][image_set], document["mean"][image_set] = images, mean
            facts = {key: result.facts[key] for key in ("protocol", "degradation")}
            for image, figures in [*images.items(), ("mean", mean)]:
                rows.append({"network": name, "set": image_set, "image": image, **figures, **facts})
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(folder / "scores.csv", rows)
    content = json.dumps({"networks": documents} if len(documents) > 1 else next(iter(documents.values())))
    content = json.loads(content, parse_constant=lambda _: None)  # JSON has no NaN and no infinity
    with replacing(folder / "scores.json") as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _rounded(figures: Mapping[str, float]) -> dict[str, float]:
    return {key: round(value, 6) for key, value in figures.items()}


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
