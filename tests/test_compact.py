"""Compact against the published description of SRVGGNetCompact."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from srcnn.checkpoint import load_network, save_weights
from srcnn.nets import FSRCNN, Compact


@pytest.mark.parametrize(("scale", "width", "depth"), [(2, 16, 8), (3, 24, 10), (4, 64, 16)])
def test_compact_is_the_published_one(scale: int, width: int, depth: int) -> None:
    """Its state_dict and what it computes, from the description of SRVGGNetCompact.

    A list called `body`: a 3x3 convolution from 3 to `width` planes, PReLU with a slope a plane, `depth` times a
    convolution from `width` to `width` and PReLU, a convolution to 3 * scale^2 planes; all padded with zeros, all with
    a bias. Then a pixel shuffle, and the input enlarged by nearest neighbour is added.
    """
    net = Compact(scale=scale, width=width, depth=depth, init="published")
    state = net.state_dict()
    shapes = {"body.0.weight": (width, 3, 3, 3), "body.0.bias": (width,), "body.1.weight": (width,)}
    for layer in range(1, depth + 1):
        shapes |= {f"body.{2 * layer}.weight": (width, width, 3, 3), f"body.{2 * layer}.bias": (width,)}
        shapes |= {f"body.{2 * layer + 1}.weight": (width,)}
    last, planes = 2 * depth + 2, 3 * scale**2
    shapes |= {f"body.{last}.weight": (planes, width, 3, 3), f"body.{last}.bias": (planes,)}
    assert [(key, tuple(value.shape)) for key, value in state.items()] == list(shapes.items())
    assert all(state[f"body.{2 * layer + 1}.weight"].eq(0.25).all() for layer in range(depth + 1))

    def published(x: Tensor) -> Tensor:
        y = x
        for layer in range(depth + 1):
            y = F.conv2d(y, state[f"body.{2 * layer}.weight"], state[f"body.{2 * layer}.bias"], padding=1)
            slopes = state[f"body.{2 * layer + 1}.weight"].view(-1, 1, 1)
            y = torch.where(y > 0, y, slopes * y)
        y = F.conv2d(y, state[f"body.{last}.weight"], state[f"body.{last}.bias"], padding=1)
        n, _, h, w = y.shape
        shuffled = y.view(n, 3, scale, scale, h, w).permute(0, 1, 4, 2, 5, 3).reshape(n, 3, h * scale, w * scale)
        return shuffled + x.repeat_interleave(scale, 2).repeat_interleave(scale, 3)

    lr = torch.rand(2, 3, 13, 17)
    with torch.no_grad():
        torch.testing.assert_close(net(lr), published(lr), atol=1e-5, rtol=0)


@pytest.mark.parametrize("net_type", [Compact, FSRCNN])
def test_a_fixed_slope_is_a_prelu_in_a_file(net_type: type[Compact | FSRCNN], tmp_path: Path) -> None:
    """Its weights have the keys and slopes of learned ones, and either kind of network computes the same with them."""
    fixed, learned = (net_type(3, init="published", slope=slope) for slope in (0.1, None))
    learned.load_state_dict(fixed.state_dict())
    slopes = [value for key, value in learned.named_parameters() if value.ndim == 1 and "bias" not in key]
    assert all(slope.detach().allclose(torch.tensor(0.1)) for slope in slopes)
    assert {slope.shape for slope in slopes} <= {(16,), (56,), (12,)}
    lr = torch.rand(1, 3, 9, 8) - 0.5
    for mode in (torch.enable_grad, torch.no_grad):  # PReLU computes otherwise where it learns
        with mode():
            torch.testing.assert_close(learned(lr), fixed(lr), atol=1e-6, rtol=0)
    save_weights(tmp_path / "w.pth", fixed, {})
    loaded, checkpoint = load_network(tmp_path / "w.pth")
    assert checkpoint["arguments"]["slope"] == 0.1 and torch.equal(loaded(lr), fixed(lr))
    # Learned slopes are not taken over: what is stored is what is computed.
    other = net_type(3, init="published")
    fixed.load_state_dict(other.state_dict())
    assert all(layer.weight.eq(0.1).all() for layer in fixed.modules() if isinstance(layer, torch.nn.PReLU))


def test_an_lr_image_lies_within_0_and_1() -> None:
    """Floating point leaves that beside sharp edges, as 8 bits, trained on, do not."""
    net, lr = Compact(init="published"), torch.rand(1, 3, 8, 8) * 3 - 1
    assert torch.equal(net(lr), net(lr.clamp(0, 1)))
    assert not torch.equal(net(lr), net.body(lr))
