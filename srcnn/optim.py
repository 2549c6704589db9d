"""Optimisers that treat layers differently, and the learning rate over a run; else any class of torch.optim serves."""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from srcnn.errors import check_choice, check_range


def sgd(parameters: Iterable[nn.Parameter], lr: float, momentum: float, last_layer_lr: float) -> torch.optim.Optimizer:
    """SGD with a learning rate of its own for the last layer, as the paper (section 3.2) needed to converge."""
    check_range("last_layer_lr", last_layer_lr, 0)
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
        check_range("lr", lr, 0)
        check_range("momentum", momentum, 0, 1)
        check_range("bias_lr", bias_lr, 0)
        check_range("whiten", whiten, 0)
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


class Schedule:
    """The learning rate over a run, as a factor of the optimiser's `lr`: a function of progress that keeps no state.

    It rises linearly for `warmup` steps (or epochs), holds for the share `hold` of the run, then falls to the share
    `final` as a "cosine" or "linear"; "multistep" multiplies by `gamma` at each of `milestones` instead.
    """

    def __init__(
        self,
        shape: str,
        warmup: int = 0,
        hold: float = 0.0,
        final: float = 0.0,
        milestones: Sequence[int] = (),
        gamma: float = 0.1,
    ):
        check_choice("shape", shape, ("cosine", "linear", "multistep"))
        check_range("warmup", warmup, 0)
        for name, share in (("hold", hold), ("final", final), ("gamma", gamma)):
            check_range(name, share, 0, 1)
        self.shape, self.warmup, self.hold, self.final = shape, warmup, hold, final
        self.milestones, self.gamma = milestones, gamma

    def __call__(self, now: int, total: float) -> float:
        """The factor after `now` of `total` steps (or epochs)."""
        rise = min(1.0, (now + 1) / (self.warmup + 1))
        if self.shape == "multistep":
            return rise * self.gamma ** sum(now >= milestone for milestone in self.milestones)
        start = max(self.warmup, self.hold * total)
        progress = min(1.0, max(0.0, (now - start) / max(1, total - start)))
        fall = (1 + math.cos(math.pi * progress)) / 2 if self.shape == "cosine" else 1 - progress
        return rise * (self.final + (1 - self.final) * fall)
