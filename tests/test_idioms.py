"""What people who know Lightning and Hydra type and write, each as they would."""

import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import pytest
import torch
from conftest import ROOT, SMALL, read_csv, run
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset
from torchmetrics.image import StructuralSimilarityIndexMeasure

import srcnn
from srcnn.callbacks import StopOnNaN
from srcnn.checkpoint import load_network, read_checkpoint
from srcnn.errors import UserError
from srcnn.lit_module import SuperResolution
from srcnn.nets import SRCNN, Compact, Network
from srcnn.optim import Schedule
from srcnn.report.terminal import Banner
from train import train


def composed(*words: str) -> DictConfig:
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        return compose("train", list(words))


def pairs(net: Network, count: int = 8, side: int = 12) -> DataLoader:
    """A plain DataLoader of (lr, hr)."""
    lr, hr = (torch.rand(count, net.channels, side * scale, side * scale) for scale in (1, net.scale))
    return DataLoader(list(zip(lr, hr, strict=True)), batch_size=4)


def plain_trainer(folder: Path, **options: Any) -> L.Trainer:
    options = {"max_epochs": 2, "accelerator": "cpu", "logger": False, "enable_progress_bar": False, **options}
    return L.Trainer(default_root_dir=folder, enable_model_summary=False, **options)


def test_load_from_checkpoint(trained: Path) -> None:
    module = SuperResolution.load_from_checkpoint(trained / "checkpoints" / "best.ckpt")
    assert isinstance(module.net, SRCNN)
    assert module.hparams["network"] == "SRCNN" and module.hparams["arguments"]["kernels"] == [9, 1, 5]
    saved = read_checkpoint(trained / "checkpoints" / "best.ckpt")["state_dict"]
    assert all(torch.equal(module.state_dict()[key], saved[key]) for key in module.state_dict())
    assert module(torch.rand(1, 3, 8, 8)).shape == (1, 3, 24, 24)


class OwnOptimizer(SuperResolution):
    def configure_optimizers(self) -> torch.optim.Optimizer:
        groups = [{"params": [p], "weight_decay": 0.3 if p.ndim > 1 else 0.0} for p in self.net.parameters()]
        return torch.optim.AdamW(groups, lr=5e-2)


def test_ones_own_configure_optimizers(tmp_path: Path) -> None:
    module = OwnOptimizer(Compact(3, width=4, depth=1))
    trainer = plain_trainer(tmp_path, max_epochs=1)
    trainer.fit(module, pairs(module.net))
    (optimizer,) = trainer.optimizers
    assert type(optimizer) is torch.optim.AdamW and len(optimizer.param_groups) == len(list(module.net.parameters()))
    assert {group["lr"] for group in optimizer.param_groups} == {5e-2}
    assert optimizer.param_groups[0]["weight_decay"] == 0.3


class Changed(SuperResolution):
    def __init__(self, net: Network, alpha: float = 0.5, **options: Any):
        super().__init__(net, **options)
        self.save_hyperparameters(ignore=["net"])

    def configure_optimizers(self) -> Any:
        optimizer = super().configure_optimizers()
        optimizer.param_groups[0]["lr"] *= 10
        return optimizer


def test_what_a_subclass_changes_stays(tmp_path: Path) -> None:
    """Also when resumed at another rate; its own arguments come back, and no code is in the file."""
    options = {"optimizer": partial(torch.optim.Adam, lr=1e-3), "protocol": "basicsr"}
    module = Changed(Compact(3, width=4, depth=0), alpha=0.7, **options)
    trainer = plain_trainer(tmp_path, max_epochs=1)
    trainer.fit(module, pairs(module.net))
    assert trainer.optimizers[0].param_groups[0]["lr"] == 1e-2
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    loaded = Changed.load_from_checkpoint(tmp_path / "a.ckpt", lambda storage, place: storage, weights_only=True)
    assert loaded.hparams["alpha"] == 0.7 and loaded.hparams["network"] == "Compact"
    assert loaded.hparams["protocol"] == "basicsr"
    again, trainer = Changed(loaded.net, optimizer=partial(torch.optim.Adam, lr=5e-4)), plain_trainer(tmp_path)
    trainer.fit(again, pairs(module.net), ckpt_path=str(tmp_path / "a.ckpt"), weights_only=True)
    assert trainer.global_step == 4 and trainer.optimizers[0].param_groups[0]["lr"] == 5e-3
    other = SuperResolution(loaded.net, optimizer=partial(torch.optim.SGD, lr=1e-3))
    plain_trainer(tmp_path).test(other, pairs(module.net), ckpt_path=str(tmp_path / "a.ckpt"), verbose=False)
    with pytest.raises(UserError, match=r"a.ckpt: its optimiser is torch.optim.adam.Adam, not torch.optim.sgd.SGD"):
        plain_trainer(tmp_path).fit(other, pairs(module.net), ckpt_path=str(tmp_path / "a.ckpt"))


