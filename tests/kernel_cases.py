"""Cases of `to_bytes`, `gather_tiles` and `blend_tiles`: one pixel, odd sides, channels of no use to a machine."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from kernel_case import FLOATS, SHORT, KernelCase, drawn
from torch import Tensor

from restorer.kernels.blend_tiles import blend_tiles, plan_seams
from restorer.kernels.gather_tiles import PEAKS, gather_tiles
from restorer.kernels.to_bytes import to_bytes

HALF_LEVEL = 0.501
"""How far correctly rounded bytes may be from levels that are not rounded; the rest is float32's."""


def to_bytes_case(
    shape: tuple[int, ...], dtype: torch.dtype, crop: tuple[int, int, int, int] | None = None, *, last: bool = False
) -> KernelCase:
    def batch() -> Tensor:
        x = drawn(*shape, dtype=dtype, low=-0.1, high=1.1)
        return x.contiguous(memory_format=torch.channels_last) if last else x

    def truth() -> Tensor:
        top, left, bottom, right = crop or (0, 0, *shape[2:])
        return batch().double().clamp(0, 1).mul(255).permute(0, 2, 3, 1)[:, top:bottom, left:right]

    return KernelCase(
        name=f"to_bytes {'x'.join(map(str, shape))} {SHORT[dtype]}{' cut' * bool(crop)}{' last' * last}",
        answer=lambda impl: to_bytes(batch(), crop, impl=impl),
        truth=truth,
        equal=True,
        limit=HALF_LEVEL,
    )


def ties_case(dtype: torch.dtype) -> KernelCase:
    """Every value half-way between two bytes, as near as the dtype comes."""

    def batch() -> Tensor:
        return ((2 * torch.arange(255, dtype=torch.float64) + 1) / 510).to(dtype).reshape(1, 1, 3, 85)

    return KernelCase(
        name=f"to_bytes ties {SHORT[dtype]}",
        answer=lambda impl: to_bytes(batch(), impl=impl),
        truth=lambda: batch().double().mul(255).permute(0, 2, 3, 1),
        equal=True,
        limit=HALF_LEVEL,
    )


def gather_case(
    shape: tuple[int, int, int],
    corners: Sequence[tuple[int, int]],
    size: tuple[int, int],
    dtype: torch.dtype,
    *,
    source: torch.dtype = torch.uint8,
    channels: int = 3,
    last: bool = True,
    wrap: bool = False,
) -> KernelCase:
    """`shape` of the picture; one more channel lies beside those that are taken, as alpha does."""
    peak = PEAKS[source]

    def pixels() -> Tensor:
        low, high = (-0.2, 1.2) if source.is_floating_point else (0, peak)
        return drawn(*shape[:2], shape[2] + 1, dtype=source, low=low, high=high)[:, :, : shape[2]]

    def answer(impl) -> Tensor:
        return gather_tiles(
            pixels(), torch.tensor(corners), size,
            channels=channels, dtype=dtype, channels_last=last, wrap=wrap, impl=impl,
        )  # fmt: skip

    def truth() -> Tensor:
        room = max(size) + max(abs(place) for corner in corners for place in corner)
        mode: Literal["wrap", "reflect"] = "wrap" if wrap else "reflect"
        wide = np.pad(pixels().cpu().numpy().astype(np.float64), [(room, room), (room, room), (0, 0)], mode)
        h, w = size
        tiles = [wide[room + top : room + top + h, room + left : room + left + w] for top, left in corners]
        return torch.from_numpy(np.stack(tiles)).div(peak).clamp(0, 1).permute(0, 3, 1, 2).expand(-1, channels, -1, -1)

    words = [f"{'x'.join(map(str, shape))} {SHORT[source]} to {channels}x{size[0]}x{size[1]} {SHORT[dtype]}"]
    words += [word for word, said in (("last", last), ("wrap", wrap)) if said]
    exact = dtype != torch.bfloat16  # the interpreter cuts where it should round
    return KernelCase(name=f"gather_tiles {' '.join(words)}", answer=answer, truth=truth, equal=exact)


