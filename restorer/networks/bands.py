"""Feature maps of one whole picture, made band of rows after band of rows: never all of them, and nothing approximated.

A norm that looks at a whole picture ends a walk through tiles: each would be normalised by itself, and neighbours
differ in colour. Here a map is a promise of rows. Convolutions read the few rows around a band that they need, a norm
first goes over the whole map for its mean and variance, and only what would be dear to make again is held.

Letters: C channels, H W sides of a map, h rows of a band, s output side over input side.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from fractions import Fraction

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restorer.networks.translation_layers import EPSILON, PictureNorm, statistics, unless_flat

Local = Callable[[Tensor], Tensor]
"""(1, C, h, W) -> (1, C', s*h, s*W): a part of a network that sees no farther than a few rows."""
FULL, HALVED, DOUBLED = Fraction(1), Fraction(1, 2), Fraction(2)
HALF = torch.float16
"""What maps are held in where there is little room: what a norm follows is small, and has eleven bits here."""


class Rows(ABC):
    """A map that gives any of its rows when asked."""

    height: int
    share: Fraction
    """Rows of the map for each of the picture."""

    @abstractmethod
    def read(self, top: int, bottom: int) -> Tensor:
        """Rows `top` to `bottom` -> (1, C, h, W), which nobody else reads: it may be written over."""


class PictureRows(Rows):
    """The picture itself, by whatever reads it."""

    def __init__(self, height: int, read: Callable[[int, int], Tensor]) -> None:
        self.height, self.share, self._read = height, Fraction(1), read

    def read(self, top: int, bottom: int) -> Tensor:
        """See Rows.read."""
        return self._read(top, bottom)


class Held(Rows):
    """A map in memory."""

    def __init__(self, values: Tensor, share: Fraction, dtype: torch.dtype) -> None:
        self.values, self.height, self.share, self._dtype = values, values.shape[2], share, dtype

    def read(self, top: int, bottom: int) -> Tensor:
        """See Rows.read."""
        return self.values[:, :, top:bottom].to(self._dtype, copy=True, memory_format=torch.channels_last)


class Through(Rows):
    """What a local part of the network makes of a map: read with the rows around it that the part sees."""

    def __init__(self, before: Rows, part: Local, *, radius: int, scale: Fraction = Fraction(1)) -> None:
        """`radius` is in rows of what is read; where `scale` is 1/2, counted from the even row at or before."""
        self._before, self._part, self._radius, self._scale = before, part, radius, scale
        self.height, self.share = int(before.height * scale), before.share * scale

    def read(self, top: int, bottom: int) -> Tensor:
        """See Rows.read. At the picture's own edges the part pads as it always does."""
        step = self._scale.denominator  # what halves begins at even rows
        first = max(0, (top // self._scale - self._radius) // step * step)
        last = math.ceil(bottom / self._scale) + self._radius
        last = min(self._before.height, -(-last // step) * step)
        made = self._part(self._before.read(first, last))
        start = int(first * self._scale)
        return made[:, :, top - start : bottom - start]


class Each(Rows):
    """What is made of the same rows of several maps, place by place."""

    def __init__(self, function: Callable[..., Tensor], *maps: Rows) -> None:
        self._function, self._maps = function, maps
        self.height, self.share = maps[0].height, maps[0].share

    def read(self, top: int, bottom: int) -> Tensor:
        """See Rows.read."""
        return self._function(*(each.read(top, bottom) for each in self._maps))


class Placed(Rows):
    """As Each of one map, for a function that must know where the rows are."""

    def __init__(self, function: Callable[[Tensor, int], Tensor], before: Rows) -> None:
        self._function, self._before = function, before
        self.height, self.share = before.height, before.share

    def read(self, top: int, bottom: int) -> Tensor:
        """See Rows.read."""
        return self._function(self._before.read(top, bottom), top)


class Bands:
    """How a walk goes on: how high a band is, what maps are held in, and who is told of its progress."""

    def __init__(self, rows: int, *, tight: bool = False, tell: Callable[[], None] | None = None) -> None:
        """`rows` of the picture make a band; `tight` holds maps in half precision; `tell` hears of every band."""
        self._rows, self._tight, self._tell = rows, tight, tell

    def of(self, x: Rows) -> Iterator[tuple[int, Tensor]]:
        """The map from top to bottom: (first row, (1, C, h, W))."""
        step = max(1, int(self._rows * x.share))
        for top in range(0, x.height, step):
            yield top, x.read(top, min(top + step, x.height))
            if self._tell is not None:
                self._tell()

    def normed(self, x: Rows, norm: nn.Module) -> Rows:
        """What a norm of translation_layers makes of the map, which is gone over here for its statistics."""
        if isinstance(norm, nn.Identity):
            return x
        moments: tuple[Tensor, Tensor] | None = None
        for top, band in self.of(x):
            moments = _joined(moments, top, band)
        assert moments is not None
        mean, variance = moments[0].float(), moments[1].float()
        variance = unless_flat(mean, variance)
        weight = bias = None
        if isinstance(norm, PictureNorm):
            weight, bias = norm.weight.float(), norm.bias.float()
        return Each(lambda y: F.batch_norm(y, mean, variance, weight, bias, eps=EPSILON), x)

    def held(self, x: Rows, *, over: Rows | None = None) -> Rows:
        """Make all of a map now. `over` is one of its size that nobody reads any more, and whose memory it may take."""
        values: Tensor | None = over.values if isinstance(over, Held) else None
        late: tuple[int, Tensor] | None = None
        dtype: torch.dtype | None = None
        for top, band in self.of(x):
            dtype = band.dtype
            if values is None:
                kind = HALF if self._tight and dtype == torch.float32 else dtype
                shape = (1, band.shape[1], x.height, band.shape[3])
                values = torch.empty(shape, dtype=kind, device=band.device, memory_format=torch.channels_last)
            _write(values, late)  # a band late: the next one may read the rows that this one replaces
            late = top, band
        assert values is not None and dtype is not None
        _write(values, late)
        return Held(values, x.share, dtype)


def _write(values: Tensor, late: tuple[int, Tensor] | None) -> None:
    if late is not None:
        top, band = late
        values[:, :, top : top + band.shape[2]] = band


def _joined(before: tuple[Tensor, Tensor] | None, rows: int, band: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of `rows` rows, and a band below them -> those of both (Chan, Golub, LeVeque 1979)."""
    mean, variance = (each.double() for each in statistics(band, torch.promote_types(band.dtype, torch.float32)))
    if before is None:
        return mean, variance
    share = band.shape[2] / (rows + band.shape[2])
    apart = mean - before[0]
    return before[0] + share * apart, (1 - share) * before[1] + share * variance + share * (1 - share) * apart.square()
