"""Score networks on named image sets, folders, or pairs of LR and HR, beside bicubic.

    python -m srcnn.evaluate                                        our weights on Set5; scale=2 | 3 | 4
    python -m srcnn.evaluate ckpt_path=CKPT                         on what its training was to be tested on
    python -m srcnn.evaluate ckpt_path=CKPT data.test=[Set5,Set14] protocol=basicsr
    python -m srcnn.evaluate ckpt_path=CKPT data.test_hr=HR data.test_lr=LR     on your own LR images
    python -m srcnn.evaluate degradation=camera                     on blurred, noisy, compressed LR
    python -m srcnn.evaluate ckpt_path=[A,B,srcnn_x3] data.test=[Set5,Set14]    beside each other, with differences
    python -m srcnn.evaluate sr=FOLDER hr=HR scale=3                anybody's results, without a network

Prints a table per set and writes report.html, scores.csv, scores.json and comparison.png into a folder below outputs/,
or output=.
"""

import re
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor

from srcnn import report
from srcnn.checkpoint import find_checkpoint, load_network
from srcnn.data.datamodule import SRDataModule
from srcnn.data.degrade import Bicubic, Degradation, Given
from srcnn.data.samples import Sample
from srcnn.device import device_of
from srcnn.errors import UserError, check_choice
from srcnn.files import list_images, read_image
from srcnn.image import as_float, to_uint8
from srcnn.inference.image_file import write_image
from srcnn.inference.tiles import super_resolve
from srcnn.launch import CONFIGS, command, make_folder
from srcnn.metrics import find_protocol
from srcnn.nets import Network

Loaded = Mapping[Path, tuple[Network, Mapping[str, Any]]]  # networks and checkpoints, by path


def evaluate(cfg: Any) -> None:
    """Score the checkpoints of cfg.ckpt_path, one or a list, and the folders of images of cfg.sr."""
    names = _as_list(cfg.ckpt_path) or ([] if cfg.sr else [None])
    score_sets(cfg, {find_checkpoint(name, cfg.scale): load_network(name, cfg.scale) for name in names})


def score_sets(cfg: Any, loaded: Loaded, with_images: bool = False) -> None:
    """Super-resolve the test images, score and show the result; `with_images` writes each image (for predict.py)."""
    scale, *others = {net.scale for net, _ in loaded.values()} or {cfg.scale}
    if others:
        raise UserError(f"ckpt_path={cfg.ckpt_path}: networks of different scales cannot be compared")
    if scale is None:
        raise UserError("sr= needs scale=, by how much the images were enlarged")
    protocol, device = find_protocol(cfg.protocol), device_of(cfg.trainer.accelerator)
    samples, degradation = test_images(cfg, [checkpoint["run"] for _, checkpoint in loaded.values()], scale)
    command_name = "predict" if with_images else "evaluate"
    default = f"outputs/{datetime.now().strftime('%Y-%m-%d/%H-%M-%S-%f')}-{command_name}"
    folder = Path(cfg.output or default).expanduser()
    make_folder("output", folder)
    facts, results = {"protocol": cfg.protocol, "degradation": degradation}, []
    for path, (net, checkpoint) in loaded.items():
        upscale, scores = partial(super_resolve, net.to(device)), []
        for lr, hr, name, image_set in samples:
            scores.append((image_set, name, protocol.evaluate(upscale, lr.to(device), hr, net.channels)))
            if with_images:
                sr = to_uint8(upscale(as_float(lr).to(device)))[0].cpu()
                write_image(folder / image_set / f"{name}_x{scale}.png", sr)
        log = next(filter(Path.is_file, [parent / "metrics.csv" for parent in path.absolute().parents[:2]]), None)
        results.append(report.network_result(net, scores, facts | {"checkpoint": str(path)}, checkpoint["run"], log))
    for name in _as_list(cfg.get("sr")):
        images = read_results(Path(name), samples, scale)
        scores = [(s.image_set, s.name, protocol.compare(images[s.name], s.lr, s.hr)) for s in samples]
        found = {"network": Path(name).name, "scale": scale, **facts, "checkpoint": name}
        results.append(report.TestResult(found, scores, partial(lambda images, s: as_float(images[s.name]), images)))
    again = ["predict.py"] if with_images else ["-m", "srcnn.evaluate"]
    again += [word for word in sys.argv[1:] if not word.startswith("output=")]
    report.write(folder, results, samples, again)
    if with_images:
        print(f"images      {folder}")


