import numpy as np
import torch

from srcnn.data.leaves import dead_leaves


def test_images_depend_on_seed_and_number() -> None:
    first = dead_leaves(2, 64, seed=0)
    assert all(image.shape == (3, 64, 64) and image.dtype == torch.uint8 for image in first)
    assert torch.equal(first[1], dead_leaves(3, 64, seed=0)[1])
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], dead_leaves(1, 64, seed=1)[0])


def test_statistics_are_those_of_photographs() -> None:
    """Amplitude falls as about 1/f (Field 1987), and channels vary together (Ruderman et al. 1998)."""
    images = torch.stack(dead_leaves(8, 128, seed=0)).float().numpy() / 255
    gray = images.mean(1)
    spectrum = np.abs(np.fft.rfft2(gray - gray.mean((1, 2), keepdims=True))).mean(0)
    frequency = np.hypot(np.fft.fftfreq(128)[:, None], np.fft.rfftfreq(128))
    band = (frequency > 0.02) & (frequency < 0.3)
    slope = np.polyfit(np.log(frequency[band]), np.log(spectrum[band]), 1)[0]
    assert -1.6 < slope < -0.7
    assert np.corrcoef(images.transpose(1, 0, 2, 3).reshape(3, -1))[0, 1] > 0.7
    assert 0.1 < gray.std() < 0.35
