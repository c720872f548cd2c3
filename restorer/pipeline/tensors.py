"""Tensors through the same tiles, on their own device: what a diffusion pipeline hands over, batch by batch.

Letters: N C H W as everywhere, s scale.
"""

import logging

import torch
from torch import Tensor

from restorer.engines import Engine
from restorer.errors import OutOfMemoryError, PictureError
from restorer.kernels.blend_tiles import blend_tiles, plan_seams
from restorer.pipeline.finish import COLOUR_CELL, LUMA, has_steps
from restorer.pipeline.guard import checked, fault, hopeless
from restorer.pipeline.plan import Plan, Tile, batch_pixels
from restorer.pipeline.prepare import pad_to
from restorer.pipeline.restore import engine_plan, passes
from restorer.pipeline.rows import in_rows, rows_at_once
from restorer.pipeline.settings import UpscaleSettings
from restorer.resample import resize_tensor

log = logging.getLogger(__name__)


def restore_tensor(x: Tensor, engine: Engine, settings: UpscaleSettings, *, most: int = 16) -> Tensor:
    """(N, 1 or 3, H, W) in [0, 1], or uint8 -> (N, C, H', W'), same dtype and device; float results are clipped.

    At most `most` tiles, of one picture or of several, go through the network at once.
    """
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        raise PictureError(
            f"expected a tensor (N, 1 or 3, H, W), got shape {tuple(x.shape)}; a single picture is x[None]"
        )
    if not (x.dtype == torch.uint8 or x.is_floating_point()):
        raise PictureError(
            f"expected a tensor of uint8 or of floats in [0, 1], got {x.dtype}; divide by its peak first"
        )
    if engine.traits.in_channels < x.shape[1]:
        raise PictureError("this network takes grey pictures only, and these have colours; use another model")
    original = x.to(engine.device, torch.float32)
    original = original / 255 if x.dtype == torch.uint8 else original.clamp(0, 1)
    size_in = (x.shape[2], x.shape[3])
    size_out = settings.output_size(size_in, engine.traits.scale)
    y = original.expand(-1, 3, -1, -1) if engine.traits.in_channels == 3 else original
    count = passes(size_in, size_out, engine.traits.scale)
    size_made = (x.shape[2] * engine.traits.scale**count, x.shape[3] * engine.traits.scale**count)
    bytes_at_once = x.dtype == torch.uint8 and x.shape[1] == y.shape[1] and not has_steps(size_made, size_out, settings)
    for left in reversed(range(count)):
        y = _tiled(y, engine, settings, most, torch.uint8 if bytes_at_once and not left else torch.float32)
        if y.dtype == torch.uint8:
            return y.to(x.device)
        y = y.clamp(0, 1)
    if x.shape[1] == 1 and y.shape[1] == 3:
        y = torch.tensordot(y, torch.tensor(LUMA, device=y.device), dims=([1], [0]))[:, None]
    y = _finished(y, original, size_out, settings).clamp(0, 1)
    y = (y * 255).round() if x.dtype == torch.uint8 else y
    return y.to(x.device, x.dtype)


