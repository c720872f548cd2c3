"""NIQE: how far a picture's statistics are from those of good photos, without a truth beside it (Mittal et al. 2013).

Lower is better. As the authors' MATLAB and BasicSR compute it: Y of BT.601, blocks of 96x96 without overlap, two sizes.
The statistics of good photos are the authors' own file, which this package does not bring: basicsr does.
Letters: H W sides of the picture, B blocks.
"""

import math
import zipfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from restorer.errors import MissingPackageError, PictureError, WeightsError
from restorer.metrics.fidelity import Bytes, to_luma
from restorer.resample import resize
from restorer.weights.fetch import sha256_of
from restorer.weights.find import installed_files

Numbers = NDArray[np.float64]
BLOCK = 96
FILE = "niqe_pris_params.npz"
SHA256 = "2a7c182a68c9e7f1b2e2e5ec723279d6f65d912b6fcaf37eb2bf03d7367c4296"
"""Of basicsr 1.4.2's."""
_SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))
"""To the neighbours whose products are looked at: right, below, and the two below aslant."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Pristine:
    """What the 36 statistics of good photos are like."""

    mean: Numbers
    """(36,)"""
    covariance: Numbers
    """(36, 36)"""


def niqe(x: Bytes, pristine: Pristine, *, border: int = 0) -> float:
    """(H, W, 1 or 3) uint8 -> the distance, 0 at best; good photos have 2 to 5.

    `border` pixels at every edge are left out. PictureError where less than two blocks are left.
    """
    grey = to_luma(np.broadcast_to(x, (*x.shape[:2], 3)))[..., 0]
    grey = grey[border : x.shape[0] - border, border : x.shape[1] - border]
    rows, columns = grey.shape[0] // BLOCK, grey.shape[1] // BLOCK
    if rows * columns < 2:
        raise PictureError(f"NIQE needs two blocks of {BLOCK}x{BLOCK} inside the border, got {grey.shape[::-1]}")
    grey = grey[: rows * BLOCK, : columns * BLOCK]
    half = resize(grey / 255, (rows * BLOCK // 2, columns * BLOCK // 2)).astype(np.float64) * 255
    sizes = [_of_blocks(_contrast(each), side) for each, side in ((grey, BLOCK), (half, BLOCK // 2))]
    statistics = np.concatenate(sizes, axis=1)  # (B, 36)
    whole = statistics[~np.isnan(statistics).any(axis=1)]
    if len(whole) < 2:
        raise PictureError("NIQE needs two blocks that are not flat")
    apart = pristine.mean - np.nanmean(statistics, axis=0)
    spread = (pristine.covariance + np.cov(whole, rowvar=False)) / 2
    return float(np.sqrt(apart @ np.linalg.pinv(spread) @ apart))


def open_pristine(path: Path | None = None) -> Pristine:
    """Read the authors' statistics: from a file like basicsr's, or from basicsr where it is installed. No pickle."""
    found = path or _of_basicsr()
    if found is None:
        raise MissingPackageError(f"NIQE needs its authors' {FILE}, which basicsr brings: name it by --niqe FILE")
    if path is None and sha256_of(found) != SHA256:
        raise WeightsError(f"{found}: has other bytes than published; install basicsr again")
    try:
        with found.open("rb") as content, np.load(content, allow_pickle=False) as file:
            mean, covariance = file["mu_pris_param"].ravel(), file["cov_pris_param"]
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise WeightsError(f"{found}: is no file like {FILE} ({error})") from None
    if mean.shape != (36,) or covariance.shape != (36, 36):
        raise WeightsError(f"{found}: is no file like {FILE}: it has shapes {mean.shape} and {covariance.shape}")
    return Pristine(mean=mean, covariance=covariance)


def fit_asymmetric(x: Numbers) -> tuple[float, float, float]:
    """Any shape -> (shape, left scale, right scale) of the generalised Gaussian that fits, each side by its moments.

    Shape 2 is a Gaussian, 1 a Laplacian; a scale is the deviation times sqrt(gamma(1/shape) / gamma(3/shape)). Of a
    side without numbers it is NaN, and the shape then the least, 0.2, as in BasicSR.
    """
    shapes, ratios, scales = _table()
    left, right = (math.sqrt(_mean(x[side] ** 2)) for side in (x < 0, x > 0))
    if math.isnan(left) or math.isnan(right):  # BasicSR's search among numbers that are none finds the first shape
        return float(shapes[0]), left * float(scales[0]), right * float(scales[0])
    balance = left / right
    seen = np.abs(x).mean() ** 2 / (x**2).mean()
    seen *= (balance**3 + 1) * (balance + 1) / (balance**2 + 1) ** 2
    best = int(np.argmin((ratios - seen) ** 2))
    return float(shapes[best]), left * float(scales[best]), right * float(scales[best])


def _of_basicsr() -> Path | None:
    """Without importing it, which fails beside a current torchvision."""
    return next(installed_files("basicsr", f"metrics/{FILE}"), None)


def _contrast(x: Numbers) -> Numbers:
    """(H, W) -> same: each pixel less the mean around it, over the deviation around it and one more.

    In float32, as BasicSR: where a picture is flat, what rounding leaves is all there is, and decides the result.
    """
    around, small = cv2.getGaussianKernel(7, 7 / 6), x.astype(np.float32)
    mean, square = (
        cv2.sepFilter2D(each.astype(np.float64), -1, around, around, borderType=cv2.BORDER_REPLICATE).astype(np.float32)
        for each in (small, small**2)
    )
    return (small - mean) / (np.sqrt(np.abs(square - mean**2)) + 1)


def _of_blocks(x: Numbers, side: int) -> Numbers:
    """(H, W) -> (B, 18), columns of blocks after each other, as MATLAB walks."""
    return np.array(
        [
            _statistics(x[top : top + side, left : left + side])
            for left in range(0, x.shape[1], side)
            for top in range(0, x.shape[0], side)
        ]
    )


def _statistics(block: Numbers) -> list[float]:
    """Shape and mean scale of the values; shape, mean and scales of the products with each neighbour (equation 8)."""
    shape, left, right = fit_asymmetric(block)
    numbers = [shape, (left + right) / 2]
    for shift in _SHIFTS:
        shape, left, right = fit_asymmetric(block * np.roll(block, shift, axis=(0, 1)))
        mean = (right - left) * math.gamma(2 / shape) / math.gamma(1 / shape)
        numbers += [shape, mean, left, right]
    return numbers


def _mean(x: Numbers) -> float:
    return float(x.mean()) if x.size else math.nan


@lru_cache(maxsize=1)
def _table() -> tuple[Numbers, Numbers, Numbers]:
    """Shapes from 0.2 to 10; (E|x|)^2 / E x^2 of each; and its scale over its deviation."""
    shapes = np.arange(0.2, 10.001, 0.001)
    gamma = np.vectorize(math.gamma)
    one, two, three = (gamma(number / shapes) for number in (1, 2, 3))
    return shapes, two**2 / (one * three), np.sqrt(one / three)
