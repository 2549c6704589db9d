"""Super-resolve images with a trained network.

    python predict.py input=photo.png                            writes photo_x3.png beside it; scale=2 | 3 | 4
    python predict.py ckpt_path=CKPT input=lr.bmp                with a network of your own
    python predict.py input=folder output=larger                 every image in it and below; or a glob, as 'in/*.jpg'
    python predict.py input=folder output=larger reference=HR    with PSNR and SSIM against images of the same names
    python predict.py ckpt_path=CKPT                             its test set, shrunk and super-resolved, with scores

CKPT is a .ckpt or weights.pth of train.py, a name in srcnn/weights (srcnn_x2), or a bare state_dict (.pth;
scale= if it is not 3). An image comes back as what it was: format, gray or colour, alpha, 16 bits, ICC profile, EXIF.
What is done already is left alone (overwrite=true), so an interrupted run goes on; a bad file is reported and skipped.
"""

import os
import signal

if __name__ == "__main__":
    for _number in (signal.SIGINT, signal.SIGTERM):  # while the libraries load, there is nothing to put in order
        signal.signal(_number, lambda number, _: os._exit(128 + number))

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from glob import glob, has_magic
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch
from omegaconf import DictConfig
from torch import Tensor
from tqdm import tqdm

from srcnn import evaluate, report
from srcnn.check import check_device, check_output, check_protocol, device_of
from srcnn.checkpoint import find_checkpoint, load_network
from srcnn.command import command
from srcnn.config import plain
from srcnn.data.datamodule import read_sets
from srcnn.errors import UserError
from srcnn.files import (
    EXTENSIONS,
    Picture,
    ending_of,
    is_image_name,
    read_image,
    read_picture,
    walk_images,
    write_image,
    write_picture,
)
from srcnn.image import as_float, bicubic_down, modcrop, quantize, to_uint8
from srcnn.metrics import PROTOCOLS, Score
from srcnn.nets import Network
from srcnn.upscale import SelfEnsemble, enlarge, super_resolve


class Job(NamedTuple):
    """An image file to read, and the file to write but for its ending, which what is in the source decides."""

    source: Path
    target: Path
    fixed: bool = False  # the target is named by the user, ending and all

    def written(self) -> Path:
        return self.target if self.fixed else self.target.with_name(self.target.name + ending_of(self.source))


def check(cfg: DictConfig) -> None:
    """What can be known to be wrong before anything is computed."""
    if cfg.input is None:
        return evaluate.check(cfg)
    check_protocol(cfg)
    check_device(cfg.trainer.accelerator, cfg.trainer.devices, cfg.trainer.num_nodes)
    net, _ = load_network(cfg.ckpt_path, cfg.scale)
    check_output(str(Path(cfg.output).parent) if _is_file_name(cfg.output) else cfg.output)
    jobs = find_jobs(cfg.input, cfg.output, net.scale)
    if Path(cfg.input).is_file():
        read_picture(jobs[0].source, cfg.max_pixels)
    if cfg.reference and not Path(cfg.reference).is_dir():
        raise UserError(f"reference={cfg.reference}: no such folder")


def _is_file_name(output: str | None) -> bool:
    return bool(output) and Path(str(output)).suffix.lower() in EXTENSIONS and not Path(str(output)).is_dir()


def find_jobs(source: str, output: str | None, scale: int) -> list[Job]:
    """Each image to read and where to write: the tree of a folder is kept; what an earlier run wrote is no input."""
    ending = f"_x{scale}"
    root = Path(source)
    if root.is_file():
        if _is_file_name(output):
            assert output
            if Path(output).resolve() == root.resolve():
                raise UserError(f"output={output} is the input itself: name another file")
            return [Job(root, Path(output), fixed=True)]
        root, paths = root.parent, [root]
    elif root.is_dir():
        paths = list(walk_images(root))
    elif has_magic(source):
        paths = sorted(path for path in map(Path, glob(source, recursive=True)) if is_image_name(path))
        root = Path(source.split("*")[0].split("?")[0].split("[")[0] + "x").parent
    else:
        raise UserError(f"input={source}: no such file or folder")
    if _is_file_name(output):
        raise UserError(f"output={output}: one file for what may be many; name a folder")
    if not Path(source).is_file():
        into = Path(output).resolve() if output else None
        paths = [p for p in paths if not (p.stem.endswith(ending) and (into is None or into in p.resolve().parents))]
    if not paths:
        raise UserError(f"no image files to enlarge in {source}")
    stems = Counter(path.with_suffix("") for path in paths)
    jobs = []
    for path in paths:
        name = path.stem if stems[path.with_suffix("")] == 1 else path.name
        folder = Path(output) / path.parent.relative_to(root) if output else path.parent
        jobs.append(Job(path, folder / f"{name}{ending}"))
    return jobs


