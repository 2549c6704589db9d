"""What do weights trained on compressed photographs gain where the LR is a JPEG, and what do they cost where it is not?

    python -m benchmarks.camera [--scales 2 3] [--sets Set5 Set14 photos]

LR shrunk bicubically and saved as JPEG of quality 60, 75 and 90 (no blur, no noise), and as it is; PSNR and SSIM on
luma, protocol basicsr, of bicubic, of srcnn_xN and of srcnn_camera_xN. docs/camera.png is part of the comparison.png of

    python -m srcnn.evaluate ckpt_path=[srcnn_x3,srcnn_camera_x3] degradation=camera data.test=[photos]
"""

import argparse
import os
from typing import Any

import torch

from benchmarks.table import show
from srcnn.checkpoint import load_network
from srcnn.data.camera import Camera
from srcnn.data.degrade import Bicubic, Degradation
from srcnn.data.samples import read_set
from srcnn.metrics import PROTOCOLS, mean_score


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scales", type=int, nargs="+", default=[2, 3])
    parser.add_argument("--sets", nargs="+", default=["Set5", "Set14", "photos"])
    arguments = parser.parse_args()
    kinds: list[Degradation] = [Camera((0, 0), (0, 0), (quality, quality), 1) for quality in (60, 75, 90)] + [Bicubic()]
    evaluate = PROTOCOLS["basicsr"].evaluate
    rows: list[dict[str, Any]] = []
    for scale in arguments.scales:
        nets = {name: load_network(f"{name}_x{scale}")[0] for name in ("srcnn", "srcnn_camera")}
        for name in arguments.sets:
            for kind in kinds:
                samples = read_set(name, os.environ.get("SRCNN_DATA", "data"), scale, kind)
                row: dict[str, Any] = {"scale": scale, "set": name, "LR": kind.describe()}
                for net_name, net in nets.items():
                    mean = mean_score([evaluate(net.upscale, s.lr, s.hr, net.channels) for s in samples])
                    row |= {"bicubic": f"{mean.bicubic_psnr:.2f} / {mean.bicubic_ssim:.4f}"}
                    row |= {net_name: f"{mean.psnr:.2f} / {mean.ssim:.4f}"}
                rows.append(row)
    show("camera", rows)


if __name__ == "__main__":
    main()
