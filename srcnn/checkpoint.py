"""Weights files and checkpoints: written whole, read without running code, and the network that they describe.

A weights file is {"network": class name, "arguments": of its constructor, "state_dict", "run": what is known of the
training}. A Lightning `.ckpt` has the same keys beside Lightning's own; the network's weights begin with "net." there.
Any other file is searched for a bare state_dict of SRCNN's three layers or of Compact.
"""

import io
import math
import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from srcnn.errors import UserError
from srcnn.files import replacing
from srcnn.hub import find_model, read_model
from srcnn.nets import NETWORKS, Network

WEIGHTS = Path(__file__).parent / "weights"  # what we trained and ship
_NESTED = ("params_ema", "params", "state_dict", "model_state_dict", "model")  # where others put a state_dict


def find_checkpoint(ckpt_path: str | os.PathLike | None, scale: int | None = None) -> Path:
    """A checkpoint's path: a file, a run's folder, one of the hub's or "hf://owner/name", or a name of shipped weights.

    None is Compact of that scale.
    """
    shipped = {path.stem: path for path in sorted(WEIGHTS.glob("*.pth"))}
    name = str(ckpt_path or f"compact_x{scale or 3}")
    if ckpt_path is None and name not in shipped:
        raise UserError(f"scale={scale}: no weights are shipped for it; name a ckpt_path, or for a size width=")
    path = find_model(name)
    if path.is_dir():
        files = [path / "weights.pth", path / "checkpoints" / "best.ckpt", path / "checkpoints" / "last.ckpt"]
        return next(filter(Path.is_file, files), path)
    return path if path.exists() else shipped.get(name, path)


def read_checkpoint(path: str | os.PathLike) -> dict[str, Any]:
    """A checkpoint or weights file, or a bare state_dict as {"state_dict": …}; "run" is {} where nothing is known.

    Raises UserError for a file that is damaged, or that holds anything but plain data.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint" + (" (it is a folder)" if path.is_dir() else ""))
    try:
        if zipfile.is_zipfile(path) and zipfile.ZipFile(path).testzip():  # torch would not look at the checksums
            raise ValueError("a checksum is wrong")
        is_hubs = path.suffix == ".safetensors"
        checkpoint = read_model(path) if is_hubs else torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except Exception as error:  # torch raises nearly anything, OSError too, depending on which byte is wrong
        if code := re.search(r"GLOBAL ([\w.]+) was not", str(error)):
            reason = f"holds an object of {code[1]}, and no code is run from a file; save the network's state_dict()"
            raise UserError(f"{path}: {reason}") from error
        raise UserError(f"{path}: not a checkpoint, or a damaged one; is there another beside it?") from error
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("network"), str):
        nested = [checkpoint.get(key) for key in _NESTED] if isinstance(checkpoint, dict) else []
        checkpoint = {"state_dict": next(filter(_is_state_dict, [checkpoint, *nested]), None)}
    if not _is_state_dict(checkpoint.get("state_dict")):
        raise UserError(f"{path}: holds no network's weights")
    run = checkpoint.get("run")
    return {**checkpoint, "run": run if isinstance(run, dict) and is_plain(run) else {}}


def read_resumable(path: str | os.PathLike) -> dict[str, Any]:
    """A checkpoint that a run can go on from; UserError for weights alone."""
    checkpoint = read_checkpoint(path)
    if "global_step" not in checkpoint:
        raise UserError(f"{path}: holds weights alone, no state of a run; start one from them with init_from=")
    return checkpoint


def _is_state_dict(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(v, Tensor) for v in value.values())


def is_plain(value: Any, depth: int = 8) -> bool:
    """Whether a value is made of numbers, strings and None alone, in lists and dictionaries."""
    if isinstance(value, dict | list | tuple):
        items = [*value, *value.values()] if isinstance(value, dict) else value
        return depth > 0 and all(is_plain(item, depth - 1) for item in items)
    return value is None or type(value) in (bool, int, float, str)


def load_network(ckpt_path: str | os.PathLike | None, scale: int | None = None) -> tuple[Network, dict[str, Any]]:
    """The network that a checkpoint holds (see `find_checkpoint`), in eval mode, and the checkpoint.

    `scale` chooses among our weights, and is for a bare state_dict that does not tell: then it is assumed to be 3, and
    the checkpoint has "scale_assumed".
    """
    path = find_checkpoint(ckpt_path, scale)
    checkpoint = read_checkpoint(path)
    if "network" in checkpoint:
        name, arguments = checkpoint["network"], checkpoint.get("arguments")
    else:
        name, arguments = _recognise(path, _weights_in(checkpoint))
        checkpoint["scale_assumed"] = scale is None and "scale" not in arguments
        arguments = {"scale": scale or 3, **arguments}
    net = _build(path, name, arguments)
    if scale not in (None, net.scale):
        raise UserError(f"scale={scale}, but {path} was trained for scale {net.scale}: leave scale= out")
    return load_weights(net, path, checkpoint).eval(), checkpoint


def _recognise(path: Path, weights: Mapping[str, Tensor]) -> tuple[str, dict[str, Any]]:
    """Class and arguments of bare weights, by their shapes; "scale" where it shows."""
    convs = [tuple(value.shape) for value in weights.values() if value.ndim == 4]
    if len(convs) > 1:
        (width, channels, *_), *middle, (out, *_) = convs
        if "body.1.weight" in weights:
            found = {"scale": math.isqrt(out // channels), "channels": channels, "width": width, "depth": len(middle)}
            return "Compact", found
        if len(convs) == 3 and out == channels:
            kernels, widths = [conv[-1] for conv in convs], [width, middle[0][0]]
            return "SRCNN", {"channels": channels, "kernels": kernels, "widths": widths}
    raise UserError(f"{path}: bare weights of a network unknown here; give a .ckpt, which describes it")


def _build(path: Path, name: Any, arguments: Any) -> Network:
    """The network that a file describes."""
    if name not in NETWORKS:
        known = f"{', '.join(NETWORKS)} are; import the module that defines it, by imports=[module] on a command line"
        raise UserError(f"{path}: its network {name!r} is not known here ({known})")
    if not isinstance(arguments, dict) or not is_plain(arguments):
        raise UserError(f"{path}: the arguments of its network are not plain numbers and strings")
    try:
        with torch.random.fork_rng(devices=[]):
            return NETWORKS[name](**arguments)
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: {name} cannot be built as the file describes it ({reason})") from error


def load_weights(net: Network, path: str | os.PathLike, checkpoint: Mapping[str, Any] | None = None) -> Network:
    """Put a checkpoint's weights into a network; UserError that names the keys where they don't fit.

    checkpoint  what the file holds, if it has been read already
    """
    weights = check_fit(path, net, checkpoint or read_checkpoint(path))
    if not all(bool(value.isfinite().all()) for value in weights.values()):
        raise UserError(f"{path}: holds weights that are NaN or infinite; take an earlier checkpoint")
    net.load_state_dict(weights)
    return net


def _weights_in(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The network's own weights by their keys, without what Lightning, DataParallel or torch.compile put in front."""
    weights = checkpoint["state_dict"]
    if "pytorch-lightning_version" in checkpoint:  # a loss may have tensors there
        return {key.removeprefix("net."): value for key, value in weights.items() if key.startswith("net.")}
    if "network" in checkpoint:
        return dict(weights)
    return {re.sub(r"^((net|model|module|generator|_orig_mod)\.)+", "", key): v for key, v in weights.items()}


