"""The data of a run: patches to train on, whole images to validate and test on."""

import os
from collections import UserList
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from srcnn.data.degrade import Bicubic, Degradation
from srcnn.data.leaves import Leaves
from srcnn.data.pack import pack
from srcnn.data.patches import Patches
from srcnn.data.samples import Sample, label, read_samples, set_images
from srcnn.data.sources import Rescaled, Source, match
from srcnn.errors import UserError, check_range
from srcnn.files import is_image_name


class SRDataModule(L.LightningDataModule):
    """Pairs of LR and HR: batches of patches to train on, then whole images one by one (`srcnn.data.samples.Sample`).

    `train` and `test` name sets (see `srcnn.data.sets`) or folders; "leaves" are generated, "pairs" are LR and HR
    images in two folders.

    degradation  how LR images are made
    train_dir  a folder to train on, instead of `train`
    train_hr, train_lr, test_hr, test_lr   folders of pairs; without the latter two, those held out are tested on
    hold_out   training images kept for validation: their names (without the ending), or how many: 10 are evenly
               spread, -10 the last ten
    val        a set or folder to validate on instead
    exclude    names to leave out (T91 holds one image twice)
    leaves     count, size and seed of the dead-leaves images
    rescale    factors from 0 to 1: of every training image a copy of that size is trained on as well
    sampling   of patches: see `srcnn.data.patches.Patches`
    """

    def __init__(
        self,
        scale: int = 3,
        degradation: Degradation | None = None,
        *,
        root: str = "data",
        train: str = "T91",
        train_dir: str | None = None,
        train_hr: str | None = None,
        train_lr: str | None = None,
        test_hr: str | None = None,
        test_lr: str | None = None,
        val: str | None = None,
        test: Sequence[str] = ("Set5",),
        exclude: Sequence[str] = (),
        hold_out: Sequence[str] | int = (),
        leaves: Mapping[str, int] | None = None,
        rescale: Sequence[float] = (),
        batch_size: int = 128,
        **sampling: Any,
    ):
        super().__init__()
        self.scale, self.degradation, self.root = scale, degradation or Bicubic(), root
        self.train_pairs, self.test_pairs = (train_hr, train_lr), (test_hr, test_lr)
        self.train = os.path.join(".", train_dir) if train_dir else train  # with "./": not the set "photos"
        self.val, self.test = val, test
        self.exclude, self.hold_out, self.leaves, self.rescale = exclude, hold_out, leaves, rescale
        if isinstance(test, str) or not test or not all(isinstance(name, str) for name in test):
            raise UserError(f"data.test={test}: must be a list of sets or folders, as [Set5]")
        if "leaves" in (train, *test) and not leaves:
            raise UserError("data.leaves=null: images called leaves need their settings, as data=leaves has them")
        for factor in rescale:
            check_range("data.rescale", factor, 0.1, 1)
        check_range("data.batch_size", batch_size, 1)
        check_range("data.stride", sampling.get("stride", 1), 1)
        self.sampling = {"batch_size": batch_size, **sampling}

    def setup(self, stage: str | None = None) -> None:
        """Read the images; raises UserError for what is wrong with one."""
        if stage == "test":
            needs_held_out = "pairs" in self.test and not all(self.test_pairs)
            self._read_tests(self._split()[1] if needs_held_out else {})
            return
        training, held_out = self._split()
        copies = {f"{name} x {f}": Rescaled(image, f) for f in self.rescale for name, image in training.items()}
        image_set = self.val or self.train
        self.validation = read_samples(held_out, image_set, image_set, self.scale, self.degradation)
        if stage == "validate":
            return
        self._read_tests(held_out)
        trainer: Any = self.trainer
        if trainer and self.sampling["batch_size"] % trainer.world_size:
            size = self.sampling["batch_size"]
            raise UserError(f"data.batch_size={size}: {trainer.world_size} processes cannot share it evenly")
        if trainer and trainer.early_stopping_callbacks and not self.validation:
            raise UserError("data.hold_out=[] leaves no image to validate on, which callbacks.early_stopping waits for")
        net = getattr(trainer.lightning_module, "net", None) if trainer else None
        margin = getattr(net, "margin", 0)
        self.patches = Patches(pack(training | copies, self.scale, self.degradation), margin=margin, **self.sampling)
        if trainer:
            self.patches.to(trainer.strategy.root_device)

    def _read_tests(self, held_out: Mapping[str, Source]) -> None:
        self.testing: list[Sample] = []
        for name in self.test:
            images = held_out if name == "pairs" and not all(self.test_pairs) else self._images(name, self.test_pairs)
            self.testing += read_samples(images, label(name, self.test), name, self.scale, self.degradation)

    def train_dataloader(self) -> "_Batches":
        return _Batches(self.patches, self.trainer)

    # Whole images one by one, all of them for every process: none is repeated, and none need be gathered.
    # To Lightning a list is one of loaders.
    def val_dataloader(self) -> UserList[Sample] | list:
        return UserList(self.validation) if self.validation else []

    def test_dataloader(self) -> UserList[Sample]:
        return UserList(self.testing)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        if device.type == "cpu":
            return batch  # it is there; looking through it would take a millisecond a step
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    @property
    def ignored(self) -> int:
        """Image files in subfolders of the training folder, which are not trained on."""
        folder = Path(self.train)
        return sum(is_image_name(path) for path in folder.glob("*/**/*")) if folder.is_dir() else 0

    def _split(self) -> tuple[dict[str, Source], dict[str, Source]]:
        """Images to train on and to validate on."""
        images = self._images(self.train, self.train_pairs)
        images = {name: image for name, image in images.items() if name not in self.exclude}
        if self.val:
            return images, self._images(self.val, self.train_pairs)
        if not images:
            raise UserError(f"data.exclude leaves no image of {self.train}")
        names, wanted = list(images), self.hold_out
        if not isinstance(wanted, int):
            held_out = set(map(str, wanted))
        elif wanted < 0:
            held_out = set(names[wanted:])
        else:
            held_out = {names[i * len(names) // wanted] for i in range(wanted)}
        if unknown := held_out - set(images):
            raise UserError(f"data.hold_out names no image of {self.train}: {', '.join(sorted(unknown))}")
        if len(held_out) >= len(images):
            raise UserError(f"data.hold_out={wanted} leaves none of the {len(images)} images to train on")
        training = {name: image for name, image in images.items() if name not in held_out}
        return training, {name: images[name] for name in images if name in held_out}

    def _images(self, name: str, pairs: tuple[str | None, str | None]) -> dict[str, Source]:
        """The images of a set by name."""
        if name == "leaves":
            assert self.leaves
            check_range("data.leaves.count", self.leaves["count"], 2)
            check_range("data.leaves.size", self.leaves["size"], 24, 8192)
            return {
                f"leaves{number}": Leaves(number, self.leaves["size"], self.leaves["seed"])
                for number in range(self.leaves["count"])
            }
        if name != "pairs":
            return set_images(name, self.root)
        hr, lr = pairs
        if not (hr and lr):
            raise UserError("data.train_hr, data.train_lr: name the folders with the HR and LR images")
        return dict(match(hr, lr, self.scale))


class _Batches:
    """An epoch of patches, as Lightning iterates it. The loop's counters name the batch, so there is nothing to save:
    whenever a run is resumed, also in the middle of an epoch, the next batch is the one that was due."""

    def __init__(self, patches: Patches, trainer: L.Trainer | None):
        self.patches, self.trainer = patches, trainer

    def __len__(self) -> int:
        return len(self.patches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        trainer: Any = self.trainer
        if trainer is None:  # without Lightning: the first epoch
            yield from map(self.patches.batch, range(len(self)))
            return
        while True:
            epoch = 0 if trainer.overfit_batches else trainer.current_epoch  # overfitting: the same batches again
            number = epoch * len(self) + trainer.fit_loop.epoch_loop.batch_progress.current.ready
            yield self.patches.batch(number, trainer.global_rank, trainer.world_size)

    def state_dict(self) -> dict:  # these two tell Lightning that it may resume within an epoch
        return {}

    def load_state_dict(self, state: dict) -> None:
        pass
