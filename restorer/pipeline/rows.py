"""A picture's way through a network rows after rows: exact, and nothing is read twice. See networks/stages.py.

Letters: H W sides of the picture, h rows of a band, C channels, s the network's scale.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator

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
from restorer.pipeline.plan import MEMORY_SHARE, Box, Plan
from restorer.pipeline.prepare import padded_side, sent
from restorer.pipeline.source import Block, RowTaker, Source
from restorer.resample import resize_rows

LEAST_ROWS = 8


def in_rows(plan: Plan, engine: Engine) -> bool:
    """Whether a picture of this plan goes rows after rows: where the network can, and what it keeps finds room.

    A processor is quicker so with all but small pictures, another device is spared the tiles.
    """
    if engine.stream is None or plan.wrap or engine.traits.fixed_size is not None:
        return False
    kept = 4 * engine.traits.values_kept * plan.size[1]
    if engine.memory_total and kept > engine.memory_total * MEMORY_SHARE:
        return False
    return plan.count > 1 or (engine.on_cpu and math.prod(plan.size) > PIXELS)


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

    FaultyError: the result is not finite, or of one colour though the picture is not. `exact` computes in float32.
    """
    traits, (height, width) = engine.traits, source.size
    assert engine.stream is not None
    steps = _Steps(source.size, traits.scale, tell)
    way = _Way(source, engine, entered=steps.entered)
    alpha = _alpha(source, engine, exact=exact)
    excess = _excess(source, traits.scale)
    lane, under_way = lane_to(engine.device), deque[list[Later]]()
    made: Reach | None = None
    top = taken = 0

    def hand_on() -> None:
        nonlocal taken
        varied, *parts = (each() for each in under_way.popleft())
        if not np.isfinite(varied).all():
            raise FaultyError(NOT_FINITE)
        block = parts[0] if excess is None else parts[0] + excess(taken, taken + len(parts[0]))
        take(block if alpha is None else np.concatenate([block, parts[1]], axis=2))
        taken += len(block)
        steps.left(taken)

    for y in engine.stream(way.bands(), exact=exact):
        made = joined(made, reach(y))
        rows = min(y.shape[2], height * traits.scale - top)
        crop = Box(0, 0, rows, width * traits.scale)
        faint = None if alpha is None else alpha(y)
        if rows <= 0:
            continue
        pixels = [to_pixels(y[0], crop, channels=source.channels, dtype=dtype)]
        if faint is not None:
            pixels.append(to_pixels(faint[0], crop, channels=1, dtype=dtype))
        under_way.append([lane.fetch(each) for each in (span(made), *pixels)])
        top += rows
        if len(under_way) > lane.ahead:
            hand_on()
    while under_way:
        hand_on()
    if made is not None and not is_finite(made):  # rows that only fill up come last and are not handed on
        raise FaultyError(NOT_FINITE)
    if made is not None and bool(span(made) < FLAT) and way.varies:  # known with the last rows only
        raise FaultyError(COLLAPSED)


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
    """Bands of a source's colours, or of its alpha as colours, padded as the network needs it."""

    def __init__(
        self, source: Source, engine: Engine, *, alpha: bool = False, entered: Callable[[int], None] = lambda row: None
    ) -> None:
        self._source, self._engine, self._entered = source, engine, entered
        self._channels = slice(-1, None) if alpha else slice(0, source.channels)
        self._lane = lane_to(engine.device)
        self._given: Reach | None = None

    @property
    def varies(self) -> bool:
        """Whether what was read so far is more than one colour."""
        return self._given is not None and bool(span(self._given) > VARIES)

    def bands(self) -> Iterator[Tensor]:
        """() -> (1, C, h, W) in [0, 1], top to bottom."""
        traits, (height, width) = self._engine.traits, self._source.size
        height, width = padded_side(height, traits), padded_side(width, traits)
        step = rows_at_once(width, self._engine)
        for top in range(0, height, step):
            block = self._source.read(Box(top, 0, min(height, top + step), width))[:, :, self._channels]
            x = sent([block], self._lane, traits)
            self._given = joined(self._given, reach(x))
            yield x
            self._entered(min(top + step, self._source.size[0]))


def _alpha(source: Source, engine: Engine, *, exact: bool) -> Callable[[Tensor], Tensor] | None:
    """What gives the rows of alpha beside rows of colour (1, C, H, W): drawn as colour is, an even one stays even."""
    if not source.has_alpha:
        return None
    alpha = source.read(Box(0, 0, *source.size))[:, :, -1]
    low, high = alpha.min(), alpha.max()
    if low == high:
        value = float(low) / PEAKS[source.dtype.name]
        return lambda y: torch.full((1, 1, *y.shape[2:]), value, device=y.device)
    assert engine.stream is not None
    rows = engine.stream(_Way(source, engine, alpha=True).bands(), exact=exact)

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
