"""The pages in a browser: what the slider and the keys do, on any screen."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import open_page, run, start_browser


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
    assert not faults


def test_keys_are_for_keyboards(playwright: Any, browser: Any, trained: Path) -> None:
    touch = start_browser(playwright, "--blink-settings=primaryHoverType=1,availableHoverTypes=1")
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
    """Ranked, with the curves; each run's report a click away."""
    page, faults = open_page(browser, sweep[0] / "sweep.html")
    figures = [float(row.split("\t")[2]) for row in page.locator("table tr").all_inner_texts()[1:]]
    assert len(figures) == 4 and figures == sorted(figures, reverse=True)
    plots = page.locator("img.plot")
    assert plots.evaluate_all("plots => plots.map(plot => plot.alt)") == ["PSNR on the validation images, dB"]
    assert all(plots.evaluate_all("plots => plots.map(plot => plot.complete && plot.naturalWidth > 100)"))
    assert "weights.pth" in page.locator(".tile").first.inner_text()
    assert not faults
    page.locator("table a").first.click()
    page.wait_for_load_state()
    assert page.locator(".card").count() == 8
