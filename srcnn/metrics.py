"""PSNR and SSIM under a named protocol."""

import math
from statistics import fmean
from typing import NamedTuple

from torch import Tensor

from srcnn.errors import check_choice
from srcnn.image import bicubic_down, bicubic_up, modcrop, quantize, rgb_to_y, shave, to_uint8
from srcnn.nets import Network
from srcnn.inference.tiles import gray_of, super_resolve


class Score(NamedTuple):
    """PSNR in dB and SSIM on the luma of one image, and of bicubic on the same image."""

    psnr: float
    ssim: float
    bicubic_psnr: float
    bicubic_ssim: float

    @property
    def gain(self) -> float:
        """dB above bicubic."""
        return self.psnr - self.bicubic_psnr

    def as_dict(self) -> dict[str, float]:
        return self._asdict() | {"gain": self.gain}


class Protocol(NamedTuple):
    """How a network is scored: on the luma (BT.601) of 8-bit images, `scale` pixels shaved off each side.

    At scale 1 nothing is shaved off, as is usual for noise and JPEG artefacts, and bicubic is the LR image itself.

    authors  the SRCNN authors' MATLAB code: the LR is not rounded, luma is rounded to 8 bits, and bicubic works on
             the luma; a gray image is its own luma. A network on RGB gets the RGB image, shrunk in floating point,
             and its rounded output gives the luma.
    basicsr  BasicSR and most papers since 2018: the LR is an 8-bit RGB file, luma is not rounded.
    """

    lr_8bit: bool
    luma_8bit: bool

    def score(self, net: Network, hr: Tensor, with_ssim: bool = True, lr: Tensor | None = None) -> Score:
        """Shrink an HR image [1, 1 or 3, H, W] in [0, 1], super-resolve it and compare; bicubic beside it.

        lr  an 8-bit LR image in [0, 1] to take instead of shrinking HR, so that only the luma's rounding tells the
            protocols apart; of RGB where HR is gray, its gray image is taken

        Without SSIM, which takes longer than small networks do, it is NaN.
        """
        scale, hr = net.scale, modcrop(hr, net.scale)
        if lr is None and not self.lr_8bit:
            truth = self._luma(hr)
            luma_lr = bicubic_down(truth / 255, scale)
            bicubic = self._luma(quantize(bicubic_up(luma_lr, scale)))
            if net.channels == 1:
                sr = self._luma(quantize(super_resolve(net, luma_lr.float())))
            else:
                rgb = quantize(super_resolve(net, bicubic_down(hr.expand(-1, 3, -1, -1), scale).float()))
                sr = self._luma(quantize(gray_of(rgb)) if hr.shape[1] == 1 else rgb)
            return _score(sr, bicubic, truth, scale, with_ssim)
        lr = quantize(bicubic_down(hr.expand(-1, 3, -1, -1), scale)) if lr is None else _with_channels(lr, hr.shape[1])
        return self.compare(lr, quantize(super_resolve(net, lr)), hr, with_ssim)

    def compare(self, lr: Tensor, sr: Tensor, hr: Tensor, with_ssim: bool = True) -> Score:
        """Score an SR image that is there, and bicubic on the same LR: all [1, 1 or 3, H, W] in [0, 1]."""
        scale = sr.shape[-1] // lr.shape[-1]
        bicubic = quantize(bicubic_up(lr, scale))
        return _score(self._luma(sr), self._luma(bicubic), self._luma(hr), scale, with_ssim)

    def _luma(self, image: Tensor) -> Tensor:
        image = image.cpu().double()  # not every accelerator has float64
        if self.luma_8bit:
            return to_uint8(rgb_to_y(image) if image.shape[1] == 3 else image).double()
        return rgb_to_y(image.expand(-1, 3, -1, -1)) * 255


def _with_channels(lr: Tensor, channels: int) -> Tensor:
    return quantize(gray_of(lr)) if channels < lr.shape[1] else lr.expand(-1, channels, -1, -1)


def _score(sr: Tensor, bicubic: Tensor, truth: Tensor, scale: int, with_ssim: bool) -> Score:
    figures, border = [], scale if scale > 1 else 0
    for luma in (sr, bicubic):
        pair = shave(luma, border), shave(truth, border)
        figures += [psnr(*pair), ssim(*pair) if with_ssim else math.nan]
    return Score(*figures)


PROTOCOLS = {"authors": Protocol(lr_8bit=False, luma_8bit=True), "basicsr": Protocol(lr_8bit=True, luma_8bit=False)}


def find_protocol(name: str) -> Protocol:
    """The protocol of that name; UserError where there is none."""
    check_choice("protocol", name, tuple(PROTOCOLS))
    return PROTOCOLS[name]


def psnr(image: Tensor, truth: Tensor) -> float:
    """PSNR in dB of one image against another, both in [0, 255]."""
    from torchmetrics.functional.image import peak_signal_noise_ratio  # which takes seconds to import

    return float(peak_signal_noise_ratio(image, truth, data_range=255.0))


def ssim(image: Tensor, truth: Tensor) -> float:
    """SSIM of one image [1, 1, H, W] against another, both in [0, 255], over the region where the window fits.

    Gaussian window 11x11 of sigma 1.5, K = (0.01, 0.03); NaN for an image smaller than the window.
    Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", TIP 2004, section III-C.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    if min(image.shape[-2:]) < 11:
        return math.nan
    # torchmetrics' mean runs over a map with reflected borders: take the map, cut off what the padding touched.
    # In float32, as float64 convolutions are ten times slower and differ by 1e-5 here.
    _, similarity = structural_similarity_index_measure(
        image.float(), truth.float(), sigma=1.5, kernel_size=11, data_range=255.0, return_full_image=True
    )
    return float(shave(similarity, 5).mean())


def mean_score(scores: list[Score]) -> Score:
    """The mean of each figure over images; of decibels, not of squared errors. Images too small for SSIM count not."""
    columns = zip(*scores, strict=True)
    return Score(*(fmean([x for x in column if not math.isnan(x)] or [math.nan]) for column in columns))