def test_a_module_of_ones_own(tmp_path: Path) -> None:
    cfg = composed(*SMALL, f"module._target_={__name__}.Changed", "+module.alpha=0.7", f"output_dir={tmp_path}")
    train(cfg)
    loaded = Changed.load_from_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    assert loaded.hparams["alpha"] == 0.7
    (state,) = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["optimizer_states"]
    assert state["param_groups"][0]["lr"] == 1e-3  # ten times the setting's


class Normalised(Network):
    """With a BatchNorm, whose count of batches is no mean to average."""

    receptive_radius = 1

    def __init__(self, scale: int = 3, block: dict | None = None):
        super().__init__(scale)
        self.body_scale, width = scale, (block or {"width": 4})["width"]
        norm, last = nn.BatchNorm2d(width), nn.Conv2d(width, 3 * scale**2, 1)
        self.body = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), norm, nn.ReLU(), last, nn.PixelShuffle(scale))


class OwnValidation(SuperResolution):
    def validation_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        self.log("val/l1", nn.functional.l1_loss(self(batch[0] / 1.0), batch[1] / 1.0), batch_size=1)


def test_another_network_and_another_figure(tmp_path: Path) -> None:
    """BatchNorm under EMA, nested arguments, best weights by a figure of one's own."""
    words = [
        f"module._target_={__name__}.OwnValidation",
        "callbacks=ema",
        f"output_dir={tmp_path}",
        "trainer.max_epochs=3",
    ]
    cfg = composed(*SMALL, *words, "callbacks.best.monitor=val/l1", "callbacks.best.mode=min")
    model = {"_target_": f"{__name__}.Normalised", "scale": 3, "block": {"width": 5}}
    OmegaConf.update(cfg, "model", model, merge=False, force_add=True)
    assert train(cfg) is None  # no val/psnr
    net, checkpoint = load_network(tmp_path / "weights.pth")
    assert net.body[1].num_batches_tracked > 0 and net.arguments["block"] == {"width": 5}
    assert checkpoint["run"]["checkpoint"].endswith("best.ckpt")


class Manual(SuperResolution):
    automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(nn.functional.l1_loss(self(batch[0]), batch[1]))
        optimizer.step()


def test_manual_optimisation(tmp_path: Path) -> None:
    module = Manual(Compact(3, width=4, depth=0))
    trainer = plain_trainer(tmp_path, callbacks=[StopOnNaN(1)], log_every_n_steps=0)
    trainer.fit(module, pairs(module.net))
    assert trainer.global_step == 4


class Endless(IterableDataset):
    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield torch.rand(3, 12, 12), torch.rand(3, 36, 36)


@pytest.mark.parametrize(("endless", "factor"), [(False, 0.5), (True, 1.0)])
def test_a_schedule_of_a_run_by_steps(endless: bool, factor: float, tmp_path: Path) -> None:
    """Counted in epochs, of two batches each; where an epoch has no end the rate stays."""
    module = SuperResolution(Compact(3, width=4, depth=0), nn.functional.l1_loss, partial(torch.optim.SGD, lr=1.0))
    module.schedule, module.interval = Schedule("linear"), "epoch"
    data = DataLoader(Endless(), batch_size=4) if endless else pairs(module.net)
    trainer = plain_trainer(tmp_path, max_epochs=-1, max_steps=4, callbacks=[Rates(), Banner()])
    trainer.fit(module, data)
    assert Rates.found == [1.0, 1.0, factor, factor]


