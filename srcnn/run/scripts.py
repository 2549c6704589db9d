"""The commands srcnn-train and srcnn-predict: the scripts of the clone or, in a wheel, those in srcnn/scripts/."""

import runpy
from pathlib import Path

_CLONE, _WHEEL = Path(__file__).parents[2], Path(__file__).parents[1] / "scripts"


def train() -> None:
    _run("train.py")


def predict() -> None:
    _run("predict.py")


def _run(name: str) -> None:
    runpy.run_path(str((_WHEEL if _WHEEL.is_dir() else _CLONE) / name), run_name="__main__")
