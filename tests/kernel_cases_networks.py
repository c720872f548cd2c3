"""Cases of the kernels inside and behind networks: `dense_block`, `style`, `upfirdn2d` and `paste_face`."""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from kernel_case import FLOATS, SHORT, KernelCase, drawn, last_place
from torch import Tensor

from restorer.kernels.choice import Impl
from restorer.kernels.dense_block import bias_leaky_into, scaled_residual
from restorer.kernels.paste_face import PEAKS, paste_face
from restorer.kernels.style import noisy_leaky
from restorer.kernels.upfirdn2d import Pad, upfirdn2d

Shape = tuple[int, int, int, int]
Way = tuple[tuple[int, int], int, int, Pad]
"""Sides of the filter, up, down and pad."""
HALF_LEVEL = 0.505
"""How far correctly rounded bytes may be from levels that are not rounded; the rest is float32's, of places."""
LAST = torch.channels_last


def named(operation: str, shape: Sequence[int], dtype: torch.dtype, **said: bool) -> str:
    words = [operation, "x".join(map(str, shape)), SHORT[dtype], *(word for word, is_so in said.items() if is_so)]
    return " ".join(words)


def batch(shape: Shape, dtype: torch.dtype, *, last: bool = False, seed: int = 0) -> Tensor:
    x = drawn(*shape, dtype=dtype, low=-2, high=2, seed=seed)
    return x.contiguous(memory_format=LAST) if last else x


def beyond(x: Tensor, slope: float = 0.2) -> Tensor:
    """Leaky ReLU by another way: of the value and the value times slope, the larger."""
    return torch.maximum(x, slope * x)


def bias_case(
    shape: Shape, dtype: torch.dtype, *, into: torch.dtype | None = None, last: bool = False, gappy: bool = False
) -> KernelCase:
    """Three channels lie before those that are written and two behind; `gappy` x is cut out of wider rows."""
    count, channels, height, width = shape
    into = into or dtype

    def x() -> Tensor:
        return batch((count, channels, height, width + gappy), dtype, last=last)[:, :, :, :width]

    def buffer() -> Tensor:
        return batch((count, channels + 5, height, width), into, last=last, seed=1)

    def bias() -> Tensor:
        return drawn(channels, dtype=dtype, low=-1, seed=2)

    def answer(impl: Impl) -> Tensor:
        whole = buffer()
        bias_leaky_into(x(), bias(), whole[:, 3:-2], gain=1.5, impl=impl)
        return whole

    def truth() -> Tensor:
        middle = 1.5 * beyond(x().double() + bias().double()[:, None, None])
        return torch.cat([buffer()[:, :3].double(), middle, buffer()[:, -2:].double()], dim=1)

    name = named("bias_leaky_into", shape, dtype, last=last, gappy=gappy, wider=into != dtype)
    return KernelCase(name=name, answer=answer, truth=truth)


def residual_case(
    shape: Shape,
    dtype: torch.dtype,
    *,
    inner: torch.dtype | None = None,
    last: bool = False,
    outer: bool = False,
    in_place: bool = False,
) -> KernelCase:
    """`inner` is y's dtype. `in_place` x is a slice of channels, over which the result is written."""
    inner = inner or dtype

    def x() -> Tensor:
        count, channels, height, width = shape
        return batch((count, channels + 3, height, width), dtype, last=last)[:, :channels]

    def y() -> Tensor:
        return batch(shape, inner, last=last, seed=1)

    def further() -> Tensor | None:
        return batch(shape, dtype, last=not last, seed=2) if outer else None

    def answer(impl: Impl) -> Tensor:
        stream = x()
        result = scaled_residual(stream, y(), scale=0.3, outer=further(), out=stream if in_place else None, impl=impl)
        assert not in_place or result.data_ptr() == stream.data_ptr()
        return result

    def truth() -> Tensor:
        made = x().double() + 0.3 * y().double()
        wide = further()
        return made if wide is None else wide.double() + 0.3 * made

    name = named("scaled_residual", shape, dtype, last=last, outer=outer, in_place=in_place)
    return KernelCase(name=f"{name} of {SHORT[inner]}", answer=answer, truth=truth)


def style_case(
    shape: Shape, dtype: torch.dtype, *, last: bool = False, scales: bool = False, one_noise: bool = True
) -> KernelCase:
    count, channels, height, width = shape

    def learned() -> tuple[Tensor, Tensor, Tensor, Tensor]:
        noise = drawn(1 if one_noise else count, 1, height, width, low=-2, high=2, seed=1)
        strength, bias = (drawn(length, low=-1, seed=seed) for length, seed in ((1, 2), (channels, 3)))
        return noise, strength, bias, drawn(count, channels, low=0.5, high=2, seed=4)

    def answer(impl: Impl) -> Tensor:
        noise, strength, bias, factors = learned()
        x = batch(shape, dtype, last=last)
        return noisy_leaky(x, noise, strength, bias, scales=factors if scales else None, gain=2**0.5, impl=impl)

    def truth() -> Tensor:
        noise, strength, bias, factors = (each.double() for each in learned())
        x = batch(shape, dtype).double()
        x = torch.einsum("nchw,nc->nchw", x, factors) if scales else x
        return beyond(x + bias.reshape(1, -1, 1, 1) + strength * noise) * 2**0.5

    name = named("noisy_leaky", shape, dtype, last=last, scales=scales, own=not one_noise)
    return KernelCase(name=name, answer=answer, truth=truth)


