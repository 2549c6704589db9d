import copy
import random
import threading
from collections.abc import Iterator

import pytest
import torch

from srcnn.checkpoint import WEIGHTS, load_network
from srcnn.data.leaves import dead_leaves
from srcnn.image import bicubic_down, bicubic_resize, bicubic_up, quantize, to_uint8
from srcnn.inference.fast_srcnn import FastSRCNN
from srcnn.inference.image_file import ImageFile
from srcnn.inference.tiles import SelfEnsemble, enlarge, enlarge_to, for_inference, in_bf16, super_resolve
from srcnn.nets import EDSR, ESPCN, FSRCNN, SRCNN, VDSR, Compact, Network

RANDOM = {"init": "published"}  # no layer of zeros
ZOO = [
    (FSRCNN, RANDOM),
    (VDSR, {**RANDOM, "width": 8, "depth": 5}),
    (EDSR, {**RANDOM, "width": 8, "depth": 2}),
    (Compact, RANDOM),
]
ZOO += [(SRCNN, {"init": "default"}), (ESPCN, {})]


@pytest.mark.parametrize(("net_type", "settings"), ZOO)
def test_tiles_do_not_show(net_type: type[Network], settings: dict) -> None:
    """At 20 random sizes of image and tile, and at those where a tile is a single pixel, row or column."""
    rng = random.Random(0)
    cases = [(rng.randint(1, 80), rng.randint(1, 80), rng.randint(3, 150), rng.randint(3, 150)) for _ in range(20)]
    cases += [(1, 1, 1, 1), (2, 50, 1, 1), (7, 40, 150, 3), (40, 7, 3, 150)]
    for height, width, rows, columns in cases:
        torch.manual_seed(height)
        net = net_type(scale=rng.choice([2, 3, 4]), **settings)
        lr = torch.rand(1, 3, height, width)
        with torch.no_grad():
            whole = net(lr)
        tiled = super_resolve(net, lr, (rows, columns))
        torch.testing.assert_close(tiled, whole, atol=2e-6 * max(1, float(whole.abs().max())), rtol=0)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"scale": 2, "residual": True},
        {"scale": 4, "channels": 1},
        {"scale": 1},
        {"kernels": (9, 5, 5)},
        {"scale": 5, "kernels": (5, 3, 1)},
        {"kernels": (1, 1, 1)},
        {"padding_mode": "zeros"},
    ],
)
def test_srcnn_for_inference_is_the_same_function(settings: dict) -> None:
    torch.manual_seed(0)
    net = SRCNN(init="default", **settings).double().eval()
    fast = for_inference(net)
    assert isinstance(fast, FastSRCNN) == (net.conv1.padding_mode != "zeros" and net.conv2.kernel_size == (1, 1))
    for height, width in ((20, 23), (1, 1), (3, 40), (2, 7), (64, 5)):
        lr = torch.rand(2, net.channels, height, width, dtype=torch.float64)
        with torch.inference_mode():
            whole = net(lr)
            for sr in (fast(lr), super_resolve(fast, lr, (8, 9)), super_resolve(fast, lr, (5, 7))):
                torch.testing.assert_close(sr, whole, atol=1e-14, rtol=0)


@pytest.mark.parametrize("name", [path.stem for path in sorted(WEIGHTS.glob("*.pth"))])
def test_what_inference_changes_can_not_be_seen(name: str) -> None:
    """The rule: no 8-bit value off by more than one, and at most 1 in 10,000."""
    net, _ = load_network(name)
    lr = torch.stack(dead_leaves(count=2, size=200, seed=0))
    exact, fast = super_resolve(net, lr).int(), super_resolve(for_inference(net), lr).int()
    assert (fast - exact).abs().max() <= 1 and (fast != exact).float().mean() <= 1e-4


