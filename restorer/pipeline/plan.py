"""Cut a picture into tiles: even cores, equal windows, each read with overlap, and say how large they may be.

Letters: H W sides of the picture, h w sides of a window, all in input pixels.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise

from restorer.errors import OutOfMemoryError
from restorer.networks.spec import Traits
from restorer.pipeline.settings import SMALLEST_TILE

CPU_BUDGET = 400_000_000
"""Bytes that one batch of tiles may take on a processor: past this, larger tiles stop paying by themselves."""
GENEROUS_BUDGET = 4 * CPU_BUDGET
"""The same where larger tiles spare much of the overlap."""
GENEROUS_SHARE = 1 / 8
"""Share of a processor's memory that GENEROUS_BUDGET may be at most."""
WORTH_IT = 0.8
"""Share of the pixels read that larger tiles must come down to."""
LARGEST_WINDOW = 2048**2
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
    """`window` is read; `made` is taken of what comes out, which is `core` and, at seams, what two tiles share.

    With wrap, a window may begin before 0 or end past the picture.
    """

    core: Box
    made: Box
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
    batch: int
    """Tiles that the network gets at once."""
    wrap: bool = False
    feather: int = 0
    """Input pixels on each side of a seam that two tiles share, from all of one to all of the other."""

    @property
    def window(self) -> tuple[int, int]:
        """(h, w) of every window."""
        row, column = self.rows[0].read, self.columns[0].read
        return row[1] - row[0], column[1] - column[0]

    @property
    def tile(self) -> tuple[int, int]:
        """(height, width) of the largest core."""
        rows, columns = (max(span.keep[1] - span.keep[0] for span in spans) for spans in (self.rows, self.columns))
        return rows, columns

    @property
    def count(self) -> int:
        """Number of tiles."""
        return len(self.rows) * len(self.columns)

    @property
    def read_share(self) -> float:
        """Pixels read for each pixel of the picture: 1 without overlap."""
        return self.count * math.prod(self.window) / math.prod(self.size)

    def bands(self) -> Iterator[list[Tile]]:
        """The tiles of each row of tiles, left to right."""
        for row in self.rows:
            yield [self._tile(row, column) for column in self.columns]

    def _tile(self, row: Span, column: Span) -> Tile:
        (top, bottom), (left, right) = (
            (max(0, span.keep[0] - self.feather), min(side, span.keep[1] + self.feather))
            for span, side in zip((row, column), self.size, strict=True)
        )
        return Tile(
            core=Box(row.keep[0], column.keep[0], row.keep[1], column.keep[1]),
            made=Box(top, left, bottom, right),
            window=Box(row.read[0], column.read[0], row.read[1], column.read[1]),
        )


