"""Triton: a face turned into its place in a picture, and blended there. See `restorer.kernels.paste_face`."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from restorer.kernels.device.common import FLOATS, POINTERS, Build, least_arch, name_of, on_device_of

ROWS, COLUMNS = 4, 32
"""What a program pastes: a pixel for each of 128 threads, which wait for each other's scattered reads least."""
TO_WHOLE = 8388608.0
"""2**23: added and taken away again, it leaves a float32 of at most 65535 rounded half to even."""


@triton.jit
def cubic(distance: tl.tensor) -> tl.tensor:
    """Less than 2 pixels away, to either side -> how much a pixel counts, by the cubic of -0.75."""
    d = tl.abs(distance)
    near = (1.25 * d - 2.25) * d * d + 1.0
    return tl.where(d < 1.0, near, ((-0.75 * d + 3.75) * d - 6.0) * d + 3.0)


@triton.jit
def linear(
    mask: tl.tensor,
    left: tl.tensor,
    top: tl.tensor,
    across: tl.tensor,
    down: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    of_row: tl.tensor,
    of_pixel: tl.tensor,
    inside: tl.tensor,
) -> tl.tensor:
    """What a mask of `height` and `width` is `across` and `down` from its pixels at `left` and `top`; 0 beyond it."""
    total = tl.zeros_like(across)
    for i in tl.static_range(2):
        for j in tl.static_range(2):
            share = (down if i == 1 else 1.0 - down) * (across if j == 1 else 1.0 - across)
            holds = (top + i >= 0) & (top + i < height) & (left + j >= 0) & (left + j < width)
            place = mask + (top + i) * of_row + (left + j) * of_pixel
            total += share * tl.load(place, mask=inside & holds, other=0.0).to(tl.float32)
    return total


@triton.jit
def paste_face_kernel(
    rows: tl.tensor,
    face: tl.tensor,
    mask: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    face_height: tl.tensor,
    face_width: tl.tensor,
    rows_row: tl.tensor,
    rows_pixel: tl.tensor,
    rows_colour: tl.tensor,
    face_colour: tl.tensor,
    face_row: tl.tensor,
    face_pixel: tl.tensor,
    mask_row: tl.tensor,
    mask_pixel: tl.tensor,
    xx: tl.tensor,
    xy: tl.tensor,
    x0: tl.tensor,
    yx: tl.tensor,
    yy: tl.tensor,
    y0: tl.tensor,
    red: tl.tensor,
    green: tl.tensor,
    blue: tl.tensor,
    peak: tl.tensor,
    GREY: tl.constexpr,
    WHOLE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    TO_WHOLE: tl.constexpr,
) -> None:
    """A block of ROWS x COLUMNS pixels; what the mask does not cover is neither read of the face nor written."""
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    inside = (row < height) & (column < width)
    x = xx * column + xy * row + x0
    y = yx * column + yy * row + y0
    left, top = tl.floor(x), tl.floor(y)
    across, down = x - left, y - top
    left, top = left.to(tl.int32), top.to(tl.int32)
    covers = linear(mask, left, top, across, down, face_height, face_width, mask_row, mask_pixel, inside)
    covered = inside & (covers > 0)
    r, g, b = tl.zeros_like(covers), tl.zeros_like(covers), tl.zeros_like(covers)
    for i in range(4):  # not unrolled: all at once is more than registers hold
        in_row = tl.minimum(tl.maximum(top + (i - 1), 0), face_height - 1) * face_row
        of_row = cubic(down + 1.0 - i)
        for j in tl.static_range(4):
            place = face + in_row + tl.minimum(tl.maximum(left + (j - 1), 0), face_width - 1) * face_pixel
            share = of_row * cubic(across + 1.0 - j)
            r += share * tl.load(place, mask=covered, other=0.0).to(tl.float32)
            g += share * tl.load(place + face_colour, mask=covered, other=0.0).to(tl.float32)
            b += share * tl.load(place + 2 * face_colour, mask=covered, other=0.0).to(tl.float32)
    to = rows + row.to(tl.int64) * rows_row + column.to(tl.int64) * rows_pixel
    if GREY:
        blend(to, red * r + green * g + blue * b, covers, covered, peak, WHOLE, TO_WHOLE)
    else:
        blend(to, r, covers, covered, peak, WHOLE, TO_WHOLE)
        blend(to + rows_colour, g, covers, covered, peak, WHOLE, TO_WHOLE)
        blend(to + 2 * rows_colour, b, covers, covered, peak, WHOLE, TO_WHOLE)


