"""The scores of a test: as a table to print, as CSV and as JSON; of several networks also how far they are apart."""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from srcnn.files import replacing
from srcnn.metrics import Score, mean_score
from srcnn.nets import Network

Scores = Sequence[tuple[str, str, Score]]  # set, image, score
VIEWS = ("bicubic", "ground truth", "LR")  # what a page shows beside networks, and so no network's name


class Tested(NamedTuple):
    """A network and what a test found.

    facts  of the test: "protocol", "degradation", "checkpoint", and what else scores.json should hold
    run    what is known of the training, {} for bare weights
    log    the metrics.csv of the training
    """

    net: Network
    scores: Scores
    facts: Mapping[str, Any]
    run: Mapping[str, Any] = {}
    log: Path | None = None


def names(tested: Sequence[Tested]) -> list[str]:
    """What each is called: a single one by its class, several by the last part of their paths that no other has."""
    if len(tested) == 1:
        return [type(tested[0].net).__name__]
    paths = [Path(one.facts["checkpoint"]).with_suffix("") for one in tested]
    taken = [*VIEWS, *VIEWS, *(part for path in paths for part in set(path.parts))]
    parts = [[part for part in path.parts if taken.count(part) == 1] for path in paths]
    given = [str(one.facts["checkpoint"]) for one in tested]
    return [found[-1] if found else path for found, path in zip(parts, given, strict=True)]


def means(scores: Scores) -> dict[str, Score]:
    """The mean of each set, in the order of the test."""
    sets = dict.fromkeys(image_set for image_set, _, _ in scores)
    return {name: mean_score([score for image_set, _, score in scores if image_set == name]) for name in sets}


def psnr(scores: Scores) -> dict[str, float]:
    """The mean PSNR of each set, in dB, for a record."""
    return {name: round(mean.psnr, 3) for name, mean in means(scores).items()}


def table(networks: Mapping[str, Tested]) -> str:
    """Per image and in the mean: PSNR in dB and SSIM of bicubic and every network; the gain, or the differences."""
    first, *others = networks
    scale, facts, lines = networks[first].net.scale, networks[first].facts, []
    widths = [max(14, len(name)) for name in ("bicubic", *networks)]
    for image_set, apart in differences(networks).items():
        rows = [("image", ["bicubic", *networks], "  gain")]
        for image, found in rows_of(networks, image_set):
            pairs = [(found[0].bicubic_psnr, found[0].bicubic_ssim), *((score.psnr, score.ssim) for score in found)]
            rows.append((image, [f"{psnr:6.2f}  {ssim:.4f}" for psnr, ssim in pairs], f"{found[0].gain:+6.2f}"))
        wide = max(len(image) for image, *_ in rows)
        about = f"protocol {facts['protocol']}, LR {facts['degradation']}"
        lines.append(f"{image_set} x{scale}, PSNR (dB) and SSIM on luma, {about}")
        for image, cells, gain in rows:
            cells = [f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)]
            lines.append("  ".join([f"{image:<{wide}}", *cells, *([] if others else [gain])]))
        lines += [*(f"{other} - {first}: {said(apart[other])}" for other in others), ""]
    return "\n".join(lines[:-1])


def rows_of(networks: Mapping[str, Tested], image_set: str) -> list[tuple[str, list[Score]]]:
    """The images of a set and, last, its mean, each with the score of every network."""
    columns = []
    for one in networks.values():
        images = [(image, score) for other, image, score in one.scores if other == image_set]
        columns.append([*images, ("mean", means(one.scores)[image_set])])
    return [(row[0][0], [score for _, score in row]) for row in zip(*columns, strict=True)]


def differences(networks: Mapping[str, Tested]) -> dict[str, dict[str, dict[str, Any]]]:
    """Per set, by how many dB of PSNR every network is above the first: "mean", "low", "high", and of "n" images.

    low and high bound a 95 % interval: the percentiles of the mean over 10,000 resamples of the images, of which each
    is compared with itself (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13). Of few images
    such an interval is too narrow.
    """
    first, *others = networks
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for image_set in means(networks[first].scores):
        psnr = np.array([[s.psnr for s in scores] for _, scores in rows_of(networks, image_set)[:-1]])
        found[image_set] = {}
        for column, other in enumerate(others, 1):
            apart = psnr[:, column] - psnr[:, 0]
            known = apart[np.isfinite(apart)]  # identical images are infinite dB
            apart = known if len(known) else np.array([math.nan])
            resampled = np.random.default_rng(0).choice(apart, (10_000, len(apart)))
            low, high = map(float, np.percentile(resampled.mean(1), [2.5, 97.5]))
            found[image_set][other] = {"mean": float(apart.mean()), "low": low, "high": high, "n": len(known)}
    return found


def said(apart: Mapping[str, Any]) -> str:
    """A difference in words."""
    return "{mean:+.3f} dB (95 % interval {low:+.3f} to {high:+.3f}, n = {n})".format(**apart)


def about(one: Tested) -> dict[str, Any]:
    """The network of a test, and the facts of it."""
    net = one.net
    size = {"parameters": net.parameter_count, "multiply_adds_1280x720": net.multiply_adds()}
    return {"network": type(net).__name__, **size, "scale": net.scale, **one.facts}


def write_scores(folder: Path, networks: Mapping[str, Tested]) -> None:
    """`scores.csv`, a row an image and one a mean, and `scores.json`, the same with the facts they rest on.

    Of several networks the CSV has a column "network" and their differences to the
    first, and the JSON has what it would hold of each under "networks".
    """
    folder.mkdir(parents=True, exist_ok=True)
    apart = {s: {name: _rounded(other) for name, other in found.items()} for s, found in differences(networks).items()}
    documents, rows = {}, []
    for name, (_, scores, facts, *_) in networks.items():
        mean = {image_set: _rounded(score.as_dict()) for image_set, score in means(scores).items()}
        images = {s: {image: _rounded(score.as_dict()) for other, image, score in scores if other == s} for s in mean}
        documents[name] = {**about(networks[name]), "mean": mean, "images": images}
        own = [(s, image, score) for s in mean for image, score in images[s].items()]
        for image_set, image, score in [*own, *((s, "mean", score) for s, score in mean.items())]:
            row = {"set": image_set, "image": image, **score}
            row |= {key: facts[key] for key in ("protocol", "degradation")}
            if len(networks) > 1:
                row = {"network": name, **row}
                if other := apart[image_set].get(name) if image == "mean" else None:
                    row |= {"difference": other["mean"], "low": other["low"], "high": other["high"]}
            rows.append(row)
    write_csv(folder / "scores.csv", rows)
    document = {"networks": documents, "differences": apart} if len(networks) > 1 else next(iter(documents.values()))
    with replacing(folder / "scores.json") as temporary:
        temporary.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _rounded(figures: Mapping[str, float]) -> dict[str, float | None]:
    """Figures as JSON has them, None where one is not a number."""
    return {key: round(value, 6) if math.isfinite(value) else None for key, value in figures.items()}


def read_csv(path: Path) -> list[dict[str, Any]]:
    """The rows of a CSV file, without a last one that a kill cut off: its numbers may be other numbers.

    UnicodeDecodeError or csv.Error where the file is no CSV.
    """
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader((line for line in file if line.endswith("\n")), strict=True))


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Rows into a CSV file; a column for every key that any of them has. Returns the columns."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=columns)
        writer.writeheader()
        writer.writerows(rows)
    return columns
