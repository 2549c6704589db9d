"""PSNR and SSIM under a named protocol: of one image, and as torchmetrics' metrics of many."""

import math
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MeanMetric
from torchmetrics.functional.image import peak_signal_noise_ratio

from srcnn.errors import check_choice
from srcnn.image import as_float, bicubic_down, bicubic_up, gray_of, quantize, rgb_to_y, shave, to_uint8


class Score(NamedTuple):
    """PSNR in dB and SSIM on the luma of one image, and of bicubic on the same image."""

    psnr: float
    ssim: float
    bicubic_psnr: float
    bicubic_ssim: float

    @property
    def gain(self) -> float:
        """dB above bicubic; NaN where both are exact."""
        return self.psnr - self.bicubic_psnr

    def as_dict(self) -> dict[str, float]:
        return self._asdict() | {"gain": self.gain}


class Protocol(NamedTuple):
    """How a network is scored: on the luma (BT.601) of 8-bit images, `scale` pixels shaved off each side.

    At scale 1 nothing is shaved off, as is usual for noise and JPEG artefacts, and bicubic is the LR image itself.

    authors  the SRCNN authors' MATLAB code: the LR is not rounded, luma is rounded to 8 bits, and bicubic works on
             the luma, as do networks on luma; a gray image is its own luma
    basicsr  BasicSR and most papers since 2018: the LR is an 8-bit RGB file, luma is not rounded

    Images are [N, 1 or 3, H, W], float in [0, 1] or uint8, LR and HR of as many channels. LR in 8 bits stays so under
    both. SR of one channel beside RGB is luma; of RGB beside a gray image its gray image counts.
    """

    lr_8bit: bool
    luma_8bit: bool

    def evaluate(
        self, upscale: Callable[[Tensor], Tensor], lr: Tensor, hr: Tensor, channels: int = 3, with_ssim: bool = True
    ) -> Score:
        """Super-resolve one image as the protocol has it, and compare; bicubic beside it.

        upscale   makes SR of LR in [0, 1], with as many channels
        channels  that the network works on: where the protocol says so, 1 gets the luma
        """
        return self.compare(upscale(self.network_input(lr, hr, channels)), lr, hr, with_ssim)

    def compare(self, sr: Tensor, lr: Tensor, hr: Tensor, with_ssim: bool = True) -> Score:
        """Score one SR image, and bicubic on its LR image. SSIM takes longer than small networks; without it NaN."""
        scale, figures = hr.shape[-1] // lr.shape[-1], list[float]()
        for image in (sr, self.bicubic(lr, hr)):
            pair = [shave(luma, scale * (scale > 1)) for luma in self.luma(image, hr)]
            figures += [psnr(*pair), ssim(*pair) if with_ssim else math.nan]
        return Score(*figures)

    def network_input(self, lr: Tensor, hr: Tensor, channels: int) -> Tensor:
        """LR in [0, 1] as a network gets it."""
        if self.lr_8bit or not lr.is_floating_point():
            return quantize(as_float(lr))
        return self._luma_lr(lr, hr).to(lr) if channels == 1 else lr

    def bicubic(self, lr: Tensor, hr: Tensor) -> Tensor:
        """Bicubic enlargement of LR, or of its luma."""
        return bicubic_up(self.network_input(lr, hr, channels=1), hr.shape[-1] // lr.shape[-1])

    def luma(self, sr: Tensor, hr: Tensor) -> tuple[Tensor, Tensor]:
        """The luma of SR, clipped and rounded to 8 bits, and of HR: [N, 1, H, W] in [0, 255], float64 on the CPU."""
        sr = as_float(sr)
        sr = quantize(sr.to(torch.promote_types(sr.dtype, torch.float32)))
        if sr.shape[1] < hr.shape[1]:
            return to_uint8(sr).cpu().double(), self._luma(hr)
        return self._luma(quantize(gray_of(sr)) if sr.shape[1] > hr.shape[1] else sr), self._luma(hr)

    def _luma_lr(self, lr: Tensor, hr: Tensor) -> Tensor:
        """The luma of LR. Where LR is HR shrunk, luma is rounded before, as in the authors' code: it makes 0.01 dB."""
        scale = hr.shape[-1] // lr.shape[-1]
        if torch.allclose(lr, bicubic_down(as_float(hr).to(lr.device), scale).to(lr.dtype), atol=1e-4):
            return bicubic_down(self._luma(hr) / 255, scale)
        return rgb_to_y(lr) if lr.shape[1] == 3 else lr

    def _luma(self, image: Tensor) -> Tensor:
        image = as_float(image).cpu().double()  # not every accelerator has float64
        if self.luma_8bit:
            return to_uint8(rgb_to_y(image) if image.shape[1] == 3 else image).double()
        return rgb_to_y(image.expand(-1, 3, -1, -1)) * 255


PROTOCOLS = {"authors": Protocol(lr_8bit=False, luma_8bit=True), "basicsr": Protocol(lr_8bit=True, luma_8bit=False)}


def find_protocol(name: str) -> Protocol:
    """The protocol of that name; UserError where there is none."""
    check_choice("protocol", name, tuple(PROTOCOLS))
    return PROTOCOLS[name]


def psnr(image: Tensor, truth: Tensor) -> float:
    """PSNR in dB of one image against another, both in [0, 255]; infinite where they are equal."""
    return float(peak_signal_noise_ratio(image, truth, data_range=255.0))


def ssim(image: Tensor, truth: Tensor) -> float:
    """SSIM of one image [1, 1, H, W] against another, both in [0, 255], over the region where the window fits.

    Gaussian window 11x11 of sigma 1.5, K = (0.01, 0.03); NaN for an image smaller than the window.
    Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", TIP 2004, equation 13.
    """
    if min(image.shape[-2:]) < 11:
        return math.nan
    # In float64: of a white area float32 would lose the variance, and 1e-3 of SSIM.
    offset = torch.arange(-5, 6, dtype=torch.float64)
    window = torch.exp(-offset.square() / (2 * 1.5**2))
    window = (window / window.sum()).view(1, 1, 1, 11)
    x, y = image.double(), truth.double()
    moments = F.conv2d(torch.cat([x, y, x * x, y * y, x * y]), window)
    mean_x, mean_y, xx, yy, xy = F.conv2d(moments, window.transpose(2, 3))
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * (xy - mean_x * mean_y) + c2) / (xx - mean_x**2 + yy - mean_y**2 + c2)
    return float((luminance * structure).mean())


