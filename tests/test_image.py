import numpy as np
import pytest
import torch

from srcnn.image import (
    bicubic_down,
    bicubic_resize,
    bicubic_up,
    modcrop,
    rgb_to_y,
    rgb_to_ycbcr,
    shave,
    symmetric_pad,
    to_uint8,
    ycbcr_to_rgb,
)


def matlab_imresize(image: np.ndarray, scale: float) -> np.ndarray:
    """MATLAB's imresize of a 2-D image, bicubic with antialiasing, written from its documentation: for each output
    pixel the weights of Keys' cubic (a = -0.5), stretched when shrinking, over a mirrored image."""

    def cubic(x: np.ndarray) -> np.ndarray:
        x = np.abs(x)
        near = 1.5 * x**3 - 2.5 * x**2 + 1
        far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
        return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))

    def along(lines: np.ndarray) -> np.ndarray:
        size = lines.shape[0]
        stretch = min(1.0, scale)
        out = np.zeros((round(size * scale), lines.shape[1]))
        for i in range(out.shape[0]):
            centre = (i + 0.5) / scale - 0.5
            taps = np.arange(int(np.floor(centre - 2 / stretch)), int(np.ceil(centre + 2 / stretch)) + 1)
            weights = cubic((centre - taps) * stretch)
            mirrored = taps % (2 * size)
            mirrored = np.where(mirrored < size, mirrored, 2 * size - 1 - mirrored)
            out[i] = (weights / weights.sum()) @ lines[mirrored]
        return out

    return along(along(image).T).T


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [(48, 36), (12, 12)])
def test_bicubic_equals_matlab(scale: int, dtype: torch.dtype, size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).random(size)
    tensor = torch.from_numpy(image).to(dtype)[None, None]
    down = bicubic_down(tensor, scale)[0, 0].numpy()
    up = bicubic_up(tensor, scale)[0, 0].numpy()
    np.testing.assert_allclose(down, matlab_imresize(image, 1 / scale), atol=1e-6)
    np.testing.assert_allclose(up, matlab_imresize(image, scale), atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 3)])
def test_bicubic_enlarges_the_smallest(size: tuple[int, int]) -> None:
    image = np.random.default_rng(1).random(size)
    up = bicubic_up(torch.from_numpy(image)[None, None], 3)[0, 0].numpy()
    np.testing.assert_allclose(up, matlab_imresize(image, 3), atol=1e-6)


def test_symmetric_pad_repeats_the_edge_pixel() -> None:
    row = torch.tensor([1.0, 2.0, 3.0])
    assert symmetric_pad(row, 4, -1).tolist() == [3, 3, 2, 1, 1, 2, 3, 3, 2, 1, 1]


def test_modcrop_and_shave() -> None:
    image = torch.arange(7 * 8.0).view(1, 1, 7, 8)
    assert modcrop(image, 3).shape == (1, 1, 6, 6)
    assert torch.equal(modcrop(image, 3), image[..., :6, :6])
    assert torch.equal(shave(image, 2), image[..., 2:5, 2:6])
    assert torch.equal(shave(image, 0), image)


def test_luma_is_studio_range() -> None:
    """BT.601: black 16, white 235; MATLAB's rgb2ycbcr(uint8(cat(3,255,0,0))) gives 81, 90, 240."""
    pixels = torch.tensor([[0.0, 0, 0], [1, 1, 1], [1, 0, 0]], dtype=torch.float64).view(3, 3, 1, 1)
    assert to_uint8(rgb_to_y(pixels)).flatten().tolist() == [16, 235, 81]
    assert to_uint8(rgb_to_ycbcr(pixels))[2].flatten().tolist() == [81, 90, 240]
    colours = torch.rand(2, 3, 5, 4, dtype=torch.float64)
    torch.testing.assert_close(ycbcr_to_rgb(rgb_to_ycbcr(colours)), colours)


def test_rounding_is_matlabs() -> None:
    """uint8() clips, and rounds halves away from zero."""
    values = torch.tensor([-0.1, 0.5 / 255, 1.5 / 255, 2.4 / 255, 1.2], dtype=torch.float64)
    assert to_uint8(values).tolist() == [0, 1, 2, 2, 255]


@pytest.mark.parametrize("scale", [1 / 12, 5 / 12, 7 / 12, 1, 1.25, 31 / 12])
def test_bicubic_to_any_size(scale: float) -> None:
    x = torch.rand(2, 3, 24, 36, dtype=torch.float64)
    resized = bicubic_resize(x, round(24 * scale), round(36 * scale))
    assert np.abs(resized[1, 2].numpy() - matlab_imresize(x[1, 2].numpy(), scale)).max() < 1e-12
