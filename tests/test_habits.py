"""What people expect beside the code: the notebook, other loggers, an early end."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import ROOT, SMALL, run


def test_the_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its five cells, in one namespace as a kernel has it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    cells = json.loads((ROOT / "docs" / "tour.ipynb").read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert len(sources) == 5
    namespace: dict = {}
    for source in sources:
        exec(source, namespace)
    assert namespace["larger"].size == (360, 360)
    mean = namespace["scores"]["mean"]["leaves"]
    assert mean["psnr"] > mean["bicubic_psnr"]  # it did learn
    assert (tmp_path / "tour" / "compared" / "report.html").is_file()


def test_early_stopping(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A rise of 100 dB does not come: the run ends after the second validation, says so, and is tested."""
    never = [
        "callbacks=early_stopping",
        "callbacks.early_stopping.patience=1",
        "callbacks.early_stopping.min_delta=100",
    ]
    settings = [*SMALL[:-1], "trainer.max_epochs=5", "logger=csv", "hydra.run.dir=run"]
    output = run("train.py", *settings, *never, cwd=tmp_path)
    assert "epoch 2/5" in output and "epoch 3/5" not in output and "mean" in output
    assert not list((tmp_path / "run").rglob("events.out.tfevents.*"))
    (tmp_path / "run" / "weights.pth").unlink()  # as if it had been killed in its test, which is all that is left
    output = run("train.py", *settings, *never, "resume=auto", cwd=tmp_path)
    assert "epoch 3/5" not in output and "mean" in output


def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed: pip install -e '.[wandb]'")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run("train.py", *SMALL, "logger=wandb", "logger.wandb.offline=true", "hydra.run.dir=run", cwd=tmp_path)
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))
    assert (tmp_path / "run" / "metrics.csv").is_file()


@pytest.mark.parametrize("logger", ["wandb", "mlflow"])
def test_a_logger_that_is_not_installed(logger: str, tmp_path: Path) -> None:
    """One sentence."""
    if find_spec(logger):
        pytest.skip(f"{logger} is installed")
    assert f"logger.{logger} settings: " in run("train.py", *SMALL, f"logger={logger}", cwd=tmp_path, code=2)
