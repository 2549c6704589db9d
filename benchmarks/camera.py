"""What do weights trained on compressed photographs gain where the LR is a JPEG, and what do they cost where it is not?

    python -m benchmarks.camera [--scales 2 3] [--sets Set5 Set14 photos]

LR shrunk bicubically and saved as JPEG of quality 60, 75 and 90 (no blur, no noise), and as it is; PSNR and SSIM on
luma, protocol basicsr, of bicubic, of srcnn_xN and of srcnn_camera_xN. With
--draw docs/camera.png instead, a part of one of scikit-image's photographs from a JPEG of quality 60.
"""

import argparse
import os
from pathlib import Path
from typing import Any

import torch

from benchmarks.table import show
from srcnn.data.camera import Camera
from srcnn.data.degrade import Bicubic, Degradation
from srcnn.data.samples import read_sets
from srcnn.inference.image_file import write_image
from srcnn.image import bicubic_up
from srcnn.metrics import PROTOCOLS, mean_score
from srcnn.report.panels import lr_and_hr, magnified, sheet
from srcnn.checkpoint import load_network
from srcnn.inference.tiles import super_resolve


def draw(path: Path) -> None:
    """A crop four times: bicubic, plain weights, weights for compressed photographs, ground truth."""
    (sample,) = [s for s in read_sets(["photos"], ".", 3, Camera((0, 0), (0, 0), (60, 60), 1)) if s.name == "chelsea"]
    lr, hr = lr_and_hr(sample, 3)
    views = {"bicubic": bicubic_up(lr, 3)}
    views |= {name: super_resolve(load_network(name)[0], lr) for name in ("srcnn_x3", "srcnn_camera_x3")}
    views |= {"ground truth": hr}
    crops = magnified([view[..., 60:150, 90:210].clamp(0, 1) for view in views.values()], 2)
    write_image(path, sheet([(list(views), crops)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scales", type=int, nargs="+", default=[2, 3])
    parser.add_argument("--sets", nargs="+", default=["Set5", "Set14", "photos"])
    parser.add_argument("--draw", action="store_true")
    arguments = parser.parse_args()
    if arguments.draw:
        return draw(Path("docs/camera.png"))
    kinds: list[Degradation] = [Camera((0, 0), (0, 0), (quality, quality), 1) for quality in (60, 75, 90)] + [Bicubic()]
    rows: list[dict[str, Any]] = []
    for scale in arguments.scales:
        nets = {name: load_network(f"{name}_x{scale}")[0] for name in ("srcnn", "srcnn_camera")}
        for name in arguments.sets:
            for kind in kinds:
                samples = read_sets([name], os.environ.get("SRCNN_DATA", "data"), scale, kind)
                row: dict[str, Any] = {"scale": scale, "set": name, "LR": kind.describe()}
                for net_name, net in nets.items():
                    pairs = [sample.tensors(torch.device("cpu")) for sample in samples]
                    mean = mean_score([PROTOCOLS["basicsr"].score(net, hr, lr=lr) for hr, lr in pairs])
                    row |= {"bicubic": f"{mean.bicubic_psnr:.2f} / {mean.bicubic_ssim:.4f}"}
                    row |= {net_name: f"{mean.psnr:.2f} / {mean.ssim:.4f}"}
                rows.append(row)
    show("camera", rows)


if __name__ == "__main__":
    main()
