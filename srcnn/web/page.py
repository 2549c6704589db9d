"""A page that enlarges photographs with a network, whatever its class, in any browser and without a server.

A network is run once, and every torch function that its input passes through is noted. The few operations that come
of it are all that report/templates/network.js has to know:

    conv     of kernel [out, in, h, w], without a border     pad      a border of zeros, or of replicated, reflected
    add      one input and `factor` times another                     or symmetric pixels
    map      a channel's positive values times p, its negative ones times n, plus b: relu, prelu, a factor, an offset
    tanh, clamp                                              shuffle  torch's pixel_shuffle

A transposed convolution, an enlargement by nearest neighbours and the bicubic one are a conv and a shuffle.
"""

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from srcnn.errors import UserError
from srcnn.image import bicubic_up, rgb_to_ycbcr, symmetric_pad, ycbcr_to_rgb
from srcnn.nets import Network
from srcnn.nets.base import as_convolution
from srcnn.report.page import write_page
from srcnn.inference.tiles import gray_of

Operation = dict[str, Any]  # "op", "in": numbers of its inputs (0: the image, n: what operation n - 1 made), and more
_MODES = {"constant": "zeros", "replicate": "replicate", "reflect": "reflect"}


def write(net: Network, path: Path, facts: Mapping[str, str]) -> Callable[[Tensor], Tensor]:
    """Write the page; returns the network as the page has it. UserError for an operation that the page has not."""
    programs = {"colour": _record(_of_colour(net), 3), "gray": _record(_of_gray(net), 1)}
    programs["bicubic"] = _record(lambda x: bicubic_up(x, net.scale), 1)
    constants: list[Tensor] = []
    described = {name: [_described(op, constants) for op in ops] for name, ops in programs.items()}
    weights = base64.b64encode(torch.cat(constants).numpy().astype("<f4").tobytes()).decode()
    view = net.preprocess_radius + math.ceil(net.receptive_radius * net.body_scale / net.scale)
    view = max(view, 2)  # what bicubic looks at
    network = {"name": facts["network"], "scale": net.scale, "view": view, "programs": described, "weights": weights}
    title, shown = f"{facts['network']} ×{net.scale}", {key: value for key, value in facts.items() if key != "run"}
    write_page(path, "enlarge.html", title=title, network=network, facts=shown, parameters=net.parameter_count)
    return lambda x: replay(programs["colour" if net.channels == 3 else "gray"], x)


def replay(ops: Sequence[Operation], x: Tensor) -> Tensor:
    """The operations in torch."""
    values = [x]
    for op in ops:
        values.append(_TORCH[op["op"]](op, *(values[number] for number in op["in"])))
    return values[-1]


def _pad(op: Operation, x: Tensor) -> Tensor:
    if op["mode"] == "symmetric":
        return symmetric_pad(symmetric_pad(x, op["pad"][0], -1), op["pad"][2], -2)
    return F.pad(x, op["pad"], {ours: mode for mode, ours in _MODES.items()}[op["mode"]])


def _map(op: Operation, x: Tensor) -> Tensor:
    positive, negative, offset = op["factors"].view(3, -1, 1, 1)
    return positive * x.clamp(min=0) + negative * x.clamp(max=0) + offset


_TORCH: dict[str, Callable[..., Tensor]] = {
    "conv": lambda op, x: F.conv2d(x, op["weight"], op["bias"]),
    "pad": _pad,
    "map": _map,
    "tanh": lambda op, x: x.tanh(),
    "clamp": lambda op, x: x.clamp(op["min"], op["max"]),
    "add": lambda op, x, y: x + op["factor"] * y,
    "shuffle": lambda op, x: F.pixel_shuffle(x, op["scale"]),
}


