"""How long does an image take, and how much memory, against the plain module and ONNX Runtime?

    python -m benchmarks.inference [--rounds 5] [--size 1280x720 3840x2160] [--weights srcnn_x3 compact_x3]
                                                                     pip install -e ".[export]"

`srcnn.inference.tiles`, as predict.py uses it (for Compact in bf16, where a processor has AMX), against `net(lr)` and
against the network's body in ONNX Runtime with its default settings, in float32, fed with what the body takes. Networks
on RGB, sizes of SR, random pixels. Seconds: the median of some rounds in alternation in one process, and their range;
"x ONNX": the median ratio of a round. Memory: by how much the peak of a process that does nothing else rises during one
call, the output included. `differ`: 8-bit values unlike the plain module's, of all.
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
from statistics import median
from typing import Any, cast

import torch
from torch import Tensor, nn

from benchmarks.table import show
from srcnn.checkpoint import load_network
from srcnn.device import has_amx
from srcnn.image import to_uint8
from srcnn.inference.tiles import for_inference, in_bf16, super_resolve
from srcnn.nets import Network

Contender = Callable[[Tensor], Tensor]


class Body(nn.Module):
    def __init__(self, net: Network):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net.body(x)


def onnx_runtime(net: Network) -> Contender:
    import onnxruntime

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns that torchvision is missing
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


def contender(name: str, weights: str) -> Contender:
    net, _ = load_network(weights)
    fast = for_inference(net)
    if name == "srcnn, bf16":
        fast = in_bf16(fast)
    if name.startswith("srcnn"):
        return lambda lr: super_resolve(fast, lr)
    return net if name == "plain module" else onnx_runtime(net)


def picture(size: str) -> Tensor:
    width, height = (int(side) // 3 for side in size.split("x"))
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))


def peak_rise(name: str, weights: str, size: str) -> float:
    """MB, in this process, which should have done nothing before."""
    run = contender(name, weights)
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


def memory(name: str, weights: str, size: str) -> float:
    command = [sys.executable, "-m", "benchmarks.inference", "--memory-of", name, "--weights", weights, "--size", size]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", nargs="+", default=["1280x720", "3840x2160"])
    parser.add_argument("--weights", nargs="+", default=["srcnn_x3", "compact_x3"])
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of:
        print(json.dumps(peak_rise(arguments.memory_of, arguments.weights[0], arguments.size[0])))
        return
    has_onnx = find_spec("onnxruntime") and find_spec("onnxscript")
    names = ["plain module", "srcnn"] + ["srcnn, bf16"] * has_amx() + ["ONNX Runtime"] * bool(has_onnx)
    rows = []
    for weights in arguments.weights:
        contenders = {name: contender(name, weights) for name in names}
        for size in arguments.size:
            lr = picture(size)
            seconds: dict[str, list[float]] = {name: [] for name in names}
            results = {}
            for turn in range(arguments.rounds + 1):
                for name, run in contenders.items():
                    start = time.perf_counter()
                    sr = run(lr)
                    if turn:  # the first is to warm up
                        seconds[name].append(time.perf_counter() - start)
                    results[name] = to_uint8(sr)
                    del sr
            plain = results["plain module"]
            for name in names:
                row = {"network": weights, "size": size, "contender": name, "s": median(seconds[name])}
                row["range"] = f"{min(seconds[name]):.3f}-{max(seconds[name]):.3f}"
                pairs = zip(seconds[names[-1]], seconds[name], strict=True)
                row["x ONNX"] = median(theirs / mine for theirs, mine in pairs) if has_onnx else None
                row["MB"] = memory(name, weights, size)
                rows.append(row | {"differ": f"{int((results[name] != plain).sum())} of {plain.numel()}"})
            del results, plain
    show("inference", rows, rounds=arguments.rounds)


if __name__ == "__main__":
    main()
