"""Triton: a filter between the pixels it makes room for and those it keeps. See `restorer.kernels.upfirdn2d`."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from restorer.kernels.device.common import FLOATS, POINTERS, Build, least_arch, name_of, on_device_of
from restorer.kernels.device.planes import FORMATS, block_of, grid_of, strides_to_write

VALUES = 512
"""Of a block: fewer than where nothing but a sum is held, since each value has places of its own to look at."""
WAYS = {"doubled": (2, 1), "halved": (1, 2), "filtered": (1, 1)}
"""Factors up and down that networks use, and what they do to the sides."""


@triton.jit
def upfirdn2d_kernel(
    x: tl.tensor,
    taps: tl.tensor,
    out: tl.tensor,
    channels: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    pixels_out: tl.tensor,
    width_out: tl.tensor,
    x_picture: tl.tensor,
    x_channel: tl.tensor,
    x_row: tl.tensor,
    x_pixel: tl.tensor,
    out_picture: tl.tensor,
    out_channel: tl.tensor,
    out_pixel: tl.tensor,
    left: tl.tensor,
    top: tl.tensor,
    lift: tl.tensor,
    UP: tl.constexpr,
    DOWN: tl.constexpr,
    TAPS_Y: tl.constexpr,
    TAPS_X: tl.constexpr,
    CHANNELS: tl.constexpr,
    PIXELS: tl.constexpr,
) -> None:
    """A block of CHANNELS x PIXELS of the result. Only taps that fall on pixels are read, not those on zeros between.

    `lift` pixels are added to a place before it is divided, since a quotient of less than nothing is cut to nothing.
    Places in a plane are 32 bits, whose division is many times as fast; what is added to a pointer is 64.
    """
    p = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)[None, :]
    c = tl.program_id(1).to(tl.int64) * CHANNELS + tl.arange(0, CHANNELS)[:, None]
    n = tl.program_id(2).to(tl.int64)
    inside = (c < channels) & (p < pixels_out)
    from_y = (p // width_out) * DOWN + (TAPS_Y - 1 - top + lift * UP)
    from_x = (p % width_out) * DOWN + (TAPS_X - 1 - left + lift * UP)
    plane = x + n * x_picture + c * x_channel
    total = tl.zeros((CHANNELS, PIXELS), tl.float32)
    for i in tl.static_range((TAPS_Y + UP - 1) // UP):
        tap_y = from_y % UP + i * UP
        y = from_y // UP - lift - i
        holds_y = (tap_y < TAPS_Y) & (y >= 0) & (y < height)
        for j in tl.static_range((TAPS_X + UP - 1) // UP):
            tap_x = from_x % UP + j * UP
            column = from_x // UP - lift - j
            holds = holds_y & (tap_x < TAPS_X) & (column >= 0) & (column < width)
            if UP == 1:  # the same tap for all of the block
                tap = tl.load(taps + i * TAPS_X + j)
            else:
                tap = tl.load(taps + tap_y * TAPS_X + tap_x, mask=holds, other=0.0)
            value = tl.load(
                plane + y.to(tl.int64) * x_row + column.to(tl.int64) * x_pixel, mask=inside & holds, other=0.0
            )
            total += tap * value.to(tl.float32)
    to = out + n * out_picture + c * out_channel + p.to(tl.int64) * out_pixel
    tl.store(to, total.to(out.dtype.element_ty), mask=inside)


def upfirdn2d(
    x: Tensor, taps: Tensor, *, up: int, down: int, pad: tuple[int, int, int, int], size: tuple[int, int]
) -> Tensor:
    """(N, C, h, w), (kh, kw) -> (N, C, *size): launch over all of the result."""
    left, _, top, _ = pad
    dense = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    memory_format = torch.channels_last if dense else torch.contiguous_format
    out = torch.empty((*x.shape[:2], *size), dtype=x.dtype, device=x.device, memory_format=memory_format)
    of_out = strides_to_write(out)
    block = block_of(x.shape[1], size[0] * size[1], of_out[1], VALUES)
    with on_device_of(x):
        upfirdn2d_kernel[grid_of(out, block)](
            x, taps.float().contiguous(), out, x.shape[1], *x.shape[2:], size[0] * size[1], size[1], *x.stride(),
            *of_out, left, top, max(0, left, top),
            UP=up, DOWN=down, TAPS_Y=taps.shape[0], TAPS_X=taps.shape[1], CHANNELS=block[0], PIXELS=block[1],
        )  # fmt: skip
    return out


def builds() -> list[Build]:
    """Every precision, memory format and way, for a filter of four taps each way."""
    return [_build(dtype, form, way) for dtype in FLOATS for form in FORMATS for way in WAYS]


def _build(dtype: torch.dtype, form: str, way: str) -> Build:
    signature, constants = FORMATS[form]("x", "out", values=VALUES)
    up, down = WAYS[way]
    numbers = ("height", "width", "pixels_out", "width_out", "x_row", "left", "top", "lift")
    return Build(
        name=f"upfirdn2d {name_of(dtype)} {form} {way}",
        kernel=upfirdn2d_kernel,
        signature={
            "x": POINTERS[dtype],
            "taps": "*fp32",
            "out": POINTERS[dtype],
            **{name: kind for name, kind in signature.items() if name != "pixels"},
            **dict.fromkeys(numbers, "i32"),
        },
        constants={**constants, "UP": up, "DOWN": down, "TAPS_Y": 4, "TAPS_X": 4},
        least_arch=least_arch(dtype),
    )
