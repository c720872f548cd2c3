"""Cut a picture into tiles: even cores, equal windows, each read with overlap, and say how large they may be.

Letters: H W sides of the picture, h w sides of a window, all in input pixels.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from restorer.errors import OutOfMemoryError
from restorer.networks.spec import Traits
from restorer.pipeline.settings import SMALLEST_TILE

CPU_BUDGET = 700_000_000
"""Bytes of activations that one batch of tiles may take on a processor: past this, larger tiles stop paying."""
MEMORY_SHARE = 1 / 4
"""Share of a device's total memory that one batch of tiles may take."""
TILE_STEP = 64
CPU_BATCH_PIXELS = 128 * 128
CUDA_BATCH_PIXELS = 512 * 512


@dataclass(frozen=True)
class Box:
    """Rows `top` to `bottom` and columns `left` to `right`, ends not included."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.bottom - self.top, self.right - self.left

    def scaled(self, scale: int) -> "Box":
        """The same place in a picture `scale` times as large."""
        return Box(self.top * scale, self.left * scale, self.bottom * scale, self.right * scale)

    def within(self, other: "Box") -> "Box":
        """The same place, counted from the corner of `other`."""
        return Box(self.top - other.top, self.left - other.left, self.bottom - other.top, self.right - other.left)


@dataclass(frozen=True)
class Tile:
    """`core` is kept; `window` is read. With wrap, a window may begin before 0 or end past the picture."""

    core: Box
    window: Box


@dataclass(frozen=True)
class Span:
    """One axis of a tile."""

    keep: tuple[int, int]
    read: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How one picture is walked: bands of tiles, top to bottom."""

    size: tuple[int, int]
    """(H, W) of the picture."""
    rows: tuple[Span, ...]
    columns: tuple[Span, ...]
    overlap: int
    tile: int
    """Side of the largest core."""
    batch: int
    wrap: bool = False

    @property
    def window(self) -> tuple[int, int]:
        """(h, w) of every window."""
        row, column = self.rows[0].read, self.columns[0].read
        return row[1] - row[0], column[1] - column[0]

    @property
    def count(self) -> int:
        """Number of tiles."""
        return len(self.rows) * len(self.columns)

    def bands(self) -> Iterator[list[Tile]]:
        """The tiles of each row of tiles, left to right."""
        for row in self.rows:
            yield [_tile(row, column) for column in self.columns]


def plan_tiles(size: tuple[int, int], traits: Traits, *, tile: int, batch_pixels: int = 1, wrap: bool = False) -> Plan:
    """(H, W) -> a plan whose cores are even and at most `tile` (0 is the whole picture) and whose windows are equal."""
    overlap = traits.overlap
    rows, columns = (
        plan_spans(side, tile=tile, overlap=overlap, multiple=traits.multiple_of, wrap=wrap) for side in size
    )
    plan = Plan(size=size, rows=rows, columns=columns, overlap=overlap, tile=tile, batch=1, wrap=wrap)
    h, w = plan.window
    batch = 1 if traits.batch_of_one else max(1, min(plan.count, batch_pixels // (h * w), 16))
    return Plan(size=size, rows=rows, columns=columns, overlap=overlap, tile=tile, batch=batch, wrap=wrap)


def plan_spans(side: int, *, tile: int, overlap: int, multiple: int = 1, wrap: bool = False) -> tuple[Span, ...]:
    """Cover `side` with even cores of at most `tile`, each read through a window of one common length.

    Windows begin at multiples of `multiple`; at the borders they are shifted inward, or wrap around.

    >>> [span.read for span in plan_spans(100, tile=64, overlap=8)]
    [(0, 66), (34, 100)]
    >>> [span.keep for span in plan_spans(100, tile=64, overlap=8)]
    [(0, 50), (50, 100)]
    """
    overlap = _ceil_to(overlap, multiple)
    count = 1 if tile == 0 else math.ceil(side / tile)
    edges = [_floor_to(round(i * side / count), multiple) for i in range(count)] + [side]
    core = max(stop - start for start, stop in zip(edges, edges[1:], strict=False))
    length = _ceil_to(core + 2 * overlap, multiple)
    if wrap:
        return tuple(Span((a, b), (a - overlap, a - overlap + length)) for a, b in zip(edges, edges[1:], strict=False))
    length = min(length, _ceil_to(side, multiple))
    last = max(0, _ceil_to(side, multiple) - length)
    return tuple(
        Span((a, b), (start, start + length))
        for a, b in zip(edges, edges[1:], strict=False)
        for start in [min(max(0, a - overlap), last)]
    )


def auto_tile(traits: Traits, *, bytes_per_value: int, memory_total: int, on_cpu: bool) -> int:
    """Choose the core's side from facts that do not change between runs: network, precision, total memory."""
    budget = memory_total * MEMORY_SHARE if memory_total else CPU_BUDGET    # 0: the system does not tell
    if on_cpu:
        budget = min(budget, CPU_BUDGET)
    window = math.isqrt(int(budget / (traits.values_per_pixel * bytes_per_value)))
    core = window - 2 * traits.overlap
    return max(TILE_STEP, min(2048, _floor_to(core, TILE_STEP)))


def batch_pixels(*, on_cpu: bool) -> int:
    """How many window pixels one batch should hold: small windows alone leave a device idle."""
    return CPU_BATCH_PIXELS if on_cpu else CUDA_BATCH_PIXELS


def smaller_tile(plan: Plan) -> int:
    """The next tile to try after a memory error; gives up under 32 pixels."""
    core = max(max(s.keep[1] - s.keep[0] for s in spans) for spans in (plan.rows, plan.columns))
    if core <= SMALLEST_TILE:
        raise OutOfMemoryError(
            f"not enough memory even for tiles of {SMALLEST_TILE} pixels; close other programs, "
            "or choose a smaller model or another device"
        )
    return max(SMALLEST_TILE, core // 2)


def _tile(row: Span, column: Span) -> Tile:
    return Tile(
        core=Box(row.keep[0], column.keep[0], row.keep[1], column.keep[1]),
        window=Box(row.read[0], column.read[0], row.read[1], column.read[1]),
    )


def _ceil_to(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _floor_to(value: int, multiple: int) -> int:
    return value // multiple * multiple
