"""Zeros between the pixels, zeros around them, a filter, and every so many pixels kept: how StyleGAN2 changes sides.

Letters: N batch, C channels, h w sides, kh kw sides of the filter.
"""

from torch import Tensor
from torch.nn import functional as F

from restorer.kernels.choice import Impl, uses_triton

Pad = tuple[int, int, int, int]
"""Zeros on the left, right, top and bottom, among those between the pixels; less than none cuts."""


def upfirdn2d(
    x: Tensor, taps: Tensor, *, up: int = 1, down: int = 1, pad: Pad = (0, 0, 0, 0), impl: Impl = "auto"
) -> Tensor:
    """(N, C, h, w), (kh, kw) -> (N, C, h', w'): each channel convolved with `taps`, where they fit.

    h' is (h * up + top + bottom - kh) // down + 1, and w' likewise. `up` puts up - 1 zeros behind each pixel and each
    row, and of the filter's results every `down`-th is kept. Sums are float32, the result has x's dtype.
    """
    size = _size_of(x, taps, up, down, pad)
    if uses_triton("upfirdn2d", impl, x, taps):
        from restorer.kernels.device import upfirdn2d as device

        return device.upfirdn2d(x, taps, up=up, down=down, pad=pad, size=size)
    return _upfirdn2d(x, taps, up, down, pad)


def _size_of(x: Tensor, taps: Tensor, up: int, down: int, pad: Pad) -> tuple[int, int]:
    if up < 1 or down < 1:
        raise ValueError(f"up and down must be 1 or more, got {up} and {down}")
    left, right, top, bottom = pad
    height, width = (
        (side * up + around - of_taps) // down + 1
        for side, around, of_taps in zip(x.shape[-2:], (top + bottom, left + right), taps.shape, strict=True)
    )
    if height < 1 or width < 1:
        raise ValueError(f"sides {tuple(x.shape[-2:])} with pad {pad} are less than the filter's {tuple(taps.shape)}")
    return height, width


def _upfirdn2d(x: Tensor, taps: Tensor, up: int, down: int, pad: Pad) -> Tensor:
    channels = x.shape[1]
    weight = taps.to(x.dtype)[None, None]
    left, right, top, bottom = pad
    if up == 1:  # a convolution turns its filter over, and conv2d does not
        weight = weight.flip(2, 3).expand(channels, 1, -1, -1)
        if left == right >= 0 and top == bottom >= 0:
            return F.conv2d(x, weight, padding=(top, left), stride=down, groups=channels)
        return F.conv2d(F.pad(x, pad), weight, stride=down, groups=channels)
    # Each pixel paints the filter: the same sums without the zeros, (h - 1) * up + kh rows of them. Where the filter
    # has to fit, kh - 1 - top rows are cut off at the start, and at the end up - 1 less, for the zeros behind the last.
    weight = weight.expand(channels, 1, -1, -1)
    down_to, across = (length - 1 for length in taps.shape)
    cut = (across - left, across - right - up + 1, down_to - top, down_to - bottom - up + 1)
    if cut[0] == cut[1] >= 0 and cut[2] == cut[3] >= 0:
        y = F.conv_transpose2d(x, weight, stride=up, padding=(cut[2], cut[0]), groups=channels)
    else:
        y = F.pad(F.conv_transpose2d(x, weight, stride=up, groups=channels), [-length for length in cut])
    return y if down == 1 else y[:, :, ::down, ::down]
