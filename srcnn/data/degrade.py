"""How LR images are made of HR ones: the same way for training, validation and test."""

from abc import ABC, abstractmethod

from torch import Tensor

from srcnn.errors import UserError
from srcnn.image import as_float, bicubic_down


class Degradation(ABC):
    """Makes an LR image of an HR image. Its attributes are its settings; a change of them makes another pack."""

    versions: int = 1  # how many LR images are drawn of a training image

    @abstractmethod
    def __call__(self, hr: Tensor, scale: int, name: str = "", version: int = 0) -> Tensor:
        """[C, H, W], uint8 -> [C, H/scale, W/scale], uint8 or float in [0, 1]; H and W are multiples of scale.

        Float is rounded to 8 bits to train on; to score on it, as the protocol has it. What is random depends on
        (settings, name, version) alone; images to score on are version 0.
        """

    @abstractmethod
    def describe(self) -> str:
        """For tables and captions: a few words."""


class Bicubic(Degradation):
    """MATLAB's bicubic, as the field has it; not rounded."""

    def __call__(self, hr: Tensor, scale: int, name: str = "", version: int = 0) -> Tensor:
        if scale == 1:
            raise UserError("degradation=bicubic changes nothing at scale=1: choose degradation=camera, or pairs")
        return bicubic_down(as_float(hr[None]), scale)[0]

    def describe(self) -> str:
        return "bicubic"


class Given(Degradation):
    """None: each image brings its LR image (data=pairs)."""

    def __call__(self, hr: Tensor, scale: int, name: str = "", version: int = 0) -> Tensor:
        raise UserError(f"degradation=none: the image {name} has no LR image; choose bicubic or camera")

    def describe(self) -> str:
        return "as given"
