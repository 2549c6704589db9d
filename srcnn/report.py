"""What a run shows for itself: the score table, CSV and JSON, the comparison picture, and a sweep's ranking."""

import csv
import json
import math
import platform
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from srcnn import page
from srcnn.data.datamodule import Sample
from srcnn.files import replacing, save_image, to_pillow
from srcnn.image import bicubic_down, bicubic_up, modcrop, quantize, rgb_to_y
from srcnn.metrics import Score, mean_score
from srcnn.nets import Network
from srcnn.upscale import super_resolve

Scores = Sequence[tuple[str, str, Score]]  # set, image, score
Shown = tuple[str, Tensor, Tensor, Tensor, Score]  # name, then LR, SR and HR as [1, 3, H, W] in [0, 1]

_PANEL = 240  # pixels of the picture, the widest an image gets
_BANDS = 5  # images in it
_ERROR_GAIN = 5
_INK, _PAPER, _MARK = (32, 32, 32), (255, 255, 255), (230, 97, 0)


def means(scores: Scores) -> dict[str, Score]:
    """The mean of each set, in the order of the test."""
    names = dict.fromkeys(image_set for image_set, _, _ in scores)
    return {name: mean_score([score for image_set, _, score in scores if image_set == name]) for name in names}


def table(scores: Scores, net: Network, protocol: str) -> str:
    """Per image and in the mean: bicubic and network, PSNR in dB and SSIM, and the gain."""
    name = type(net).__name__
    lines = []
    for image_set, mean in means(scores).items():
        rows = [(image, score) for other, image, score in scores if other == image_set]
        width = max(len(image) for image, _ in [*rows, ("image", None)])
        lines += [
            f"{image_set} x{net.scale}, PSNR (dB) and SSIM on luma, protocol {protocol}",
            f"{'image':<{width}}  {'bicubic':>14}  {name:>14}  {'gain':>6}",
            *(_row(image, score, width) for image, score in rows),
            _row("mean", mean, width),
            "",
        ]
    return "\n".join(lines[:-1])


def _row(name: str, s: Score, width: int) -> str:
    return f"{name:<{width}}  {s.bicubic_psnr:6.2f}  {s.bicubic_ssim:.4f}  {s.psnr:6.2f}  {s.ssim:.4f}  {s.gain:+6.2f}"


def write(
    folder: Path,
    net: Network,
    samples: Sequence[Sample],
    scores: Scores,
    facts: Mapping[str, Any],
    settings: Mapping[str, Any] | None = None,
    log: Path | None = None,
    commands: Sequence[tuple[str, Sequence[str]]] = (),
) -> None:
    """Print the table of a test and leave scores, picture and page in `folder` (see `page.write_report`)."""
    facts = {"network": type(net).__name__, "parameters": net.parameter_count, "scale": net.scale, **facts}
    document = write_scores(folder, scores, facts)
    pictures: list[dict] = []

    def for_both() -> Iterator[Shown]:  # one at a time, as they may be large: all for the page, few for the picture
        for number, item in enumerate(shown(net, samples, scores, page.MOST_IMAGES)):
            if sum(len(p[kind]) for p in pictures for kind in ("bicubic", "sr", "hr")) < page.MOST_BYTES:
                pictures.append(_page_picture(*item, net.scale))
            if number < _BANDS:
                yield item

    write_comparison(folder / "comparison.png", net, for_both())
    page.write_report(folder / "report.html", document, pictures, settings, log, commands)
    print(f"\n{table(scores, net, facts['protocol'])}\n")
    print(f"weights   {facts['checkpoint']}\npicture   {folder / 'comparison.png'}\nreport    {folder / 'report.html'}")


def evaluation(checkpoint: Path, test_sets: Sequence[str], protocol: str) -> tuple[str, list[str]]:
    """What to type to have a checkpoint scored again, and what for."""
    words = ["python", "-m", "srcnn.evaluate", f"ckpt_path={checkpoint}", f"data.test=[{','.join(test_sets)}]"]
    return "Test again", [*words, f"protocol={protocol}"]


