"""evaluate and inspect: their figures, and the images that they are given."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SMALL, needs, read_csv, run
from PIL import Image

from srcnn.checkpoint import load_network
from srcnn.data.leaves import dead_leaves
from srcnn.files import read_image
from srcnn.image import bicubic_down, modcrop, to_uint8
from srcnn.inference.image_file import write_image


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """hr: six images of 64x64; lr: what bicubic makes of them, 21x21, called 0x3.png and so on."""
    folder = tmp_path_factory.mktemp("pairs")
    for number, hr in enumerate(dead_leaves(6, 64, seed=3)):
        lr = to_uint8(bicubic_down(modcrop(hr[None] / 255, 3), 3))[0]
        write_image(folder / "hr" / f"{number}.png", hr)
        write_image(folder / "lr" / f"{number}x3.png", lr)
    return folder


def evaluate(*words: str, cwd: Path, code: int = 0) -> str:
    return run("-m", "srcnn.evaluate", *words, "output=scored", cwd=cwd, code=code)


def figures(folder: Path) -> dict[str, float]:
    """PSNR by image."""
    return {row["image"]: float(row["psnr"]) for row in read_csv(folder / "scored" / "scores.csv")}


def test_a_run_is_scored_as_its_test_was(trained: Path, images: Path, tmp_path: Path) -> None:
    output = evaluate(f"ckpt_path={trained}", cwd=tmp_path)
    assert "protocol authors, LR bicubic" in output
    assert (trained / "scores.csv").read_text() == (tmp_path / "scored" / "scores.csv").read_text()
    assert {path.name for path in (tmp_path / "scored").iterdir()} == {
        "scores.csv", "scores.json", "comparison.png", "report.html",
    }  # fmt: skip
    scores, again = (json.loads((folder / "scores.json").read_text()) for folder in (trained, tmp_path / "scored"))
    assert scores == again and scores["val_psnr"] and scores["overrides"]
    assert "protocol basicsr" in evaluate(f"ckpt_path={trained}", "protocol=basicsr", cwd=tmp_path)


def test_an_exact_image_is_counted_and_left_out(images: Path, tmp_path: Path) -> None:
    """A black image is exact for bicubic and for SRCNN: of PSNR infinity, which no mean and no difference has."""
    for name in ("image0.png", "image1.png"):
        (tmp_path / "set").mkdir(exist_ok=True)
        shutil.copy(images / name, tmp_path / "set" / name)
    evaluate("ckpt_path=srcnn_x3", "data.test=[set]", cwd=tmp_path)
    mean = figures(tmp_path)["mean"]
    write_image(tmp_path / "set" / "black.png", torch.zeros(3, 64, 64, dtype=torch.uint8))
    output = evaluate("ckpt_path=srcnn_x3", "data.test=[set]", cwd=tmp_path)
    sentence = "1 image is exact (infinite PSNR) and left out of the mean"
    assert sentence in output and sentence in (tmp_path / "scored" / "report.html").read_text()
    assert figures(tmp_path) == {**figures(tmp_path), "black": math.inf, "mean": mean}
    assert read_csv(tmp_path / "scored" / "scores.csv")[-1]["infinite"] == "1"
    document = json.loads((tmp_path / "scored" / "scores.json").read_text())
    assert document["mean"]["set"]["infinite"] == 1 and document["images"]["set"]["black"]["psnr"] is None
    output = evaluate("ckpt_path=[srcnn_x3,compact_x3]", "data.test=[set]", cwd=tmp_path)
    assert "(n = 2)" in output and "nan" not in output
    shutil.rmtree(tmp_path / "set")
    write_image(tmp_path / "set" / "black.png", torch.zeros(3, 64, 64, dtype=torch.uint8))
    assert "mean        –  –" in evaluate("ckpt_path=srcnn_x3", "data.test=[set]", cwd=tmp_path)


def test_networks_beside_each_other(sweep: tuple[Path, str], images: Path, tmp_path: Path) -> None:
    """A column each, by what a single evaluation says; the differences, image by image."""
    paths = [*(str(sweep[0] / number / "checkpoints" / "best.ckpt") for number in "01"), "srcnn_x3"]
    output = evaluate(f"ckpt_path=[{','.join(paths)}]", f"data.test=[{images}]", cwd=tmp_path)
    networks = json.loads((tmp_path / "scored" / "scores.json").read_text())["networks"]
    assert list(networks) == ["0", "1", "srcnn_x3"]
    evaluate(f"ckpt_path={paths[1]}", f"data.test=[{images}]", cwd=tmp_path)
    alone = json.loads((tmp_path / "scored" / "scores.json").read_text())
    assert networks["1"]["images"] == alone["images"]
    psnr = {
        name: np.array([image["psnr"] for image in n["images"][images.name].values()]) for name, n in networks.items()
    }
    for name in ("1", "srcnn_x3"):
        mean, values = networks[name]["mean"][images.name], psnr[name] - psnr["0"]
        assert mean["difference"] == pytest.approx(values.mean(), abs=1e-5)
        assert mean["standard_error"] == pytest.approx(values.std(ddof=1) / 8**0.5, abs=1e-5)
        assert f"{name} - 0: {mean['difference']:+.3f} dB, standard error" in output
    for other, sentence in (("srcnn_x2", "different scales"), ("srcnn_camera_x3", "choose by degradation=")):
        assert sentence in evaluate(f"ckpt_path=[srcnn_x3,{other}]", f"data.test=[{images}]", cwd=tmp_path, code=2)


def test_pairs_of_your_own(pairs: Path, tmp_path: Path) -> None:
    """Weights trained on pairs are tested on those held out again; any weights on any pairs."""
    words = [f"data.train_hr={pairs}/hr", f"data.train_lr={pairs}/lr", "data.hold_out=2", *SMALL[5:]]
    run("train.py", "data=pairs", *words, "hydra.run.dir=run", cwd=tmp_path)
    for more in ([], ["data=pairs"]):
        assert "LR as given" in evaluate("ckpt_path=run", *more, cwd=tmp_path)
        assert (tmp_path / "run" / "scores.csv").read_text() == (tmp_path / "scored" / "scores.csv").read_text()
    assert "LR bicubic" in evaluate("ckpt_path=run", f"data.test=[{pairs}/hr]", cwd=tmp_path)
    named = [f"data.test_hr={pairs}/hr", f"data.test_lr={pairs}/lr"]
    for more in ([], ["data=pairs"]):
        evaluate("ckpt_path=srcnn_x3", *named, *more, "protocol=basicsr", cwd=tmp_path)
        given = figures(tmp_path)
        assert list(given) == [*"012345", "mean"]
    # The LR files are what `basicsr` would make of HR.
    evaluate("ckpt_path=srcnn_x3", f"data.test=[{pairs}/hr]", "protocol=basicsr", cwd=tmp_path)
    assert figures(tmp_path) == pytest.approx(given, abs=1e-4)
    for half in (named[:1], named[1:], ["data=pairs"]):
        assert "name both folders" in evaluate("ckpt_path=srcnn_x3", *half, cwd=tmp_path, code=2)


def test_results_of_others(pairs: Path, tmp_path: Path) -> None:
    """SR files, under the names that predict.py gives them, score as the network does; also beside it."""
    run("predict.py", "ckpt_path=srcnn_x3", f"input={pairs}/lr", "output=sr", "exact=true", cwd=tmp_path)
    evaluate("ckpt_path=srcnn_x3", f"data.test_hr={pairs}/hr", f"data.test_lr={pairs}/lr", cwd=tmp_path)
    network = figures(tmp_path)
    output = evaluate("sr=sr", f"hr={pairs}/hr", "scale=3", cwd=tmp_path)
    assert figures(tmp_path) == pytest.approx(network, abs=0.005)
    assert "bicubic" in output and "sr          sr" not in output
    output = evaluate("sr=sr", f"hr={pairs}/hr", f"data.test_lr={pairs}/lr", "ckpt_path=srcnn_x3", cwd=tmp_path)
    assert "sr - srcnn_x3: +0.000 dB" in output.replace("-0.000", "+0.000")
    assert "needs scale=" in evaluate("sr=sr", f"hr={pairs}/hr", cwd=tmp_path, code=2)
    assert "sr=none: no such folder" in evaluate("sr=none", f"hr={pairs}/hr", "scale=3", cwd=tmp_path, code=2)
    write_image(tmp_path / "sr" / "2x3_x3.png", torch.zeros(3, 21, 21, dtype=torch.uint8))
    assert "2x3_x3.png: 21x21 pixels" in evaluate("sr=sr", f"hr={pairs}/hr", "scale=3", cwd=tmp_path, code=2)
    (tmp_path / "sr" / "2x3_x3.png").unlink()
    assert "sr=sr: has no image of 2" in evaluate("sr=sr", f"hr={pairs}/hr", "scale=3", cwd=tmp_path, code=2)


def test_sr_files_score_as_plain_numpy_says(images: Path, tmp_path: Path) -> None:
    """`basicsr`, by its definition: luma not rounded, three pixels left out at each border."""
    for path in images.iterdir():
        lr = to_uint8(bicubic_down(modcrop(read_image(path)[None] / 255, 3), 3))[0]
        write_image(tmp_path / "lr" / path.name, lr)
    run("predict.py", "ckpt_path=srcnn_x3", "input=lr", "output=sr", cwd=tmp_path)
    evaluate("ckpt_path=srcnn_x3", f"data.test=[{images}]", "protocol=basicsr", cwd=tmp_path)
    for name, psnr in list(figures(tmp_path).items())[:-1]:
        luma = []
        for path in (images / f"{name}.png", tmp_path / "sr" / f"{name}_x3.png"):
            pixels = np.asarray(Image.open(path), dtype=np.float64)[:63, :63]
            luma.append(16 + pixels @ np.array([65.481, 128.553, 24.966]) / 255)
        error = (luma[0] - luma[1])[3:-3, 3:-3]
        assert 20 * math.log10(255 / math.sqrt((error**2).mean())) == pytest.approx(psnr, abs=0.01)


def test_names_of_sets_and_images(images: Path, tmp_path: Path) -> None:
    """Two folders called HR are two sets; one name with two endings is two images; a tiny image is named."""
    for number, part in enumerate(("Set A", "Set, [B]")):
        (tmp_path / part / "HR").mkdir(parents=True)
        shutil.copy(images / f"image{number}.png", tmp_path / part / "HR" / "same.png")
    write_image(tmp_path / "Set A" / "HR" / "same.bmp", read_image(images / "image4.png"))
    evaluate("data.test=[Set A/HR,'Set, [B]/HR']", cwd=tmp_path)
    rows = {(row["set"], row["image"]) for row in read_csv(tmp_path / "scored" / "scores.csv")}
    assert rows == {
        ("Set A/HR", "same.png"), ("Set A/HR", "same.bmp"), ("Set A/HR", "mean"),
        ("Set, [B]/HR", "same"), ("Set, [B]/HR", "mean"),
    }  # fmt: skip
    write_image(tmp_path / "Set A" / "HR" / "tiny.png", torch.zeros(3, 8, 40, dtype=torch.uint8))
    output = evaluate("data.test=[Set A/HR]", cwd=tmp_path, code=2)
    assert "tiny.png: 39x6 pixels are too few to be scored at x3" in output


@needs("Set5")
def test_set5_has_the_papers_figures_and_a_small_page(tmp_path: Path) -> None:
    evaluate("ckpt_path=srcnn_x3", cwd=tmp_path)
    path = tmp_path / "scored" / "report.html"
    assert path.stat().st_size < 5e6
    assert all(figure in path.read_text() for figure in ("TPAMI 2016", "<td>30.39</td>", "<td>32.33</td>"))


def test_inspect(trained: Path, tmp_path: Path) -> None:
    checkpoint = trained / "checkpoints" / "last.ckpt"
    text = run("-m", "srcnn.inspect_ckpt", checkpoint, cwd=tmp_path)
    assert "parameters: 20099\n" in text and "\n  optim:\n    _target_: torch.optim.Adam\n" in text
    assert "callbacks:" not in text  # long, and mostly the defaults
    facts = json.loads(run("-m", "srcnn.inspect_ckpt", checkpoint, "--json", cwd=tmp_path))
    assert facts["best_scores"] == pytest.approx([load_network(trained)[1]["run"]["val_psnr"]])
    assert (facts["kind"], facts["network"], facts["parameters"], facts["scale"]) == ("run", "SRCNN", 20_099, 3)
    assert (facts["step"], facts["learning_rates"]) == (6, [1e-4])
    assert facts["settings"]["optim"]["lr"] == 1e-4 and "torch" in facts["versions"]
    assert "kind: weights\n" in run("-m", "srcnn.inspect_ckpt", "srcnn_x3", cwd=tmp_path)
    state = torch.load(checkpoint, weights_only=True)
    for saved in state["callbacks"].values():
        saved |= {"best_model_score": None}  # of a run without validation
    del state["optimizer_states"]  # ModelCheckpoint(save_weights_only=True)
    torch.save(state, tmp_path / "light.ckpt")
    assert "kind: weights\n" in run("-m", "srcnn.inspect_ckpt", "light.ckpt", cwd=tmp_path)
    torch.save(state | {"optimizer_states": []}, tmp_path / "light.ckpt")
    assert "best_scores: []\n" in run("-m", "srcnn.inspect_ckpt", "light.ckpt", cwd=tmp_path)
    torch.save(load_network("srcnn_x3")[0].state_dict(), tmp_path / "bare.pth")
    assert "settings" not in run("-m", "srcnn.inspect_ckpt", "bare.pth", cwd=tmp_path)
    weights = torch.load(trained / "weights.pth", weights_only=True)
    weights["run"]["name"] = "\x1b[31mred"  # which a terminal would obey
    torch.save(weights, tmp_path / "w.pth")
    assert "\\e[31mred" in run("-m", "srcnn.inspect_ckpt", "w.pth", cwd=tmp_path)
    run("-m", "srcnn.inspect_ckpt", trained / "metrics.csv", cwd=tmp_path, code=2)
