"""Super-resolve images with a trained network.

    python predict.py photo.png                                  writes photo_x3.png beside it; scale=2 | 3 | 4
    python predict.py ckpt_path=CKPT input=lr.bmp                with a network of your own
    python predict.py input=folder output=larger                 every image in it and below; or a glob, as 'in/*.jpg'
    python predict.py photo.png width=1920                       or height=; size=1920x1080: to fit into that
    python predict.py input=folder output=larger reference=HR    with PSNR and SSIM against images of the same names
    python predict.py ckpt_path=CKPT                             its test set, shrunk and super-resolved, with scores

CKPT is a .ckpt or weights.pth of train.py, a name in srcnn/weights (srcnn_x2), or a bare state_dict (.pth;
scale= if it is not 3). An image comes back as what it was: format, gray or colour, alpha, 16 bits, ICC profile, EXIF;
GIF and PPM as PNG: a.gif becomes a.gif_x3.png. What these weights have made already is left alone, so an interrupted
run goes on; a result of other weights is made again, and any other file only with overwrite=true; a bad file is
reported and skipped. Results are known by the hidden .srcnn.jsonl beside them. Several processes, of torchrun or srun,
each take their share of the files.
"""

import signal
import sys
from typing import Any

from srcnn.launch import command


def predict(cfg: Any) -> int:
    """Enlarge the images of cfg.input; 1, the exit code, if one of them could not be, or not be scored."""
    from srcnn.inference.folder import Enlarger, Records, box_of, find_jobs, fingerprint, hint_at_camera
    from srcnn.checkpoint import WEIGHTS, find_checkpoint, load_network, run_of
    from srcnn.inference.tiles import SelfEnsemble, device_of

    weights = find_checkpoint(cfg.ckpt_path, cfg.scale)
    net, checkpoint = load_network(weights, cfg.scale)
    net = (SelfEnsemble(net) if cfg.self_ensemble else net).to(device_of(cfg.trainer.accelerator))
    box = box_of(cfg, net)
    if cfg.input is None:
        from srcnn.evaluate import score_sets

        score_sets(cfg, {weights: (net, checkpoint)}, with_images=True)
        return 0
    records, compare = Records(), None
    jobs = find_jobs(cfg.input, cfg.output, records)
    if cfg.reference:
        from srcnn.inference.references import References

        references = References(net, cfg.reference, records, jobs)
        compare = references.compare
    known = fingerprint(net, checkpoint.get("arguments"))
    net = net if cfg.exact else net.for_inference()
    enlarger = Enlarger(net, known, records, compare, cfg.overwrite, cfg.max_pixels, box)
    done = enlarger.run(jobs)
    print(f"{done}, by {weights.stem if weights.parent == WEIGHTS else weights}")
    hint_at_camera(enlarger.compressed, net.scale, run_of(weights, checkpoint))
    if compare and references.scores:
        references.write(cfg.output, str(weights))
    return int(enlarger.counts["skipped"] + enlarger.counts["not scored"] > 0)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    command(predict, "predict")
