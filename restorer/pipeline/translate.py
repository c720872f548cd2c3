"""A picture's way through a network that translates: its size stays, its colours may come from anywhere in it.

Letters: H W sides of the picture, h rows of a band, C channels.
"""

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from restorer.engines import Engine
from restorer.engines.shared import probe
from restorer.errors import OutOfMemoryError, PictureError, UsageError
from restorer.networks.bands import Bands, PictureRows
from restorer.pipeline.events import Event, engine_told
from restorer.pipeline.finish import Finish, to_block
from restorer.pipeline.guard import (
    COLLAPSED,
    FLAT,
    NOT_FINITE,
    VARIES,
    FaultyError,
    Reach,
    hopeless,
    is_finite,
    joined,
    reach,
    span,
)
from restorer.pipeline.labels import Colours, in_colours
from restorer.pipeline.lane import lane_to
from restorer.pipeline.picture import PEAKS, Picture, PictureInfo
from restorer.pipeline.picture_types import without_channel_words
from restorer.pipeline.plan import Box, Plan, batch_pixels, plan_tiles, smaller_tile, window_pixels
from restorer.pipeline.prepare import padded_side, to_batch, with_channels
from restorer.pipeline.restore import Progress, engine_plan, restore
from restorer.pipeline.settings import TranslateSettings
from restorer.pipeline.source import BandSink, Block, PictureSource, RowTaker, bleed

log = logging.getLogger(__name__)
TIGHT_FROM = 1_500_000_000
"""Bytes of float32 maps from which they are held in half precision."""
AGAIN = 1.2
"""Time of a walk in bands over that in one go: rows between bands are made twice, and some maps."""


