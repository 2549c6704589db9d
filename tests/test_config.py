"""Wrong settings: one sentence, exit code 2, nothing written. In this process, as 0.2 s is enough for each."""

import importlib
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT

from srcnn import evaluate
from srcnn.command import command
from srcnn.config import compose_checked

sys.path.insert(0, str(ROOT))
COMMANDS = {name: importlib.import_module(name) for name in ("train", "predict")}
EXPERIMENTS = sorted(path.stem for path in (ROOT / "configs" / "experiment").iterdir())

WRONG = [
    ("train", "optim.lr=abc", "optim.lr=abc: must be a number"),
    ("train", "optim.lr=-1", "optim.lr=-1: must be at least 0"),
    ("train", "optim.learning_rate=1", "optim.learning_rate: no such key; did you mean"),
    ("train", "lr=1e-3", "lr: no such key; did you mean optim.lr?"),
    ("train", "optim=adamm", "adam"),
    ("train", "data.batch_size=2.5", "data.batch_size=2.5: must be a whole number"),
    ("train", "data.batch_size=0", "data.batch_size=0: must be at least 1"),
    ("train", "data.augment=7", "data.augment=7: must be true or false"),
    ("train", "data.test=Set5", "data.test=Set5: must be a list"),
    ("train", "data=folder", "data.train_dir has to be given"),
    ("train", "data.patch_size=12", "data.patch_size=12: this network needs at least 13"),
    ("train", "data.train=/nowhere", "no image set or folder '/nowhere'"),
    ("train", "data=leaves data.test=[Urban100]", "Urban100 is not below"),
    ("train", "scale=1", "scale=1: must be between 2 and 8"),
    ("train", "protocol=matlab", "protocol=matlab: choose one of authors, basicsr"),
    ("train", "model.kernels=[9,1]", "model settings: SRCNN has three kernels"),
    ("train", "model.kernels=[9,2,5]", "model settings: kernel 2: must be odd"),
    ("train", "model.init=zero", "model settings: init=zero: choose default, identity or paper"),
    ("train", "model.colour=red", "model.colour: no such key"),
    ("train", "trainer.accelerator=tpu", "trainer.accelerator=tpu: choose one of"),
    ("train", "model=5", "Config group override must be a string"),
    ("train", "trainer.max_epochs=0", "trainer.max_epochs=0: must be 1 or more"),
    ("train", "trainer.max_epochs=-1", "trainer.max_epochs=-1 needs trainer.max_steps"),
    ("train", "resume=nowhere.ckpt", "nowhere.ckpt: no such checkpoint"),
    ("train", "init_from=nowhere.ckpt", "nowhere.ckpt: no such checkpoint"),
    ("train", "resume={broken}", "not a checkpoint, or a damaged one"),
    ("train", "init_from={other}", "do not fit this network: conv1.weight is missing"),
    ("train", "resume={other}", "holds weights only"),
    ("train", "seed", "cannot be read as key=value"),
    ("train", "seed=5000000000", "seed=5000000000: must be between 0 and"),
    ("train", "optim.lr=null", "optim.lr=null: must be a number"),
    ("train", "optim.lr=inf", "optim.lr=inf: must be a number"),
    ("train", "optim.betas=[2,3]", "optim settings: Invalid beta"),
    ("train", "trainer.precision=foo", "trainer settings: "),
    ("train", "trainer.devices=0", "trainer.devices=0: must be at least 1"),
    ("train", "+trainer.foo=1", "unexpected keyword argument 'foo'"),
    ("train", "trainer.max_epochs=null", "trainer.max_epochs=null: must be a whole number"),
    ("train", "callbacks.checkpoint.every_n_epochs=0", "every_n_epochs=0: must be at least 1"),
    ("train", "scheduler=cosine scheduler.schedule.shape=foo", "scheduler settings: shape=foo: choose"),
    ("train", "scheduler=cosine scheduler.interval=foo", "scheduler.interval=foo: choose step or epoch"),
    ("train", "data=leaves data.test=[]", "data.test=[]: name at least one"),
    ("train", "data=leaves data.test=null", "data.test=null: must be a list"),
    ("train", "data=leaves data.hold_out=-1", "data.hold_out=-1: must be at least 0"),
    ("train", "data.train=leaves data.test=[photos]", "images called leaves need their settings"),
    ("train", "init_from=", "init_from has to be given"),
    ("train", "trainer.devices=9999", "trainer.devices=9999: there "),
    (
        "train",
        "data=leaves trainer.devices=2 data.batch_size=7",
        "data.batch_size=7: 2 processes cannot share it evenly",
    ),
    ("train", "-m trainer.devices=2 optim.lr=1e-4,1e-3", "-m takes one process a run"),
    ("train", "data=leaves data.patch_size=300", "every training image is smaller than a patch of 300x300 pixels"),
    ("train", "trainer.max_steps=0", "trainer.max_steps=0: must be 1 or more"),
    ("train", "trainer.gradient_clip_val=-1", "trainer.gradient_clip_val=-1: must be at least 0"),
    ("train", "trainer.log_every_n_steps=0", "trainer.log_every_n_steps=0: must be at least 1"),
    ("train", "trainer.strategy=fast", "trainer settings: "),
    ("train", "trainer.limit_train_batches=-0.5", "trainer.limit_train_batches=-0.5: must be at least 0"),
    ("train", "callbacks=ema callbacks.ema.decay=1.5", "callbacks.ema.decay=1.5: must be between 0 and 1"),
    ("train", "callbacks.guard.every_n_steps=0", "callbacks.guard.every_n_steps=0: must be at least 1"),
    ("train", "callbacks.guard.every_n_minutes=soon", "callbacks.guard.every_n_minutes=soon: must be a number"),
    ("train", "loss=psnr loss.floor=0", "loss.floor=0: must be between 1e-12 and 1"),
    ("train", "loss=psnr loss.rgb=-1", "loss.rgb=-1: must be at least 0"),
    ("train", "scheduler=linear scheduler.schedule.hold=2", "scheduler.schedule.hold=2: must be between 0 and 1"),
    ("train", "model.channels=2", "model.channels=2: choose 1 or 3"),
    ("train", "model.padding_mode=wrap", "model.padding_mode=wrap: choose replicate or zeros"),
    ("train", "model.widths=[0,32]", "model settings: "),
    ("train", "optim=muon optim.momentum=2", "optim.momentum=2: must be between 0 and 1"),
    ("train", "data=leaves data.leaves.count=1", "data.leaves.count=1: must be between 2 and"),
    ("train", "data=leaves data.memory=-1", "data.memory=-1: must be at least 0"),
    ("train", "data=leaves data.hold_out=[nothere]", "data.hold_out names no image of leaves: nothere"),
    ("train", "resume=auto", "name that with hydra.run.dir"),
    ("train", "hydra.run.dir={broken}/run", "cannot be written to (Not a directory)"),
    ("evaluate", "ckpt_path={good} scale=9", "scale=9: must be between 2 and 8"),
    ("evaluate", "scale=5", "scale=5: no weights are shipped for it"),
    ("evaluate", "ckpt_path=srcnn_x2 scale=3", "was trained for scale 2"),
    ("train", "optim.lr={{a:1}}", "optim.lr: must be a value, not a group"),
    ("train", "~data.batch_size data=leaves", "data.batch_size: has to be there"),
    ("train", "~seed", "seed: has to be there"),
    ("train", "+newkey=1", "newkey: no such key"),
    ("train", "+scheduler.foo=1", "scheduler.foo: no such key"),
    ("train", "data=leaves +data.foo=1", "data.foo: no such key"),
    ("train", "+callbacks.foo.bar=1", "callbacks.foo: says no _target_"),
    ("train", "+callbacks.best.foo=1", "callbacks.best settings: "),
    ("train", "callbacks.best._target_=nowhere.Class", "callbacks.best settings: "),
    ("train", "callbacks.best.filename=../../x", "callbacks.best.filename=../../x: must be a name"),
    ("train", "callbacks.best.filename=last", "two checkpoints cannot both be called last.ckpt"),
    ("train", "callbacks.checkpoint.save_top_k=-2", "callbacks.checkpoint settings: "),
    ("train", "+logger.x._target_=nowhere.Class", "logger.x settings: "),
    ("train", "loss._target_=os.getcwd", "loss settings: "),
    ("train", "+loss.reduction=none", "loss settings: must give one number"),
    ("train", "data=leaves output_dir=foo", "output_dir follows hydra.run.dir"),
    ("train", "hydra.run.dir=", "hydra.run.dir has to be given"),
    ("train", "trainer.num_nodes=2", "trainer.num_nodes=2: start it on each machine"),
    ("train", "trainer.limit_train_batches=0", "nothing would be trained"),
    ("train", "+trainer.enable_checkpointing=false", "trainer.enable_checkpointing: is not taken"),
    ("train", "data=leaves data.batch_size=10000000000000", "a batch has at most"),
    ("train", "model.widths=[6400000,3200000]", "parameters; at most"),
    ("train", "data=leaves data.hold_out=[1,2]", "data.hold_out names no image of leaves"),
    ("predict", "-m scale=2,3", "-m is for train.py"),
    ("predict", "+foo=1", "foo: no such key"),
    ("predict", "input={good} trainer.devices=0", "trainer.devices=0"),
    ("evaluate", "ckpt_path={good} data.root=null", "data.root"),
    ("predict", "ckpt_path= input=x.png", "ckpt_path has to be given"),
    ("predict", "ckpt_path=nowhere", "nowhere: no such checkpoint"),
    ("train", "resume={root}/srcnn/weights/srcnn_x3.pth", "holds weights only"),
    ("predict", "ckpt_path={broken}", "not a checkpoint, or a damaged one"),
    ("predict", "ckpt_path={other}", "bare weights of a network unknown here"),
    ("predict", "ckpt_path={good} input=nowhere.png", "input=nowhere.png: no such file or folder"),
    ("predict", "ckpt_path={good} input={broken}", "not an image that Pillow can read"),
    ("predict", "ckpt_path={good} input=", "input has to be given"),
    ("predict", "ckpt_path={good} output={broken}/x", "is a file; name a folder"),
    ("predict", "ckpt_path={good} scale=two", "scale=two: must be a whole number"),
    ("evaluate", "ckpt_path={good} data.test=[]", "data.test=[]: must be a list of sets or folders"),
    ("evaluate", "ckpt_path={good} protocol=ssim", "protocol=ssim: choose one of"),
]


