"""Write a network for other programs, in a file that says what it is.

    python -m srcnn.export format=onnx                        our x3 network as compact_x3.onnx, for ONNX Runtime
    python -m srcnn.export ckpt_path=CKPT format=pt2 output=net.pt2
    python -m srcnn.export ckpt_path=CKPT format=html         a page that enlarges photographs in any browser, offline
    python -m srcnn.export ckpt_path=CKPT format=hub          a folder for the Hugging Face hub, with a model card
    python -m srcnn.export ckpt_path=CKPT format=safetensors  the weights alone; format=pth: as a bare state_dict

onnx and pt2 (torch.export) hold the whole network, the enlargement included, for any batch, height and width: float32
RGB (or Y) in [0, 1], [N, C, H, W] -> [N, C, scale*H, scale*W]. Each, and html, is compared with torch on three sizes
before the file is put in place.
"""

import io
import json
import logging
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor
from torch.export import Dim

from srcnn import __version__
from srcnn.checkpoint import find_checkpoint, load_network
from srcnn.errors import UserError, check_choice
from srcnn.files import replacing
from srcnn.hub import write_folder, write_model
from srcnn.launch import command
from srcnn.nets import Network

Facts = Mapping[str, str]  # what a file says of itself
_SIZES = ((1, 17, 23), (3, 48, 31), (1, 64, 64))  # batch, height and width of the comparison; not those of the export
_TOLERANCE = 1e-5
_DYNAMIC = ({0: Dim("batch"), 2: Dim("height", min=4), 3: Dim("width", min=4)},)


def export(cfg: DictConfig) -> None:
    """Write the network of cfg.ckpt_path as cfg.format."""
    check_choice("format", cfg.format, (*FORMATS, "hub"))
    source = find_checkpoint(cfg.ckpt_path, cfg.scale)
    net, checkpoint = load_network(source, cfg.scale)
    target = Path(cfg.output or source.stem + f".{cfg.format}".removesuffix(".hub")).expanduser()
    if target.resolve() == source.resolve():
        raise UserError(f"output={target} is the checkpoint itself: name another file")
    facts = {"network": type(net).__name__, "scale": str(net.scale), "color": {3: "rgb", 1: "y"}[net.channels]}
    facts |= {"srcnn": __version__, "license": cfg.license, "arguments": json.dumps(net.arguments)}
    facts["run"] = json.dumps(checkpoint["run"])
    if cfg.format == "hub":
        write_folder(target, net, facts)
        print(f"{target}: a folder for the Hugging Face hub; read its README.md before you upload it")
        return
    with replacing(target) as temporary:
        worst = FORMATS[cfg.format](net, temporary, facts)
    compared = "" if worst is None else f", within {worst:.1g} of torch"
    print(f"{target}  {target.stat().st_size:,} bytes{compared}")


def _to_onnx(net: Network, path: Path, facts: Facts) -> float:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  # what torch.onnx needs
    except ImportError as error:
        raise UserError(f"format=onnx needs an extra ({error.name}): pip install 'srcnn[export]'") from None
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns that torchvision is missing
    names: dict[str, Any] = {"input_names": ["lr"], "output_names": ["sr"]}
    program: Any = torch.onnx.export(net, _example(net), **names, dynamic_shapes=_DYNAMIC, verbose=False)
    program.model.metadata_props.update(facts)
    program.save(str(path), external_data=False)
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return _compare(lambda lr: torch.from_numpy(session.run(None, {"lr": lr.numpy()})[0]), net)


def _to_pt2(net: Network, path: Path, facts: Facts) -> float:
    program = torch.export.export(net, _example(net), dynamic_shapes=_DYNAMIC)
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={"metadata.json": json.dumps(facts)})
    path.write_bytes(file.getvalue())
    file.seek(0)
    return _compare(torch.export.load(file).module(), net)


def _to_html(net: Network, path: Path, facts: Facts) -> float:
    from srcnn.web.page import write  # slow to import

    return _compare(write(net, path, facts), net)


def _to_pth(net: Network, path: Path, facts: Facts) -> None:
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    path.write_bytes(file.getvalue())


FORMATS: dict[str, Callable[[Network, Path, Facts], float | None]]
FORMATS = {"onnx": _to_onnx, "pt2": _to_pt2, "html": _to_html, "safetensors": write_model, "pth": _to_pth}


def _example(net: Network) -> tuple[Tensor]:
    return (torch.rand(2, net.channels, 24, 32),)  # a batch of one would be taken for a constant


def _compare(run: Callable[[Tensor], Tensor], net: Network) -> float:
    """The largest difference from torch, relative to the largest value above 1; UserError beyond what rounding is."""
    worst, generator = 0.0, torch.Generator()
    for batch, height, width in _SIZES:
        lr = torch.rand(batch, net.channels, height, width, generator=generator.manual_seed(0))
        with torch.no_grad():
            sr = net(lr)
            worst = max(worst, float((run(lr) - sr).abs().max() / sr.abs().max().clamp(min=1)))
    if worst > _TOLERANCE:
        raise UserError(f"the exported network differs from torch by {worst:.2g}; nothing is written")
    return worst


def main() -> None:
    warnings.filterwarnings("ignore", module="copyreg|torch.*")
    command(export, "export")


if __name__ == "__main__":
    main()
