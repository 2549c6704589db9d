from collections import Counter

import pytest
import torch
from conftest import DATA, needs
from torch import Tensor

from srcnn.data.patches import Patches
from srcnn.data.sets import find_images
from srcnn.errors import UserError
from srcnn.files import read_image
from srcnn.image import modcrop

SIZES = [(40, 50), (70, 33), (20, 90), (36, 36)]  # the third is smaller than a patch


def make(ratio: int = 1, **settings) -> tuple[Patches, list[Tensor], list[Tensor]]:
    """Patches of images whose every pixel is unlike all others, as `ratio` times larger targets."""
    torch.manual_seed(0)
    inputs = [torch.randint(256, (3, h, w), dtype=torch.uint8) for h, w in SIZES]
    targets = [x.repeat_interleave(ratio, 1).repeat_interleave(ratio, 2) for x in inputs]
    return (
        Patches(zip(inputs, targets, strict=True), **{"batch_size": 16, "patch_size": 24 * ratio, **settings}),
        inputs,
        targets,
    )


def orientations(patch: Tensor) -> list[Tensor]:
    turned = [patch, patch.flip(1), patch.flip(2), patch.flip(1, 2)]
    return turned + [image.transpose(1, 2) for image in turned]


@pytest.mark.parametrize("random", [False, True])
@pytest.mark.parametrize("ratio", [1, 3])
def test_patches_are_pieces_of_the_images(ratio: int, random: bool) -> None:
    patches, inputs, _ = make(ratio, stride=5 * ratio, random=random)
    x, hr = patches.batch(3)
    assert x.shape == (16, 3, 24, 24)
    assert hr.shape == (16, 3, 24 * ratio, 24 * ratio)
    assert x.dtype == hr.dtype == torch.float32
    assert x.is_contiguous(memory_format=torch.channels_last)
    seen = Counter()
    for one, target in zip(x, hr, strict=True):
        torch.testing.assert_close(one.repeat_interleave(ratio, 1).repeat_interleave(ratio, 2), target)
        seen[_where((one * 255).round().to(torch.uint8), inputs, 1 if random else 5)] += 1
    assert len(seen) > 10
    assert {orientation for _, _, _, orientation in seen} > {0, 5}


def _where(patch: Tensor, images: list[Tensor], stride: int) -> tuple[int, int, int, int]:
    """Image, top, left and orientation of a patch, by looking everywhere."""
    for orientation, turned in enumerate(orientations(patch)):
        for number, image in enumerate(images):
            for top in range(0, image.shape[1] - 23, stride):
                for left in range(0, image.shape[2] - 23, stride):
                    if torch.equal(image[:, top : top + 24, left : left + 24], turned):
                        return number, top, left, orientation
    raise AssertionError("this patch is in none of the images")


def test_an_epoch_holds_the_whole_grid() -> None:
    patches, inputs, _ = make(stride=7, augment=False)
    expected = sum(((h - 24) // 7 + 1) * ((w - 24) // 7 + 1) for h, w in SIZES if min(h, w) >= 24)
    assert patches.patches_per_epoch == expected
    assert patches.skipped == 1
    epochs = []
    for epoch in range(2):
        batches = [patches.batch(epoch * len(patches) + number)[0] for number in range(len(patches))]
        everything = (torch.cat(batches) * 255).round().to(torch.uint8)
        places = Counter(_where(patch, inputs, 7)[:3] for patch in everything)
        assert len(places) == expected
        assert sum(places.values()) == len(patches) * 16  # the last batch is filled up
        epochs.append(batches)
    assert not torch.equal(epochs[0][0], epochs[1][0])


def test_a_batch_depends_on_seed_and_number_alone() -> None:
    for random in (False, True):
        one, other = make(random=random, seed=5)[0], make(random=random, seed=5)[0]
        one.batch(2), one.batch(9)
        assert torch.equal(one.batch(4)[0], other.batch(4)[0])
        assert not torch.equal(one.batch(4)[0], one.batch(5)[0])
        assert not torch.equal(one.batch(4)[0], make(random=random, seed=6)[0].batch(4)[0])


def test_processes_share_a_batch() -> None:
    patches = make()[0]
    whole = patches.batch(1)[0]
    shares = [patches.batch(1, rank, 4)[0] for rank in range(4)]
    assert all(len(share) == 4 for share in shares)
    assert torch.equal(torch.stack(shares, 1).flatten(0, 1), whole)


def test_a_set_beyond_memory_is_a_map() -> None:
    held, mapped = make(random=True)[0], make(random=True, memory=1e-6)[0]
    assert (held.mapped, mapped.mapped) == (False, True)
    for one, other in zip(held.batch(7), mapped.batch(7), strict=True):
        assert torch.equal(one, other)


def test_all_images_too_small() -> None:
    with pytest.raises(UserError, match="patch_size=96: every training image is smaller"):
        make(patch_size=96)


@needs("T91")
def test_t91_has_21884_patches() -> None:
    """At stride 14, 21,884 patches of 33x33 lie whole within the 91 images cropped to a multiple of 3."""
    images = [modcrop(read_image(path), 3) for path in find_images("T91", DATA)]
    pairs = [(image.expand(3, -1, -1),) * 2 for image in images]
    assert Patches(pairs, patch_size=33, stride=14).patches_per_epoch == 21_884
