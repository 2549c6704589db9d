"""On torch's meta device, which computes nothing: what is left on the CPU fails here, on a machine that has no GPU.

But for what is only an index. (FakeTensorMode's CUDA device would be closer, but a torch built for the CPU aborts in
its backward pass.)
"""

import pytest
import torch
from test_nets import SMALL, ZOO
from test_patches import packed

from srcnn.data.patches import Patches
from srcnn.image import shave
from srcnn.losses import PSNRLoss
from srcnn.nets import Network
from srcnn.optim import Muon
from srcnn.inference.tiles import SelfEnsemble, super_resolve

GPU = torch.device("meta")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("net_type", ZOO)
def test_training_validation_and_prediction_stay_on_the_device(net_type: type[Network], channels: int) -> None:
    net = net_type(scale=3, channels=channels, **SMALL.get(net_type, {})).to(GPU)
    patches = Patches(packed(3), net, patch_size=36, batch_size=4)
    patches.device, patches.pixels = GPU, patches.pixels.to(GPU)  # as `to` has it, which asks for the GPU's memory
    optimizer = Muon(net, lr=1e-2, whiten=0.1)
    for number in range(2):
        x, hr = patches.batch(number)
        PSNRLoss()(net.body_of_crop(x), shave(hr, net.train_border)).backward()
        optimizer.step()
    assert all(parameter.grad is not None and parameter.grad.device == GPU for parameter in net.parameters())

    # Scores are computed on the CPU, so validation is the network's part alone.
    for other in (net, net.for_inference(), SelfEnsemble(net)):
        assert super_resolve(other, torch.zeros(1, 3, 20, 30, dtype=torch.uint8, device=GPU)).shape == (1, 3, 60, 90)


def test_what_is_left_on_the_cpu_is_noticed() -> None:
    """So that the test above can fail."""
    net = ZOO[0](scale=3)
    with pytest.raises(RuntimeError):
        net(torch.rand(1, 3, 20, 30, device=GPU))
    with pytest.raises(RuntimeError):
        torch.rand(3, device=GPU) + torch.rand(3)
