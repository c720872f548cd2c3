"""Triton: what follows a modulated convolution, in one pass over memory. See `restorer.kernels.style`."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from restorer.kernels.device.common import FLOATS, POINTERS, Build, least_arch, name_of, on_device_of
from restorer.kernels.device.planes import FORMATS, block_of, flat, grid_of, strides_to_write


@triton.jit
def noisy_leaky_kernel(
    x: tl.tensor,
    scales: tl.tensor,
    noise: tl.tensor,
    strength: tl.tensor,
    bias: tl.tensor,
    out: tl.tensor,
    channels: tl.tensor,
    pixels: tl.tensor,
    x_picture: tl.tensor,
    x_channel: tl.tensor,
    x_pixel: tl.tensor,
    noise_picture: tl.tensor,
    noise_pixel: tl.tensor,
    out_picture: tl.tensor,
    out_channel: tl.tensor,
    out_pixel: tl.tensor,
    slope: tl.tensor,
    gain: tl.tensor,
    HAS_SCALES: tl.constexpr,
    CHANNELS: tl.constexpr,
    PIXELS: tl.constexpr,
) -> None:
    """A block of CHANNELS x PIXELS; `scales` is dense, and nothing of it is read without HAS_SCALES."""
    p = tl.program_id(0).to(tl.int64) * PIXELS + tl.arange(0, PIXELS)[None, :]
    c = tl.program_id(1).to(tl.int64) * CHANNELS + tl.arange(0, CHANNELS)[:, None]
    n = tl.program_id(2).to(tl.int64)
    inside = (c < channels) & (p < pixels)
    value = tl.load(x + n * x_picture + c * x_channel + p * x_pixel, mask=inside).to(tl.float32)
    if HAS_SCALES:
        value *= tl.load(scales + n * channels + c, mask=c < channels).to(tl.float32)
    drawn = tl.load(noise + n * noise_picture + p * noise_pixel, mask=p < pixels).to(tl.float32)
    value += tl.load(strength).to(tl.float32) * drawn + tl.load(bias + c, mask=c < channels).to(tl.float32)
    value = tl.where(value > 0, value, value * slope) * gain
    to = out + n * out_picture + c * out_channel + p * out_pixel
    tl.store(to, value.to(out.dtype.element_ty), mask=inside)


def noisy_leaky(
    x: Tensor, noise: Tensor, strength: Tensor, bias: Tensor, scales: Tensor | None, *, slope: float, gain: float
) -> Tensor:
    """(N, C, h, w), (1 or N, 1, h, w), (1,), (C,), (N, C) -> (N, C, h, w): launch over all of x."""
    out = torch.empty_like(x)
    x, of_x = flat(x)
    noise, (noise_picture, _, noise_pixel) = flat(noise)
    of_noise = (0 if len(noise) == 1 else noise_picture, noise_pixel)
    of_out = strides_to_write(out)
    channels, pixels = x.shape[1], x.shape[2] * x.shape[3]
    block = block_of(channels, pixels, of_out[1])
    factors = bias if scales is None else scales.contiguous()
    with on_device_of(x):
        noisy_leaky_kernel[grid_of(x, block)](
            x, factors, noise, strength, bias.contiguous(), out, channels, pixels, *of_x, *of_noise, *of_out,
            slope, gain, HAS_SCALES=scales is not None, CHANNELS=block[0], PIXELS=block[1],
        )  # fmt: skip
    return out


def builds() -> list[Build]:
    """Every precision in both memory formats, with and without scales; what is learned is float32."""
    return [
        _build(dtype, form, has_scales=has_scales)
        for dtype in FLOATS
        for form in FORMATS
        for has_scales in (False, True)
    ]


def _build(dtype: torch.dtype, form: str, *, has_scales: bool) -> Build:
    signature, constants = FORMATS[form]("x", "out")
    learned = dict.fromkeys(("scales", "noise", "strength", "bias"), POINTERS[torch.float32])
    return Build(
        name=f"noisy_leaky {name_of(dtype)} {form}{' scales' if has_scales else ''}",
        kernel=noisy_leaky_kernel,
        signature={
            "x": POINTERS[dtype],
            "out": POINTERS[dtype],
            **learned,
            **signature,
            "noise_picture": "i32",
            "slope": "fp32",
            "gain": "fp32",
        },
        constants={**constants, "noise_pixel": 1, "HAS_SCALES": has_scales},
        least_arch=least_arch(dtype),
    )
