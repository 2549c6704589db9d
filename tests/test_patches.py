from collections import Counter
from contextlib import suppress
from itertools import permutations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import DATA, needs
from torch import Tensor

from srcnn.data.camera import Camera
from srcnn.data.degrade import Bicubic
from srcnn.data.leaves import dead_leaves_image
from srcnn.data.pack import Pack, pack
from srcnn.data.patches import Patches
from srcnn.data.sets import find_images
from srcnn.data.sources import ImagePath
from srcnn.errors import UserError
from srcnn.image import modcrop, quantize, rgb_to_y
from srcnn.nets import ESPCN, SRCNN, Network

SIZES = [(48, 60), (84, 40), (22, 100), (42, 42)]  # the third is smaller than a patch of 36


class Image:
    """A source of pixels that are all over the range."""

    def __init__(self, number: int, channels: int = 3):
        self.number, self.channels = number, channels

    def read(self) -> Tensor:
        height, width = SIZES[self.number]
        return dead_leaves_image(self.number, 100, seed=1)[: self.channels, :height, :width].contiguous()

    def read_lr(self) -> None:
        return None

    def identity(self) -> list:
        return [self.number, self.channels]


class Nearest(Network):
    """A fixed step that is not bicubic, and that uses the default of `preprocess_of_crop`."""

    body_scale, receptive_radius, preprocess_radius = 1, 0, 1

    def preprocess(self, lr: Tensor) -> Tensor:
        blurred = F.avg_pool2d(F.pad(lr, (1, 1, 1, 1), mode="replicate"), 3, 1)
        return F.interpolate(blurred, scale_factor=self.scale, mode="nearest")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SRCNN_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def packed(scale: int, degradation: Bicubic | Camera | None = None) -> Pack:
    return pack({f"image{i}": Image(i, 1 if i == 3 else 3) for i in range(4)}, scale, degradation or Bicubic())


def make(net: Network, degradation: Bicubic | Camera | None = None, **settings) -> Patches:
    return Patches(packed(net.scale, degradation), net, **{"batch_size": 16, "patch_size": 36, **settings})


