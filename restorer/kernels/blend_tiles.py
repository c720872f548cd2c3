"""Overlapping tiles -> one picture, feathered at the seams: a pixel sums the at most four tiles that cover it.

Letters: N = k * l tiles of h w pixels in k rows and l columns, C channels; H W sides of the whole picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from restorer.kernels.choice import Impl, uses_triton


@dataclass(frozen=True, kw_only=True, eq=False)
class Seams:
    """One axis of a picture: which tiles each pixel is made of, on the device where tiles are blended."""

    starts: Tensor
    """(k,) int32: where each tile's first pixel lies."""
    first: Tensor
    """(side,) int32: the first of the one or two tiles that a pixel is made of."""
    share: Tensor
    """(side,) float32: how much of a pixel is the next tile's; 0 where it is of one tile only."""

    @property
    def side(self) -> int:
        """Pixels of the whole axis."""
        return len(self.first)


def plan_seams(
    edges: Sequence[int], starts: Sequence[int], length: int, *, feather: int, device: torch.device
) -> Seams:
    """Cores between `edges`, windows of `length` from `starts` -> their seams; `feather` pixels on each side are mixed.

    Over a seam the share of the next tile grows evenly from 0 to 1, and is 1/2 at the seam itself.

    >>> plan_seams([0, 4, 8], [0, 2], 6, feather=2, device=torch.device("cpu")).share.tolist()
    [0.0, 0.0, 0.125, 0.375, 0.625, 0.875, 0.0, 0.0]
    """
    _check_seams(edges, starts, length, feather)
    place = torch.arange(edges[-1])
    core = torch.bucketize(place, torch.tensor(edges[1:-1], dtype=torch.int64), right=True)
    first, share = core.clone(), torch.zeros(edges[-1])
    for i, seam in enumerate(edges[1:-1]):
        mixed = slice(seam - feather, seam + feather)
        first[mixed] = i
        share[mixed] = (place[mixed] - seam + feather + 0.5) / max(1, 2 * feather)
    return Seams(
        starts=torch.tensor(starts, dtype=torch.int32, device=device),
        first=first.to(device, torch.int32),
        share=share.to(device),
    )


def _check_seams(edges: Sequence[int], starts: Sequence[int], length: int, feather: int) -> None:
    cores = list(pairwise(edges))
    assert len(cores) == len(starts) and edges[0] == 0 and feather >= 0, f"{edges} and {starts} do not fit"
    for i, ((low, high), start) in enumerate(zip(cores, starts, strict=True)):
        before, after = (feather if i > 0 else 0), (feather if i < len(cores) - 1 else 0)
        assert high - low >= before + after, f"a core of {high - low} pixels is too small for a feather of {feather}"
        assert start <= low - before, f"a window from {start} has no room for a feather of {feather} before {low}"
        assert start + length >= high + after, f"a window from {start} ends before {high} and a feather of {feather}"


def blend_tiles(
    tiles: Tensor, rows: Seams, columns: Seams, *, dtype: torch.dtype = torch.uint8, impl: Impl = "auto"
) -> Tensor:
    """(N, C, h, w) float -> (H, W, C) uint8 of what lies in [0, 1] and is clipped once mixed, or float32 as it is.

    Tiles lie row by row, left to right.
    """
    assert tiles.ndim == 4 and tiles.is_floating_point(), f"expected floats (N, C, h, w), got {tuple(tiles.shape)}"
    count = len(rows.starts), len(columns.starts)
    assert count[0] * count[1] == len(tiles), f"{len(tiles)} tiles are not {count[0]} rows of {count[1]}"
    if not uses_triton("blend_tiles", impl, tiles, rows.first, columns.first):
        return _reference(tiles, rows, columns, dtype)
    from restorer.kernels.device.blend_tiles import launch

    return launch(tiles, rows, columns, dtype)


def _reference(tiles: Tensor, rows: Seams, columns: Seams, dtype: torch.dtype) -> Tensor:
    h, w = tiles.shape[2:]
    down, across = _weights(rows, h), _weights(columns, w)  # (k, h), (l, w)
    whole = torch.zeros(tiles.shape[1], rows.side, columns.side, device=tiles.device)
    for i, top in enumerate(rows.starts.tolist()):
        for j, left in enumerate(columns.starts.tolist()):
            tile = tiles[i * len(across) + j].to(torch.float32) * down[i, :, None] * across[j]
            bottom, right = min(top + h, rows.side), min(left + w, columns.side)
            whole[:, max(0, top) : bottom, max(0, left) : right] += tile[
                :, max(0, -top) : bottom - top, max(0, -left) : right - left
            ]
    whole = whole.permute(1, 2, 0)
    return (whole.clamp(0, 1).mul_(255).round_().to(dtype) if dtype == torch.uint8 else whole).contiguous()


def _weights(seams: Seams, length: int) -> Tensor:
    """(k, length): how much of each tile's pixels goes into the picture."""
    place = seams.starts[:, None] + torch.arange(length, device=seams.starts.device)
    inside = (place >= 0) & (place < seams.side)  # wrapped around, windows begin before the picture does
    place = place.clamp(0, seams.side - 1)
    tile = torch.arange(len(place), device=place.device)[:, None]
    share, first = seams.share[place], seams.first[place]
    return ((1 - share) * (first == tile) + share * (first + 1 == tile)) * inside
