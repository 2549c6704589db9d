"""Enlarge images with a trained network.

    python predict.py photo.jpg                      writes photo_x3.jpg beside it; scale=2 | 3 | 4
    python predict.py photos                         every image in a folder and below, into photos_x3 beside it
    python predict.py a.jpg 'more/*.jpg' width=1920  several files; the width, or height=, instead of a scale
    python predict.py input=photos output=larger     into a folder of this name, or a file
    python predict.py ckpt_path=CKPT input=lr.bmp    with your network
    python predict.py ckpt_path=CKPT                 its test set, shrunk and super-resolved, with scores

CKPT is a .ckpt, weights.pth or folder of train.py, a name in srcnn/weights (srcnn_x2), or a bare state_dict (.pth). An
image comes back as what it was: format, gray or colour, alpha, 16 bits, ICC profile, EXIF. GIF, PPM, AVIF and JPEG 2000
become PNG, a.gif_x3.png. What is there already is kept; a bad file is skipped, and the exit code is 1.
"""

import signal
import sys
from typing import Any

from srcnn.device import device_of, has_amx
from srcnn.errors import UserError, check_choice, check_range
from srcnn.launch import command


def predict(cfg: Any) -> int:
    """Enlarge the images of cfg.input; 1, the exit code, if one of them could not be."""
    # Imported here, so that --help and a mistake in the settings do not wait for them.
    from srcnn.checkpoint import WEIGHTS, find_checkpoint, load_network
    from srcnn.inference.folder import enlarge_files, find_jobs, hint_at_camera
    from srcnn.inference.tiles import SelfEnsemble, for_inference, in_bf16
    from srcnn.nets import Compact

    for key in ("width", "height", "max_pixels"):
        check_range(key, 1 if cfg[key] is None else cfg[key], 1)
    for key in ("overwrite", "self_ensemble", "exact"):
        check_choice(key, cfg[key], (True, False))
    check_choice("precision", cfg.precision, ("auto", "32-true", "bf16-mixed"))
    sides = {key: int(cfg[key]) for key in ("width", "height") if cfg[key]}
    weights = find_checkpoint(cfg.ckpt_path, cfg.scale)
    net, checkpoint = load_network(weights, cfg.scale)
    device = device_of(cfg.trainer.accelerator)
    gains_by_bf16 = isinstance(net, Compact) and device.type == "cpu" and has_amx() and not cfg.exact  # docs/speed.md
    net = (SelfEnsemble(net) if cfg.self_ensemble else net).to(device)
    if len(sides) > 1 or (sides and (cfg.input is None or net.scale == 1)):
        raise UserError("width=, height=: give one of them, with an input=, for a network that enlarges")
    if cfg.input is None:
        from srcnn.evaluate import score_sets

        score_sets(cfg, {weights: (net, checkpoint)}, with_images=True)
        return 0
    inputs = [cfg.input] if isinstance(cfg.input, str | int | float) else cfg.input
    label = next((f"{key[0]}{side}" for key, side in sides.items()), f"x{net.scale}")
    jobs = find_jobs([*map(str, inputs)], cfg.output, label)
    net = net if cfg.exact else for_inference(net)
    if cfg.precision == "bf16-mixed" or (cfg.precision == "auto" and gains_by_bf16):
        net = in_bf16(net)
    counts, line = enlarge_files(net, jobs, cfg.overwrite, cfg.max_pixels, **sides)
    print(f"{line}, by {weights.stem if weights.parent == WEIGHTS else weights}")
    hint_at_camera(counts["compressed"], net.scale, checkpoint["run"].get("degradation", "bicubic"))
    return int(counts["skipped"] > 0)


def main() -> None:
    """The command `srcnn-predict`."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    command(predict, "predict")


if __name__ == "__main__":
    main()