@pytest.mark.parametrize("size", [(1, 1), (5, 700), (700, 5), (333, 301)])
def test_default_tiles_equal_the_whole(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    net = SRCNN(residual=True, init="default")
    lr = torch.rand(1, 3, *size)
    with torch.no_grad():
        assert torch.equal(quantize(super_resolve(net, lr)), quantize(net(lr)))


def test_hidden_colour_does_not_bleed() -> None:
    """Red pixels of a white image are transparent: no pixel that shows gets red."""
    planes = torch.full((4, 20, 20), 255, dtype=torch.uint8)
    net, _ = load_network(None)
    white = enlarge(net, ImageFile(planes[:3], "RGB"))
    planes[1:, 8:] = 0
    larger = enlarge(net, ImageFile(planes, "RGBA")).planes
    assert (larger[:3].int() - white.planes.int()).abs().amax(0)[larger[3] > 0].max() <= 2


def test_any_size() -> None:
    """The network as often as needed, then MATLAB's bicubic; a network of the same size is applied once."""
    torch.manual_seed(0)
    image = ImageFile(torch.randint(256, (3, 12, 20), dtype=torch.uint8), "RGB")
    net, same = SRCNN(scale=2, init="default"), SRCNN(scale=1, init="default")
    twice = enlarge(net, enlarge(net, image))
    expected = to_uint8(bicubic_resize(twice.planes[None] / 255, 30, 50))[0]
    assert (enlarge_to(net, image, (30, 50)).planes.int() - expected.int()).abs().max() <= 1
    assert torch.equal(enlarge_to(net, image, (48, 80)).planes, twice.planes)
    assert torch.equal(enlarge_to(same, image, (12, 20)).planes, enlarge(same, image).planes)
    smaller = to_uint8(bicubic_resize(image.planes[None] / 255, 6, 10))[0]
    assert (enlarge_to(net, image, (6, 10)).planes.int() - smaller.int()).abs().max() <= 1


def test_gray_comes_back_gray() -> None:
    gray = 0.3 + 0.4 * torch.rand(1, 1, 20, 20)
    for channels in (1, 3):
        sr = super_resolve(SRCNN(channels=channels, init="identity"), gray)
        torch.testing.assert_close(sr, bicubic_up(gray, 3), atol=1e-5, rtol=0)


def test_integers_are_rounded_floats() -> None:
    torch.manual_seed(0)
    for channels in (1, 3):
        net = SRCNN(channels=channels, init="default")
        lr = torch.randint(256, (1, 3, 50, 70), dtype=torch.uint8)
        expected = to_uint8(super_resolve(net, lr.float() / 255))
        assert torch.equal(super_resolve(net, lr), expected)
        deep = super_resolve(net, (lr.int() * 257).to(torch.uint16))
        assert (deep.int() / 257 - expected.int()).abs().max() <= 0.51


def test_memory_that_runs_out_makes_smaller_tiles() -> None:
    class Small(SRCNN):
        def body(self, x: torch.Tensor) -> torch.Tensor:
            if x[0, 0].numel() > 1500:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return super().body(x)

    torch.manual_seed(0)
    net, lr = Small(init="default"), torch.rand(1, 3, 40, 30)
    whole = SRCNN()
    whole.load_state_dict(net.state_dict())
    torch.testing.assert_close(super_resolve(net, lr), super_resolve(whole, lr), atol=1e-6, rtol=0)


def test_self_ensemble_is_the_mean_over_orientations() -> None:
    torch.manual_seed(0)
    net, lr = SRCNN(init="default"), torch.rand(1, 3, 9, 7)
    with torch.no_grad():
        turned = [[lr.rot90(k, (2, 3)), lr.rot90(k, (2, 3)).flip(2)] for k in range(4)]
        results = [(net(a).rot90(-k, (2, 3)), net(b).flip(2).rot90(-k, (2, 3))) for k, (a, b) in enumerate(turned)]
    mean = torch.stack([result for pair in results for result in pair]).mean(0)
    torch.testing.assert_close(super_resolve(SelfEnsemble(net), lr), mean)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_networks_of_other_types(dtype: torch.dtype) -> None:
    """Images are of any type, whatever the network's parameters are."""
    torch.manual_seed(0)
    net = SRCNN(init="identity").to(dtype)
    lr = 0.3 + 0.4 * torch.rand(1, 3, 20, 30)
    sr = super_resolve(net, lr)
    assert sr.dtype == torch.float32
    tolerance = 1e-5 if dtype == torch.float64 else 0.02  # 8 bits of significand, a few roundings
    torch.testing.assert_close(sr, bicubic_up(lr, 3), atol=tolerance, rtol=0)
    assert super_resolve(net, to_uint8(lr)).dtype == torch.uint8
    luma = SRCNN(channels=1).to(dtype)
    assert super_resolve(luma, lr).dtype == torch.float32


def test_progress_is_told_tile_by_tile() -> None:
    told: list[tuple[float, float]] = []
    super_resolve(SRCNN(), torch.rand(1, 3, 40, 50), (60, 60), lambda done, total: told.append((done, total)))
    assert told[-1] == (2000, 2000) and len(told) == 6 and told == sorted(told)


class Witness(SRCNN):
    """Notes in which state of torch it is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple] = []

    def body(self, x: torch.Tensor) -> torch.Tensor:
        autocast = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
        self.seen.append((torch.get_num_threads(), autocast))
        return super().body(x)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_only_the_pools_threads_have_one_torch_thread() -> None:
    """Not a thread that first uses torch while an image is enlarged."""
    found: list[int] = []

    def look(done: float, total: float) -> None:
        other = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
        other.start()
        other.join()

    net = Witness()
    super_resolve(net, torch.rand(1, 3, 40, 50), (30, 30), look)
    assert set(net.seen) == {(1, None)}
    # The first may have looked in the moment in which a thread of the pool began.
    assert len(found) > 10 and found[-1] == 2 == torch.get_num_threads()


@pytest.mark.usefixtures("two_threads")
def test_the_callers_autocast_is_that_of_the_tiles() -> None:
    net, lr = Witness(), torch.rand(1, 3, 40, 50)
    with torch.autocast("cpu", torch.bfloat16):
        sr = super_resolve(net, lr, (30, 30))
        whole = super_resolve(net, lr, (1000, 1000))  # one tile, in this thread
    assert {autocast for _, autocast in net.seen} == {torch.bfloat16}
    torch.testing.assert_close(sr, whole, atol=1e-2, rtol=0)
    super_resolve(net, lr, (30, 30))
    assert net.seen[-1] == (1, None)


def test_in_bf16_a_result_is_the_same_but_for_a_few_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    net, lr = load_network("compact_x3")[0], quantize(bicubic_down(dead_leaves(1, 72, seed=0)[0][None] / 255, 3))
    exact, half = super_resolve(net, lr), super_resolve(in_bf16(for_inference(net)), lr, (10, 10))
    assert 0 < (half - exact).abs().max() < 4 / 255  # docs/speed.md
    # A processor that oneDNN has no bf16 for computes it by torch.
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    other = super_resolve(in_bf16(for_inference(net)), lr, (10, 10))
    torch.testing.assert_close(other, half, atol=4 / 255, rtol=0)


@pytest.mark.parametrize("net", [SRCNN(residual=True, init="default"), Compact(slope=0.1, init="published")])
def test_what_is_made_for_inference_can_be_moved(net: Network) -> None:
    fast = for_inference(net)
    lr = torch.rand(1, 3, 20, 23, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(fast(lr.float()), net(lr.float()), atol=1e-6, rtol=0)
        fast = copy.deepcopy(fast)
        torch.testing.assert_close(fast.double()(lr), net.double()(lr), atol=1e-6, rtol=0)


def test_what_is_made_for_inference_has_the_same_weights() -> None:
    net = SRCNN(residual=True, init="default")
    assert not set(for_inference(net).state_dict()) - {f"net.{key}" for key in net.state_dict()}
