"""The data of a run: patches to train on, whole images to validate and test on."""

import os
from collections import UserList
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
from torch import Tensor

from srcnn.data.degrade import Bicubic, Degradation
from srcnn.data.leaves import Leaves
from srcnn.data.pack import pack
from srcnn.data.patches import Patches
from srcnn.data.samples import Sample, label, read_samples, set_images
from srcnn.data.sources import Rescaled, Source, match
from srcnn.errors import UserError, check_range
from srcnn.files import is_image_name

Images = Mapping[str, Source]  # by name


class SRDataModule(L.LightningDataModule):
    """Pairs of LR and HR: batches of patches to train on, then whole images one by one (`srcnn.data.samples.Sample`).

    `train` and `test` name sets (see `srcnn.data.sets`) or folders; "leaves" are generated, "pairs" are LR and HR
    images in two folders.

    degradation  how LR images are made
    train_dir  a folder to train on, instead of `train`
    train_hr, train_lr, test_hr, test_lr   folders of pairs; without the latter two, those held out are tested on
    val        a set or folder to validate on
    hold_out   or else training images kept for validation: their names (without the ending), or how many: 10 are
               evenly spread, -10 the last ten
    exclude    names to leave out (T91 holds one image twice)
    leaves     count, size and seed of the dead-leaves images
    rescale    factors from 0 to 1: of every training image a copy of that size is trained on as well
    sampling   of patches, with the three before it: see `srcnn.data.patches.Patches`
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
        patch_size: int = 33,
        stride: int = 14,
        **sampling: Any,
    ):
        super().__init__()
        self.scale, self.degradation, self.root = scale, degradation or Bicubic(), root
        self.train = os.path.join(".", train_dir) if train_dir else train  # with "./": not the set "photos"
        self.train_pairs, self.test_pairs = (train_hr, train_lr), (test_hr, test_lr)
        self.val, self.test, self.exclude, self.hold_out, self.rescale = val, test, exclude, hold_out, rescale
        self.leaves = leaves or {"count": 64, "size": 256, "seed": 0}
        self.batch_size, self.sampling = batch_size, {"patch_size": patch_size, "stride": stride, **sampling}
        if isinstance(test, str) or not test or not all(isinstance(name, str) for name in test):
            raise UserError(f"data.test={test}: must be a list of sets or folders, as [Set5]")
        check_range("data.leaves.count", self.leaves["count"], 2)
        check_range("data.leaves.size", self.leaves["size"], 24, 8192)
        for factor in rescale:
            check_range("data.rescale", factor, 0.1, 1)
        for name, value, least in (("batch", batch_size, 1), ("patch", patch_size, scale)):
            check_range(f"data.{name}_size", value, least)
            if not isinstance(value, int):
                raise UserError(f"data.{name}_size={value}: must be a whole number")
        check_range("data.stride", stride, 1)

    def setup(self, stage: str | None = None) -> None:
        """Read the images; raises UserError for what is wrong with one."""
        if stage != "validate":
            self.testing: list[Sample] = []
            for name in self.test:
                are_held_out = name == "pairs" and not all(self.test_pairs)
                images = self._split()[1] if are_held_out else self._images(name, self.test_pairs)
                self.testing += read_samples(images, label(name, self.test), self.scale, self.degradation)
        if stage == "test":
            return
        training, validation = self._split()
        self.validation = read_samples(validation, self.val or self.train, self.scale, self.degradation)
        if stage == "validate":
            return
        trainer: Any = self.trainer
        if trainer and self.batch_size % trainer.world_size:
            count = trainer.world_size
            raise UserError(f"data.batch_size={self.batch_size}: {count} processes cannot share it evenly")
        if trainer and trainer.early_stopping_callbacks and not self.validation:
            raise UserError("data.hold_out=[] leaves no image to validate on, which callbacks.early_stopping waits for")
        copies = {f"{name} x {f}": Rescaled(image, f) for f in self.rescale for name, image in training.items()}
        packed = pack({**training, **copies}, self.scale, self.degradation)
        margin = getattr(getattr(trainer and trainer.lightning_module, "net", None), "margin", 0)
        self.patches = Patches(packed, margin=margin, batch_size=self.batch_size, **self.sampling)
        if trainer:
            self.patches.to(trainer.strategy.root_device)

    def _split(self) -> tuple[Images, Images]:
        """Images to train on and to validate on."""
        found = self._images(self.train, self.train_pairs)
        images = {name: image for name, image in found.items() if name not in self.exclude}
        if not images:
            raise UserError(f"data.exclude leaves no image of {self.train}")
        if self.val:
            return images, self._images(self.val, self.train_pairs)
        names, wanted = list(images), self.hold_out
        if not isinstance(wanted, int):
            held_out = set(map(str, wanted))
        elif wanted < 0:
            held_out = set(names[wanted:])
        else:
            held_out = {names[i * len(names) // wanted] for i in range(wanted)}
        validation = {name: images.pop(name) for name in names if name in held_out}
        if unknown := held_out - set(validation):
            raise UserError(f"data.hold_out names no image of {self.train}: {', '.join(sorted(unknown))}")
        if not images:
            raise UserError(f"data.hold_out={self.hold_out} leaves none of the {len(names)} images to train on")
        return images, validation

    def _images(self, name: str, pairs: tuple[str | None, str | None]) -> Images:
        """The images of a set or folder; of "pairs" those in the two folders."""
        if name == "leaves":
            count, size, seed = (self.leaves[key] for key in ("count", "size", "seed"))
            return {f"leaves{number}": Leaves(number, size, seed) for number in range(count)}
        if name != "pairs":
            return set_images(name, self.root)
        hr, lr = pairs
        if not (hr and lr):
            raise UserError("data.train_hr, data.train_lr: name the folders with the HR and LR images")
        return match(hr, lr, self.scale)

    def train_dataloader(self) -> "_Batches":
        self.patches.batch_size = self.batch_size  # which Lightning's BatchSizeFinder changes
        return _Batches(self.patches, self.trainer)

    # Whole images one by one, all of them for every process: none is repeated, and none need be gathered.
    # To Lightning a list is one of loaders.
    def val_dataloader(self) -> UserList[Sample] | list:
        return UserList(self.validation) if self.validation else []

    def test_dataloader(self) -> UserList[Sample]:
        return UserList(self.testing)

    @property
    def ignored(self) -> int:
        """Image files in subfolders of the training folder, which are not trained on."""
        folder = Path(self.train)
        return sum(is_image_name(path) for path in folder.glob("*/**/*")) if folder.is_dir() else 0


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
