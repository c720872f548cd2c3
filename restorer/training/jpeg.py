"""What JPEG does to a picture: by the real encoder, and by a model that gradients pass through.

The model is the standard's own arithmetic (ITU-T T.81): Y'CbCr, colour at half the sides, cosines of 8x8 blocks,
rounded in steps. Backwards, rounding has the derivative 3 (x - round(x))^2, as Shin and Song proposed (2017); forwards
it is exact.
Letters: N batch, H W sides, h w sides in blocks.
"""

import io
import math
from functools import lru_cache

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

SIDE = 8
"""Of a block."""
_CELL = 16
"""Side of what four blocks of Y and one of each colour cover."""
_TO_YCC = ((0.299, 0.587, 0.114), (-0.168735892, -0.331264108, 0.5), (0.5, -0.418687589, -0.081312411))
_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136286, -0.714136286), (1.0, 1.772, 0.0))
# fmt: off
_LUMA = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51,
    87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101,
    72, 92, 95, 98, 112, 100, 103, 99,
)
"""Annex K.1, row by row."""
_CHROMA = (
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99,
    99, 99, 99, *(99,) * 32,
)
# fmt: on


def real_jpeg(x: Tensor, quality: int) -> Tensor:
    """(1, 3 or 1, H, W) in [0, 1] -> same: written and read again by libjpeg, colour at half the sides. No gradient."""
    values = (x[0].detach().clamp(0, 1) * 255).round().to("cpu", torch.uint8)
    image = Image.fromarray(values.permute(1, 2, 0).numpy() if len(values) == 3 else values[0].numpy())
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality, subsampling="4:2:0")
    with Image.open(file) as read:
        back = torch.frombuffer(bytearray(read.tobytes()), dtype=torch.uint8)
    return back.view(1, *values.shape[1:], len(values)).permute(0, 3, 1, 2).to(x) / 255


def model_jpeg(x: Tensor, quality: int) -> Tensor:
    """(N, 3 or 1, H, W) in [0, 1] -> same: what the real encoder makes, within a level on average; differentiable."""
    height, width = x.shape[-2:]
    padded = F.pad(x, (0, -width % _CELL, 0, -height % _CELL), mode="replicate").float() * 255
    luma, chroma = (table.to(padded.device) for table in quantisation(quality))
    if x.shape[1] == 1:
        back = _coded(padded - 128, luma) + 128
    else:
        ycc = _mixed(padded, _TO_YCC)
        colour = F.interpolate(_coded(F.avg_pool2d(ycc[:, 1:], 2), chroma), scale_factor=2, mode="bilinear")
        back = _mixed(torch.cat([_coded(ycc[:, :1] - 128, luma) + 128, colour], dim=1), _TO_RGB)
    return (back[..., :height, :width] / 255).clamp(0, 1).to(x.dtype)


@lru_cache(maxsize=128)
def quantisation(quality: int) -> tuple[Tensor, Tensor]:
    """Quality 1..100 -> the steps of Y and of colour, (8, 8) each, as libjpeg scales the standard's tables."""
    if not 1 <= quality <= 100:
        raise ValueError(f"quality must be in 1..100, got {quality}")
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    with torch.inference_mode(False):  # what is kept must serve training too
        luma, chroma = (
            torch.tensor([min(max((step * scale + 50) // 100, 1), 255) for step in table]).view(SIDE, SIDE).float()
            for table in (_LUMA, _CHROMA)
        )
    return luma, chroma


def soft_round(x: Tensor) -> Tensor:
    """Any shape -> same: the nearest whole number; backwards as if the cube of what was missing had been added."""
    nearest = x.detach().round()
    missing = (x - nearest) ** 3
    return nearest + missing - missing.detach()


def _mixed(x: Tensor, matrix: tuple[tuple[float, ...], ...]) -> Tensor:
    return torch.einsum("oc,nchw->nohw", torch.tensor(matrix, device=x.device), x)


def _coded(x: Tensor, steps: Tensor) -> Tensor:
    """(N, C, H, W) -> same: as the coefficients of its blocks, in whole steps, hold it."""
    n, c, height, width = x.shape
    cosines = _cosines().to(x.device)
    blocks = x.view(n, c, height // SIDE, SIDE, width // SIDE, SIDE).transpose(3, 4)  # (N, C, h, w, 8, 8)
    rounded = soft_round(cosines @ blocks @ cosines.T / steps) * steps
    return (cosines.T @ rounded @ cosines).transpose(3, 4).reshape(n, c, height, width)


@lru_cache(maxsize=1)
def _cosines() -> Tensor:
    """(8, 8): row u is the cosine of frequency u, of length one."""
    with torch.inference_mode(False):
        at = torch.arange(SIDE, dtype=torch.float64)
        waves = torch.cos((2 * at[None, :] + 1) * at[:, None] * math.pi / (2 * SIDE)) / 2
        waves[0] /= math.sqrt(2)
        return waves.float()
