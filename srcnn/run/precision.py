"""In which precision to train: bf16 where the hardware multiplies in it, else float32."""

import time
from pathlib import Path

import torch

_CPU_FEATURES = {"avx512_bf16", "amx_bf16", "bf16"}  # Intel's and AMD's names in /proc/cpuinfo; Arm's
_FASTER = 1.3  # times float32, from which on it is worth it


def best_precision(device: torch.device) -> tuple[str, str]:
    """What `trainer.precision=auto` stands for on a device, and why."""
    if device.type == "cuda":
        if torch.cuda.get_device_capability(device) >= (8, 0):  # from Ampere on; earlier ones emulate it
            return "bf16-mixed", "the GPU multiplies in bf16"
        return "32-true", "the GPU has no bf16"
    if device.type != "cpu":
        return "32-true", f"bf16 is not tried on {device.type}"
    if (features := cpu_features()) is not None:
        found = sorted(features & _CPU_FEATURES)
        return ("bf16-mixed", f"the processor has {found[0]}") if found else ("32-true", "the processor has no bf16")
    ratio = bf16_speed()
    return ("bf16-mixed" if ratio > _FASTER else "32-true"), f"bf16 measured {ratio:.1f} times as fast"


def cpu_features(path: Path = Path("/proc/cpuinfo")) -> set[str] | None:
    """The processor's features as Linux lists them; None where it does not."""
    if not path.is_file():
        return None
    lines = [line for line in path.read_text().splitlines() if line.startswith(("flags", "Features"))]
    return set(lines[0].partition(":")[2].split()) if lines else None


def bf16_speed(side: int = 384) -> float:
    """How many times faster a matrix product is in bf16 than in float32, measured in a few milliseconds."""
    seconds = []
    for dtype in (torch.float32, torch.bfloat16):
        matrix = torch.ones(side, side, dtype=dtype)
        times = []
        for _ in range(4):
            begin = time.perf_counter()
            matrix @ matrix
            times.append(time.perf_counter() - begin)
        seconds.append(min(times))
    return seconds[0] / seconds[1]
