"""On torch's meta device, which computes nothing: what is left on the CPU fails here, on a machine that has no GPU.

But for what is only an index. (FakeTensorMode's CUDA device would be closer, but a torch built for the CPU aborts in
its backward pass.)
"""

import pytest
import torch
from test_nets import SMALL, ZOO
from test_patches import make

from srcnn.image import as_float, shave
from srcnn.inference.tiles import for_inference, super_resolve
from srcnn.losses import PSNRLoss
from srcnn.nets import Compact, Network
from srcnn.optim import Muon

GPU = torch.device("meta")


@pytest.mark.parametrize("net_type", ZOO)
def test_training_and_prediction_stay_on_the_device(net_type: type[Network]) -> None:
    """Scores are computed on the CPU, so validation is the network's part alone."""
    net = net_type(scale=3, **SMALL.get(net_type, {})).to(GPU)
    patches = make(margin=net.margin, batch_size=4, patch_size=24, permute_colours=True)
    patches.pixels = patches.pixels.to(GPU)  # as `to` has it, which asks for the GPU's memory
    optimizer = Muon(net, lr=1e-2, whiten=0.1, weight_decay=0.1)
    for number in range(2):
        lr, hr = map(as_float, patches.batch(number))
        sr = net.valid(lr)
        PSNRLoss()(sr, shave(hr, (hr.shape[-1] - sr.shape[-1]) // 2)).backward()
        optimizer.step()
    assert all(parameter.grad is not None and parameter.grad.device == GPU for parameter in net.parameters())
    for channels in (1, 3):
        lr = torch.zeros(1, channels, 20, 30, dtype=torch.uint8, device=GPU)
        assert super_resolve(for_inference(net), lr).shape == (1, channels, 60, 90)


def test_what_is_left_on_the_cpu_is_noticed() -> None:
    """So that the test above can fail."""
    with pytest.raises(RuntimeError):
        Compact()(torch.rand(1, 3, 20, 30, device=GPU))
    with pytest.raises(RuntimeError):
        torch.rand(3, device=GPU) + torch.rand(3)