def blend_case(
    name: str,
    rows: tuple[Sequence[int], Sequence[int], int],
    columns: tuple[Sequence[int], Sequence[int], int],
    dtype: torch.dtype,
    *,
    feather: int,
    channels: int = 3,
    last: bool = False,
    levels: bool = True,
) -> KernelCase:
    """For each axis: edges of cores, starts of windows, their length."""

    def tiles() -> Tensor:
        shape = len(rows[1]) * len(columns[1]), channels, rows[2], columns[2]
        x = drawn(*shape, dtype=dtype, low=-0.1, high=1.1)
        return x.contiguous(memory_format=torch.channels_last) if last else x

    def answer(impl) -> Tensor:
        axes = [plan_seams(*axis, feather=feather, device=torch.get_default_device()) for axis in (rows, columns)]
        return blend_tiles(tiles(), *axes, dtype=torch.uint8 if levels else torch.float32, impl=impl)

    def truth() -> Tensor:
        whole = np.zeros((rows[0][-1], columns[0][-1], channels))
        share_down, share_across = (trapezoids(edges, feather) for edges, _, _ in (rows, columns))
        for n, tile in enumerate(tiles().double().cpu().numpy()):
            i, j = divmod(n, len(columns[1]))
            for y, x in np.argwhere(np.outer(share_down[i], share_across[j])):
                whole[y, x] += share_down[i][y] * share_across[j][x] * tile[:, y - rows[1][i], x - columns[1][j]]
        return torch.from_numpy(whole).clamp(0, 1) * 255 if levels else torch.from_numpy(whole)

    words = f"blend_tiles {name} {SHORT[dtype]}{' last' * last}{'' if levels else ' to floats'}"
    return KernelCase(name=words, answer=answer, truth=truth, limit=HALF_LEVEL if levels else 1e-6)


def trapezoids(edges: Sequence[int], feather: int) -> list[np.ndarray]:
    """How much each tile counts at each pixel: up over its first edge, down over its last, from pixel middles."""
    middles = np.arange(edges[-1]) + 0.5
    shares = []
    for low, high in pairwise(edges):
        up, down = (
            (sign * (middles - edge) + feather) / max(2 * feather, 1e-9) for sign, edge in ((1, low), (-1, high))
        )
        shares.append(np.clip(up, low == 0, 1) * np.clip(down, high == edges[-1], 1))
    return shares


ONE = ([0, 1], [0], 1)
UNEVEN = ([0, 5, 11, 16], [0, 3, 6], 10)
OVER = ([0, 4, 9], [0, 2], 8)
"""The last window goes past the picture's end, as those of a network of fixed multiples do."""
CASES: list[KernelCase] = [
    *(to_bytes_case((1, 1, 1, 1), dtype) for dtype in FLOATS),
    *(to_bytes_case((2, 3, 9, 183), dtype, (1, 2, 8, 180), last=last) for dtype in FLOATS for last in (False, True)),
    *(to_bytes_case((1, 5, 3, 7), dtype) for dtype in FLOATS),
    *(ties_case(dtype) for dtype in FLOATS),
    *(gather_case((1, 1, 1), [(0, 0)], (1, 1), dtype, channels=1) for dtype in FLOATS),
    *(gather_case((1, 1, 3), [(-2, 3)], (3, 2), dtype) for dtype in FLOATS),
    *(
        gather_case((7, 5, 3), [(0, 0), (-9, 3), (6, -13)], (9, 7), dtype, source=source, last=last)
        for dtype in FLOATS
        for source in PEAKS
        for last in (False, True)
    ),
    gather_case((6, 9, 3), [(-4, 5), (-31, 2)], (7, 8), torch.float32, wrap=True),
    gather_case((6, 9, 1), [(1, 2)], (5, 190), torch.float32),
    gather_case((6, 9, 1), [(1, 2)], (5, 530), torch.float16, last=False),
    gather_case((4, 3, 5), [(-1, -1)], (6, 5), torch.bfloat16, channels=5),
    *(blend_case("one pixel", ONE, ONE, dtype, feather=0, channels=1) for dtype in FLOATS),
    *(
        blend_case(f"feather {feather}", UNEVEN, OVER, dtype, feather=feather, last=last)
        for dtype in FLOATS
        for feather, last in ((0, False), (1, True), (2, False))
    ),
    blend_case("long rows", ONE, ([0, 200, 400], [0, 180], 220), torch.float32, feather=8),
    blend_case("five channels", OVER, ONE, torch.float16, feather=2, channels=5),
    *(blend_case("feather 2", UNEVEN, OVER, dtype, feather=2, levels=False) for dtype in FLOATS),
]
