"""Every command of the README, run as a process the way a user runs it, on tiny data."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from conftest import read_csv, run
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from srcnn.files import read_image
from srcnn.inference.image_file import write_image
from srcnn.nets import SRCNN


def only(folder: Path, pattern: str) -> Path:
    found = list(folder.glob(pattern))
    assert len(found) == 1, found
    return found[0]


def test_a_run_holds_everything(trained: Path) -> None:
    """Checkpoints, logs, scores and picture, in one folder."""
    names = {path.name for path in (trained / "checkpoints").iterdir()}
    assert names == {"last.ckpt", "best.ckpt", "epoch_0001.ckpt", "epoch_0002.ckpt"}
    rows = read_csv(trained / "metrics.csv")
    assert {"train/loss", "val/psnr", "train/lr"} <= set(rows[0])
    assert sum(bool(row["val/psnr"]) for row in rows) == 2
    events = EventAccumulator(str(next(trained.glob("*/events.out.tfevents.*")).parent)).Reload()
    assert {"train/loss", "psnr/val", "psnr/val_bicubic", "train/lr"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("psnr/val")] == [6, 13]
    scores = json.loads((trained / "scores.json").read_text())
    assert scores["protocol"] == "authors"
    table = read_csv(trained / "scores.csv")
    assert len(table) == 9
    assert table[-1]["image"] == "mean"
    assert float(table[-1]["psnr"]) == pytest.approx(np.mean([float(row["psnr"]) for row in table[:-1]]), abs=1e-4)
    with Image.open(trained / "comparison.png") as picture:
        assert picture.width > 1000


def test_train_writes_below_outputs_and_prints_a_table(tiny: list[str], tmp_path: Path) -> None:
    output = run("train.py", *tiny, "optim.lr=5e-4", "data.batch_size=16", cwd=tmp_path)
    assert "protocol authors" in output
    assert "mean" in output
    run_folder = only(tmp_path / "outputs", "*/*")
    config = (run_folder / "config.yaml").read_text()
    assert "lr: 0.0005" in config
    assert {path.name for path in tmp_path.iterdir()} == {"outputs"}


def test_fast_dev_run(tiny: list[str], tmp_path: Path) -> None:
    assert "mean" in run("train.py", *tiny, "trainer.fast_dev_run=true", cwd=tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu(tiny: list[str], tmp_path: Path) -> None:
    output = run("train.py", *tiny[:-3], "trainer.accelerator=gpu", cwd=tmp_path, code=2)
    assert output == "error: trainer.accelerator=gpu: torch sees no GPU here; use cpu or auto\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_gpu(tiny: list[str], tmp_path: Path) -> None:
    assert "mean" in run("train.py", *tiny, "trainer.accelerator=gpu", cwd=tmp_path)


def test_sweep(sweep: tuple[Path, str]) -> None:
    folder, output = sweep
    rows = read_csv(folder / "sweep.csv")
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4"]
    figures = [float(row["val_psnr"]) for row in rows]
    assert figures == sorted(figures, reverse=True) and figures[0] > figures[-1]
    assert "optim.lr=" in rows[0]["overrides"]
    assert "ranked by PSNR" in output
    runs = {path.parent.name for path in folder.rglob("events.out.tfevents.*")}  # what tensorboard tells apart
    # By what differs from the settings that all share, of which a batch size of 8 is one.
    assert runs == {f"{size}lr={lr}" for lr in ("0.0001", "0.005") for size in ("", "batch_size=16,")}


def test_a_sweep_survives_a_failing_run(tiny: list[str], tmp_path: Path) -> None:
    """It is named, the others are ranked, the exit code is 1."""
    output = run("train.py", *tiny, "-m", "data.hold_out=8,2", cwd=tmp_path, code=1)
    assert "1 of the sweep's runs failed: 0 (" in output
    assert "leaves none of the 8 images to train on" in output
    assert "Traceback" not in output
    assert len(read_csv(only(tmp_path / "outputs", "*/*-sweep/sweep.csv"))) == 1


def test_a_sweep_runs_only_what_is_missing(tiny: list[str], tmp_path: Path) -> None:
    """Started again in its folder: what is done is left alone, what was cut short goes on."""
    command = ["train.py", "-m", *tiny, "hydra.sweep.dir=s", "trainer.max_epochs=2"]
    run(*command, "optim.lr=1e-4,1e-3,2e-3", cwd=tmp_path)
    rows = read_csv(tmp_path / "s" / "sweep.csv")
    (tmp_path / "s" / "1" / "weights.pth").unlink()
    shutil.rmtree(tmp_path / "s" / "2")
    before = (tmp_path / "s" / "0" / "weights.pth").stat().st_mtime_ns
    output = run(*command, "optim.lr=1e-4,1e-3,2e-3", cwd=tmp_path)
    assert output.count("done already: ") == 1
    assert output.count("resuming ") == 1
    assert (tmp_path / "s" / "0" / "weights.pth").stat().st_mtime_ns == before
    assert read_csv(tmp_path / "s" / "sweep.csv") == rows
    output = run(*command, "optim.lr=1e-4,5e-3", cwd=tmp_path, code=1)
    assert "1: holds a run of other settings (optim.lr: 0.001 -> 0.005); take another folder" in output


def test_tensorboard(trained: Path) -> None:
    """tensorboard --logdir outputs: it finds the run and its curves."""
    arguments = ["--logdir", str(trained.parent), "--host", "127.0.0.1", "--port", "0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "tensorboard.main", *arguments], stderr=subprocess.PIPE, text=True, bufsize=1
    )
    try:
        assert process.stderr
        address = next(found[0] for line in process.stderr if (found := re.search(r"http://127[^ ]*:\d+/", line)))
        for _ in range(100):
            with urllib.request.urlopen(f"{address}data/plugin/scalars/tags") as reply:
                tags = next(iter(json.load(reply).values()), {})
                if "psnr/val" in tags:
                    break
            time.sleep(0.2)
        assert {"train/loss", "psnr/val", "train/lr"} <= tags.keys()
    finally:
        process.kill()
        process.communicate()


def test_init_from(tiny: list[str], trained: Path, tmp_path: Path) -> None:
    """A new run, from another's weights: a Lightning checkpoint or a bare state_dict."""
    checkpoint = trained / "checkpoints" / "best.ckpt"
    weights = torch.load(checkpoint, weights_only=True)["state_dict"]
    torch.save({key.removeprefix("net."): value for key, value in weights.items()}, tmp_path / "checkpoint.pth")
    for number, start in enumerate((checkpoint, tmp_path / "checkpoint.pth")):
        run("train.py", *tiny, "optim.lr=0.0", f"init_from={start}", f"hydra.run.dir=run{number}", cwd=tmp_path)
        after = torch.load(tmp_path / f"run{number}" / "checkpoints" / "last.ckpt", weights_only=True)
        assert after["epoch"] == 0
        assert all(torch.equal(after["state_dict"][key], value) for key, value in weights.items())