def filter_case(shape: Shape, way: Way, dtype: torch.dtype, *, last: bool = False) -> KernelCase:
    taps, up, down, pad = way

    def kernel() -> Tensor:
        return drawn(*taps, low=-1, seed=1)

    def answer(impl: Impl) -> Tensor:
        return upfirdn2d(batch(shape, dtype, last=last), kernel(), up=up, down=down, pad=pad, impl=impl)

    def truth() -> Tensor:
        x, weights = (each.double().cpu().numpy() for each in (batch(shape, dtype), kernel()))
        return torch.from_numpy(filtered(x, weights, up, down, pad))

    said = f"up {up} down {down} pad {' '.join(map(str, pad))} of {'x'.join(map(str, taps))}"
    return KernelCase(name=f"{named('upfirdn2d', shape, dtype, last=last)} {said}", answer=answer, truth=truth)


def filtered(x: np.ndarray, taps: np.ndarray, up: int, down: int, pad: Pad) -> np.ndarray:
    """As it is told: zeros behind every pixel, zeros around or a cut, a convolution place by place, a choice."""
    count, channels, height, width = x.shape
    left, right, top, bottom = pad
    wide = np.zeros((count, channels, height * up, width * up))
    wide[:, :, ::up, ::up] = x
    wide = np.pad(wide, [(0, 0), (0, 0), *((max(0, a), max(0, b)) for a, b in ((top, bottom), (left, right)))])
    wide = wide[:, :, max(0, -top) :, max(0, -left) :]
    wide = wide[:, :, : wide.shape[2] - max(0, -bottom), : wide.shape[3] - max(0, -right)]
    high, long = taps.shape
    rows = range(0, wide.shape[2] - high + 1, down)
    columns = range(0, wide.shape[3] - long + 1, down)
    made = np.zeros((count, channels, len(rows), len(columns)))
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            made[:, :, i, j] = (wide[:, :, row : row + high, column : column + long] * taps[::-1, ::-1]).sum((2, 3))
    return made


def paste_case(
    size: tuple[int, int],
    face: tuple[int, int],
    matrix: tuple[float, float, float, float, float, float],
    dtype: torch.dtype,
    *,
    source: torch.dtype = torch.uint8,
    grey: bool = False,
    last: bool = False,
) -> KernelCase:
    """`source` is the picture's depth; beside its colours lies an alpha, and the region ends before its rows do."""
    colours = 1 if grey else 3
    peak = PEAKS[source]

    def region() -> Tensor:
        low, high = (-0.3, 1.3) if source.is_floating_point else (0, peak)
        return drawn(size[0], size[1] + 2, colours + 1, dtype=source, low=low, high=high)[:, 1:-1, :colours]

    def patch() -> tuple[Tensor, Tensor]:
        pixels, mask = drawn(1, 3, *face, dtype=dtype, low=-0.1, high=1.1, seed=1), drawn(*face, low=-0.2, seed=2)
        return (pixels.contiguous(memory_format=LAST) if last else pixels)[0], mask.clamp(min=0)

    def answer(impl: Impl) -> Tensor:
        rows = region()
        paste_face(rows, *patch(), matrix, impl=impl)
        return rows

    def truth() -> Tensor:
        pixels, mask = (each.double().cpu().numpy() for each in patch())
        return torch.from_numpy(pasted(region().cpu().double().numpy(), pixels, mask, matrix, peak))

    name = f"{named('paste_face', (*size, colours), dtype, last=last)} onto {SHORT[source]} of {face[0]}x{face[1]}"
    return KernelCase(name=name, answer=answer, truth=truth, limit=HALF_LEVEL if source == torch.uint8 else None)


def pasted(rows: np.ndarray, face: np.ndarray, mask: np.ndarray, matrix: Sequence[float], peak: float) -> np.ndarray:
    """Pixel by pixel, by the definition of both interpolations."""
    after = rows.copy()
    for row, column in np.ndindex(*rows.shape[:2]):
        x, y = (matrix[i] * column + matrix[i + 1] * row + matrix[i + 2] for i in (0, 3))
        share = sum(
            weight * mask[i, j]
            for i, j, weight in around(x, y, tent, reach=1)
            if 0 <= i < mask.shape[0] and 0 <= j < mask.shape[1]
        )
        if share <= 0:
            continue
        colour = sum(
            weight * face[:, min(max(i, 0), mask.shape[0] - 1), min(max(j, 0), mask.shape[1] - 1)]
            for i, j, weight in around(x, y, keys, reach=2)
        )
        colour = colour if rows.shape[2] == 3 else colour @ np.array([0.299, 0.587, 0.114])
        before = rows[row, column]
        blended = before + share * (np.clip(colour, 0, 1) * peak - np.clip(before, 0, peak))
        after[row, column] = blended if peak == 1 else np.clip(blended, 0, peak)
    return after


