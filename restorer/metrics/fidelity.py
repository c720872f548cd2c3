"""PSNR and SSIM as super-resolution reports them: 8-bit values, luma, a border left out (BasicSR, MATLAB).

The formulas are torchmetrics', which agree with that convention once luma and border are taken out before.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from restorer.errors import MissingPackageError, PictureError

Bytes = NDArray[np.uint8]
PEAK = 255.0
WINDOW = 11


def psnr(x: Bytes, y: Bytes, *, border: int = 0, luma: bool = True) -> float:
    """(H, W, 1 or 3) uint8, same -> decibels; infinity where they are equal.

    `border` pixels at every edge are left out. `luma` compares Y of BT.601 alone, as MATLAB's rgb2ycbcr makes it.
    """
    need_torchmetrics()
    from torchmetrics.functional.image import peak_signal_noise_ratio

    a, b = _prepared(x, y, border=border, luma=luma)
    return float(peak_signal_noise_ratio(a, b, data_range=PEAK))


def ssim(x: Bytes, y: Bytes, *, border: int = 0, luma: bool = True) -> float:
    """(H, W, 1 or 3) uint8, same -> structural similarity, at most 1: 11x11 Gaussian of deviation 1.5, whole windows.

    As `psnr` otherwise; of RGB the mean over channels (Wang et al. 2004).
    """
    need_torchmetrics()
    from torchmetrics.functional.image import structural_similarity_index_measure

    a, b = _prepared(x, y, border=border, luma=luma)
    if min(a.shape[-2:]) < WINDOW:
        raise PictureError(f"ssim needs at least {WINDOW} pixels a side inside the border, got {tuple(a.shape[-2:])}")
    _, everywhere = structural_similarity_index_measure(
        a, b, sigma=1.5, kernel_size=WINDOW, data_range=PEAK, return_full_image=True
    )
    edge = (
        WINDOW // 2
    )  # there, windows reach past the picture, which the convention leaves out and torchmetrics mirrors
    return float(everywhere[..., edge:-edge, edge:-edge].mean())


def to_luma(x: Bytes) -> NDArray[np.float64]:
    """(H, W, 3) uint8 -> (H, W, 1), whole numbers in [16, 235]: Y of BT.601 as MATLAB's rgb2ycbcr makes it of bytes.

    So is what papers report. BasicSR does not round, and reads about 0.01 dB more on Set5.
    """
    return np.rint(x.astype(np.float64) @ np.array([[65.481], [128.553], [24.966]]) / PEAK + 16)


def _prepared(x: Bytes, y: Bytes, *, border: int, luma: bool) -> tuple[Tensor, Tensor]:
    """-> (1, C, h, w) float64 each."""
    if x.shape != y.shape:
        raise PictureError(f"pictures of {x.shape} and {y.shape} cannot be compared; make them of one size")
    if min(x.shape[:2]) <= 2 * border:
        raise PictureError(f"a border of {border} leaves nothing of {x.shape[1]}x{x.shape[0]}")
    inside = slice(border, -border or None)
    cut = [each[inside, inside] for each in (x, y)]
    values = [to_luma(each) if luma and each.shape[2] == 3 else each.astype(np.float64) for each in cut]
    a, b = (torch.from_numpy(np.ascontiguousarray(each)).permute(2, 0, 1)[None] for each in values)
    return a, b


def need_torchmetrics() -> None:
    """MissingPackageError where it is not installed."""
    try:
        import torchmetrics  # noqa: F401 -- only whether it is there
    except ImportError:
        raise MissingPackageError('metrics need extra packages: pip install "restorer[train]"') from None