def test_inspect(trained: Path, tmp_path: Path) -> None:
    checkpoint = trained / "checkpoints" / "last.ckpt"
    text = run("-m", "srcnn.inspect_ckpt", checkpoint, cwd=tmp_path)
    assert "20,099" in text
    assert "optim.lr" in text
    facts = json.loads(run("-m", "srcnn.inspect_ckpt", checkpoint, "--json", cwd=tmp_path))
    assert (facts["network"], facts["parameters"], facts["scale"]) == ("SRCNN", 20_099, 3)
    assert (facts["epoch"], facts["step"]) == (2, 14)
    assert facts["hyper_parameters"]["optim.lr"] == 1e-4
    assert facts["scores"]["val/psnr"] > 0
    assert facts["bytes"] == checkpoint.stat().st_size
    assert "torch" in facts["versions"]
    run("-m", "srcnn.inspect_ckpt", trained / "metrics.csv", cwd=tmp_path, code=2)


def test_evaluate(trained: Path, images: Path, tmp_path: Path) -> None:
    command = ["-m", "srcnn.evaluate", f"ckpt_path={trained}/checkpoints/best.ckpt", "output=scored"]
    output = run(*command, f"data.test=[{images}]", "protocol=basicsr", cwd=tmp_path)
    assert "protocol basicsr" in output
    assert {path.name for path in (tmp_path / "scored").iterdir()} == {
        "scores.csv", "scores.json", "comparison.png", "report.html",
    }  # fmt: skip
    again = run(*command[:-1], cwd=tmp_path)  # the set the run was tested on, with the run's own scores
    assert (trained / "scores.csv").read_text() == only(tmp_path / "outputs", "*/*/scores.csv").read_text()
    assert "protocol authors" in again


