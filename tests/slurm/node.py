"""A SLURM of one node in a folder of its own: munge, its controller and its daemon, as root and without systemd."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

WAIT = 900  # seconds at most, on a busy machine
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")

# cred_expire is also how long a job that is queued again waits: two minutes unless told otherwise.
_CONF = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=20
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=10
MinJobAge=3600
SchedulerParameters=batch_sched_delay=0,sched_interval=1
NodeName={host} NodeAddr=127.0.0.1 CPUs=16
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""

# What submitit asks of sacct, from the controller's memory: a database for the real one would take a minute to start.
_SACCT = r"""#!/bin/sh
echo "JobID|State|NodeList"
scontrol show jobs --oneliner | sed -nE \
    -e 's/^JobId=[0-9]+ ArrayJobId=([0-9]+) ArrayTaskId=([0-9]+) .* JobState=([A-Z]+) .*/\1_\2|\3|/p' \
    -e 's/^JobId=([0-9]+) JobName.* JobState=([A-Z]+) .*/\1|\2|/p'
"""


def why_not() -> str:
    """Why no node can be started here; "" where one can."""
    missing = [name for name in PROGRAMS if not shutil.which(name)]
    if missing:
        return f"there is no {', '.join(missing)}: apt-get install slurm-wlm munge"
    return "" if os.geteuid() == 0 else "only root can start a node of SLURM"


@contextmanager
def running(folder: Path) -> Iterator[dict[str, str]]:
    """The environment in which sbatch and srun find the node; `folder` has a short path and is root's alone.

    Raises TimeoutError with the daemons' last words where the node does not come up.
    """
    (folder / "bin").mkdir()
    (folder / "bin" / "sacct").write_text(_SACCT)
    (folder / "bin" / "sacct").chmod(0o755)
    (folder / "state").mkdir()
    (folder / "spool").mkdir()
    (folder / "key").write_bytes(secrets.token_bytes(1024))
    (folder / "key").chmod(0o600)
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    ports = [server.getsockname()[1] for server in sockets]
    for server in sockets:
        server.close()
    host = socket.gethostname().split(".")[0]
    (folder / "slurm.conf").write_text(_CONF.format(host=host, ports=ports, folder=folder))
    env = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
    env |= {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": f"{folder}/bin:{os.environ['PATH']}"}
    names = {"socket": "munge.socket", "key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    commands = [
        ["munged", "--foreground", "--force", *(f"--{option}={folder}/{name}" for option, name in names.items())],
        ["slurmctld", "-D"],
        ["slurmd", "-D"],
    ]
    daemons = []
    try:
        for command in commands:
            daemons.append(subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            if command[0] == "munged":
                wait_until((folder / "munge.socket").exists)
        try:
            wait_until(lambda: "idle" in output(["sinfo", "--noheader", "--format=%T"], env), 120)
        except AssertionError as error:
            logs = [path.read_text().splitlines()[-3:] for path in folder.glob("slurm*.log")]
            raise TimeoutError(f"no node of SLURM comes up here: {logs}") from error
        yield env
    finally:
        subprocess.run(["scancel", "--signal=KILL", "--full", "--user=root"], env=env, timeout=30)
        for daemon in reversed(daemons):
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()


def output(command: list[str], env: dict[str, str]) -> str:
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60).stdout


def wait_until(condition: Callable[[], bool], seconds: float = WAIT) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s"
        time.sleep(0.1)
