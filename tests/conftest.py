"""What the tests share: small generated images, the real ones where they are, and commands run as a user runs them."""

import csv
import io
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # for train.py
os.environ["OMP_NUM_THREADS"] = "1"  # several tests run at once
os.environ["SRCNN_CACHE"] = str(Path(tempfile.gettempdir()) / f"srcnn-tests-{os.getuid()}")  # not the user's

import predict
import train
from srcnn import evaluate, inspect_ckpt, launch
from srcnn.data.leaves import dead_leaves
from srcnn.data.sets import SETS
from srcnn.inference.image_file import write_image

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("SRCNN_DATA", ROOT / "data"))

# Settings of a run on three generated images, three steps an epoch, in this process or another: a second.
SMALL = [
    "data=leaves", "data.leaves.count=3", "data.leaves.size=64", "data.hold_out=1", "data.test=[leaves]",
    "data.patch_size=24", "data.stride=12", "data.batch_size=8", "trainer.accelerator=cpu", "trainer.max_epochs=1",
]  # fmt: skip


def needs(name: str) -> pytest.MarkDecorator:
    """Skip where an image set is not on this machine."""
    found = any((DATA / folder).is_dir() for folder in SETS[name].folders)
    return pytest.mark.skipif(not found, reason=f"{name} is not in {DATA} (set SRCNN_DATA)")


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of eight generated images of 64x64 pixels."""
    folder = tmp_path_factory.mktemp("images")
    for number, image in enumerate(dead_leaves(8, 64, seed=1)):
        write_image(folder / f"image{number}.png", image)
    return folder


def tiny_settings(images: Path) -> list[str]:
    """Settings of a run that takes a second: seven batches an epoch."""
    return [
        "data=folder", f"data.train_dir={images}", f"data.test=[{images}]", "data.hold_out=2", "data.batch_size=8",
        "trainer.accelerator=cpu", "trainer.log_every_n_steps=1", "trainer.max_epochs=1",
    ]  # fmt: skip


@pytest.fixture(scope="session")
def tiny(images: Path) -> list[str]:
    return tiny_settings(images)


def run(*arguments: str | Path, cwd: Path, code: int = 0, env: dict[str, str] | None = None) -> str:
    """A command as a user types it, in a folder; returns what it prints on stdout and then stderr.

    All but export run in this process, which saves them the imports, unless they start others or get an environment.
    """
    words = [*map(str, arguments)]
    name = words[1] if words[0] == "-m" else words[0]
    if name in _HERE and env is None and not any("devices=2" in word for word in words):
        returned, output, errors = _run_here(_HERE[name], words[words.index(name) :], cwd)
    else:
        path = [str(ROOT / words[0]) if words[0].endswith(".py") else words[0]]
        command = [sys.executable, *path, *words[1:]]
        environment = {**os.environ, **(env or {})}
        done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)
        returned, output, errors = done.returncode, done.stdout, done.stderr
    assert returned == code, f"{words}\nexit code {returned}\n{output}\n{errors}"
    if code == 2:
        assert "Traceback" not in errors
        assert errors.count("error:") == 1, errors
    return output + errors


def _train() -> None:
    launch.prepare()
    train.main()


_HERE = {
    "train.py": _train, "predict.py": predict.main, "srcnn.evaluate": evaluate.main,
    "srcnn.inspect_ckpt": inspect_ckpt.main,
}  # fmt: skip


def _run_here(main: Callable[[], Any], words: list[str], cwd: Path) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command; signal handlers, arguments and path as they were after it."""
    output, errors, code = io.StringIO(), io.StringIO(), 0
    before, arguments = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}, (sys.argv, sys.path)
    sys.argv, sys.path = [str(ROOT / words[0]), *words[1:]], [*sys.path]
    try:
        with chdir(cwd), redirect_stdout(output), redirect_stderr(errors):
            main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        sys.argv, sys.path = arguments
        for number, handler in before.items():
            signal.signal(number, handler)
    return code, output.getvalue(), errors.getvalue()


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="session")
def trained(tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of two epochs."""
    cwd = tmp_path_factory.mktemp("trained")
    settings = ["trainer.max_epochs=2", "callbacks.checkpoint.every_n_epochs=1", "hydra.run.dir=run"]
    run("train.py", *tiny, *settings, cwd=cwd)
    return cwd / "run"


@pytest.fixture(scope="session")
def sweep(tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a sweep of four runs of two epochs, and what it printed."""
    cwd = tmp_path_factory.mktemp("sweep")
    settings = ["trainer.max_epochs=2", "optim.lr=1e-4,5e-3", "data.batch_size=8,16", "callbacks.crops.images=1"]
    output = run("train.py", "-m", *tiny, *settings, cwd=cwd)
    (folder,) = (cwd / "outputs").glob("*/*-sweep")
    return folder, output


# WebGPU without a GPU.
_SOFTWARE_GPU = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan")


@pytest.fixture(scope="session")
def playwright() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'")
    with sync_api.sync_playwright() as playwright:
        yield playwright


def start_browser(playwright: Any, *arguments: str) -> Any:
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    path = next(filter(None, map(shutil.which, names)), playwright.chromium.executable_path)
    if not Path(path).exists():
        pytest.skip("no Chromium on this machine: apt-get install chromium, or playwright install chromium")
    return playwright.chromium.launch(executable_path=path, args=["--no-sandbox", *arguments])


@pytest.fixture(scope="session")
def browser(playwright: Any) -> Iterator[Any]:
    browser = start_browser(playwright, *_SOFTWARE_GPU)
    yield browser
    browser.close()


def open_page(
    browser: Any, path: Path, width: int = 1280, scheme: str = "light", at: str = ""
) -> tuple[Any, list[str]]:
    """A page from disk with the network off, and what goes wrong on it or leaves the file."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
    page, faults = context.new_page(), []
    page.on("console", lambda message: faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    own = ("data:", "blob:", path.as_uri())
    page.on("request", lambda request: None if request.url.startswith(own) else faults.append(request.url))
    page.goto(path.as_uri() + at)
    return page, faults
