"""Processes that share a task, and one that must be alone with a folder."""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from srcnn.errors import UserError


def process_share() -> tuple[int, int]:
    """Rank and number of the processes that torchrun or srun has started for one task; (0, 1) without."""
    # A batch script without srun has no step: it is one process, whatever SLURM_NTASKS says.
    for names in (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_STEP_ID")):
        if all(name in os.environ for name in names):
            return int(os.environ[names[0]]), int(os.environ[names[1]])
    return 0, 1


def is_first() -> bool:
    """Whether this is rank 0: of torchrun's or srun's processes, or of those that Lightning starts by itself."""
    return process_share()[0] == 0 and os.environ.get("LOCAL_RANK", "0") == os.environ.get("NODE_RANK", "0") == "0"


@contextmanager
def alone_in(folder: str | os.PathLike) -> Iterator[None]:
    """Keep other processes out of a folder, made if it is not there; UserError if one is at work in it.

    The system lets go of the lock when its holder dies. A file system without locks, as some NFS, keeps nobody out.
    """
    path = Path(folder) / ".lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)  # another rank may have removed it, as it was empty
        file = open(path, "ab+", buffering=0)  # noqa: SIM115
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error
    with file:
        try:
            _lock(file.fileno())
            if not os.path.samestat(os.stat(path), os.fstat(file.fileno())):
                raise BlockingIOError  # a holder has just left with the file, and another come
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
        except (BlockingIOError, FileNotFoundError, PermissionError):
            file.seek(0)
            holder = file.read(200).decode(errors="replace") or "another process"
            remedy = "wait until it has ended, or name another folder"
            raise UserError(f"{folder}: {holder} is at work in this folder; {remedy}") from None
        except OSError:  # no locks here, or a full disk, which what is written next will tell
            pass
        try:
            yield
        finally:
            with suppress(OSError):  # Windows keeps it
                path.unlink()


if sys.platform == "win32":
    import msvcrt

    def _lock(file: int) -> None:
        os.lseek(file, 1 << 30, os.SEEK_SET)  # others cannot read a byte that is locked
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
