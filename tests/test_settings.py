"""Wrong settings: one sentence, exit code 2, nothing written."""

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import ROOT, SMALL
from hydra import compose, initialize_config_dir

import train
from srcnn.errors import UserError
from srcnn.nets import SRCNN
from srcnn.run import CONFIGS
from srcnn.launch import parse, quote_path, train_command
from srcnn.run.precision import best_precision, cpu_features
from srcnn.run.resume import expand_resume

EXPERIMENTS = sorted(path.stem for path in (CONFIGS / "experiment").iterdir())
WRONG = [
    ("optim.lr=abc", "optim.lr=abc: must be a number"),
    ("optim.lr=-1", "optim settings: Invalid learning rate: -1"),
    ("optim.lr=null", "optim.lr=null: must be a number"),
    ("optim.lr={a:1}", "must be a number"),
    ("optim.learning_rate=1", "optim.learning_rate: no such key; did you mean"),
    ("lr=1e-3", "lr: no such key; did you mean optim.lr?"),
    ("optim=adamm", "Could not find 'optim/adamm'"),
    ("optim.betas=[2,3]", "optim settings: Invalid beta"),
    ("optim=muon optim.momentum=2", "optim.momentum=2: must be a number, between 0 and 1"),
    ("+optim.foo=1", "optim settings: "),
    ("seed", "cannot be read as key=value"),
    ("seed=1.5", "seed=1.5: must be a whole number"),
    ("scale=0", "scale=0: must be between 1 (the same size) and 8"),
    ("scale=1", "scale=1: "),
    ("protocol=matlab", "protocol=matlab: choose authors or basicsr"),
    ("data.batch_size=2.5", "data.batch_size=2.5: must be a whole number"),
    ("data.batch_size=0", "data.batch_size=0: must be a number, at least 1"),
    ("data.augment=7", "data.augment=7: must be true or false"),
    ("data.test=Set5", "data.test=Set5: must be a list"),
    ("data.test=[]", "data.test=[]: must be a list of sets or folders"),
    ("data.test=[null]", "data.test=[None]: must be a list of sets or folders"),
    ("data=folder", "data.train_dir has to be given"),
    ("data.patch_size=12", "data.patch_size=12: SRCNN needs at least 13"),
    ("data.patch_size=300", "patch_size=300: every training image is smaller than 300 pixels"),
    ("data.train=/nowhere", "no image set or folder '/nowhere'"),
    ("data.test=[Urban100]", "Urban100 is not below"),
    ("data.leaves.count=1", "leaves.count=1: must be a number, at least 2"),
    ("data.rescale=[2]", "data.rescale=2: must be a number, between 0.1 and 1"),
    ("data.hold_out=[nothere]", "data.hold_out names no image of leaves: nothere"),
    ("model.kernels=[9,1]", "model.kernels=[9, 1] widths=[64, 32]: three kernels"),
    ("model.kernels=[9,2,5]", "model.kernels=2: must be odd"),
    ("model.init=zero", "model.init=zero: choose default, identity or paper"),
    ("model.colour=red", "model.colour: no such key"),
    ("+model.colour=red", "model settings: "),
    ("model.channels=2", "model.channels=2: choose 1 (luma) or 3 (RGB)"),
    ("model.padding_mode=wrap", "model.padding_mode=wrap: choose replicate"),
    ("model._target_=srcnn.nets.Unknown", "model._target_=srcnn.nets.Unknown: module srcnn.nets has no Unknown"),
    ("model._target_=nowhere.Net", "model._target_=nowhere.Net: there is no module nowhere"),
    ("loss=psnr loss.floor=0", "loss.floor=0: must be a number, between"),
    ("scheduler=cosine scheduler.schedule.shape=foo", "scheduler.schedule.shape=foo: choose cosine, linear or"),
    ("scheduler=cosine scheduler.interval=foo", "scheduler.interval=foo: choose step or epoch"),
    ("+scheduler.schedule._target_=torch.optim.lr_scheduler.ReduceLROnPlateau", "waits for a metric"),
    ("callbacks=ema callbacks.ema.decay=1.5", "callbacks.ema.decay=1.5: must be a number, between 0 and 1"),
    ("callbacks.guard.every_n_steps=soon", "callbacks.guard.every_n_steps=soon: must be a number"),
    ("callbacks.crops.side=0", "callbacks.crops.side=0: must be"),
    ("callbacks.checkpoint.save_top_k=-2", "callbacks.checkpoint settings: "),
    ("+callbacks.foo.bar=1", "callbacks.foo._target_=None: must be the full name of a class"),
    ("+logger.x._target_=nowhere.Class", "logger.x._target_=nowhere.Class: there is no module nowhere"),
    ("output_dir=runs/a", "output_dir: name the run's folder with hydra.run.dir"),
    ("trainer.accelerator=tpu", "trainer.accelerator=tpu: choose"),
    ("trainer.precision=foo", "trainer settings: "),
    ("trainer.strategy=fast", "trainer settings: "),
    ("trainer.max_epochs=-1", "trainer.max_epochs=-1 needs trainer.max_steps"),
    ("trainer.max_epochs=null", "trainer.max_epochs=null: must be a whole number"),
    ("trainer.gradient_clip_val=abc", "trainer settings: "),
    ("+trainer.foo=1", "trainer settings: "),
    ("+trainer.enable_checkpointing=false", "trainer settings: "),
    ("trainer.devices=2 data.batch_size=7", "data.batch_size=7: 2 processes cannot share it evenly"),
    ("-m trainer.devices=2 optim.lr=1e-4,1e-3", "trainer.devices=2: a sweep takes one process a run"),
    ("data.leaves.count=2 data.exclude=[leaves0,leaves1]", "data.exclude leaves no image of leaves"),
    ("resume=nowhere.ckpt", "nowhere.ckpt: no such checkpoint"),
    ("resume=auto", "name it with hydra.run.dir"),
    ("resume={broken}", "not a checkpoint, or a damaged one"),
    ("resume={other}", "holds weights only"),
    ("resume={root}/srcnn/weights/srcnn_x3.pth", "holds weights only"),
    ("resume={other} init_from={good}", "resume and init_from exclude each other"),
    ("init_from=nowhere.ckpt", "nowhere.ckpt: no such checkpoint"),
    ("init_from={other}", "conv1.weight is missing"),
]  # fmt: skip


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to work in, without image sets; signal handlers as they were afterwards."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SRCNN_DATA", str(tmp_path))
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    yield tmp_path
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("words", "sentence"), WRONG)
def test_wrong_setting(words: str, sentence: str, here: Path, monkeypatch, capsys) -> None:
    files = {name: here / f"{name}.pth" for name in ("broken", "other", "good")}
    files["broken"].write_bytes(b"PK\x03\x04 no checkpoint")
    torch.save({"layer.weight": torch.zeros(3)}, files["other"])
    torch.save(SRCNN().state_dict(), files["good"])
    before = set(here.iterdir())
    for name, path in {**files, "root": ROOT}.items():
        words = words.replace(f"{{{name}}}", str(path))
    small = [] if "data=" in words else [word for word in SMALL if word.partition("=")[0] + "=" not in words]
    monkeypatch.setattr(sys, "argv", ["train.py", *small, *words.split(" ")])
    with pytest.raises(SystemExit) as stop:
        train_command(train.train)
    output = capsys.readouterr()
    assert stop.value.code == 2, output.err
    assert output.out == ""
    assert output.err.startswith("error: ") and output.err.count("\n") == 1
    assert sentence in output.err
    assert set(here.iterdir()) == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(here: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", *SMALL, "trainer.accelerator=gpu"])
    with pytest.raises(SystemExit, match="2"):
        train_command(train.train)
    assert "trainer.accelerator=gpu: torch sees no GPU here; use cpu or auto" in capsys.readouterr().err
    assert not list(here.iterdir())


def test_only_a_folder_of_this_run_is_removed(here: Path, monkeypatch, capsys) -> None:
    (here / "old").mkdir()
    for folder in ("old", ".", "new"):
        monkeypatch.setattr(sys, "argv", ["train.py", *SMALL, "data.patch_size=12", f"hydra.run.dir={folder}"])
        with pytest.raises(SystemExit, match="2"):
            train_command(train.train)
        assert "data.patch_size=12" in capsys.readouterr().err
    assert [path.name for path in here.iterdir()] == ["old"]


@pytest.mark.parametrize("experiment", EXPERIMENTS)
@pytest.mark.parametrize("model", ["srcnn", "srcnn_residual", "espcn"])
def test_experiments_compose_with_every_network(experiment: str, model: str) -> None:
    """A recipe says nothing of a network; `paper` is one of a network."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose("train", [f"experiment={experiment}", "output_dir=x"])
        if experiment != "paper":
            assert cfg.model == compose("train", ["output_dir=x"]).model
    assert cfg.optim.lr > 0


@pytest.mark.parametrize(
    "name",
    ["a b.ckpt", "photo (1).ckpt", "a,b.ckpt", "lr=1.ckpt", "[x].ckpt", "grün_π.ckpt", "it's.ckpt", 'a"b.ckpt',
     "back\\slash.ckpt", "${x}.ckpt", "{a}.ckpt", "end\\", "5", "null.png"],
)  # fmt: skip
def test_paths_are_taken_as_typed(name: str) -> None:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        words = [quote_path(f"{key}={name}") for key in ("init_from", "data.root")]
        cfg = compose("train", [*words, "output_dir=x"])
    assert cfg.init_from == cfg.data.root == name
    assert parse("predict", [f"input={name}"]).input == name


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["foo=1"], "foo: no such key"),
        (["inptu=a.png"], "inptu: no such key; did you mean input?"),
        (["overwrite=5"], "overwrite=5: must be true or false"),
        (["ckpt_path="], "ckpt_path=: give a value"),
    ],
)
def test_wrong_words_without_hydra(words: list[str], sentence: str) -> None:
    with pytest.raises(UserError) as error:
        parse("predict", words)
    assert sentence in str(error.value)


def test_lists_without_hydra() -> None:
    assert parse("evaluate", ["data.test=[Set5, Set14]"]).data.test == ["Set5", "Set14"]


def test_precision_follows_the_hardware(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As /proc/cpuinfo of a Zen 4, of a Zen 3, and of an Arm Neoverse V1 have it."""
    for line, precision in (
        ("flags\t\t: fpu avx512f avx512_bf16 amx_tile", "bf16-mixed"),
        ("flags\t\t: fpu avx avx2 fma", "32-true"),
        ("Features\t: fp asimd bf16 i8mm", "bf16-mixed"),
    ):
        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{line}\n")
        features = cpu_features(tmp_path / "cpuinfo")
        monkeypatch.setattr("srcnn.run.precision.cpu_features", lambda features=features: features)
        assert best_precision(torch.device("cpu"))[0] == precision
    monkeypatch.setattr("srcnn.run.precision.cpu_features", lambda: None)
    for ratio, precision in ((0.1, "32-true"), (2.5, "bf16-mixed")):
        monkeypatch.setattr("srcnn.run.precision.bf16_speed", lambda ratio=ratio: ratio)
        assert best_precision(torch.device("cpu"))[0] == precision


def test_a_file_brings_no_class_and_no_place(tmp_path: Path) -> None:
    """What a checkpoint says was typed is taken where it chooses our groups and plain values, else it is refused."""
    path = tmp_path / "x.ckpt"
    base = {"network": "SRCNN", "arguments": {"scale": 3}, "state_dict": {}, "callbacks": {}, "global_step": 1}
    base |= {"optimizer_states": [{"state": {}, "param_groups": []}], "state_dict": {"net.x": torch.zeros(1)}}
    base |= {"loops": {"fit_loop": {"epoch_progress": {"current": {"processed": 0}}}}}

    def expanded(word: str) -> list[str]:
        torch.save({**base, "run": {"overrides": [word], "values": {}}}, path)
        return expand_resume([f"resume={path}"])

    for word in ("optim.lr=1e-3", "data.hold_out=[t1,t2]", "experiment=fast", "+trainer.profiler=simple",
                 r"data.train_dir='/a b/\${x}'", "~data.val"):  # fmt: skip
        assert expanded(word)[0] == word
    for word in ("optim._target_=os.system", "+logger.x={_target_: os.system}", "optim={_target_: os.system}",
                 "+loss.a.b._target_=x", "model=../../evil", "callbacks.last.dirpath=/etc", "hydra.run.dir=/",
                 "+callbacks.x.y=~/x", "data.val=${oc.env:HOME}", r"data.val='\\${oc.env:HOME}'",
                 "optim.lr=choice(1,2)", "optim@model=adam", "hydra/launcher=x", "nonsense=1"):  # fmt: skip
        with pytest.raises(UserError, match=r"type it again|cannot be read"):
            expanded(word)
    assert expanded("data.root=/elsewhere") == [f"resume={path}"]  # of the machine, left out
