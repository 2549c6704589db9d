"""What TensorBoard finds in a sweep's folder, read with TensorBoard's own reader."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import read_csv, run
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

from srcnn.checkpoint import load_network
from srcnn.data.samples import Sample
from srcnn.files import read_image
from srcnn.image import to_uint8
from srcnn.inference.tiles import super_resolve
from srcnn.nets import SRCNN
from srcnn.report.loggers import MetricsCSV, first_filters, hardest_crop, panels_of
from srcnn.report.panels import CAPTION, GAP


def read(folder: Path) -> EventAccumulator:
    log = next(folder.rglob("events.out.tfevents.*")).parent
    return EventAccumulator(str(log), size_guidance={"images": 0, "scalars": 0, "tensors": 0}).Reload()


def test_scalars(sweep: tuple[Path, str]) -> None:
    """Loss, rate and throughput at every log point, PSNR and bicubic's at every validation."""
    for folder in (sweep[0] / str(number) for number in range(4)):
        events = read(folder)
        rows = read_csv(folder / "metrics.csv")
        assert set(events.Tags()["scalars"]) == {
            "psnr/val", "psnr/val_bicubic", "train/loss", "train/lr", "train/Mpixel_per_s",
        }  # fmt: skip
        steps = [int(row["step"]) for row in rows if row["val/psnr"]]
        assert len(steps) == 2
        assert [event.step for event in events.Scalars("psnr/val")] == steps
        assert [event.step for event in events.Scalars("psnr/val_bicubic")] == steps
        for event, row in zip(
            events.Scalars("psnr/val_bicubic"), (row for row in rows if row["val/psnr"]), strict=True
        ):
            assert event.value == pytest.approx(float(row["val/psnr_bicubic"]), abs=1e-4)
        for tag in ("train/loss", "train/lr", "train/Mpixel_per_s"):
            assert [event.step for event in events.Scalars(tag)] == list(range(steps[-1] + 1))
        assert all(0 < event.value < 1e4 for event in events.Scalars("train/Mpixel_per_s"))


def test_hparams(sweep: tuple[Path, str], images: Path) -> None:
    """Every run's parameters, by which the hparams tab sorts, and its end."""
    found = []
    for folder in (sweep[0] / str(number) for number in range(4)):
        contents = {tag: data.plugin_data.content for tag, data in read(folder).summary_metadata.items()}
        start = metadata.parse_session_start_info_plugin_data(contents[metadata.SESSION_START_INFO_TAG])
        found.append((start.hparams["optim.lr"].number_value, start.hparams["data.batch_size"].number_value))
        assert start.hparams["model"].string_value == "SRCNN"
        best = max(event.value for event in read(folder).Scalars("psnr/val"))
        assert start.hparams["best_val"].number_value == pytest.approx(best)
        assert start.hparams[images.name].number_value > 0
        known = {"model", "optim.lr", "data.batch_size", "best_val", images.name}
        assert set(start.hparams) == known  # what all runs of the sweep share is not there
        assert metadata.SESSION_END_INFO_TAG in contents
    assert sorted(found) == [(1e-4, 8), (1e-4, 16), (5e-3, 8), (5e-3, 16)]


def test_images_and_text(sweep: tuple[Path, str]) -> None:
    """At every validation the crops and the filters, which change as the network learns."""
    for folder in (sweep[0] / str(number) for number in range(4)):
        events = read(folder)
        steps = [event.step for event in events.Scalars("psnr/val")]
        (crop,) = (tag for tag in events.Tags()["images"] if tag.startswith("val/"))
        for tag in (crop, "weights/first_layer"):
            images = events.Images(tag)
            assert [event.step for event in images] == steps
            first, last = (np.asarray(Image.open(io.BytesIO(event.encoded_image_string))) for event in images)
            assert first.shape == last.shape and first.shape[0] > 50
            assert not np.array_equal(first, last)


def test_crops_show_what_the_network_makes_of_the_image(trained: Path, images: Path) -> None:
    """The network's panel is what it makes of the LR of the crop."""
    net, _ = load_network(trained / "checkpoints" / "best.ckpt")
    hr = read_image(images / "image0.png")
    crop, zoom = hardest_crop(Sample("s", "image0", hr, "s"), 3, 24), 4
    page = panels_of(crop, net)
    side = 24 * zoom
    panels = [page[CAPTION : CAPTION + side, x : x + side][::zoom, ::zoom] for x in range(GAP, 3 * side, side + GAP)]
    truth = panels[2].transpose(2, 0, 1)
    assert np.array_equal(truth, crop.hr.numpy())
    sr = to_uint8(super_resolve(net, crop.lr[None] / 255))[0]
    assert np.abs(sr.permute(1, 2, 0).numpy().astype(int) - panels[1]).max() <= 1


def test_filters() -> None:
    net = SRCNN()
    assert first_filters(net).shape == (64, 3, 40, 40)  # type: ignore[union-attr]
    assert first_filters(torch.nn.Sequential(torch.nn.Conv2d(16, 3, 5))) is None


def test_a_resumed_run_has_each_step_once(trained: Path, tmp_path: Path) -> None:
    """From an earlier checkpoint: what came after it is purged, images included."""
    shutil.copytree(trained, tmp_path / "run")
    run("train.py", "resume=run/checkpoints/epoch_0001.ckpt", "trainer.max_epochs=3", cwd=tmp_path)
    events = read(tmp_path / "run")
    assert [event.step for event in events.Scalars("psnr/val")] == [6, 13, 20]
    assert [event.step for event in events.Scalars("psnr/val_bicubic")] == [6, 13, 20]
    for tag in events.Tags()["images"]:
        assert [event.step for event in events.Images(tag)] == [6, 13, 20]
    assert [event.step for event in events.Scalars("train/loss")] == list(range(21))


def test_metrics_csv_goes_on(tmp_path: Path, capsys) -> None:
    """Rows before the step that a run is resumed from stay, those after it go; columns may come later."""
    path = tmp_path / "metrics.csv"

    def log(purge_step: int | None, steps: range, **more: float) -> list[int]:
        logger = MetricsCSV(str(tmp_path), purge_step)
        for step in steps:
            logger.log_metrics({"loss": 0.5, **more}, step)
        logger.save()
        return [int(row["step"]) for row in read_csv(path)]

    assert log(None, range(3)) == [0, 1, 2]
    assert log(2, range(2, 4), psnr=30.0) == [0, 1, 2, 3]
    assert [row["psnr"] for row in read_csv(path)] == ["", "", "30.0", "30.0"]
    assert log(0, range(1)) == [0]  # a run that starts anew in a folder
    path.write_text(path.read_text() + "1")  # cut off by a kill: of step 12, maybe
    assert log(5, range(5, 6)) == [0, 5]
    path.write_bytes(b"\xff\xfe broken")
    assert log(5, range(5, 6)) == [5]
    assert "damaged, kept as metrics.damaged.csv" in capsys.readouterr().out
    assert (tmp_path / "metrics.damaged.csv").read_bytes() == b"\xff\xfe broken"
