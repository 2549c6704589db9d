"""A real queue, where one can be started: runs that are queued again, processes started by srun, a sweep of jobs."""

import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, SMALL, run
from node import WAIT, output, running, wait_until, why_not

from srcnn.checkpoint import read_checkpoint

# When asked for only, as it takes minutes.
pytestmark = [
    pytest.mark.skipif("SRCNN_SLURM" not in os.environ, reason="SRCNN_SLURM=1 starts a node of SLURM"),
    pytest.mark.skipif(why_not() != "", reason=why_not()),
]

LONG = [*SMALL, "trainer.max_epochs=20", "trainer.precision=32-true", "logger=csv"]


@pytest.fixture(scope="module")
def node() -> Iterator[dict[str, str]]:
    python = Path(sys.executable).parent
    with ExitStack() as stack:
        folder = tempfile.TemporaryDirectory(prefix="slurm", ignore_cleanup_errors=True)
        try:
            env = stack.enter_context(running(Path(stack.enter_context(folder))))
        except TimeoutError as error:
            pytest.skip(str(error))
        yield env | {"PATH": f"{python}:{env['PATH']}", "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nobody interrupts."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    run("train.py", *LONG, f"hydra.run.dir={folder}", cwd=folder.parent)
    return folder


def state(job: str, env: dict[str, str]) -> str:
    """As "RUNNING"; "" for an unknown job."""
    words = output(["scontrol", "show", "job", "--oneliner", job], env).split()
    return next((word.partition("=")[2] for word in words if word.startswith("JobState=")), "")


def announce_the_end(job: str, env: dict[str, str]) -> None:
    """What SLURM does some seconds before a job's time is over."""
    wait_until(lambda: state(job, env) == "RUNNING")
    subprocess.run(["scancel", "--signal=USR1", job], env=env, check=True)
    wait_until(lambda: state(job, env) == "PENDING")
    wait_until(lambda: state(job, env) == "RUNNING")


def assert_same_result(one: Path, other: Path) -> None:
    scores: list[dict[str, Any]] = [json.loads((folder / "scores.json").read_text()) for folder in (one, other)]
    for found in scores:
        for key in ("checkpoint", "name", "overrides", "seconds"):  # the folder's, and what the requeue changes
            found.pop(key, None)
    assert scores[0] == scores[1]
    weights = [read_checkpoint(folder / "weights.pth")["state_dict"] for folder in (one, other)]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert len((one / "metrics.csv").read_text().splitlines()) == len((other / "metrics.csv").read_text().splitlines())


def test_a_requeued_run_is_the_uninterrupted_one(node: dict[str, str], whole: Path, tmp_path: Path) -> None:
    """By the script in docs/: announced while Python starts, and in the middle of training."""
    folder, log = tmp_path / "run", tmp_path / "log"
    command = ["sbatch", "--parsable", f"--output={log}", "docs/slurm.sh", *LONG, f"hydra.run.dir={folder}"]
    job = subprocess.run(command, cwd=ROOT, env=node, check=True, capture_output=True, text=True).stdout.strip()
    wait_until(lambda: f"{job}.0" in output(["squeue", "--steps", "--noheader", "--format=%i"], node))
    announce_the_end(job, node)
    wait_until((folder / "checkpoints" / "last.ckpt").exists)
    announce_the_end(job, node)
    wait_until(lambda: state(job, node) in ("COMPLETED", "FAILED"))
    text = log.read_text()
    assert state(job, node) == "COMPLETED", text
    assert "resuming" in text
    assert "Traceback" not in text
    assert_same_result(whole, folder)
    assert not list(tmp_path.rglob("hpc_ckpt*"))  # which a later run in this folder would go on with


def test_without_srun_a_job_is_one_process(node: dict[str, str], tmp_path: Path) -> None:
    """By sbatch with two tasks, and in a shell that salloc opens."""
    train = [sys.executable, str(ROOT / "train.py"), *SMALL]
    (tmp_path / "job.sh").write_text("#!/bin/sh\n" + shlex.join([*train, f"hydra.run.dir={tmp_path}/batch"]))
    batch = ["sbatch", "--wait", "--ntasks-per-node=2", f"--output={tmp_path}/log", str(tmp_path / "job.sh")]
    shell = ["salloc", "--ntasks=1", "--job-name=shell", *train, f"hydra.run.dir={tmp_path}/shell"]
    options: dict[str, Any] = {"env": node, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    for job in [subprocess.Popen(command, cwd=ROOT, **options) for command in (batch, shell)]:
        text = job.communicate(timeout=WAIT)[0]
        assert job.returncode == 0, text
    for name in ("batch", "shell"):
        assert (tmp_path / name / "weights.pth").exists()


def test_srun_with_two_tasks_is_one_process(node: dict[str, str], tmp_path: Path) -> None:
    """And two processes that were to be one are refused."""
    settings = [*LONG, "trainer.max_epochs=2"]
    srun = ["srun", "--ntasks-per-node=2", "python", str(ROOT / "train.py"), *settings]
    options: dict[str, Any] = {"env": node, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    two = subprocess.Popen([*srun, "trainer.devices=2", f"hydra.run.dir={tmp_path}/two"], **options)
    sbatch = ["sbatch", "--parsable", "--ntasks-per-node=2", "--cpus-per-task=1", f"--output={tmp_path}/log"]
    command = [*sbatch, "docs/slurm.sh", *settings, f"hydra.run.dir={tmp_path}/wrong"]
    wrong = subprocess.run(command, cwd=ROOT, env=node, check=True, capture_output=True, text=True).stdout.strip()
    run("train.py", *settings, "hydra.run.dir=one", cwd=tmp_path)
    text = two.communicate(timeout=WAIT)[0]
    assert two.returncode == 0, text
    wait_until(lambda: state(wrong, node) in ("COMPLETED", "FAILED"))  # sbatch --wait looks twice a minute
    assert "ExitCode=2:0" in output(["scontrol", "show", "job", wrong], node)
    refused = (tmp_path / "log").read_text()
    assert refused.count("srun or torchrun has started 2 processes, which has to be as many") == 1
    assert not (tmp_path / "wrong" / "checkpoints").exists()
    one, other = (read_checkpoint(tmp_path / name / "weights.pth")["state_dict"] for name in ("one", "two"))
    for key, value in one.items():
        torch.testing.assert_close(other[key], value, atol=1e-6, rtol=1e-5)


def test_a_sweep_of_jobs(node: dict[str, str], whole: Path, tmp_path: Path) -> None:
    """One is queued again, one fails, one is cancelled, which ends the command; the next one does what is missing."""
    pytest.importorskip("submitit", reason="hydra-submitit-launcher is not installed")
    command = [sys.executable, str(ROOT / "train.py"), "-m", "hydra=slurm", "hydra.sweep.dir=sweep", *LONG]
    command += ["hydra.launcher.gpus_per_node=null", "hydra.launcher.cpus_per_task=1", "optim.lr=1e-4,-1,2e-4"]
    options: dict[str, Any] = {"cwd": tmp_path, "env": node, "text": True}
    with open(tmp_path / "out", "w") as out:
        sweep = subprocess.Popen(command, **options, stdout=out, stderr=out)
    begun = [tmp_path / "sweep" / number / "checkpoints" / "last.ckpt" for number in "02"]
    wait_until(lambda: begun[0].exists() or sweep.poll() is not None)
    array = output(["squeue", "--noheader", "--name=srcnn", "--format=%F"], node).split()[0]
    subprocess.run(["scancel", "--signal=USR1", f"{array}_0"], env=node, check=True)
    wait_until(begun[1].exists)
    subprocess.run(["scancel", f"{array}_2"], env=node, check=True)
    assert sweep.wait(WAIT) == 1
    assert "CANCELLED" in (tmp_path / "out").read_text()
    assert "Restarts=1" in output(["scontrol", "show", "job", f"{array}_0"], node)
    again = subprocess.run(command, **options, capture_output=True, timeout=WAIT)
    text = again.stdout + again.stderr
    assert again.returncode == 1, text
    assert "Traceback" not in text
    assert "sweep of 2 runs, ranked" in text and "error: 1 of the sweep's runs failed: 1 (" in text
    logs = [path.read_text() for path in tmp_path.rglob("*_log.out")]
    assert sum("done already" in log for log in logs) == 1
    assert_same_result(whole, tmp_path / "sweep" / "0")
