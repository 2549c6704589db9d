"""Runs that are killed, stopped, or run out of disk; checkpoints that are damaged. Nothing is lost.

More of it:

    python tests/kills.py places; python tests/kills.py moments 3; python tests/hostile.py 500
    SRCNN_MUTATIONS=2000 python -m pytest tests/test_survival.py
"""

import io
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import ROOT, run
from test_resume import MUON, assert_same_run, differences, state

from srcnn.errors import UserError
from srcnn.checkpoint import load_network, read_checkpoint
from srcnn.run.resume import expand_resume

MUTATIONS = int(os.environ.get("SRCNN_MUTATIONS", 200))
EPOCHS = 8


@pytest.fixture(scope="module")
def settings(tiny: list[str]) -> list[str]:
    """Whatever a run can have to lose: averaged weights, a schedule, a checkpoint every three of seven steps."""
    return [
        *tiny, *MUON, "scheduler=cosine", "scheduler.schedule.warmup=5", f"trainer.max_epochs={EPOCHS}",
        "callbacks.guard.every_n_steps=3", "callbacks.checkpoint.every_n_epochs=3",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def whole(settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nobody interrupts."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    run("train.py", *settings, f"hydra.run.dir={folder}", cwd=folder.parent)
    return folder


def start(settings: list[str], folder: Path, **options) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "train.py"), *settings, f"hydra.run.dir={folder}", "resume=auto"]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, **options}
    return subprocess.Popen(command, cwd=folder.parent, **options)


def wait_for(path: Path, process: subprocess.Popen) -> None:
    while not path.exists() and process.poll() is None:
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("script", "words", "said"),
    [
        ("kills.py", ["places", "40", "within an epoch"], "kills, 0 lost something"),
        ("kills.py", ["places", "50", "steps"], "kills, 0 lost something"),
        ("kills.py", ["places", "48", "validated within"], "kills, 0 lost something"),
        ("kills.py", ["places", "50", "stopped early"], "kills, 0 lost something"),
        ("kills.py", ["moments", "1", "averaged"], "1 kills, 0 lost something"),
        ("hostile.py", ["14"], "14 pairs of a checkpoint and a command, 0 ended in a traceback"),
    ],
)
def test_a_few_of_many(script: str, words: list[str], said: str, tmp_path: Path) -> None:
    """Kills and hostile checkpoints: all of them take an hour."""
    assert said in run(str(ROOT / "tests" / script), *words, cwd=tmp_path)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_leaves(number: int, code: int, settings: list[str], whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = start(settings, folder)
    wait_for(folder / "checkpoints" / "last.ckpt", process)
    process.send_signal(number)
    output, _ = process.communicate()
    assert process.returncode == code, output
    assert "Traceback" not in output
    last = folder / "checkpoints" / "last.ckpt"
    assert f"resume with python train.py resume={last}" in output
    assert 0 < state(folder)["global_step"] < state(whole)["global_step"]
    run("train.py", f"resume={last}", cwd=tmp_path)
    assert_same_run(whole, folder)


def test_a_signal_where_an_epoch_is_one_step(tiny: list[str], tmp_path: Path) -> None:
    process = start([*tiny, "data.batch_size=64", "trainer.max_epochs=100000"], tmp_path / "run")
    wait_for(tmp_path / "run" / "checkpoints" / "last.ckpt", process)
    refused = run("train.py", *tiny, "hydra.run.dir=run", "resume=auto", cwd=tmp_path, code=2)
    assert f"process {process.pid} on {socket.gethostname()} is at work in this folder" in refused
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 143, output
    assert f"SIGTERM after step {state(tmp_path / 'run')['global_step']}: resume with" in output


def test_stopped_by_a_number_of_steps(tiny: list[str], tmp_path: Path) -> None:
    """Within an epoch: validated there, and gone on with in the middle of it."""
    command = ["train.py", *tiny, *MUON, "trainer.max_epochs=3"]
    run(*command, "hydra.run.dir=whole", cwd=tmp_path)
    run(*command, "hydra.run.dir=cut", "trainer.max_steps=10", cwd=tmp_path)
    assert state(tmp_path / "cut", "best")["global_step"] in (7, 10)
    assert state(tmp_path / "cut")["global_step"] == 10
    run("train.py", "resume=cut/checkpoints/last.ckpt", "trainer.max_steps=-1", cwd=tmp_path)
    one, other = state(tmp_path / "whole"), state(tmp_path / "cut")
    for key in ("state_dict", "current_model_state", "optimizer_states", "loops", "global_step"):
        assert not differences(one[key], other[key]), key


def test_a_full_disk(settings: list[str], tmp_path: Path) -> None:
    """The checkpoint that was there loads, the run ends with one sentence, and goes on when there is room again."""
    settings = [*settings, "data.hold_out=5"]  # what three images take is less than a checkpoint
    run("train.py", *settings, "hydra.run.dir=run", "trainer.max_epochs=2", cwd=tmp_path)
    before = state(tmp_path / "run")
    small = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))  # noqa: E731
    process = start(settings, tmp_path / "run", preexec_fn=small)
    output, _ = process.communicate()
    assert process.returncode == 1
    assert "Traceback" not in output, output
    assert "last.ckpt: cannot be written (File too large); the last good checkpoint is" in output
    assert not differences(before, state(tmp_path / "run"))
    assert not list((tmp_path / "run").rglob("*.part"))
    process = start(settings, tmp_path / "run", preexec_fn=small, env={**os.environ, "HYDRA_FULL_ERROR": "1"})
    output, _ = process.communicate()
    assert "Traceback" in output and "OSError: [Errno 27] File too large" in output


