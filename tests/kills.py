"""Kill short runs, go on with resume=auto, and compare all that they leave with the run that nobody killed.

python tests/kills.py places          at every place where a run makes, opens, replaces or removes a file
python tests/kills.py places 10       at every tenth of them
python tests/kills.py moments 3       at three random moments in each of the settings

A process that has imported everything forks for each run, so that one takes a second.
"""

import builtins
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from conftest import read_csv, tiny_settings
from test_resume import differences

import train
from srcnn.data.leaves import dead_leaves
from srcnn.inference.image_file import write_image
from srcnn.launch import train_command

KEPT = "callbacks.checkpoint.every_n_epochs=1"
RISE = "callbacks.early_stopping.min_delta=100"  # dB: it does not come
NOT_VALIDATED = "trainer.check_val_every_n_epoch=2"
# To be killed at every place.
PLACES = {
    "plain": [],
    "kept": [KEPT],
    "averaged": [KEPT, "callbacks=ema", "optim=muon", "scheduler=cosine"],
    "steps": [KEPT, "trainer.max_steps=17"],
    "seldom validated": [KEPT, NOT_VALIDATED, "trainer.max_epochs=4"],
    "within an epoch": [KEPT, "callbacks.guard.every_n_steps=3"],
    "validated within": [KEPT, "callbacks.guard.every_n_steps=2", "+trainer.val_check_interval=3"],
    "stopped early": ["callbacks=early_stopping", "callbacks.early_stopping.patience=1", RISE, KEPT],
}
_TORCH = "+scheduler.schedule._target_=torch.optim.lr_scheduler."
# To be killed at random moments, as are those above.
MOMENTS = PLACES | {
    "sgd": ["optim=sgd", "scheduler=multistep", "scheduler.schedule.milestones=[1,2]"],
    "linear": ["scheduler=linear", KEPT],
    "warmup": ["scheduler=cosine", "scheduler.schedule.warmup=5", "callbacks=ema"],
    "cosine of epochs": ["scheduler=cosine", "scheduler.interval=epoch", KEPT],
    "exponential": [_TORCH + "ExponentialLR", "+scheduler.schedule.gamma=0.9", KEPT],
    "one cycle": [_TORCH + "OneCycleLR", "+scheduler.schedule.max_lr=1e-3", "+scheduler.schedule.total_steps=21"],
    "cyclic": [_TORCH + "CyclicLR", "optim=sgd", "+scheduler.schedule.base_lr=1e-4", "+scheduler.schedule.max_lr=1e-3"],
    "espcn": ["model=espcn", KEPT],
    "compact": ["model=compact", "model.depth=2", "callbacks=ema", "callbacks.guard.every_n_steps=2"],
    "fsrcnn": ["model=fsrcnn", "callbacks.guard.every_n_steps=5"],
    "edsr": ["model=edsr", "model.width=8", "model.depth=1", KEPT],
    "l1": ["loss=l1", "optim=muon", KEPT, "trainer.max_steps=11"],
    "psnr": ["loss=psnr", NOT_VALIDATED],
    "accumulated": ["trainer.accumulate_grad_batches=2", KEPT, "callbacks.guard.every_n_steps=1"],
    "clipped": ["trainer.gradient_clip_val=0.1", "trainer.max_steps=20", "callbacks=ema", NOT_VALIDATED],
    "few batches": ["trainer.limit_train_batches=3", KEPT],
    "no validation": ["trainer.limit_val_batches=0", KEPT],
    "camera": ["degradation=camera", "callbacks.guard.every_n_steps=4"],
}  # fmt: skip