def test_a_batch_size_finder_leaves_the_run_to_be_trained(tmp_path: Path) -> None:
    finder = (
        "+callbacks.finder={_target_: lightning.pytorch.callbacks.BatchSizeFinder, max_trials: 1, steps_per_trial: 1}"
    )
    run("train.py", *SMALL, finder, "hydra.run.dir=run", cwd=tmp_path)
    assert load_network(tmp_path / "run")[1]["run"]["steps"] > 0


class Rates(L.Callback):
    found: ClassVar[list[float]]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        Rates.found = []

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        Rates.found.append(trainer.optimizers[0].param_groups[0]["lr"])


def test_images_of_a_batch_are_scored_one_by_one(tmp_path: Path) -> None:
    module = SuperResolution(Compact(3, width=4, depth=0))
    data = pairs(module.net)
    trainer = plain_trainer(tmp_path)
    trainer.test(module, data, verbose=False)
    scores = [score.psnr for *_, score in module.scores]
    trainer.test(module, DataLoader(data.dataset), verbose=False)
    assert len(scores) == 8 and scores == pytest.approx([score.psnr for *_, score in module.scores])
    assert [image.shape for image in trainer.predict(module, data)] == [(4, 3, 36, 36)] * 2


class Own(L.LightningDataModule):
    def train_dataloader(self) -> DataLoader:
        return pairs(SRCNN(3))

    val_dataloader = test_dataloader = train_dataloader


def test_a_data_module_of_ones_own(tmp_path: Path) -> None:
    cfg = composed("trainer.max_epochs=1", "trainer.accelerator=cpu", f"output_dir={tmp_path}")
    OmegaConf.update(cfg, "data", {"_target_": f"{__name__}.Own"}, merge=False, force_add=True)
    assert train(cfg) > 5
    assert load_network(tmp_path)[1]["run"]["psnr"]["test"] > 5


@pytest.mark.parametrize("net", [SRCNN(3), Compact(2, width=4, depth=1), Compact(3, channels=1, width=4, depth=1)])
def test_a_plain_dataloader(net: Network, tmp_path: Path) -> None:
    """Of floats or bytes, in fit, validate and test; and its checkpoint loads."""
    module = SuperResolution(net, optimizer=partial(torch.optim.Adam, lr=1e-3))
    trainer = plain_trainer(tmp_path)
    side = 20
    trainer.fit(module, pairs(net, side=side), pairs(net, side=side))
    as_bytes = DataLoader([[(255 * image).byte() for image in pair] for pair in pairs(net, side=side).dataset])  # type: ignore
    found = trainer.validate(module, as_bytes, verbose=False)[0]
    assert found["val/psnr"] > 5 and found["val/psnr_bicubic"] > 5
    trainer.test(module, as_bytes, verbose=False)
    assert len(module.scores) == 8
    trainer.save_checkpoint(tmp_path / "plain.ckpt")
    loaded = srcnn.load(str(tmp_path / "plain.ckpt"))
    lr = torch.rand(1, net.channels, 8, 9)
    assert torch.equal(loaded(lr), net.eval()(lr))


def test_sizes_that_do_not_fit(tmp_path: Path) -> None:
    module = SuperResolution(Compact(3, width=4, depth=0))
    wrong = DataLoader([(torch.rand(3, 8, 8), torch.rand(3, 16, 16))])
    with pytest.raises(ValueError, match=r"lr is \[1, 3, 8, 8\] and hr \[1, 3, 16, 16\], not 3 times as large"):
        plain_trainer(tmp_path).fit(module, wrong)


class WithSSIM(SuperResolution):
    """The README's example."""

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self.ssim = StructuralSimilarityIndexMeasure(data_range=1.0)

    def validation_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        images = super().validation_step(batch, batch_idx)
        self.ssim(images["sr"], images["hr"])
        self.log("val/ssim", self.ssim)
        return images