def plan_tiles(
    size: tuple[int, int], traits: Traits, *, tile: tuple[int, int], batch_pixels: int = 1, wrap: bool = False
) -> Plan:
    """(H, W) -> a plan whose cores are even, at most `tile` (h, w; 0: the whole side), and whose windows are equal.

    A network of one fixed size has windows of that size, whatever `tile` says.
    """
    overlap, multiple = traits.overlap, traits.multiple_of
    if traits.fixed_size is None:
        rows, columns = (
            plan_spans(side, tile=most, overlap=overlap, multiple=multiple, wrap=wrap)
            for side, most in zip(size, tile, strict=True)
        )
    else:
        rows, columns = (
            fixed_spans(side, length=length, overlap=overlap, multiple=multiple, wrap=wrap)
            for side, length in zip(size, traits.fixed_size, strict=True)
        )
    feather = _feather(traits, rows, columns)
    plan = Plan(size=size, rows=rows, columns=columns, batch=1, wrap=wrap, feather=feather)
    h, w = plan.window
    return plan if traits.batch_of_one else replace(plan, batch=max(1, min(plan.count, batch_pixels // (h * w), 16)))


@lru_cache(maxsize=1024)
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
    cores = list(pairwise(edges))
    core = max(stop - start for start, stop in cores)
    length = _ceil_to(core + 2 * overlap, multiple)
    if wrap:
        return tuple(Span((a, b), (a - overlap, a - overlap + length)) for a, b in cores)
    length = min(length, _ceil_to(side, multiple))
    last = max(0, _ceil_to(side, multiple) - length)
    return tuple(Span((a, b), (start, start + length)) for a, b in cores for start in [min(max(0, a - overlap), last)])


@lru_cache(maxsize=1024)
def fixed_spans(side: int, *, length: int, overlap: int, multiple: int = 1, wrap: bool = False) -> tuple[Span, ...]:
    """Cover `side` with even cores, each read through a window of exactly `length`, a multiple of `multiple`.

    A side shorter than the window is read past its end; where there is too little room, a quarter of it is overlap.

    >>> [(span.keep, span.read) for span in fixed_spans(100, length=64, overlap=8)]
    [((0, 50), (0, 64)), ((50, 100), (36, 100))]
    """
    if side <= length and not wrap:
        return (Span((0, side), (0, length)),)
    units, room = -(-side // multiple), length // multiple
    margin = min(-(-overlap // multiple), room // 4)
    both_ends = not wrap and -(-units // 2) + margin <= room
    count = 2 if both_ends else -(-units // (room - 2 * margin))
    spans = []
    for a, b in pairwise(units * i // count for i in range(count + 1)):
        start = a - (room - (b - a)) // 2
        start = start if wrap else min(max(0, start), units - room)
        spans.append(Span((a * multiple, min(side, b * multiple)), (start * multiple, start * multiple + length)))
    return tuple(spans)


@lru_cache(maxsize=64)
def plan_auto(size: tuple[int, int], traits: Traits, *, window: int, batch_pixels: int = 1, wrap: bool = False) -> Plan:
    """(H, W) -> the plan that reads the fewest pixels through windows of at most `window` pixels each."""
    if traits.fixed_size is not None:
        return plan_tiles(size, traits, tile=(0, 0), batch_pixels=batch_pixels, wrap=wrap)
    grids = [_finest_tile(size, traits, rows, window, wrap=wrap) for rows in range(1, -(-size[0] // TILE_STEP) + 1)]
    fitting = [(_read_pixels(size, traits, tile, wrap=wrap), tile) for tile in grids if tile is not None]
    tile = min(fitting)[1] if fitting else (TILE_STEP, TILE_STEP)
    return plan_tiles(size, traits, tile=tile, batch_pixels=batch_pixels, wrap=wrap)


def plan_for(
    size: tuple[int, int],
    traits: Traits,
    *,
    memory_total: int,
    on_cpu: bool,
    batch_pixels: int = 1,
    wrap: bool = False,
) -> Plan:
    """(H, W) -> the plan of automatic tiles on a device: of the usual size, or larger ones where overlap costs much."""
    plans = []
    for generous in (False, True) if on_cpu else (False,):
        window = window_pixels(traits, memory_total=memory_total, on_cpu=on_cpu, generous=generous)
        plans.append(plan_auto(size, traits, window=window, batch_pixels=batch_pixels, wrap=wrap))
    usual, larger = plans[0], plans[-1]
    return larger if larger.read_share <= WORTH_IT * usual.read_share else usual


def window_pixels(traits: Traits, *, memory_total: int, on_cpu: bool, generous: bool = False) -> int:
    """How many input pixels one window may hold: a fact of network and total memory, so that it never changes.

    On a processor less pays better; 0 bytes of memory means that the system does not tell.
    """
    values = traits.values_in_blocks if on_cpu and traits.values_in_blocks else traits.values_per_pixel
    budget = memory_total * MEMORY_SHARE if memory_total else CPU_BUDGET
    if on_cpu:
        more = min(GENEROUS_BUDGET, memory_total * GENEROUS_SHARE) if generous else 0
        budget = min(budget, max(CPU_BUDGET, more))
    pixels = budget / (4 * values)
    return max(TILE_STEP**2, min(LARGEST_WINDOW, _floor_to(int(pixels), TILE_STEP**2)))


def batch_pixels(*, on_cpu: bool) -> int:
    """How many window pixels one batch should hold: small windows alone leave a device idle."""
    return CPU_BATCH_PIXELS if on_cpu else CUDA_BATCH_PIXELS


def smaller_tile(plan: Plan) -> int:
    """The next tile to try after a memory error; gives up under 32 pixels."""
    core = max(plan.tile)
    if core <= SMALLEST_TILE:
        raise OutOfMemoryError(
            f"not enough memory even for tiles of {SMALLEST_TILE} pixels; close other programs, "
            "or choose a smaller model or another device"
        )
    return max(SMALLEST_TILE, core // 2)


def _finest_tile(
    size: tuple[int, int], traits: Traits, rows: int, window: int, *, wrap: bool
) -> tuple[int, int] | None:
    """The widest tile of `rows` rows of tiles whose window has at most `window` pixels; None where none has."""
    height = -(-size[0] // rows)
    for columns in range(1, -(-size[1] // TILE_STEP) + 1):
        tile = height, -(-size[1] // columns)
        h, w = plan_tiles(size, traits, tile=tile, wrap=wrap).window
        if h * w <= window:
            return tile
    return None


def _read_pixels(size: tuple[int, int], traits: Traits, tile: tuple[int, int], *, wrap: bool) -> int:
    plan = plan_tiles(size, traits, tile=tile, wrap=wrap)
    return plan.count * math.prod(plan.window)


def _feather(traits: Traits, *axes: tuple[Span, ...]) -> int:
    """A quarter of the overlap, as far as cores and windows have room; 0 where tiles are exact.

    So far from their borders tiles differ little, and over so many pixels no step is seen.
    """
    if traits.radius is not None and traits.overlap >= traits.radius:
        return 0
    rooms = [traits.overlap // 4]
    for spans in axes:
        if len(spans) > 1:
            rooms += [(span.keep[1] - span.keep[0]) // 2 for span in spans]
        rooms += [span.keep[0] - span.read[0] for span in spans[1:]] + [
            span.read[1] - span.keep[1] for span in spans[:-1]
        ]
    return min(rooms)


def _ceil_to(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _floor_to(value: int, multiple: int) -> int:
    return value // multiple * multiple
