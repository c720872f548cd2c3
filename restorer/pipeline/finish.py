"""One tile on its way out: batch -> pixels, and the steps that finished rows pass: size, strength, colour, depth.

Letters: H W sides of the final picture, C its channels with alpha; rows are float32 in [0, 1] between steps.
"""

from collections.abc import Callable
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from restorer.kernels.to_bytes import to_bytes
from restorer.pipeline.picture import PEAKS
from restorer.pipeline.plan import Box
from restorer.pipeline.settings import UpscaleSettings
from restorer.pipeline.source import Block, RowTaker, Source
from restorer.resample import RowResizer, resize_rows

Rows = NDArray[np.float32]
CHUNK = 128
"""Rows that the float steps take at a time."""
LUMA = (0.299, 0.587, 0.114)
COLOUR_CELL = 8
"""Side, in input pixels, of the cells whose mean colour is held by keep-colour."""


def to_block(y: Tensor, crop: Box, *, channels: int, dtype: np.dtype[np.generic]) -> Block:
    """(C, H, W) in [0, 1] -> the rows and columns of `crop` as (h, w, channels) in `dtype`; one channel is luma."""
    return to_pixels(y, crop, channels=channels, dtype=dtype).cpu().numpy()


def to_pixels(y: Tensor, crop: Box, *, channels: int, dtype: np.dtype[np.generic]) -> Tensor:
    """(C, H, W) in [0, 1] -> (h, w, channels) as `to_block`, where y is: a device gives back no more than pixels."""
    y = y[:, crop.top : crop.bottom, crop.left : crop.right]
    if channels == 1 and y.shape[0] == 3:
        y = torch.tensordot(torch.tensor(LUMA, device=y.device), y.to(torch.float32), dims=([0], [0]))[None]
    if dtype == np.uint8:
        return to_bytes(y[None])[0]
    y = y.to(torch.float32).permute(1, 2, 0).clamp(0, 1).contiguous()
    return y if dtype == np.float32 else y.mul_(PEAKS[dtype.name]).round_().to(torch.uint16)


class Step(Protocol):
    """Takes finished rows in order and hands them on, perhaps later."""

    def push(self, rows: Rows) -> None:
        """(h, W, C): the next rows."""

    def close(self) -> None:
        """No more rows come: hand on what is held."""


class Finish:
    """The steps of one picture, in order: final size, keep-colour, strength, depth."""

    def __init__(
        self,
        original: Source,
        *,
        size_in: tuple[int, int],
        size_out: tuple[int, int],
        settings: UpscaleSettings,
        take: RowTaker,
    ) -> None:
        self.work = work_dtype(original, size_in, size_out, settings)
        """What the tiles are rounded to before the steps: the picture's own depth where there are none."""
        self._peak = PEAKS[self.work.name]
        self._take = take
        if not has_steps(size_in, size_out, settings):
            self._steps: list[Step] = []
            return
        channels = original.channels + original.has_alpha
        last: Step = Quantise(original.dtype, take)
        steps = [last]
        if settings.strength < 1:
            last = Strength(original, size_out, settings, last)
            steps.append(last)
        if settings.keep_colour:
            last = KeepColour(original, size_out, settings, last)
            steps.append(last)
        if size_in != size_out:
            last = Resize(size_in, size_out, channels, last, wrap=settings.wrap)
            steps.append(last)
        self._steps = steps[::-1]

    def __call__(self, band: Block) -> None:
        """(h, w, C) in the working depth: the next band of rows."""
        if not self._steps:
            self._take(band)
            return
        for start in range(0, len(band), CHUNK):
            rows = band[start : start + CHUNK].astype(np.float32)
            rows /= np.float32(self._peak)
            self._steps[0].push(rows)

    def close(self) -> None:
        """Hand on what the steps still hold."""
        for step in self._steps:
            step.close()


def has_steps(size_in: tuple[int, int], size_out: tuple[int, int], settings: UpscaleSettings) -> bool:
    """Whether anything happens between the network's pixels and the file's."""
    return size_in != size_out or settings.strength < 1 or settings.keep_colour


def work_dtype(
    original: Source, size_in: tuple[int, int], size_out: tuple[int, int], settings: UpscaleSettings
) -> np.dtype[np.generic]:
    """The depth tiles are rounded to: the picture's own, or finer when steps follow."""
    if not has_steps(size_in, size_out, settings):
        return original.dtype
    return np.dtype(np.uint16 if original.dtype == np.uint8 else np.float32)


class Resize:
    """Rows of one size -> rows of another, by a filter that fits the ratio. Wrapped pictures are gathered whole."""

    def __init__(
        self, size_in: tuple[int, int], size_out: tuple[int, int], channels: int, after: Step, *, wrap: bool
    ) -> None:
        self._after = after
        self._held: list[Rows] = []
        self._size_in, self._size_out, self._wrap = size_in, size_out, wrap
        self._resizer = None if wrap else RowResizer(size_in, size_out, kernel="lanczos")

    def push(self, rows: Rows) -> None:
        """(h, W, C): hand on what the rows so far suffice for."""
        if self._resizer is None:
            self._held.append(rows)
            return
        ready = self._resizer.push(rows)
        if len(ready):
            self._after.push(ready)

    def close(self) -> None:
        """Resize what was gathered."""
        if self._resizer is not None:
            return
        whole = np.concatenate(self._held)
        for start in range(0, self._size_out[0], CHUNK):
            stop = min(start + CHUNK, self._size_out[0])
            self._after.push(
                resize_rows(
                    lambda a, b: whole[a:b], self._size_in, self._size_out, start, stop, kernel="lanczos", wrap=True
                )
            )