def test_a_metric_of_ones_own(tmp_path: Path) -> None:
    module = WithSSIM(Compact(3, width=4, depth=0))
    (found,) = plain_trainer(tmp_path).validate(module, pairs(module.net), verbose=False)
    assert 0 < found["val/ssim"] <= 1


def test_train_in_a_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cfg = composed(*SMALL)
    assert train(cfg) > 10
    assert Path(cfg.output_dir, "weights.pth").is_file() and Path(cfg.output_dir, "report.html").is_file()
    with pytest.raises(UserError, match="resume= is for the command line"):
        train(composed(*SMALL, "resume=x"))


def test_every_group_is_instantiated() -> None:
    cfg = composed("callbacks=ema", "optim=muon", "scheduler=cosine", "data=leaves", "logger=none")
    net = instantiate(cfg.model)
    assert instantiate(cfg.optim)(net).param_groups[0]["lr"] == cfg.optim.lr
    assert instantiate(cfg.data).scale == 3 and instantiate(cfg.loss) and instantiate(cfg.degradation)
    assert isinstance(instantiate(cfg.scheduler).schedule, Schedule)
    for part in cfg.callbacks.values():
        assert isinstance(instantiate(part), L.Callback)
    assert isinstance(instantiate(cfg.trainer), L.Trainer)
    for part in composed().logger.values():
        assert instantiate(part)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--cfg", "job"], "_target_: srcnn.nets.SRCNN"),
        (["--info", "defaults"], "Defaults List"),
        (["trainer=gpu", "--cfg", "job"], "accelerator: gpu"),
        (["experiment=fast", "--cfg", "job", "--package", "optim"], "srcnn.optim.Muon"),
        (["--help"], "experiment"),
    ],
)
def test_hydras_flags(words: list[str], expected: str, tmp_path: Path) -> None:
    assert expected in run("train.py", *words, cwd=tmp_path)


def test_a_config_dir_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text("# @package _global_\noptim: {lr: 0.123}\n")
    assert "lr: 0.123" in run("train.py", "--config-dir", "conf", "experiment=mine", "--cfg", "job", cwd=tmp_path)


@pytest.mark.parametrize(
    "words",
    [
        ["trainer=debug"],
        ["logger=none"],
        ["~logger"],
        ["logger=null"],
        ["logger=tensorboard"],
        ["callbacks=none"],
        ["trainer.check_val_every_n_epoch=null", "+trainer.val_check_interval=3", "trainer.max_epochs=2"],
        ["trainer.deterministic=warn"],
        ["trainer.fast_dev_run=3"],
        ["+trainer.enable_progress_bar=false"],
        ["+trainer.overfit_batches=1"],
        ["+trainer.limit_test_batches=0"],
    ],
)
def test_trainer_logger_and_callbacks_as_typed(words: list[str], tmp_path: Path) -> None:
    output = run("train.py", *SMALL, *words, "hydra.run.dir=run", cwd=tmp_path)
    is_tested = "+trainer.limit_test_batches=0" not in words
    assert ("mean" in output) == (tmp_path / "run" / "scores.json").is_file() == is_tested
    assert (tmp_path / "run" / "weights.pth").is_file()


@pytest.mark.parametrize("precision", ["64-true", "bf16-true", "16-mixed"])
def test_any_precision(precision: str, tmp_path: Path) -> None:
    """Trained in it, tested in float32 as the file is loaded."""
    output = run("train.py", *SMALL, f"trainer.precision={precision}", "hydra.run.dir=run", cwd=tmp_path)
    used = precision.replace("16-mixed", "bf16-mixed")  # Lightning's, on a CPU
    assert f"precision {used}\n" in output
    assert read_checkpoint(tmp_path / "run" / "weights.pth")["run"]["machine"]["precision"] == used
    test = ["ckpt_path=run", "output=again"]
    run("-m", "srcnn.evaluate", *test, cwd=tmp_path)
    scores, again = (json.loads((tmp_path / name / "scores.json").read_text()) for name in ("run", "again"))
    assert scores["images"] == again["images"]


