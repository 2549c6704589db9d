"""The pages: what stands in them, and in a browser what the slider and the keys do."""

import json
import re
import shlex
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import launch, needs, open_page, read_csv, run
from omegaconf import OmegaConf

from srcnn.data.leaves import dead_leaves
from srcnn.inference.image_file import write_image
from srcnn.metrics import Score
from srcnn.report.page import command_line, read_log
from srcnn.report.plots import Line, plot
from srcnn.report.sweep import SweepTable


def test_a_report_tells_how_it_came_about(trained: Path) -> None:
    text = (trained / "report.html").read_text()
    assert "python train.py data=folder" in text
    assert re.search(r"python -m srcnn\.evaluate .*ckpt_path=.*best\.ckpt", text)
    assert ">optim.<wbr>lr</td>" in text
    assert "protocol <b>authors</b>" in text.lower()
    assert re.search(r"python -m srcnn\.export format=html ckpt_path=.*best\.ckpt", text)
    assert "PSNR on the validation images" in text
    assert "Training loss" in text
    assert "TPAMI" not in text  # no figure of the paper's for these images
    assert "http" not in re.sub(r"http://www\.w3\.org/(2000/svg|1999/xlink)", "", text)


def test_names_are_text_and_a_large_set_is_bounded(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "a <b>&"
    for number, image in enumerate(dead_leaves(14, 30, seed=2)):
        write_image(folder / f"<i>{number:02}&.png", image)
    write_image(folder / "<i>00&.png", dead_leaves(1, 900, seed=3)[0])
    command = ["-m", "srcnn.evaluate", f"ckpt_path={trained}/weights.pth", f"data.test=[{folder}]", "output=scored"]
    run(*command, cwd=tmp_path)
    text = (tmp_path / "scored" / "report.html").read_text()
    assert "<b>&" not in text and "<i>" not in text
    assert f"{escape(folder.name)}, 14 images" in text
    assert text.count('class="card"') == 12
    assert "Shown are 12 of 14 images" in text
    assert re.search(r"640×640 pixels at \(\d+, \d+\) of 900×900", text)
    assert "PSNR on the validation images" in text  # the log beside the weights


@needs("Set5")
def test_set5_has_the_papers_figures_and_is_small(tmp_path: Path) -> None:
    run("-m", "srcnn.evaluate", "ckpt_path=srcnn_x3", "output=scored", cwd=tmp_path)
    path = tmp_path / "scored" / "report.html"
    assert path.stat().st_size < 5e6
    text = path.read_text()
    assert all(figure in text for figure in ("TPAMI 2016", "<td>30.39</td>", "<td>32.33</td>", "<td>32.39</td>"))


def test_without_validation_and_without_logs(tiny: list[str], tmp_path: Path) -> None:
    bare = ["data.hold_out=[]", "logger.tensorboard=null", "logger.csv=null", "hydra.run.dir=run"]
    assert "mean" in run("train.py", *tiny, *bare, cwd=tmp_path)
    assert "<svg" not in (tmp_path / "run" / "report.html").read_text()


def test_slider_and_keys(browser: Any, trained: Path) -> None:
    page, faults = open_page(browser, trained / "report.html")
    card = page.locator(".card").first
    cut, stage = card.locator(".cut"), card.locator(".stage")

    def position() -> float:
        shown = stage.evaluate("stage => parseFloat(stage.style.getPropertyValue('--cut'))")
        assert shown == float(cut.input_value())
        return shown

    def transforms() -> set[str]:
        found = stage.locator(".pane img").evaluate_all("images => images.map(image => image.style.transform)")
        assert len(found) == 4
        return set(found)

    cut.focus()
    for key, expected in (("ArrowRight", 51), ("ArrowRight", 52), ("Shift+ArrowLeft", 42), ("ArrowLeft", 41)):
        page.keyboard.press(key)
        assert position() == expected
    box = stage.bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 0.41 * box["width"], middle)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.8 * box["width"], middle)
    page.mouse.up()
    assert position() == pytest.approx(80, abs=0.5)
    clips = [stage.locator(pane).evaluate("pane => getComputedStyle(pane).clipPath") for pane in (".left", ".right")]
    left, right = (re.findall(r"[\d.]+%", clip) for clip in clips)
    assert float(left[0][:-1]) == pytest.approx(100 - position(), abs=0.01)
    assert float(right[0][:-1]) == pytest.approx(position(), abs=0.01)

    truth = card.locator(".truth")
    assert not truth.is_visible()
    page.keyboard.press("g")
    assert (
        truth.is_visible() and card.get_by_role("button", name="Ground truth").get_attribute("aria-pressed") == "true"
    )
    page.keyboard.press("g")
    assert not truth.is_visible()

    page.keyboard.press("g")
    page.keyboard.press("l")  # the LR takes the ground truth's place
    assert card.locator(".lr").is_visible() and not truth.is_visible()
    page.keyboard.press("l")
    assert not card.locator(".lr").is_visible()

    before = transforms()
    assert len(before) == 1
    whole = card.locator("output").inner_text()
    page.keyboard.press("+")
    assert len(transforms()) == 1 and transforms() != before
    assert int(card.locator("output").inner_text().split()[0]) == pytest.approx(2 * int(whole.split()[0]), abs=1)
    zoomed = transforms()
    page.keyboard.press("d")
    assert len(transforms()) == 1 and transforms() != zoomed
    page.keyboard.press("0")
    assert card.locator("output").inner_text() == whole

    page.keyboard.press("n")
    second = page.locator(".card").nth(1)
    page.keyboard.press("ArrowRight")
    assert float(second.locator(".cut").input_value()) == 51 and position() == pytest.approx(80, abs=0.5)
    assert not faults


