"""Triton: the ends of a dense block's convolutions, each in one pass. See `restorer.kernels.dense_block`."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from restorer.kernels.device.common import FLOATS, POINTERS, Build, least_arch, name_of, on_device_of
from restorer.kernels.device.planes import FORMATS, block_of, flat, grid_of, strides_to_write


@triton.jit
def bias_leaky_kernel(
    x: tl.tensor,
    bias: tl.tensor,
    out: tl.tensor,
    channels: tl.tensor,
    pixels: tl.tensor,
    x_picture: tl.tensor,
    x_channel: tl.tensor,
    x_pixel: tl.tensor,
    out_picture: tl.tensor,
    out_channel: tl.tensor,
    out_pixel: tl.tensor,
    slope: tl.tensor,
    gain: tl.tensor,
    CHANNELS: tl.constexpr,
    PIXELS: tl.constexpr,
) -> None:
    """A block of CHANNELS x PIXELS; the strides are those of `planes.strides_of`."""
    p = tl.program_id(0).to(tl.int64) * PIXELS + tl.arange(0, PIXELS)[None, :]
    c = tl.program_id(1).to(tl.int64) * CHANNELS + tl.arange(0, CHANNELS)[:, None]
    n = tl.program_id(2).to(tl.int64)
    inside = (c < channels) & (p < pixels)
    value = tl.load(x + n * x_picture + c * x_channel + p * x_pixel, mask=inside).to(tl.float32)
    value += tl.load(bias + c, mask=c < channels).to(tl.float32)
    value = tl.where(value > 0, value, value * slope) * gain
    to = out + n * out_picture + c * out_channel + p * out_pixel
    tl.store(to, value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def scaled_residual_kernel(
    x: tl.tensor,
    y: tl.tensor,
    outer: tl.tensor,
    out: tl.tensor,
    channels: tl.tensor,
    pixels: tl.tensor,
    x_picture: tl.tensor,
    x_channel: tl.tensor,
    x_pixel: tl.tensor,
    y_picture: tl.tensor,
    y_channel: tl.tensor,
    y_pixel: tl.tensor,
    outer_picture: tl.tensor,
    outer_channel: tl.tensor,
    outer_pixel: tl.tensor,
    out_picture: tl.tensor,
    out_channel: tl.tensor,
    out_pixel: tl.tensor,
    scale: tl.tensor,
    HAS_OUTER: tl.constexpr,
    CHANNELS: tl.constexpr,
    PIXELS: tl.constexpr,
) -> None:
    """A block of CHANNELS x PIXELS; without HAS_OUTER nothing of `outer` is read."""
    p = tl.program_id(0).to(tl.int64) * PIXELS + tl.arange(0, PIXELS)[None, :]
    c = tl.program_id(1).to(tl.int64) * CHANNELS + tl.arange(0, CHANNELS)[:, None]
    n = tl.program_id(2).to(tl.int64)
    inside = (c < channels) & (p < pixels)
    value = tl.load(y + n * y_picture + c * y_channel + p * y_pixel, mask=inside).to(tl.float32)
    value = tl.load(x + n * x_picture + c * x_channel + p * x_pixel, mask=inside).to(tl.float32) + scale * value
    if HAS_OUTER:
        before = tl.load(outer + n * outer_picture + c * outer_channel + p * outer_pixel, mask=inside)
        value = before.to(tl.float32) + scale * value
    to = out + n * out_picture + c * out_channel + p * out_pixel
    tl.store(to, value.to(out.dtype.element_ty), mask=inside)


def bias_leaky_into(x: Tensor, bias: Tensor, out: Tensor, *, slope: float, gain: float) -> None:
    """(N, G, h, w), (G,), (N, G, h, w): launch over all of `out`."""
    x, of_x = flat(x)
    of_out = strides_to_write(out)
    channels, pixels = x.shape[1], x.shape[2] * x.shape[3]
    block = block_of(channels, pixels, of_out[1])
    with on_device_of(x):
        bias_leaky_kernel[grid_of(x, block)](
            x, bias.contiguous(), out, channels, pixels, *of_x, *of_out, slope, gain, CHANNELS=block[0], PIXELS=block[1]
        )


def scaled_residual(x: Tensor, y: Tensor, outer: Tensor | None, out: Tensor, *, scale: float) -> None:
    """(N, C, h, w) each: launch over all of `out`."""
    x, of_x = flat(x)
    y, of_y = flat(y)
    third, of_third = (x, of_x) if outer is None else flat(outer)
    of_out = strides_to_write(out)
    channels, pixels = x.shape[1], x.shape[2] * x.shape[3]
    block = block_of(channels, pixels, of_out[1])
    with on_device_of(x):
        scaled_residual_kernel[grid_of(x, block)](
            x, y, third, out, channels, pixels, *of_x, *of_y, *of_third, *of_out, scale,
            HAS_OUTER=outer is not None, CHANNELS=block[0], PIXELS=block[1],
        )  # fmt: skip


def builds() -> list[Build]:
    """Every precision in both memory formats, the residual with and without its outer one, and onto float32."""
    made = []
    for dtype in FLOATS:
        for form in FORMATS:
            made.append(_build_bias(dtype, form))
            made += [_build_residual(dtype, dtype, form, has_outer=has_outer) for has_outer in (False, True)]
            if dtype != torch.float32:
                made.append(_build_residual(torch.float32, dtype, form, has_outer=True))
    return made


def _build_bias(dtype: torch.dtype, form: str) -> Build:
    signature, constants = FORMATS[form]("x", "out")
    pointer = POINTERS[dtype]
    return Build(
        name=f"bias_leaky_into {name_of(dtype)} {form}",
        kernel=bias_leaky_kernel,
        signature={"x": pointer, "bias": pointer, "out": pointer, **signature, "slope": "fp32", "gain": "fp32"},
        constants=constants,
        least_arch=least_arch(dtype),
    )


def _build_residual(stream: torch.dtype, inner: torch.dtype, form: str, *, has_outer: bool) -> Build:
    """`stream` is the dtype of x, outer and out, `inner` that of y."""
    signature, constants = FORMATS[form]("x", "y", "outer", "out")
    wide, narrow = POINTERS[stream], POINTERS[inner]
    names = " + ".join(map(name_of, dict.fromkeys((stream, inner))))
    return Build(
        name=f"scaled_residual {names} {form}{' outer' if has_outer else ''}",
        kernel=scaled_residual_kernel,
        signature={"x": wide, "y": narrow, "outer": wide, "out": wide, **signature, "scale": "fp32"},
        constants={**constants, "HAS_OUTER": has_outer},
        least_arch=least_arch(inner),
    )