class Translation:
    """One picture's plan. See Work; after an error, `run` can go again."""

    def __init__(
        self, picture: Picture, engine: Engine, settings: TranslateSettings, *, palette: Colours | None = None
    ) -> None:
        traits = engine.traits
        self.engine, self.settings = engine, settings
        given = one_of_pair(picture, settings.direction) if settings.pair else picture
        given = given if palette is None else in_colours(given, palette)
        self._given = replace(given, alpha=None, pixels=_bled(given))
        self._alpha = given.alpha
        self._seen = self._of_channels(traits.in_channels)
        self.info = _info(given, traits.out_channels)
        self.size_in = self.size_out = given.size
        self.tile, self.rows, self._exact = settings.tile, 0, False
        self.batch_pixels = batch_pixels(on_cpu=engine.on_cpu)
        if self._way() == "bands":
            self._need_walk()
            self.rows = self._first_rows()

    @property
    def pixels(self) -> int:
        """What `progress` counts to."""
        return self.size_in[0] * self.size_in[1]

    def told(self) -> Event:
        """What a plan and a result say of it; sizes are (width, height)."""
        height, width = self.size_in
        plan = None if self.rows else self._plan()
        read = AGAIN * self.pixels if plan is None else plan.count * plan.window[0] * plan.window[1]
        tile = (min(self.rows, height), width) if plan is None else plan.tile
        return {
            **engine_told(self.engine),
            "size_in": [width, height],
            "size_out": [width, height],
            "passes": 1,
            "tile": [tile[1], tile[0]],
            "tiles": -(-height // self.rows) if plan is None else plan.count,
            "estimated_seconds": round(read / max(1.0, self.engine.pixels_per_second), 1),
        }

    @property
    def notices(self) -> list[str]:
        """What should be said of the picture beside its result."""
        if self.rows and self._is_tight():
            return ["is large, so that what lies between layers was held in half precision"]
        return []

    def run(self, open_rows: Callable[[], RowTaker], *, progress: Progress | None = None) -> None:
        """Send finished rows to what `open_rows` gives; after a memory error begin anew with less at once."""
        while True:
            try:
                return self._run(open_rows(), progress)
            except OutOfMemoryError:
                self._shrink()
            except FaultyError as e:
                if self._exact or (self.engine.run_again is None and not self._is_tight()):
                    raise hopeless(str(e)) from e
                self._exact = True
                log.warning("the picture came back with %s; it is done again in float32", e)

    def _run(self, take: RowTaker, progress: Progress | None) -> None:
        channels = self.engine.traits.out_channels
        original = self._seen if self._seen.channels == channels else self._of_channels(channels)
        finish = Finish(
            original,
            size_in=self.size_in,
            size_out=self.size_out,
            settings=self.settings.finishing,
            take=take if self._alpha is None else WithAlpha(self._alpha, take),
        )
        if self.rows:
            for band in self._banded(finish.work, progress):
                finish(band)
        else:
            done = 0
            plan, dtype = self._plan(), finish.work
            sink = BandSink(self.size_in, channels=channels, dtype=dtype, take=finish, feather=plan.feather)
            for pixels in restore(self._seen, plan, self.engine, sink, dtype=dtype, channels=channels):
                done += pixels
                if progress is not None:
                    progress(done, self.pixels)
        finish.close()

    def _of_channels(self, channels: int) -> PictureSource:
        """The picture with grey as three equal channels, or colour as its luma."""
        return PictureSource(replace(self._given, pixels=with_channels(self._given.pixels, channels)))

    def _banded(self, dtype: np.dtype[np.generic], progress: Progress | None) -> Iterator[Block]:
        """The picture in bands, by statistics of all of it. -> (h, W, C) in `dtype`"""
        traits, (height, width) = self.engine.traits, self.size_in
        padded = self._padded()
        walk = self.engine.walk
        assert walk is not None

        def read(top: int, bottom: int) -> Tensor:
            block = self._seen.read(Box(top, 0, bottom, padded[1]))
            return to_batch([block], channels=traits.in_channels, lane=lane_to(self.engine.device))

        steps = None if progress is None else _Steps(self.engine, self.pixels, -(-padded[0] // self.rows), progress)
        bands = Bands(self.rows, tight=self._is_tight(), tell=steps)
        made: Reach | None = None
        for top, y in walk(PictureRows(padded[0], read), bands, exact=self._exact):
            made = joined(made, reach(y))
            if not is_finite(made):
                raise FaultyError(NOT_FINITE)
            inside = Box(0, 0, min(y.shape[2], height - top), width)
            if inside.bottom > 0:
                yield to_block(y[0], inside, channels=traits.out_channels, dtype=dtype)
        if made is not None and bool(span(made) < FLAT) and self._varies():  # known with the last band only
            raise FaultyError(COLLAPSED)
        if progress is not None:
            progress(self.pixels, self.pixels)

    def _varies(self) -> bool:
        """Whether the picture is more than one colour."""
        pixels = self._seen.read(Box(0, 0, *self.size_in))
        return float((pixels.max((0, 1)) - pixels.min((0, 1))).max()) / PEAKS[pixels.dtype.name] > VARIES

    def _plan(self) -> Plan:
        """In one go, of sides that are mirrored as for bands, or in tiles."""
        if self._is_tiled():
            return engine_plan(self.size_in, self.engine, self.tile, self.batch_pixels, wrap=False)
        traits = self.engine.traits
        return plan_tiles(self.size_in, replace(traits, fixed_size=traits.fixed_size or self._padded()), tile=(0, 0))

    def _is_tiled(self) -> bool:
        """Outputs depend on their surroundings only, and there are no bands, which read nothing twice."""
        return self.engine.traits.radius is not None and self.engine.walk is None

    def _way(self) -> Literal["whole", "bands", "tiles"]:
        traits = self.engine.traits
        if self._is_tiled():
            return "tiles"
        if traits.fixed_size is not None and self.size_in != traits.fixed_size:
            height, width = traits.fixed_size
            raise PictureError(
                f"is {self.size_in[1]}x{self.size_in[0]}, and this graph takes whole pictures of {width}x{height} "
                "only; export it without --static"
            )
        fits = self.tile is None and math.prod(self._padded()) <= self._room()
        return "whole" if fits or self.tile == 0 or traits.fixed_size is not None else "bands"

    def _padded(self) -> tuple[int, int]:
        """(height, width) as the network takes them."""
        return padded_side(self.size_in[0], self.engine.traits), padded_side(self.size_in[1], self.engine.traits)

    def _room(self) -> int:
        """Pixels that may go in one go."""
        engine = self.engine
        return window_pixels(engine.traits, memory_total=engine.memory_total, on_cpu=engine.on_cpu, generous=True)

    def _need_walk(self) -> None:
        if self.engine.walk is None:
            raise UsageError(
                f"the {self.engine.name} engine can only take this picture in one go, as tiles would differ in colour; "
                "give --tile 0, or --engine eager"
            )

    def _first_rows(self) -> int:
        if self.tile:
            return self.tile
        engine = self.engine
        pixels = window_pixels(engine.traits, memory_total=engine.memory_total, on_cpu=engine.on_cpu)
        return max(32, pixels // self._padded()[1] // 16 * 16)

    def _is_tight(self) -> bool:
        """Whether maps are held in half precision."""
        return not self._exact and 4 * self.engine.traits.values_held * math.prod(self._padded()) > TIGHT_FROM

    def _shrink(self) -> None:
        """From one go to bands, from bands to lower ones, from tiles to smaller ones."""
        if self.rows:
            self.rows = _lower(self.rows)
        elif self.engine.traits.fixed_size is not None:
            raise OutOfMemoryError("not enough memory for this graph's fixed size; use a smaller one")
        elif self._is_tiled():
            self.tile = smaller_tile(self._plan())
        elif self.engine.walk is None or self.tile == 0:
            raise OutOfMemoryError(
                "not enough memory for the whole picture at once; leave --tile out, or use --engine eager"
            )
        else:
            self.rows = self._first_rows()
        log.warning("not enough memory; begins again with less of the picture at once")


class WithAlpha:
    """Hand rows on with those of an alpha channel, which no network sees."""

    def __init__(self, alpha: NDArray[np.generic], take: RowTaker) -> None:
        """(H, W), of the rows' depth"""
        self._alpha, self._take, self._at = alpha, take, 0

    def __call__(self, rows: Block) -> None:
        """(h, W, C) -> (h, W, C + 1)"""
        alpha = self._alpha[self._at : self._at + len(rows), :, None]
        self._at += len(rows)
        self._take(np.concatenate([rows, alpha], axis=2))


class _Steps:
    """Bands of all passes over the picture -> pixels done."""

    def __init__(self, engine: Engine, pixels: int, bands: int, tell: Progress) -> None:
        """Passes are counted on the smallest picture that works."""
        self._pixels, self._tell, self._done, self._all = pixels, tell, 0, 0
        x = probe(engine.traits, 1).to(engine.device)
        assert engine.walk is not None
        small = PictureRows(x.shape[2], lambda top, bottom: x[:, :, top:bottom])
        for _ in engine.walk(small, Bands(x.shape[2], tell=self._count)):
            pass
        self._all *= bands

    def _count(self) -> None:
        self._all += 1

    def __call__(self) -> None:
        """One band more."""
        self._done += 1
        self._tell(min(self._pixels, self._pixels * self._done // self._all), self._pixels)


def one_of_pair(picture: Picture, direction: str) -> Picture:
    """Two pictures side by side -> the input: the left one for a2b, the right one for b2a."""
    width = picture.size[1]
    if width % 2:
        raise PictureError(f"is {width} pixels wide, and two pictures side by side have an even width; cut it to fit")
    half = slice(0, width // 2) if direction == "a2b" else slice(width // 2, width)
    alpha = None if picture.alpha is None else picture.alpha[:, half]
    return replace(picture, pixels=picture.pixels[:, half], alpha=alpha)


def _lower(rows: int) -> int:
    if rows <= 4:
        raise OutOfMemoryError(
            "not enough memory for this picture's maps; close other programs, or make it smaller first"
        )
    return max(4, rows // 2)


def _bled(picture: Picture) -> Block:
    """(H, W, C): colour under transparent parts is that beside them, and floats are in [0, 1]."""
    pixels = picture.pixels if picture.alpha is None else bleed(picture.pixels, picture.alpha)
    return pixels.clip(0, 1) if pixels.dtype == np.float32 else pixels


def _info(picture: Picture, channels: int) -> PictureInfo:
    """What is written: a profile of grey says nothing of colours, and the reverse, nor do PNG's words on channels."""
    if picture.channels == channels:
        return picture.info
    return replace(picture.info, channels=channels, icc=None, meta=without_channel_words(picture.meta))
