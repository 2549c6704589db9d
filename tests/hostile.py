"""Give each command checkpoints with something odd in them: a sentence or a result, no traceback, no hang.

python tests/hostile.py 500            five hundred pairs of a checkpoint and a command, chosen at random
python tests/hostile.py 500 resume     with this command alone
"""

import copy
import os
import random
import resource
import sys
import tempfile
import traceback
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from conftest import tiny_settings
from kills import wait, whole, write_images

import predict
import srcnn.evaluate
import srcnn.export
import srcnn.inspect_ckpt
import train
from srcnn.launch import command, train_command

_PROGRESS = ("loops", "fit_loop", "epoch_progress")
_BATCHES = ("loops", "fit_loop", "epoch_loop.batch_progress")
PLACES: list[tuple] = [
    ("global_step",), ("epoch",), ("loops",), ("loops", "fit_loop"), ("loops", "fit_loop", "state_dict"),
    (*_PROGRESS, "current"), (*_PROGRESS, "current", "processed"), (*_PROGRESS, "total", "ready"),
    (*_BATCHES, "current"), (*_BATCHES, "current", "ready"), (*_BATCHES, "total", "completed"),
    (*_BATCHES, "is_last_batch"), ("optimizer_states",), ("optimizer_states", 0), ("optimizer_states", 0, "state"),
    ("optimizer_states", 0, "param_groups"), ("optimizer_states", 0, "param_groups", 0, "params"),
    ("optimizer_states", 0, "param_groups", 0, "lr"), ("optimizer_states", 0, "state", 0),
    ("optimizer_states", 0, "state", 0, "exp_avg"), ("optimizer_states", 0, "state", 0, "step"), ("run",),
    ("run", "versions"), ("run", "versions", "torch"), ("run", "overrides"), ("run", "overrides", 0), ("run", "values"),
    ("run", "values", "data.test"), ("run", "values", "data.hold_out"), ("run", "values", "optim.lr"),
    ("run", "val_psnr"), ("run", "classes"), ("run", "classes", "optim"), ("run", "degradation"), ("run", "data"),
    ("run", "machine"), ("state_dict",), ("state_dict", "net.conv1.weight"), ("state_dict", "net.conv3.bias"),
    ("arguments",), ("arguments", "scale"), ("arguments", "widths"), ("arguments", "kernels"), ("network",),
    ("callbacks",), ("callbacks", "first"), ("callbacks", "first", "best_model_path"),
    ("callbacks", "first", "best_k_models"), ("callbacks", "first", "best_model_score"), ("lr_schedulers",),
    ("rng_state",), ("pytorch-lightning_version",), ("srcnn",),
]  # fmt: skip


def deep(levels: int) -> list:
    return [deep(levels - 1)] if levels else []


VALUES: list[Any] = [
    None, True, 5, -1, 10**12, -(10**12), 10**400, 0.5, float("nan"), float("inf"), "", "text", "x" * 10**6, "\x1b[2J",
    [], [1, "a"], deep(200), list(range(50_000)), {}, {"a": 1}, {3: 4}, {str(key): 0 for key in range(50_000)},
    torch.zeros(1), torch.zeros(0), torch.full((64, 3, 9, 9), torch.nan), torch.ones(64, 3, 9, 9).to_sparse(),
    torch.quantize_per_tensor(torch.ones(64, 3, 9, 9), 0.1, 0, torch.qint8), torch.zeros(1).expand(10**6, 10**6),
    torch.ones(64, 3, 9, 9, dtype=torch.complex64), torch.ones(64, 3, 9, 9, dtype=torch.uint8),
    torch.ones(2, 2).to("meta"), "data.hold_out=1000000000000", f"data.hold_out=[{'a,' * 900}a]",
    "optim._target_=os.system",
    "model.widths=[1000000,1000000]", "trainer.max_epochs=1000000000000", "data.patch_size=1000000000",
]  # fmt: skip


def change(checkpoint: dict[str, Any], place: Sequence[Any], value: Any) -> dict[str, Any]:
    """A copy with another value at a place, or with one more key."""
    changed = inner = copy.deepcopy(checkpoint)
    for key in place[:-1]:
        inner = inner[next(iter(inner)) if key == "first" else key]
    inner[next(iter(inner)) if place[-1] == "first" else place[-1]] = value
    return changed


def commands(settings: list[str], images: Path, checkpoint: Path) -> dict[str, tuple[Any, list[str]]]:
    test = [f"ckpt_path={checkpoint}", "trainer.accelerator=cpu"]
    training = partial(train_command, train.train)
    return {
        "predict": (
            lambda: command(predict.predict, "predict"),
            [*test, f"input={images / 'image0.png'}", "output=larger.png"],
        ),
        "evaluate": (srcnn.evaluate.main, [*test, f"data.test=[{images}]"]),
        "evaluate as it says": (srcnn.evaluate.main, test),
        "inspect": (srcnn.inspect_ckpt.main, [str(checkpoint)]),
        "export": (srcnn.export.main, [f"ckpt_path={checkpoint}", "format=pth", "output=weights.pth"]),
        "resume": (training, [f"resume={checkpoint}", "trainer.max_epochs=2", "hydra.run.dir=resumed"]),
        "init_from": (training, [*settings, f"init_from={checkpoint}", "trainer.max_steps=1", "hydra.run.dir=new"]),
    }


def outcome(task: Any, words: list[str], folder: Path, seconds: int = 20) -> str:
    """What a command came to in a process of its own; it may take so many seconds of CPU."""
    if not (pid := os.fork()):
        output = os.open(folder / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(folder)
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        sys.argv = ["command", *words]
        code = 0
        try:
            task()
        except SystemExit as stop:
            code = int(stop.code or 0)
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        os._exit(code)
    code = wait(pid)
    text = (folder / "output.txt").read_text(errors="replace")
    if "Traceback" in text:
        return "traceback: " + text.strip().splitlines()[-1][:200]
    if code < 0:
        return f"killed by signal {-code}"
    return "" if code in (0, 3) or "error: " in text else f"exit code {code} and no sentence: {text[-200:]}"


def main(number: int, *names: str) -> int:
    """Returns how many came to something else than a result or a sentence."""
    rng = random.Random(0)
    pairs = [(place, value) for place in range(len(PLACES)) for value in range(len(VALUES))]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        images = write_images(folder / "images")
        settings = tiny_settings(images)
        whole(settings, folder / "run")
        sound = torch.load(folder / "run" / "checkpoints" / "last.ckpt", weights_only=True)
        known = commands(settings, images, folder / "x.ckpt")
        failed = 0
        for index in range(number):
            place, value = rng.choice(pairs)
            name = (names or list(known))[index % len(names or known)]
            torch.save(change(sound, PLACES[place], VALUES[value]), folder / "x.ckpt")
            if found := outcome(*known[name], folder):
                failed += 1
                print(f"{name}, {'/'.join(map(str, PLACES[place]))} = {repr(VALUES[value])[:60]}: {found}", flush=True)
    print(f"{number} pairs of a checkpoint and a command, {failed} ended in a traceback or not at all")
    return failed


if __name__ == "__main__":
    sys.exit(bool(main(int(sys.argv[1]), *sys.argv[2:])))
