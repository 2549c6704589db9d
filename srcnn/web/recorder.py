"""A network as a list of few kinds of operations, recorded while an image passes through it, whatever its class.

A `TorchFunctionMode` sees every torch function that the image goes through. Each becomes one of these operations, which
are all that templates/network.js has to know:

    conv     kernel [out, in, h, w], no padding              pad      zeros, or replicated, reflected, symmetric pixels
    add      one input and `factor` times another            shuffle  torch's pixel_shuffle
    map      in each channel p * max(x, 0) + n * min(x, 0) + b: relu, leaky_relu, prelu, a factor, an offset
    tanh, clamp

A transposed convolution, an enlargement by nearest neighbours and the bicubic one become a conv and a shuffle. Each is
a dictionary: "op", "in" (the numbers of its inputs: 0 is the image, n the result of operation n - 1) and constants.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from srcnn.errors import UserError
from srcnn.image import bicubic_up, symmetric_pad
from srcnn.nets.fsrcnn import as_convolution

Operation = dict[str, Any]
_PAD_MODES = {"constant": "zeros", "replicate": "replicate", "reflect": "reflect"}  # torch's name: ours
_LARGEST = 3e38  # in place of infinity, which JSON does not have


def record(function: Callable[[Tensor], Tensor], channels: int) -> list[Operation]:
    """What a function does to an image [1, channels, H, W]; UserError for an operation that is not supported."""
    x = torch.rand(1, channels, 24, 32)
    recorder = _Recorder(x)
    with torch.no_grad(), recorder:
        result = function(x)
    last = recorder.values.get(id(result))
    if last is None or last.number != len(recorder.operations):
        raise UserError("format=html: the network does not return the result of its last operation")
    return recorder.operations


def replay(operations: Sequence[Operation], x: Tensor) -> Tensor:
    """The operations in torch, to check them against the network."""
    values = [x]
    for op in operations:
        values.append(_TORCH[op["op"]](op, *(values[number] for number in op["in"])))
    return values[-1]


def _pad(op: Operation, x: Tensor) -> Tensor:
    if op["mode"] == "symmetric":
        return symmetric_pad(symmetric_pad(x, op["pad"][0], -1), op["pad"][2], -2)
    return F.pad(x, op["pad"], {ours: mode for mode, ours in _PAD_MODES.items()}[op["mode"]])


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


class _Value(NamedTuple):
    """The image (number 0), or the result of an operation."""

    number: int
    channels: int


class _Recorder(TorchFunctionMode):
    """Its public methods have the names and arguments of torch's functions; each returns the value of the result."""

    def __init__(self, x: Tensor):
        super().__init__()
        self.operations: list[Operation] = []
        self.values = {id(x): _Value(0, x.shape[1])}
        self.tensors = [x]  # kept alive, as a new tensor could get the id of a dead one

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        flat = [x for arg in (*args, *kwargs.values()) for x in (arg if isinstance(arg, list | tuple) else [arg])]
        is_seen = any(id(x) in self.values for x in flat)
        if not is_seen or isinstance(result, torch.Size) or not isinstance(result, Tensor | list | tuple):
            return result
        name = func.__name__.strip("_")
        if not isinstance(result, Tensor) or name not in _SUPPORTED:
            raise _unsupported(name)
        inputs = [self.values.get(id(x), x) for x in args]
        options = {key: self.values.get(id(x), x) for key, x in kwargs.items()}
        try:
            self.values[id(result)] = getattr(self, name)(*inputs, **options)
        except TypeError:
            raise _unsupported(f"{name} with these arguments") from None
        self.tensors.append(result)
        return result

    def _emit(self, op: str, *inputs: _Value, channels: int | None = None, **facts: Any) -> _Value:
        self.operations.append({"op": op, "in": [x.number for x in inputs], **facts})
        return _Value(len(self.operations), channels or inputs[0].channels)

    def _conv(self, x: _Value, weight: Tensor, bias: Tensor | None) -> _Value:
        bias = torch.zeros(len(weight)) if bias is None else bias
        return self._emit("conv", x, channels=len(weight), weight=weight.detach(), bias=bias.detach())

    def _padded(self, x: _Value, pad: Sequence[int], mode: str) -> _Value:
        return self._emit("pad", x, pad=list(pad), mode=mode) if any(pad) else x

    def _mapped(self, x: _Value, positive: Any, negative: Any, offset: Any) -> _Value:
        """Each a number, or one a channel."""
        if isinstance(positive, _Value):
            raise _unsupported("product of two of its values")
        each = [torch.as_tensor(f, dtype=torch.float32).flatten() for f in (positive, negative, offset)]
        if any(len(f) not in (1, x.channels) for f in each):
            raise _unsupported("sum or product with more than one number a channel")
        each = [f.expand(x.channels) for f in each]
        return self._emit("map", x, factors=torch.stack(each).detach())

    def conv2d(
        self, x: _Value, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
        groups: int = 1,
    ) -> _Value:  # fmt: skip
        dilation = _pair(dilation)
        if _pair(stride) != (1, 1):
            raise _unsupported(f"conv2d with stride={stride}")
        outputs, inputs, *kernel = weight.shape
        reach = [(side - 1) * step for side, step in zip(kernel, dilation, strict=True)]
        dense = weight.new_zeros(outputs, inputs * groups, *(side + 1 for side in reach))
        for group, (rows, part) in enumerate(zip(dense.chunk(groups), weight.chunk(groups), strict=True)):
            rows[:, group * inputs : (group + 1) * inputs, :: dilation[0], :: dilation[1]] = part
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
            raise _unsupported("conv_transpose2d that is not square or does not yield stride times as many pixels")
        dense, pads = as_convolution(weight, stride, before)
        bias = None if bias is None else bias.repeat_interleave(stride**2)
        x = self._padded(x, pads, "zeros")
        return self.pixel_shuffle(self._conv(x, dense, bias), stride)

    def pad(self, x: _Value, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> _Value:
        if mode not in _PAD_MODES or len(pad) != 4 or min(pad) < 0 or value:
            raise _unsupported(f"pad with mode={mode} pad={list(pad)} value={value}")
        return self._padded(x, pad, _PAD_MODES[mode])

    def bicubic_up(self, x: _Value, scale: int, pad: bool = True) -> _Value:
        """Each of a pixel's scale x scale new pixels is a weighted sum of its 5x5 neighbours."""
        weights = bicubic_up(torch.eye(5)[:, None, None, :], scale)[:, 0, 0, 2 * scale : 3 * scale]  # [tap, phase]
        kernels = torch.einsum("tp,uq->pqtu", weights, weights).flatten(0, 1)  # [phase, tap, tap]
        dense = torch.einsum("oi,ptu->opitu", torch.eye(x.channels), kernels).reshape(-1, x.channels, 5, 5)
        return self.pixel_shuffle(self._conv(self._padded(x, [2 * pad] * 4, "symmetric"), dense, None), scale)

    def interpolate(self, x: _Value, size: Any = None, scale_factor: Any = None, mode: str = "", **_: Any) -> _Value:
        if mode != "nearest" or not scale_factor or scale_factor != int(scale_factor):
            raise _unsupported(f"interpolate with mode={mode} size={size} scale_factor={scale_factor}")
        return self.pixel_shuffle(self.repeat_interleave(x, int(scale_factor) ** 2, 1), int(scale_factor))

    def repeat_interleave(self, x: _Value, repeats: int, dim: int | None = None) -> _Value:
        if dim != 1:
            raise _unsupported(f"repeat_interleave with dim={dim}")
        return self._conv(x, torch.eye(x.channels).repeat_interleave(repeats, 0)[..., None, None], None)

    def pixel_shuffle(self, x: _Value, upscale_factor: int) -> _Value:
        return self._emit("shuffle", x, channels=x.channels // upscale_factor**2, scale=upscale_factor)

    def relu(self, x: _Value, inplace: bool = False) -> _Value:
        return self._mapped(x, 1, 0, 0)

    def leaky_relu(self, x: _Value, negative_slope: Any = 0.01, inplace: bool = False) -> _Value:
        return self._mapped(x, 1, negative_slope, 0)

    def tanh(self, x: _Value) -> _Value:
        return self._emit("tanh", x)

    def clamp(self, x: _Value, min: float | None = None, max: float | None = None) -> _Value:
        if isinstance(min, Tensor) or isinstance(max, Tensor):
            raise _unsupported("clamp between tensors")
        return self._emit("clamp", x, min=-_LARGEST if min is None else min, max=_LARGEST if max is None else max)

    def sigmoid(self, x: _Value) -> _Value:
        half = self.tanh(self._mapped(x, 0.5, 0.5, 0))
        return self._mapped(half, 0.5, 0.5, 0.5)

    def add(self, x: Any, y: Any, alpha: float = 1) -> _Value:
        if isinstance(x, _Value) and isinstance(y, _Value):
            if x.channels != y.channels:
                raise _unsupported("sum of values of different channels")
            return self._emit("add", x, y, factor=alpha)
        return self._mapped(x, 1, 1, alpha * y) if isinstance(x, _Value) else self._mapped(y, alpha, alpha, x)

    def sub(self, x: Any, y: Any, alpha: float = 1) -> _Value:
        return self.add(x, y, -alpha)

    def neg(self, x: _Value) -> _Value:
        return self._mapped(x, -1, -1, 0)

    def rsub(self, x: Any, y: Any) -> _Value:
        return self.sub(y, x)

    def mul(self, x: Any, y: Any) -> _Value:
        return self._mapped(x, y, y, 0) if isinstance(x, _Value) else self._mapped(y, x, x, 0)

    def div(self, x: Any, y: Any) -> _Value:
        return self._mapped(x, 1 / y, 1 / y, 0)

    def contiguous(self, x: _Value, **_: Any) -> _Value:
        return x

    prelu = leaky_relu  # its slopes are one a channel
    radd = iadd = add
    isub = sub
    rmul = imul = mul
    truediv = itruediv = div
    clone = contiguous


_SUPPORTED = {name for name in vars(_Recorder) if not name.startswith("_")}


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value) * (2 // len(value))


def _unsupported(what: str) -> UserError:
    known = "conv2d, conv_transpose2d, pad, relu, leaky_relu, prelu, tanh, sigmoid, clamp, pixel_shuffle, nearest or"
    return UserError(f"format=html: the page has no {what}; it has {known} bicubic enlargement, sums, and factors")
