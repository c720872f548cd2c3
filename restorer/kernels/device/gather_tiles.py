"""The kernel of `gather_tiles`. Letters: H W sides of the picture, N tiles of h w, C channels.

Elements are taken in the order in which the result lies in memory: of pixels where channels are last, else of planes.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from restorer.kernels.device.common import FLOATS, POINTERS, Build, least_arch, name_of, on_device_of

ROWS, COLUMNS = 4, 512
"""What a program takes: rows of a tile, and elements of each at a time."""


@triton.jit
def folded(index: tl.tensor, side: tl.tensor, WRAP: tl.constexpr) -> tl.tensor:
    """Bring indices that lie outside 0..side-1 inside."""
    if WRAP:
        return (index % side + side) % side  # whatever sign a remainder has
    period = tl.maximum(2 * side - 2, 1)
    index = tl.abs(index) % period
    return tl.minimum(tl.minimum(index, period - index), side - 1)


@triton.jit
def normalised(value: tl.tensor, PEAK: tl.constexpr) -> tl.tensor:
    """Pixels -> float32 in [0, 1]; what is not a number stays so."""
    value = value.to(tl.float32)
    if PEAK != 1.0:
        return tl.div_rn(value, tl.full(value.shape, PEAK, tl.float32))
    value = tl.where(value < 0.0, 0.0, value)
    return tl.where(value > 1.0, 1.0, value)


@triton.jit
def gather_tiles_kernel(
    pixels: tl.tensor,
    corners: tl.tensor,
    out: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    h: tl.tensor,
    w: tl.tensor,
    row_stride: tl.tensor,
    column_stride: tl.tensor,
    channel_stride: tl.tensor,
    C: tl.constexpr,
    PEAK: tl.constexpr,
    LAST: tl.constexpr,
    WRAP: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
) -> None:
    """One program makes ROWS rows of one tile, of all planes."""
    n = tl.program_id(1).to(tl.int64)
    top, left = tl.load(corners + 2 * n), tl.load(corners + 2 * n + 1)
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    taken = pixels + folded(top + rows, height, WRAP).to(tl.int64)[:, None] * row_stride
    rows = rows.to(tl.int64)[:, None]
    if LAST:
        for start in range(0, w * C, COLUMNS):
            place = start + tl.arange(0, COLUMNS)
            column = folded(left + place // C, width, WRAP).to(tl.int64) * column_stride + place % C * channel_stride
            inside = (rows < h) & (place < w * C)[None, :]
            value = normalised(tl.load(taken + column[None, :], mask=inside, other=0), PEAK)
            tl.store(out + (n * h + rows) * w * C + place[None, :], value.to(out.dtype.element_ty), mask=inside)
    else:
        for start in range(0, w, COLUMNS):
            place = start + tl.arange(0, COLUMNS)
            column = folded(left + place, width, WRAP).to(tl.int64) * column_stride
            inside = (rows < h) & (place < w)[None, :]
            for c in tl.static_range(C):
                value = normalised(tl.load(taken + column[None, :] + c * channel_stride, mask=inside, other=0), PEAK)
                plane = ((n * C + c) * h + rows) * w
                tl.store(out + plane + place[None, :], value.to(out.dtype.element_ty), mask=inside)


def launch(
    pixels: Tensor,
    corners: Tensor,
    size: tuple[int, int],
    peak: float,
    dtype: torch.dtype,
    channels_last: bool,
    wrap: bool,
) -> Tensor:
    """(H, W, C), (N, 2) -> (N, C, h, w) in [0, 1]; pixels may have any strides, 0 for channels that are repeated."""
    height, width, channels = pixels.shape
    h, w = size
    layout = torch.channels_last if channels_last else torch.contiguous_format
    out = torch.empty((len(corners), channels, h, w), dtype=dtype, device=pixels.device, memory_format=layout)
    if out.numel() == 0:
        return out
    with on_device_of(pixels):
        gather_tiles_kernel[(triton.cdiv(h, ROWS), len(corners))](
            pixels, corners.to(torch.int32).contiguous(), out, height, width, h, w, *pixels.stride(),
            C=channels, PEAK=peak, LAST=channels_last, WRAP=wrap, ROWS=ROWS, COLUMNS=COLUMNS,
        )  # fmt: skip
    return out


def builds() -> list[Build]:
    """Colour of 8 bits in every precision and both orders; deeper colour with channels last."""
    peaks = {torch.uint8: 255.0, torch.uint16: 65535.0, torch.float32: 1.0}
    sides = dict.fromkeys(("height", "width", "h", "w", "row_stride", "column_stride", "channel_stride"), "i32")
    forms = [(source, dtype, last) for source in peaks for dtype in FLOATS for last in (True, False)]
    return [
        Build(
            name=f"gather_tiles {name_of(source)} to {name_of(dtype)}{' last' if last else ''}",
            kernel=gather_tiles_kernel,
            signature={"pixels": POINTERS[source], "corners": "*i32", "out": POINTERS[dtype], **sides},
            constants={"C": 3, "PEAK": peaks[source], "LAST": last, "WRAP": False, "ROWS": ROWS, "COLUMNS": COLUMNS},
            least_arch=least_arch(dtype),
        )
        for source, dtype, last in forms
        if last or source == torch.uint8
    ]