def test_time_is_up(tmp_path: Path) -> None:
    """Training ends with a word; so does a resume that has no time left, and `+` is not needed to give it more."""
    words = [*SMALL, "+trainer.max_time=00:00:00:01", "trainer.max_epochs=-1", "hydra.run.dir=run"]
    assert "time is up" in run("train.py", *words, cwd=tmp_path)
    assert "nothing left to train" in run("train.py", "resume=run", cwd=tmp_path)
    longer = run("train.py", "resume=run", "trainer.max_time=00:00:00:03", cwd=tmp_path)
    assert "time is up" in longer and "epoch" in longer


def test_averaged_weights_of_lightnings_are_shipped(tmp_path: Path) -> None:
    """Of where the second and the third epoch began, as its StochasticWeightAveraging has it."""
    swa = "+callbacks.swa={_target_: lightning.pytorch.callbacks.StochasticWeightAveraging, swa_lrs: 1e-3, "
    words = [swa + "swa_epoch_start: 2}", "callbacks.checkpoint.every_n_epochs=1", "trainer.max_epochs=3"]
    run("train.py", *SMALL, *words, "optim.lr=1e-3", "hydra.run.dir=run", cwd=tmp_path)
    states = [read_checkpoint(path)["state_dict"] for path in sorted((tmp_path / "run").rglob("epoch_*.ckpt"))[:2]]
    for key, value in load_network(tmp_path / "run")[0].state_dict().items():
        mean = torch.stack([state[f"net.{key}"] for state in states]).mean(0)
        assert torch.allclose(value, mean, atol=1e-5) and not torch.equal(value, states[-1][f"net.{key}"])


def test_a_gpu_that_is_not_there_is_lightnings_to_refuse(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    output = run("train.py", *SMALL[:-2], "trainer=gpu", "trainer.devices=[0]", cwd=tmp_path, code=1)
    assert "No supported gpu backend found" in output


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["optim.lrr=1"], "Could not override 'optim.lrr'"),
        (["model=unet"], "Could not find 'model/unet'"),
        (["trainer.max_epochs=abc"], "abc"),
    ],
)
def test_keys_and_choices_are_hydras_to_refuse(words: list[str], expected: str, tmp_path: Path) -> None:
    assert expected in run("train.py", *SMALL, *words, cwd=tmp_path, code=1)


def test_a_schedules_options_without_a_schedule(tmp_path: Path) -> None:
    words = ["experiment=quickstart", *SMALL[1:], "scheduler=none"]
    assert "add ~scheduler.schedule" in run("train.py", *words, cwd=tmp_path, code=2)
    run("train.py", *words, "~scheduler.schedule", cwd=tmp_path)


def test_early_stopping_without_validation_images(tmp_path: Path) -> None:
    output = run("train.py", *SMALL, "callbacks=early_stopping", "data.hold_out=[]", cwd=tmp_path, code=2)
    assert "data.hold_out" in output and "callbacks.early_stopping" in output


def test_sweeps_over_any_key(images: Path, tmp_path: Path) -> None:
    """null and a name, folders: a run each, ranked as typed."""
    words = [*SMALL, "hydra.sweep.dir=sweep", "logger=csv"]
    output = run("train.py", "-m", *words, "init_from=null,srcnn_x3", cwd=tmp_path)
    assert "init_from=null" in output and "init_from=srcnn_x3" in output
    best = json.loads((tmp_path / "sweep" / "1" / "scores.json").read_text())
    assert best["mean"]["leaves"]["gain"] > 0.5
    for name in "AB":
        (tmp_path / name).symlink_to(images)
    folders = ["data=folder", "data.train_dir=A,B", f"data.test=[{images}]", "data.batch_size=32"]
    output = run("train.py", "-m", *folders, "trainer.max_epochs=1", "trainer.accelerator=cpu", cwd=tmp_path)
    assert "sweep of 2 runs" in output


