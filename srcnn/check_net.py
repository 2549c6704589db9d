"""Whether a network keeps what the rest of the project relies on, in sentences."""

import copy
import math
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from srcnn.checkpoint import is_plain, load_network, save_weights
from srcnn.errors import UserError
from srcnn.image import shave
from srcnn.inference.tiles import super_resolve
from srcnn.nets import Network

_TOLERANCE = 1e-4


def check(net: Network) -> list[str]:
    """What is wrong with a network, a sentence each; empty where all holds that `srcnn.nets.Network` describes.

    Looks at shapes, `receptive_radius` and `preprocess_radius` (measured by the gradient of one pixel), tiles, gray and
    RGB images, `valid`, gradients, batches, saving and loading. Weights are left as they are.
    """
    name, faults = type(net).__name__, []
    if missing := [attribute for attribute in ("body_scale", "receptive_radius") if not hasattr(net, attribute)]:
        return [f"{name} does not set {' and '.join(missing)}"]
    random = _randomised(net)
    # In body's input: one pixel in the middle, all that it may depend on, and as much again.
    zoom = net.scale // net.body_scale
    reach = math.ceil(net.receptive_radius / zoom) + net.preprocess_radius
    side = 4 * reach + 9
    lr = torch.rand(1, net.channels, side, side + 2)
    expected = [1, net.channels, net.scale * side, net.scale * (side + 2)]
    try:
        with torch.no_grad():
            sr, x = random(lr), random.preprocess(lr)
    except Exception as error:
        return [f"{name} fails on an LR image {list(lr.shape)}: {type(error).__name__}: {error}"]
    if list(sr.shape) != expected:
        return [f"{name} makes {list(sr.shape)} of {list(lr.shape)} at scale {net.scale}, not {expected}"]

    if x.shape[2] != zoom * side:
        return [f"{name}.preprocess enlarges {x.shape[2] / side:g} times, where scale / body_scale is {zoom}"]
    exact = copy.deepcopy(random).double()
    for function, attribute in ((exact.body, "receptive_radius"), (exact.preprocess, "preprocess_radius")):
        declared, measured = getattr(net, attribute), _radius(function, lr.double())
        if not measured <= declared <= measured + 2:  # bicubic has 2, and at scale 1 none
            faults.append(f"{name}: a pixel depends on {measured} pixels on each side, {attribute} says {declared}")
    with torch.no_grad():
        alone = random(torch.cat([lr, lr.flip(3)]))[:1]
        enlarged = [random.upscale(lr[:, :1].expand(-1, channels, -1, -1)) for channels in (1, 3)]
    tiled = super_resolve(random, lr, tile=(zoom * (side // 2), zoom * (side // 3)))
    if (difference := float((tiled - sr).abs().max() / sr.abs().max())) > _TOLERANCE:
        faults.append(f"{name}: in tiles its result differs from the whole by {difference:.2g}; is a radius too small?")
    for image, channels, kind in zip(enlarged, (1, 3), ("gray", "RGB"), strict=True):
        if list(image.shape) != [1, channels, *expected[2:]]:
            faults.append(f"{name} makes {list(image.shape)} of a {kind} image, not {[1, channels, *expected[2:]]}")
    if not torch.allclose(alone, sr, atol=_TOLERANCE * float(sr.abs().max())):
        faults.append(f"{name}: an image's result depends on the others of its batch, in eval mode")
    faults += _training_faults(random, lr, sr)

    if not is_plain(net.arguments):
        return [*faults, f"{name}: arguments {net.arguments} are not all numbers and strings: no file can hold them"]
    with tempfile.TemporaryDirectory() as folder:
        try:
            save_weights(Path(folder, "net.pth"), random, {})
            loaded, _ = load_network(Path(folder, "net.pth"))
        except UserError as error:
            return [*faults, f"{name} cannot be loaded again: {error}"]
    with torch.no_grad():
        again = loaded(lr)
    if not torch.equal(again, sr):
        faults.append(f"{name}: saved and loaded it differs; is something random, or not in its state_dict?")
    return faults


def _training_faults(net: Network, lr: Tensor, sr: Tensor) -> list[str]:
    name, faults = type(net).__name__, []
    with torch.enable_grad():
        part = net.valid(lr)
        part.square().mean().backward()
    borders = [(whole - side) / 2 for whole, side in zip(sr.shape[2:], part.shape[2:], strict=True)]
    if borders[0] != borders[1] or borders[0] < 0 or borders[0] % 1:
        faults.append(f"{name}.valid makes {list(part.shape)} of {list(lr.shape)}: not the middle of the whole")
    elif not torch.allclose(part, shave(sr, int(borders[0])), atol=_TOLERANCE * float(sr.abs().max())):
        faults.append(f"{name}.valid gives other values than the network's whole result")
    unused = [key for key, value in net.named_parameters() if value.requires_grad and value.grad is None]
    if unused:
        faults.append(f"{name}: no gradient reaches {', '.join(unused)}, so that several processes cannot train it")
    return faults


def _randomised(net: Network) -> Network:
    """A copy whose weights are all at work: one that starts as the identity hides what it depends on."""
    net = copy.deepcopy(net).float().cpu().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in filter(lambda parameter: parameter.requires_grad, net.parameters()):
            fan_in = weight[0].numel() if weight.ndim > 1 else 4
            weight.copy_(torch.randn(weight.shape, generator=generator) / fan_in**0.5)
    return net


def _radius(function: Callable[[Tensor], Tensor], x: Tensor) -> int:
    """Pixels of x, on each side, that one of them depends on: by the gradient of what it becomes."""
    x = x.clone().requires_grad_()
    with torch.enable_grad():
        y = function(x)
        middle = [side // 2 for side in x.shape[2:]]
        ratio = y.shape[2] // x.shape[2]
        rows, columns = (slice(at * ratio, (at + 1) * ratio) for at in middle)
        gradient = torch.autograd.grad(y[:, :, rows, columns].abs().sum(), x)[0][0].abs().sum(0)
    places = gradient.nonzero()
    return int((places - torch.tensor(middle)).abs().max()) if len(places) else 0
