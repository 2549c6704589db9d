"""Training patches from a pack: a batch is one gather of aligned LR and HR pixels."""

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import permutations

import numpy as np
import torch
from torch import Tensor

from srcnn.data.pack import Pack
from srcnn.errors import UserError

_GPU_SHARE = 0.4  # of the free memory that a pack may take
_ORDERS = torch.tensor(list(permutations(range(3))))  # of R, G, B


@dataclass
class Squares:
    """Squares of pixels, each in one of 8 orientations, in images that lie one after the other as rows of R, G, B.

    An orientation is a pixel to start from and two steps through memory. All are int64 [n].
    """

    start: np.ndarray  # the pixel that comes first
    down: np.ndarray  # from a pixel to the one below it
    right: np.ndarray  # from a pixel to the one right of it

    @classmethod
    def at(cls, corner: np.ndarray, width: np.ndarray, side: int, orientation: np.ndarray) -> "Squares":
        """Squares whose upper left pixel is `corner`, in images of `width` pixels."""
        flip_y, flip_x, transpose = orientation & 1, orientation >> 1 & 1, orientation >> 2
        down, right = width * (1 - 2 * flip_y), 1 - 2 * flip_x
        start = corner + (side - 1) * (flip_y * width + flip_x)
        return cls(start, np.where(transpose, right, down), np.where(transpose, down, right))

    def take(self, pixels: Tensor, side: int) -> Tensor:
        """Their pixels [n, side, side, 3], out of `pixels` [all, 3]."""
        numbers = torch.from_numpy(np.stack([self.start, self.down, self.right])).to(pixels.device, non_blocking=True)
        start, down, right = numbers[:, :, None, None]
        step = torch.arange(side, device=pixels.device)
        index = start + down * step[:, None] + right * step  # [n, side, side]
        return pixels.index_select(0, index.flatten()).view(*index.shape, -1)


