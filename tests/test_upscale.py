import random

import pytest
import torch
from test_nets import ZOO

from srcnn.image import bicubic_up, quantize
from srcnn.nets import SRCNN, Network
from srcnn.upscale import super_resolve, upscale


@pytest.mark.parametrize("net_type", ZOO)
def test_tiles_do_not_show(net_type: type[Network]) -> None:
    """At 20 random sizes of image and tile, and at those where a tile is a single pixel, row or column."""
    rng = random.Random(0)
    cases = [(rng.randint(1, 80), rng.randint(1, 80), rng.randint(3, 150), rng.randint(3, 150)) for _ in range(20)]
    cases += [(1, 1, 1, 1), (2, 50, 1, 1), (7, 40, 150, 3), (40, 7, 3, 150)]
    for height, width, rows, columns in cases:
        torch.manual_seed(height)
        net = net_type(scale=rng.choice([2, 3, 4]))
        lr = torch.rand(1, 3, height, width)
        with torch.no_grad():
            whole = net(lr)
        tiled = upscale(net, lr, (rows, columns))
        torch.testing.assert_close(tiled, whole, atol=1e-6, rtol=0)
        assert (quantize(tiled) != quantize(whole)).float().mean() < 1e-4  # those at a tie, where 1e-7 decides


@pytest.mark.parametrize("size", [(1, 1), (5, 700), (700, 5), (333, 301)])
def test_default_tiles_equal_the_whole(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    net = SRCNN(residual=True)
    lr = torch.rand(1, 3, *size)
    with torch.no_grad():
        assert torch.equal(quantize(upscale(net, lr)), quantize(net(lr)))


def test_gray_comes_back_gray() -> None:
    gray = 0.3 + 0.4 * torch.rand(1, 1, 20, 20)
    for channels in (1, 3):
        sr = super_resolve(SRCNN(channels=channels, init="identity"), gray)
        torch.testing.assert_close(sr, bicubic_up(gray, 3), atol=1e-5, rtol=0)