def test_evaluate_compares(sweep: tuple[Path, str], images: Path, tmp_path: Path) -> None:
    """A column each, by what a single evaluation says; the differences, paired over the images, with an interval."""
    paths = [*(sweep[0] / number / "checkpoints" / "best.ckpt" for number in "01"), "srcnn_x3"]
    command = ["-m", "srcnn.evaluate", f"data.test=[{images}]", "output=all"]
    output = run(*command, f"ckpt_path=[{','.join(map(str, paths))}]", cwd=tmp_path)
    assert re.search(r"^image +bicubic +0 +1 +srcnn_x3$", output, re.MULTILINE)
    run(*command[:-1], f"ckpt_path={paths[1]}", "output=one", cwd=tmp_path)
    document = json.loads((tmp_path / "all" / "scores.json").read_text())
    assert document["networks"]["1"] == json.loads((tmp_path / "one" / "scores.json").read_text())
    psnr = {
        name: np.array([image["psnr"] for image in found["images"][images.name].values()])
        for name, found in document["networks"].items()
    }
    rows = read_csv(tmp_path / "all" / "scores.csv")
    assert [float(row["psnr"]) for row in rows if row["network"] == "1"][:-1] == psnr["1"].tolist()
    for name, found in document["differences"][images.name].items():
        apart = psnr[name] - psnr["0"]
        assert found["n"] == 8 and found["mean"] == pytest.approx(apart.mean(), abs=1e-5)
        interval = scipy.stats.bootstrap((apart,), np.mean, n_resamples=10_000, method="percentile").confidence_interval
        spread = apart.std()
        assert (found["low"], found["high"]) == pytest.approx(interval, abs=0.05 * spread)
        (mean,) = (row for row in rows if row["network"] == name and row["image"] == "mean")
        assert float(mean["low"]) == found["low"]
        assert f"{name} - 0: {found['mean']:+.3f} dB (95 % interval {found['low']:+.3f} to " in output
    for other, sentence in (("srcnn_x2", "different scales"), ("srcnn_camera_x3", "choose what to test on, by degr")):
        assert sentence in run(*command, f"ckpt_path=[srcnn_x3,{other}]", cwd=tmp_path, code=2)


def test_evaluate_tells_folders_apart(trained: Path, images: Path, tmp_path: Path) -> None:
    """Two folders called HR are two sets; an image too small to be scored is named."""
    for number, part in enumerate(("Set A", "Set,B")):
        (tmp_path / part / "HR").mkdir(parents=True)
        shutil.copy(images / f"image{number}.png", tmp_path / part / "HR" / "same.png")
        shutil.copy(images / f"image{number + 2}.png", tmp_path / part / "HR" / "same.bmp.png")
    write_image(tmp_path / "Set A" / "HR" / "same.bmp", read_image(images / "image4.png"))
    command = ["-m", "srcnn.evaluate", f"ckpt_path={trained}/checkpoints/best.ckpt", "output=s"]
    (tmp_path / "Set,B").rename(tmp_path / "Set B")
    run(*command, "data.test=[Set A/HR,Set B/HR]", cwd=tmp_path)
    rows = [(row["set"], row["image"]) for row in read_csv(tmp_path / "s" / "scores.csv")]
    assert set(rows) == {
        ("Set A/HR", "same.png"), ("Set A/HR", "same.bmp"), ("Set A/HR", "same.bmp.png"),
        ("Set B/HR", "same"), ("Set B/HR", "same.bmp"), ("Set A/HR", "mean"), ("Set B/HR", "mean"),
    }  # fmt: skip
    write_image(tmp_path / "Set B" / "HR" / "tiny.png", torch.zeros(3, 8, 40, dtype=torch.uint8))
    output = run(*command, "data.test=[Set B/HR]", cwd=tmp_path, code=2)
    assert "tiny.png: 39x6 pixels are too few to be scored at x3" in output


