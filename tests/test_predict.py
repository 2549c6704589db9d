"""Any number of images by one command: files are files, results are no inputs, and a bad file stops no other."""

import os
import signal
import struct
import subprocess
import sys
import time
from contextlib import chdir
from pathlib import Path

import pytest
import torch
from conftest import ROOT, run
from PIL import Image

import predict
from srcnn.checkpoint import load_network, save_weights
from srcnn.data.leaves import dead_leaves
from srcnn.errors import UserError
from srcnn.files import read_image
from srcnn.image import to_uint8
from srcnn.inference.folder import enlarge_files, find_jobs
from srcnn.inference.image_file import read_file, write_image
from srcnn.launch import CONFIGS, settings
from srcnn.nets import SRCNN

COLOUR = Image.fromarray(dead_leaves(1, 36, seed=3)[0].permute(1, 2, 0).numpy()[:24])


def enlarged(folder: Path, *words: str) -> int:
    """predict.py with these words in a folder; its exit code."""
    with chdir(folder):
        return predict.predict(settings(CONFIGS / "predict.yaml", list(words)))


def small(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        write_image(folder / name, dead_leaves(1, 12, seed=number)[0])


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_files_are_files(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Bare names, several, globs, and names that look like settings."""
    odd = ["photo (1) ü.png", "resize=w_800.png", "[b], {c}.png", "a.png", "more/d.jpg", "more/e.jpg"]
    small(tmp_path, *odd)
    assert run("predict.py", "resize=w_800.png", cwd=tmp_path) == "resize=w_800_x3.png, 36x36, by compact_x3\n"
    with torch.no_grad():
        sr = load_network(None)[0](read_image(tmp_path / odd[1])[None] / 255)
    assert (read_image(tmp_path / "resize=w_800_x3.png").int() - to_uint8(sr)[0].int()).abs().max() <= 1
    enlarged(tmp_path, *odd[:4], "more/*.jpg", "scale=2")
    assert "6 of 6 images enlarged; in ., by compact_x2\n" in capsys.readouterr().out
    made = {f"{Path(name).with_suffix('')}_x2{Path(name).suffix}" for name in odd}
    assert names(tmp_path) == {*odd, *made, "resize=w_800_x3.png"}
    both = run("predict.py", "a.png", tmp_path / "more" / "d.jpg", "overwrite=true", cwd=tmp_path)
    assert f"2 of 2 images enlarged; in {tmp_path}, by" in both
    assert "error: while parsing" in run("predict.py", "scale=[", "a.png", cwd=tmp_path, code=2)
    assert run("predict.py", "nofile.jpg", cwd=tmp_path, code=2) == "error: nofile.jpg: no such file or folder\n"
    for words, sentence in {
        ("input=",): "input=: no such file",  # not this folder, either
        ("'*.gif'",): "no such file or folder",
        ("a.png", "scale=5"): r"^scale=5: no weights are shipped for it; .{,40}width=",
    }.items():
        with pytest.raises(UserError, match=sentence):
            enlarged(tmp_path, *words)


def test_a_folder_into_one_beside_it(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """None of its files is changed, no result is an input, and what is there is not made again."""
    small(tmp_path / "in", "a.bmp", "b.gif", "below/logo_x3.png", ".hidden/c.png")
    for name in ("photo.heic", "notes.txt"):
        (tmp_path / "in" / name).touch()
    before = names(tmp_path)
    made = {"in_x3/a_x3.bmp", "in_x3/b.gif_x3.png", "in_x3/below/logo_x3_x3.png"}
    for folder, words in ((tmp_path, ["in"]), (tmp_path, ["in/"]), (tmp_path / "in", ["."])):
        enlarged(folder, *words)
        assert names(tmp_path) == before | made
    output, errors = capsys.readouterr()
    assert (
        "3 of 3 images enlarged; in in_x3, by compact_x3\n0 of 3 images enlarged, 3 there already (overwrite=" in output
    )
    assert "left out: 1 .heic, 1 .txt\n" in errors
    enlarged(tmp_path, ".", "output=all")  # in_x3 lies there, beside in
    assert names(tmp_path) == before | made | {"all/in/a_x3.bmp", "all/in/b.gif_x3.png", "all/in/below/logo_x3_x3.png"}
    written = os.stat(tmp_path / "in_x3" / "a_x3.bmp").st_mtime_ns
    enlarged(tmp_path, "in", "overwrite=true")
    assert os.stat(tmp_path / "in_x3" / "a_x3.bmp").st_mtime_ns > written


def test_results_beside_files_are_no_inputs(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    small(tmp_path, "a.png", "b.jpg", "c.gif")
    words = ["*.png", "*.jpg", "*.gif"]
    enlarged(tmp_path, *words)
    enlarged(tmp_path, "width=24", *words)
    made = {"a_x3.png", "b_x3.jpg", "c.gif_x3.png", "a_w24.png", "b_w24.jpg", "c.gif_w24.png"}
    assert names(tmp_path) == {"a.png", "b.jpg", "c.gif"} | made
    capsys.readouterr()
    enlarged(tmp_path, *words, "scale=2")
    assert names(tmp_path) == {"a.png", "b.jpg", "c.gif", "a_x2.png", "b_x2.jpg", "c.gif_x2.png"} | made
    assert "left out: 6 results of earlier runs\n" in capsys.readouterr().err
    enlarged(tmp_path, "a_x3.png", "scale=2")  # named alone
    assert (tmp_path / "a_x3_x2.png").exists()


def test_linked_folders_once(tmp_path: Path) -> None:
    small(tmp_path / "album", "a.png")
    small(tmp_path / "elsewhere", "b.png")
    (tmp_path / "album" / "link").symlink_to("../elsewhere")
    (tmp_path / "album" / "again").symlink_to("../elsewhere")
    (tmp_path / "album" / "circle").symlink_to(".")
    (tmp_path / "album" / "link.png").symlink_to("a.png")
    enlarged(tmp_path, "album", "output=album/larger")
    enlarged(tmp_path, "album", "output=album/larger")
    assert names(tmp_path / "album" / "larger") == {"a_x3.png", "again/b_x3.png", "link_x3.png"}


def test_where_results_may_go(tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    small(tmp_path / "in", "a.png", "b.png")
    small(tmp_path / "pair", "a.gif", "a.gif.png")
    (tmp_path / "taken" / "a_x3.png").mkdir(parents=True)
    for words, sentence in {
        ("in/a.png", "output=out.xyz"): "out.xyz: .xyz is not a format to write: take .png",
        ("in", "output=out.png"): "one file for what may be many",
        ("in/a.png", "in/b.png", "output=out.png"): "one file for what may be many",
        ("in/b.png", "output=in/a.png/below"): "in/a.png/below/b_x3.png: cannot be written",
        ("pair",): "pair/a.gif.png: its result would be pair_x3/a.gif_x3.png, as that of pair/a.gif; rename it",
        ("in", "trainer.accelerator=tpu"): "trainer.accelerator=tpu",
        ("in/a.png", "output=taken/"): "taken/a_x3.png: is a folder",
        ("in/a.png", "max_pixels=100"): r"a.png: 12x12 pixels; at most 100 are accepted \(max_pixels=\)",
        ("in/a.png", "width=9", "height=9"): "width=, height=: give one of them",
        ("in/a.png", "width=big"): "width=big: must be a number",
        ("in/a.png", "overwrite=maybe"): "overwrite=maybe: choose True or False",
        ("width=9",): "with an input=",
    }.items():
        with pytest.raises(UserError, match=sentence):
            enlarged(tmp_path, *words)
    assert not names(tmp_path) - {"in/a.png", "in/b.png", "pair/a.gif", "pair/a.gif.png"}
    enlarged(tmp_path, "in/a.png", "output=~/b.png")
    assert names(tmp_path / "home") == {"b.png"}
    enlarged(tmp_path, "in", "output=results.v2")
    assert names(tmp_path / "results.v2") == {"a_x3.png", "b_x3.png"}
    capsys.readouterr()
    enlarged(tmp_path, "in/a.png", "output=c.webp", "self_ensemble=true")
    enlarged(tmp_path, "in/a.png", "output=c.webp")
    line = (
        "c.webp, 36x36, by compact_x3\n0 of 1 images enlarged, 1 there already (overwrite=true makes them again); in "
    )
    assert capsys.readouterr().out.startswith(line)
    with Image.open(tmp_path / "c.webp") as image:
        assert (image.format, image.size) == ("WEBP", (36, 36))


def test_what_cannot_be_written_is_refused_before_it_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("srcnn.inference.folder.enlarge_to", None)
    COLOUR.convert("RGBA").save(tmp_path / "a.png")
    write_image(tmp_path / "wide.png", torch.zeros(3, 2, 6000, dtype=torch.uint8))
    for words, sentence in {
        ("a.png", "output=a.jpg"): r"a.jpg: JPEG cannot hold a RGBA image",
        ("wide.png", "output=a.webp"): r"a.webp: WEBP cannot hold",
    }.items():
        with pytest.raises(UserError, match=sentence):
            enlarged(tmp_path, *words)
    assert names(tmp_path) == {"a.png", "wide.png"}


def test_one_file_never_ends_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """A FIFO, names as long as can be or not of UTF-8, a file that vanishes, broken ones, a TIFF with odd tags."""
    small(tmp_path / "in", "a.png", f"{'n' * 251}.png", "gone.png")
    folder = tmp_path / "in"
    os.mkfifo(folder / "fifo.png")
    (folder / "dangling.png").symlink_to("nowhere.png")
    (folder / "text.png").write_text("not an image")
    (folder / "cut.jpg").write_bytes((folder / "a.png").read_bytes()[:-60])
    with open(os.fsencode(folder) + b"/\xff.png", "wb") as other:
        other.write((folder / "a.png").read_bytes())
    COLOUR.save(folder / "odd.tif", dpi=(300, 300))
    odd = (folder / "odd.tif").read_bytes().replace(struct.pack("<II", 300, 1), bytes(8))  # 0 / 0 dpi
    (folder / "odd.tif").write_bytes(odd)
    for name in ("pages.tif", "animated.gif"):
        COLOUR.save(folder / name, save_all=True, append_images=[COLOUR.rotate(90)])
    jobs = find_jobs([str(folder)], str(tmp_path / "out"), "x3")
    (folder / "gone.png").unlink()
    counts, line = enlarge_files(load_network(None)[0], jobs)
    assert line.startswith("5 of 11 images enlarged, 6 skipped; in ")
    assert (counts["enlarged"], counts["skipped"]) == (5, 6)
    errors = capsys.readouterr().err
    for name in (
        "gone.png: no such file",
        "fifo.png: not a file",
        "dangling.png: no such file",
        "text.png: not an image",
    ):
        assert f"skipped: {folder}/{name}" in errors
    assert "cut.jpg: not an image" in errors and "File name too long" in errors
    assert "only the first of several pages or frames: animated.gif, pages.tif\n" in errors
    assert {os.fsencode(path.name) for path in (tmp_path / "out").iterdir()} == {
        b"a_x3.png", b"\xff_x3.png", b"odd_x3.tif", b"pages_x3.tif", b"animated.gif_x3.png",
    }  # fmt: skip


def test_a_run_that_is_killed_goes_on(tmp_path: Path) -> None:
    """Nothing is done twice, no file is half written, and a broken one makes the exit code 1."""
    for number in range(200):
        write_image(tmp_path / "in" / f"{number:03}.png", dead_leaves(1, 12, seed=0)[0].roll(number, 2))
    (tmp_path / "in" / "broken.png").touch()
    command = [sys.executable, str(ROOT / "predict.py"), "in"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    out = tmp_path / "in_x3"
    while len(list(out.glob("*_x3.*"))) < 50 and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    before = {path: path.stat().st_mtime_ns for path in out.glob("*_x3.*")}
    assert all(read_file(path).planes.shape == (3, 36, 36) for path in before)
    output = run("predict.py", "in", cwd=tmp_path, code=1)
    assert f"{200 - len(before)} of 201 images enlarged, {len(before)} there already (overwrite=true " in output
    assert "), 1 skipped; in in_x3, by compact_x3\nskipped: in/broken.png: not an image that can be read " in output
    after = {path: path.stat().st_mtime_ns for path in out.glob("*_x3.*")}
    assert len(after) == 200 and after.items() >= before.items()


def test_a_signal_ends_it(tmp_path: Path) -> None:
    """With its exit code, and no file of it left behind."""
    write_image(tmp_path / "a.png", torch.zeros(3, 600, 800, dtype=torch.uint8))
    for number in (signal.SIGTERM, signal.SIGINT):
        command = [sys.executable, str(ROOT / "predict.py"), "a.png", "ckpt_path=srcnn_x3", "exact=true"]
        process = subprocess.Popen([*command, "self_ensemble=true"], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        while not list(tmp_path.glob(".*.part")) and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(number)
        assert "Traceback" not in process.communicate()[1]
        assert process.returncode == 128 + number
        assert names(tmp_path) == {"a.png"}


def test_a_full_disk_stops_a_folder(tmp_path: Path) -> None:
    """Not a sentence for each of its images."""
    small(tmp_path / "in", "a.png", "b.png")
    mount = f"cd {tmp_path}; mount -t tmpfs -o size=4k none out || exit 99"
    script = f"{mount}; exec $0 {ROOT}/predict.py input=in output=out"
    (tmp_path / "out").mkdir()
    done = subprocess.run(["unshare", "-rm", "sh", "-c", script, sys.executable], capture_output=True, text=True)
    if done.returncode in (99, 127) or "unshare" in done.stderr:
        pytest.skip("no file system can be mounted here")
    assert (done.returncode, done.stderr) == (1, "error: out/b_x3.png: cannot be written (No space left on device)\n")


def test_weights_for_compressed_photographs_are_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "in").mkdir()
    for quality in (30, 80, 95):
        COLOUR.save(tmp_path / "in" / f"{quality}.jpg", quality=quality)
        assert abs(read_file(tmp_path / "in" / f"{quality}.jpg").quality - quality) <= 1
    hint = "JPEG of a quality below 90 (2 of them): these weights sharpen its artefacts, ckpt_path=srcnn_camera_x3 "
    enlarged(tmp_path, "in", "output=out")
    assert hint in capsys.readouterr().err
    for words in (["ckpt_path=srcnn_camera_x3"], ["scale=4"]):
        enlarged(tmp_path, "in", "output=out", "overwrite=true", *words)
        assert "quality" not in capsys.readouterr().err


def test_weights_of_yours(tmp_path: Path) -> None:
    """A class in a module beside you; a network of the same size; weights that would make black images."""
    small(tmp_path, "a.png")
    module = "from srcnn.nets import SRCNN\nclass Mine(SRCNN):\n    def body(self, x):\n        return x * 0.5\n"
    (tmp_path / "mine.py").write_text(module)
    make = "import mine; from srcnn.checkpoint import save_weights; save_weights('mine.pth', mine.Mine(2), {})"
    subprocess.run([sys.executable, "-c", make], cwd=tmp_path, check=True)
    assert "a_x2.png" in run("predict.py", "a.png", "ckpt_path=mine.pth", "imports=[mine]", cwd=tmp_path, env={})
    assert read_image(tmp_path / "a_x2.png").max() <= 128
    net = SRCNN(scale=1, init="default")
    save_weights(tmp_path / "same.pth", net, {})
    torch.nn.init.constant_(net.conv3.bias, float("nan"))
    save_weights(tmp_path / "nan.pth", net, {})
    assert enlarged(tmp_path, "a.png", "ckpt_path=same.pth", "exact=true") == 0
    for words, sentence in {
        ("ckpt_path=mine.pth",): "'Mine' is not known here",
        ("ckpt_path=same.pth", "width=50"): "for a network that enlarges",
        ("ckpt_path=nan.pth",): r"nan.pth: holds weights that are NaN",
    }.items():
        with pytest.raises(UserError, match=sentence):
            enlarged(tmp_path, "a.png", *words)


def test_any_width(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_image(tmp_path / "a.png", dead_leaves(1, 20, seed=0)[0][:, :12])
    for word, size in {"width=120": (120, 72), "height=36": (60, 36), "width=10": (10, 6)}.items():
        enlarged(tmp_path, "a.png", word)
        name = f"a_{word[0]}{word.partition('=')[2]}.png"
        assert capsys.readouterr().out == f"{name}, {size[0]}x{size[1]}, by compact_x3\n"
        with Image.open(tmp_path / name) as larger:
            assert larger.size == size
