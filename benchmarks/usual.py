"""The contender: SRCNN trained the way popular repositories do it.

Patches of 33x33 are cut out beforehand on a grid of stride 14, a DataLoader collates them one by one, the network pads
with zeros and is scored to the edge of each patch; Adam at 1e-4, a tenth of it for the last layer, batches of 16.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from srcnn.nets import SRCNN

PATCH, STRIDE, BATCH = 33, 14, 16


class Patches(Dataset):
    """Pairs of enlarged LR and HR patches, float32."""

    def __init__(self, pairs: list[tuple[Tensor, Tensor]]):
        self.patches = [
            (x[:, top : top + PATCH, left : left + PATCH].clone(), hr[:, top : top + PATCH, left : left + PATCH] / 255)
            for x, hr in pairs
            for top in range(0, x.shape[1] - PATCH + 1, STRIDE)
            for left in range(0, x.shape[2] - PATCH + 1, STRIDE)
        ]

    def __len__(self) -> int:
        return len(self.patches)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.patches[index]


class Usual:
    """A network and its training, one step at a time."""

    pixels_per_step = BATCH * PATCH**2

    def __init__(self, pairs: list[tuple[Tensor, Tensor]], device: torch.device, workers: int = 0):
        self.device = device
        self.net = SRCNN(padding_mode="zeros").to(device)
        layers = [self.net.conv1, self.net.conv2, self.net.conv3]
        groups = [
            {"params": layer.parameters(), "lr": lr} for layer, lr in zip(layers, (1e-4, 1e-4, 1e-5), strict=True)
        ]
        self.optimizer = torch.optim.Adam(groups)
        self.loader = DataLoader(
            Patches(pairs), BATCH, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=workers > 0
        )
        self.batches = self._batches()

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield from self.loader

    def step(self) -> None:
        x, hr = (batch.to(self.device) for batch in next(self.batches))
        self.optimizer.zero_grad()
        loss = F.mse_loss(self.net.body(x), hr)
        loss.backward()
        self.optimizer.step()
