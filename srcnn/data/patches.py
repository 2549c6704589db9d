"""Training patches from a pack: a batch is one gather of aligned LR and HR pixels."""

from itertools import permutations

import numpy as np
import torch
from torch import Tensor

from srcnn.data.pack import Pack
from srcnn.errors import UserError

_GPU_SHARE = 0.4  # of the free memory that a pack may take
_ORDERS = torch.tensor(list(permutations(range(3))))  # of R, G, B


class Patches:
    """Patches of whole images, beginning at any LR pixel, in one of 8 orientations.

    pack        the images
    patch_size  side of a patch in HR pixels, rounded down to a multiple of the scale
    margin      LR pixels by which a patch is larger on each side (see `srcnn.nets.Network`)
    stride      step of the grid of patches in HR pixels, rounded down to whole LR pixels; an epoch is as many patches
                as this grid holds, with `random` too
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
        grid_step = max(1, stride // self.scale)
        self.step = 1 if random else grid_step
        grid = self._places(grid_step)
        self.places = self._places(1) if random else grid
        self.patches_per_epoch = int(grid.prod(1).sum())
        self.left_out = int((grid.prod(1) == 0).sum())
        if not self.patches_per_epoch:
            least = f"smaller than a patch of {self.side * self.scale} pixels"
            raise UserError(f"data.patch_size={patch_size}: every training image is {least}")
        self.first = np.cumsum([0, *self.places.prod(1)])  # each image's first place: they are numbered through all
        self._shuffled: tuple[int, np.ndarray] = (-1, np.empty(0))  # an epoch, and its places in random order

    def _places(self, step: int) -> np.ndarray:
        """Rows and columns of patches in each image, `step` LR pixels apart: [images, 2]; 0 where none fits."""
        return np.maximum(0, (self.pack.sizes // self.scale - self.side) // step + 1)

    def __len__(self) -> int:
        """Batches in an epoch; the last is filled up from the front, so that all have the same size."""
        return -(-self.patches_per_epoch // self.batch_size)

    def to(self, device: torch.device) -> None:
        """Move the pixels to a device, if they take little of its memory: else batches are gathered on the CPU."""
        if device.type != "cuda" or self.pixels.numel() < _GPU_SHARE * torch.cuda.mem_get_info(device)[0]:
            self.pixels = self.pixels.to(device)

    def batch(self, number: int, rank: int = 0, world_size: int = 1) -> tuple[Tensor, Tensor]:
        """Batch `number` of the run, or the share of it that falls to one of several processes.

        Returns LR [n, 3, h, h] and HR [n, 3, scale*h, scale*h], uint8, in channels-last memory.
        """
        place, orientation, version = (drawn[rank::world_size] for drawn in self._draw(number))
        image = np.searchsorted(self.first, place, side="right") - 1
        scale = self.scale
        y, x = self.step * np.stack(np.divmod(place - self.first[image], self.places[image, 1]))  # in LR pixels
        width = self.pack.sizes[image, 1]  # of HR
        lr_corner = self.pack.lr[image, version] + y * (width // scale) + x
        hr_corner = self.pack.hr[image] + (y * width + x) * scale
        lr = _squares(self.pixels, lr_corner, width // scale, self.side, orientation)
        hr = _squares(self.pixels, hr_corner, width, self.side * scale, orientation)
        if self.permute_colours:
            order = self._generator(number, stream=2).integers(0, 6, self.batch_size)[rank::world_size]
            colours = _ORDERS.to(lr.device)[torch.from_numpy(order)][:, None, None]  # [n, 1, 1, 3]
            lr, hr = (squares.gather(3, colours.expand_as(squares)) for squares in (lr, hr))
        return lr.permute(0, 3, 1, 2), hr.permute(0, 3, 1, 2)

    def _draw(self, number: int) -> tuple[np.ndarray, ...]:
        """Of each patch of a batch: its place among all, orientation, version of its LR image."""
        rng, count = self._generator(number, stream=0), self.batch_size
        orientation = rng.integers(0, 8, count) if self.augment else np.zeros(count, np.int64)
        if self.random:
            place = rng.integers(0, self.first[-1], count)
        else:
            epoch, batch = divmod(number, len(self))
            if self._shuffled[0] != epoch:
                self._shuffled = (epoch, self._generator(epoch, stream=1).permutation(self.patches_per_epoch))
            # The last batch is filled up from the front.
            place = np.take(self._shuffled[1], range(batch * count, (batch + 1) * count), mode="wrap")
        version = rng.integers(0, self.pack.lr.shape[1], count)
        return place, orientation, version

    def _generator(self, number: int, stream: int) -> np.random.Generator:
        """Of a batch or epoch. Streams are apart, so that one more draw from one changes no other."""
        return np.random.Generator(np.random.Philox(key=[self.seed, number], counter=[0, 0, 0, stream]))


def _squares(pixels: Tensor, corner: np.ndarray, width: np.ndarray, side: int, orientation: np.ndarray) -> Tensor:
    """Squares of `side` pixels out of images that lie one after the other: [n, side, side, 3].

    pixels       [all, 3], row by row
    corner       [n], int64: where in `pixels` a square's upper left pixel is
    width        [n]: of the image that it is in
    orientation  [n]: 0 to 7. Bit 0 flips it vertically, bit 1 horizontally; then bit 2 transposes
    """
    flip_y, flip_x, transpose = orientation & 1, orientation >> 1 & 1, orientation >> 2
    # An orientation is another corner to start from, and other steps to the pixel below and to the one on the right.
    start = corner + (side - 1) * (flip_y * width + flip_x)
    below, beside = width * (1 - 2 * flip_y), 1 - 2 * flip_x  # steps in the image
    steps = np.stack([start, np.where(transpose, beside, below), np.where(transpose, below, beside)])
    first, row_step, column_step = torch.from_numpy(steps).to(pixels.device)[:, :, None, None]
    offset = torch.arange(side, device=pixels.device)
    index = first + row_step * offset[:, None] + column_step * offset  # [n, side, side]
    return pixels.index_select(0, index.flatten()).view(*index.shape, -1)
