import pytest
import torch
import torch.nn.functional as F
from torch import nn

from srcnn.nets import FSRCNN, SRCNN, Compact
from srcnn.optim import Muon, Schedule, sgd


def rates(total: int, **settings) -> list[float]:
    return [Schedule(**settings)(step, total) for step in range(total)]


def test_schedules() -> None:
    linear = rates(10, shape="linear", warmup=3)
    assert linear == pytest.approx([1 / 4, 2 / 4, 3 / 4, 1, 6 / 7, 5 / 7, 4 / 7, 3 / 7, 2 / 7, 1 / 7])
    held = rates(10, shape="linear", hold=0.5, final=0.2)
    assert held == pytest.approx([1] * 6 + [0.84, 0.68, 0.52, 0.36])
    cosine = rates(4, shape="cosine", final=0.1)
    assert cosine == pytest.approx([1, 0.1 + 0.9 * 0.853553, 0.55, 0.1 + 0.9 * 0.146447], rel=1e-5)
    assert rates(4, shape="multistep", milestones=(1, 3), gamma=0.1) == pytest.approx([1, 0.1, 0.1, 0.01])


def test_muon_makes_every_direction_equal() -> None:
    """A step on a weight is a matrix whose singular values are all near lr * sqrt(max(1, rows / columns))."""
    torch.manual_seed(0)
    net = SRCNN()
    before = [p.detach().clone() for p in net.parameters()]
    optimizer = Muon(net, lr=0.01, momentum=0.95, bias_lr=0.001)
    for p in net.parameters():
        p.grad = torch.randn_like(p)
    optimizer.step()
    for p, old in zip(net.parameters(), before, strict=True):
        step = (old - p.detach()).flatten(1) if p.ndim > 1 else None
        if step is None:
            # the first step of Adam is its rate, whatever the gradient
            moved = (old - p.detach()).abs()
            assert torch.allclose(moved[moved > 0], torch.tensor(0.001), rtol=0.01)
            continue
        singular = torch.linalg.svdvals(step) / 0.01 / max(1, step.shape[0] / step.shape[1]) ** 0.5
        assert singular.min() > 0.6 and singular.max() < 1.3  # five Newton-Schulz steps reach about that


def test_a_whitened_step_is_small_where_photographs_are_strong() -> None:
    """On the first layer: a flat colour, as all photographs have, moves its filters less than a pattern does."""
    torch.manual_seed(0)
    flat = torch.ones(1, 3, 9, 9)
    checks = (torch.arange(9)[:, None] + torch.arange(9)).remainder(2).mul(2).sub(1).expand(1, 3, 9, 9).float()
    moved = {}
    for whiten in (0.0, 0.1):
        net = SRCNN()
        before = [conv.weight.detach().clone() for conv in (net.conv1, net.conv2)]
        optimizer = Muon(net, lr=0.01, whiten=whiten)
        torch.manual_seed(1)
        for p in net.parameters():
            p.grad = torch.randn_like(p)
        optimizer.step()
        first, second = ((conv.weight.detach() - old) for conv, old in zip((net.conv1, net.conv2), before, strict=True))
        moved[whiten] = [torch.nn.functional.conv2d(pattern, first).norm() for pattern in (flat, checks)]
        moved[whiten] += [first.norm(), second.norm()]
    assert moved[0.1][0] < moved[0.0][0] / 5
    assert moved[0.1][1] > moved[0.0][1]
    assert moved[0.1][2] == pytest.approx(0.01 * 64**0.5, rel=0.01)  # as long a step as 64 unit singular values make
    assert moved[0.1][3] == pytest.approx(moved[0.0][3])


def test_layers_after_the_first_may_learn_at_a_rate_of_their_own() -> None:
    rates = {tuple(p.shape): g["lr"] for g in Muon(SRCNN(), 2e-2, later_lr=3e-3).param_groups for p in g["params"]}
    assert rates[64, 3, 9, 9] == 2e-2 and rates[32, 64, 1, 1] == rates[3, 32, 5, 5] == 3e-3 and rates[64,] == 1e-3


def step(module: nn.Module, **settings: float) -> dict[str, torch.Tensor]:
    """How far a step of random gradients takes each parameter, in units of its learning rate."""
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    optimizer = Muon(module, lr=0.01, bias_lr=0.001, **settings)
    for p in module.parameters():
        p.grad = torch.randn_like(p)
    optimizer.step()
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    return {name: (before[name] - p.detach()) / rates[id(p)] for name, p in module.named_parameters()}


def test_a_filter_of_any_layer_is_a_row() -> None:
    """Of a transposed convolution one for each pixel that it makes of one; and within each group of a grouped one."""
    torch.manual_seed(0)
    moved = step(FSRCNN(scale=2, channels=3))["deconv.weight"]
    # Of a kernel of 9 with stride 2, the four pixels of an input pixel have filters of 5x5, 5x4, 4x5 and 4x4.
    rows = torch.stack(
        [F.pad(moved[:, c, y::2, x::2], (0, x, 0, y)).flatten() for c in range(3) for y in (0, 1) for x in (0, 1)]
    )
    singular = torch.linalg.svdvals(rows)
    assert singular.shape == (12,) and singular.min() > 0.6 and singular.max() < 1.3

    moved = step(nn.Conv2d(8, 12, 3, groups=4))["weight"].flatten(1).unflatten(0, (4, 3))
    singular = torch.linalg.svdvals(moved)
    assert singular.shape == (4, 3) and singular.min() > 0.6 and singular.max() < 1.3

    moved = step(nn.ConvTranspose2d(8, 12, 2, groups=4))["weight"].unflatten(0, (4, 2)).transpose(1, 2).flatten(2)
    singular = torch.linalg.svdvals(moved)
    assert singular.shape == (4, 3) and singular.min() > 0.6 and singular.max() < 1.3


def test_what_is_no_layers_weight_learns_by_adam() -> None:
    """PReLU's slopes, and parameters of any shape that are no matrix of filters; a loss's as well."""

    class Loss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = nn.Parameter(torch.ones(1, 3, 1, 1))

    moved = step(nn.ModuleList([Compact(width=4, depth=1), Loss()]))
    for name in ("0.body.1.weight", "0.body.0.bias", "1.weights"):
        assert torch.allclose(moved[name].abs(), torch.tensor(1.0), rtol=0.01)  # Adam's first step


def test_whitening_is_for_the_layer_that_sees_the_image() -> None:
    """Wherever it is registered."""

    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tail = nn.Conv2d(16, 27, 3)
            self.head = nn.Conv2d(3, 16, 3)

    net = Backwards()
    groups = Muon(net, lr=0.01, whiten=0.1).param_groups
    assert [[id(p) for p in group["params"]] for group in groups[:2]] == [[id(net.head.weight)], [id(net.tail.weight)]]
    assert [group["whiten"] for group in groups[:2]] == [0.1, 0]


def test_no_gradient_is_no_step() -> None:
    """As the first layers of a residual network have it at the start, whose last layer is zero."""
    net = SRCNN(residual=True, init="identity")
    before = [p.detach().clone() for p in net.parameters()]
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    Muon(net, lr=0.01, whiten=0.1).step()
    assert all(torch.equal(p, old) for p, old in zip(net.parameters(), before, strict=True))


def test_sgd_is_slower_on_the_last_layer() -> None:
    groups = sgd(SRCNN().parameters(), lr=1e-4, momentum=0.9, last_layer_lr=1e-5).param_groups
    assert [group["lr"] for group in groups] == [1e-4, 1e-5]
    assert [tuple(p.shape) for p in groups[1]["params"]] == [(3, 32, 5, 5), (3,)]