def whole(net: Network, degradation: Bicubic | Camera, version: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Each image as what the body takes and as HR: made at once, as `net` sees it outside of training."""
    pairs = []
    for number in range(4):
        hr = modcrop(Image(number, 1 if number == 3 else 3).read(), net.scale)
        lr = degradation(hr, net.scale, f"image{number}", version)
        hr, lr = (x[None].expand(-1, 3, -1, -1).float() / 255 for x in (hr, lr))
        if net.channels == 1:
            hr, lr = quantize(rgb_to_y(hr)), rgb_to_y(lr)
        pairs.append((net.preprocess(lr)[0], hr[0]))
    return pairs


def upright(patch: Tensor, orientation: int) -> Tensor:
    flips = [[], [1], [2], [1, 2]][orientation % 4]
    return (patch if orientation < 4 else patch.transpose(1, 2)).flip(flips)


def find(x: Tensor, hr: Tensor, pairs: list[tuple[Tensor, Tensor]]) -> tuple[int, int, int, int]:
    """Image, top, left and orientation of a patch, by looking everywhere for HR; x must be what lies there."""
    ratio, side = hr.shape[-1] // x.shape[-1], x.shape[-1]
    for orientation in range(8):
        one, target = upright(x, orientation), upright(hr, orientation)
        for number, (whole_x, whole_hr) in enumerate(pairs):
            if min(whole_hr.shape[1:]) < hr.shape[-1]:
                continue
            first_row = (whole_hr[0].unfold(1, hr.shape[-1], 1) == target[0, 0]).all(-1)
            for top, left in first_row.nonzero().tolist():
                if torch.equal(whole_hr[:, top:, left:][:, : hr.shape[1], : hr.shape[2]], target):
                    top, left = top // ratio, left // ratio
                    assert torch.equal(whole_x[:, top : top + side, left : left + side], one)
                    return number, top, left, orientation
    raise AssertionError("this patch is in none of the images")


@pytest.mark.parametrize("random", [False, True])
@pytest.mark.parametrize(
    "net",
    [SRCNN(3), SRCNN(2), SRCNN(4, channels=1), SRCNN(1), ESPCN(3), ESPCN(2, channels=1), Nearest(3)],
    ids=["SRCNN3", "SRCNN2", "SRCNN4-Y", "SRCNN1", "ESPCN3", "ESPCN2-Y", "Nearest3"],
)
def test_patches_are_pieces_of_the_whole_images(net: Network, random: bool) -> None:
    """Bit for bit, though only LR is stored: as if each image had been enlarged whole, up to its borders."""
    degradation = Camera(versions=1) if net.scale == 1 else Bicubic()
    patches = make(net, degradation, stride=5 * net.body_scale, random=random)
    pairs = whole(net, degradation)
    seen = Counter()
    for number in range(3):
        x, hr = patches.batch(number)
        assert x.shape == (16, net.channels, 36 // net.body_scale, 36 // net.body_scale)
        assert hr.shape == (16, net.channels, 36, 36)
        assert x.dtype == hr.dtype == torch.float32
        assert x.is_contiguous(memory_format=torch.channels_last)
        for one, target in zip(x, hr, strict=True):
            seen[find(one, target, pairs)] += 1
    assert len(seen) > 10
    assert {image for image, _, _, _ in seen} == {0, 1, 3}
    assert len({orientation for _, _, _, orientation in seen}) == 8


def test_versions_are_drawn() -> None:
    camera, net = Camera(versions=3), SRCNN(2)
    patches = make(net, camera, random=True, augment=False, batch_size=8)
    pairs = [whole(net, camera, version) for version in range(3)]
    versions: Counter[int] = Counter()
    x, hr = patches.batch(0)
    for one, target in zip(x, hr, strict=True):
        for version in range(3):
            with suppress(AssertionError):
                find(one, target, pairs[version])
                versions[version] += 1
    assert sum(versions.values()) == 8 and len(versions) > 1


def test_colours_in_any_order() -> None:
    """LR and HR of a patch alike, each patch for itself, and so that processes still share a batch."""
    plain, permuted = (make(SRCNN(3), random=True, batch_size=64, permute_colours=on) for on in (False, True))
    orders = Counter()
    for x, hr, new_x, new_hr in zip(*plain.batch(0), *permuted.batch(0), strict=True):
        found = [order for order in permutations(range(3)) if torch.equal(hr[list(order)], new_hr)]
        orders.update(found[:1])
        assert any(torch.equal(x[list(order)], new_x) for order in found)  # several where the patch is gray
    assert len(orders) == 6
    shares = [permuted.batch(0, rank, 2)[1] for rank in range(2)]
    assert torch.equal(torch.stack(shares, 1).flatten(0, 1), permuted.batch(0)[1])


def test_an_epoch_holds_the_whole_grid() -> None:
    net = SRCNN(3)
    patches = make(net, stride=6, augment=False)
    pairs = whole(net, Bicubic())
    sizes = [hr.shape[1:] for _, hr in pairs]
    expected = sum(((h - 36) // 6 + 1) * ((w - 36) // 6 + 1) for h, w in sizes if min(h, w) >= 36)
    assert patches.patches_per_epoch == expected
    assert len(patches.images) == 3  # one is too small
    epochs = []
    for epoch in range(2):
        batches = [patches.batch(epoch * len(patches) + number) for number in range(len(patches))]
        places = Counter(find(x, hr, pairs)[:3] for batch in batches for x, hr in zip(*batch, strict=True))
        assert len(places) == expected
        assert sum(places.values()) == len(patches) * 16  # the last batch is filled up
        epochs.append(batches)
    assert not torch.equal(epochs[0][0][0], epochs[1][0][0])


def test_a_batch_depends_on_seed_and_number_alone() -> None:
    for random in (False, True):
        one, other = (make(SRCNN(3), random=random, seed=5) for _ in range(2))
        one.batch(2), one.batch(9)
        assert torch.equal(one.batch(4)[0], other.batch(4)[0])
        assert not torch.equal(one.batch(4)[0], one.batch(5)[0])
        assert not torch.equal(one.batch(4)[0], make(SRCNN(3), random=random, seed=6).batch(4)[0])


def test_processes_share_a_batch() -> None:
    patches = make(SRCNN(3))
    for index in (0, 1):
        whole_batch = patches.batch(1)[index]
        shares = [patches.batch(1, rank, 4)[index] for rank in range(4)]
        assert all(len(share) == 4 for share in shares)
        assert torch.equal(torch.stack(shares, 1).flatten(0, 1), whole_batch)


def test_batches_gathered_ahead_are_the_same() -> None:
    here, ahead = make(SRCNN(3)), make(SRCNN(3))
    ahead.gather_ahead()
    for number in (0, 1, 2, 3, 7, 8, 2, 3, len(here) - 1, len(here)):
        for one, other in zip(here.batch(number), ahead.batch(number), strict=True):
            assert torch.equal(one, other)


def test_all_images_too_small() -> None:
    with pytest.raises(UserError, match="patch_size=96: every training image is smaller than 96 pixels"):
        make(SRCNN(3), patch_size=96)


def test_no_network_enlarges_what_is_stored() -> None:
    patches = make(SRCNN(3))
    assert patches.pixels.dtype == torch.uint8
    assert patches.pixels.numel() / np.prod(patches.pack.sizes, 1).sum() < 3.34


@needs("T91")
def test_t91_has_21884_patches() -> None:
    """At stride 14, 21,884 patches of 33x33 lie whole within the 91 images cropped to a multiple of 3."""
    images = {path.stem: ImagePath(path) for path in find_images("T91", DATA)}
    assert Patches(pack(images, 3, Bicubic()), SRCNN(3), patch_size=33, stride=14).patches_per_epoch == 21_884
