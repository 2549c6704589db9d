"""What a machine has: its device, that device's name, whether bf16 is fast on it."""

import ctypes
import platform
import sys
from pathlib import Path
from typing import Any

import torch

from srcnn.errors import UserError


def device_of(accelerator: str) -> torch.device:
    """The device for trainer.accelerator, as Lightning takes it: auto, cpu, gpu, cuda or mps."""
    gpu = torch.accelerator.current_accelerator(check_available=True)
    if accelerator == "cpu" or (accelerator == "auto" and not gpu):
        return torch.device("cpu")
    if not gpu or accelerator not in ("auto", "gpu", gpu.type):
        raise UserError(f"trainer.accelerator={accelerator}: torch finds no such device here; use cpu or auto")
    return gpu


def device_name(device: torch.device) -> str:
    """The GPU's name, or the processor's and how many threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    threads = torch.get_num_threads()
    return f"{names[0] if names else platform.machine()}, {threads} thread{'s' if threads > 1 else ''}"


def best_precision(accelerator: str = "auto") -> str:
    """bf16-mixed where the hardware multiplies in bf16, else 32-true: elsewhere bf16 is a hundred times slower."""
    try:
        device = device_of(accelerator)
    except UserError:  # Lightning will say so
        return "32-true"
    if device.type == "cuda":
        has_bf16 = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        names = ("avx512_bf16", "amx_bf16", "bf16")  # the last is Arm's
        has_bf16 = device.type == "cpu" and any(_capabilities().get(name) for name in names)
    return "bf16-mixed" if has_bf16 else "32-true"


def has_amx() -> bool:
    """Whether the processor has Intel's units for products of matrices in bf16."""
    return bool(_capabilities().get("amx_bf16"))


def _capabilities() -> dict[str, Any]:
    return getattr(torch.cpu, "get_capabilities", dict)()  # older versions of torch do not say


def keep_freed_memory() -> None:
    """Let glibc keep what torch frees at every step and takes again: or a step may take half as long again."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(-1, 1 << 29)  # M_TRIM_THRESHOLD, bytes
        libc.mallopt(-4, 0)  # M_MMAP_MAX: the largest too
