"""Local networks, rows after rows: exact at any size of the picture, in memory that grows with its width alone.

Where every output depends on its surroundings only, a picture can pass a network like paper a printer. A stage takes
rows of a map from top to bottom, and gives the rows that it can by then; of those that it took it keeps the few that
the next ones need. So every row of every map is made once, from just what it would be made of in one go: nothing is
cut, nothing overlaps, and nothing is approximated.

Letters: C channels, H W sides of a map, h rows of a band.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from restorer.networks.layers import Conv

Piece = tuple[Tensor, bool]
"""The next rows of a map, (1, C, h, W), and whether they are its last."""
Local = Callable[[Tensor], Tensor]
"""(1, C, h, W) -> (1, C', s*h, s*W)."""
PIXELS = 192**2
"""Of a map at a time: what a processor's cache holds. From 128**2 to 256**2 x4plus takes equally long, within 2 %."""
ELSEWHERE = 512**2
"""The same on a GPU, which small maps leave idle."""
FEWEST = 4
"""Rows at a time in any case: with each come those that are kept."""


def pixels_at_once(*, on_cpu: bool) -> int:
    """Of a map, on a processor or elsewhere."""
    return PIXELS if on_cpu else ELSEWHERE


class Stage(ABC):
    """A part of a network, for one picture. Rows are pushed until the last; `held` is what it keeps between them."""

    multiple = 1
    """Rows come by so many."""

    @abstractmethod
    def push(self, rows: Tensor, *, last: bool) -> Iterator[Piece]:
        """(1, C, h, W), the next rows -> those of the result that can be made now. The last push gives all."""

    @property
    @abstractmethod
    def held(self) -> Sequence[Tensor]:
        """(1, C, h, W) each."""


def passed(stages: Sequence[Stage], rows: Tensor, *, last: bool, pixels: int = PIXELS) -> Iterator[Piece]:
    """(1, C, h, W) -> what comes out of all stages; between any two of them about `pixels` at a time."""
    pieces: Iterator[Piece] = iter([(rows, last)])
    for stage in stages:
        pieces = _through(stage, pieces, pixels)
    return pieces


def _through(stage: Stage, pieces: Iterator[Piece], pixels: int) -> Iterator[Piece]:
    """Nothing is held while others work on what came out: a hundred stages would each hold a map for the last one."""
    for rows, last in pieces:
        parts = list(_parts(rows, last, pixels, stage.multiple))
        del rows
        while parts:
            part, is_last = parts.pop(0)
            made = list(stage.push(part, last=is_last))
            del part
            while made:
                yield made.pop(0)


def streamed(stages: Sequence[Stage], bands: Iterable[Tensor], *, pixels: int = PIXELS) -> Iterator[Tensor]:
    """(1, C, h, W) bands of a picture from top to bottom -> those of the result, of any height."""
    coming = iter(bands)
    band = next(coming, None)
    while band is not None:
        after = next(coming, None)
        for made, _ in passed(stages, band, last=after is None, pixels=pixels):
            yield made
        band = after


class Each(Stage):
    """What needs no other rows: an activation, a norm at rest, a shuffle of channels into pixels."""

    held = ()

    def __init__(self, function: Local, *, multiple: int = 1) -> None:
        """`multiple` rows at a time become whole ones, as where pixels are folded into channels."""
        self._function, self.multiple = function, multiple

    def push(self, rows: Tensor, *, last: bool) -> Iterator[Piece]:
        """(1, C, h, W) -> pieces; see Stage.push."""
        yield self._function(rows), last


class Convolved(Stage):
    """A convolution that keeps the sides by zeros around the map, and what follows it place by place."""

    def __init__(self, conv: Conv, then: Local | None = None) -> None:
        self._conv, self._then, self._radius = conv, then, conv.kernel_size[0] // 2
        self._kept: Tensor | None = None

    @property
    def held(self) -> Sequence[Tensor]:
        """The rows around the next one."""
        return () if self._kept is None else (self._kept,)

    def push(self, rows: Tensor, *, last: bool) -> Iterator[Piece]:
        """(1, C, h, W) -> pieces; see Stage.push."""
        rows, radius = rows.to(self._conv.weight.dtype), self._radius
        before = zero_rows(rows, radius) if self._kept is None else self._kept
        x = below_each_other([before, rows, *([zero_rows(rows, radius)] if last else [])])
        self._kept = None if last else copied(x[:, :, max(0, x.shape[2] - 2 * radius) :])
        if x.shape[2] > 2 * radius:
            y = convolved(self._conv, x)
            yield (y if self._then is None else self._then(y)), last


class Around(Stage):
    """What sees `radius` rows up and down, and does at the picture's own edges as it always does."""

    def __init__(self, part: Local, *, radius: int, scale: int = 1) -> None:
        self._part, self._radius, self._scale = part, radius, scale
        self._kept: Tensor | None = None
        self._done = 0
        """Rows of what is kept that were made something of."""

    @property
    def held(self) -> Sequence[Tensor]:
        """The rows around the next one."""
        return () if self._kept is None else (self._kept,)

    def push(self, rows: Tensor, *, last: bool) -> Iterator[Piece]:
        """(1, C, h, W) -> pieces; see Stage.push."""
        x = rows if self._kept is None else below_each_other([self._kept, rows])
        first, stop = self._done, x.shape[2] - (0 if last else self._radius)
        if stop <= first:
            self._kept = x
            return
        above = max(0, stop - self._radius)
        self._kept, self._done = (None, 0) if last else (copied(x[:, :, above:]), stop - above)
        yield self._part(x)[:, :, first * self._scale : stop * self._scale], last


class Both(Stage):
    """Two ways for the same rows, and what is made of both, place by place. The second may be slower than the first."""

    def __init__(self, one: Sequence[Stage], other: Sequence[Stage], join: Callable[[Tensor, Tensor], Tensor]) -> None:
        self._one, self._other, self._join = one, other, join
        self._waiting: list[Tensor] = []

    @property
    def held(self) -> Sequence[Tensor]:
        """What both ways hold, and what waits for the second."""
        return [*self._waiting, *(tensor for stage in (*self._one, *self._other) for tensor in stage.held)]

    def push(self, rows: Tensor, *, last: bool) -> Iterator[Piece]:
        """(1, C, h, W) -> pieces; see Stage.push."""
        self._waiting += [made for made, _ in passed(self._one, rows, last=last)]
        for made, is_last in passed(self._other, rows, last=last):
            yield self._join(_taken(self._waiting, made.shape[2]), made), is_last


class Skip(Both):
    """A residual: what comes in, and what `stages` make of it."""

    def __init__(self, stages: Sequence[Stage], join: Callable[[Tensor, Tensor], Tensor] = torch.add) -> None:
        super().__init__((), stages, join)


def convolved(conv: Conv, x: Tensor, *, bias: bool = True) -> Tensor:
    """(1, C, r + h + r, W) -> (1, C', h, W): zeros at the sides only; the rows above and below are there."""
    weight = conv.weight
    return F.conv2d(x.to(weight.dtype), weight, conv.bias if bias else None, padding=(0, weight.shape[3] // 2))


def below_each_other(parts: Sequence[Tensor], dtype: torch.dtype | None = None) -> Tensor:
    """[(1, C, h, W), ...] -> (1, C, sum of h, W): torch.cat, which takes five times as long with channels last."""
    made = map_of(parts[0], parts[0].shape[1], sum(part.shape[2] for part in parts), dtype or parts[0].dtype)
    top = 0
    for part in parts:
        made[:, :, top : top + part.shape[2]] = part
        top += part.shape[2]
    return made


def together(maps: Sequence[Tensor], top: int, bottom: int) -> Tensor:
    """[(1, C, H, W), ...] -> (1, sum of C, bottom - top, W)."""
    return torch.cat([each[:, :, top:bottom] for each in maps], 1) if len(maps) > 1 else maps[0][:, :, top:bottom]


def map_of(like: Tensor, channels: int, height: int, dtype: torch.dtype) -> Tensor:
    """(1, ., ., W) -> (1, channels, height, W), not written yet."""
    shape = (1, channels, height, like.shape[3])
    return torch.empty(shape, dtype=dtype, device=like.device, memory_format=torch.channels_last)


def zero_rows(rows: Tensor, count: int) -> Tensor:
    """(1, C, h, W) -> (1, C, count, W) of zeros: what lies around the map."""
    return torch.zeros_like(rows[:, :, :1]).expand(-1, -1, count, -1)


def copied(rows: Tensor) -> Tensor:
    """(1, C, h, W) -> same, in memory of its own, so that the band it was cut from can go."""
    return rows.clone(memory_format=torch.channels_last)


def _taken(pieces: list[Tensor], count: int) -> Tensor:
    """[(1, C, h, W), ...] -> (1, C, count, W): the first rows, which are taken away."""
    taken: list[Tensor] = []
    while count:
        first = pieces.pop(0)
        taken.append(first[:, :, :count])
        if first.shape[2] > count:
            pieces.insert(0, first[:, :, count:])
        count -= taken[-1].shape[2]
    return taken[0] if len(taken) == 1 else below_each_other(taken)


def _parts(rows: Tensor, last: bool, pixels: int, multiple: int) -> Iterator[Piece]:
    """Even parts of about `pixels`, all of whole multiples."""
    height, width = rows.shape[2:]
    count = max(1, round(height / max(FEWEST, pixels / width)))
    edges = [height * i // count // multiple * multiple for i in range(count)] + [height]
    for top, bottom in pairwise(edges):
        if bottom > top:
            yield rows[:, :, top:bottom], last and bottom == height
