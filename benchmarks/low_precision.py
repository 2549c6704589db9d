"""What do bf16 and int8 gain at inference, and what do they cost in dB?

    python -m benchmarks.low_precision [--rounds 7] [--size 1280x720] [--weights srcnn_x3 compact_x3] [--data data]
                                                        pip install -e ".[export]" openvino nncf

Ours in float32 and bf16, ONNX Runtime in float32 and int8, OpenVINO in float32, bf16 and int8, each with its default
number of threads. int8 is made after training, by each library's own tool with its defaults, calibrated on the LR of
T91's first 60 images. Seconds: the median of rounds in alternation in one process, and their range; `ratio`: the median
over the rounds of ours in float32 by this one. dB: Set5 x3, protocol authors; levels: the largest difference of an
8-bit value from the plain module's on Set5.
"""

import argparse
import itertools
import logging
import tempfile
import time
from pathlib import Path
from statistics import fmean, median
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from benchmarks.inference import Body, Contender, picture
from benchmarks.table import show
from srcnn.checkpoint import load_network
from srcnn.data.degrade import Bicubic
from srcnn.data.samples import read_set
from srcnn.image import quantize, to_uint8
from srcnn.inference.tiles import for_inference, in_bf16, super_resolve
from srcnn.metrics import find_protocol
from srcnn.nets import Network


def contenders(net: Network, images: list[Tensor], folder: Path) -> dict[str, Contender]:
    """Functions LR -> SR by name; `images` are what the body takes, for calibration."""
    import nncf  # type: ignore[import-not-found]
    import onnxruntime as ort
    import openvino as ov  # type: ignore[import-not-found]
    from onnxruntime.quantization import CalibrationDataReader, quantize_static, shape_inference

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.images = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(({"x": image.numpy()} for image in self.images), None)

    def on_body(run: Any) -> Contender:
        return lambda lr: torch.from_numpy(cast(Any, run(net.preprocess(lr).contiguous().numpy())))

    plain, prepared, int8 = (str(folder / f"{name}.onnx") for name in ("plain", "prepared", "int8"))
    sides = {"x": {2: torch.export.Dim("height", min=32), 3: torch.export.Dim("width", min=32)}}
    options: dict[str, Any] = {"dynamic_shapes": sides, "input_names": ["x"], "external_data": False, "verbose": False}
    torch.onnx.export(Body(net).eval(), (torch.rand(1, 3, 64, 96),), plain, **options)
    shape_inference.quant_pre_process(plain, prepared, skip_symbolic_shape=True)
    quantize_static(prepared, int8, Reader(), per_channel=True)

    def by_onnx(path: str) -> Contender:
        session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        return on_body(lambda x: session.run(None, {"x": x})[0])

    model = ov.Core().read_model(plain)
    quantized = nncf.quantize(model, nncf.Dataset(images, lambda image: image.numpy()))

    def by_openvino(model: Any, precision: str) -> Contender:
        compiled = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision})
        return on_body(lambda x: compiled(x)[0])

    fast = for_inference(net)
    half = in_bf16(for_inference(net))
    return {
        "srcnn, float32": lambda lr: super_resolve(fast, lr),
        "srcnn, bf16": lambda lr: super_resolve(half, lr),
        "ONNX Runtime, float32": by_onnx(plain),
        "ONNX Runtime, int8": by_onnx(int8),
        "OpenVINO, float32": by_openvino(model, "f32"),
        "OpenVINO, bf16": by_openvino(model, "bf16"),
        "OpenVINO, int8": by_openvino(quantized, "f32"),
    }


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--size", default="1280x720")
    parser.add_argument("--weights", nargs="+", default=["srcnn_x3", "compact_x3"])
    parser.add_argument("--data", default="data")
    arguments = parser.parse_args()
    for name in ("torch.onnx", "nncf"):
        logging.getLogger(name).setLevel(logging.ERROR)
    rows = []
    for weights in arguments.weights:
        net, _ = load_network(weights)
        training = itertools.islice(read_set("T91", arguments.data, net.scale, Bicubic()), 60)
        images = [net.preprocess(quantize(sample.lr)).contiguous() for sample in training]
        with tempfile.TemporaryDirectory() as folder:
            runs = contenders(net, [image for image in images if min(image.shape[2:]) >= 32], Path(folder))
        lr, names = picture(arguments.size), [*runs]
        seconds: dict[str, list[float]] = {name: [] for name in names}
        for turn in range(arguments.rounds + 1):
            for name, run in runs.items():
                start = time.perf_counter()
                run(lr)
                if turn:  # the first is to warm up
                    seconds[name].append(time.perf_counter() - start)
        samples = [*read_set("Set5", arguments.data, net.scale, Bicubic())]
        truth = [to_uint8(net(quantize(sample.lr))).int() for sample in samples]
        for name, run in runs.items():
            scores = [
                find_protocol("authors").evaluate(run, sample.lr, sample.hr, 3, with_ssim=False) for sample in samples
            ]
            pairs = zip(seconds[names[0]], seconds[name], strict=True)
            results = (to_uint8(run(quantize(sample.lr))).int() for sample in samples)
            row = {"network": weights, "by": name, "ms": 1000 * median(seconds[name])}
            row["range"] = f"{1000 * min(seconds[name]):.0f}-{1000 * max(seconds[name]):.0f}"
            row["ratio"] = median(ours / this for ours, this in pairs)
            row["dB"] = f"{fmean(score.psnr for score in scores):.3f}"
            row["levels"] = max(int((a - b).abs().max()) for a, b in zip(results, truth, strict=True))
            rows.append(row)
    show("low_precision", rows, rounds=arguments.rounds, size=arguments.size)


if __name__ == "__main__":
    main()
