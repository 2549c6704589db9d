"""What surrounds a run: the command line, settings, checkpoints, callbacks."""

from pathlib import Path

_CLONE, _WHEEL = (Path(__file__).parents[number] / "configs" for number in (2, 1))
CONFIGS = _WHEEL if _WHEEL.is_dir() else _CLONE  # the YAML files of all settings
