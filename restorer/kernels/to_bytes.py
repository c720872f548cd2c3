"""Batch -> 8-bit pixels in one pass: crop, clamp, scale, round and reorder."""

import torch
from torch import Tensor

from restorer.kernels.choice import Impl, uses_triton

Crop = tuple[int, int, int, int]
"""top, left, bottom, right; ends not included."""


def to_bytes(x: Tensor, crop: Crop | None = None, *, impl: Impl = "auto") -> Tensor:
    """(N, C, H, W) float in [0, 1], clipped -> (N, h, w, C) uint8: round(255 x), halves to even; None for no crop."""
    assert x.ndim == 4 and x.is_floating_point(), f"expected floats (N, C, H, W), got {x.dtype} {tuple(x.shape)}"
    if crop is not None:
        top, left, bottom, right = crop
        assert 0 <= top <= bottom <= x.shape[2] and 0 <= left <= right <= x.shape[3], f"{crop} is outside {x.shape}"
        x = x[:, :, top:bottom, left:right]
    if not uses_triton("to_bytes", impl, x):
        return _reference(x)
    from restorer.kernels.device.to_bytes import launch

    return launch(x)


def _reference(x: Tensor) -> Tensor:
    y = x.to(torch.float32).permute(0, 2, 3, 1).clamp(0, 1)
    return y.mul_(255).round_().to(torch.uint8).contiguous()
