"""A training set as flat pixel tensors; a batch of patches is one gather."""

import mmap
from collections.abc import Iterable
from tempfile import TemporaryFile, gettempdir
from typing import IO

import numpy as np
import torch
from torch import Tensor

from srcnn.errors import UserError
from srcnn.image import as_float


class Patches:
    """Random patches of whole images, at any pixel of the input's grid and in one of 8 orientations.

    images      pairs of what the network's body takes, [C, h, w], and the same image's HR, [C, r*h, r*w], uint8 or
                float in [0, 1], where r is the body's scale; taken one by one
    patch_size  side of a patch in HR pixels, a multiple of r
    stride      step of the grid of patches in HR pixels; an epoch is as many patches as this grid holds
    random      False: every patch of the grid once an epoch, in random order; True: anywhere, with replacement
    augment     flips and transposes
    memory      GB of pixels to hold in memory; a larger set is a memory map of a temporary file

    A batch depends on (seed, number) alone, so that a resumed run sees what the uninterrupted one would have, and
    processes that each take a share of it see the batches of a single one. Images smaller than a patch are left
    out; UserError if all are, or if the temporary file has no room.
    """

    def __init__(
        self,
        images: Iterable[tuple[Tensor, Tensor]],
        *,
        patch_size: int = 33,
        stride: int = 14,
        batch_size: int = 128,
        random: bool = False,
        augment: bool = True,
        seed: int = 0,
        memory: float = 4.0,
    ):
        self.skipped = 0
        shapes = []
        with TemporaryFile() as inputs, TemporaryFile() as targets:
            for x, hr in images:
                self.ratio = hr.shape[-1] // x.shape[-1]
                self.side = patch_size // self.ratio
                assert self.side * self.ratio == patch_size, (
                    f"patch_size {patch_size} is not a multiple of {self.ratio}"
                )
                if min(x.shape[-2:]) < self.side:
                    self.skipped += 1
                    continue
                shapes.append(x.shape[-2:])
                # Pixels lie as rows of C values: one index fetches a whole pixel, and a batch comes out channels-last.
                for image, file in ((x, inputs), (hr, targets)):
                    _write(file, image.flatten(1).T.contiguous())
            if not shapes:
                size = f"{patch_size}x{patch_size}"
                raise UserError(f"patch_size={patch_size}: every training image is smaller than {size} pixels")
            self.mapped = inputs.tell() + targets.tell() > memory * 1e9
            self.inputs, self.targets = (_rows(f, i, self.mapped) for f, i in ((inputs, x), (targets, hr)))
        sizes = np.array(shapes)
        self.width = sizes[:, 1]
        self.offset = np.concatenate([[0], np.cumsum(sizes.prod(1))])
        self.batch_size, self.random, self.augment, self.seed = batch_size, random, augment, seed

        grid_step = max(1, stride // self.ratio)
        grid = ((sizes - self.side) // grid_step + 1).prod(1).sum()
        self.patches_per_epoch = int(grid)
        self.step = 1 if random else grid_step
        self.columns = (sizes[:, 1] - self.side) // self.step + 1
        rows = (sizes[:, 0] - self.side) // self.step + 1
        self.first = np.concatenate([[0], np.cumsum(rows * self.columns)])
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0))

    def __len__(self) -> int:
        """Batches in an epoch; the last is filled up from the front, so that all have the same size."""
        return -(-self.patches_per_epoch // self.batch_size)

    def to(self, device: torch.device) -> "Patches":
        """Keep the pixels on a device, and make the batches there; what is mapped stays where it is."""
        if not self.mapped:
            self.inputs, self.targets = self.inputs.to(device), self.targets.to(device)
        return self

    def batch(self, number: int, rank: int = 0, world_size: int = 1) -> tuple[Tensor, Tensor]:
        """Batch `number` of the run, or the share of it that falls to one of several processes.

        Returns the body's input [n, C, p/r, p/r] and HR [n, C, p, p], float32 in [0, 1], in channels-last memory.
        """
        position, orientation = self._draw(number)
        share = slice(rank, None, world_size)
        image, y, x = self._locate(position[share])
        return (
            self._gather(self.inputs, image, y, x, orientation[share], 1),
            self._gather(self.targets, image, y, x, orientation[share], self.ratio),
        )

    def _draw(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        rng = self._generator(number, stream=0)
        orientation = rng.integers(0, 8, self.batch_size) if self.augment else np.zeros(self.batch_size, np.int64)
        if self.random:
            return rng.integers(0, self.first[-1], self.batch_size), orientation
        epoch, batch = divmod(number, len(self))
        if self._order[0] != epoch:
            self._order = (epoch, self._generator(epoch, stream=1).permutation(self.patches_per_epoch))
        start = batch * self.batch_size
        return np.take(self._order[1], range(start, start + self.batch_size), mode="wrap"), orientation

    def _generator(self, number: int, stream: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=[self.seed, number], counter=[0, 0, 0, stream]))

    def _locate(self, position: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        image = np.searchsorted(self.first, position, side="right") - 1
        row, column = np.divmod(position - self.first[image], self.columns[image])
        return image, row * self.step, column * self.step

    def _gather(
        self, pixels: Tensor, image: np.ndarray, y: np.ndarray, x: np.ndarray, orientation: np.ndarray, ratio: int
    ) -> Tensor:
        side, width = self.side * ratio, self.width[image] * ratio
        corner = self.offset[image] * ratio**2 + y * ratio * width + x * ratio
        # An orientation is a corner to start from and two steps through memory: one per row, one per column.
        flip_y, flip_x, transpose = orientation & 1, orientation >> 1 & 1, orientation >> 2
        down, right = width * (1 - 2 * flip_y), 1 - 2 * flip_x
        start = corner + (side - 1) * (flip_y * width + flip_x)
        steps = np.stack([start, np.where(transpose, right, down), np.where(transpose, down, right)])
        start_, step_i, step_j = torch.from_numpy(steps).to(pixels.device, non_blocking=True)[:, :, None, None]
        i = torch.arange(side, device=pixels.device)
        index = start_ + step_i * i[:, None] + step_j * i
        return as_float(pixels.index_select(0, index.flatten()).view(*index.shape, -1).permute(0, 3, 1, 2))


def _write(file: IO[bytes], pixels: Tensor) -> None:
    try:
        file.write(pixels.numpy().data)
    except OSError as error:
        reason = f"the training set does not fit into {gettempdir()} ({error.strerror})"
        raise UserError(f"{reason}: make room, or name another folder in $TMPDIR") from error


def _rows(file: IO[bytes], like: Tensor, mapped: bool) -> Tensor:
    """The pixels in a file, as rows of as many values as `like` has channels."""
    file.flush()
    pixels = mmap.mmap(file.fileno(), 0)  # lives on when the file is closed, and is gone with the process
    if mapped:
        pixels.madvise(mmap.MADV_RANDOM)  # patches are a few pixels here and there: read nothing ahead
    rows = torch.frombuffer(pixels, dtype=like.dtype).view(-1, like.shape[0])
    return rows if mapped else rows.clone()
