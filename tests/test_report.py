"""Tables and pages as files: what stands in them, whatever they are given."""

import json
import re
from html import escape
from pathlib import Path

import pytest
from conftest import read_csv, run
from omegaconf import OmegaConf

from srcnn import report
from srcnn.data.leaves import dead_leaves
from srcnn.data.samples import Sample
from srcnn.inference.image_file import write_image
from srcnn.metrics import Score
from srcnn.nets import SRCNN
from srcnn.report.page import curves, duration
from srcnn.report.plots import Line, plot
from srcnn.report.sweep import SweepTable


def test_a_report_tells_how_it_came_about(trained: Path) -> None:
    text = (trained / "report.html").read_text()
    assert "python train.py data=folder" in text
    assert re.search(r"python -m srcnn\.evaluate ckpt_path=\S*weights\.pth protocol=authors", text)
    assert re.search(r"python -m srcnn\.export format=html ckpt_path=\S*weights\.pth", text)
    assert "protocol <b>authors</b>" in text.lower() and "lr: 0.0001" in text
    assert 'alt="PSNR on the validation images, dB"' in text and 'alt="Training loss"' in text
    assert "TPAMI" not in text  # no figure of the paper's for these images
    assert "http" not in re.sub(r"http://www\.w3\.org/(2000/svg|1999/xlink)", "", text)


def test_names_are_text_and_a_large_set_is_bounded(trained: Path, tmp_path: Path) -> None:
    """Names that HTML or matplotlib would read otherwise, or that pages use; of a large image a part is shown."""
    folder = tmp_path / "a <b>&"
    for number, image in enumerate(dead_leaves(11, 30, seed=2)):
        write_image(folder / f"<i>{number:02}&.png", image)
    write_image(folder / "<i>00&.png", dead_leaves(1, 600, seed=3)[0])
    write_image(folder / "$x$ 写真.png", dead_leaves(1, 30, seed=4)[0])
    write_image(folder / "LR.png", dead_leaves(1, 30, seed=5)[0])
    words = [f"ckpt_path={trained}/weights.pth", f"data.test=[{folder}]", "output=scored"]
    run("-m", "srcnn.evaluate", *words, cwd=tmp_path)
    text = (tmp_path / "scored" / "report.html").read_text()
    assert "<b>&" not in text and "<i>" not in text
    assert f"{escape(folder.name)}, 13 images" in text
    assert text.count('class="card"') == 10 and "Shown are 10 of 13 images" in text
    assert re.search(r"560×560 pixels at \(\d+, \d+\) of 600×600", text)
    assert "PSNR on the validation images" in text  # the log beside the weights


def test_what_was_typed_is_not_known(tmp_path: Path) -> None:
    """Of a run in a notebook."""
    hr = dead_leaves(1, 30, seed=2)[0][None]
    sample, score = Sample(hr[..., ::3, ::3], hr, "a", "set"), Score(30.0, 0.9, 29.0, 0.8)
    run = {"protocol": "authors", "degradation": "bicubic", "overrides": None}
    report.write_run(tmp_path, SRCNN(), [("set", "a", score)], [sample], run)
    text = (tmp_path / "report.html").read_text()
    assert "python train.py" not in text and "was trained: with the settings below" in text


def test_a_loss_in_decibels_says_so(tiny: list[str], tmp_path: Path) -> None:
    output = run("train.py", *tiny, "loss=psnr", "hydra.run.dir=run", cwd=tmp_path)
    assert "PSNRLoss in dB, Adam" in output and re.search(r"  loss -?[\d.]+ dB  ", output)
    assert "Training loss, dB" in (tmp_path / "run" / "report.html").read_text()


def test_without_validation_and_without_logs(tiny: list[str], tmp_path: Path) -> None:
    assert "mean" in run("train.py", *tiny, "data.hold_out=[]", "logger=none", "hydra.run.dir=run", cwd=tmp_path)
    assert "data:image/svg" not in (tmp_path / "run" / "report.html").read_text()


def test_ctrl_c_while_the_report_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is done, and how to finish it."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(report, "write_scores", interrupt)
    score = Score(30.0, 0.9, 29.0, 0.8)
    with pytest.raises(KeyboardInterrupt):
        report.write_run(tmp_path, SRCNN(), [("a", "b", score)], [], {"protocol": "authors", "degradation": "bicubic"})
    words = f"python -m srcnn.evaluate ckpt_path={tmp_path}/weights.pth protocol=authors output={tmp_path}"
    assert f"the run is trained and tested, its report is not written; to write it: {words}" in capsys.readouterr().out


