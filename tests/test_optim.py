import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srcnn.errors import UserError
from srcnn.nets import FSRCNN, SRCNN, Compact
from srcnn.optim import Muon, Schedule, sgd


def step(module: nn.Module, **settings: float) -> dict[str, Tensor]:
    """How far one step with random gradients moves each parameter, in units of its learning rate."""
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    optimizer = Muon(module, **{"lr": 0.01, "bias_lr": 0.001, **settings})
    torch.manual_seed(1)
    for p in module.parameters():
        p.grad = torch.randn_like(p)
    optimizer.step()
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    return {name: (before[name] - p.detach()) / rates[id(p)] for name, p in module.named_parameters()}


def assert_orthogonal(matrices: Tensor) -> None:
    """All singular values are near sqrt(max(1, rows / columns)): five Newton-Schulz iterations reach 0.7 to 1.2."""
    singular = torch.linalg.svdvals(matrices) / max(1, matrices.shape[-2] / matrices.shape[-1]) ** 0.5
    assert singular.min() > 0.6 and singular.max() < 1.3


def test_schedules() -> None:
    def rates(total: int, **settings) -> list[float]:
        return [Schedule(**settings)(step, total) for step in range(total)]

    linear = rates(10, shape="linear", warmup=3)
    assert linear == pytest.approx([1 / 4, 2 / 4, 3 / 4, 1, 6 / 7, 5 / 7, 4 / 7, 3 / 7, 2 / 7, 1 / 7])
    held = rates(10, shape="linear", hold=0.5, final=0.2)
    assert held == pytest.approx([1] * 6 + [0.84, 0.68, 0.52, 0.36])
    cosine = rates(4, shape="cosine", final=0.1)
    assert cosine == pytest.approx([1, 0.1 + 0.9 * 0.853553, 0.55, 0.1 + 0.9 * 0.146447], rel=1e-5)
    assert Schedule("cosine", warmup=1)(9, math.inf) == 1  # of a run without an end
    with pytest.raises(UserError, match="shape=sine: choose cosine or linear"):
        Schedule("sine")


def test_muon_makes_every_direction_equal() -> None:
    for moved in step(SRCNN()).values():
        if moved.ndim == 1:  # the first step of Adam is its rate, whatever the gradient
            torch.testing.assert_close(moved.abs(), torch.ones_like(moved), rtol=0.01, atol=0)
        else:
            assert_orthogonal(moved.flatten(1))


def test_a_filter_of_any_layer_is_a_row() -> None:
    """Of a transposed convolution one for each pixel that it makes of one; and within each group of a grouped one."""
    moved = step(FSRCNN(scale=2, channels=3))["deconv.weight"]
    # Of a kernel of 9 with stride 2, the four pixels of an input pixel have filters of 5x5, 5x4, 4x5 and 4x4.
    rows = [F.pad(moved[:, c, y::2, x::2], (0, x, 0, y)).flatten() for c in range(3) for y in (0, 1) for x in (0, 1)]
    assert_orthogonal(torch.stack(rows))
    assert_orthogonal(step(nn.Conv2d(8, 12, 3, groups=4))["weight"].flatten(1).unflatten(0, (4, 3)))
    moved = step(nn.ConvTranspose2d(8, 12, 2, groups=4))["weight"]
    assert_orthogonal(moved.unflatten(0, (4, 2)).transpose(1, 2).flatten(2))
    assert_orthogonal(step(nn.Linear(20, 5))["weight"])


def test_what_is_not_a_layers_weight_learns_by_adam() -> None:
    """PReLU's slopes, and parameters of any shape that are not a matrix of filters; a loss's as well."""

    class Loss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = nn.Parameter(torch.ones(1, 3, 1, 1))

    moved = step(nn.ModuleList([Compact(width=4, depth=1), Loss()]))
    for name in ("0.body.1.weight", "0.body.0.bias", "1.weights"):
        assert torch.allclose(moved[name].abs(), torch.tensor(1.0), rtol=0.01)


