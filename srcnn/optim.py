"""Optimisers that treat layers unlike, and learning-rate schedules; for the rest, any of torch.optim serves."""

import inspect
import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR


def sgd(parameters: Iterable[nn.Parameter], lr: float, momentum: float, last_layer_lr: float) -> torch.optim.Optimizer:
    """SGD with a rate of its own for the last layer, as the paper (section 3.2) needed to converge."""
    *first, weight, bias = parameters
    groups = [{"params": first, "lr": lr}, {"params": [weight, bias], "lr": last_layer_lr}]
    return torch.optim.SGD(groups, lr=lr, momentum=momentum)


def muon(parameters: Iterable[nn.Parameter], lr: float, momentum: float, bias_lr: float) -> torch.optim.Optimizer:
    """Muon on the weights, a convolution flattened to a matrix of out x (in * kernel^2); Adam on the biases.

    Its update is the momentum with all singular values made equal, so every filter learns at the same pace.
    Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024.
    """
    from pytorch_optimizer import Muon  # two seconds to import, for those who use it

    parameters = list(parameters)
    return Muon(
        [
            {"params": [p for p in parameters if p.ndim >= 2], "lr": lr, "momentum": momentum, "use_muon": True},
            {"params": [p for p in parameters if p.ndim < 2], "lr": bias_lr, "betas": (0.9, 0.95), "use_muon": False},
        ]
    )


def make_scheduler(make: Callable[..., Any], optimizer: torch.optim.Optimizer, total: int | float) -> Any:
    """A schedule for the optimiser; told the run's length, in steps or epochs, if it takes a `total`."""
    takes_total = "total" in inspect.signature(make).parameters
    return make(optimizer, total=total) if takes_total else make(optimizer)


def schedule(
    optimizer: torch.optim.Optimizer,
    total: int,
    *,
    shape: str,
    warmup: int = 0,
    hold: float = 0.0,
    final: float = 0.0,
    milestones: tuple[int, ...] = (),
    gamma: float = 0.1,
) -> LambdaLR:
    """The learning rate over `total` steps or epochs, as a factor of what the optimiser was given.

    It rises linearly for `warmup`, holds for the share `hold` of the whole, then falls to the share `final`, as a
    "cosine" or "linear"; "multistep" multiplies by `gamma` at each milestone instead.
    """
    if shape not in ("cosine", "linear", "multistep"):
        raise ValueError(f"shape={shape}: choose cosine, linear or multistep")
    return LambdaLR(optimizer, partial(_factor, total, shape, warmup, hold, final, milestones, gamma))


def _factor(
    total: int, shape: str, warmup: int, hold: float, final: float, milestones: tuple[int, ...], gamma: float, now: int
) -> float:
    rise = min(1.0, (now + 1) / (warmup + 1))
    if shape == "multistep":
        return rise * gamma ** sum(now >= milestone for milestone in milestones)
    start = max(warmup, hold * total)
    progress = min(1.0, max(0.0, (now - start) / max(1, total - start)))
    fall = {"cosine": (1 + math.cos(math.pi * progress)) / 2, "linear": 1 - progress}[shape]
    return rise * (final + (1 - final) * fall)
