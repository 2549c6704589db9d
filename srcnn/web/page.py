"""A page that enlarges photographs with a network, in any browser, without a server and without a connection.

The network's operations (see `srcnn.web.recorder`) and weights are in the page. templates/network.js runs them, by
WebGPU or in plain JavaScript; templates/enlarge.js does the rest.
"""

import base64
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from torch import Tensor

from srcnn.image import bicubic_up, gray_of, rgb_to_ycbcr, ycbcr_to_rgb
from srcnn.nets import Network
from srcnn.web.recorder import Operation, record, replay

_PACKAGE = Path(__file__).parents[1]
_LOADER = FileSystemLoader([_PACKAGE / room / "templates" for room in ("web", "report")])
_TEMPLATES = Environment(
    loader=_LOADER, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)


def write(net: Network, path: Path, facts: Mapping[str, str]) -> Callable[[Tensor], Tensor]:
    """Write the page; returns the network as the page has it. UserError for an operation that is not supported.

    facts  what the page says of the network: "network" (its name), and more
    """
    programs = {"colour": record(_on_colour(net), 3), "gray": record(_on_gray(net), 1)}
    programs["bicubic"] = record(lambda x: bicubic_up(x, net.scale), 1)
    constants: list[Tensor] = []
    described = {name: [_described(op, constants) for op in ops] for name, ops in programs.items()}
    weights = base64.b64encode(torch.cat(constants).numpy().astype("<f4").tobytes()).decode()
    view = net.preprocess_radius + math.ceil(net.receptive_radius * net.body_scale / net.scale)
    view = max(view, 2)  # bicubic's
    network = {"name": facts["network"], "scale": net.scale, "view": view, "programs": described, "weights": weights}
    title, table = f"{facts['network']} ×{net.scale}", {key: value for key, value in facts.items() if key != "run"}
    template = _TEMPLATES.get_template("enlarge.html")
    page = template.render(title=title, network=network, facts=table, parameters=net.parameter_count)
    path.write_text(page, encoding="utf-8")
    return lambda x: replay(programs["colour" if net.channels == 3 else "gray"], x)


def _on_colour(net: Network) -> Callable[[Tensor], Tensor]:
    """RGB to RGB, as `srcnn.inference.tiles.super_resolve`: a network on Y enlarges Cb and Cr bicubically."""
    if net.channels == 3:
        return net
    (weight, bias), (back, offset) = _as_conv(rgb_to_ycbcr), _as_conv(ycbcr_to_rgb)

    def whole(rgb: Tensor) -> Tensor:
        luma, chroma = F.conv2d(rgb, weight[:1], bias[:1]), F.conv2d(rgb, weight[1:], bias[1:])
        return F.conv2d(net(luma), back[:, :1], offset) + F.conv2d(bicubic_up(chroma, net.scale), back[:, 1:])

    return whole


def _on_gray(net: Network) -> Callable[[Tensor], Tensor]:
    if net.channels == 1:
        return net
    return lambda v: F.conv2d(net(F.conv2d(v, torch.ones(3, 1, 1, 1))), *_as_conv(gray_of))


def _as_conv(function: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Weight and bias of the 1x1 convolution that a linear function of three colours is."""
    bias = function(torch.zeros(1, 3, 1, 1))
    return (function(torch.eye(3)[:, :, None, None]) - bias).transpose(0, 1)[..., 0, 0, None, None], bias.flatten()


def _described(op: Operation, constants: list[Tensor]) -> Operation:
    """An operation for JSON: in place of its tensors their first index among all constants, which are appended to."""
    if op["op"] == "conv":  # [out/4, in, h, w, 4], as both engines compute four channels at a time
        weight, bias = (F.pad(op[key].transpose(0, -1), (0, -len(op["bias"]) % 4)) for key in ("weight", "bias"))
        size = {"inputs": weight.shape[1], "channels": len(op["bias"]), "height": weight.shape[2]}
        op = op | size | {"width": weight.shape[0]}
        op |= {"weight": weight.unflatten(-1, (-1, 4)).permute(3, 1, 2, 0, 4), "bias": bias}
    return {key: _index(value, constants) if isinstance(value, Tensor) else value for key, value in op.items()}


def _index(tensor: Tensor, constants: list[Tensor]) -> int:
    """Where a tensor's numbers begin among all constants; of equal tensors one is stored."""
    values, index = F.pad(tensor.detach().float().flatten(), (0, -tensor.numel() % 4)), 0
    for constant in constants:
        if torch.equal(constant, values):
            return index
        index += len(constant)
    constants.append(values)
    return index
