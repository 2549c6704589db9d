"""Optimisers that treat layers unlike, and learning-rate schedules; for the rest, any of torch.optim serves."""

import inspect
import math
from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR


def sgd(parameters: Iterable[nn.Parameter], lr: float, momentum: float, last_layer_lr: float) -> torch.optim.Optimizer:
    """SGD with a rate of its own for the last layer, as the paper (section 3.2) needed to converge."""
    *first, weight, bias = parameters
    groups = [{"params": first, "lr": lr}, {"params": [weight, bias], "lr": last_layer_lr}]
    return torch.optim.SGD(groups, lr=lr, momentum=momentum)


class Muon(torch.optim.Optimizer):
    """Muon on the weights, a convolution flattened to a matrix of out x (in * kernel^2); Adam on the biases.

    Its update is the momentum with all singular values made equal, so every filter learns at the same pace:
    Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024.

    whiten  the first layer learns in coordinates in which photographs are white, but for this share of their mean
            variance (0: in pixels). There flat and smooth patterns are a hundred times stronger than edges, and a
            step that is right for edges makes brightness swing.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        momentum: float = 0.95,
        bias_lr: float = 1e-3,
        whiten: float = 0.0,
    ):
        parameters = list(parameters)
        weights = [p for p in parameters if p.ndim >= 2]
        first = {"params": weights[:1], "lr": lr, "momentum": momentum, "whiten": whiten}
        others = {"params": weights[1:], "lr": lr, "momentum": momentum, "whiten": 0.0}
        biases = {"params": [p for p in parameters if p.ndim < 2], "lr": bias_lr, "betas": (0.9, 0.95), "eps": 1e-8}
        super().__init__([first, others, biases], {})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        *matrices, biases = self.param_groups
        for group in matrices:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._orthogonal_step(weight, group)
        for bias in biases["params"]:
            if bias.grad is not None:
                self._adam_step(bias, biases)
        return loss

    def _orthogonal_step(self, weight: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        gradient = weight.grad
        assert gradient is not None
        momentum = state["momentum"].mul_(group["momentum"]).add_(gradient)
        matrix = gradient.add(momentum, alpha=group["momentum"]).flatten(1)  # Nesterov's
        rows, columns = matrix.shape
        if group["whiten"]:
            whitener = _whitener(*weight.shape[1:3], group["whiten"], weight.device)
            matrix = _orthogonalise(matrix @ whitener) @ whitener
            matrix *= min(rows, columns) ** 0.5 / (matrix.norm() + 1e-12)  # as large as it would be without
        else:
            matrix = _orthogonalise(matrix)
        weight.add_(matrix.view_as(weight), alpha=-group["lr"] * max(1, rows / columns) ** 0.5)

    def _adam_step(self, bias: Tensor, group: dict[str, Any]) -> None:
        state = self.state[bias]
        if not state:
            state |= {"step": 0, "mean": torch.zeros_like(bias), "square": torch.zeros_like(bias)}
        state["step"] += 1
        (beta1, beta2), gradient = group["betas"], bias.grad
        assert gradient is not None
        mean = state["mean"].lerp_(gradient, 1 - beta1) / (1 - beta1 ** state["step"])
        square = state["square"].lerp_(gradient.square(), 1 - beta2) / (1 - beta2 ** state["step"])
        bias.addcdiv_(mean, square.sqrt().add_(group["eps"]), value=-group["lr"])


def _orthogonalise(matrix: Tensor) -> Tensor:
    """The nearest matrix whose singular values are all one, roughly (0.7 to 1.2): five Newton-Schulz iterations."""
    x = matrix / (matrix.norm() + 1e-12)
    wide = x if x.shape[0] <= x.shape[1] else x.T
    for _ in range(5):  # a x + (b G + c G^2) x, with G = x x^T
        gram = wide @ wide.T
        quintic = torch.addmm(gram, gram, gram, beta=-4.7750, alpha=2.0315)
        wide = torch.addmm(wide, quintic, wide, beta=3.4445)
    return wide if x.shape[0] <= x.shape[1] else wide.T


@cache
def _whitener(channels: int, kernel: int, damping: float, device: torch.device) -> Tensor:
    """(M + damping * mean(diag(M)) * I)^(-1/2), with M the second moments of the kernel^2 pixels that a filter sees.

    M is that of an average photograph: mean 0.45, variance 0.06, correlation 0.98^|dx| 0.98^|dy| over pixels and 0.9
    between channels.
    """
    distance = (torch.arange(kernel)[:, None] - torch.arange(kernel)).abs()
    pixels = 0.98 ** distance.double()
    colours = 0.9 + 0.1 * torch.eye(channels, dtype=torch.float64)
    moments = 0.45**2 + 0.06 * torch.kron(colours, torch.kron(pixels, pixels))
    values, vectors = torch.linalg.eigh(moments)
    return ((vectors * (values + damping * values.mean()).rsqrt()) @ vectors.T).float().to(device)


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
