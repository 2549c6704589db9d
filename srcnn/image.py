"""Pure functions on images: float tensors [N, C, H, W] in [0, 1], RGB unless the name says otherwise."""

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

# BT.601 studio range, as MATLAB's rgb2ycbcr (ITU-R BT.601-7, section 2.5): rows Y, Cb, Cr; columns R, G, B.
_YCBCR = ((65.481, 128.553, 24.966), (-37.797, -74.203, 112.0), (112.0, -93.786, -18.214))
_OFFSET = (16.0, 128.0, 128.0)


def bicubic_down(hr: Tensor, scale: int) -> Tensor:
    """Shrink as MATLAB's `imresize(hr, 1/scale, "bicubic")`: kernel stretched by the scale against aliasing.

    [N, C, H, W] -> [N, C, H/scale, W/scale]; H and W must be multiples of scale (see `modcrop`).
    """
    height, width = hr.shape[-2:]
    assert height % scale == 0 and width % scale == 0, f"{height}x{width} is not a multiple of {scale}"
    return _resample(_resample(hr, -2, phases=1, step=scale), -1, phases=1, step=scale)


def bicubic_up(lr: Tensor, scale: int, pad: bool = True) -> Tensor:
    """Enlarge as MATLAB's `imresize(lr, scale, "bicubic")`: [N, C, H, W] -> [N, C, scale*H, scale*W].

    With `pad=False` only what no border touches: less 2*scale on each side.
    """
    if has_torch_function_unary(lr):  # so that srcnn.web.page sees it as one function, as those of torch
        return handle_torch_function(bicubic_up, (lr,), lr, scale, pad)
    return _resample(_resample(lr, -2, scale, 1, pad), -1, scale, 1, pad)


def _resample(x: Tensor, dim: int, phases: int, step: int, pad: bool = True) -> Tensor:
    """Along one dimension, `phases` new pixels for every `step` old ones.

    Written as sums of shifted images, as torch's own bicubic loses 1e-5 in float32, renormalises at the borders
    where MATLAB mirrors, and would be rounded under autocast or TF32 were it a convolution.
    """
    all_taps, reach = _cubic_taps(phases, step)
    if pad:
        x = symmetric_pad(x, reach, dim)
    count = (x.shape[dim] - 2 * reach) // step

    def shifted(start: int) -> Tensor:
        pixels = slice(start, start + step * (count - 1) + 1, step)
        return x[..., pixels, :] if dim == -2 else x[..., pixels]

    rows = []
    for taps in all_taps:
        (first, weight), *others = taps
        row = shifted(first) * weight
        for start, weight in others:
            row.add_(shifted(start), alpha=weight)
        rows.append(row)
    return torch.stack(rows, dim).flatten(dim - 1, dim)


@lru_cache(32)
def _cubic_taps(phases: int, step: int) -> tuple[list[list[tuple[int, float]]], int]:
    """For each phase the pixels that count, from `reach` before the first, and their weights; and `reach`."""
    stretch = max(step / phases, 1.0)  # of the kernel, against aliasing
    reach, taps = math.ceil(2 * stretch), []
    for phase in range(phases):
        centre = (phase + 0.5) * step / phases - 0.5
        pixels = range(math.ceil(centre - 2 * stretch), math.floor(centre + 2 * stretch) + 1)
        weights = {pixel: _cubic(abs(pixel - centre) / stretch) for pixel in pixels}
        total = sum(weights.values())
        taps.append([(reach + pixel, weight / total) for pixel, weight in weights.items() if weight])
    return taps, reach


def _cubic(x: float) -> float:
    """Keys, "Cubic convolution interpolation for digital image processing", TASSP 1981, equation 15: a = -1/2."""
    if x <= 1:
        return (1.5 * x - 2.5) * x * x + 1
    return ((-0.5 * x + 2.5) * x - 4) * x + 2 if x < 2 else 0.0