def test_any_two_are_compared(browser: Any, sweep: tuple[Path, str], images: Path, tmp_path: Path) -> None:
    """What is chosen stands on its side of the cut, in every image; what the other side shows changes sides."""
    paths = [str(sweep[0] / number / "checkpoints" / "best.ckpt") for number in "01"]
    run("-m", "srcnn.evaluate", f"ckpt_path=[{','.join(paths)}]", f"data.test=[{images}]", "output=s", cwd=tmp_path)
    page, faults = open_page(browser, tmp_path / "s" / "report.html", width=390)
    chips = page.locator(".card").nth(1).locator(".chip")

    def shown() -> list[str | None]:
        views = [page.locator(f".card .pane.{side}").nth(1).get_attribute("data-view") for side in ("left", "right")]
        assert [chips.nth(0).inner_text(), chips.nth(1).inner_text()] == views
        return views

    assert shown() == ["0", "1"]
    left = page.get_by_label("left of the cut").first
    left.select_option("LR")
    assert shown() == ["LR", "1"]
    left.select_option("1")
    assert shown() == ["1", "LR"]
    assert left.locator("option").all_inner_texts() == ["bicubic", "0", "1", "ground truth", "LR"]
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.locator("svg").first.get_attribute("aria-label") == (
        "PSNR on the validation images, dB over step: bicubic, 1, 0"
    )
    assert not faults


def test_keys_are_for_keyboards(playwright: Any, browser: Any, trained: Path) -> None:
    touch = launch(playwright, "--blink-settings=primaryHoverType=1,availableHoverTypes=1")
    for which, seen, hidden in ((browser, ".keys", ".touch"), (touch, ".touch", ".keys")):
        page, _ = open_page(which, trained / "report.html")
        assert page.locator(seen).is_visible() and not page.locator(hidden).is_visible()
    touch.close()


def test_error_map(browser: Any, trained: Path) -> None:
    """As bright as the luma's error is large, by the images in the page."""
    page, faults = open_page(browser, trained / "report.html")
    page.keyboard.press("e")
    assert page.locator(".card .chip.a").first.inner_text() == "bicubic's error ×5"
    script = """() => {
        const stage = document.querySelector(".stage"), [width, height] = stage.dataset.size.split(",").map(Number);
        const read = (source) => {
            const context = new OffscreenCanvas(width, height).getContext("2d");
            context.drawImage(source, 0, 0);
            return [...context.getImageData(0, 0, width, height).data];
        };
        return [".truth img", ".left img", ".left canvas", ".right img", ".right canvas"].map(
            (selector) => read(stage.querySelector(selector)));
    }"""
    truth, *others = (np.array(pixels, dtype=float).reshape(-1, 4)[:, :3] for pixels in page.evaluate(script))
    weights = np.array([65.481, 128.553, 24.966]) / 255
    for image, shown in (others[:2], others[2:]):
        error = np.minimum(1, np.abs((image - truth) @ weights) * 5 / 255)
        assert error.max() > 0.2
        assert np.abs(shown[:, 0] - 255 * np.minimum(1, 1.8 * error)).max() <= 1
    assert not faults


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_pages_fit_the_screen(width: int, scheme: str, browser: Any, trained: Path, sweep: tuple[Path, str]) -> None:
    """Nothing cut off on a phone, no errors, no request; ink on paper of enough contrast (WCAG 2.1 AA: 4.5)."""
    for path in (trained / "report.html", sweep[0] / "sweep.html"):
        page, faults = open_page(browser, path, width, scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        ink, paper = (
            _luminance(page.evaluate(f"getComputedStyle(document.body).{name}"))
            for name in ("color", "backgroundColor")
        )
        assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) > 4.5
        assert (paper < 0.2) == (scheme == "dark")
        assert not faults
        page.context.close()