def _tiled(x: Tensor, engine: Engine, settings: UpscaleSettings, most: int, dtype: torch.dtype) -> Tensor:
    """(N, C, H, W) -> (N, C', s*H, s*W) in `dtype`, uint8 or float32; what is not put together of tiles is float32."""
    plan = engine_plan((x.shape[2], x.shape[3]), engine, settings.tile, 1, wrap=settings.wrap)
    if settings.tile is None and in_rows(plan, engine):
        try:
            return torch.cat([_in_rows(one, engine) for one in x.split(1)])
        except OutOfMemoryError:
            log.warning("not enough memory; begins again in tiles")
    pixels = batch_pixels(on_cpu=engine.on_cpu)
    count = 1 if engine.traits.batch_of_one else max(1, min(most, pixels // (plan.window[0] * plan.window[1])))
    made: list[Tensor] = []
    work = [(n, tile) for n in range(x.shape[0]) for band in plan.bands() for tile in band]
    for start in range(0, len(work), count):
        some = work[start : start + count]
        batch = pad_to(torch.cat([_window(x[n : n + 1], tile, plan) for n, tile in some]), engine.traits)
        made += checked(lambda batch: engine.run({"image": batch})["image"], engine.run_again, batch)
    return _blended(made, plan, engine.traits.scale, dtype)


def _blended(tiles: list[Tensor], plan: Plan, scale: int, dtype: torch.dtype) -> Tensor:
    """[(C, h, w), ...] of all tiles of N pictures -> (N, C, s*H, s*W) of uint8 or float32; of one tile float32."""
    if plan.count == 1:
        (tile,) = next(plan.bands())
        crop = tile.core.within(tile.window).scaled(scale)
        return torch.stack(tiles)[:, :, crop.top : crop.bottom, crop.left : crop.right]
    rows, columns = (
        plan_seams(
            [*(span.keep[0] * scale for span in spans), side * scale],
            [span.read[0] * scale for span in spans],
            tiles[0].shape[axis],
            feather=plan.feather * scale,
            device=tiles[0].device,
        )
        for spans, side, axis in ((plan.rows, plan.size[0], 1), (plan.columns, plan.size[1], 2))
    )
    pictures = []
    while tiles:
        pictures.append(blend_tiles(torch.stack(tiles[: plan.count]), rows, columns, dtype=dtype))
        del tiles[: plan.count]
    return torch.stack(pictures).permute(0, 3, 1, 2)


def _in_rows(x: Tensor, engine: Engine) -> Tensor:
    """(1, C, H, W) -> (1, C', s*H, s*W)."""
    assert engine.stream is not None
    padded, s = pad_to(x, engine.traits), engine.traits.scale
    for exact in (False, True):
        bands = padded.split(rows_at_once(padded.shape[3], engine), 2)
        y = torch.cat(list(engine.stream(bands, exact=exact)), 2)[:, :, : s * x.shape[2], : s * x.shape[3]]
        wrong = fault(x, y)
        if wrong is None:
            return y
        if exact or engine.run_again is None:
            raise hopeless(wrong)
        log.warning("a picture came back with %s; it is done again in float32", wrong)
    raise AssertionError("the second time ends it")


def _window(x: Tensor, tile: Tile, plan: Plan) -> Tensor:
    """(1, C, H, W) -> (1, C, h, w): outside the picture it is mirrored, or wraps around."""
    box = tile.window
    rows = _indices(box.top, box.bottom, x.shape[2], plan.wrap, x.device)
    columns = _indices(box.left, box.right, x.shape[3], plan.wrap, x.device)
    return x.index_select(2, rows).index_select(3, columns)


def _indices(start: int, stop: int, side: int, wrap: bool, device: torch.device) -> Tensor:
    index = torch.arange(start, stop, device=device)
    if wrap:
        return index % side
    folded = index.abs() % max(1, 2 * side - 2)
    return torch.minimum(folded, 2 * side - 2 - folded).clamp(min=0)


def _finished(y: Tensor, original: Tensor, size: tuple[int, int], settings: UpscaleSettings) -> Tensor:
    """The steps of finish.py on whole tensors: size, keep-colour, strength."""
    wrap = settings.wrap
    if (y.shape[2], y.shape[3]) != size:
        y = resize_tensor(y, size, kernel="lanczos", wrap=wrap)
    if settings.keep_colour:
        grid = (max(1, round(original.shape[2] / COLOUR_CELL)), max(1, round(original.shape[3] / COLOUR_CELL)))
        shift = resize_tensor(original, grid, kernel="area") - resize_tensor(y, grid, kernel="area")
        y = y + resize_tensor(_smoothed(shift, wrap=wrap), size, kernel="cubic", wrap=wrap)
    if settings.strength < 1:
        plain = resize_tensor(original, size, kernel="cubic", wrap=wrap).clamp(0, 1)
        y = plain + settings.strength * (y - plain)
    return y


def _smoothed(grid: Tensor, *, wrap: bool) -> Tensor:
    """(N, C, h, w) -> same: the (1 2 1)/4 mean of neighbours, both ways."""
    padded = torch.nn.functional.pad(grid, (1, 1, 1, 1), mode="circular" if wrap else "replicate")
    rows = (padded[:, :, :-2] + 2 * padded[:, :, 1:-1] + padded[:, :, 2:]) / 4
    return (rows[..., :-2] + 2 * rows[..., 1:-1] + rows[..., 2:]) / 4
