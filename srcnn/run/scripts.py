"""The commands srcnn-train and srcnn-predict: the scripts of the clone or, in a wheel, those in srcnn/scripts/."""

import runpy
from pathlib import Path

_CLONE, _WHEEL = Path(__file__).parents[2], Path(__file__).parents[1] / "scripts"
_SCRIPTS = _WHEEL if _WHEEL.is_dir() else _CLONE


def train() -> None:
    runpy.run_path(str(_SCRIPTS / "train.py"), run_name="__main__")


def predict() -> None:
    runpy.run_path(str(_SCRIPTS / "predict.py"), run_name="__main__")