def test_a_group_that_is_added() -> None:
    """As Lightning's BackboneFinetuning adds what was frozen: it learns by Adam."""
    net = Compact(width=4, depth=1, init="published")
    net.body[0].requires_grad_(False)
    optimizer = Muon(net, lr=0.01)
    net.body[0].requires_grad_(True)
    optimizer.add_param_group({"params": [*net.body[0].parameters()], "lr": 1e-2})
    before = net.body[0].weight.detach().clone()
    net(torch.rand(1, 3, 8, 8)).square().sum().backward()
    optimizer.step()
    assert (net.body[0].weight - before).abs().max().item() == pytest.approx(1e-2, rel=0.01)


def test_fixed_slopes_are_not_trained() -> None:
    net = Compact(width=4, depth=1, slope=0.25)
    trained = {id(p) for group in Muon(net, lr=0.01).param_groups for p in group["params"]}
    assert trained == {id(p) for p in net.parameters() if p.requires_grad}
    assert not any(id(net.body[layer].weight) in trained for layer in (1, 3))


def test_weight_decay_multiplies_the_weights() -> None:
    """By 1 - lr * weight_decay, each layer's own rate, apart from the step; biases and slopes keep theirs."""
    nets = [Compact(width=8, depth=1, init="published") for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    start = {name: p.detach().clone() for name, p in nets[0].named_parameters()}
    for net, decay in zip(nets, (0.0, 0.2), strict=True):
        step(net, lr=0.05, later_lr=0.02, weight_decay=decay)
    for (name, plain), decayed in zip(nets[0].named_parameters(), nets[1].parameters(), strict=True):
        rate = {"body.0.weight": 0.05, "body.2.weight": 0.02, "body.4.weight": 0.02}.get(name, 0.0)
        torch.testing.assert_close(decayed, plain - 0.2 * rate * start[name])


def test_a_whitened_step_is_small_where_photographs_are_strong() -> None:
    """On the first layer: a flat colour, as all photographs have, moves its filters less than a pattern does."""
    flat = torch.ones(1, 3, 9, 9)
    checks = (torch.arange(9)[:, None] + torch.arange(9)).remainder(2).mul(2).sub(1).expand(1, 3, 9, 9).float()
    plain, white = (step(SRCNN(), whiten=damping) for damping in (0.0, 0.1))
    first = [moved["conv1.weight"] for moved in (plain, white)]
    on_flat, on_checks = ([F.conv2d(pattern, moved).norm() for moved in first] for pattern in (flat, checks))
    assert on_flat[1] < on_flat[0] / 5
    assert on_checks[1] > on_checks[0]
    assert first[1].norm() == pytest.approx(64**0.5, rel=0.01)  # as long a step as 64 unit singular values make
    torch.testing.assert_close(white["conv2.weight"], plain["conv2.weight"], atol=1e-4, rtol=0)


def test_the_layer_that_sees_the_image_has_a_group_of_its_own() -> None:
    """Wherever it is registered: it may be whitened, and the others have another learning rate."""

    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tail = nn.Conv2d(16, 27, 3)
            self.head = nn.Conv2d(3, 16, 3)

    net = Backwards()
    groups = Muon(net, lr=0.01, later_lr=0.003, whiten=0.1).param_groups
    assert [[id(p) for p in group["params"]] for group in groups[:2]] == [[id(net.head.weight)], [id(net.tail.weight)]]
    assert [(group["lr"], group.get("whiten")) for group in groups] == [(0.01, 0.1), (0.003, 0), (1e-3, None)]


def test_no_gradient_is_no_step() -> None:
    """As the first layers of a residual network have it at the start, whose last layer is zero."""
    net = SRCNN(residual=True)
    before = [p.detach().clone() for p in net.parameters()]
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    Muon(net, lr=0.01, whiten=0.1).step()
    assert all(torch.equal(p, old) for p, old in zip(net.parameters(), before, strict=True))


def test_sgd_is_slower_on_the_last_layer() -> None:
    groups = sgd(SRCNN().parameters(), lr=1e-4, momentum=0.9, last_layer_lr=1e-5).param_groups
    assert [group["lr"] for group in groups] == [1e-4, 1e-5]
    assert [tuple(p.shape) for p in groups[1]["params"]] == [(3, 32, 5, 5), (3,)]