class Enlarger(L.LightningModule):
    """A network at work on files, one after the other; what goes wrong with one is noted."""

    def __init__(self, net: Network, reference: str | None):
        super().__init__()
        self.net, self.reference = net, reference and Path(reference)
        self.references: dict[str, list[Path]] = {}
        for path in walk_images(reference) if reference else ():
            self.references.setdefault(path.stem, []).append(path)
        self.writer = ThreadPoolExecutor(1)  # while the next image is computed
        self.writing: Future | None = None
        self.failed: list[str] = []
        self.scores: list[tuple[str, str, Score]] = []
        self.shown: list[report.Shown] = []

    def predict_step(self, batch: tuple[Job, Any]) -> None:
        job, read = batch
        try:
            item = read()
            if item is None:
                return
            path, picture = item
            larger = enlarge(self.net, picture)
            self.finish()
            self.writing = self.writer.submit(write_picture, path, larger)
            if self.reference:
                self._compare(job, picture, larger)
        except UserError as error:
            self.note(error)

    def finish(self) -> None:
        """Wait for the file being written."""
        writing, self.writing = self.writing, None
        try:
            if writing:
                writing.result()
        except (UserError, OSError) as error:
            self.note(error)

    def note(self, error: Exception) -> None:
        self.failed.append(str(error))
        tqdm.write(f"skipped: {error}", file=sys.stderr)

    def _compare(self, job: Job, picture: Picture, larger: Picture) -> None:
        assert self.reference
        name = job.source.stem
        found = self.references.get(name, [])
        if len(found) != 1 or len(picture.colour) == 4:
            what = "CMYK" if len(picture.colour) == 4 else f"{len(found)} images of that name in {self.reference}"
            raise UserError(f"{job.source}: {what}; enlarged, but not scored")
        hr = read_image(found[0])[None].float() / 255
        lr, sr = (as_float(image.colour[None]) for image in (picture, larger))
        height, width = sr.shape[-2:]
        if not (0 <= hr.shape[-2] - height < self.net.scale and 0 <= hr.shape[-1] - width < self.net.scale):
            size = f"{hr.shape[-1]}x{hr.shape[-2]} pixels where {width}x{height} were made"
            raise UserError(f"{found[0]}: {size}; {job.source} is enlarged, but not scored")
        hr = hr[..., :height, :width]
        score = PROTOCOLS["basicsr"].compare(quantize(lr), quantize(sr), hr)
        self.scores.append((self.reference.name, name, score))
        if len(self.shown) < 5:
            self.shown.append((name, _rgb(lr), _rgb(sr), _rgb(hr), score))


def _rgb(image: Tensor) -> Tensor:
    return image.expand(-1, 3, -1, -1)


class Reader:
    """The files of this process's share, each read while the one before is computed."""

    def __init__(self, jobs: Sequence[Job], trainer: L.Trainer, max_pixels: int, overwrite: bool):
        self.jobs = jobs[trainer.global_rank :: trainer.world_size]
        self.max_pixels, self.overwrite = max_pixels, overwrite
        self.show_progress = len(jobs) > 1 and trainer.is_global_zero and sys.stderr.isatty()
        self.done_before = 0

    def __len__(self) -> int:
        return len(self.jobs)

    def __iter__(self) -> Iterator[tuple[Job, Any]]:
        with ThreadPoolExecutor(1) as pool:
            ahead = [pool.submit(self._read, job) for job in self.jobs[:2]]
            for number, job in enumerate(tqdm(self.jobs, unit="image", disable=not self.show_progress)):
                yield job, ahead.pop(0).result
                ahead += [pool.submit(self._read, following) for following in self.jobs[number + 2 : number + 3]]

    def _read(self, job: Job) -> tuple[Path, Picture] | None:
        path = job.written()
        if path.exists() and not self.overwrite:
            self.done_before += 1
            return None
        return path, read_picture(job.source, self.max_pixels)


def predict(cfg: DictConfig) -> None:
    net, checkpoint = load_network(cfg.ckpt_path, cfg.scale)
    if cfg.self_ensemble:
        net = SelfEnsemble(net)
    if cfg.input is None:
        return predict_sets(cfg, net.to(device_of(cfg.trainer.accelerator)), checkpoint)
    jobs = find_jobs(cfg.input, cfg.output, net.scale)
    module = Enlarger(net, cfg.reference)
    quiet: dict[str, Any] = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
    trainer = L.Trainer(**plain(cfg.trainer), **quiet, enable_model_summary=False)
    # Who names one file wants it done; of a folder, what is missing.
    reader = Reader(jobs, trainer, cfg.max_pixels, cfg.overwrite or Path(cfg.input).is_file())
    trainer.predict(module, reader, return_predictions=False)
    module.finish()
    failed, before, scores = (_of_all(x) for x in (module.failed, [reader.done_before], module.scores))
    if trainer.is_global_zero:
        made = len(jobs) - len(failed) - sum(before)
        known = f", {sum(before)} were there already" if sum(before) else ""
        print(f"{made} of {len(jobs)} images enlarged x{net.scale}{known}; in {jobs[0].target.parent}")
        if failed:
            print(f"not done, {len(failed)}:\n  " + "\n  ".join(failed), file=sys.stderr)
        if scores:
            folder = Path(cfg.output or cfg.run_dir)
            facts = {"protocol": "basicsr", "checkpoint": str(find_checkpoint(cfg.ckpt_path, cfg.scale))}
            report.write_scores(folder, scores, facts)
            report.write_comparison(folder / "comparison.png", net, module.shown)
            print(f"\n{report.table(scores, net, 'basicsr')}\n\npicture   {folder / 'comparison.png'}")
    if failed:
        sys.exit(1)


def _of_all(items: list) -> list:
    """The lists of all processes as one."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return items
    everyone: list[list] = [[] for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather_object(everyone, items)
    return [item for items in everyone for item in items]


def predict_sets(cfg: DictConfig, net: Network, checkpoint: dict) -> None:
    """Shrink the test images, super-resolve them, and score and show the result."""
    folder = Path(cfg.output or cfg.run_dir)
    samples = read_sets(evaluate.test_sets(cfg, checkpoint), cfg.data.root, net.scale)
    for sample in samples:
        hr = modcrop(sample.hr[None].to(next(net.parameters()).device).float() / 255, net.scale)
        sr = super_resolve(net, quantize(bicubic_down(hr, net.scale)))
        write_image(folder / sample.image_set / f"{sample.name}_x{net.scale}.png", to_uint8(sr)[0])
    evaluate.evaluate(net, samples, cfg, checkpoint, folder)
    print(f"images    {folder}")


if __name__ == "__main__":
    command(predict, "predict", check)
