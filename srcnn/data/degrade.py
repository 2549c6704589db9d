"""How LR images are made of HR ones: the same way for training, validation and test."""

from abc import ABC, abstractmethod

from torch import Tensor

from srcnn.errors import UserError
from srcnn.image import bicubic_down, to_uint8


class Degradation(ABC):
    """Makes an LR image of an HR image. Its attributes are its settings; a change of them makes another pack."""

    versions: int = 1  # how many LR images are drawn of a training image
    makes_lr: bool = True  # False: images bring LR images of their own

    @abstractmethod
    def __call__(self, hr: Tensor, scale: int, name: str = "", version: int = 0) -> Tensor:
        """[C, H, W] -> [C, H/scale, W/scale], uint8, C being 1 or 3; H and W are multiples of scale.

        What is random depends on (settings, name, version) alone.
        """

    @abstractmethod
    def describe(self) -> str:
        """For tables and captions: a few words."""

    def test_lr(self, hr: Tensor, scale: int, name: str) -> Tensor:
        """The LR image to score a network on: version 0. Float in [0, 1] leaves the rounding to the protocol."""
        return self(hr, scale, name)


class Bicubic(Degradation):
    """MATLAB's bicubic in 8 bits, as the field has it."""

    def __call__(self, hr: Tensor, scale: int, name: str = "", version: int = 0) -> Tensor:
        if scale == 1:
            raise UserError("degradation=bicubic changes nothing at scale=1: choose degradation=camera, or pairs")
        return to_uint8(bicubic_down(hr[None].float() / 255, scale))[0]

    def describe(self) -> str:
        return "bicubic"

    def test_lr(self, hr: Tensor, scale: int, name: str) -> Tensor:
        return self(hr, scale, name) if scale == 1 else bicubic_down(hr[None].float() / 255, scale)[0]


class Given(Degradation):
    """None: each image has its own LR image (data=pairs)."""

    makes_lr = False

    def __call__(self, hr: Tensor, scale: int, name: str = "", version: int = 0) -> Tensor:
        raise UserError(f"degradation=none: the image {name} has no LR image; choose bicubic or camera")

    def describe(self) -> str:
        return "as given"
