"""What a checkpoint or a weights file holds, and how a network comes back from it.

A weights file is {"network": class name, "arguments": of its constructor, "state_dict", "run": what is known of the
training}. A Lightning `.ckpt` has the same keys beside Lightning's own; the network's weights begin with "net." there.
Any other file is searched for a bare state_dict, and its network is known by its layers. A stranger's file brings
numbers and no code: only plain data is loaded, and the class is looked up in `srcnn.nets`.
"""

import io
import math
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from srcnn.errors import UserError
from srcnn.files import replacing
from srcnn.nets import NETWORKS, Network

WEIGHTS = Path(__file__).parents[1] / "weights"  # what we trained and ship
_LIGHTNING = "pytorch-lightning_version"  # in every checkpoint of Lightning's
# Where others put a state_dict, averaged weights first.
_NESTED = ("params_ema", "ema", "state_dict", "model_state_dict", "model", "params", "generator", "network", "net")
_FORMER = {"srcnn": "SRCNN", "srcnn_residual": "SRCNN", "espcn": "ESPCN"}  # model= of files until 0.1.0
_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64)


def read_checkpoint(path: str | os.PathLike) -> dict[str, Any]:
    """A checkpoint, a weights file, or a bare state_dict as {"state_dict": …}; on the CPU.

    Raises UserError for a file that is none, is damaged, or claims to hold more than its size.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint" + (" (it is a folder)" if path.is_dir() else ""))
    try:
        checkpoint = _read(path)
    except PermissionError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except Exception as error:  # torch raises nearly anything, OSError too, depending on which byte is wrong
        if code := re.search(r"GLOBAL ([\w.]+) was not", str(error)):
            what = f"an object of {code[1]}, and no code is run from a file"
            raise UserError(f"{path}: holds {what}: save the network's state_dict()") from error
        found = newest_checkpoint(path.parent, but=path)
        other = f"; the next best beside it is {found[0]}, of step {found[1]}" if found else ""
        raise UserError(f"{path}: not a checkpoint, or a damaged one{other}") from error
    if isinstance(checkpoint, dict) and "srcnn" in checkpoint:
        checkpoint |= _of_former(path, checkpoint)
    elif not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("network"), str):
        checkpoint = {"state_dict": _find_weights(checkpoint)}
    if not _is_state_dict(checkpoint.get("state_dict")):
        raise UserError(f"{path}: holds no network's weights")
    if not all(map(_is_dense, checkpoint["state_dict"].values())):
        raise UserError(f"{path}: holds weights that are no plain numbers, or the same few numbers many times")
    return checkpoint


def _find_weights(content: Any, depth: int = 3) -> Any:
    """The state_dict that another project's file is, or has in it."""
    if _is_state_dict(content) or not isinstance(content, Mapping) or not depth:
        return content
    found = (_find_weights(content.get(key), depth - 1) for key in _NESTED)
    return next(filter(_is_state_dict, found), None)


def _read(path: Path) -> Any:
    """What torch has saved there; some exception for a file that is damaged, or that claims more than it holds."""
    size = path.stat().st_size
    if zipfile.is_zipfile(path):  # what torch has written since 1.6; it would not look at the checksums
        with zipfile.ZipFile(path) as archive:
            stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())
            if not stored or sum(entry.file_size for entry in archive.infolist()) > size or archive.testzip():
                raise ValueError("damaged")
    return torch.load(path, map_location="cpu", weights_only=True)


def _is_state_dict(value: Any) -> bool:
    if not isinstance(value, Mapping) or not value:
        return False
    return all(isinstance(key, str) and isinstance(v, Tensor) for key, v in value.items())


