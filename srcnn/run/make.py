"""Objects from settings: what the `_target_` of a group makes of its keys."""

import inspect
import traceback
from importlib import import_module
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from srcnn.errors import UserError

_LIBRARIES = ("torch", "lightning", "torchmetrics", "lightning_utilities", "tensorboard")


def make(group: str, settings: Any, *arguments: Any, **given: Any) -> Any:
    """What the `_target_` of a group makes of its settings; nested settings with a `_target_` are made first.

    A wrong setting is a UserError that names the group: an argument that the class does not take, what its constructor
    refuses by UserError, and what a class of torch or Lightning refuses. Every other error is a bug in the class, and
    leaves with its own traceback.
    """
    settings = plain(settings)
    target = find_class(group, settings.get("_target_"))
    values = {key: _make_nested(f"{group}.{key}", v) for key, v in settings.items() if not key.startswith("_")}
    try:
        return target(*arguments, **values, **given)
    except UserError as error:
        prefix = f"{group}." if str(error).partition("=")[0] in values else ""
        raise type(error)(f"{prefix}{error}") from error.__cause__
    except Exception as error:
        if is_of_libraries(error):
            raise UserError(f"{group} settings: {error}") from error
        raise


def is_of_libraries(error: BaseException, *ours: str) -> bool:
    """Whether an error was raised in torch or Lightning, called from here, with no one's code between but `ours`.

    That it has no frame of theirs means that the call itself failed, on an argument that a class does not take.
    """
    names = [frame.f_globals["__name__"] for frame, _ in traceback.walk_tb(error.__traceback__)][1:]
    return all(name in ours or name.split(".")[0] in _LIBRARIES for name in names)


def _make_nested(group: str, value: Any) -> Any:
    if isinstance(value, dict):
        if "_target_" in value:
            return make(group, value)
        return {key: _make_nested(f"{group}.{key}", item) for key, item in value.items()}
    return [_make_nested(group, item) for item in value] if isinstance(value, list) else value


def find_class(group: str, target: Any) -> Any:
    """The class or function that a `_target_` names."""
    path, _, name = (target or "").rpartition(".")
    if not path:
        raise UserError(f"{group}._target_={target}: must be the full name of a class, as torch.nn.L1Loss")
    try:
        module = import_module(path)
    except ModuleNotFoundError as error:
        if not f"{path}.".startswith(f"{error.name}."):  # it is there, and what it imports is not
            raise
        raise UserError(f"{group}._target_={target}: there is no module {error.name}") from error
    if not hasattr(module, name):
        raise UserError(f"{group}._target_={target}: module {path} has no {name}")
    return getattr(module, name)


def make_all(group: str, parts: Any, **given: Any) -> list[Any]:
    """The callbacks or loggers of a group, `given` to those that take it; a part that is null, or has no class, is
    left out."""
    made = []
    for key, part in parts.items():
        if part is None or part.get("_target_", "") is None:
            continue
        target = find_class(f"{group}.{key}", part.get("_target_"))
        takes = inspect.signature(target).parameters
        made.append(make(f"{group}.{key}", part, **{name: v for name, v in given.items() if name in takes}))
    return made


def plain(settings: Any) -> Any:
    """Settings as plain Python, which is what the code below the entry takes."""
    return OmegaConf.to_container(settings, resolve=True) if isinstance(settings, DictConfig | ListConfig) else settings