def test_predict_a_file(trained: Path, tmp_path: Path) -> None:
    """An LR image 100x70 becomes 300x210, as the network makes it; names are taken as typed."""
    checkpoint = shutil.copy(trained / "checkpoints" / "best.ckpt", tmp_path / "lr=1, [best] é.ckpt")
    lr = torch.randint(256, (3, 70, 100), dtype=torch.uint8)
    for name in ("lr.bmp", "photo (1) [a,b]=ü.bmp"):
        write_image(tmp_path / name, lr)
        run("predict.py", f"ckpt_path={checkpoint}", f"input={name}", cwd=tmp_path)
        with Image.open((tmp_path / name).with_name(name.replace(".bmp", "_x3.bmp"))) as image:
            assert image.size == (300, 210)
    weights = torch.load(checkpoint, weights_only=True)["state_dict"]
    net = SRCNN()
    net.load_state_dict({key.removeprefix("net."): value for key, value in weights.items()})
    with torch.no_grad():
        expected = net(lr[None] / 255)[0].clamp(0, 1) * 255
    assert (read_image(tmp_path / "lr_x3.bmp").float() - expected).abs().max() <= 0.51


def test_predict_a_folder(trained: Path, images: Path, tmp_path: Path) -> None:
    """A bad file is reported and skipped, the rest done."""
    folder = tmp_path / "in"
    shutil.copytree(images, folder)
    shutil.copy(images / "image0.png", folder / "image0.gif.png")
    write_image(folder / "image0.bmp", read_image(images / "image1.png"))
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    command = ["predict.py", f"ckpt_path={trained}/checkpoints/best.ckpt", "input=in", "output=out"]
    output = run(*command, cwd=tmp_path, code=1)
    assert "skipped: in/broken.png" in output
    assert "10 of 11 images" in output
    expected = {f"image{i}_x3.png" for i in range(1, 8)}
    expected |= {"image0_x3.png", "image0_x3.bmp", "image0.gif_x3.png"}  # no file over another
    assert {path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")} == expected


def test_predict_without_input(trained: Path, tmp_path: Path) -> None:
    output = run("predict.py", f"ckpt_path={trained}/checkpoints/best.ckpt", cwd=tmp_path)
    assert "mean" in output
    folder = only(tmp_path / "outputs", "*/*-predict")
    assert len(list(folder.glob("*/image*_x3.png"))) == 8
    assert (folder / "comparison.png").is_file()


def test_a_saved_png_scores_as_evaluate_says(trained: Path, images: Path, tmp_path: Path) -> None:
    """LR files by another implementation of nothing but rounding, predicted, scored with plain NumPy: `basicsr`."""
    from srcnn.image import bicubic_down, modcrop, to_uint8

    for path in images.iterdir():
        hr = modcrop(read_image(path)[None] / 255, 3)
        write_image(tmp_path / "lr" / path.name, to_uint8(bicubic_down(hr, 3))[0])
    checkpoint = f"ckpt_path={trained}/checkpoints/best.ckpt"
    run("predict.py", checkpoint, "input=lr", "output=sr", cwd=tmp_path)
    run("-m", "srcnn.evaluate", checkpoint, f"data.test=[{images}]", "protocol=basicsr", "output=s", cwd=tmp_path)
    for row in read_csv(tmp_path / "s" / "scores.csv")[:-1]:
        luma = []
        for path in (images / f"{row['image']}.png", tmp_path / "sr" / f"{row['image']}_x3.png"):
            pixels = np.asarray(Image.open(path), dtype=np.float64)[:63, :63]
            luma.append(16 + pixels @ np.array([65.481, 128.553, 24.966]) / 255)
        error = (luma[0] - luma[1])[3:-3, 3:-3]
        assert 20 * math.log10(255 / math.sqrt((error**2).mean())) == pytest.approx(float(row["psnr"]), abs=0.01)


def test_luma_networks_train_and_predict(tiny: list[str], tmp_path: Path) -> None:
    run("train.py", "experiment=paper", *tiny, "hydra.run.dir=run", cwd=tmp_path)
    colour = torch.randint(256, (3, 12, 10), dtype=torch.uint8)
    write_image(tmp_path / "lr.png", colour)
    run("predict.py", "ckpt_path=run/checkpoints/last.ckpt", "input=lr.png", cwd=tmp_path)
    assert read_image(tmp_path / "lr_x3.png").shape == (3, 36, 30)


@pytest.mark.parametrize("model", ["espcn", "srcnn_residual"])
def test_other_models(model: str, tiny: list[str], tmp_path: Path) -> None:
    """Chosen by name, trained, and known again from the checkpoint."""
    run(
        "train.py",
        f"model={model}",
        *tiny,
        "trainer.gradient_clip_val=1.0",
        "scale=2",
        "data.patch_size=32",
        "hydra.run.dir=run",
        cwd=tmp_path,
    )
    facts = json.loads(run("-m", "srcnn.inspect_ckpt", "run/checkpoints/last.ckpt", "--json", cwd=tmp_path))
    assert facts["network"] == {"espcn": "ESPCN", "srcnn_residual": "SRCNN"}[model]
    assert facts["scale"] == 2


def test_help_is_a_page(tmp_path: Path) -> None:
    assert "optim" in run("train.py", "--help", cwd=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("script", "words", "here"),
    [
        ("train.py", "train --lr=0.001 --batch-size 128 --num-epoch=20 --save-freq=2 --cuda",
         "python train.py optim.lr=0.001 data.batch_size=128 trainer.max_epochs=20 "
         "callbacks.checkpoint.every_n_epochs=2 trainer.accelerator=gpu"),
        ("train.py", "resume x.ckpt --batch-size=16", "python train.py resume=x.ckpt data.batch_size=16"),
        ("train.py", "inspect x.ckpt", "python -m srcnn.inspect_ckpt x.ckpt"),
        ("train.py", "--optim.lr=0.1", "python train.py optim.lr=0.1"),
        ("predict.py", "--checkpoint x.ckpt lr.bmp", "python predict.py ckpt_path=x.ckpt lr.bmp"),
    ],
)  # fmt: skip
def test_the_sheets_own_command_lines(script: str, words: str, here: str, tmp_path: Path) -> None:
    theirs = " ".join(word for word in words.split() if word not in here.split())
    assert run(script, *words.split(), cwd=tmp_path, code=2) == f"error: {theirs}: here that is: {here}\n"
    assert not list(tmp_path.iterdir())
    output = run("train.py", "num_epoch=4", cwd=tmp_path, code=2)
    assert output == "error: num_epoch: no such key; did you mean trainer.max_epochs?\n"


def test_names_of_no_utf_8(tiny: list[str], images: Path, tmp_path: Path) -> None:
    """In training, test, evaluation and reference images."""
    (tmp_path / "hr").mkdir()
    for number, path in enumerate(sorted(images.iterdir())[:4]):
        shutil.copy(path, os.fsencode(tmp_path / "hr") + b"/\xff%d.png" % number)
    run("train.py", *tiny, "data.train_dir=hr", "data.test=[hr]", "hydra.run.dir=run", cwd=tmp_path)
    assert (tmp_path / "run" / "weights.pth").exists()
    words = ["data.test=[hr]", "ckpt_path=run/weights.pth"]
    assert "\\xff3 " in run("-m", "srcnn.evaluate", *words, cwd=tmp_path, env={"PYTHONIOENCODING": "utf-8:strict"})
    words = ["input=hr", "output=sr", "reference=hr"]
    output = run("predict.py", *words, cwd=tmp_path, code=1, env={"PYTHONIOENCODING": "utf-8:strict"})
    assert "4 of 4 images enlarged" in output
    single = os.fsdecode(b"hr/\xff0.png")
    assert "udcff0_x3.png, 192x192" in run("predict.py", single, cwd=tmp_path, env={"PYTHONIOENCODING": "utf-8:strict"})