def _page_picture(name: str, lr: Tensor, sr: Tensor, hr: Tensor, score: Score, scale: int) -> dict:
    """An image for the page; of a large one the part around where the network is most ahead of bicubic."""
    bicubic = bicubic_up(lr, scale).clamp(0, 1)
    height, width = hr.shape[-2:]
    part, most = "", page.MOST_SIDE
    if max(height, width) > 1.2 * most:
        y, x, side = _telling_crop(bicubic, sr, hr)
        top, left = (max(0, min(at + side // 2 - most // 2, whole - most)) for at, whole in ((y, height), (x, width)))
        bicubic, sr, hr = (image[..., top : top + most, left : left + most] for image in (bicubic, sr, hr))
        part = f"{hr.shape[-1]}×{hr.shape[-2]} pixels at ({left}, {top}) of {width}×{height}"
    return page.picture(name, bicubic, sr, hr, _finite(score), part)


def device_name(device: torch.device) -> str:
    """What a figure was measured on: the GPU's name, or the processor's and how many threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    names = (
        [line.split(":")[1].strip() for line in info.open() if line.startswith("model name")] if info.exists() else []
    )
    return f"{names[0] if names else platform.machine()}, {torch.get_num_threads()} threads"


def write_scores(folder: Path, scores: Scores, facts: Mapping[str, Any]) -> dict[str, Any]:
    """`scores.csv`, a row an image and one a mean, and `scores.json`, the same with the `facts` they rest on.

    Returns what the latter holds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"set": s, "image": image, **_finite(score)} for s, image, score in scores]
    rows += [{"set": s, "image": "mean", **_finite(score)} for s, score in means(scores).items()]
    rows = [{**row, "protocol": facts["protocol"]} for row in rows]
    _write_csv(folder / "scores.csv", rows)
    document = {
        **facts,
        "mean": {s: _finite(score) for s, score in means(scores).items()},
        "images": {s: {n: _finite(score) for o, n, score in scores if o == s} for s in means(scores)},
    }
    with replacing(folder / "scores.json") as temporary:
        temporary.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return document


def _finite(score: Score) -> dict[str, float | None]:
    return {key: round(value, 6) if math.isfinite(value) else None for key, value in score.as_dict().items()}


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def shown(net: Network, samples: Sequence[Sample], scores: Scores, most: int) -> Iterator[Shown]:
    """The first `most` images to be looked at, from their LR rounded to 8 bits, as a file has it."""
    device = next(net.parameters()).device
    sets = {sample.image_set for sample in samples}
    for sample, (image_set, name, score) in list(zip(samples, scores, strict=True))[:most]:
        name = name if len(sets) == 1 else f"{image_set}/{name}"
        hr = modcrop(sample.hr[None].to(device).float() / 255, net.scale).expand(-1, 3, -1, -1)
        lr = quantize(bicubic_down(hr, net.scale))
        yield name, lr.cpu(), super_resolve(net, lr).clamp(0, 1).cpu(), hr.cpu(), score


def write_comparison(path: Path, net: Network, images: Iterable[Shown]) -> None:
    """A picture of images: LR, bicubic, network, ground truth and error, whole and zoomed; the dB are the scores'."""
    bands = [_band(*image, net) for image in images]
    sheet = Image.new("RGB", (bands[0].width, sum(band.height for band in bands)), _PAPER)
    for number, band in enumerate(bands):
        sheet.paste(band, (0, sum(other.height for other in bands[:number])))
    save_image(sheet, path)


def _band(name: str, lr: Tensor, sr: Tensor, hr: Tensor, score: Score, net: Network) -> Image.Image:
    """One image's part of the picture: captions, a row of whole images, a row of one crop enlarged."""
    bicubic = bicubic_up(lr, net.scale).clamp(0, 1)
    nearest = F.interpolate(lr, scale_factor=net.scale, mode="nearest")
    wrong = (rgb_to_y(sr) - rgb_to_y(hr)).abs() * _ERROR_GAIN
    columns = [
        (f"{name}: LR, nearest", nearest),
        (f"bicubic {score.bicubic_psnr:.2f} dB", bicubic),
        (f"{type(net).__name__} {score.psnr:.2f} dB ({score.gain:+.2f})", sr),
        ("ground truth", hr),
        (f"{type(net).__name__}'s error x{_ERROR_GAIN}", wrong.expand(-1, 3, -1, -1)),
    ]
    y, x, side = _telling_crop(bicubic, sr, hr)
    height, width = hr.shape[-2:]
    fit = min(1.0, _PANEL / width, 1.5 * _PANEL / height)
    whole_size = (max(1, round(width * fit)), max(1, round(height * fit)))
    gap, caption = 8, 22
    band = Image.new("RGB", (5 * (_PANEL + gap) + gap, caption + whole_size[1] + _PANEL + 3 * gap), _PAPER)
    draw = ImageDraw.Draw(band)
    font = ImageFont.load_default(13)
    for column, (text, image) in enumerate(columns):
        left = gap + column * (_PANEL + gap)
        draw.text((left, 6), text, _INK, font)
        resample = Image.Resampling.LANCZOS if fit < 1 else Image.Resampling.NEAREST
        whole = to_pillow(image[0]).resize(whole_size, resample)
        ImageDraw.Draw(whole).rectangle([round(v * fit) for v in (x, y, x + side - 1, y + side - 1)], outline=_MARK)
        band.paste(whole, (left, caption))
        crop = to_pillow(image[0, :, y : y + side, x : x + side]).resize((_PANEL, _PANEL), Image.Resampling.NEAREST)
        band.paste(crop, (left, caption + whole_size[1] + gap))
    return band


def _telling_crop(bicubic: Tensor, sr: Tensor, hr: Tensor) -> tuple[int, int, int]:
    """Where the network is most ahead of bicubic: top, left and side of a square a fifth of the image."""
    fifth = max(24, max(hr.shape[-2:]) // 5)
    side = min(max(side for side in range(24, fifth + 1) if _PANEL % side == 0), *hr.shape[-2:])
    ahead = ((bicubic - hr).square() - (sr - hr).square()).mean(1, keepdim=True)
    sums = F.avg_pool2d(F.avg_pool2d(ahead, (side, 1), stride=1), (1, side), stride=1)
    top, left = divmod(int(sums.argmax()), sums.shape[-1])
    return top, left, side


class SweepTable(Callback):
    """At the end of a sweep: its runs ranked by validation, test beside it, printed, as `sweep.csv` and as a page.

    A job that failed has left an `error.txt`, also where a launcher ran it in another process: exit code 1.
    """

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        self._rank(folder, config.hydra.overrides.task)
        failed = [path.read_text(encoding="utf-8") for path in sorted(folder.glob("*/error.txt"))]
        if failed:
            print(f"error: {len(failed)} of the sweep's runs failed: {'; '.join(failed)}", file=sys.stderr)
            raise SystemExit(1)  # Hydra would swallow anything else

    def _rank(self, folder: Path, overrides: Sequence[str]) -> None:
        runs = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*/scores.json")]
        if not runs:
            return
        constant = set.intersection(*(set(run["overrides"]) for run in runs)) if len(runs) > 1 else set()
        runs.sort(key=lambda run: -(run["val_psnr"] or -math.inf))
        rows = []
        for rank, run in enumerate(runs, 1):
            row = {"rank": rank, "run": run["run"], "val_psnr": run["val_psnr"]}
            row |= {f"{s}_{key}": value for s, mean in run["mean"].items() for key, value in mean.items()}
            rows.append(
                row
                | {"protocol": run["protocol"], "overrides": " ".join(o for o in run["overrides"] if o not in constant)}
            )
        _write_csv(folder / "sweep.csv", rows)
        page.write_sweep(folder / "sweep.html", runs, ["python", "train.py", "-m", *overrides])
        print(f"\nsweep of {len(rows)} runs, ranked by PSNR (dB) on the validation images")
        tests = list(runs[0]["mean"])
        print(f"rank  {'val':>6}  {'  '.join(f'{name:>6}' for name in tests)}  run  overrides")
        for row in rows:
            figures = [row["val_psnr"], *(row[f"{name}_psnr"] for name in tests)]
            shown = "  ".join(f"{value:6.2f}" if isinstance(value, float) else "     -" for value in figures)
            print(f"{row['rank']:>4}  {shown}  {row['run']:>3}  {row['overrides']}")
        print(f"\ntable     {folder / 'sweep.csv'}\nreport    {folder / 'sweep.html'}")
