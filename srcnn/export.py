"""Take a network out of Python, or out of this project, in a file that says what it is.

    python -m srcnn.export format=onnx                        our x3 network as compact_x3.onnx, for ONNX Runtime
    python -m srcnn.export ckpt_path=CKPT format=pt2 output=net.pt2
    python -m srcnn.export ckpt_path=CKPT format=html         a page that enlarges photographs in any browser, offline
    python -m srcnn.export ckpt_path=CKPT format=safetensors  the weights alone; format=pth: as a bare state_dict

onnx and pt2 (torch.export) hold the whole network, the enlargement included, for any height and width: float32 RGB
(or Y) in [0, 1], [1, C, H, W] -> [1, C, scale*H, scale*W]. Each, and html, is compared with torch on three sizes before
the file is put in place.
"""

import io
import json
import logging
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor
from torch.export import Dim

from srcnn import __version__
from srcnn.errors import UserError, check_choice
from srcnn.files import replacing
from srcnn.nets import Network
from srcnn.checkpoint import find_checkpoint, load_network, run_of
from srcnn.launch import command

_SIZES = ((17, 23), (48, 31), (64, 64))  # compared; none is the one exported with
_TOLERANCE = 1e-5
_DYNAMIC = ({2: Dim("height", min=4), 3: Dim("width", min=4)},)


def export(cfg: DictConfig) -> None:
    """Write the network of cfg.ckpt_path as cfg.format."""
    check_choice("format", cfg.format, tuple(FORMATS))
    net, checkpoint = load_network(cfg.ckpt_path, cfg.scale)
    source = find_checkpoint(cfg.ckpt_path, cfg.scale)
    target = Path(cfg.output or f"{source.stem}.{cfg.format}")
    if target.resolve() == source.resolve():
        raise UserError(f"output={target} is the checkpoint itself: name another file")
    facts = {"network": type(net).__name__, "scale": str(net.scale), "color": {3: "rgb", 1: "y"}[net.channels]}
    facts |= {"srcnn": __version__, "arguments": json.dumps(checkpoint.get("arguments", {}))}
    facts |= {"run": json.dumps(run_of(source, checkpoint))}
    with replacing(target) as temporary:
        worst = FORMATS[cfg.format](net, temporary, facts)
    found = "" if worst is None else f", within {worst:.1g} of torch"
    print(f"{target}  {target.stat().st_size:,} bytes{found}")


def _to_onnx(net: Network, path: Path, facts: Mapping[str, str]) -> float:
    onnxruntime = _imported("onnxruntime", "onnxscript")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # that torchvision is not there
    example = (torch.rand(1, net.channels, 24, 32),)
    program: Any = torch.onnx.export(
        net, example, input_names=["lr"], output_names=["sr"], dynamic_shapes=_DYNAMIC, verbose=False
    )
    program.model.metadata_props.update(facts)
    program.save(str(path), external_data=False)
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return _compare(lambda lr: torch.from_numpy(session.run(None, {"lr": lr.numpy()})[0]), net)


def _to_pt2(net: Network, path: Path, facts: Mapping[str, str]) -> float:
    program = torch.export.export(net, (torch.rand(1, net.channels, 24, 32),), dynamic_shapes=_DYNAMIC)
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={"metadata.json": json.dumps(facts)})
    path.write_bytes(file.getvalue())
    file.seek(0)
    return _compare(torch.export.load(file).module(), net)


def _to_html(net: Network, path: Path, facts: Mapping[str, str]) -> float:
    from srcnn.web.page import write  # slow to import

    return _compare(write(net, path, facts), net)


def _to_safetensors(net: Network, path: Path, facts: Mapping[str, str]) -> None:
    safetensors = _imported("safetensors.torch")
    tensors = {key: value.contiguous() for key, value in net.state_dict().items()}
    path.write_bytes(safetensors.save(tensors, dict(facts)))  # its own writer has no OSError for a full disk


def _to_pth(net: Network, path: Path, facts: Mapping[str, str]) -> None:
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    path.write_bytes(file.getvalue())


FORMATS: dict[str, Callable[[Network, Path, Mapping[str, str]], float | None]]
FORMATS = {"onnx": _to_onnx, "pt2": _to_pt2, "html": _to_html, "safetensors": _to_safetensors, "pth": _to_pth}


def _imported(*names: str) -> Any:
    """The first of some modules, where all are there."""
    try:
        first, *_ = [import_module(name) for name in names]
        return first
    except ImportError as error:
        raise UserError(f"this format needs an extra ({error.name}): pip install -e '.[export]'") from None


def _compare(run: Callable[[Tensor], Tensor], net: Network) -> float:
    """The largest difference from torch; UserError beyond what rounding explains.

    Relative to the largest value where that is beyond 1: some networks make hundreds of noise, which is no photograph.
    """
    worst = 0.0
    for height, width in _SIZES:
        lr = torch.rand(1, net.channels, height, width, generator=torch.Generator().manual_seed(height))
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
