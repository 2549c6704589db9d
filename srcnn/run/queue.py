"""hydra=slurm: what becomes of a sweep whose jobs die."""

from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from submitit import SlurmJob
from submitit.core.utils import UncompletedJobError

_Job: Any = SlurmJob  # whose method is replaced, as its launcher offers no place for another class
_results = _Job.results


class DeadJobs(Callback):
    """A run whose job was cancelled or died is noted as failed; the sweep waits for the others and ranks them.

    Submitit alone would leave with the traceback of the first. It learns of dead jobs from `sacct`.
    """

    def on_multirun_start(self, config: Any, **_: Any) -> None:
        _Job.results = _results_or_none


def _results_or_none(job: Any) -> list[Any]:
    try:
        return _results(job)
    except UncompletedJobError:
        launcher, (overrides, _, number, *_) = job.submission().function, job.submission().args
        folder = Path(launcher.config.hydra.sweep.dir) / str(number)
        folder.mkdir(exist_ok=True)
        text = f"{number} ({','.join(overrides)}): job {job.job_id} ended without a result ({job.state})"
        (folder / "error.txt").write_text(f"{text}; its log is {job.paths.stderr}", encoding="utf-8")
        return [JobReturn(_return_value=None, status=JobStatus.COMPLETED)]
