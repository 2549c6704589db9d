"""The weights we ship."""

from pathlib import Path

import pytest
import torch
from conftest import DATA, ROOT, needs, run

from benchmarks.graphics import SETS, judge, judge_border
from srcnn.checkpoint import WEIGHTS, load_network
from srcnn.data.camera import Camera
from srcnn.data.degrade import Bicubic
from srcnn.data.leaves import dead_leaves
from srcnn.data.samples import read_set
from srcnn.files import read_image
from srcnn.inference.image_file import write_image
from srcnn.metrics import find_protocol, mean_score

SHIPPED = sorted(path.stem for path in WEIGHTS.glob("*.pth"))


def test_the_assignments_scales_are_shipped() -> None:
    assert {"srcnn_x2", "srcnn_x3", "srcnn_x4"} <= set(SHIPPED)
    assert sum(path.stat().st_size for path in WEIGHTS.iterdir()) < 2_500_000


@needs("Set5")
@pytest.mark.parametrize("name", SHIPPED)
def test_weights_score_what_their_run_did(name: str) -> None:
    """The figure in the file, from the end of its training, comes out again; and is that of the README's table."""
    net, checkpoint = load_network(name)
    degradation = Camera() if "camera" in name else Bicubic()
    with torch.inference_mode():
        scores = [
            find_protocol("authors").evaluate(net.upscale, sample.lr, sample.hr, net.channels, with_ssim=False)
            for sample in read_set("Set5", str(DATA), net.scale, degradation)
        ]
    psnr = mean_score(scores).psnr
    assert psnr == pytest.approx(checkpoint["run"]["psnr"]["Set5"], abs=2e-3)
    if name.startswith("srcnn"):
        assert net.parameter_count == 20_099
    if "camera" in name:
        return  # in the README by other figures: benchmarks/camera.py
    row = next(line for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines() if f"`{name}`" in line)
    assert f"{psnr:.2f}" in row


@pytest.mark.parametrize("name", SHIPPED)
def test_nothing_outside_photographs_is_ruined(name: str) -> None:
    """Text, shapes, lines, noise come back when shrunk again; no value runs away; a flat colour stays flat."""
    figures = judge(load_network(name)[0], smooths="camera" in name)
    assert [figure for figure in figures if not figure.good] == []


@needs("Set5")
@needs("Set14")
@pytest.mark.parametrize("name", SHIPPED)
def test_the_outermost_pixel_is_better_than_bicubics(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SRCNN_DATA", str(DATA))
    net, _ = load_network(name)
    figures = [judge_border(net, image_set) for image_set in SETS]
    assert [figure for figure in figures if not figure.good] == []


def test_checkpoint_pth_is_the_x3_network() -> None:
    (given, facts), (own, _) = load_network(ROOT / "checkpoint.pth"), load_network("srcnn_x3")
    assert given.scale == own.scale == 3 and facts["run"]["psnr"]["Set5"] > 32.39  # the paper's, TPAMI 2016
    assert all(torch.equal(value, own.state_dict()[key]) for key, value in given.state_dict().items())


def test_predict_without_a_checkpoint(tmp_path: Path) -> None:
    write_image(tmp_path / "photo.png", dead_leaves(1, 24, seed=0)[0])
    for scale, settings in ((3, []), (2, ["scale=2"]), (4, ["ckpt_path=srcnn_x4"])):
        run("predict.py", "input=photo.png", *settings, cwd=tmp_path)
        assert read_image(tmp_path / f"photo_x{scale}.png").shape == (3, 24 * scale, 24 * scale)
    refused = run("predict.py", "input=photo.png", "scale=5", cwd=tmp_path, code=2)
    assert "scale=5: no weights are shipped for it" in refused
