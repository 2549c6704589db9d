"""Generated images of what is not a photograph."""

import math

import pytest
import torch

from srcnn.data.graphics import KINDS, flat_colours, graphic, largest_value
from srcnn.nets import ESPCN, Compact


@pytest.mark.parametrize("kind", KINDS)
def test_images_of_a_kind_differ_and_come_again(kind: str) -> None:
    images = [graphic(kind, number) for number in range(4)]
    for number, image in enumerate(images):
        assert image.shape == (3, 64, 96) and image.dtype == torch.uint8
        assert image.amax() > image.amin()
        assert torch.equal(image, graphic(kind, number))
        assert not any(torch.equal(image, other) for other in images[:number])


def test_the_cube_of_colours_has_its_corners() -> None:
    colours = {tuple(colour) for colour in flat_colours().tolist()}
    assert len(colours) == 729 and {(0, 0, 255), (255, 255, 255), (255, 128, 0)} <= colours


@pytest.mark.parametrize("channels", [1, 3])
def test_largest_value(channels: int) -> None:
    net = Compact(2, channels, width=8, depth=2)  # its last layer is zero: nearest neighbour, within [0, 1]
    within = largest_value(net)
    assert within == pytest.approx(1 if channels == 3 else 239 / 255)  # luma has 16 for black
    with torch.no_grad():
        net.body[-1].bias.fill_(-2.0)
    assert largest_value(net) == pytest.approx(3 if channels == 3 else 3 - 16 / 255)
    with torch.no_grad():
        net.body[-1].bias.fill_(math.nan)
    assert math.isnan(largest_value(net))
    assert largest_value(ESPCN(3, channels)) < 3
