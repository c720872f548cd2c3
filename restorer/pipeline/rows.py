"""A picture's way through a network rows after rows: exact, and nothing is read twice. See networks/stages.py.

Letters: H W sides of the picture, h rows of a band, C channels, s the network's scale.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from restorer.engines import Engine
from restorer.networks.stages import PIXELS, pixels_at_once
from restorer.pipeline.finish import to_pixels
from restorer.pipeline.guard import (
    COLLAPSED,
    FLAT,
    NOT_FINITE,
    VARIES,
    FaultyError,
    Reach,
    is_finite,
    joined,
    reach,
    span,
)
from restorer.pipeline.lane import Later, lane_to
from restorer.pipeline.picture import PEAKS
from restorer.pipeline.plan import MEMORY_SHARE, Box, Plan, Span, plan_spans
from restorer.pipeline.prepare import padded_side, to_batch
from restorer.pipeline.source import Block, RowTaker, Source
from restorer.resample import resize_rows

LEAST_ROWS = 8


def in_rows(plan: Plan, engine: Engine) -> bool:
    """Whether a picture of this plan goes rows after rows: where the network can, and what it keeps finds room.

    A processor is quicker so with all but small pictures, another device is spared the tiles.
    """
    if engine.stream is None or plan.wrap or engine.traits.fixed_size is not None:
        return False
    strips = columns_for(plan.size[1], engine)
    kept = 4 * engine.traits.values_kept * min(plan.size[1], strips[0].read[1])
    if engine.memory_total and kept > engine.memory_total * MEMORY_SHARE:
        return False
    return plan.count > 1 or len(strips) > 1 or (engine.on_cpu and math.prod(plan.size) > PIXELS)


def rows_at_once(width: int, engine: Engine) -> int:
    """How high a band of a picture is when it goes in."""
    step = engine.traits.multiple_of
    return max(LEAST_ROWS, pixels_at_once(on_cpu=engine.on_cpu) // width) // step * step or step


def restore_rows(
    source: Source,
    engine: Engine,
    take: RowTaker,
    *,
    dtype: np.dtype[np.generic],
    tell: Callable[[int], None],
    exact: bool = False,
) -> None:
    """Hand on rows (s*h, s*W, C[+1]) in `dtype` from top to bottom; `tell` hears of each so many input pixels done.

    The engine and its twins each take columns of their own. FaultyError: the result is not finite, or of one colour
    though the picture is not. `exact` computes in float32.
    """
    steps = _Steps(source.size, engine.traits.scale, tell)
    strips = [
        _Strip(source, one, columns, dtype=dtype, exact=exact)
        for one, columns in zip((engine, *engine.twins), columns_for(source.size[1], engine), strict=False)
    ]
    excess = _excess(source, engine.traits.scale)
    under_way = deque[tuple[list[Later], ...]]()
    taken = 0

    def hand_on() -> None:
        nonlocal taken
        varied, *parts = zip(*([each() for each in strip] for strip in under_way.popleft()), strict=True)
        if not np.isfinite(varied).all():
            raise FaultyError(NOT_FINITE)
        block, *faint = (part[0] if len(part) == 1 else np.concatenate(part, axis=1) for part in parts)
        block = block if excess is None else block + excess(taken, taken + len(block))
        take(np.concatenate([block, *faint], axis=2) if faint else block)
        taken += len(block)
        steps.left(taken)

    *first, last = strips
    for rows in zip(*(strip.rows() for strip in first), last.rows(steps.entered), strict=True):
        under_way.append(rows)
        if len(under_way) > strips[0].lane.ahead:
            hand_on()
    while under_way:
        hand_on()
    made, given = (_whole(reaches) for reaches in zip(*(strip.reaches for strip in strips), strict=True))
    if not is_finite(made):  # rows that only fill up come last and are not handed on
        raise FaultyError(NOT_FINITE)
    if bool(span(made) < FLAT) and bool(span(given) > VARIES):  # known with the last rows only
        raise FaultyError(COLLAPSED)


def columns_for(width: int, engine: Engine) -> tuple[Span, ...]:
    """What the engine and each of its twins make of a picture of this width, and see: all see equally many columns.

    There are fewer where what is seen on both sides would be more than what is made.
    """
    traits, count = engine.traits, len(engine.twins) + 1
    if traits.radius is None or count == 1:
        return (Span((0, width), (0, padded_side(width, traits))),)
    count = max(1, min(count, width // max(1, 2 * traits.radius)))
    return plan_spans(width, tile=-(-width // count), overlap=traits.radius, multiple=traits.multiple_of)


def _whole(reaches: Sequence[Reach | None]) -> Reach:
    """Those of strips of a picture, wherever they are, -> that of all of it."""
    whole: Reach | None = None
    for low, high in (each for each in reaches if each is not None):
        whole = joined(whole, (low.cpu(), high.cpu()))
    assert whole is not None, "a picture has rows"
    return whole


class _Strip:
    """Columns of a picture, on their way through one device."""

    def __init__(
        self, source: Source, engine: Engine, columns: Span, *, dtype: np.dtype[np.generic], exact: bool
    ) -> None:
        self.lane = lane_to(engine.device)
        self._source, self._engine, self._columns, self._dtype, self._exact = source, engine, columns, dtype, exact
        self._made: Reach | None = None
        self._given: Callable[[], Reach | None] = lambda: None

    @property
    def reaches(self) -> tuple[Reach | None, Reach | None]:
        """Of what was made so far, and of what was read for it."""
        return self._made, self._given()

    def rows(self, entered: Callable[[int], None] = lambda row: None) -> Iterator[list[Later]]:
        """Each time that rows come: how far those so far vary, (1,), their pixels (h, w, C), and alpha (h, w, 1).

        `entered` is told that all rows above this one went in.
        """
        traits, source, engine = self._engine.traits, self._source, self._engine
        assert engine.stream is not None
        read, keep = self._columns.read, self._columns.keep
        left, right = ((column - read[0]) * traits.scale for column in keep)
        way = _Way(source, engine, read, entered=entered)
        self._given = lambda: way.given
        alpha = _alpha(source, engine, read, exact=self._exact)
        top = 0
        for y in engine.stream(way.bands(), exact=self._exact):
            self._made = joined(self._made, reach(y))
            rows = min(y.shape[2], source.size[0] * traits.scale - top)
            crop = Box(0, left, rows, right)
            faint = None if alpha is None else alpha(y)
            if rows <= 0:
                continue
            pixels = [to_pixels(y[0], crop, channels=source.channels, dtype=self._dtype)]
            if faint is not None:
                pixels.append(to_pixels(faint[0], crop, channels=1, dtype=self._dtype))
            top += rows
            yield [self.lane.fetch(each) for each in (span(self._made), *pixels)]


class _Steps:
    """Rows that went in and rows that came out -> pixels done. In a deep network the first come long after they went.

    Half of a row's work is done when it has gone in, on average: layers are as far behind as they are deep.
    """

    def __init__(self, size: tuple[int, int], scale: int, tell: Callable[[int], None]) -> None:
        self._width, self._scale, self._tell = size[1], scale, tell
        self._in, self._out, self._done = 0, 0, 0

    def entered(self, row: int) -> None:
        """All rows above `row` of the picture have."""
        self._in = row
        self._say()

    def left(self, row: int) -> None:
        """All rows above `row` of the result have."""
        self._out = row
        self._say()

    def _say(self) -> None:
        done = (self._in * self._scale + self._out) * self._width // (2 * self._scale)
        self._tell(done - self._done)
        self._done = done


class _Way:
    """Bands of columns of a source's colours, or of its alpha as colours, filled up as the network needs it."""

    def __init__(
        self,
        source: Source,
        engine: Engine,
        columns: tuple[int, int],
        *,
        alpha: bool = False,
        entered: Callable[[int], None] = lambda row: None,
    ) -> None:
        self._source, self._engine, self._columns, self._entered = source, engine, columns, entered
        self._channels = slice(-1, None) if alpha else slice(0, source.channels)
        self._lane = lane_to(engine.device)
        self.given: Reach | None = None
        """That of all that was read so far."""

    def bands(self) -> Iterator[Tensor]:
        """() -> (1, C, h, W) in [0, 1], top to bottom."""
        traits, (left, right) = self._engine.traits, self._columns
        height = padded_side(self._source.size[0], traits)
        step = rows_at_once(right - left, self._engine)
        for top in range(0, height, step):
            block = self._source.read(Box(top, left, min(height, top + step), right))[:, :, self._channels]
            x = to_batch([block], channels=traits.in_channels, lane=self._lane)
            self.given = joined(self.given, reach(x))
            yield x
            self._entered(min(top + step, self._source.size[0]))