def test_a_disk_that_fills(settings: list[str], tmp_path: Path) -> None:
    """A file system of its own, in which every epoch leaves a checkpoint."""
    (tmp_path / "small").mkdir()
    settings = [*settings, "callbacks.checkpoint.every_n_epochs=1", "trainer.max_epochs=50", "hydra.run.dir=run"]
    command = [sys.executable, str(ROOT / "train.py"), *settings]
    mount = "mount -t tmpfs -o size=2000k tmpfs small"
    outside = ["unshare", "-m" if os.geteuid() == 0 else "-rm", "bash", "-c"]
    if not shutil.which("unshare") or subprocess.run([*outside, mount], cwd=tmp_path, capture_output=True).returncode:
        pytest.skip("no file system may be mounted here")
    outside += [f'{mount} && cd small && {{ "$@"; echo "code $?"; cp -r run ../kept; }}', "bash"]
    done = subprocess.run([*outside, *command], cwd=tmp_path, capture_output=True, text=True)
    assert "code 1" in done.stdout, done
    assert "Traceback" not in done.stderr
    assert "cannot be written (No space left on device); make room there" in done.stderr
    assert "the last good checkpoint is" in done.stderr
    assert state(tmp_path / "kept")["global_step"] > 7


def test_a_loss_that_is_nan(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    before = last.read_bytes()
    output = run("train.py", f"resume={last}", "trainer.max_epochs=4", "optim.lr=1e30", cwd=tmp_path, code=3)
    assert "the loss is NaN or infinite at step 1" in output
    assert "at a learning rate of 1e+30" in output
    assert f"the last good checkpoint is {last}, of step 14" in output
    assert last.read_bytes() == before


def mutate(content: bytes, rng: random.Random) -> bytes:
    """Bytes changed, cut off, left out, doubled or blanked."""
    changed = bytearray(content)
    where = rng.randrange(len(changed))
    length = min(rng.choice([1, 4, 64, 4096]), len(changed) - where)
    match rng.randrange(6):
        case 0 | 1:
            for _ in range(rng.choice([1, 8, 64])):
                changed[rng.randrange(len(changed))] = rng.randrange(256)
        case 2:
            del changed[where:]
        case 3:
            del changed[where : where + length]
        case 4:
            changed[where:where] = changed[where : where + length]
        case 5:
            changed[where : where + length] = bytes(length)
    return bytes(changed)


def mutate_inside(content: bytes, rng: random.Random) -> bytes:
    """A mutated part of an archive whose checksums are right: what an attacker would send."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(out, "w") as other:
        chosen = rng.choice([name for name in archive.namelist() if name.endswith("data.pkl")] + archive.namelist())
        for name in archive.namelist():
            part = archive.read(name)
            other.writestr(name, mutate(part, rng) if name == chosen and part else part)
    return out.getvalue()


def only_refused(task: Callable[[], object]) -> bool:
    """Whether it was refused; in little time and memory."""
    begin, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        task()
        refused = False
    except UserError:
        refused = True
    assert time.monotonic() - begin < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB
    return refused


def test_mutated_checkpoints(trained: Path, tmp_path: Path) -> None:
    rng = random.Random(0)
    path, content = tmp_path / "x.ckpt", (trained / "checkpoints" / "last.ckpt").read_bytes()
    refused = 0
    for number in range(MUTATIONS):
        path.write_bytes((mutate, mutate_inside)[number % 2](content, rng))
        refused += only_refused(lambda: load_network(path))
        only_refused(lambda: expand_resume([f"resume={path}"]))
    assert refused > MUTATIONS / 3  # of the others many have changed what is not looked at


def test_resuming_from_strange_state(trained: Path, tmp_path: Path) -> None:
    """Sound weights and settings, but a state that does not fit: a sentence, before the run's folder is touched."""
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    last.parent.mkdir(parents=True)
    for change in (
        lambda c: c.update(optimizer_states=[]),
        lambda c: c["loops"]["fit_loop"].pop("epoch_progress"),
        lambda c: c.update(global_step=float("inf")),
        lambda c: c["run"].update(versions=5),
        lambda c: c["run"].update(val_psnr=torch.zeros(1)),
        lambda c: c["run"].update(overrides=[5]),
    ):
        checkpoint = state(trained)
        change(checkpoint)
        torch.save(checkpoint, last)
        with pytest.raises(UserError, match=r"not that of a run|holds weights only|not what srcnn writes"):
            expand_resume([f"resume={last}", "trainer.max_epochs=3"])


def test_claims_of_size(tmp_path: Path) -> None:
    """A few bytes seen as gigantic weights, an archive that unpacks to gigabytes."""
    torch.save({"conv1.weight": torch.zeros(1).expand(10**6, 10**6)}, tmp_path / "wide.pth")
    torch.save({"conv1.weight": torch.zeros(10**6)}, tmp_path / "plain.pth")
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as archive,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for name in archive.namelist():
            bomb.writestr(name, archive.read(name))
    for name in ("wide", "bomb"):
        assert only_refused(lambda name=name: read_checkpoint(tmp_path / f"{name}.pth"))


def test_a_torn_checkpoint_names_the_next_best(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    folder = tmp_path / "run" / "checkpoints"
    torn = folder / "last.ckpt"
    torn.write_bytes(torn.read_bytes()[:-1000])
    with pytest.raises(UserError, match=r"damaged one; the next best beside it is .*epoch_0002.ckpt, of step 14"):
        read_checkpoint(torn)
    one_bit = bytearray((folder / "epoch_0002.ckpt").read_bytes())
    one_bit[len(one_bit) // 2] ^= 1
    (folder / "epoch_0002.ckpt").write_bytes(one_bit)
    with pytest.raises(UserError, match="damaged"):
        read_checkpoint(folder / "epoch_0002.ckpt")