@pytest.mark.parametrize(("name", "arguments", "sentence"), WRONG)
def test_wrong_setting(name: str, arguments: str, sentence: str, tmp_path: Path, monkeypatch, capsys) -> None:
    from srcnn.nets import SRCNN

    files = {key: tmp_path / f"{key}.pth" for key in ("broken", "other", "good")}
    files["broken"].write_bytes(b"PK\x03\x04 no checkpoint")
    torch.save({"layer.weight": torch.zeros(3)}, files["other"])
    torch.save(SRCNN().state_dict(), files["good"])
    before = set(tmp_path.iterdir())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SRCNN_DATA", str(tmp_path))
    if name == "train" and "data" not in arguments:
        arguments += " data=leaves"
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments.format(root=ROOT, **files).split(" ")])
    module = COMMANDS.get(name, evaluate)
    task = {"train": "train", "predict": "predict", "evaluate": "main"}[name]
    check = COMMANDS["train"].check_train if name == "train" else module.check
    with pytest.raises(SystemExit) as stop:
        command(getattr(module, task), name, check)
    output = capsys.readouterr()
    assert stop.value.code == 2
    assert output.out == ""
    assert output.err.startswith("error: ")
    assert output.err.count("\n") == 1
    assert sentence in output.err
    assert set(tmp_path.iterdir()) == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py", "trainer.accelerator=gpu", "data=leaves"])
    with pytest.raises(SystemExit, match="2"):
        command(COMMANDS["train"].train, "train", COMMANDS["train"].check_train)
    assert "trainer.accelerator=gpu: torch sees no GPU here" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name", ["a b.ckpt", "photo (1).ckpt", "a,b.ckpt", "lr=1.ckpt", "[x].ckpt", "grün_π.ckpt", "it's.ckpt", 'a"b.ckpt',
             "back\\slash.ckpt", "${x}.ckpt", "{a}.ckpt", "end\\"],
)  # fmt: skip
def test_paths_are_taken_as_typed(name: str) -> None:
    from srcnn.config import quote_path

    cfg = compose_checked("predict", [quote_path(f"ckpt_path={name}"), quote_path(f"data.root={name}")])
    assert cfg.ckpt_path == name
    assert cfg.data.root == name


