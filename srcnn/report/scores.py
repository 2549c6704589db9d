"""The scores of a test: as a table to print, as CSV and as JSON."""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from srcnn.files import replacing
from srcnn.metrics import Score, mean_score

Scores = Sequence[tuple[str, str, Score]]  # set, image, score


def means(scores: Scores) -> dict[str, Score]:
    """The mean of each set, in the order of the test."""
    names = dict.fromkeys(image_set for image_set, _, _ in scores)
    return {name: mean_score([score for image_set, _, score in scores if image_set == name]) for name in names}


def table(scores: Scores, network: str, scale: int, protocol: str, degradation: str = "bicubic") -> str:
    """Per image and in the mean: bicubic and network, PSNR in dB and SSIM, and the gain."""
    lines = []
    for image_set, mean in means(scores).items():
        rows = [(image, score) for other, image, score in scores if other == image_set]
        width = max(len(image) for image, _ in [*rows, ("image", mean)])
        lines += [
            f"{image_set} x{scale}, PSNR (dB) and SSIM on luma, protocol {protocol}, LR {degradation}",
            f"{'image':<{width}}  {'bicubic':>14}  {network:>14}  {'gain':>6}",
            *(_row(image, score, width) for image, score in rows),
            _row("mean", mean, width),
            "",
        ]
    return "\n".join(lines[:-1])


def _row(name: str, s: Score, width: int) -> str:
    return f"{name:<{width}}  {s.bicubic_psnr:6.2f}  {s.bicubic_ssim:.4f}  {s.psnr:6.2f}  {s.ssim:.4f}  {s.gain:+6.2f}"


def write_scores(folder: Path, scores: Scores, facts: Mapping[str, Any]) -> dict[str, Any]:
    """`scores.csv`, a row an image and one a mean, and `scores.json`, the same with the `facts` they rest on.

    Returns what the latter holds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"set": s, "image": image, **finite(score)} for s, image, score in scores]
    rows += [{"set": s, "image": "mean", **finite(score)} for s, score in means(scores).items()]
    write_csv(
        folder / "scores.csv",
        [{**row, "protocol": facts["protocol"], "degradation": facts["degradation"]} for row in rows],
    )
    document = {
        **facts,
        "mean": {s: finite(score) for s, score in means(scores).items()},
        "images": {s: {n: finite(score) for o, n, score in scores if o == s} for s in means(scores)},
    }
    with replacing(folder / "scores.json") as temporary:
        temporary.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return document


def finite(score: Score) -> dict[str, float | None]:
    """A score's figures by name, None where one is not a number."""
    return {key: round(value, 6) if math.isfinite(value) else None for key, value in score.as_dict().items()}


def read_csv(path: Path) -> list[dict[str, Any]]:
    """The rows of a CSV file, without a last one that a kill cut off: its numbers may be other numbers.

    UnicodeDecodeError or csv.Error where the file is no CSV.
    """
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader((line for line in file if line.endswith("\n")), strict=True))


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows into a CSV file; a column for every key that any of them has."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=columns)
        writer.writeheader()
        writer.writerows(rows)
