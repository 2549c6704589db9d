import json
import resource
import signal
from pathlib import Path

import pytest
import torch

from srcnn.errors import RunError, UserError
from srcnn.export import export
from srcnn.checkpoint import load_network
from srcnn.launch import parse

SIZES = [(19, 40), (33, 25), (4, 71)]  # none that it was exported or compared with


@pytest.mark.parametrize("weights", ["srcnn_x3", "compact_x3", "bare"])
@pytest.mark.filterwarnings("ignore")
def test_onnx_and_pt2(
    weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    onnxruntime = pytest.importorskip("onnxruntime")
    if weights == "bare":  # on luma, x2
        from srcnn.nets import ESPCN

        torch.manual_seed(0)
        torch.save(ESPCN(scale=2, channels=1).state_dict(), tmp_path / "bare.pth")
        weights = "bare.pth"
    for format in ("onnx", "pt2"):
        export(parse("export", [f"ckpt_path={weights}", f"format={format}", f"output=net.{format}"]))
        assert "of torch\n" in capsys.readouterr().out
    net, _ = load_network(weights)
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    known = session.get_modelmeta().custom_metadata_map
    assert known["scale"] == str(net.scale)
    assert known["color"] == {3: "rgb", 1: "y"}[net.channels]
    files = {"metadata.json": ""}
    program = torch.export.load(tmp_path / "net.pt2", extra_files=files).module()
    assert json.loads(files["metadata.json"]) == known
    for height, width in SIZES:
        lr = torch.rand(1, net.channels, height, width)
        with torch.no_grad():
            expected = net(lr)
            atol = 1e-5 * max(1, float(expected.abs().max()))  # Compact makes hundreds of noise
            torch.testing.assert_close(program(lr), expected, atol=atol, rtol=0)
        (sr,) = session.run(None, {"lr": lr.numpy()})
        torch.testing.assert_close(torch.from_numpy(sr), expected, atol=atol, rtol=0)


def test_weights_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    safetensors = pytest.importorskip("safetensors")
    own = load_network("srcnn_x3")[0].state_dict()
    export(parse("export", ["ckpt_path=srcnn_x3", "format=safetensors"]))
    export(parse("export", ["ckpt_path=srcnn_x3", "format=pth", "scale=3"]))
    assert {path.name for path in tmp_path.iterdir()} == {"srcnn_x3.safetensors", "srcnn_x3.pth"}
    with safetensors.safe_open(tmp_path / "srcnn_x3.safetensors", "pt") as file:
        assert file.metadata()["network"] == "SRCNN"
        assert json.loads(file.metadata()["arguments"])["scale"] == 3
        assert json.loads(file.metadata()["run"])["overrides"][0] == "experiment=best"
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    bare = torch.load(tmp_path / "srcnn_x3.pth", weights_only=True)
    assert list(bare) == list(own)
    assert all(torch.equal(bare[key], own[key]) and torch.equal(tensors[key], own[key]) for key in own)


def test_what_cannot_be_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({}, "mine.pth")
    for word, sentence in {
        "format=tflite": "format=tflite: choose onnx, pt2, html, safetensors or pth",
        "ckpt_path=x.ckpt": "x.ckpt: no such checkpoint",
        f"output={tmp_path}": "a link, a folder or a device",
        "ckpt_path=mine.pth": "holds no network's weights",
    }.items():
        with pytest.raises(UserError, match=sentence):
            export(parse("export", [word]))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.pth"]


@pytest.mark.parametrize("format", ["pth", "safetensors"])
def test_a_full_disk(format: str, tmp_path: Path) -> None:
    """In a sentence; torch and safetensors raise errors of their own where they write a file themselves."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
        with pytest.raises(RunError, match=rf"net.{format}: cannot be written \(File too large\)"):
            export(parse("export", [f"format={format}", f"output={tmp_path}/net.{format}"]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, old)
    assert not list(tmp_path.iterdir())