def _of_colour(net: Network) -> Callable[[Tensor], Tensor]:
    """As `srcnn.inference.tiles.super_resolve` has it: a network on Y enlarges Cb and Cr bicubically."""
    if net.channels == 3:
        return net
    (weight, bias), (back, offset) = _as_conv(rgb_to_ycbcr), _as_conv(ycbcr_to_rgb)

    def whole(rgb: Tensor) -> Tensor:
        luma, chroma = F.conv2d(rgb, weight[:1], bias[:1]), F.conv2d(rgb, weight[1:], bias[1:])
        return F.conv2d(net(luma), back[:, :1], offset) + F.conv2d(bicubic_up(chroma, net.scale), back[:, 1:])

    return whole


def _of_gray(net: Network) -> Callable[[Tensor], Tensor]:
    if net.channels == 1:
        return net
    return lambda v: F.conv2d(net(F.conv2d(v, torch.ones(3, 1, 1, 1))), *_as_conv(gray_of))


def _as_conv(function: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Weight and bias of the 1x1 convolution that a linear function of three colours is."""
    bias = function(torch.zeros(1, 3, 1, 1))
    return (function(torch.eye(3)[:, :, None, None]) - bias).transpose(0, 1)[..., 0, 0, None, None], bias.flatten()


def _described(op: Operation, constants: list[Tensor]) -> Operation:
    """An operation as JSON has it, its numbers' place being their first index among all constants."""
    if op["op"] == "conv":  # [out/4, in, h, w, 4], as both interpreters compute four channels at a time
        weight, bias = (F.pad(op[key].transpose(0, -1), (0, -len(op["bias"]) % 4)) for key in ("weight", "bias"))
        size = {"inputs": weight.shape[1], "channels": len(op["bias"]), "height": weight.shape[2]}
        op = op | size | {"width": weight.shape[0]}
        op |= {"weight": weight.unflatten(-1, (-1, 4)).permute(3, 1, 2, 0, 4), "bias": bias}
    described = {}
    for key, value in op.items():
        if isinstance(value, Tensor):
            value = F.pad(value.detach().float().flatten(), (0, -value.numel() % 4))
            found = [sum(map(len, constants[:n])) for n, one in enumerate(constants) if torch.equal(one, value)]
            if not found:
                found = [sum(map(len, constants))]
                constants.append(value)
            value = found[0]
        described[key] = value
    return described


def _record(function: Callable[[Tensor], Tensor], channels: int) -> list[Operation]:
    x = torch.rand(1, channels, 24, 32)
    recorder = _Recorder(x)
    with torch.no_grad(), recorder:
        result = function(x)
    last = recorder.values.get(id(result))
    if last is None or last.number != len(recorder.ops):
        raise UserError("format=html: the network does not return what its last operation makes")
    return recorder.ops


class _Value(NamedTuple):
    """What one of the operations makes."""

    number: int
    channels: int


class _Recorder(TorchFunctionMode):
    """Notes what happens to a tensor. The methods after `emit` have names and arguments of torch's functions."""

    def __init__(self, x: Tensor):
        super().__init__()
        self.ops: list[Operation] = []
        self.values = {id(x): _Value(0, x.shape[1])}
        self.tensors = [x]  # kept, lest another gets the id of one

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        flat = [x for arg in (*args, *kwargs.values()) for x in (arg if isinstance(arg, list | tuple) else [arg])]
        if isinstance(result, Tensor | list | tuple) and any(id(x) in self.values for x in flat):
            name = func.__name__.strip("_")
            if isinstance(result, torch.Size):
                return result
            if not (isinstance(result, Tensor) and name in _FUNCTIONS):
                raise _refused(name)
            inputs = [self.values.get(id(x), x) for x in args]
            options = {key: self.values.get(id(x), x) for key, x in kwargs.items()}
            try:
                value = getattr(self, name)(*inputs, **options)
            except TypeError:
                raise _refused(f"{name} with these arguments") from None
            self.values[id(result)] = value
            self.tensors.append(result)
        return result

    def emit(self, op: str, *inputs: _Value, channels: int | None = None, **facts: Any) -> _Value:
        self.ops.append({"op": op, "in": [x.number for x in inputs], **facts})
        return _Value(len(self.ops), channels or inputs[0].channels)

    def _conv(self, x: _Value, weight: Tensor, bias: Tensor | None) -> _Value:
        bias = torch.zeros(len(weight)) if bias is None else bias
        return self.emit("conv", x, channels=len(weight), weight=weight.detach(), bias=bias.detach())

    def _padded(self, x: _Value, pad: Sequence[int], mode: str) -> _Value:
        return self.emit("pad", x, pad=list(pad), mode=mode) if any(pad) else x

    def _mapped(self, x: _Value, positive: Any, negative: Any, offset: Any) -> _Value:
        """Each a number, or one a channel."""
        each = [torch.as_tensor(f, dtype=torch.float32).flatten() for f in (positive, negative, offset)]
        if any(len(f) not in (1, x.channels) for f in each):
            raise _refused("sum or product with more than one number a channel")
        each = [f.expand(x.channels) for f in each]
        return self.emit("map", x, factors=torch.stack(each).detach())

    def conv2d(
        self, x: _Value, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
        groups: int = 1,
    ) -> _Value:  # fmt: skip
        dilation = _pair(dilation)
        if _pair(stride) != (1, 1):
            raise _refused(f"conv2d with stride={stride}")
        outputs, inputs, *kernel = weight.shape
        reach = [(side - 1) * step for side, step in zip(kernel, dilation, strict=True)]
        dense = weight.new_zeros(outputs, inputs * groups, *(side + 1 for side in reach))
        for group in range(groups):
            out = slice(group * outputs // groups, (group + 1) * outputs // groups)
            part = dense[out, group * inputs : (group + 1) * inputs, :: dilation[0], :: dilation[1]]
            part.copy_(weight[out])
        if padding == "same":
            sides = [side for whole in reversed(reach) for side in (whole // 2, whole - whole // 2)]
        else:
            sides = [side for side in reversed(_pair(0 if padding == "valid" else padding)) for _ in range(2)]
        return self._conv(self._padded(x, sides, "zeros"), dense, bias)

    def conv_transpose2d(
        self, x: _Value, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0, output_padding: Any = 0,
        groups: int = 1, dilation: Any = 1,
    ) -> _Value:  # fmt: skip
        stride, before, kernel = _pair(stride)[0], _pair(padding)[0], weight.shape[2]
        same = stride + 2 * before - kernel == _pair(output_padding)[0] and weight.shape[2] == weight.shape[3]
        if not same or groups != 1 or _pair(dilation) != (1, 1) or any(a != b for a, b in map(_pair, (stride, before))):
            raise _refused("conv_transpose2d that is not square or does not yield stride times as many pixels")
        dense, pads = as_convolution(weight, stride, before)
        bias = None if bias is None else bias.repeat_interleave(stride**2)
        x = self._padded(x, pads, "zeros")
        return self.pixel_shuffle(self._conv(x, dense, bias), stride)

    def pad(self, x: _Value, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> _Value:
        if mode not in _MODES or len(pad) != 4 or min(pad) < 0 or value:
            raise _refused(f"pad with mode={mode} pad={list(pad)} value={value}")
        return self._padded(x, pad, _MODES[mode])

    def bicubic_up(self, x: _Value, scale: int, pad: bool = True) -> _Value:
        """Of a pixel's 5x5 neighbours each of its scale x scale new pixels is a weighted sum."""
        weights = bicubic_up(torch.eye(5)[:, None, None, :], scale)[:, 0, 0, 2 * scale : 3 * scale]  # [tap, phase]
        kernels = torch.einsum("tp,uq->pqtu", weights, weights).flatten(0, 1)  # [phase, tap, tap]
        dense = torch.einsum("oi,ptu->opitu", torch.eye(x.channels), kernels).reshape(-1, x.channels, 5, 5)
        return self.pixel_shuffle(self._conv(self._padded(x, [2 * pad] * 4, "symmetric"), dense, None), scale)

    def interpolate(
        self, input: _Value, size: Any = None, scale_factor: Any = None, mode: str = "nearest", **others: Any
    ) -> _Value:
        if mode != "nearest" or not scale_factor or scale_factor != int(scale_factor):
            raise _refused(f"interpolate with mode={mode} size={size} scale_factor={scale_factor}")
        scale = int(scale_factor)
        return self.pixel_shuffle(self.repeat_interleave(input, scale**2, 1), scale)

    def repeat_interleave(self, x: _Value, repeats: int, dim: int | None = None) -> _Value:
        if dim != 1:
            raise _refused(f"repeat_interleave with dim={dim}")
        return self._conv(x, torch.eye(x.channels).repeat_interleave(repeats, 0)[..., None, None], None)

    def pixel_shuffle(self, x: _Value, upscale_factor: int) -> _Value:
        return self.emit("shuffle", x, channels=x.channels // upscale_factor**2, scale=upscale_factor)

    def relu(self, x: _Value, inplace: bool = False) -> _Value:
        return self._mapped(x, 1, 0, 0)

    def leaky_relu(self, x: _Value, negative_slope: float = 0.01, inplace: bool = False) -> _Value:
        return self._mapped(x, 1, negative_slope, 0)

    def prelu(self, x: _Value, weight: Tensor) -> _Value:
        return self._mapped(x, 1, weight, 0)

    def tanh(self, x: _Value) -> _Value:
        return self.emit("tanh", x)

    def clamp(self, x: _Value, min: float, max: float) -> _Value:
        return self.emit("clamp", x, min=min, max=max)

    def sigmoid(self, x: _Value) -> _Value:
        half = self.tanh(self._mapped(x, 0.5, 0.5, 0))
        return self._mapped(half, 0.5, 0.5, 0.5)

    def add(self, x: Any, y: Any, alpha: float = 1) -> _Value:
        if isinstance(x, _Value) and isinstance(y, _Value):
            if x.channels != y.channels:
                raise _refused("sum of values of different channels")
            return self.emit("add", x, y, factor=alpha)
        return self._mapped(x, 1, 1, alpha * y) if isinstance(x, _Value) else self._mapped(y, alpha, alpha, x)

    def sub(self, x: Any, y: Any, alpha: float = 1) -> _Value:
        return self.add(x, y, -alpha)

    def neg(self, x: _Value) -> _Value:
        return self._mapped(x, -1, -1, 0)

    def rsub(self, x: Any, y: Any) -> _Value:
        return self.sub(y, x)

    def mul(self, x: Any, y: Any) -> _Value:
        if isinstance(x, _Value) and isinstance(y, _Value):
            raise _refused("product of two of its values")
        return self._mapped(x, y, y, 0) if isinstance(x, _Value) else self._mapped(y, x, x, 0)

    def div(self, x: Any, y: Any) -> _Value:
        if isinstance(y, _Value):
            raise _refused("quotient by one of its values")
        return self._mapped(x, 1 / y, 1 / y, 0)

    def contiguous(self, x: _Value, **_: Any) -> _Value:
        return x

    radd = iadd = add
    isub = sub
    rmul = imul = mul
    truediv = itruediv = div
    clone = contiguous


_FUNCTIONS = {name for name in vars(_Recorder) if not name.startswith("_")} - {"emit"}


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value) * (2 // len(value))


def _refused(what: str) -> UserError:
    known = "conv2d, conv_transpose2d, pad, relu, leaky_relu, prelu, tanh, sigmoid, clamp, pixel_shuffle, nearest or"
    return UserError(f"format=html: the page has no {what}; it knows {known} bicubic enlargement, sums, and factors")
