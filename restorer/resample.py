"""Resize and blur pictures: bicubic equal to MATLAB's imresize, Lanczos, area and Gaussian, for arrays and tensors.

Every output sample is a weighted sum of a few input samples (`taps`); that is the definition, and `resize_reference`
does just this. The fast path gathers neighbouring outputs into one small dense matrix (`Block`), so that each pass is a
row of matrix products. Values must be finite: a NaN or an infinity spoils its whole block.

Letters: H W sides, C channels, k taps of one output, h rows of one strip.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from restorer.errors import unknown_name

if TYPE_CHECKING:
    from torch import Tensor

Array = NDArray[np.float32]
Pixels = NDArray[np.generic]
Indices = NDArray[np.intp]
Kernel = Literal["cubic", "lanczos", "area"]
Size = tuple[int, int]
ReadRows = Callable[[int, int], Pixels]

LOBES = {"cubic": 2, "lanczos": 3}
STRIP_VALUES = 2**20


@dataclass(frozen=True, kw_only=True, eq=False)
class Taps:
    """Output i of one axis is the sum over j of `weight[i, j]` times input `index[i, j]`."""

    index: Indices
    """(n, k), inside the input: the border rule is already applied."""
    weight: Array
    """(n, k), each row sums to 1."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """Neighbouring outputs of one axis: `matrix` (n, m) times the m inputs at `columns`."""

    columns: slice | Indices
    matrix: Array


def taps(
    side_in: int,
    side_out: int,
    *,
    kernel: Kernel = "cubic",
    antialias: bool = True,
    wrap: bool = False,
    scale: float | None = None,
) -> Taps:
    """Say which inputs make each output when `side_in` samples become `side_out`, centres aligned.

    `scale` is output over input and follows from the sides unless given (MATLAB's imresize(x, scale) rounds the side up
    and keeps the scale). Borders are mirrored with the edge sample repeated; with `wrap` the far end follows.
    """
    if side_in < 1 or side_out < 1:
        raise ValueError(f"sides must be at least 1, got {side_in} -> {side_out}")
    step = side_in / side_out if scale is None else 1 / scale
    if kernel == "area":
        index, weight = _area_taps(side_out, step)
    elif kernel in LOBES:
        index, weight = _kernel_taps(side_out, step, kernel, stretch=max(step, 1.0) if antialias else 1.0)
    else:
        raise unknown_name("kernel", kernel, get_args(Kernel))
    return _inside(index, weight, side_in, wrap)


def resize_reference(
    x: Pixels, size: Size, *, kernel: Kernel = "cubic", antialias: bool = True, wrap: bool = False
) -> NDArray[np.float64]:
    """(H, W[, C]) any range -> (*size[, C]) float64, same range: the slow twin of `resize`."""
    y = x.astype(np.float64)
    for axis in (0, 1):
        t = taps(x.shape[axis], size[axis], kernel=kernel, antialias=antialias, wrap=wrap)
        moved = np.moveaxis(y, axis, -1)
        y = np.moveaxis((moved[..., t.index] * t.weight).sum(axis=-1), -1, axis)
    return y


def resize(x: Pixels, size: Size, *, kernel: Kernel = "cubic", antialias: bool = True, wrap: bool = False) -> Array:
    """(H, W[, C]) any dtype and range -> (*size[, C]) float32, same range, not clipped."""
    across, down = _two_taps(_hw(x), size, kernel, antialias, wrap)
    return _filter(x, across, down)


def resize_rows(
    read_rows: ReadRows,
    size_in: Size,
    size_out: Size,
    y0: int,
    y1: int,
    *,
    kernel: Kernel = "cubic",
    antialias: bool = True,
    wrap: bool = False,
) -> Array:
    """-> (y1 - y0, W_out[, C]) float32: rows y0..y1 of the resized picture, y0 < y1.

    `read_rows(a, b)` gives rows a..b of the picture of `size_in`, (b - a, W[, C]); only needed rows are asked for.
    """
    across, down = _two_taps(size_in, size_out, kernel, antialias, wrap)
    return _filter_rows(read_rows, across, down, y0, y1)


class RowResizer:
    """Resize a picture whose rows arrive from top to bottom, holding no more rows than the kernel reaches.

    It cannot wrap: the first output row would need the last input rows. `resize_rows` can, as its reader may jump.
    """

    def __init__(self, size_in: Size, size_out: Size, *, kernel: Kernel = "cubic", antialias: bool = True) -> None:
        self.size_in = size_in
        self.size_out = size_out
        self._across, self._down = _two_taps(size_in, size_out, kernel, antialias, False)
        used = self._down.weight != 0
        self._last = np.maximum.accumulate(np.where(used, self._down.index, 0).max(axis=1))
        first = np.where(used, self._down.index, size_in[0]).min(axis=1)
        self._first = np.append(np.minimum.accumulate(first[::-1])[::-1], size_in[0])
        self._held: Array | None = None
        self._seen = 0
        self._made = 0

    def push(self, rows: Pixels) -> Array:
        """(h, W[, C]) any dtype -> (n, W_out[, C]) float32: the output rows that are ready now, n may be 0."""
        if self._seen + len(rows) > self.size_in[0]:
            raise ValueError(f"the picture has {self.size_in[0]} rows, got {self._seen + len(rows)}")
        self._seen += len(rows)
        fresh = _pass_across(rows, self._across)
        held = fresh if self._held is None else np.concatenate([self._held, fresh])
        top = self._seen - len(held)
        ready = int(np.searchsorted(self._last, self._seen))
        index, weight = self._down.index[self._made : ready], self._down.weight[self._made : ready]
        # a tap without weight may point at a row that is gone or yet to come
        index = np.where(weight != 0, index - top, 0)
        out = _pass_down(held, Taps(index=index, weight=weight))
        self._made = ready
        self._held = held[self._first[ready] - top :].copy()
        return out

    def finish(self) -> None:
        """Make sure that every row came; by then every output row has been given out."""
        if self._seen != self.size_in[0]:
            raise ValueError(f"the picture has {self.size_in[0]} rows, only {self._seen} came")


def lowpass(x: Pixels, sigma: float, *, wrap: bool = False) -> Array:
    """(H, W[, C]) any dtype and range -> same shape, float32: Gaussian blur, `sigma` in pixels, borders mirrored."""
    height, width = _hw(x)
    return _filter(x, _gauss_taps(width, sigma, wrap), _gauss_taps(height, sigma, wrap))


def resize_tensor(
    x: "Tensor", size: Size, *, kernel: Kernel = "cubic", antialias: bool = True, wrap: bool = False
) -> "Tensor":
    """(N, C, H, W) any range -> (N, C, *size), same dtype and range, not clipped; differentiable."""
    across, down = _two_taps(_hw_tensor(x), size, kernel, antialias, wrap)
    return _filter_tensor(x, across, down)


def lowpass_tensor(x: "Tensor", sigma: float, *, wrap: bool = False) -> "Tensor":
    """(N, C, H, W) any range -> same: Gaussian blur, `sigma` in pixels, borders mirrored; differentiable."""
    height, width = _hw_tensor(x)
    return _filter_tensor(x, _gauss_taps(width, sigma, wrap), _gauss_taps(height, sigma, wrap))


def _kernel_taps(side_out: int, step: float, kernel: str, *, stretch: float) -> tuple[Indices, NDArray[np.float64]]:
    reach = LOBES[kernel] * stretch
    centre = (np.arange(side_out) + 0.5) * step - 0.5
    start = np.floor(centre - reach).astype(np.intp)
    index = start[:, None] + np.arange(int(np.ceil(2 * reach)) + 2)
    distance = np.abs(centre[:, None] - index) / stretch
    return index, _cubic(distance) if kernel == "cubic" else _lanczos(distance)


def _cubic(d: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' kernel with a = -0.5."""
    near = 1.5 * d**3 - 2.5 * d**2 + 1
    far = -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def _lanczos(d: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(d < 3, np.sinc(d) * np.sinc(d / 3), 0.0)


def _area_taps(side_out: int, step: float) -> tuple[Indices, NDArray[np.float64]]:
    """Weigh each input by the length that it shares with the output, both seen as intervals."""
    low = np.arange(side_out)[:, None] * step
    index = np.floor(low).astype(np.intp) + np.arange(int(np.ceil(step)) + 1)
    shared = np.minimum(low + step, index + 1) - np.maximum(low, index)
    return index, np.maximum(shared, 0)


@lru_cache(maxsize=16)
def _gauss_taps(side: int, sigma: float, wrap: bool) -> Taps:
    if sigma < 0:
        raise ValueError(f"sigma must be at least 0, got {sigma}")
    offset = np.arange(-int(np.ceil(4 * sigma)), int(np.ceil(4 * sigma)) + 1)
    bell = np.exp(-0.5 * (offset / sigma) ** 2) if sigma else np.ones(1)
    return _inside(np.arange(side)[:, None] + offset, np.tile(bell, (side, 1)), side, wrap)


def _inside(index: Indices, weight: NDArray[np.float64], side: int, wrap: bool) -> Taps:
    """Normalise, bring indices into 0..side by the border rule, and drop columns without weight."""
    weight = np.where(np.abs(weight) < 1e-9, 0, weight)  # what rounding left at the kernel's end
    weight = weight / weight.sum(axis=1, keepdims=True)
    mirrored = index % (2 * side)
    folded = index % side if wrap else np.minimum(mirrored, 2 * side - 1 - mirrored)
    used = (weight != 0).any(axis=0)
    return Taps(index=folded[:, used], weight=weight[:, used].astype(np.float32))


@lru_cache(maxsize=16)
def _two_taps(size_in: Size, size_out: Size, kernel: Kernel, antialias: bool, wrap: bool) -> tuple[Taps, Taps]:
    """The taps along a row, and those along a column."""
    down, across = (
        taps(a, b, kernel=kernel, antialias=antialias, wrap=wrap) for a, b in zip(size_in, size_out, strict=True)
    )
    return across, down


def _hw(x: Pixels) -> Size:
    if x.ndim not in (2, 3):
        raise ValueError(f"expected (H, W) or (H, W, C), got shape {x.shape}")
    return x.shape[0], x.shape[1]


def _hw_tensor(x: "Tensor") -> Size:
    if x.ndim != 4:
        raise ValueError(f"expected (N, C, H, W), got shape {tuple(x.shape)}; add a batch dimension with x[None]")
    return x.shape[2], x.shape[3]


def _filter(x: Pixels, across: Taps, down: Taps) -> Array:
    """Strip by strip, so that no whole float copy of the input is made."""
    height, width = len(down.index), len(across.index)
    out = np.empty((height, width, *x.shape[2:]), np.float32)
    strip = max(16, STRIP_VALUES // (out[:1].size or 1))
    for y in range(0, height, strip):
        stop = min(y + strip, height)
        out[y:stop] = _filter_rows(lambda a, b: x[a:b], across, down, y, stop)
    return out


def _filter_rows(read_rows: ReadRows, across: Taps, down: Taps, y0: int, y1: int) -> Array:
    index, weight = down.index[y0:y1], down.weight[y0:y1]
    needed = np.unique(index[weight != 0])
    runs = np.split(needed, np.flatnonzero(np.diff(needed) > 1) + 1)
    rows = np.concatenate([_pass_across(read_rows(int(r[0]), int(r[-1]) + 1), across) for r in runs])
    local = np.where(weight != 0, np.searchsorted(needed, index), 0)
    return _pass_down(rows, Taps(index=local, weight=weight))


def _pass_across(rows: Pixels, across: Taps) -> Array:
    """(h, W[, C]) -> (h, W_out[, C]); a row is seen as one axis of W*C interleaved values."""
    channels = math.prod(rows.shape[2:])
    flat = rows.reshape(len(rows), math.prod(rows.shape[1:])).astype(np.float32, copy=False)
    out = np.empty((len(rows), len(across.index) * channels), np.float32)
    done = 0
    for block in _row_blocks(across, channels):
        n = len(block.matrix)
        np.matmul(flat[:, block.columns], block.matrix.T, out=out[:, done : done + n])
        done += n
    return out.reshape(len(rows), len(across.index), *rows.shape[2:])


def _pass_down(rows: Array, down: Taps) -> Array:
    """(h, W, ...) -> (n, W, ...)."""
    flat = rows.reshape(len(rows), math.prod(rows.shape[1:]))
    out = np.empty((len(down.index), flat.shape[1]), np.float32)
    done = 0
    for block in _blocks(down, 32):
        n = len(block.matrix)
        np.matmul(block.matrix, flat[block.columns], out=out[done : done + n])
        done += n
    return out.reshape(len(down.index), *rows.shape[1:])


@lru_cache(maxsize=16)
def _row_blocks(across: Taps, channels: int) -> Sequence[Block]:
    """The blocks along a row whose `channels` values a pixel are interleaved."""
    channel = np.arange(channels)
    index = (across.index[:, None, :] * channels + channel[:, None]).reshape(-1, across.index.shape[1])
    return _blocks(Taps(index=index, weight=np.repeat(across.weight, channels, axis=0)), 32 * channels)


def _blocks(t: Taps, side: int) -> Sequence[Block]:
    """Cut the outputs into blocks of `side`."""
    return [_block(t.index[i : i + side], t.weight[i : i + side]) for i in range(0, len(t.index), side)]


def _block(index: Indices, weight: Array) -> Block:
    row, tap = np.nonzero(weight)
    columns, place = np.unique(index[row, tap], return_inverse=True)
    matrix = np.zeros((len(index), len(columns)), np.float32)
    np.add.at(matrix, (row, place), weight[row, tap])
    dense = columns[-1] - columns[0] + 1 == len(columns)
    return Block(columns=slice(int(columns[0]), int(columns[-1]) + 1) if dense else columns, matrix=matrix)


def _filter_tensor(x: "Tensor", across: Taps, down: Taps) -> "Tensor":
    """Both passes in float32 (float64 stays), whatever autocast would like."""
    import torch

    with torch.autocast(x.device.type, enabled=False):
        y = x if x.dtype == torch.float64 else x.float()
        y = torch.cat([y[..., c] @ m.T for c, m in _tensor_blocks(across, y)], dim=3)
        y = torch.cat([m @ y[..., c, :] for c, m in _tensor_blocks(down, y)], dim=2)
    return y.to(x.dtype)


def _tensor_blocks(along: Taps, like: "Tensor") -> list[tuple["slice | Tensor", "Tensor"]]:
    """The columns and the matrix of each block; few and large where launching costs more than multiplying."""
    import torch

    return [
        (
            block.columns if isinstance(block.columns, slice) else torch.from_numpy(block.columns),
            torch.from_numpy(block.matrix).to(like),
        )
        for block in _blocks(along, 64 if like.device.type == "cpu" else 256)
    ]
