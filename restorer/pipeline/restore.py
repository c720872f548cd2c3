"""A picture's way through the network: for each tile read, prepare, run, look, finish, write."""

import logging
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import cycle

import numpy as np
import torch
from torch import Tensor

from restorer.engines import Engine
from restorer.engines.shared import memory_errors
from restorer.errors import OutOfMemoryError, PictureError
from restorer.networks.spec import Traits
from restorer.pipeline.events import Event, engine_told
from restorer.pipeline.finish import Finish, to_block, to_pixels
from restorer.pipeline.guard import FaultyError, checked, hopeless, judged, redone, spans
from restorer.pipeline.lane import Lane, Later, lane_to
from restorer.pipeline.picture import PEAKS, Picture, PictureInfo
from restorer.pipeline.plan import Box, Plan, Tile, batch_pixels, plan_for, plan_tiles, smaller_tile
from restorer.pipeline.prepare import pad_to, to_batch
from restorer.pipeline.rows import columns_for, in_rows, restore_rows, rows_at_once
from restorer.pipeline.settings import UpscaleSettings
from restorer.pipeline.source import ArrayTaker, BandSink, Block, PictureSource, RowTaker, Source
from restorer.resample import resize

log = logging.getLogger(__name__)
Progress = Callable[[int, int], None]
"""Called with network input pixels done and in all, over every pass of one picture."""


def restore(
    source: Source,
    plan: Plan,
    engine: Engine,
    sink: BandSink,
    *,
    dtype: np.dtype[np.generic],
    channels: int | None = None,
) -> Iterator[int]:
    """Walk the plan; yields the input pixels done after each batch of tiles. The network sees one batch at a time.

    `channels` of colour come out; None for those of the source. A device gets the next batch before the last is back;
    the engine and its twins get batches in turn.
    """
    engines = [(each, lane_to(each.device)) for each in (engine, *engine.twins)]
    turns, ahead = cycle(engines), sum(lane.ahead + 1 for _, lane in engines) - 1
    under_way: deque[tuple[Sequence[Tile], Callable[[], list[Block]]]] = deque()

    def written() -> int:
        tiles, blocks = under_way.popleft()
        for tile, block in zip(tiles, blocks(), strict=True):
            sink.write(tile.made.scaled(engine.traits.scale), block)
        return sum(tile.core.size[0] * tile.core.size[1] for tile in tiles)

    for band in plan.bands():
        for start in range(0, len(band), plan.batch):
            tiles = band[start : start + plan.batch]
            under_way.append((tiles, begin_tiles(source, tiles, *next(turns), dtype=dtype, channels=channels)))
            if len(under_way) > ahead:
                yield written()
    while under_way:
        yield written()


def begin_tiles(
    source: Source,
    tiles: Sequence[Tile],
    engine: Engine,
    lane: Lane,
    *,
    dtype: np.dtype[np.generic],
    channels: int | None = None,
) -> Callable[[], list[Block]]:
    """Set a batch of tiles going -> what waits for it, looks at it, and gives what is made, (s*h, s*w, C[+1])."""
    blocks = [source.read(tile.window) for tile in tiles]
    crops = [tile.made.within(tile.window).scaled(engine.traits.scale) for tile in tiles]
    colours = channels or source.channels

    def fetched(made: Tensor) -> list[Later]:
        parts = zip(made, crops, strict=True)
        return [lane.fetch(to_pixels(y, crop, channels=colours, dtype=dtype)) for y, crop in parts]

    with memory_errors(torch.empty(len(tiles), 0, *tiles[0].window.size), engine.where):
        colours_only = [block[:, :, : source.channels] for block in blocks]
        x = pad_to(to_batch(colours_only, channels=engine.traits.in_channels, lane=lane), engine.traits)
        y = engine.run({"image": x})["image"]
        found, cores = lane.fetch(spans(x, y)), fetched(y)

    def wait() -> list[Block]:
        wrong = judged(torch.from_numpy(found()))
        made = cores if wrong is None else fetched(redone(x, wrong, engine.run_again))
        done = [core() for core in made]
        if source.dtype == np.float32:
            done = [_with_excess(*item, engine.traits) for item in zip(done, blocks, crops, strict=True)]
        if not source.has_alpha:
            return done
        parts = zip(blocks, crops, strict=True)
        alphas = [_alpha(engine, lane, block[:, :, -1:], crop, dtype) for block, crop in parts]
        return [np.concatenate([colour, alpha], axis=2) for colour, alpha in zip(done, alphas, strict=True)]

    return wait