class _MeanOverImages(MeanMetric):
    """The mean of a figure over images; `left_out` counts those where it is not finite, or that have one colour.

    What has one colour, as a black image, a network has exactly at one validation and off by one level at the next:
    with its PSNR of infinity or 50 dB among the others, it would decide which checkpoint is the best.
    """

    higher_is_better = True  # type: ignore[assignment]
    figure: Callable[[Tensor, Tensor], float]
    left_out: Tensor

    def __init__(self, protocol: Protocol, scale: int):
        super().__init__()
        self.protocol, self.border = protocol, scale * (scale > 1)
        self.add_state("left_out", torch.tensor(0), "sum")

    def update(self, sr: Tensor, hr: Tensor) -> None:  # type: ignore[override]
        """SR and HR images, [N, 1 or 3, H, W] each."""
        for image, truth in zip(*self.protocol.luma(sr, hr), strict=True):
            figure = self.figure(shave(image[None], self.border), shave(truth[None], self.border))
            if math.isfinite(figure) and truth.min() < truth.max():
                super().update(figure)
            else:
                self.left_out += 1


class PSNR(_MeanOverImages):
    """Mean PSNR in dB on luma, of images one by one; those that are exact, with an infinite PSNR, are left out."""

    figure = staticmethod(psnr)


class SSIM(_MeanOverImages):
    """Mean SSIM on luma, of images one by one; those smaller than its window are left out."""

    figure = staticmethod(ssim)


def mean_score(scores: Sequence[Score]) -> Score:
    """The mean over images of each figure: of decibels, not of squared errors. NaN where no image is left.

    Left out are images that the network or bicubic has exactly, with an infinite PSNR, so that both means are of the
    same images; and an SSIM that is NaN.
    """
    finite = [score for score in scores if math.inf not in (score.psnr, score.bicubic_psnr)]
    columns = zip(*finite, strict=True) if finite else [()] * len(Score._fields)
    return Score(*(fmean([x for x in column if not math.isnan(x)] or [math.nan]) for column in columns))
