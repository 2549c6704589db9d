from collections import Counter
from itertools import permutations

import pytest
import torch
from conftest import DATA, needs
from torch import Tensor

from srcnn.data.camera import Camera
from srcnn.data.degrade import Bicubic, Degradation
from srcnn.data.leaves import Leaves
from srcnn.data.pack import pack
from srcnn.data.patches import Patches
from srcnn.data.samples import set_images
from srcnn.errors import UserError
from srcnn.image import as_float, modcrop, to_uint8

SIZES = [(48, 60), (84, 40), (22, 100), (42, 42)]  # the third is smaller than a patch of 36


class Image:
    """A source of pixels; the last is gray."""

    def __init__(self, number: int):
        self.number = number

    def read(self) -> tuple[Tensor, None]:
        height, width = SIZES[self.number]
        pixels, _ = Leaves(self.number, 100, seed=1).read()
        return pixels[: 1 if self.number == 3 else 3, :height, :width].contiguous(), None

    def identity(self) -> list:
        return [self.number]


def make(scale: int = 3, degradation: Degradation | None = None, **settings) -> Patches:
    images = {f"image{i}": Image(i) for i in range(4)}
    return Patches(pack(images, scale, degradation or Bicubic()), **{"batch_size": 16, "patch_size": 36, **settings})


def whole_images(scale: int, degradation: Degradation, version: int = 0) -> list[tuple[Tensor, Tensor]]:
    """LR and HR of each image."""
    hrs = [modcrop(Image(number).read()[0], scale) for number in range(4)]
    lrs = [to_uint8(as_float(degradation(hr, scale, f"image{i}", version))) for i, hr in enumerate(hrs)]
    return [(lr.expand(3, -1, -1), hr.expand(3, -1, -1)) for lr, hr in zip(lrs, hrs, strict=True)]


def upright(patch: Tensor, orientation: int) -> Tensor:
    flips = [[], [1], [2], [1, 2]][orientation % 4]
    return (patch if orientation < 4 else patch.transpose(1, 2)).flip(flips)


def find(lr: Tensor, hr: Tensor, pairs: list[tuple[Tensor, Tensor]]) -> tuple[int, int, int, int] | None:
    """Image, top, left and orientation of a patch, by looking everywhere for both; None where there is none."""
    side, scale = lr.shape[-1], hr.shape[-1] // lr.shape[-1]
    for orientation in range(8):
        patch, truth = upright(lr, orientation), upright(hr, orientation)
        for number, (whole_lr, whole_hr) in enumerate(pairs):
            if whole_lr.shape[2] < side:
                continue
            first_row = (whole_lr[0].unfold(1, side, 1) == patch[0, 0]).all(-1)
            for top, left in first_row.nonzero().tolist():
                if torch.equal(whole_lr[:, top:, left:][:, :side, :side], patch):
                    there = whole_hr[:, top * scale :, left * scale :]
                    if torch.equal(there[:, : hr.shape[1], : hr.shape[2]], truth):
                        return number, top, left, orientation
    return None