def _alpha(engine: Engine, lane: Lane, alpha: Block, crop: Box, dtype: np.dtype[np.generic]) -> Block:
    """(h, w, 1) -> (H, W, 1): the network draws the edges of alpha as it draws colour; an even alpha stays even."""
    low, high = alpha.min(), alpha.max()
    if low == high:
        even = torch.full((1, crop.bottom, crop.right), float(low) / PEAKS[alpha.dtype.name])
        return to_block(even, crop, channels=1, dtype=dtype)
    x = pad_to(to_batch([alpha], channels=engine.traits.in_channels, lane=lane), engine.traits)
    y = checked(lambda x: engine.run({"image": x})["image"], engine.run_again, x)
    return to_block(y[0], crop, channels=1, dtype=dtype)


def _with_excess(done: Block, block: Block, crop: Box, traits: Traits) -> Block:
    """Add what a float picture holds outside [0, 1], plainly resampled; the network saw it clipped."""
    excess = block[:, :, : done.shape[2]] - np.clip(block[:, :, : done.shape[2]], 0, 1)
    if not excess.any():
        return done
    grown = resize(excess, (block.shape[0] * traits.scale, block.shape[1] * traits.scale), kernel="cubic")
    return done + grown[crop.top : crop.bottom, crop.left : crop.right]


def passes(size: tuple[int, int], wanted: tuple[int, int], scale: int) -> int:
    """How often a network of `scale` is applied so that its output is at least as large as `wanted`.

    >>> passes((100, 100), (500, 500), 4), passes((100, 100), (150, 150), 4), passes((100, 100), (900, 900), 1)
    (2, 1, 1)
    """
    count = 1
    while scale > 1 and any(side * scale**count < want for side, want in zip(size, wanted, strict=True)):
        count += 1
    return count