def test_the_defaults_are_the_assignments() -> None:
    cfg = compose_checked("train", [])
    assert (cfg.scale, cfg.data.batch_size, cfg.trainer.max_epochs) == (3, 128, 100)
    assert (cfg.optim["_target_"], cfg.optim.lr) == ("torch.optim.Adam", 1e-4)
    assert (cfg.data.patch_size, cfg.data.stride, cfg.data.train, cfg.data.test) == (33, 14, "T91", ["Set5"])
    assert cfg.loss["_target_"] == "torch.nn.MSELoss"


@pytest.mark.parametrize(
    ("name", "plugin"), [("joblib", "joblib_launcher"), ("slurm", "submitit_launcher"), ("optuna", "optuna_sweeper")]
)
def test_launchers_and_sweepers_compose(name: str, plugin: str) -> None:
    pytest.importorskip(f"hydra_plugins.hydra_{plugin}", reason=f"the plugin of hydra={name} is not installed")
    compose_checked("train", [f"hydra={name}"])


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_experiment_composes(experiment: str) -> None:
    """And opens with the command that runs it."""
    compose_checked("train", [f"experiment={experiment}"])
    text = (ROOT / "configs" / "experiment" / f"{experiment}.yaml").read_text()
    assert f"python train.py experiment={experiment}" in text
