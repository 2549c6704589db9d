"""Two processes on the CPU train what one would, also when one is stopped or dies; a queue's signal."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT, read_csv, run
from test_resume import assert_same_run, state
from test_survival import start, wait_for

from srcnn.checkpoint import newest_checkpoint, read_checkpoint

pytestmark = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="there is one processor core")


@pytest.fixture(scope="module")
def settings(tiny: list[str]) -> list[str]:
    return [*tiny, "trainer.devices=2", "trainer.max_epochs=4", "callbacks.guard.every_n_steps=2",
            "trainer.precision=32-true"]  # fmt: skip


@pytest.fixture(scope="module")
def two(settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two") / "run"
    run("train.py", *settings, f"hydra.run.dir={folder}", cwd=folder.parent)
    return folder


def test_two_processes_train_as_one(settings: list[str], two: Path, tmp_path: Path) -> None:
    """The same batch, shared: weights and losses are one process's but for the order of additions."""
    run("train.py", *settings, "trainer.devices=1", "hydra.run.dir=run", cwd=tmp_path)
    one, both = state(tmp_path / "run"), state(two)
    assert one["global_step"] == both["global_step"]
    for key, value in one["state_dict"].items():
        torch.testing.assert_close(both["state_dict"][key], value, atol=1e-6, rtol=1e-5)
    logs = [read_csv(folder / "metrics.csv") for folder in (tmp_path / "run", two)]
    losses, shared = ([float(row["train/loss"]) for row in log if row["train/loss"]] for log in logs)
    assert shared == pytest.approx(losses, rel=1e-4)
    files = [
        {path.name for path in folder.rglob("*") if path.is_file() and "tfevents" not in path.name}
        for folder in (two, tmp_path / "run")
    ]
    assert files[0] == files[1]


def test_ranks_hold_the_same_weights(tiny: list[str], tmp_path: Path) -> None:
    script = tmp_path / "both.py"
    script.write_text(
        f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
import lightning as L, torch
from srcnn.data.datamodule import SRDataModule
from srcnn.lit_module import SuperResolution
from srcnn.metrics import PROTOCOLS
from srcnn.nets import SRCNN
net = SRCNN()
folder = {tiny[1].partition("=")[2]!r}
data = SRDataModule(net, train_dir=folder, test=[folder], hold_out=2, batch_size=8)
trainer = L.Trainer(accelerator="cpu", devices=2, max_epochs=1, logger=False, enable_checkpointing=False)
module = SuperResolution(net, PROTOCOLS["authors"], torch.nn.MSELoss(), torch.optim.Adam(net.parameters()))
trainer.fit(module, data)
torch.save(net.state_dict(), f"rank{{trainer.global_rank}}.pt")
"""
    )
    subprocess.run([sys.executable, str(script)], cwd=tmp_path, check=True, capture_output=True)
    one, other = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_two_processes_stop_together(settings: list[str], two: Path, tmp_path: Path) -> None:
    """The signal reaches one of them; what both resume is the uninterrupted run."""
    process = start([*settings, "trainer.max_epochs=400"], tmp_path / "run")
    wait_for(tmp_path / "run" / "checkpoints" / "last.ckpt", process)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate()
    assert process.returncode == 143, output
    assert "Traceback" not in output
    if state(tmp_path / "run")["global_step"] < state(two)["global_step"]:
        run("train.py", *settings, "hydra.run.dir=run", "resume=auto", cwd=tmp_path)
        assert_same_run(two, tmp_path / "run")


def test_a_process_dies(settings: list[str], tmp_path: Path) -> None:
    """So does the run, with a code, and does not hang."""
    process = start([*settings, "trainer.max_epochs=100000"], tmp_path / "run")
    wait_for(tmp_path / "run" / "checkpoints" / "last.ckpt", process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for child in children:
        if b"train_ddp_process_1" in Path(f"/proc/{child}/cmdline").read_bytes():
            os.kill(int(child), signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert newest_checkpoint(tmp_path / "run")


def test_torchrun(settings: list[str], two: Path, tmp_path: Path) -> None:
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(ROOT / "train.py"), *settings]
    run(*command, "hydra.run.dir=run", cwd=tmp_path)
    assert_same_run(two, tmp_path / "run")


def test_torchrun_without_a_folder(tiny: list[str], tmp_path: Path) -> None:
    output = run("train.py", *tiny, cwd=tmp_path, code=2, env={"TORCHELASTIC_RUN_ID": "1"})
    assert "under torchrun every process has to know the run's folder" in output


def test_a_queue_announces_the_end(tiny: list[str], tmp_path: Path) -> None:
    """SLURM's signal: saved and queued again; the same command then goes on, and the best weights are tested."""
    (tmp_path / "bin").mkdir()
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/queued\n')
    scontrol.chmod(0o755)
    slurm = {
        "SLURM_NTASKS": "1",
        "SLURM_JOB_ID": "77",
        "SLURM_JOB_NAME": "sr",
        "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0",
    }
    slurm |= {"SLURM_NODEID": "0", "SLURM_NTASKS_PER_NODE": "1", "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    command = [
        sys.executable,
        str(ROOT / "train.py"),
        *tiny,
        "trainer.max_epochs=400",
        "hydra.run.dir=run",
        "resume=auto",
    ]
    process = subprocess.Popen(command, cwd=tmp_path, env={**os.environ, **slurm}, stdout=subprocess.PIPE, text=True)
    wait_for(tmp_path / "run" / "checkpoints" / "last.ckpt", process)
    process.send_signal(signal.SIGUSR1)
    process.communicate()
    assert process.returncode == 128 + signal.SIGUSR1
    assert (tmp_path / "queued").read_text() == "requeue 77\n"
    saved = newest_checkpoint(tmp_path / "run")
    assert saved and {path.name for path in (tmp_path / "run").glob("**/*.ckpt")} <= {
        "last.ckpt", "best.ckpt", *(f"epoch_{number:04}.ckpt" for number in range(400)),
    }  # fmt: skip
    command[3:] = [*tiny, f"trainer.max_epochs={saved[1] // 7 + 2}", "hydra.run.dir=run", "resume=auto"]
    assert f"after step {saved[1]}" in run("train.py", *command[3:], cwd=tmp_path, env=slurm)
    best, shipped = (read_checkpoint(tmp_path / "run" / name) for name in ("checkpoints/best.ckpt", "weights.pth"))
    for key, value in shipped["state_dict"].items():  # the best weights were tested, not those at the signal
        assert torch.equal(value, best["state_dict"][f"net.{key}"])
