"""How long does an image take, and how much memory, against the plain module and ONNX Runtime?

    python -m benchmarks.inference [--rounds 3] [--size 1280x720 3840x2160]      pip install -e ".[export]"

`srcnn.upscale.super_resolve` against `net(lr)` and against the network's body in ONNX Runtime with its default
settings, fed with the enlarged image. SR sizes; the shipped SRCNN x3 on random pixels. Times: the best of some rounds
in alternation in one process. Memory: what the peak of a process of its own rises by during one call, the output
included. `differ`: 8-bit values unlike the plain module's, of all. Writes benchmarks/results/inference.json.
"""

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from benchmarks.table import show
from srcnn.image import to_uint8
from srcnn.nets import Network
from srcnn.run.checkpoint import load_network
from srcnn.upscale import super_resolve

Contender = Callable[[Tensor], Tensor]


class Body(nn.Module):
    def __init__(self, net: Network):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net.body(x)


def onnx_runtime(net: Network) -> Contender:
    import onnxruntime

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # that torchvision is not there
    height, width = torch.export.Dim("height", min=32), torch.export.Dim("width", min=32)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "body.onnx")
        shapes = {"x": {2: height, 3: width}}
        torch.onnx.export(Body(net).eval(), (torch.rand(1, 3, 64, 96),), path, dynamic_shapes=shapes, verbose=False)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(lr: Tensor) -> Tensor:
        (sr,) = session.run(None, {name: net.preprocess(lr).contiguous().numpy()})
        return torch.from_numpy(cast(Any, sr))

    return run


def contender(name: str) -> Contender:
    net, _ = load_network(None, scale=3)
    if name == "upscale":
        return lambda lr: super_resolve(net, lr)
    return net if name == "plain module" else onnx_runtime(net)


def picture(size: str) -> Tensor:
    width, height = (int(side) // 3 for side in size.split("x"))
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))


def peak_rise(name: str, size: str) -> float:
    """MB, in this process, which should have done nothing before."""
    run = contender(name)
    run(torch.rand(1, 3, 24, 24))
    lr = picture(size)
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far, which a process inherits, is forgotten
    before = peak()
    run(lr)
    return peak() - before


def peak() -> float:
    """MB, of this process (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e6


def memory(name: str, size: str) -> float:
    command = [sys.executable, "-m", "benchmarks.inference", "--memory-of", name, "--size", size]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", nargs="+", default=["1280x720", "3840x2160"])
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of:
        print(json.dumps(peak_rise(arguments.memory_of, arguments.size[0])))
        return
    names = ["plain module", "upscale"] + ["ONNX Runtime"] * bool(find_spec("onnxruntime") and find_spec("onnxscript"))
    contenders = {name: contender(name) for name in names}
    rows = []
    for size in arguments.size:
        lr = picture(size)
        seconds = {name: float("inf") for name in names}
        results = {}
        for _ in range(arguments.rounds):
            for name, run in contenders.items():
                start = time.perf_counter()
                results[name] = to_uint8(run(lr))
                seconds[name] = min(seconds[name], time.perf_counter() - start)
        plain = results["plain module"]
        for name in names:
            row = {"size": size, "contender": name, "s": seconds[name], "MB": memory(name, size)}
            row["x faster than plain"] = seconds["plain module"] / seconds[name]
            rows.append(row | {"differ": f"{int((results[name] != plain).sum())} of {plain.numel()}"})
        del results, plain
    show("inference", rows, rounds=arguments.rounds)


if __name__ == "__main__":
    main()
