"""What a run logs: metrics.csv, and what TensorBoard's own reader finds."""

import io
import shutil
from pathlib import Path

import lightning as L
import numpy as np
import pytest
from conftest import SMALL, read_csv, run
from lightning.pytorch.loggers.logger import DummyLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

from srcnn.lit_module import SuperResolution
from srcnn.nets import SRCNN
from srcnn.report.loggers import HParams, MetricsCSV


def read(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0, "tensors": 0}).Reload()


def test_scalars_and_images(trained: Path) -> None:
    """At every log point and every validation; the crops change as the network learns."""
    events, rows = read(trained), read_csv(trained / "metrics.csv")
    steps = [int(row["step"]) for row in rows if row["val/psnr"]]
    assert len(steps) == 2
    for tag in ("val/psnr", "val/psnr_bicubic"):
        assert [event.step for event in events.Scalars(tag)] == steps
    for tag in ("train/loss", "train/lr", "train/Mpixel_per_s"):
        assert [event.step for event in events.Scalars(tag)] == list(range(steps[-1] + 1))
    tags = events.Tags()["images"]
    assert len(tags) == 2 and all(tag.startswith("val/") for tag in tags)
    for tag in tags:
        assert [event.step for event in events.Images(tag)] == steps
        first, last = (np.asarray(Image.open(io.BytesIO(event.encoded_image_string))) for event in events.Images(tag))
        assert first.shape == last.shape and first.shape[0] > 50 and not np.array_equal(first, last)


def hparams(folder: Path) -> dict[str, str]:
    contents = {tag: data.plugin_data.content for tag, data in read(folder / "hparams").summary_metadata.items()}
    start = metadata.parse_session_start_info_plugin_data(contents[metadata.SESSION_START_INFO_TAG])
    return {key: value.string_value or str(value.number_value) for key, value in start.hparams.items()}


def test_a_resumed_run_has_each_step_once(trained: Path, tmp_path: Path) -> None:
    """From an earlier checkpoint: what came after it is purged, and the hyper-parameters are those of the new leg."""
    assert hparams(trained)["trainer.max_epochs"] == "2"
    shutil.copytree(trained, tmp_path / "run")
    first = next((tmp_path / "run" / "checkpoints").glob("epoch_0000.ckpt"))
    run("train.py", f"resume={first}", "trainer.max_epochs=3", "optim.lr=2e-4", cwd=tmp_path)
    events, rows = read(tmp_path / "run"), read_csv(tmp_path / "run" / "metrics.csv")
    assert [event.step for event in events.Scalars("val/psnr")] == [2, 5, 8]
    assert [int(row["step"]) for row in rows if row["val/psnr"]] == [2, 5, 8]
    assert [event.step for event in events.Scalars("train/loss")] == list(range(9))
    assert [int(row["step"]) for row in rows if row["train/loss"]] == list(range(9))
    for tag in events.Tags()["images"]:
        assert [event.step for event in events.Images(tag)] == [2, 5, 8]
    found = hparams(tmp_path / "run")
    assert (found["trainer.max_epochs"], found["optim.lr"], found["network"]) == ("3", "2e-4", "SRCNN")
    best = max(event.value for event in events.Scalars("val/psnr"))
    assert read(tmp_path / "run" / "hparams").Scalars("hp/val_psnr")[0].value == pytest.approx(best)


def test_metrics_csv_goes_on(tmp_path: Path) -> None:
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
    path.write_text(path.read_text() + "0.5,1")  # cut off by a kill: of step 12, maybe
    assert log(5, range(5, 6)) == [0, 5]


def test_other_loggers_are_told_the_settings() -> None:
    class Other(DummyLogger):
        def log_hyperparams(self, params: dict) -> None:
            self.params = params

    trainer = L.Trainer(accelerator="cpu", logger=[other := Other()], enable_model_summary=False)
    HParams().on_fit_start(trainer, SuperResolution(SRCNN(), run={"settings": {"scale": 3}}))
    assert other.params["network"] == "SRCNN" and other.params["settings"] == {"scale": 3}


def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed: pip install -e '.[wandb]'")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run("train.py", *SMALL, "logger=wandb", "logger.wandb.offline=true", "hydra.run.dir=run", cwd=tmp_path)
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))
    assert (tmp_path / "run" / "metrics.csv").is_file()
