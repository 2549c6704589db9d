"""Super-resolve images with a trained network.

    python predict.py input=photo.png                            writes photo_x3.png beside it; scale=2 | 3 | 4
    python predict.py ckpt_path=CKPT input=lr.bmp                with a network of your own
    python predict.py input=folder output=larger                 every image of a folder
    python predict.py ckpt_path=CKPT                             its test set, shrunk and super-resolved, with scores

CKPT is a .ckpt or weights.pth of train.py, a name in srcnn/weights (srcnn_residual_x3), or a bare state_dict (.pth;
scale= if it is not 3).
"""

import sys
from pathlib import Path

from omegaconf import DictConfig
from tqdm import tqdm

from srcnn import evaluate
from srcnn.checkpoint import load_network
from srcnn.config import check_device, check_output, check_protocol, command, device_of
from srcnn.data.datamodule import read_sets
from srcnn.errors import UserError
from srcnn.files import EXTENSIONS, distinct_names, list_images, read_image, write_image
from srcnn.image import bicubic_down, modcrop, quantize, to_uint8
from srcnn.nets import Network
from srcnn.upscale import super_resolve


def check(cfg: DictConfig) -> None:
    """What can be known to be wrong before anything is computed."""
    if cfg.input is None:
        return evaluate.check(cfg)
    check_protocol(cfg)
    check_device(cfg.trainer.accelerator)
    net, _ = load_network(cfg.ckpt_path, cfg.scale)
    is_image = cfg.output and Path(cfg.output).suffix.lower() in EXTENSIONS
    check_output(str(Path(cfg.output).parent) if is_image else cfg.output)
    jobs = files_to_do(Path(cfg.input), cfg.output and Path(cfg.output), net.scale)
    if Path(cfg.input).is_file():
        read_image(jobs[0][0])


def files_to_do(source: Path, output: Path | None, scale: int) -> list[tuple[Path, Path]]:
    """Each image to read and the file to write; what an earlier run wrote beside its input is no input."""
    ending = f"_x{scale}"
    if source.is_dir():
        paths = [path for path in list_images(source) if output or not path.stem.endswith(ending)]
        if not paths:
            raise UserError(f"no image files to enlarge in {source}")
    elif source.is_file():
        paths = [source]
        if output and output.suffix.lower() in EXTENSIONS:
            if output.resolve() == source.resolve():
                raise UserError(f"output={output} is the input itself: name another file")
            return [(source, output)]
    else:
        raise UserError(f"input={source}: no such file or folder")
    names = zip(paths, distinct_names(paths), strict=True)
    return [(path, (output or path.parent) / f"{name}{ending}.png") for path, name in names]


def predict(cfg: DictConfig) -> None:
    net, checkpoint = load_network(cfg.ckpt_path, cfg.scale)
    net.to(device_of(cfg.trainer.accelerator))
    if cfg.input is None:
        return predict_sets(cfg, net, checkpoint)
    failed = []
    jobs = files_to_do(Path(cfg.input), cfg.output and Path(cfg.output), net.scale)
    for source, target in tqdm(jobs, unit="image", disable=len(jobs) == 1 or not sys.stderr.isatty()):
        try:
            enlarge(net, source, target)
        except UserError as error:
            failed.append(error)
            print(f"skipped: {error}", file=sys.stderr)
    print(f"{len(jobs) - len(failed)} of {len(jobs)} images enlarged x{net.scale}; in {jobs[0][1].parent}")
    if failed:
        sys.exit(1)


def enlarge(net: Network, source: Path, target: Path) -> None:
    """One file in, one file out, `net.scale` times larger."""
    lr = read_image(source)[None].to(next(net.parameters()).device).float() / 255
    write_image(target, to_uint8(super_resolve(net, lr))[0])


def predict_sets(cfg: DictConfig, net: Network, checkpoint: dict) -> None:
    """Shrink the test images, super-resolve them, and score and show the result."""
    folder = Path(cfg.output or cfg.run_dir)
    samples = read_sets(evaluate.test_sets(cfg, checkpoint), cfg.data.root, net.scale)
    for sample in samples:
        hr = modcrop(sample.hr[None].to(next(net.parameters()).device).float() / 255, net.scale)
        sr = super_resolve(net, quantize(bicubic_down(hr, net.scale)))
        write_image(folder / sample.image_set / f"{sample.name}_x{net.scale}.png", to_uint8(sr)[0])
    evaluate.evaluate(net, samples, cfg.protocol, folder, {"checkpoint": str(cfg.ckpt_path)})
    print(f"images    {folder}")


if __name__ == "__main__":
    command(predict, "predict", check)