def _luminance(colour: str) -> float:
    """Relative luminance of a CSS rgb(), WCAG 2.1."""
    values = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
    linear = [value / 12.92 if value <= 0.03928 else ((value + 0.055) / 1.055) ** 2.4 for value in values]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def test_a_sweeps_page(browser: Any, sweep: tuple[Path, str]) -> None:
    """Ranked, a plot for each of the two settings, the four curves over each other; each run's report a click away."""
    page, faults = open_page(browser, sweep[0] / "sweep.html")
    rows = page.locator("table tr").all_inner_texts()[1:]
    figures = [float(row.split("\t")[2]) for row in rows]
    assert len(figures) == 4 and figures == sorted(figures, reverse=True)
    labels = page.locator("svg").evaluate_all("plots => plots.map(plot => plot.getAttribute('aria-label'))")
    assert [label.split(":")[0] for label in labels] == [
        "Validation PSNR, dB over data.batch_size", "Validation PSNR, dB over optim.lr",
        "PSNR on the validation images, dB over step",
    ]  # fmt: skip
    colours = page.locator("svg").nth(2).evaluate("plot => plot.outerHTML.match(/var\\(--(c\\d|soft)\\)/g)")
    assert {f"var(--c{number})" for number in range(4)} | {"var(--soft)"} <= set(colours)  # four runs and bicubic
    assert "checkpoints/best.ckpt" in page.locator(".tile").first.inner_text()
    assert not faults
    page.locator("table a").first.click()
    assert page.locator(".card").count() == 8


def scored(folder: Path, name: str, overrides: list[str], val_psnr: float | None, **psnr: float) -> None:
    """What a run of a sweep leaves, as far as the ranking reads it."""
    mean = {s: Score(p, 0.9, 29.0, 0.8).as_dict() for s, p in psnr.items()}
    run = {"name": name, "overrides": overrides, "val_psnr": val_psnr, "mean": mean, "protocol": "authors"}
    (folder / name).mkdir()
    (folder / name / "scores.json").write_text(json.dumps(run | {"seconds": 3.0, "checkpoint": "best.ckpt"}))


def end_sweep(folder: Path, *overrides: str) -> None:
    config = {"output_dir": "${hydra:runtime.output_dir}", "hydra": {"sweep": {"dir": str(folder)}}}
    config["hydra"]["overrides"] = {"task": list(overrides)}
    SweepTable().on_multirun_end(OmegaConf.create(config))


