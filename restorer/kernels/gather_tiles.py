"""Pixels of a picture -> batch of tiles in one pass: cut, mirror at the borders, scale to [0, 1], reorder, lower.

Letters: H W sides of the picture, N tiles of h w, C channels.
"""

import torch
from torch import Tensor

from restorer.kernels.choice import Impl, uses_triton

PEAKS = {torch.uint8: 255.0, torch.uint16: 65535.0, torch.float32: 1.0}
"""What becomes 1, for each dtype of pixels."""


def gather_tiles(
    pixels: Tensor,
    corners: Tensor,
    size: tuple[int, int],
    *,
    channels: int,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = True,
    wrap: bool = False,
    impl: Impl = "auto",
) -> Tensor:
    """(H, W, C) pixels, (N, 2) top and left -> (N, channels, h, w) in [0, 1]: windows of one `size`, (h, w).

    What a window reads outside the picture is mirrored as often as it takes, or wraps around. Grey becomes `channels`
    equal ones. Float pixels are clipped.
    """
    assert pixels.ndim == 3 and pixels.dtype in PEAKS, f"expected pixels (H, W, C), got {pixels.dtype} {pixels.shape}"
    assert corners.ndim == 2 and corners.shape[1] == 2, f"expected corners (N, 2), got {tuple(corners.shape)}"
    assert pixels.shape[2] in (1, channels), f"{pixels.shape[2]} channels do not become {channels}"
    pixels = pixels.expand(-1, -1, channels)
    if not uses_triton("gather_tiles", impl, pixels, corners):
        return _reference(pixels, corners, size, dtype, channels_last, wrap)
    from restorer.kernels.device.gather_tiles import launch

    return launch(pixels, corners, size, PEAKS[pixels.dtype], dtype, channels_last, wrap)


def _reference(
    pixels: Tensor, corners: Tensor, size: tuple[int, int], dtype: torch.dtype, channels_last: bool, wrap: bool
) -> Tensor:
    rows, columns = (
        _folded(corners[:, axis, None] + torch.arange(size[axis], device=corners.device), pixels.shape[axis], wrap)
        for axis in (0, 1)
    )  # (N, h), (N, w)
    bits = pixels.view(torch.int16) if pixels.dtype == torch.uint16 else pixels  # torch cannot index uint16
    tiles = bits[rows[:, :, None], columns[:, None, :]].view(pixels.dtype)  # (N, h, w, C)
    x = tiles.permute(0, 3, 1, 2).to(torch.float32)
    peak = PEAKS[pixels.dtype]
    x = x.div_(peak) if peak != 1 else x.clamp_(0, 1)  # indexing has copied
    return x.to(dtype).contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def _folded(index: Tensor, side: int, wrap: bool) -> Tensor:
    """(any shape) -> same: indices that lie outside 0..side-1 are brought inside."""
    if wrap:
        return index % side
    period = max(1, 2 * side - 2)
    index = index.abs() % period
    return torch.minimum(index, period - index).clamp(max=side - 1)
