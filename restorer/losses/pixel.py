"""How far two pictures are apart, value by value; all (N, C, H, W), (N, C, H, W) of any range -> ()."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from restorer.errors import unknown_name


def charbonnier(x: Tensor, y: Tensor, *, eps: float = 1e-3) -> Tensor:
    """(N, C, H, W), same -> (): mean of sqrt((x - y)^2 + eps^2), an L1 that is smooth at zero (arXiv:1704.03915)."""
    return ((x - y).square() + eps**2).sqrt().mean()


def frequency(x: Tensor, y: Tensor) -> Tensor:
    """(N, C, H, W), same -> (): mean L1 of real and imaginary parts of the orthonormal FFT over H and W.

    Weighs what repeats over the picture, such as fine texture, as much as what is at one place (arXiv:2108.05054).
    """
    difference = torch.fft.rfft2((x - y).float(), norm="ortho")
    return torch.view_as_real(difference).abs().mean()


def total_variation(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (): mean absolute step down plus mean absolute step across; 0 where there is none."""
    steps = [x.diff(dim=axis).abs() for axis in (-2, -1)]
    return torch.stack([step.mean() if step.numel() else step.sum() for step in steps]).sum()


PIXEL_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": F.l1_loss,
    "l2": F.mse_loss,
    "charbonnier": charbonnier,
    "frequency": frequency,
}


def pixel_loss(name: str, x: Tensor, y: Tensor) -> Tensor:
    """(N, C, H, W), same -> (): the loss of that name in `PIXEL_LOSSES`."""
    if name not in PIXEL_LOSSES:
        raise unknown_name("pixel loss", name, PIXEL_LOSSES)
    return PIXEL_LOSSES[name](x, y)
