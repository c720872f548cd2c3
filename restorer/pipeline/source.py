"""Where blocks come from and where rows go: boxes out of a picture, bands of finished rows into a picture or a file."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from restorer.pipeline.codecs.deep import opencv
from restorer.pipeline.picture import Picture
from restorer.pipeline.plan import Box

Block = NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.float32]
RowTaker = Callable[[Block], None]
BLEED_BAND = 512
BLEED_REACH = 64


class Source(Protocol):
    """A picture that gives blocks: (H, W) and C = 1 or 3 colour channels, plus one of alpha where there is any."""

    size: tuple[int, int]
    channels: int
    has_alpha: bool
    dtype: np.dtype[np.generic]

    def read(self, box: Box) -> Block:
        """Box -> (h, w, C[+1]); outside the picture its border pixels are repeated, or it wraps around."""


class PictureSource:
    """Blocks of a picture in memory; colour is bled under its transparent parts."""

    def __init__(self, picture: Picture, *, wrap: bool = False) -> None:
        self.size = picture.pixels.shape[0], picture.pixels.shape[1]
        self.channels = picture.pixels.shape[2]
        self.has_alpha = picture.alpha is not None
        self.dtype = picture.pixels.dtype
        self._pixels = picture.pixels if picture.alpha is None else bleed(picture.pixels, picture.alpha)
        self._alpha = picture.alpha
        self._wrap = wrap

    def read(self, box: Box) -> Block:
        """Box -> (h, w, C[+1])."""
        pixels = _cut(self._pixels, box, wrap=self._wrap)
        if self._alpha is None:
            return pixels
        return np.concatenate([pixels, _cut(self._alpha[:, :, None], box, wrap=self._wrap)], axis=2)


class BandSink:
    """Put the blocks of one row of tiles side by side, and hand each finished band of rows on.

    Neighbours may overlap by twice `feather`; there the share of the next grows evenly from nothing to all.
    """

    def __init__(
        self,
        size: tuple[int, int],
        *,
        channels: int,
        dtype: np.dtype[np.generic],
        take: RowTaker,
        feather: int = 0,
    ) -> None:
        """`size` is (H, W) of all that comes."""
        self._size, self._channels, self._dtype, self._take, self._shared = size, channels, dtype, take, 2 * feather
        self._band: Block | None = None
        self._above: Block | None = None
        """Rows that the band before shares with this one."""
        self._right = 0

    def write(self, box: Box, block: Block) -> None:
        """(h, w, C) at `box` of the output; rows of tiles come top to bottom, tiles left to right."""
        if self._band is None:
            self._band, self._right = np.empty((box.size[0], self._size[1], self._channels), self._dtype), 0
        shared = self._right - box.left
        if shared > 0:
            place = self._band[:, box.left : self._right]
            place[...] = _mixed(place, block[:, :shared], axis=1)
        self._band[:, box.left + shared : box.right] = block[:, shared:]
        self._right = box.right
        if box.right == self._size[1]:
            band, self._band = self._band, None
            self._hand_on(band, is_last=box.bottom == self._size[0])

    def _hand_on(self, band: Block, *, is_last: bool) -> None:
        if self._above is not None:
            place = band[: len(self._above)]
            place[...] = _mixed(self._above, place, axis=0)
        end = len(band) - (0 if is_last else self._shared)
        self._above = band[end:].copy() if end < len(band) else None
        self._take(band[:end])


def _mixed(one: Block, other: Block, *, axis: int) -> Block:
    """(h, w, C), same -> same: from all of one to all of the other along an axis."""
    count = one.shape[axis]
    share = np.expand_dims((np.arange(count, dtype=np.float32) + np.float32(0.5)) / np.float32(count), (1 - axis, 2))
    mixed = one * (1 - share) + other * share
    return mixed if one.dtype == np.float32 else np.rint(mixed).astype(one.dtype)


class ArrayTaker:
    """Rows -> one picture in memory."""

    def __init__(self, size: tuple[int, int], channels: int, dtype: np.dtype[np.generic]) -> None:
        self.array: Block = np.empty((*size, channels), dtype)
        self._filled = 0

    def __call__(self, rows: Block) -> None:
        """(h, W, C): the next rows."""
        self.array[self._filled : self._filled + len(rows)] = rows
        self._filled += len(rows)


def bleed(pixels: Block, alpha: Block) -> Block:
    """(H, W, C), (H, W) -> (H, W, C): fully transparent pixels take the colour of the nearest visible one.

    Further than 64 pixels from anything visible they take the mean of what is visible. Works in bands of rows.
    """
    cv2 = opencv()
    hidden = alpha == 0
    if not hidden.any() or hidden.all():
        return pixels
    out = pixels.copy()
    mean = np.mean(pixels[~hidden], axis=0).astype(pixels.dtype)
    for top in range(0, len(pixels), BLEED_BAND):
        first, last = max(0, top - BLEED_REACH), min(len(pixels), top + BLEED_BAND + BLEED_REACH)
        inside = slice(top - first, min(top + BLEED_BAND, len(pixels)) - first)
        mask = hidden[first:last]
        if not mask[inside].any():
            continue
        target = out[first:last][inside]
        if mask.all():
            target[mask[inside]] = mean
            continue
        distance, label = cv2.distanceTransformWithLabels(
            mask.astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
        )
        colours = np.empty((int(label.max()) + 1, pixels.shape[2]), pixels.dtype)
        colours[label[~mask]] = pixels[first:last][~mask]
        near = mask & (distance <= BLEED_REACH)
        target[near[inside]] = colours[label[inside][near[inside]]]
        target[(mask & ~near)[inside]] = mean
    return out


def _cut(pixels: Block, box: Box, *, wrap: bool) -> Block:
    height, width = pixels.shape[:2]
    if box.top >= 0 and box.left >= 0 and box.bottom <= height and box.right <= width:
        return pixels[box.top : box.bottom, box.left : box.right]
    rows, columns = np.arange(box.top, box.bottom), np.arange(box.left, box.right)
    if wrap:
        rows, columns = rows % height, columns % width
    else:
        rows, columns = _mirrored(rows, height), _mirrored(columns, width)
    return pixels[rows[:, None], columns[None, :]]


def _mirrored(index: NDArray[np.intp], side: int) -> NDArray[np.intp]:
    """Indices past an end come back from it; the end itself is not repeated."""
    if side == 1:
        return np.zeros_like(index)
    folded = np.abs(index) % (2 * side - 2)
    return np.minimum(folded, 2 * side - 2 - folded)
