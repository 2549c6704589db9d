"""Settings that our code refuses: one sentence, exit code 2. Keys, choices, types are Hydra's (see test_idioms.py)."""

from pathlib import Path

import pytest
import torch
from conftest import DATA, SMALL, needs, run

from srcnn.device import best_precision, device_of
from srcnn.errors import UserError
from srcnn.launch import CONFIGS

WRONG = [
    ("scale=9", "scale=9: must be a whole number between 1 (the same size) and 8"),
    ("scale=2.5", "scale=2.5: must be a whole number"),
    ("scale=1", "degradation=bicubic changes nothing at scale=1"),
    ("protocol=matlab", "protocol=matlab: choose authors or basicsr"),
    ("data.batch_size=0", "data.batch_size=0: must be a number, at least 1"),
    ("data.test=Set5", "data.test=Set5: must be a list of sets or folders"),
    ("data.patch_size=300", "data.patch_size=300: every training image is smaller than a patch"),
    ("data.train=/nowhere", "no image set or folder '/nowhere'"),
    ("data.test=[Urban100] data.root=/nowhere", "Urban100 is not below /nowhere"),
    ("data.leaves.count=1", "data.leaves.count=1: must be a number, at least 2"),
    ("data.rescale=[2]", "data.rescale=2: must be a number, between 0.1 and 1"),
    ("data.hold_out=[nothere]", "data.hold_out names no image of leaves: nothere"),
    ("data.hold_out=3", "data.hold_out=3 leaves none of the 3 images to train on"),
    ("data.exclude=[leaves0,leaves1,leaves2]", "data.exclude leaves no image of leaves"),
    ("model.kernels=[9,2,5]", "kernels=2: must be odd"),
    ("loss=psnr loss.floor=0", "floor=0: must be a number, between 1e-12 and 1"),
    ("scheduler=cosine scheduler.schedule.shape=foo", "shape=foo: choose cosine or linear"),
    ("scheduler=cosine scheduler.interval=foo", "scheduler.interval=foo: choose step or epoch"),
    ("callbacks=ema callbacks.ema.decay=1.5", "decay=1.5: must be a number, between 0 and 1"),
    ("degradation=camera degradation.quality=[0,50]", "quality=0: must be a number, between 1 and 100"),
    ("init_from=nowhere.pth", "nowhere.pth: no such checkpoint"),
    ("init_from=broken.pth", "broken.pth: not a checkpoint, or a damaged one"),
    ("init_from=other.pth", "conv1.weight is missing instead of [64, 3, 9, 9]"),
]


@pytest.mark.parametrize(("words", "sentence"), WRONG, ids=[words for words, _ in WRONG])
def test_wrong_setting(words: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "broken.pth").write_bytes(b"PK\x03\x04 no checkpoint")
    torch.save({"layer.weight": torch.zeros(3)}, tmp_path / "other.pth")
    output = run("train.py", *SMALL, *words.split(), "logger=none", "hydra.run.dir=run", cwd=tmp_path, code=2)
    assert sentence in output
    assert not (tmp_path / "run" / "weights.pth").exists()


@pytest.mark.parametrize("experiment", sorted(path.stem for path in (CONFIGS / "experiment").iterdir()))
def test_experiments_run(experiment: str, tmp_path: Path) -> None:
    """A batch of each stage, on generated images; a recipe has no opinion on the network, but for `paper`."""
    small = [word for word in SMALL if not word.startswith(("data.patch_size", "data.stride", "trainer.max_epochs"))]
    run(
        "train.py",
        f"experiment={experiment}",
        *small,
        "data.leaves.size=128",
        "trainer.fast_dev_run=true",
        cwd=tmp_path,
    )


@needs("Set5")
def test_the_assignments_settings(tmp_path: Path) -> None:
    """As typed without any: T91 and Set5, where they are; two steps of them."""
    words = ["trainer.max_steps=2", "trainer.accelerator=cpu", f"data.root={DATA}", "hydra.run.dir=run"]
    output = run("train.py", *words, cwd=tmp_path)
    assert "85 images of T91, 5 more to validate on" in output and "20,099 parameters" in output
    assert "30.39  0.8682" in output  # bicubic on Set5, as published


@pytest.mark.parametrize(
    ("capabilities", "precision"),
    [
        ({"avx512_f": True, "avx512_bf16": True}, "bf16-mixed"),
        ({"avx2": True}, "32-true"),
        ({"bf16": True}, "bf16-mixed"),
    ],
    ids=["Zen 4", "Zen 3", "Neoverse V1"],
)
def test_precision_follows_the_hardware(
    capabilities: dict[str, bool], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert best_precision("cpu") == precision


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there() -> None:
    assert device_of("auto") == device_of("cpu") == torch.device("cpu")
    with pytest.raises(UserError, match=r"trainer\.accelerator=gpu: torch finds no such device here"):
        device_of("gpu")
