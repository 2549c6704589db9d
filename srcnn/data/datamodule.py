"""The data of a run: patches to train on, whole images to validate and test on."""

import hashlib
from collections import UserList
from collections.abc import Iterator, Sequence
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
from srcnn.nets import Network


class SRDataModule(L.LightningDataModule):
    """Images for a network: `train` and `test` name sets (see `srcnn.data.sets`) or folders; "leaves" are
    generated, "pairs" are LR and HR images of one's own.

    degradation  how LR images are made
    train_dir  a folder to train on, instead of `train`
    train_hr, train_lr, test_hr, test_lr   folders of pairs; without the latter two, those held out are tested on
    hold_out   training images kept for validation: their names (without the ending), or how many: 10 are evenly
               spread, -10 the last ten
    val        a set or folder to validate on instead
    exclude    names to leave out (T91 holds one image twice)
    leaves     count, size and seed of the dead-leaves images
    rescale    factors from 0 to 1: of every training image a copy of that size is trained on as well
    The rest is described in `srcnn.data.patches.Patches`.
    """

    def __init__(
        self,
        net: Network,
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
        leaves: dict[str, int] | None = None,
        rescale: Sequence[float] = (),
        patch_size: int = 33,
        stride: int = 14,
        random: bool = False,
        augment: bool = True,
        permute_colours: bool = False,
        batch_size: int = 128,
        seed: int = 0,
    ):
        super().__init__()
        self.net, self.root, self.degradation = net, root, degradation or Bicubic()
        self.train_pairs, self.test_pairs = (train_hr, train_lr), (test_hr, test_lr)
        self.train, self.val, self.test = train_dir or train, val, test
        self.exclude, self.hold_out, self.leaves, self.rescale = exclude, hold_out, leaves, rescale
        if isinstance(test, str) or not test or not all(isinstance(name, str) for name in test):
            raise UserError(f"test={test}: must be a list of sets or folders, as [Set5]")
        if "leaves" in (train, *test):
            if not leaves:
                raise UserError("leaves=null: images called leaves need their settings, as data=leaves has them")
            check_range("leaves.count", leaves["count"], 2)
            check_range("leaves.size", leaves["size"], 24, 8192)
        for factor in rescale:
            check_range("rescale", factor, 0.1, 1)
        check_range("batch_size", batch_size, 1)
        check_range("stride", stride, 1)
        least = 2 * net.train_border + net.body_scale
        if patch_size < least or patch_size % net.body_scale:
            multiple = f" and a multiple of {net.body_scale}" if net.body_scale > 1 else ""
            raise UserError(f"patch_size={patch_size}: {type(net).__name__} needs at least {least}{multiple}")
        self.sampling: dict[str, Any] = {"patch_size": patch_size, "stride": stride, "random": random}
        self.sampling |= {"augment": augment, "permute_colours": permute_colours, "batch_size": batch_size}
        self.sampling["seed"] = seed

    def load(self) -> None:
        """Read all images, so that what is wrong with one shows before a run begins; raises UserError."""
        self.training, held_out = self._split()
        copies = {f"{name} x {f}": Rescaled(image, f) for f in self.rescale for name, image in self.training.items()}
        image_set = self.val or self.train
        self.validation = read_samples(held_out, image_set, image_set, self.net.scale, self.degradation)
        self.testing = []
        for name in self.test:
            images = held_out if name == "pairs" and not all(self.test_pairs) else self._images(name, self.test_pairs)
            self.testing += read_samples(images, label(name, self.test), name, self.net.scale, self.degradation)
        self.pack = pack(self.training | copies, self.net.scale, self.degradation)
        self.patches = Patches(self.pack, self.net, **self.sampling)

    @property
    def fingerprint(self) -> dict[str, str]:
        """A digest of the names, sizes and times of the image files trained and validated on, by set."""
        digests = {}
        for name in filter(None, (self.train, self.val)):
            if name != "leaves":
                files = [file for image in self._images(name, self.train_pairs).values() for file in image.identity()]
                facts = repr([(Path(path).name, *state) for path, *state in files])
                digests[name] = hashlib.sha256(facts.encode()).hexdigest()[:16]
        return digests

    def setup(self, stage: str) -> None:
        if not hasattr(self, "patches"):
            self.load()
        if stage == "fit" and self.trainer and self.patches.device != self.trainer.strategy.root_device:
            self.patches.to(self.trainer.strategy.root_device)

    def train_dataloader(self) -> "_Batches":
        assert self.trainer
        return _Batches(self.patches, self.trainer)

    # Whole images one by one, for every process all of them: none is repeated, and none need be gathered.
    # To Lightning a list is one of loaders.
    def val_dataloader(self) -> UserList[Sample] | list:
        return UserList(self.validation) if self.validation else []

    def test_dataloader(self) -> UserList[Sample]:
        return UserList(self.testing)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        if device.type == "cpu":
            return batch  # it is there; looking through it would take a millisecond a step
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

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
            size, seed = self.leaves["size"], self.leaves["seed"]
            return {f"leaves{i}": Leaves(i, size, seed) for i in range(self.leaves["count"])}
        if name != "pairs":
            return set_images(name, self.root)
        hr, lr = pairs
        if not (hr and lr):
            raise UserError("train_hr, train_lr: name the folders with the HR and LR images, as data=pairs has them")
        return dict(match(hr, lr, self.net.scale))


class _Batches:
    """An epoch of patches, as Lightning iterates it. The loop's counters name the batch, so there is nothing to save:
    whenever a run is resumed, also in the middle of an epoch, the next batch is the one that was due."""

    def __init__(self, patches: Patches, trainer: L.Trainer):
        self.patches, self.trainer = patches, trainer

    def __len__(self) -> int:
        return len(self.patches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        trainer: Any = self.trainer
        while True:
            epoch = 0 if trainer.overfit_batches else trainer.current_epoch  # overfitting: the same batches again
            number = epoch * len(self) + trainer.fit_loop.epoch_loop.batch_progress.current.ready
            yield self.patches.batch(number, trainer.global_rank, trainer.world_size)

    def state_dict(self) -> dict:  # these two tell Lightning that it may resume within an epoch
        return {}

    def load_state_dict(self, state: dict) -> None:
        pass
