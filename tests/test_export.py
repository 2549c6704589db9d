"""Files for other programs: each is opened as those do, and gives what torch gives."""

import http.server
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest
import torch

import srcnn
from srcnn.checkpoint import load_network, save_weights
from srcnn.errors import RunError, UserError
from srcnn.export import export
from srcnn.launch import CONFIGS, settings
from srcnn.nets import ESPCN

SIZES = [(1, 19, 40), (2, 33, 25), (5, 4, 71)]  # batch, height, width: none that it was exported or compared with


def export_as(*words: str) -> None:
    export(settings(CONFIGS / "export.yaml", list(words)))


@pytest.mark.parametrize("weights", ["srcnn_x3", "compact_x3", "luma"])
@pytest.mark.filterwarnings("ignore")
def test_onnx_and_pt2(
    weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    onnxruntime = pytest.importorskip("onnxruntime")
    if weights == "luma":
        torch.manual_seed(0)
        save_weights(weights := "luma.pth", ESPCN(scale=2, channels=1), {})
    for format in ("onnx", "pt2"):
        export_as(f"ckpt_path={weights}", f"format={format}", f"output=net.{format}")
        assert "of torch\n" in capsys.readouterr().out
    net, _ = load_network(weights)
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    facts = session.get_modelmeta().custom_metadata_map
    assert facts["scale"] == str(net.scale)
    assert facts["color"] == {3: "rgb", 1: "y"}[net.channels]
    files = {"metadata.json": ""}
    program = torch.export.load(tmp_path / "net.pt2", extra_files=files).module()
    assert json.loads(files["metadata.json"]) == facts
    for batch, height, width in SIZES:
        lr = torch.rand(batch, net.channels, height, width)
        with torch.no_grad():
            expected = net(lr)
            atol = 1e-5 * max(1, float(expected.abs().max()))
            torch.testing.assert_close(program(lr), expected, atol=atol, rtol=0)
        (sr,) = session.run(None, {"lr": lr.numpy()})
        torch.testing.assert_close(torch.from_numpy(sr), expected, atol=atol, rtol=0)


def test_weights_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = srcnn.load("srcnn_x3").state_dict()
    export_as("ckpt_path=srcnn_x3", "format=safetensors")
    export_as("ckpt_path=srcnn_x3", "format=pth", "scale=3")
    assert {path.name for path in tmp_path.iterdir()} == {"srcnn_x3.safetensors", "srcnn_x3.pth"}
    net, checkpoint = load_network("srcnn_x3.safetensors")
    assert checkpoint["run"] == load_network("srcnn_x3")[1]["run"]
    bare = torch.load("srcnn_x3.pth", weights_only=True)
    assert list(bare) == list(own)
    assert all(torch.equal(bare[key], own[key]) and torch.equal(net.state_dict()[key], own[key]) for key in own)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """compact_x3 as a folder for the hub."""
    export_as("ckpt_path=compact_x3", "format=hub", f"output={tmp_path / 'net'}")
    return tmp_path / "net"


def test_a_folder_for_the_hub(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "config.json", "README.md"}
    ours, run = srcnn.load("compact_x3"), load_network("compact_x3")[1]["run"]
    net, checkpoint = load_network(folder)
    assert checkpoint["run"] == run
    assert all(torch.equal(net.state_dict()[key], value) for key, value in ours.state_dict().items())
    config = json.loads((folder / "config.json").read_text())
    assert config["network"] == "Compact" and config["arguments"] == ours.arguments
    card = (folder / "README.md").read_text()
    psnr, steps, words = run["psnr"]["Set5"], run["steps"], " ".join(run["overrides"])
    parts = ("\nlicense: mit\n", "×3: 23,067 parameters, on RGB", "- data: T91\n", 'srcnn.load("hf://OWNER/net")')
    for part in (*parts, f"| Set5 | {psnr:.2f} |", "protocol `authors`", f"{steps:,} steps in", f"train.py {words}`"):
        assert part in card, part
    with pytest.raises(UserError, match="exists already; name a new folder"):
        export_as("format=hub", f"output={folder}")
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-9])
    with pytest.raises(UserError, match="not a checkpoint, or a damaged one"):
        srcnn.load(str(folder))


class Hub(http.server.SimpleHTTPRequestHandler):
    """Files with the headers of the hub."""

    def end_headers(self) -> None:
        self.send_header("ETag", '"1"')
        self.send_header("X-Repo-Commit", "0" * 40)
        super().end_headers()


def test_a_network_from_the_hub(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    shutil.copytree(folder, tmp_path / "site" / "owner" / "net" / "resolve" / "main")
    handler = partial(Hub, directory=str(tmp_path / "site"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        hub = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path / "cache")}
        for address, answer in {
            "hf://owner/net": f"{srcnn.load('compact_x3').arguments}\n",
            "hf://owner/other": "hf://owner/other: cannot be downloaded (",
        }.items():
            code = f"import srcnn\ntry: print(srcnn.load('{address}').arguments)\nexcept ValueError as e: print(e)"
            done = subprocess.run([sys.executable, "-c", code], env=os.environ | hub, capture_output=True, text=True)
            assert done.stdout.startswith(answer), done
        server.shutdown()


def test_what_cannot_be_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({}, "mine.pth")
    for word, sentence in {
        "format=tflite": "format=tflite: choose onnx, pt2, html, safetensors, pth or hub",
        "ckpt_path=x.ckpt": "x.ckpt: no such checkpoint",
        "ckpt_path=mine.pth": "holds no network's weights",
    }.items():
        with pytest.raises(UserError, match=sentence):
            export_as(word)
    with pytest.raises(RunError, match="cannot be written"):
        export_as("format=pth", f"output={tmp_path}")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.pth"]


@pytest.mark.parametrize("format", ["pth", "safetensors"])
def test_a_full_disk(format: str, tmp_path: Path) -> None:
    """In a sentence; torch and safetensors raise errors of their own where they write a file themselves."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
        with pytest.raises(RunError, match=rf"net.{format}: cannot be written \(File too large\)"):
            export_as(f"format={format}", f"output={tmp_path}/net.{format}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, old)
    assert not list(tmp_path.iterdir())