@triton.jit
def blend(
    to: tl.tensor,
    face: tl.tensor,
    covers: tl.tensor,
    covered: tl.tensor,
    peak: tl.tensor,
    WHOLE: tl.constexpr,
    TO_WHOLE: tl.constexpr,
) -> None:
    """One colour: so much of the face, and the rest of what was there; what lies beyond black and white stays."""
    before = tl.load(to, mask=covered, other=0).to(tl.float32)
    shown = tl.minimum(tl.maximum(before, 0.0), peak)
    after = before + covers * (tl.minimum(tl.maximum(face, 0.0), 1.0) * peak - shown)
    if WHOLE:
        after = (tl.minimum(tl.maximum(after, 0.0), peak) + TO_WHOLE) - TO_WHOLE
    tl.store(to, after.to(to.dtype.element_ty), mask=covered)


def paste_face(
    rows: Tensor,
    face: Tensor,
    mask: Tensor,
    matrix: tuple[float, ...],
    *,
    luma: tuple[float, float, float],
    peak: float,
) -> None:
    """(h, w, 1 or 3), (3, s, t), (s, t): launch over all of the region."""
    height, width, colours = rows.shape
    grid = (triton.cdiv(width, COLUMNS), triton.cdiv(height, ROWS))
    with on_device_of(rows):
        paste_face_kernel[grid](
            rows, face, mask, height, width, *mask.shape, *rows.stride(), *face.stride(), *mask.stride(),
            *map(float, matrix), *luma, peak,
            GREY=colours == 1, WHOLE=rows.dtype != torch.float32, ROWS=ROWS, COLUMNS=COLUMNS, TO_WHOLE=TO_WHOLE,
            enable_fp_fusion=False,
        )  # fmt: skip


def builds() -> list[Build]:
    """Faces of every precision onto 8 bits, float32 faces onto every depth, and onto grey."""
    kinds = [(face, torch.uint8) for face in FLOATS] + [(torch.float32, torch.uint16), (torch.float32, torch.float32)]
    return [*(_build(*kind, grey=False) for kind in kinds), _build(torch.float32, torch.uint8, grey=True)]


def _build(face: torch.dtype, rows: torch.dtype, *, grey: bool) -> Build:
    sizes = ("height", "width", "face_height", "face_width")
    strides = [f"rows_{of}" for of in ("row", "pixel", "colour")] + [f"face_{of}" for of in ("colour", "row", "pixel")]
    strides += ["mask_row", "mask_pixel"]
    floats = ("xx", "xy", "x0", "yx", "yy", "y0", "red", "green", "blue", "peak")
    return Build(
        name=f"paste_face {name_of(face)} onto {name_of(rows)}{' grey' if grey else ''}",
        kernel=paste_face_kernel,
        signature={
            "rows": POINTERS[rows],
            "face": POINTERS[face],
            "mask": "*fp32",
            **dict.fromkeys((*sizes, *strides), "i32"),
            **dict.fromkeys(floats, "fp32"),
        },
        constants={
            "GREY": grey,
            "WHOLE": rows != torch.float32,
            "ROWS": ROWS,
            "COLUMNS": COLUMNS,
            "TO_WHOLE": TO_WHOLE,
        },
        options={"enable_fp_fusion": False},
        least_arch=least_arch(face),
    )
