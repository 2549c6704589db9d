import pytest
import torch

from srcnn.image import bicubic_up, shave
from srcnn.nets import NETWORKS, SRCNN, Network

ZOO = list(NETWORKS.values())


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("net_type", ZOO)
def test_network(net_type: type[Network], channels: int, scale: int) -> None:
    """What every network promises in `srcnn.nets.base.Network`."""
    net = net_type(scale=scale, channels=channels)
    lr = torch.rand(2, channels, 20, 23)
    sr = net(lr)
    assert sr.shape == (2, channels, 20 * scale, 23 * scale)
    x = net.preprocess(lr)
    assert x.shape[-1] * net.body_scale == 23 * scale
    torch.testing.assert_close(net.body(x), sr)

    # Of a training crop: the inner part of the result.
    torch.testing.assert_close(net.body_of_crop(x), shave(sr, net.train_border))

    # receptive_radius is what a pixel looks at, no less and no more.
    x = torch.rand(1, channels, 41, 41).requires_grad_()
    y = net.body(x)
    middle = 20 * net.body_scale
    y[..., middle : middle + net.body_scale, middle : middle + net.body_scale].sum().backward()
    touched = x.grad[0].abs().sum(0).nonzero()
    assert touched.amin().item() == 20 - net.receptive_radius
    assert touched.amax().item() == 20 + net.receptive_radius

    # So is preprocess_radius.
    lr_ = torch.rand(1, channels, 21, 21).requires_grad_()
    ratio = scale // net.body_scale
    net.preprocess(lr_)[..., 10 * ratio : 11 * ratio, 10 * ratio : 11 * ratio].sum().backward()
    touched = lr_.grad[0].abs().sum(0).nonzero()
    assert touched.amin().item() == 10 - net.preprocess_radius
    assert touched.amax().item() == 10 + net.preprocess_radius

    # Every parameter learns, but for those whose ReLU is shut.
    net.zero_grad()
    net(lr).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())
    assert net(torch.rand(1, channels, 1, 1)).shape[-2:] == (scale, scale)


def test_srcnn_is_the_assignments() -> None:
    net = SRCNN()
    assert sum(p.numel() for p in net.parameters()) == 20_099  # 64*3*81+64 + 32*64+32 + 3*32*25+3
    convs = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d)]
    assert [conv.kernel_size[0] for conv in convs] == [9, 1, 5]
    assert [conv.padding[0] for conv in convs] == [4, 0, 2]
    assert sum(p.numel() for p in SRCNN(channels=1).parameters()) == 8_129  # TPAMI 2016 counts 8,032 weights
    lr = torch.rand(1, 3, 9, 8)
    assert torch.equal(net.preprocess(lr), bicubic_up(lr, 3))


def test_initialisations() -> None:
    x = torch.rand(1, 3, 24, 24)
    torch.testing.assert_close(SRCNN(init="identity").body(x), x)
    torch.testing.assert_close(SRCNN(init="identity", residual=True).body(x), x)
    paper = SRCNN(init="paper")
    assert paper.conv1.weight.std().item() == pytest.approx(1e-3, rel=0.05)  # TPAMI 2016, section 3.2
    assert paper.conv3.bias.abs().max().item() == 0
    plain, residual = SRCNN(), SRCNN(residual=True)
    residual.load_state_dict(plain.state_dict())
    torch.testing.assert_close(residual.body(x), plain.body(x) + x)