def scored(folder: Path, name: str, overrides: list[str], val_psnr: float | None, **psnr: float) -> None:
    """What a run of a sweep leaves, as far as the ranking reads it."""
    mean = {s: Score(p, 0.9, 29.0, 0.8).as_dict() for s, p in psnr.items()}
    run = {"overrides": overrides, "val_psnr": val_psnr, "mean": mean, "protocol": "authors"}
    (folder / name).mkdir()
    (folder / name / "scores.json").write_text(json.dumps(run | {"seconds": 3.0, "checkpoint": "best.ckpt"}))


def end_sweep(folder: Path, *overrides: str) -> None:
    hydra = {"sweep": {"dir": str(folder)}, "overrides": {"task": list(overrides)}}
    SweepTable().on_multirun_end(OmegaConf.create({"output_dir": "${hydra:runtime.output_dir}", "hydra": hydra}))


def test_a_sweep_of_unlike_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Other test sets, no validation, null and lists as typed, an interpolation, and mean and deviation over seeds."""
    words = ["data.root=${output_dir}/data"]
    for seed in (0, 1):
        scored(tmp_path, f"{seed}", [*words, f"seed={seed}", "data.test=[a,c]"], 30.0 + seed, a=32.0)
        scored(tmp_path, f"{seed + 2}", [*words, f"seed={seed}", "init_from=null"], 40.0, b=28.0 + seed)
    scored(tmp_path, "4", [*words, "data.hold_out=0"], None, a=33.0)
    end_sweep(tmp_path, *words, "seed=0,1")
    output, rows = capsys.readouterr().out, read_csv(tmp_path / "sweep.csv")
    assert [row["run"] for row in rows][2:] == ["1", "0", "4", "bicubic"]
    assert (rows[2]["a"], rows[2]["b"], rows[2]["settings"]) == ("32.0", "", "seed=1 data.test=[a,c]")
    assert re.search(r"^4 +– +– +33\.00  data\.hold_out=0$", output, re.MULTILINE)
    assert "data.test=[a,c]: 2 runs\n    validation 30.500 ± 0.707, a 32.000 ± 0.000\n" in output
    assert "init_from=null: 2 runs\n    validation 40.000 ± 0.000, b 28.500 ± 0.707\n" in output
    text = (tmp_path / "sweep.html").read_text()
    assert "<td>30.500 ± 0.707</td><td>–</td><td>32.000 ± 0.000</td>" in text
    assert "${output_dir}" in text


def test_a_sweep_over_seeds_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(3):
        scored(tmp_path, f"{seed}", ["optim=muon", f"seed={seed}"], 30.0 + seed, a=32.0)
    end_sweep(tmp_path, "optim=muon", "seed=0,1,2")
    assert "all: 3 runs\n    validation 31.000 ± 1.000, a 32.000 ± 0.000\n" in capsys.readouterr().out


def test_failed_runs_and_a_ranking_that_fails_are_seen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1; the jobs that failed are named all the same."""
    scored(tmp_path, "0", ["optim.lr=1"], 30.0, a=32.0)
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "error.txt").write_text("boom")
    for content, expected in (
        (None, "1 of the sweep's runs failed: boom"),
        ("{", "2 of the sweep's runs failed: boom"),
    ):
        if content:
            (tmp_path / "0" / "scores.json").write_text(content)
        with pytest.raises(SystemExit) as end:
            end_sweep(tmp_path)
        assert end.value.code == 1
        assert expected in (errors := capsys.readouterr().err)
    assert "JSONDecodeError" in errors


def test_a_log_that_a_kill_cut_off(tmp_path: Path) -> None:
    """The row without an end is left out: its number may be another one."""
    path = tmp_path / "metrics.csv"
    path.write_text("step,train/loss\n0,0.5\n1,3.1")
    cut = curves({"a": path}, "train/loss", "loss")
    path.write_text("step,train/loss\n0,0.5\n")
    assert cut == curves({"a": path}, "train/loss", "loss") != []
    assert curves({"a": None, "b": tmp_path / "none.csv"}, "train/loss", "loss") == []


def test_plots_take_what_comes() -> None:
    """One point, decades, long curves, and names that are not HTML or formulas."""
    assert "<use" in plot([Line("a", [(1, 30.0)])], "x", "y")
    log = plot([Line("<a>", [(1e-4, 1.0), (1e-1, 2.0)])], "$x", "<y$", log_x=True, labels=True)
    assert "<a>" not in log and "<y$" not in log and "$x" in log
    curve = [Line("a", [(i, float(i % 7)) for i in range(100_000)])]
    assert len(plot(curve, "x", "y")) < 60_000


@pytest.mark.parametrize(("seconds", "text"), [(5.4, "5 s"), (99, "99 s"), (150, "2 min"), (7200, "2.0 h")])
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