class Upscale:
    """One picture's plan: size, passes and tiles are fixed when it is made; after an error, `run` can go again."""

    def __init__(self, picture: Picture, engine: Engine, settings: UpscaleSettings) -> None:
        traits = engine.traits
        if traits.in_channels < picture.pixels.shape[2]:
            raise PictureError("this network takes grey pictures only, and this one has colours; use another model")
        self.picture, self.engine, self.settings = picture, engine, settings
        self.size_in = picture.pixels.shape[0], picture.pixels.shape[1]
        self.size_out = settings.output_size(self.size_in, traits.scale)
        self.passes = passes(self.size_in, self.size_out, traits.scale)
        self.tile = settings.tile
        self._in_rows, self._exact = settings.tile is None, False
        """Whether pictures that can may go rows after rows, and whether they must in float32."""
        self.batch_pixels = batch_pixels(on_cpu=engine.on_cpu)

    @property
    def pixels(self) -> int:
        """What `progress` counts to: input pixels of all passes."""
        return _pixels_of(self.plans())

    @property
    def info(self) -> PictureInfo:
        """What the result is, but for its pixels."""
        return replace(self.picture.info, size=self.size_out)

    def told(self) -> Event:
        """What a plan and a result say of it; sizes are (width, height)."""
        plans = self.plans()
        read = sum(
            math.prod(plan.size) if self._goes_in_rows(plan) else plan.count * math.prod(plan.window) for plan in plans
        )
        tile, count = self._cut(plans[-1])
        return {
            **engine_told(self.engine),
            "size_in": [self.size_in[1], self.size_in[0]],
            "size_out": [self.size_out[1], self.size_out[0]],
            "passes": self.passes,
            "tile": [tile[1], tile[0]],
            "tiles": count,
            "estimated_seconds": round(read / max(1.0, self.engine.pixels_per_second), 1),
        }

    @property
    def notices(self) -> list[str]:
        """What should be said of the picture beside its result."""
        return []

    def plans(self) -> list[Plan]:
        """One plan a pass, smallest picture first."""
        traits = self.engine.traits
        height, width = self.size_in
        sizes = [(height * traits.scale**i, width * traits.scale**i) for i in range(self.passes)]
        return [engine_plan(size, self.engine, self.tile, self.batch_pixels, wrap=self.settings.wrap) for size in sizes]

    def _goes_in_rows(self, plan: Plan) -> bool:
        return self._in_rows and in_rows(plan, self.engine)

    def _cut(self, plan: Plan) -> tuple[tuple[int, int], int]:
        """((height, width) of what the network gets at once, how many of them)."""
        if not self._goes_in_rows(plan):
            return plan.tile, plan.count
        height, width = plan.size
        strips = columns_for(width, self.engine)
        width = min(width, strips[0].read[1])
        rows = min(height, rows_at_once(width, self.engine))
        return (rows, width), -(-height // rows) * len(strips)

    def run(self, open_rows: Callable[[], RowTaker], *, progress: Progress | None = None) -> None:
        """Send finished rows to what `open_rows` gives; after a memory error begin anew with less at once."""
        while True:
            try:
                return self._run(open_rows(), progress)
            except OutOfMemoryError:
                self._shrink()
            except FaultyError as e:
                if self._exact or self.engine.run_again is None:
                    raise hopeless(str(e)) from e
                self._exact = True
                log.warning("the picture came back with %s; it is done again in float32", e)

    def _shrink(self) -> None:
        """First tiles instead of whole rows, then one tile at a time, then smaller ones."""
        plan = self.plans()[-1]
        if self._goes_in_rows(plan):
            self._in_rows = False
            log.warning("not enough memory; begins again in tiles")
            return
        if plan.batch > 1:
            self.batch_pixels = 1
            log.warning("not enough memory; begins again with one tile at a time")
            return
        if self.engine.traits.fixed_size is not None:
            height, width = self.engine.traits.fixed_size
            raise OutOfMemoryError(f"not enough memory for this graph's fixed {height}x{width}; use a smaller one")
        self.tile = smaller_tile(plan)
        log.warning("not enough memory; begins again with tiles of %d pixels", self.tile)

    def _run(self, take: RowTaker, progress: Progress | None) -> None:
        plans = self.plans()
        total, done = _pixels_of(plans), 0

        def advance(pixels: int) -> None:
            nonlocal done
            done += pixels
            if progress is not None:
                progress(done, total)

        original: Source = PictureSource(self.picture, wrap=self.settings.wrap)
        source = original
        for last, plan in zip([False] * (len(plans) - 1) + [True], plans, strict=True):
            size = plan.size[0] * self.engine.traits.scale, plan.size[1] * self.engine.traits.scale
            channels = source.channels + source.has_alpha
            if last:
                finish = Finish(original, size_in=size, size_out=self.size_out, settings=self.settings, take=take)
                rows: RowTaker = finish
                dtype = finish.work
            else:
                dtype = np.dtype(np.uint16 if source.dtype == np.uint8 else source.dtype)
                rows = between = ArrayTaker(size, channels, dtype)
            if self._goes_in_rows(plan):
                restore_rows(source, self.engine, rows, dtype=dtype, tell=advance, exact=self._exact)
            else:
                feather = plan.feather * self.engine.traits.scale
                sink = BandSink(size, channels=channels, dtype=dtype, take=rows, feather=feather)
                for pixels in restore(source, plan, self.engine, sink, dtype=dtype):
                    advance(pixels)
            if last:
                finish.close()
            else:
                source = PictureSource(_picture(between.array, source.has_alpha), wrap=self.settings.wrap)


def _pixels_of(plans: Sequence[Plan]) -> int:
    return sum(plan.size[0] * plan.size[1] for plan in plans)


def engine_plan(size: tuple[int, int], engine: Engine, tile: int | None, batch_pixels: int, *, wrap: bool) -> Plan:
    """The plan for a picture of `size`; `tile` None chooses by network and device. A fixed size goes before both."""
    if tile is not None and engine.traits.fixed_size is None:
        return plan_tiles(size, engine.traits, tile=(tile, tile), batch_pixels=batch_pixels, wrap=wrap)
    memory, on_cpu = engine.memory_total, engine.on_cpu
    return plan_for(size, engine.traits, memory_total=memory, on_cpu=on_cpu, batch_pixels=batch_pixels, wrap=wrap)


def _picture(array: Block, has_alpha: bool) -> Picture:
    if not has_alpha:
        return Picture(pixels=array)
    return Picture(pixels=array[:, :, :-1], alpha=array[:, :, -1])
