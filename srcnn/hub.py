"""Networks in the Hugging Face hub's layout: a folder with model.safetensors, config.json and README.md, its card."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save

from srcnn.errors import UserError
from srcnn.files import replacing
from srcnn.nets import Network

MODEL = "model.safetensors"
_CARD = Path(__file__).parent / "model_card.md"


def find_model(source: str | os.PathLike) -> Path:
    """The weights file in a folder, or of "hf://owner/name" or "hf://owner/name@revision"; any other path as it is.

    A download stays in the hub's cache ($HF_HOME). Raises UserError.
    """
    text = os.fspath(source)
    if not text.startswith("hf://"):
        return Path(text, MODEL) if Path(text, MODEL).is_file() else Path(text)
    repository, _, revision = text.removeprefix("hf://").partition("@")
    try:
        from huggingface_hub import hf_hub_download  # an extra

        return Path(hf_hub_download(repository, MODEL, revision=revision or None))
    except ImportError:
        raise UserError(f"{text}: needs an extra: pip install 'srcnn[hub]'") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{text}: cannot be downloaded ({' '.join(str(error).split())[:200]})") from error


def read_model(path: Path) -> dict[str, Any]:
    """A .safetensors file as `srcnn.checkpoint.read_checkpoint` returns one; some exception for a damaged file."""
    with safe_open(path, "pt") as file:
        facts, weights = file.metadata() or {}, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    described = {key: json.loads(facts.get(key, "{}")) for key in ("arguments", "run")}
    return {"state_dict": weights} | ({"network": facts["network"], **described} if "network" in facts else {})


def write_model(net: Network, path: Path, facts: Mapping[str, str]) -> None:
    """A .safetensors file with `facts` as its metadata."""
    tensors = {key: value.clone(memory_format=torch.contiguous_format) for key, value in net.state_dict().items()}
    path.write_bytes(save(tensors, {"format": "pt", **facts}))  # save_file has its own error for a full disk


def write_folder(folder: Path, net: Network, facts: Mapping[str, str]) -> None:
    """A new folder to upload: the weights, config.json, and a model card after model_card.md."""
    from jinja2 import ChainableUndefined, Environment  # slow to import

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"output={folder}: exists already; name a new folder")
    run, config = json.loads(facts["run"]), {**facts, "scale": net.scale, "arguments": net.arguments}
    del config["run"]
    template = Environment(undefined=ChainableUndefined, trim_blocks=True).from_string(_CARD.read_text("utf-8"))
    card = template.render(facts, name=folder.resolve().name, parameters=net.parameter_count, run=run)
    for name, text in {"README.md": card, "config.json": json.dumps(config, indent=2)}.items():
        with replacing(folder / name) as temporary:
            temporary.write_text(text, "utf-8")
    with replacing(folder / MODEL) as temporary:
        write_model(net, temporary, facts)