def _weights_for(net: Network, checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights by this network's keys; bare ones of other names are taken in the order of the layers."""
    weights, own = _weights_in(checkpoint), net.state_dict()
    if "network" in checkpoint or weights.keys() == own.keys():
        return weights
    in_order = dict(zip(own, weights.values(), strict=False))
    fits = len(own) == len(weights) and all(own[key].shape == in_order[key].shape for key in own)
    return in_order if fits else weights


def check_fit(path: str | os.PathLike, net: Network, checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """A checkpoint's weights for this network; UserError that names the keys where they do not fit."""
    weights = _weights_for(net, checkpoint)
    own, found = ({key: list(v.shape) for key, v in state.items()} for state in (net.state_dict(), weights))
    keys = [key for key in {**own, **found} if own.get(key) != found.get(key)]
    if keys:
        wrong = [f"{key} is {found.get(key, 'missing')} instead of {own.get(key, 'nothing')}" for key in keys[:3]]
        more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
        raise UserError(f"{path}: its weights do not fit {type(net).__name__}: {'; '.join(wrong)}{more}")
    return weights


def save_weights(path: str | os.PathLike, net: Network, run: Mapping[str, Any]) -> None:
    """Write a network's weights, with the arguments that build it and what is to be known of the run."""
    own = net.state_dict()
    weights = {key: own[key].detach().cpu().clone(memory_format=torch.contiguous_format) for key in own}
    content = {"network": type(net).__name__, "arguments": net.arguments, "state_dict": weights, "run": dict(run)}
    write_checkpoint(path, content)


def write_checkpoint(path: str | os.PathLike, content: Mapping[str, Any]) -> None:
    """Write a file of torch's, whole or not at all: synced, and renamed into its place."""
    buffer = io.BytesIO()  # torch's own writer reports a full disk as something else
    torch.save(content, buffer)
    with replacing(path, fsync=True) as temporary:
        temporary.write_bytes(buffer.getbuffer())
