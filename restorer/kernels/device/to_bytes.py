"""The kernel of `to_bytes`. Letters: N C h w as everywhere; a row of the result is w * C bytes in one piece."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from restorer.kernels.device.common import FLOATS, POINTERS, Build, least_arch, name_of, on_device_of, to_level

ROWS, COLUMNS = 4, 512
"""What a program takes: rows of the result, and bytes of each at a time."""
OPTIONS = {"enable_fp_fusion": False}
"""A product fused into a sum would round bytes otherwise than the reference does."""


@triton.jit
def to_bytes_kernel(
    x: tl.tensor,
    out: tl.tensor,
    h: tl.tensor,
    w: tl.tensor,
    batch_stride: tl.tensor,
    channel_stride: tl.tensor,
    row_stride: tl.tensor,
    column_stride: tl.tensor,
    C: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
) -> None:
    """One program makes ROWS rows of one picture of the batch."""
    n = tl.program_id(1).to(tl.int64)
    rows = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
    x_rows = x + n * batch_stride + rows * row_stride
    out_rows = out + (n * h + rows) * w * C
    for start in range(0, w * C, COLUMNS):
        place = (start + tl.arange(0, COLUMNS))[None, :]
        column = (place // C).to(tl.int64) * column_stride + (place % C).to(tl.int64) * channel_stride
        inside = (rows < h) & (place < w * C)
        value = tl.load(x_rows + column, mask=inside, other=0.0).to(tl.float32)
        tl.store(out_rows + place, to_level(value), mask=inside)


def launch(x: Tensor) -> Tensor:
    """(N, C, h, w) float of any strides -> (N, h, w, C) uint8."""
    n, c, h, w = x.shape
    out = torch.empty((n, h, w, c), dtype=torch.uint8, device=x.device)
    if out.numel() == 0:
        return out
    with on_device_of(x):
        to_bytes_kernel[(triton.cdiv(h, ROWS), n)](
            x, out, h, w, *x.stride(), C=c, ROWS=ROWS, COLUMNS=COLUMNS, **OPTIONS
        )
    return out


def builds() -> list[Build]:
    """Colour and grey, in every precision."""
    sides = dict.fromkeys(("h", "w", "batch_stride", "channel_stride", "row_stride", "column_stride"), "i32")
    return [
        Build(
            name=f"to_bytes {name_of(dtype)} {c} channels",
            kernel=to_bytes_kernel,
            signature={"x": POINTERS[dtype], "out": "*u8", **sides},
            constants={"C": c, "ROWS": ROWS, "COLUMNS": COLUMNS},
            options=OPTIONS,
            least_arch=least_arch(dtype),
        )
        for dtype in FLOATS
        for c in (1, 3)
    ]
