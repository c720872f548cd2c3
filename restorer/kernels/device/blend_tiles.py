"""The kernel of `blend_tiles`. Letters: N = k * l tiles of h w pixels, C channels; H W sides of the whole picture.

In gather form: a program makes pixels, and reads for each the one, two or four tiles that it is made of.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from restorer.kernels.blend_tiles import Seams
from restorer.kernels.device.common import FLOATS, POINTERS, Build, least_arch, name_of, on_device_of, to_level

ROWS, COLUMNS = 2, 512
"""What a program makes: rows of the picture, and bytes of each."""
OPTIONS = {"enable_fp_fusion": False}
"""A product fused into a sum would round bytes otherwise than the reference does."""


@triton.jit
def blend_tiles_kernel(
    tiles: tl.tensor,
    tops: tl.tensor,
    first_row: tl.tensor,
    row_share: tl.tensor,
    lefts: tl.tensor,
    first_column: tl.tensor,
    column_share: tl.tensor,
    out: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    across: tl.tensor,
    tile_stride: tl.tensor,
    channel_stride: tl.tensor,
    row_stride: tl.tensor,
    column_stride: tl.tensor,
    C: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    LEVELS: tl.constexpr,
) -> None:
    """One program makes COLUMNS numbers of ROWS rows; `across` is the number of columns of tiles.

    They are bytes with LEVELS, and floats as they are mixed without.
    """
    y = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    place = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    x = place // C
    i, down = tl.load(first_row + y, mask=y < height, other=0), tl.load(row_share + y, mask=y < height, other=0.0)
    j = tl.load(first_column + x, mask=x < width, other=0)
    right = tl.load(column_share + x, mask=x < width, other=0.0)
    inside = (y < height)[:, None] & (x < width)[None, :]
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for below in tl.static_range(2):
        tall = down if below == 1 else 1.0 - down
        used_row = (y < height) & (tall > 0.0)
        top = tl.load(tops + i + below, mask=used_row, other=0)
        row = (i + below).to(tl.int64) * across * tile_stride + (y - top).to(tl.int64) * row_stride
        for beside in tl.static_range(2):
            wide = right if beside == 1 else 1.0 - right
            used_column = (x < width) & (wide > 0.0)
            left = tl.load(lefts + j + beside, mask=used_column, other=0)
            column = (j + beside).to(tl.int64) * tile_stride + (x - left).to(tl.int64) * column_stride
            column += (place % C).to(tl.int64) * channel_stride
            used = used_row[:, None] & used_column[None, :]
            value = tl.load(tiles + row[:, None] + column[None, :], mask=used, other=0.0).to(tl.float32)
            total += value * tall[:, None] * wide[None, :]
    place_out = out + y.to(tl.int64)[:, None] * width * C + place[None, :]
    tl.store(place_out, to_level(total) if LEVELS else total, mask=inside)


def launch(tiles: Tensor, rows: Seams, columns: Seams, dtype: torch.dtype) -> Tensor:
    """(N, C, h, w) float of any strides -> (H, W, C) uint8 or float32."""
    height, width, channels = rows.side, columns.side, tiles.shape[1]
    out = torch.empty((height, width, channels), dtype=dtype, device=tiles.device)
    if out.numel() == 0:
        return out
    with on_device_of(tiles):
        blend_tiles_kernel[(triton.cdiv(height, ROWS), triton.cdiv(width * channels, COLUMNS))](
            tiles, rows.starts, rows.first, rows.share, columns.starts, columns.first, columns.share, out,
            height, width, len(columns.starts), *tiles.stride(),
            C=channels, ROWS=ROWS, COLUMNS=COLUMNS, LEVELS=dtype == torch.uint8, **OPTIONS,
        )  # fmt: skip
    return out


def builds() -> list[Build]:
    """Colour and grey, in every precision."""
    tables = {"tops": "*i32", "first_row": "*i32", "row_share": "*fp32"}
    tables |= {"lefts": "*i32", "first_column": "*i32", "column_share": "*fp32"}
    sides = ("height", "width", "across", "tile_stride", "channel_stride", "row_stride", "column_stride")
    return [
        Build(
            name=f"blend_tiles {name_of(dtype)} {c} channels{'' if levels else ' to floats'}",
            kernel=blend_tiles_kernel,
            signature={
                "tiles": POINTERS[dtype],
                **tables,
                "out": "*u8" if levels else "*fp32",
                **dict.fromkeys(sides, "i32"),
            },
            constants={"C": c, "ROWS": ROWS, "COLUMNS": COLUMNS, "LEVELS": levels},
            options=OPTIONS,
            least_arch=least_arch(dtype),
        )
        for dtype in FLOATS
        for c in (1, 3)
        for levels in (True, False)
    ]
