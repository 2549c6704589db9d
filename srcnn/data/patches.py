"""Training patches from a pack: a batch is one gather of LR and HR pixels; the network's fixed step follows it."""

from concurrent.futures import Future, ThreadPoolExecutor
from itertools import permutations

import numpy as np
import torch
from torch import Tensor

from srcnn.data.pack import Pack
from srcnn.errors import UserError
from srcnn.image import as_float, quantize, rgb_to_y
from srcnn.nets import Network

_GPU_SHARE = 0.4  # of the free memory that a pack may take
_ORDERS = torch.tensor(list(permutations(range(3))))  # of R, G, B


class Patches:
    """Random patches of whole images, at any pixel of the body's input and in one of 8 orientations.

    pack        the images
    net         which takes them; a patch of HR is `net.scale / net.body_scale` times the body's input
    patch_size  side of a patch in HR pixels, a multiple of the body's scale
    stride      step of the grid of patches in HR pixels; an epoch is as many patches as this grid holds
    random      False: every patch of the grid once an epoch, in random order; True: anywhere, with replacement
    augment     flips and transposes
    permute_colours  R, G and B of a patch in any of 6 orders

    A batch depends on (seed, number) alone, so that a resumed run sees what the uninterrupted one would have, and
    processes that each take a share of it see the batches of a single one. Images smaller than a patch are left
    out; UserError if all are.
    """

    def __init__(
        self,
        pack: Pack,
        net: Network,
        *,
        patch_size: int = 33,
        stride: int = 14,
        batch_size: int = 128,
        random: bool = False,
        augment: bool = True,
        permute_colours: bool = False,
        seed: int = 0,
    ):
        self.pack, self.net, self.pixels, self.device = pack, net, pack.pixels, torch.device("cpu")
        self.batch_size, self.random, self.augment, self.seed = batch_size, random, augment, seed
        self.permute_colours = permute_colours
        self.ratio = net.body_scale  # HR pixels for one of the body's input
        self.zoom = net.scale // net.body_scale  # of `preprocess`
        self.side = patch_size // self.ratio
        # LR pixels that a patch's input is made of: wherever it begins, and what `preprocess` looks at beside them.
        self.lr_side = (self.side + 2 * self.zoom - 2) // self.zoom + 2 * net.preprocess_radius

        sizes = pack.sizes // self.ratio
        self.images = np.flatnonzero(sizes.min(1) >= self.side)
        if not len(self.images):
            raise UserError(f"patch_size={patch_size}: every training image is smaller than {patch_size} pixels")
        sizes = sizes[self.images]
        grid_step = max(1, stride // self.ratio)
        self.patches_per_epoch = int(((sizes - self.side) // grid_step + 1).prod(1).sum())
        self.step = 1 if random else grid_step
        rows, self.columns = ((sizes - self.side) // self.step + 1).T
        self.first = np.concatenate([[0], np.cumsum(rows * self.columns)])
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0))
        self._thread: ThreadPoolExecutor | None = None
        self._coming: dict[tuple, Future] = {}

    def __len__(self) -> int:
        """Batches in an epoch; the last is filled up from the front, so that all have the same size."""
        return -(-self.patches_per_epoch // self.batch_size)

    def to(self, device: torch.device) -> str:
        """Make the batches on a device; returns where the pixels lie now, for people to read.

        They move there if they take little of its memory; else a thread gathers the next batch while one is trained on.
        """
        self.device, size = device, f"{self.pack.pixels.numel() / 1e6:,.0f} MB"
        if device.type == "cpu":
            return f"{size}, mapped"
        if device.type != "cuda" or self.pack.pixels.numel() < _GPU_SHARE * torch.cuda.mem_get_info(device)[0]:
            self.pixels = self.pixels.to(device)
            return f"{size}, on the GPU"
        self.gather_ahead()
        return f"{size}, mapped; gathered by a thread, as it is more than {_GPU_SHARE:.0%} of the GPU's free memory"

    def gather_ahead(self) -> None:
        """From now on, while a batch is trained on, a thread gathers the pixels of the next."""
        self._thread = ThreadPoolExecutor(1, "patches")

    def batch(self, number: int, rank: int = 0, world_size: int = 1) -> tuple[Tensor, Tensor]:
        """Batch `number` of the run, or the share of it that falls to one of several processes.

        Returns the body's input [n, C, p/r, p/r] and HR [n, C, p, p], float32 in [0, 1], in channels-last memory.
        """
        if self._thread is None:
            return self._finish(*self._gather(number, rank, world_size))
        which = (number, rank, world_size)
        this = self._coming.pop(which, None) or self._thread.submit(self._gather, *which)
        self._coming = {(number + 1, rank, world_size): self._thread.submit(self._gather, number + 1, rank, world_size)}
        return self._finish(*this.result())

    def _draw(self, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of each patch of a batch: its place among all, its orientation, and the version of its LR image."""
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
        return position, orientation, rng.integers(0, versions, self.batch_size)

    def _generator(self, number: int, stream: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=[self.seed, number], counter=[0, 0, 0, stream]))

    def _gather(self, number: int, rank: int, world_size: int) -> tuple[Tensor, Tensor, Tensor]:
        """LR pixels [n, l, l, 3] and HR pixels [n, p, p, 3], uint8, and where the patch lies in what LR becomes."""
        position, orientation, version = (values[rank::world_size] for values in self._draw(number))
        place = np.searchsorted(self.first, position, side="right") - 1
        y, x = self.step * np.stack(np.divmod(position - self.first[place], self.columns[place]))
        image = self.images[place]
        height, width = self.pack.sizes[image].T
        net, scale = self.net, self.net.scale
        hr = self._lines(self.pack.hr[image] + (y * width + x) * self.ratio, width, self.side * self.ratio, orientation)
        lr = [self.pack.lr[image, version], y // self.zoom, x // self.zoom, height // scale, width // scale]
        enlarged = (self.lr_side - 2 * net.preprocess_radius) * self.zoom
        start = (np.arange(len(y)) * enlarged + y % self.zoom) * enlarged + x % self.zoom
        cut = self._lines(start, np.full_like(y, enlarged), self.side, orientation)

        numbers = torch.from_numpy(np.stack([*hr, *lr, *cut])).to(self.pixels.device, non_blocking=True)
        first, corner, size = numbers[3, :, None], numbers[4:6, :, None], numbers[6:8, :, None]
        index = corner + torch.arange(self.lr_side, device=numbers.device) - net.preprocess_radius
        index = index % (2 * size)
        rows, columns = torch.minimum(index, 2 * size - 1 - index)  # mirrored at the borders, as `symmetric_pad` does
        lr_index = (first + rows * size[1])[:, :, None] + columns[:, None, :]
        hr_index = _index(numbers[:3], self.side * self.ratio)
        lr_crops, hr_crops = _take(self.pixels, lr_index), _take(self.pixels, hr_index)
        if self.permute_colours:
            order = self._generator(number, stream=2).integers(0, 6, self.batch_size)[rank::world_size]
            colours = _ORDERS.to(numbers.device)[torch.from_numpy(order)][:, None, None]
            lr_crops, hr_crops = (crops.gather(3, colours.expand_as(crops)) for crops in (lr_crops, hr_crops))
        if self.device != self.pixels.device:  # from pinned memory they are copied while the device computes
            return lr_crops.pin_memory(), hr_crops.pin_memory(), numbers[8:].pin_memory()
        return lr_crops, hr_crops, numbers[8:]

    def _finish(self, lr: Tensor, hr: Tensor, cut: Tensor) -> tuple[Tensor, Tensor]:
        lr, hr, cut = (tensor.to(self.device, non_blocking=True) for tensor in (lr, hr, cut))
        x, hr = (as_float(pixels.permute(0, 3, 1, 2)) for pixels in (lr, hr))
        if self.net.channels == 1:
            x, hr = rgb_to_y(x), quantize(rgb_to_y(hr))
        with torch.no_grad():
            x = self.net.preprocess_of_crop(x)
        pixels = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
        return _take(pixels, _index(cut, self.side)).permute(0, 3, 1, 2), hr

    @staticmethod
    def _lines(corner: np.ndarray, width: np.ndarray, side: int, orientation: np.ndarray) -> tuple[np.ndarray, ...]:
        """An orientation is a pixel to start from and two steps through memory: one per row, one per column."""
        flip_y, flip_x, transpose = orientation & 1, orientation >> 1 & 1, orientation >> 2
        down, right = width * (1 - 2 * flip_y), 1 - 2 * flip_x
        start = corner + (side - 1) * (flip_y * width + flip_x)
        return start, np.where(transpose, right, down), np.where(transpose, down, right)


def _take(pixels: Tensor, index: Tensor) -> Tensor:
    """Rows of [rows, C] by an index of any shape, which C is appended to."""
    return pixels.index_select(0, index.flatten()).view(*index.shape, -1)


def _index(lines: Tensor, side: int) -> Tensor:
    """The rows of a square of pixels, [n, side, side], from its start and steps, [3, n]."""
    start, step_i, step_j = lines[:, :, None, None]
    i = torch.arange(side, device=lines.device)
    return start + step_i * i[:, None] + step_j * i