def bicubic_resize(x: Tensor, height: int, width: int) -> Tensor:
    """Any size to any other as MATLAB's `imresize(x, [height width], "bicubic")`: [N, C, height, width]."""
    for dim, size in ((-2, height), (-1, width)):
        common = math.gcd(size, x.shape[dim])
        x = _resample(x, dim, size // common, x.shape[dim] // common)
    return x


def symmetric_pad(x: Tensor, pad: int, dim: int) -> Tensor:
    """Mirror both ends of a dimension with the edge pixel (MATLAB's "symmetric"); it may be shorter than pad."""
    size = x.shape[dim]
    index = torch.arange(-pad, size + pad, device=x.device)
    index = index % torch.full_like(index, 2 * size)  # of two tensors, as ONNX has it for a size that is not fixed
    return x.index_select(dim, torch.minimum(index, 2 * size - 1 - index))


def modcrop(x: Tensor, scale: int) -> Tensor:
    """Crop bottom and right to a multiple of the scale; never resize."""
    height, width = x.shape[-2:]
    return x[..., : height - height % scale, : width - width % scale]


def shave(x: Tensor, border: int) -> Tensor:
    """Leave out `border` pixels on each side."""
    return x[..., border : x.shape[-2] - border, border : x.shape[-1] - border]


def cut(image: Tensor, part: list[slice], whole: list[slice] | None = None, ratio: int = 1) -> Tensor:
    """The tile `part` out of what was computed of the tile `whole` (by default all, from pixel 0 on).

    Tiles are rows and columns of the input, as [slice(0, 64), slice(64, 128)]; `image` [N, C, H, W] has `ratio` times
    as many rows and columns.
    """
    rows, columns = within(part, whole or [slice(0, 0)] * 2, ratio)  # of `whole` the starts count
    return image[:, :, rows, columns]


def within(part: list[slice], whole: list[slice], ratio: int) -> list[slice]:
    """The tile `part`, counted from where the tile `whole` begins, in pixels of which `ratio` are as long as one."""
    return [slice((s.start - o.start) * ratio, (s.stop - o.start) * ratio) for s, o in zip(part, whole, strict=True)]


def grown(part: list[slice], margin: int, image: Tensor) -> list[slice]:
    """A part of an image and the margin around it, as far as there is one."""
    sizes = image.shape[2:]
    return [slice(max(0, s.start - margin), min(n, s.stop + margin)) for s, n in zip(part, sizes, strict=True)]


def rgb_to_ycbcr(rgb: Tensor) -> Tensor:
    """BT.601 studio range, scaled to [0, 1]: Y lies in [16, 235]/255, as in MATLAB's rgb2ycbcr."""
    matrix = rgb.new_tensor(_YCBCR) / 255
    offset = rgb.new_tensor(_OFFSET).view(3, 1, 1) / 255
    return torch.einsum("oc,...chw->...ohw", matrix, rgb) + offset


def rgb_to_y(rgb: Tensor) -> Tensor:
    """The luma of `rgb_to_ycbcr`: [N, 3, H, W] -> [N, 1, H, W]."""
    weights = rgb.new_tensor(_YCBCR[0]).view(3, 1, 1) / 255
    return (rgb * weights).sum(-3, keepdim=True) + _OFFSET[0] / 255


def gray_of(rgb: Tensor) -> Tensor:
    """The gray image of an RGB one, in the full range: gray (v, v, v) gives v."""
    return (rgb_to_y(rgb) * 255 - 16) / 219


def ycbcr_to_rgb(ycbcr: Tensor) -> Tensor:
    """The inverse of `rgb_to_ycbcr`."""
    matrix = torch.linalg.inv(torch.tensor(_YCBCR, dtype=torch.float64) / 255).to(ycbcr)
    offset = ycbcr.new_tensor(_OFFSET).view(3, 1, 1) / 255
    return torch.einsum("oc,...chw->...ohw", matrix, ycbcr - offset)


def as_float(x: Tensor) -> Tensor:
    """Integers of any type -> float32 in [0, 1]; what is float stays as it is."""
    return x if x.is_floating_point() else x.float() / torch.iinfo(x.dtype).max


def as_type(x: Tensor, dtype: torch.dtype) -> Tensor:
    """[0, 1] -> integers of a type, clipped and rounded, halves up as MATLAB does; no change to a float type."""
    return x if dtype.is_floating_point else (x.clamp(0, 1) * torch.iinfo(dtype).max + 0.5).floor().to(dtype)


def to_uint8(x: Tensor) -> Tensor:
    """Clip to [0, 1] and round to 8 bits, halves up as MATLAB's uint8()."""
    return as_type(x, torch.uint8)


def quantize(x: Tensor) -> Tensor:
    """What `x` is after a trip through an 8-bit file: `to_uint8`, back in [0, 1]."""
    return to_uint8(x).to(x.dtype) / 255