class Patches:
    """Patches of whole images, beginning at any LR pixel, in one of 8 orientations.

    pack        the images
    patch_size  side of a patch in HR pixels; its LR pixels are as many whole ones as it has
    margin      LR pixels by which a patch is larger on each side (see `srcnn.nets.Network`)
    stride      step of the grid of patches in HR pixels, rounded down to whole LR pixels; an epoch is as many patches
                as this grid holds
    random      False: every patch of the grid once an epoch, in random order; True: anywhere, with replacement
    augment     flips and transposes
    permute_colours  R, G and B of a patch in any of 6 orders

    A batch depends on (seed, number) alone, so that a resumed run sees what the uninterrupted one would have seen, and
    processes that each take a share of it see the batches of a single one. `left_out` counts the images smaller than a
    patch; UserError if all are.
    """

    def __init__(
        self,
        pack: Pack,
        *,
        patch_size: int = 33,
        margin: int = 0,
        stride: int = 14,
        batch_size: int = 128,
        random: bool = False,
        augment: bool = True,
        permute_colours: bool = False,
        seed: int = 0,
    ):
        self.pack, self.pixels, self.scale = pack, pack.pixels, pack.scale
        self.batch_size, self.random, self.augment, self.seed = batch_size, random, augment, seed
        self.permute_colours = permute_colours
        self.side = patch_size // self.scale + 2 * margin  # LR pixels
        if patch_size < self.scale:
            raise UserError(f"data.patch_size={patch_size}: must be at least {self.scale}, an LR pixel")
        sizes = pack.sizes // self.scale
        self.images = np.flatnonzero(sizes.min(1) >= self.side)
        self.left_out = len(sizes) - len(self.images)
        if not len(self.images):
            least = f"smaller than a patch of {self.side * self.scale} pixels"
            raise UserError(f"data.patch_size={patch_size}: every training image is {least}")
        sizes = sizes[self.images]
        grid_step = max(1, stride // self.scale)
        self.patches_per_epoch = int(((sizes - self.side) // grid_step + 1).prod(1).sum())
        self.step = 1 if random else grid_step
        rows, self.columns = ((sizes - self.side) // self.step + 1).T  # of places, in each image
        self.first = np.concatenate([[0], np.cumsum(rows * self.columns)])  # each image's first place among all
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0))
        self._thread: ThreadPoolExecutor | None = None
        self._coming: dict[tuple, Future] = {}

    def __len__(self) -> int:
        """Batches in an epoch; the last is filled up from the front, so that all have the same size."""
        return -(-self.patches_per_epoch // self.batch_size)

    def to(self, device: torch.device) -> None:
        """Move the pixels to a device if they take little of its memory; else a thread gathers the next batch there."""
        if device.type == "cpu":
            return
        if device.type != "cuda" or self.pixels.numel() < _GPU_SHARE * torch.cuda.mem_get_info(device)[0]:
            self.pixels = self.pixels.to(device)
        else:
            self.gather_ahead()

    def gather_ahead(self) -> None:
        """From now on, while a batch is trained on, a thread gathers the pixels of the next."""
        self._thread = ThreadPoolExecutor(1, "patches")

    def batch(self, number: int, rank: int = 0, world_size: int = 1) -> tuple[Tensor, Tensor]:
        """Batch `number` of the run, or the share of it that falls to one of several processes.

        Returns LR [n, 3, h, h] and HR [n, 3, scale*h, scale*h], uint8, in channels-last memory.
        """
        if self._thread is None:
            return self._gather(number, rank, world_size)
        key, following = (number, rank, world_size), (number + 1, rank, world_size)
        current = self._coming.pop(key, None) or self._thread.submit(self._gather, *key)
        self._coming = {following: self._thread.submit(self._gather, *following)}
        return current.result()

    def _gather(self, number: int, rank: int, world_size: int) -> tuple[Tensor, Tensor]:
        position, orientation, version, order = (values[rank::world_size] for values in self._draw(number))
        index = np.searchsorted(self.first, position, side="right") - 1
        y, x = self.step * np.stack(np.divmod(position - self.first[index], self.columns[index]))  # in LR pixels
        image, scale = self.images[index], self.scale
        width = self.pack.sizes[image, 1]  # of HR
        lr_corner = self.pack.lr[image, version] + y * (width // scale) + x
        hr_corner = self.pack.hr[image] + (y * width + x) * scale
        lr = Squares.at(lr_corner, width // scale, self.side, orientation).take(self.pixels, self.side)
        hr = Squares.at(hr_corner, width, self.side * scale, orientation).take(self.pixels, self.side * scale)
        if self.permute_colours:
            colours = _ORDERS.to(lr.device)[torch.from_numpy(order)][:, None, None]  # [n, 1, 1, 3]
            lr, hr = (crops.gather(3, colours.expand_as(crops)) for crops in (lr, hr))
        if self._thread and torch.cuda.is_available():  # from pinned memory, copied while the device computes
            lr, hr = lr.pin_memory(), hr.pin_memory()
        return lr.permute(0, 3, 1, 2), hr.permute(0, 3, 1, 2)

    def _draw(self, number: int) -> tuple[np.ndarray, ...]:
        """Of each patch of a batch: its place among all, orientation, version of its LR image, order of colours."""
        rng, versions = self._generator(number, stream=0), self.pack.lr.shape[1]
        orientation = rng.integers(0, 8, self.batch_size) if self.augment else np.zeros(self.batch_size, np.int64)
        if self.random:
            position = rng.integers(0, self.first[-1], self.batch_size)
        else:
            epoch, batch = divmod(number, len(self))
            if self._order[0] != epoch:
                self._order = (epoch, self._generator(epoch, stream=1).permutation(self.patches_per_epoch))
            start = batch * self.batch_size
            position = np.take(self._order[1], range(start, start + self.batch_size), mode="wrap")
        version = rng.integers(0, versions, self.batch_size)
        return position, orientation, version, self._generator(number, stream=2).integers(0, 6, self.batch_size)

    def _generator(self, number: int, stream: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=[self.seed, number], counter=[0, 0, 0, stream]))