def _alpha(
    source: Source, engine: Engine, columns: tuple[int, int], *, exact: bool
) -> Callable[[Tensor], Tensor] | None:
    """What gives the rows of alpha beside rows of colour (1, C, H, W): drawn as colour is, an even one stays even."""
    if not source.has_alpha:
        return None
    alpha = source.read(Box(0, 0, *source.size))[:, :, -1]
    low, high = alpha.min(), alpha.max()
    if low == high:
        value = float(low) / PEAKS[source.dtype.name]
        return lambda y: torch.full((1, 1, *y.shape[2:]), value, device=y.device)
    assert engine.stream is not None
    rows = engine.stream(_Way(source, engine, columns, alpha=True).bands(), exact=exact)

    def beside(y: Tensor) -> Tensor:
        made = next(rows)
        assert made.shape[2] == y.shape[2], "bands of one size go through in the same steps"
        if not bool(made.isfinite().all()):
            raise FaultyError(NOT_FINITE)
        return made

    return beside


def _excess(source: Source, scale: int) -> Callable[[int, int], Block] | None:
    """What gives the rows of all that a float picture holds outside [0, 1], plainly resampled; the network saw it cut.

    None where there is nothing.
    """
    if source.dtype != np.float32:
        return None

    def read(top: int, bottom: int) -> Block:
        block = source.read(Box(top, 0, bottom, source.size[1]))[:, :, : source.channels]
        return (block - np.clip(block, 0, 1)).astype(np.float32)

    if not read(0, source.size[0]).any():
        return None
    size = source.size[0] * scale, source.size[1] * scale
    return lambda top, bottom: resize_rows(read, source.size, size, top, bottom, kernel="cubic", wrap=False)