def _is_dense(tensor: Tensor) -> bool:
    if tensor.layout != torch.strided or tensor.is_nested or tensor.is_meta or tensor.dtype not in _DTYPES:
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def _of_former(path: Path, checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint of the layout until 0.1.0 says of its network and run, as it is said now."""
    settings = checkpoint["srcnn"]
    try:
        values = dict(settings["values"])
        arguments = {key.removeprefix("model."): value for key, value in values.items() if key.startswith("model.")}
        run = {"overrides": [], "values": values, **{k: settings[k] for k in ("versions", "val_psnr") if k in settings}}
        name = _FORMER[settings["choices"]["model"]]
        return {"network": name, "arguments": {"scale": values["scale"], **arguments}, "run": run}
    except (AttributeError, LookupError, TypeError, ValueError):
        raise UserError(f"{path}: its settings are not those of a run of srcnn") from None


def newest_checkpoint(folder: str | os.PathLike, but: Path | None = None) -> tuple[Path, int] | None:
    """The checkpoint to go on from in a run's folder or its checkpoints/, and its step; damaged ones and `but` are not.

    That is last.ckpt, which is written last: from an older one of all that an epoch leaves some would be missing.
    """
    found = []
    for path in (*Path(folder).glob("*.ckpt"), *Path(folder).glob("checkpoints/*.ckpt")):
        if path == but or not path.is_file():
            continue
        try:
            found.append((path.name == "last.ckpt", int(_read(path)["global_step"]), path))
        except Exception:  # damaged, in whatever way
            continue
    return (max(found)[2], max(found)[1]) if found else None


def last_good(folder: str | os.PathLike) -> str:
    """Which checkpoint a run that had to end can be resumed from, as a part of a sentence."""
    found = newest_checkpoint(folder)
    return f"the last good checkpoint is {found[0]}, of step {found[1]}" if found else "there is no checkpoint yet"


def find_checkpoint(ckpt_path: str | os.PathLike | None, scale: int | None = None) -> Path:
    """A checkpoint's path; weights of ours go by their name without folder and ending; None is Compact, which of the
    small ones scores best for the least work."""
    given = Path(ckpt_path or f"compact_x{scale or 3}")
    shipped = {path.stem: path for path in sorted(WEIGHTS.glob("*.pth"))}
    if ckpt_path is None and given.name not in shipped:
        raise UserError(
            f"scale={scale}: no weights are shipped for it (there are {', '.join(shipped)}); give a ckpt_path"
        )
    if ckpt_path is None or not given.exists():  # one's own comes first
        return shipped.get(str(given), given)
    return given


def run_of(path: str | os.PathLike, checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint says of its run (see `srcnn.run.options.describe`); {} for bare weights.

    Raises UserError unless it is plain data of the expected kinds: it may be a stranger's.
    """
    run = checkpoint.get("run", {})
    kinds = {"overrides": list, "degradation": str, "val_psnr": float | int | None, "steps": int}
    kinds |= dict.fromkeys(("values", "classes", "versions", "machine", "data", "psnr"), dict)
    sound = isinstance(run, dict) and _is_plain(run)
    sound = sound and all(isinstance(run[key], kind) for key, kind in kinds.items() if key in run)
    sound = sound and all(isinstance(override, str) for override in run.get("overrides", []))
    if not sound or not all(isinstance(value, float | int | None) for value in run.get("psnr", {}).values()):
        raise UserError(f"{path}: what it says of its run is not what srcnn writes")
    return run


def _is_plain(value: Any, largest: int = 2**64, items: int = 10**6, depth: int = 5) -> bool:
    """Whether these are numbers and texts, or lists and dictionaries of them: of a sane size in all."""
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list | tuple):
        share = items // max(1, len(value))  # for each, as the same list may be there many times
        return depth > 0 and share > 0 and all(_is_plain(item, largest, share, depth - 1) for item in value)
    if isinstance(value, str):
        return len(value) <= 4096
    return value is None or type(value) in (bool, float) or (type(value) is int and abs(value) <= largest)


def read_run(path: str | os.PathLike) -> dict[str, Any]:
    """The checkpoint of a run; UserError for weights only. Whether its state fits is for `srcnn.run.resume.fit`."""
    checkpoint = read_checkpoint(path)
    if "srcnn" in checkpoint:
        former = "was written by a former version of srcnn and cannot be resumed"
        raise UserError(f"{path}: {former}: start from its weights with init_from={path}")
    has_state = "loops" in checkpoint and isinstance(checkpoint.get("optimizer_states"), list)
    if not has_state or not checkpoint["optimizer_states"] or "overrides" not in run_of(path, checkpoint):
        raise UserError(f"{path}: holds weights only, no run to resume: start one with init_from={path}")
    progress(path, checkpoint)
    return checkpoint