def test_a_sweep_of_unlike_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Other test sets, no validation, a key of one run alone, an interpolation, and mean and deviation over seeds."""
    words = ["data.root=${output_dir}/data"]
    for seed in (0, 1):
        scored(tmp_path, f"{seed}", [*words, f"seed={seed}", "data.test=[a]"], 30.0 + seed, a=32.0)
        scored(tmp_path, f"{seed + 2}", [*words, f"seed={seed}", "data.test=[b]"], 40.0, b=28.0 + seed)
    scored(tmp_path, "4", [*words, "data.hold_out=0"], None, a=33.0)
    end_sweep(tmp_path, *words, "seed=0,1")
    output, rows = capsys.readouterr().out, read_csv(tmp_path / "sweep.csv")
    assert [row["run"] for row in rows][2:] == ["1", "0", "4"]
    assert (rows[2]["a_psnr"], rows[2]["b_psnr"]) == ("32.0", "")
    assert re.search(r"^ +5 +– +– +33\.00 +4  data\.hold_out=0$", output, re.MULTILINE)
    assert "data.test=[a]: 2 runs\n    validation 30.500 ± 0.707, a 32.000 ± 0.000\n" in output
    text = (tmp_path / "sweep.html").read_text()
    assert "<td>30.500 ± 0.707</td><td>–</td><td>32.000 ± 0.000</td>" in text
    assert "${output_dir}" in text


def test_a_sweep_over_seeds_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(3):
        scored(tmp_path, f"{seed}", ["optim=muon", f"seed={seed}"], 30.0 + seed, a=32.0)
    end_sweep(tmp_path, "optim=muon", "seed=0,1,2")
    assert "all: 3 runs\n    validation 31.000 ± 1.000, a 32.000 ± 0.000\n" in capsys.readouterr().out


def test_a_sweep_of_many_runs(tmp_path: Path) -> None:
    """From the seventh on in gray, solid: bicubic's line alone is dotted."""
    for number in range(8):
        scored(tmp_path, f"{number}", [f"optim.lr={number}"], 30.0 + number, a=32.0)
        log = "".join(f"{step},{30 + number},29\n" for step in (1, 2))
        (tmp_path / f"{number}" / "metrics.csv").write_text(f"step,val/psnr,val/psnr_bicubic\n{log}")
    end_sweep(tmp_path)
    text = (tmp_path / "sweep.html").read_text()
    curves = text[text.index("Validation on the way") :]
    lines = re.findall(r'style="fill: none;([^"]*stroke: var\(--(?:c\d|rest|soft)\); stroke-width: 1.5[^"]*)"', curves)
    gray = [line for line in lines if "--rest" in line]
    dotted = [line for line in lines if "--soft" in line]
    assert (len(lines), len(gray), len(dotted)) == (9, 2, 1)
    assert not any("dasharray" in line for line in gray) and "dasharray: 1.5,3" in dotted[0]
    assert "gray: the others" in curves


def test_commands_to_copy() -> None:
    """Words of Hydra's with single quotes stay readable, and a shell takes each as it was."""
    words = ["python", "data.test=['Set5','a b']", "data.train_dir=it's $HOME", "optim.lr=1", "data.test=[photos]"]
    assert command_line(words[:2]) == "python \"data.test=['Set5','a b']\""
    assert shlex.split(command_line(words)) == words


def test_a_ranking_that_fails_is_seen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With its traceback and exit code 1; the jobs that failed are named all the same."""
    scored(tmp_path, "0", ["optim.lr=1"], 30.0, a=32.0)
    (tmp_path / "0" / "scores.json").write_text("{")
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "error.txt").write_text("boom")
    with pytest.raises(SystemExit) as end:
        end_sweep(tmp_path)
    errors = capsys.readouterr().err
    assert end.value.code == 1
    assert "JSONDecodeError" in errors and "error: 1 of the sweep's runs failed: boom" in errors


def test_a_log_that_a_kill_cut_off(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The row without an end is left out; a file that is no log of ours leaves the page without curves."""
    path = tmp_path / "metrics.csv"
    path.write_text("step,train/loss\n0,0.5\n1,3.1e")
    assert read_log(path) == [{"step": 0, "train/loss": 0.5}]
    for damaged in (b"\xff\xfe\x00", b"step,train/loss\n0,half\n"):
        path.write_bytes(damaged)
        assert read_log(path) == []
        assert "damaged" in capsys.readouterr().out


def test_plots_take_what_comes() -> None:
    """One point, equal values, words on the axis, decades, long curves, and names that are not HTML."""
    assert "<use" in plot([Line("a", [(1, 30.0)])], "x", "y")
    assert "two" in plot([Line("a", [(0, 1.0), (1, 2.0)])], "x", "y", ticks={0: "one", 1: "two"})
    log = plot([Line("<a>", [(1e-4, 1.0), (1e-1, 2.0)])], "x", "<y>", log_x=True, labels=True)
    assert "<a>" not in log and "<y>" not in log and 'role="img"' in log
    curve = [Line("a", [(i, float(i % 7)) for i in range(100_000)])]
    assert len(plot(curve, "x", "y")) < 60_000
    assert plot(curve, "x", "y") == plot(curve, "x", "y")