class Strength:
    """Blend with a plain resample of the input: strength * rows + (1 - strength) * plain."""

    def __init__(self, original: Source, size_out: tuple[int, int], settings: UpscaleSettings, after: Step) -> None:
        self._original, self._size, self._after = original, size_out, after
        self._strength, self._wrap = np.float32(settings.strength), settings.wrap
        self._done = 0

    def push(self, rows: Rows) -> None:
        """(h, W, C): blend with the same rows of the plain resample."""
        plain = plain_rows(self._original, self._size, self._done, self._done + len(rows), wrap=self._wrap)
        if self._original.dtype != np.float32:
            plain = plain.clip(0, 1)  # what overshoots would be lost in the file
        self._done += len(rows)
        self._after.push(plain + self._strength * (rows - plain))

    def close(self) -> None:
        """Nothing is held."""


class KeepColour:
    """Give cells of 8 x 8 input pixels the mean colour they had; what is finer than a cell stays the network's.

    A row leaves once the cells two below it are known, so a few cells of rows are held and never the picture.
    """

    def __init__(self, original: Source, size_out: tuple[int, int], settings: UpscaleSettings, after: Step) -> None:
        self._after, self._size, self._wrap = after, size_out, settings.wrap
        self._channels = original.channels
        height, width = (max(1, round(side / COLOUR_CELL)) for side in original.size)
        self._grid = height, width
        wanted = resize_rows(
            _float_rows(original), original.size, (height, width), 0, height, kernel="area", wrap=False
        )
        self._wanted = wanted[:, :, : self._channels]
        self._cells = RowResizer(size_out, (height, width), kernel="area")
        self._shift = np.zeros((height, width, self._channels), np.float32)
        self._known = 0
        self._held: list[Rows] = []
        self._sent = 0

    def push(self, rows: Rows) -> None:
        """(h, W, C): hand on the rows whose cells are known by now."""
        self._held.append(rows)
        self._learn(self._cells.push(rows))
        if not self._wrap:
            self._send(self._ready())

    def close(self) -> None:
        """Hand on the rest."""
        self._send(self._size[0])

    def _learn(self, cells: Rows) -> None:
        start, self._known = self._known, self._known + len(cells)
        self._shift[start : self._known] = self._wanted[start : self._known] - cells[:, :, : self._channels]

    def _ready(self) -> int:
        """Rows whose smooth shift depends on known cells only: two cells below are read."""
        return max(0, (self._known - 3) * self._size[0] // self._grid[0])

    def _send(self, stop: int) -> None:
        if stop <= self._sent:
            return
        smooth = _smoothed(self._shift, wrap=self._wrap)
        whole = np.concatenate(self._held) if len(self._held) > 1 else self._held[0]
        for start in range(self._sent, stop, CHUNK):
            end = min(start + CHUNK, stop)
            rows = whole[start - self._sent : end - self._sent]
            shift = resize_rows(
                lambda a, b: smooth[a:b], self._grid, self._size, start, end, kernel="cubic", wrap=self._wrap
            )
            colour = rows[:, :, : self._channels] + shift
            self._after.push(np.concatenate([colour, rows[:, :, self._channels :]], axis=2))
        self._held = [whole[stop - self._sent :]]
        self._sent = stop


class Quantise:
    """Rows in [0, 1] -> rows at the picture's depth; float stays as it is."""

    def __init__(self, dtype: np.dtype[np.generic], take: RowTaker) -> None:
        self._dtype, self._take = dtype, take

    def push(self, rows: Rows) -> None:
        """(h, W, C): round, and hand on."""
        if self._dtype == np.float32:
            self._take(rows)
            return
        peak = np.float32(PEAKS[self._dtype.name])
        self._take(np.rint(np.clip(rows, 0, 1) * peak).astype(self._dtype))

    def close(self) -> None:
        """Nothing is held."""


def plain_rows(original: Source, size: tuple[int, int], start: int, stop: int, *, wrap: bool) -> Rows:
    """Rows `start` to `stop` of the original plainly resampled to `size`: float32, in [0, 1] but for overshoot."""
    return resize_rows(_float_rows(original), original.size, size, start, stop, kernel="cubic", wrap=wrap)


def _float_rows(original: Source) -> Callable[[int, int], Rows]:
    peak = np.float32(PEAKS[original.dtype.name])

    def read(start: int, stop: int) -> Rows:
        return original.read(Box(start, 0, stop, original.size[1])).astype(np.float32) / peak

    return read


def _smoothed(grid: Rows, *, wrap: bool) -> Rows:
    """(h, w, C) -> same: each cell becomes the (1 2 1)/4 mean of its neighbours, both ways."""
    mode: Literal["wrap", "edge"] = "wrap" if wrap else "edge"
    for axis in (0, 1):
        padded = np.pad(grid, [(1, 1) if a == axis else (0, 0) for a in range(3)], mode=mode)
        low, mid, high = (np.take(padded, range(i, i + grid.shape[axis]), axis) for i in range(3))
        grid = np.asarray((low + 2 * mid + high) / 4, np.float32)
    return grid