def progress(path: str | os.PathLike, checkpoint: Mapping[str, Any]) -> tuple[int, int]:
    """Epochs and steps that the run of a checkpoint had done."""
    try:
        loops, steps = checkpoint["loops"], checkpoint["global_step"]
        if not all(type(count) in (int, bool) and 0 <= count < 2**40 for count in (steps, *_counts(loops))):
            raise ValueError
        return loops["fit_loop"]["epoch_progress"]["current"]["processed"], steps
    except (LookupError, AttributeError, RuntimeError, TypeError, ValueError):
        raise UserError(f"{path}: its state is not that of a run: it does not say how far it had come") from None


def _counts(loop: Mapping[str, Any]) -> Iterator[Any]:
    """What Lightning's loops count: batches, epochs."""
    for key, value in loop.items():
        if isinstance(value, dict):
            yield from _counts(value)
        elif key in ("ready", "started", "processed", "completed", "is_last_batch"):
            yield value


def save_weights(path: str | os.PathLike, net: Network, arguments: Mapping[str, Any], run: Mapping[str, Any]) -> None:
    """Write a network's weights, with the arguments that build it and what is to be known of the run."""
    own = net.state_dict()
    weights = {key: own[key].detach().cpu().clone(memory_format=torch.contiguous_format) for key in own}
    facts = {"network": type(net).__name__, "arguments": dict(arguments), "state_dict": weights, "run": dict(run)}
    write_checkpoint(path, facts)


def write_checkpoint(path: str | os.PathLike, content: Mapping[str, Any]) -> None:
    """Write a file of torch's, whole or not at all: synced, and renamed into its place."""
    buffer = io.BytesIO()  # torch's own writer reports a full disk as something else
    torch.save(content, buffer)
    with replacing(path, fsync=True) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def load_network(ckpt_path: str | os.PathLike | None, scale: int | None = None) -> tuple[Network, dict[str, Any]]:
    """The network that a checkpoint holds (see `find_checkpoint`), in eval mode, and the checkpoint.

    `scale` chooses among our weights, and is for a bare state_dict that does not tell: then it is assumed to be 3, and
    the checkpoint has "scale_assumed".
    """
    path = find_checkpoint(ckpt_path, scale)
    checkpoint = read_checkpoint(path)
    if "network" in checkpoint:
        net = _build(path, checkpoint["network"], checkpoint.get("arguments"), checkpoint)
    else:
        name, arguments = _guess(path, _weights_in(checkpoint))
        checkpoint["scale_assumed"] = scale is None and "scale" not in arguments
        net = _build(path, name, {"scale": scale or 3, **arguments}, checkpoint)
    if scale not in (None, net.scale):
        raise UserError(f"scale={scale}, but {path} was trained for scale {net.scale}: leave scale= out")
    return net.eval(), checkpoint