def fork(words: Sequence[str], folder: Path, place: int = 0) -> int:
    """Start a run in a process of its own, to be killed at a place if one is named; returns its process id."""
    if pid := os.fork():
        return pid
    output = os.open(f"{folder}.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    _count_places(folder, place)
    sys.argv = ["train.py", *words, f"hydra.run.dir={folder}", "resume=auto"]
    try:
        train_command(train.train)
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    except BaseException:
        traceback.print_exc()
        code = 1
    _leave(folder, code)


def _leave(folder: Path, code: int) -> NoReturn:
    Path(f"{folder}.places").write_text("\n".join(_seen))
    sys.stdout.flush()
    os._exit(code)


_seen: list[str] = []


def _count_places(folder: Path, last: int) -> None:
    """Count what changes the disk below a folder, before and after it is done; die at the last place."""

    def note(what: str, path: Any) -> None:
        if isinstance(path, str | os.PathLike) and os.path.abspath(path).startswith(f"{folder}{os.sep}"):
            _seen.append(f"{what} {os.path.basename(path)}")
            if len(_seen) == last:
                os.kill(os.getpid(), signal.SIGKILL)

    def audit(event: str, arguments: tuple) -> None:
        if event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"):
            note(event, arguments[min(1, len(arguments) - 1)] if event == "os.rename" else arguments[0])
        elif event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR):
            note("open", arguments[0])

    def opened(path: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
        file = real(path, mode, *rest, **options)
        if mode.strip("bt") != "r":
            note("opened", path)
        return file

    def synced(file: int) -> None:
        note("fsync", folder / "x")
        fsync(file)

    real, fsync = io.open, os.fsync
    io.open = builtins.open = opened  # type: ignore[assignment]
    os.fsync = synced
    sys.addaudithook(audit)


def wait(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def whole(words: Sequence[str], folder: Path) -> int:
    """The run that nobody kills; returns how many places it has."""
    if wait(fork(words, folder)):
        raise SystemExit(Path(f"{folder}.txt").read_text())
    return len(Path(f"{folder}.places").read_text().splitlines())


def compare(one: Path, other: Path) -> list[str]:
    """In what two folders of runs differ: checkpoints, logs, scores, weights, and which files there are."""
    kinds = ("*.ckpt", "*.csv", "*.pth", "*.json", "*.html", "*.png", "*.yaml")
    names = [
        {str(path.relative_to(folder)) for kind in kinds for path in folder.rglob(kind)} for folder in (one, other)
    ]
    found = [f"only in one of them: {name}" for name in sorted(names[0] ^ names[1])]
    for name in sorted(names[0] & names[1]):
        a, b = (_content(folder / name) for folder in (one, other))
        found += [
            f"{name}{where}" for where in (differences(a, b) if not isinstance(a, str) else ["differs"] * (a != b))
        ]
    return found


def _content(path: Path) -> Any:
    """What is to be equal: without places, seconds and speeds."""
    if path.suffix in (".ckpt", ".pth"):
        content = torch.load(path, weights_only=True)
        content["run"] = {
            k: v for k, v in content["run"].items() if k not in ("seconds", "name", "overrides", "checkpoint")
        }
        if path.name == "last.ckpt":  # of what the callbacks keep: which is the best
            found = [state for state in content["callbacks"].values() if "best_k_models" in state]
            (best,) = [state for state in found if state["monitor"] == "val/psnr"]
            content["best"] = Path(best["best_model_path"]).name, best["best_model_score"]
        return {key: value for key, value in content.items() if key != "callbacks"}
    if path.suffix == ".csv":
        rows = [{k: v for k, v in row.items() if k != "train/Mpixel_per_s"} for row in read_csv(path)]
        for row in rows[-1:]:  # of the test, where Lightning has another number for an epoch cut short by max_steps
            row.pop("epoch", None)
        return rows
    if path.name == "scores.json":
        return {k: v for k, v in json.loads(path.read_text()).items() if k not in ("seconds", "name", "checkpoint")}
    return None


def finish(words: Sequence[str], folder: Path, uninterrupted: Path) -> list[str]:
    """Restart until the run is through, as a queue would; then how it differs."""
    if code := wait(fork(words, folder)):
        return [f"exit code {code}", *Path(f"{folder}.txt").read_text().splitlines()[-3:]]
    return compare(uninterrupted, folder)


def kill_places(words: Sequence[str], folder: Path, every: int) -> Iterator[tuple[str, list[str]]]:
    for place in range(every // 2 + 1, whole(words, folder / "whole") + 1, every):
        killed = folder / f"at_{place}"
        wait(fork(words, killed, place))
        yield f"place {place}", finish(words, killed, folder / "whole")
        shutil.rmtree(killed)


def kill_moments(words: Sequence[str], folder: Path, times: int) -> Iterator[tuple[str, list[str]]]:
    began = time.monotonic()
    whole(words, folder / "whole")
    seconds, rng = time.monotonic() - began, random.Random(str(folder.name))
    for number in range(times):
        killed = folder / f"at_{number}"
        for moment in (rng.uniform(0.1, 1) * seconds, rng.uniform(0.1, 0.7) * seconds):
            pid = fork(words, killed)
            time.sleep(moment)
            os.kill(pid, signal.SIGKILL)
            wait(pid)
        yield f"after {moment:.2f} s", finish(words, killed, folder / "whole")
        shutil.rmtree(killed, ignore_errors=True)


def write_images(folder: Path) -> Path:
    for index, image in enumerate(dead_leaves(8, 64, seed=1)):
        write_image(folder / f"image{index}.png", image)
    return folder


def main(how: str, number: int = 1, *names: str) -> int:
    """Returns how many kills lost something."""
    kills = lost = 0
    with tempfile.TemporaryDirectory() as temporary:
        images = write_images(Path(temporary) / "images")
        for name, settings in (PLACES if how == "places" else MOMENTS).items():
            if names and name not in names:
                continue
            folder = Path(temporary) / name.replace(" ", "_")
            folder.mkdir()
            words = [*tiny_settings(images), "trainer.max_epochs=3", *settings]
            found = []
            for where, different in (kill_places if how == "places" else kill_moments)(words, folder, number):
                found.append(different)
                if different:
                    print(f"{name}, killed at {where}: {'; '.join(different[:8])}", flush=True)
            print(f"{name}: {len(found)} kills, {sum(map(bool, found))} lost something", flush=True)
            kills, lost = kills + len(found), lost + sum(map(bool, found))
    print(f"{kills} kills, {lost} lost something")
    return lost


if __name__ == "__main__":
    sys.exit(bool(main(sys.argv[1], *map(int, sys.argv[2:3]), *sys.argv[3:])))