def test_images(cfg: Any, runs: Sequence[Mapping[str, Any]], scale: int) -> tuple[list[Sample], str]:
    """The images that the settings name, or else the first run's, and how their LR images are made."""
    data: Any = OmegaConf.to_container(cfg.data, resolve=True)
    trained = runs[0].get("settings", {}).get("data", {}) if runs else {}
    hr, lr = data.get("test_hr") or cfg.get("hr"), data.get("test_lr")
    sets = _as_list(cfg.get("hr") or data["test"] or trained.get("test") or "Set5")
    if lr and hr:
        sets, trained = ["pairs"], {"test_hr": hr, "test_lr": lr}
    elif lr or data.get("test_hr") or ("pairs" in sets and trained.get("train") != "pairs"):
        raise UserError("pairs of your own: name both folders, data.test_hr= and data.test_lr=")
    made = [Given()] if lr else [_degradation(cfg.degradation, run, sets) for run in runs or [{}]]
    degradations = {degradation.describe(): degradation for degradation in made}
    if len(degradations) > 1:
        trained_for = " and ".join(degradations)
        raise UserError(f"ckpt_path={cfg.ckpt_path}: trained for {trained_for}: choose by degradation= what to test on")
    ((described, degradation),) = degradations.items()
    own = ("_target_", "scale", "degradation", "test")
    options = {key: value for key, value in trained.items() if key not in own} | {"root": data["root"]}
    module = SRDataModule(scale, degradation, test=sets, **options)
    module.setup("test")
    return module.testing, described


def _degradation(name: str | None, run: Mapping[str, Any], sets: Sequence[str]) -> Degradation:
    """The degradation of this name in configs/degradation, or else the one that the checkpoint was trained for."""
    known: dict[str, Any] = {path.stem: OmegaConf.load(path) for path in (CONFIGS / "degradation").glob("*.yaml")}
    settings = run.get("settings", {}).get("degradation")
    if name is not None:
        check_choice("degradation", name, tuple(sorted(known.keys() - {"none"})))
        settings = known[name]
    elif not settings:
        settings = known["bicubic"]
    elif settings["_target_"] not in [one._target_ for one in known.values()]:
        module, _, class_name = settings["_target_"].rpartition(".")
        found = getattr(sys.modules.get(module), class_name, None)  # nothing is imported because a file names it
        if not (isinstance(found, type) and issubclass(found, Degradation)):
            remedy = "name its module by imports=[…], or another degradation="
            raise UserError(f"the weights were trained for {settings['_target_']}, which is not known here: {remedy}")
    made = instantiate(settings, _convert_="all", _recursive_=False)
    return Bicubic() if isinstance(made, Given) and "pairs" not in sets else made


def read_results(folder: Path, samples: Sequence[Sample], scale: int) -> dict[str, Tensor]:
    """Of every test image its SR image in a folder, of that name, perhaps with x3 or _x3 behind it: uint8, cropped."""
    if not folder.is_dir():
        raise UserError(f"sr={folder}: no such folder")
    files = {unicodedata.normalize("NFC", path.stem): path for path in list_images(folder)}
    files = {re.sub(rf"(_?x{scale})+$", "", stem): path for stem, path in files.items()} | files
    images = {}
    for sample in samples:
        name, (height, width) = unicodedata.normalize("NFC", sample.name), sample.hr.shape[-2:]
        if name not in files:
            raise UserError(f"sr={folder}: has no image of {sample.name}")
        image = read_image(files[name])[None]
        rows, columns = image.shape[-2:]
        if not (0 <= rows - height < scale and 0 <= columns - width < scale):
            raise UserError(f"{files[name]}: {columns}x{rows} pixels, where HR at x{scale} has {width}x{height}")
        images[sample.name] = image[..., :height, :width]
    return images


def _as_list(value: Any) -> list[Any]:
    return [] if value is None else [value] if isinstance(value, str) else list(value)


def main() -> None:
    as_for_train = {"data=pairs": "data.test=[pairs]"}
    sys.argv = [as_for_train.get(word, word) for word in sys.argv]
    command(evaluate, "evaluate")


if __name__ == "__main__":
    main()