@pytest.mark.parametrize("random", [False, True])
@pytest.mark.parametrize(("scale", "margin"), [(1, 0), (2, 1), (3, 0)])
def test_lr_and_hr_are_the_same_region_of_an_image(scale: int, margin: int, random: bool) -> None:
    """Bit for bit what the degradation made of the whole image, in each of 8 orientations."""
    degradation = Camera(versions=1) if scale == 1 else Bicubic()
    patches = make(scale, degradation, stride=5 * scale, random=random, margin=margin)
    pairs, found = whole_images(scale, degradation), Counter()
    for number in range(3):
        lr, hr = patches.batch(number)
        assert lr.shape == (16, 3, 36 // scale + 2 * margin, 36 // scale + 2 * margin)
        assert hr.shape == (16, 3, 36 + 2 * margin * scale, 36 + 2 * margin * scale)
        assert lr.dtype == hr.dtype == torch.uint8
        assert lr.is_contiguous(memory_format=torch.channels_last)
        found.update(find(*patch, pairs) for patch in zip(lr, hr, strict=True))
    assert None not in found and len(found) > 10
    assert {image for image, _, _, _ in found} == {0, 1, 3}
    assert {orientation for _, _, _, orientation in found} == set(range(8))


def test_versions_are_drawn() -> None:
    camera = Camera(versions=3)
    lr, hr = make(2, camera, random=True, augment=False, batch_size=12).batch(0)
    versions = [whole_images(2, camera, version) for version in range(3)]
    found = [[find(*patch, pairs) is not None for pairs in versions] for patch in zip(lr, hr, strict=True)]
    assert all(sum(row) == 1 for row in found)
    assert sum(any(column) for column in zip(*found, strict=True)) > 1


def test_colours_in_any_order() -> None:
    """LR and HR of a patch alike, each patch for itself."""
    plain, permuted = (make(random=True, batch_size=64, permute_colours=on) for on in (False, True))
    orders = Counter()
    for lr, hr, new_lr, new_hr in zip(*plain.batch(0), *permuted.batch(0), strict=True):
        found = [order for order in permutations(range(3)) if torch.equal(hr[list(order)], new_hr)]
        orders.update(found[:1])
        assert any(torch.equal(lr[list(order)], new_lr) for order in found)  # several where the patch is gray
    assert len(orders) == 6


def test_an_epoch_holds_the_whole_grid() -> None:
    patches, pairs = make(stride=6, augment=False), whole_images(3, Bicubic())
    sizes = [hr.shape[1:] for _, hr in pairs]
    expected = sum(((h - 36) // 6 + 1) * ((w - 36) // 6 + 1) for h, w in sizes if min(h, w) >= 36)
    assert patches.patches_per_epoch == expected
    assert patches.left_out == 1
    epochs = []
    for epoch in range(2):
        batches = [patches.batch(epoch * len(patches) + number) for number in range(len(patches))]
        places = Counter(find(*patch, pairs) for batch in batches for patch in zip(*batch, strict=True))
        assert None not in places and len(places) == expected
        assert places.total() == len(patches) * 16  # the last batch is filled up
        epochs.append(batches)
    assert not torch.equal(epochs[0][0][0], epochs[1][0][0])


@pytest.mark.parametrize("random", [False, True])
def test_a_batch_depends_on_seed_and_number_alone(random: bool) -> None:
    one, other = (make(random=random, seed=5, permute_colours=True) for _ in range(2))
    batches = {number: one.batch(number) for number in (2, 9, 4, 5, len(one) - 1, len(one))}
    for number in reversed(batches):
        for a, b in zip(batches[number], other.batch(number), strict=True):
            assert torch.equal(a, b)
    assert not torch.equal(one.batch(4)[0], one.batch(5)[0])
    assert not torch.equal(one.batch(4)[0], make(random=random, seed=6, permute_colours=True).batch(4)[0])
    for index in (0, 1):  # LR and HR: four processes share a batch
        shares = [other.batch(1, rank, 4)[index] for rank in range(4)]
        assert torch.equal(torch.stack(shares, 1).flatten(0, 1), one.batch(1)[index])


def test_all_images_too_small() -> None:
    with pytest.raises(UserError, match="patch_size=96: every training image is smaller than a patch of 96 pixels"):
        make(patch_size=96)


@needs("T91")
def test_t91_at_x3() -> None:
    """21,884 patches of 33x33 lie in its images at stride 14, 29,803 at stride 12, which is 14 in whole LR pixels."""
    packed = pack(set_images("T91", str(DATA)), 3, Bicubic())
    assert Patches(packed, patch_size=33, stride=14).patches_per_epoch == 29_803
    assert sum(((h - 33) // 14 + 1) * ((w - 33) // 14 + 1) for h, w in packed.sizes) == 21_884
    assert packed.path.stat().st_size / packed.sizes.prod(1).sum() < 3.34  # bytes a pixel of HR: 3 + 3/9