def _guess(path: Path, weights: Mapping[str, Tensor]) -> tuple[str, dict[str, Any]]:
    """Class and arguments of bare weights, by the shapes of the convolutions in their order; "scale" where it shows."""
    convs = [tuple(value.shape) for value in weights.values() if value.ndim == 4]
    has_slopes = sum(value.ndim == 1 for value in weights.values()) > len(convs)  # PReLU's, beside the biases
    try:
        (width, channels, *_), *middle, (out, before, *_) = convs
        if has_slopes and (out, before) == (width, channels):
            return "FSRCNN", {"channels": channels, "width": width, "shrunk": middle[0][0], "depth": len(convs) - 4}
        shuffled = {"scale": math.isqrt(out // channels), "channels": channels}
        if has_slopes:
            return "Compact", {**shuffled, "width": width, "depth": len(middle)}
        if len(convs) == 3:
            layers = {"channels": channels, "kernels": [c[-1] for c in convs], "widths": [width, middle[0][0]]}
            return ("SRCNN", layers) if out == channels else ("ESPCN", shuffled | layers)
        if all(c == (width, width, 3, 3) for c in middle):
            return "VDSR", {"channels": channels, "width": width, "depth": len(convs)}
        steps = [math.isqrt(c[0] // width) for c in middle if c[0] > width]
        found = {"scale": math.prod(steps), "depth": (len(middle) - 1 - len(steps)) // 2}
        return "EDSR", {**found, "channels": channels, "width": width, "residual_scale": 1.0 if width < 256 else 0.1}
    except (ArithmeticError, LookupError, ValueError):
        raise UserError(f"{path}: bare weights of a network unknown here; give a .ckpt, which describes it") from None


def _build(path: Path, name: Any, arguments: Any, checkpoint: Mapping[str, Any]) -> Network:
    """The network of a file: made without memory first, until its shapes are known to be those of the file."""
    if not isinstance(name, str) or name not in NETWORKS:
        raise UserError(f"{path}: its network {name!r} is not in srcnn/nets (there are {', '.join(NETWORKS)})")
    plain = isinstance(arguments, dict) and _is_plain(arguments, largest=65536)
    if not plain or type(arguments.get("scale")) is not int:
        raise UserError(f"{path}: the arguments of its network are not plain numbers and texts, the scale one of them")
    network = NETWORKS[name]
    try:
        with torch.device("meta"):
            shapes = network(**arguments)
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if "meta" not in str(error):  # else a constructor that reads its own weights, and so needs real ones
            reason = f"{name} of this clone cannot be built as the file describes it ({' '.join(str(error).split())})"
            raise UserError(f"{path}: {reason}") from error
    else:
        _check_fit(path, shapes, _weights_for(shapes, checkpoint))
        if shapes.parameter_count > path.stat().st_size:
            raise UserError(f"{path}: is too small for the {shapes.parameter_count:,} weights it describes")
    with torch.random.fork_rng(devices=[]):
        net = network(**arguments)
    return load_weights(net, path, checkpoint)


def load_weights(net: Network, path: str | os.PathLike, checkpoint: Mapping[str, Any] | None = None) -> Network:
    """Put a checkpoint's weights into a network; UserError that names the keys where they don't fit.

    checkpoint  what the file holds, if it has been read already
    """
    weights = _weights_for(net, checkpoint or read_checkpoint(path))
    _check_fit(path, net, weights)
    if not all(bool(value.isfinite().all()) for value in weights.values()):
        raise UserError(f"{path}: its weights are NaN or infinite: train again, with a lower optim.lr")
    net.load_state_dict(weights)
    return net


def _weights_in(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The network's part of a state_dict, by the network's own keys where it is ours."""
    weights = checkpoint["state_dict"]
    if "network" not in checkpoint:  # as others save them, by Lightning, DataParallel or torch.compile too
        short = {re.sub(r"^((net|model|module|generator|_orig_mod)\.)+", "", key): v for key, v in weights.items()}
        return {key: value for key, value in short.items() if not key.startswith(("sub_mean.", "add_mean."))}
    if _LIGHTNING in checkpoint or "srcnn" in checkpoint:  # a loss may have tensors of its own there
        return {key.removeprefix("net."): value for key, value in weights.items() if key.startswith("net.")}
    return dict(weights)


def _weights_for(net: Network, checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights by this network's keys: bare ones of other names are taken in the order of the layers.

    Where all biases are left out, they are zeros. The two EDSRs of many see pixels from 0 to 255, so that their biases
    are 255 times ours. FSRCNN's are not taken, as others place its deconvolution otherwise.
    """
    weights, own = _weights_in(checkpoint), net.state_dict()
    if "network" in checkpoint or weights.keys() == own.keys() or type(net).__name__ == "FSRCNN":
        return weights
    largest = 255 if type(net).__name__ == "EDSR" and {"head.0.weight", "conv_first.weight"} & weights.keys() else 1
    unbiased, given, named = all(v.ndim == 4 for v in weights.values()), iter(weights.values()), {}
    for key, value in own.items():
        found = torch.zeros(value.shape) if unbiased and value.ndim == 1 else next(given, None)
        if found is None or found.shape != value.shape:
            return weights
        named[key] = found / largest if value.ndim == 1 else found
    return weights if any(True for _ in given) else named


def _check_fit(path: str | os.PathLike, net: Network, weights: Mapping[str, Tensor]) -> None:
    own, given = ({key: list(v.shape) for key, v in state.items()} for state in (net.state_dict(), weights))
    keys = [key for key in {**own, **given} if own.get(key) != given.get(key)]
    if keys:
        wrong = [f"{key} is {given.get(key, 'missing')} instead of {own.get(key, 'nothing')}" for key in keys[:3]]
        more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
        raise UserError(f"{path}: its weights do not fit {type(net).__name__}: {'; '.join(wrong)}{more}")
