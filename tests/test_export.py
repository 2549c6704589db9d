import json
from pathlib import Path

import pytest
import torch
from conftest import run

from srcnn.checkpoint import load_network

SIZES = [(19, 40), (33, 25), (4, 71)]  # none that it was exported or compared with


@pytest.mark.parametrize("weights", ["srcnn_x3", "bare"])
def test_onnx_and_pt2(weights: str, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    if weights == "bare":  # on luma, x2
        from srcnn.nets import ESPCN

        torch.manual_seed(0)
        torch.save(ESPCN(scale=2, channels=1).state_dict(), tmp_path / "bare.pth")
        weights = "bare.pth"
    for format in ("onnx", "pt2"):
        output = run(
            "-m", "srcnn.export", f"ckpt_path={weights}", f"format={format}", f"output=net.{format}", cwd=tmp_path
        )
        assert "of torch on sizes" in output
    net, _ = load_network(weights if weights == "srcnn_x3" else tmp_path / weights)
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
            torch.testing.assert_close(program(lr), expected, atol=1e-5, rtol=0)
        (sr,) = session.run(None, {"lr": lr.numpy()})
        torch.testing.assert_close(torch.from_numpy(sr), expected, atol=1e-5, rtol=0)


def test_weights_alone(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors")
    own = load_network("srcnn_x3")[0].state_dict()
    run("-m", "srcnn.export", "format=safetensors", cwd=tmp_path)
    run("-m", "srcnn.export", "format=pth", "scale=3", cwd=tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"srcnn_x3.safetensors", "srcnn_x3.pth"}
    with safetensors.safe_open(tmp_path / "srcnn_x3.safetensors", "pt") as file:
        assert file.metadata()["network"] == "SRCNN"
        assert json.loads(file.metadata()["settings"])["scale"] == 3
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    bare = torch.load(tmp_path / "srcnn_x3.pth", weights_only=True)
    assert list(bare) == list(own)
    assert all(torch.equal(bare[key], own[key]) and torch.equal(tensors[key], own[key]) for key in own)


def test_what_cannot_be_exported(tmp_path: Path) -> None:
    assert "format=tflite: choose one of" in run("-m", "srcnn.export", "format=tflite", cwd=tmp_path, code=2)
    assert "no such checkpoint" in run("-m", "srcnn.export", "ckpt_path=x.ckpt", cwd=tmp_path, code=2)
    assert not list(tmp_path.iterdir())