def around(x: float, y: float, weight: Callable[[float], float], *, reach: int) -> Iterator[tuple[int, int, float]]:
    """Row, column and weight of the pixels that count at a place."""
    top, left = math.floor(y) - reach + 1, math.floor(x) - reach + 1
    for i in range(top, top + 2 * reach):
        for j in range(left, left + 2 * reach):
            yield i, j, weight(y - i) * weight(x - j)


def tent(distance: float) -> float:
    return max(0.0, 1 - abs(distance))


def keys(distance: float, a: float = -0.75) -> float:
    """The cubic convolution of R. Keys (1981), whose free number OpenCV and PyTorch set to -0.75."""
    d = abs(distance)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * (d**3 - 5 * d**2 + 8 * d - 4) if d < 2 else 0.0


ONE: Shape = (1, 1, 1, 1)
ODD: Shape = (2, 5, 3, 7)
LONG: Shape = (1, 67, 23, 25)
"""More than a block in both directions, and a multiple of neither."""
TURNED = (0.7, 0.25, -2.2, -0.25, 0.7, 1.6)
SHRUNK = (2.3, -0.4, -1.0, 0.3, 2.1, -0.7)
FORMS = (False, True)
WAYS: tuple[Way, ...] = (
    ((4, 4), 2, 1, (2, 1, 2, 1)),
    ((4, 4), 1, 2, (1, 1, 1, 1)),
    ((4, 4), 1, 1, (2, 2, 2, 2)),
    ((3, 5), 3, 2, (4, -1, -2, 3)),
    ((2, 3), 1, 3, (-1, 3, 0, 2)),
    ((1, 1), 2, 2, (0, 0, 0, 0)),
    ((2, 3), 2, 1, (5, 0, 4, 1)),
)
CASES: list[KernelCase] = [
    *(bias_case(ONE, dtype) for dtype in FLOATS),
    *(bias_case(shape, dtype, last=last) for shape in (ODD, LONG) for dtype in FLOATS for last in FORMS),
    bias_case(ODD, torch.float32, gappy=True),
    bias_case(ODD, torch.float32, into=torch.float16),
    bias_case((3, 4, 1, 6), torch.float32, last=True),
    bias_case((3, 4, 6, 1), torch.float32),
    *(residual_case(ONE, dtype, outer=outer) for dtype in FLOATS for outer in FORMS),
    *(residual_case(ODD, dtype, last=last, outer=outer) for dtype in FLOATS for last in FORMS for outer in FORMS),
    *(residual_case(LONG, torch.float32, inner=dtype, outer=True) for dtype in FLOATS),
    *(residual_case(ODD, dtype, last=last, in_place=True) for dtype in FLOATS for last in FORMS),
    *(style_case(ONE, dtype) for dtype in FLOATS),
    *(style_case(ODD, dtype, last=last, scales=True) for dtype in FLOATS for last in FORMS),
    *(style_case(LONG, dtype, scales=scales) for dtype in FLOATS for scales in FORMS),
    *(style_case(ODD, torch.float32, last=last, one_noise=False) for last in FORMS),
    *(filter_case(ONE, WAYS[0], dtype) for dtype in FLOATS),
    *(filter_case(ODD, way, torch.float32, last=last) for way in WAYS for last in FORMS),
    *(filter_case(ODD, way, dtype) for way in WAYS[:4] for dtype in FLOATS[:2]),
    filter_case((1, 3, 23, 31), WAYS[0], torch.float32),
    *(paste_case((1, 1), (1, 1), (1, 0, 0.25, 0, 1, -0.25), dtype) for dtype in FLOATS),
    *(paste_case((11, 35), (16, 13), TURNED, dtype, source=source) for dtype in FLOATS for source in PEAKS),
    *(paste_case((9, 11), (16, 13), SHRUNK, torch.float32, source=source, grey=True) for source in PEAKS),
    paste_case((9, 11), (16, 13), SHRUNK, torch.float16, last=True),
    paste_case((9, 11), (5, 4), (1, 0, 300, 0, 1, 0), torch.float32),
]


def cases_of(*operations: str) -> list[KernelCase]:
    return [case for case in CASES if case.name.split()[0] in operations]


def check_reference(case: KernelCase, *, least: float = 0.0) -> None:
    """In half precision each of a few steps rounds; bytes are rounded once, and 16 bits see how places are rounded.

    `least` is allowed to floats in any case.
    """
    answer, truth = case.answer("reference"), case.truth()
    assert answer.shape == truth.shape
    off = (answer.double() - truth).abs()
    if answer.dtype.is_floating_point:
        assert (off <= 6 * last_place(truth.abs().amax(), answer.dtype) + least).all()
    else:
        assert off.max() <= (HALF_LEVEL if answer.dtype == torch.uint8 else 1.5)