NETWORK = """
from torch import nn
from srcnn.nets import Network

class OneLayer(Network):
    receptive_radius = 1

    def __init__(self, scale: int = 3, width: int = 4):
        super().__init__(scale)
        self.body_scale = scale
        layers = nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 3 * scale**2, 1), nn.PixelShuffle(scale)
        self.body = nn.Sequential(*layers)
"""


def test_a_network_in_ones_own_module(tmp_path: Path) -> None:
    """Trained, loaded and evaluated, without a file in srcnn/nets."""
    (tmp_path / "mynet.py").write_text(NETWORK)
    model = [
        "model._target_=mynet.OneLayer",
        *(f"~model.{key}" for key in composed().model if key not in ("_target_", "scale")),
    ]
    env = {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    words = [*SMALL, *model, "+model.width=5", "data.hold_out=[]", "hydra.run.dir=run"]
    assert "site-packages" not in run("train.py", *words, cwd=tmp_path, env=env)  # in warnings
    refused = run("predict.py", "ckpt_path=run", "x.png", cwd=tmp_path, code=2)
    assert "'OneLayer' is not known here" in refused and "imports=[" in refused
    output = run(
        "-m",
        "srcnn.evaluate",
        "ckpt_path=run/weights.pth",
        "imports=[mynet]",
        "data.test=[photos]",
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
    )
    assert "OneLayer" in output
    sys.path.insert(0, str(tmp_path))
    try:
        import mynet
    finally:
        sys.path.pop(0)
    net = srcnn.load(str(tmp_path / "run" / "checkpoints" / "last.ckpt"))
    assert isinstance(net, mynet.OneLayer) and net.arguments == {"scale": 3, "width": 5}
    assert srcnn.check(net) == []


TORCH_SCHEDULES = [
    ["OneCycleLR", "max_lr=1e-2"],
    ["ReduceLROnPlateau", "patience=1"],
    ["StepLR", "step_size=1"],
    ["CosineAnnealingLR", "T_max=4"],
]


@pytest.mark.parametrize("schedule", TORCH_SCHEDULES, ids=lambda words: words[0])
def test_torchs_schedulers(schedule: list[str], tmp_path: Path) -> None:
    name, option = schedule[0], schedule[1].replace("=", ": ")
    target = f"scheduler.schedule={{_target_: torch.optim.lr_scheduler.{name}, _partial_: true, {option}}}"
    words = [
        *SMALL,
        target,
        "scheduler.interval=epoch",
        "trainer.max_epochs=3",
        "trainer.log_every_n_steps=1",
        "hydra.run.dir=run",
    ]
    run("train.py", *words, cwd=tmp_path)
    rates = [float(row["train/lr"]) for row in read_csv(tmp_path / "run" / "metrics.csv") if row.get("train/lr")]
    assert len(rates) == 3 * 3
    if schedule[0] == "OneCycleLR":
        assert max(rates) == pytest.approx(1e-2, rel=0.3) and rates[-1] < rates[0]
    elif schedule[0] != "ReduceLROnPlateau":
        assert rates[-1] < rates[0] == pytest.approx(1e-4)


def test_hparams_say_what_it_was_made_of() -> None:
    schedule = partial(torch.optim.lr_scheduler.StepLR, step_size=3)
    module = SuperResolution(Compact(2, width=4), nn.L1Loss(), partial(torch.optim.SGD, lr=0.1), schedule, "epoch")
    expected: dict[str, Any] = {"network": "Compact", "loss": "torch.nn.modules.loss.L1Loss", "interval": "epoch"}
    assert module.hparams.items() >= expected.items()
    assert module.hparams["optimizer"] == {"_target_": "torch.optim.sgd.SGD", "lr": 0.1}
    assert module.hparams["arguments"]["width"] == 4 and module.hparams["schedule"]["step_size"] == 3


def test_the_run_folder_has_hydras_own_record(trained: Path) -> None:
    assert OmegaConf.load(trained / ".hydra" / "config.yaml").model._target_ == "srcnn.nets.SRCNN"
    net, checkpoint = load_network(trained / "weights.pth")
    assert checkpoint["run"]["settings"]["optim"]["lr"] == 1e-4 and net.scale == 3
