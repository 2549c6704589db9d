"""What a checkpoint holds, how it is written and read, and how a network comes back from it.

A `.ckpt` is Lightning's, with plain data only, and one entry of ours under "srcnn": the config groups chosen, their
values without any `_target_`, and the versions. A run's `weights.pth` is the same without what only a resume needs;
any other `.pth` is a bare state_dict. All load with `weights_only=True`, and classes come from this clone's YAML, so a
stranger's file can bring numbers but no code.
"""

import io
import math
import os
import re
import zipfile
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import lightning
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from lightning.fabric.plugins import TorchCheckpointIO
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from srcnn import __version__
from srcnn.errors import RunError, UserError
from srcnn.files import replacing
from srcnn.nets import ESPCN, SRCNN, Network

CONFIGS = Path(__file__).parents[1] / "configs"
WEIGHTS = Path(__file__).parent / "weights"  # what we trained and ship
GROUPS = ("data", "model", "loss", "optim", "scheduler", "trainer", "callbacks")
# What belongs to the machine, and is not taken from a checkpoint.
NOT_RESTORED = (
    "data.root", "trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy",
    "trainer.precision", "trainer.fast_dev_run",
)  # fmt: skip


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints written beside their place, synced and renamed, so that a kill leaves the previous one whole."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | os.PathLike, storage_options: Any = None) -> None:
        content = io.BytesIO()  # as torch would turn a full disk into an error that does not say so
        torch.save(checkpoint, content)
        path = Path(path)
        try:
            with replacing(path, fsync=True) as temporary:
                temporary.write_bytes(content.getbuffer())
        except (OSError, UserError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise RunError(f"{path}: cannot be written ({reason}); {what_stands(path.parent)}") from None

    def load_checkpoint(self, path: str | os.PathLike, *_: Any, **__: Any) -> dict[str, Any]:
        return load_checkpoint(path)


def settings_of(cfg: DictConfig, choices: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint keeps of a run's config: the groups chosen and plain values."""
    values = flatten(OmegaConf.to_container(cfg))
    return {
        "choices": {group: choices[group] for group in GROUPS if group in choices},
        "versions": {"srcnn": __version__, "torch": str(torch.__version__), "lightning": str(lightning.__version__)},
        "values": {k: v for k, v in values.items() if _is_setting(k, v) and k not in NOT_RESTORED},
        # To be compared with, never to be made: what a file names is not run.
        "classes": {
            key.removesuffix("._target_"): value
            for key, value in values.items()
            if key.endswith("._target_") and isinstance(value, str) and _is_ours(key)
        },
    }


def _is_setting(key: str, value: Any) -> bool:
    """Whether a checkpoint may hold it: a key of ours without a leading underscore, a value in no need of resolving."""
    ours = _is_ours(key)
    if key.startswith(("callbacks.", "trainer.")) and isinstance(value, str) and not key.endswith(".monitor"):
        # A place to write to is the machine's to name.
        ours = ours and not re.search(r"[/\\~]|\.\.", value) and not key.endswith(("dirpath", "root_dir"))
    return ours and re.fullmatch(r"[A-Za-z]\w*(\.[A-Za-z]\w*)*", key) is not None and _is_plain(value)


def _is_ours(key: str) -> bool:
    return key.split(".")[0] in (*GROUPS, "scale", "seed", "protocol")


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(_is_plain(item) and not isinstance(item, list) for item in value)
    if isinstance(value, str):
        return "${" not in value
    return value is None or value == {} or isinstance(value, bool | int | float)


def _is_known(run: Any) -> bool:
    """Whether this is what `save_weights` notes of a run: plain values, a dictionary of decibels among them."""
    values = [*run.values(), *run.get("psnr", {}).values()]
    return all(_is_plain(value) or isinstance(value, dict) for value in values)


def flatten(values: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings as one dictionary of dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else {prefix + key: value}
    return flat


def load_checkpoint(path: str | os.PathLike) -> dict[str, Any]:
    """A checkpoint or a bare state_dict, on the CPU; UserError for anything else."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint" + (" (it is a folder)" if path.is_dir() else ""))
    try:
        checkpoint = _read(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except Exception:  # what is raised depends on which byte is wrong
        found = newest_checkpoint(path.parent, but=path)
        other = f"; the next best beside it is {found[0]}, of step {found[1]}" if found else ""
        raise UserError(f"{path}: not a checkpoint, or a damaged one{other}") from None
    if not isinstance(checkpoint, dict) or not _weights_in(checkpoint):
        raise UserError(f"{path}: holds no network's weights")
    return checkpoint


def _read(path: Path) -> Any:
    """What torch has saved there; some exception for a file that is damaged, or that claims more than it holds."""
    size = path.stat().st_size
    if zipfile.is_zipfile(path):  # what torch has written since 1.6; it would not look at the checksums
        with zipfile.ZipFile(path) as archive:
            stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())
            if not stored or sum(entry.file_size for entry in archive.infolist()) > size or archive.testzip():
                raise ValueError("damaged")
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(checkpoint, dict):
        weights = [value for value in _weights_in(checkpoint).values() if isinstance(value, Tensor)]
        if sum(value.numel() * value.element_size() for value in weights) > size:
            raise ValueError("the same few bytes as gigantic weights")
    return checkpoint


def what_stands(folder: Path) -> str:
    """Which checkpoint a run that had to end can be resumed from, as a part of a sentence."""
    found = newest_checkpoint(folder)
    return f"the last good checkpoint is {found[0]}, of step {found[1]}" if found else "there is no checkpoint yet"


def newest_checkpoint(folder: str | os.PathLike, but: Path | None = None) -> tuple[Path, int] | None:
    """The sound checkpoint of most steps in a run's folder or its checkpoints/, and its step; not `but`."""
    found = []
    for path in (*Path(folder).glob("*.ckpt"), *Path(folder).glob("checkpoints/*.ckpt")):
        if path == but:
            continue
        try:
            found.append((int(_read(path)["global_step"]), path.name == "last.ckpt", path))
        except Exception:
            continue
    return (max(found)[2], max(found)[0]) if found else None


def save_weights(path: Path, net: Network, settings: Mapping[str, Any], run: Mapping[str, Any]) -> None:
    """A network's weights with the settings that build it and what is to be known of the run: no state to resume."""
    weights = {f"net.{key}": value.cpu().contiguous() for key, value in net.state_dict().items()}
    with replacing(path) as temporary:
        torch.save({"state_dict": weights, "srcnn": {**settings, "run": dict(run)}}, temporary)


def find_checkpoint(ckpt_path: str | os.PathLike | None, scale: int | None = None) -> Path:
    """A checkpoint's path; weights of ours go by their name without folder and ending, null is plain SRCNN."""
    if ckpt_path is None:
        path = WEIGHTS / f"srcnn_x{scale or 3}.pth"
        if not path.is_file():
            shipped = ", ".join(sorted(path.stem for path in WEIGHTS.glob("*.pth")))
            raise UserError(f"scale={scale}: no weights are shipped for it (there are {shipped}); give a ckpt_path")
        return path
    named = WEIGHTS / f"{ckpt_path}.pth"
    return named if named.is_file() and not Path(ckpt_path).exists() else Path(ckpt_path)


def settings_in(path: str | os.PathLike, checkpoint: Mapping[str, Any]) -> dict[str, Any] | None:
    """The settings in a checkpoint, None if it is bare weights; UserError unless they are groups and plain values.

    They may be a stranger's: no `_target_`, nothing for OmegaConf to resolve, no keys of Hydra's own.
    """
    if "srcnn" not in checkpoint:
        return None
    settings = checkpoint["srcnn"]
    try:
        choices, values = settings["choices"], settings["values"]
        sound = all(group in GROUPS and re.fullmatch(r"\w+", choice) for group, choice in choices.items())
        sound = sound and all(_is_setting(key, value) for key, value in values.items())
        facts = (settings.get(part, {}) for part in ("versions", "machine", "classes"))
        sound = sound and all(isinstance(text, str | int) for part in facts for text in part.values())
        sound = sound and isinstance(settings.get("val_psnr"), float | None) and _is_known(settings.get("run", {}))
    except (KeyError, TypeError, AttributeError):
        sound = False
    if not sound:
        raise UserError(f"{path}: its settings are not those of a run of ours")
    return settings


def _weights_in(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    weights = checkpoint.get("state_dict", checkpoint)
    if not isinstance(weights, Mapping) or not all(isinstance(value, Tensor) for value in weights.values()):
        return {}
    # Our LightningModule puts "net." in front, DataParallel "module.", torch.compile "_orig_mod.".
    prefix = r"net\." if "srcnn" in checkpoint else r"(net\.|module\.|_orig_mod\.)+"
    return {re.sub(f"^{prefix}", "", str(key)): value for key, value in weights.items()}


def progress(path: str | os.PathLike, checkpoint: Mapping[str, Any]) -> tuple[int, int]:
    """Epochs and steps that the run of a checkpoint had done."""
    try:
        epochs = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
        return int(epochs), int(checkpoint["global_step"])
    except (KeyError, TypeError, ValueError, OverflowError):
        raise UserError(f"{path}: does not say how far its run had come") from None


def inexact(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What keeps a run with the settings `now` from going on bit for bit from a checkpoint with those of `then`."""
    free = {"trainer.max_steps"}
    if now["values"].get("scheduler.schedule.shape", now["choices"].get("scheduler")) in ("none", "multistep"):
        free.add("trainer.max_epochs")  # the schedule does not depend on the run's length
    return [
        key
        for part in ("versions", "machine", "values")
        for key, value in now.get(part, {}).items()
        if then.get(part, {}).get(key) != value and key not in free and not key.startswith("callbacks.")
    ]


def finished(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """What is known of the run that has ended in this folder, if it had these settings."""
    try:
        run = load_checkpoint(folder / "weights.pth")["srcnn"]
        return run["run"] if run["values"] == settings["values"] else None
    except (UserError, LookupError, TypeError):
        return None


def resume_in(folder: Path, settings: Mapping[str, Any]) -> Path | None:
    """The checkpoint from which the run with these settings goes on in this folder; None if there is none yet."""
    if (found := newest_checkpoint(folder)) is None:
        return None
    path, _ = found
    saved = settings_in(path, load_checkpoint(path)) or {"choices": {}, "values": {}}
    then, now = ({**s["choices"], **s["values"]} for s in (saved, settings))
    if other := [key for key in now if then.get(key) != now[key]]:
        key = other[0]
        raise UserError(f"{folder}: holds a run with {key}={then.get(key)}, not {now[key]}; take another folder")
    return path


def load_weights(net: Network, path: str | os.PathLike, checkpoint: Mapping[str, Any]) -> Network:
    """Put a checkpoint's weights into a network; UserError that names the keys where they don't fit."""
    weights, own = _weights_in(checkpoint), net.state_dict()
    wrong = [f"{key} is missing" for key in own if key not in weights]
    wrong += [f"{key} is not the network's" for key in weights if key not in own]
    wrong += [
        f"{key} is {_shape(weights[key])} instead of {_shape(own[key])}"
        for key in own
        if key in weights and weights[key].shape != own[key].shape
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise UserError(f"{path}: its weights do not fit this network: {'; '.join(wrong[:3])}{more}")
    if any(parameter.is_meta for parameter in net.parameters()):
        net.to_empty(device="cpu")
    net.load_state_dict(weights)
    return net


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"


def load_network(ckpt_path: str | os.PathLike | None, scale: int | None = None) -> tuple[Network, dict[str, Any]]:
    """The network that a checkpoint holds (see `find_checkpoint`), and the checkpoint.

    `scale` chooses among our weights, and is for a bare state_dict that does not tell (3).
    """
    if scale is not None and not 2 <= scale <= 8:
        raise UserError(f"scale={scale}: must be between 2 and 8")
    path = find_checkpoint(ckpt_path, scale)
    checkpoint = load_checkpoint(path)
    settings = settings_in(path, checkpoint)
    if settings:
        net = build_network(path, settings)
        if scale not in (None, net.scale):
            raise UserError(f"scale={scale}, but {path} was trained for scale {net.scale}: leave scale= out")
    else:
        net = _infer_network(path, _weights_in(checkpoint), scale)
    return load_weights(net, path, checkpoint).eval(), checkpoint


def build_network(path: str | os.PathLike, settings: Mapping[str, Any]) -> Network:
    """The network that `settings_in` a checkpoint describe, its class taken from this clone's configs/model."""
    try:
        values = settings["values"]
        if type(values["scale"]) is not int or not 2 <= values["scale"] <= 8:
            raise ValueError(f"scale {values['scale']}")
        model = _model_config(settings["choices"]["model"])
        arguments = {key.removeprefix("model."): value for key, value in values.items() if key.startswith("model.")}
        with torch.device("meta"):  # without memory, until its weights are known to fit
            return instantiate(model, **(arguments | {"scale": values["scale"]}), _convert_="all")
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: this clone cannot build the network it describes ({reason})") from None


def _model_config(name: str) -> DictConfig:
    """configs/model/NAME.yaml with what it builds on; within a Hydra job or without."""
    inside = GlobalHydra.instance().is_initialized()
    with nullcontext() if inside else initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose(f"model/{name}").model


def _infer_network(path: str | os.PathLike, weights: Mapping[str, Tensor], scale: int | None) -> Network:
    """The network of a bare state_dict of three convolutions, from their shapes."""
    try:
        shapes = [weights[f"conv{i}.weight"].shape for i in (1, 2, 3)]
        channels, out = shapes[0][1], shapes[2][0]
        if channels not in (1, 3):
            raise ValueError(f"{channels} channels")
        shape: dict[str, Any] = {"channels": channels}
        shape |= {"kernels": [s[-1] for s in shapes], "widths": [s[0] for s in shapes[:2]]}
        with torch.device("meta"):
            net = SRCNN(scale or 3, **shape) if out == channels else ESPCN(math.isqrt(out // channels), **shape)
    except Exception:
        raise UserError(f"{path}: bare weights of a network unknown here; give a .ckpt, which describes it") from None
    if scale not in (None, net.scale):
        raise UserError(f"scale={scale}, but the shapes in {path} are those of a network for scale {net.scale}")
    return net
