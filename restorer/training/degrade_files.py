"""A picture put through a recipe's degradation: a file to train or to test with, or a sheet to judge numbers by."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from restorer.errors import PictureError, UsageError
from restorer.pipeline.picture import Picture
from restorer.training.build import checked_traits
from restorer.training.data import to_tensor
from restorer.training.degrade import DegradationConfig, draw, told
from restorer.training.keeping import Crop
from restorer.training.objective import derived_seed
from restorer.training.pairing import paired_up, without_margin
from restorer.training.picture_grid import write_grid
from restorer.training.recipe import Recipe

ROWS, COLUMNS = 3, 4
CELL = 480
"""Longest side of what a sheet shows of a picture, in its pixels."""
LARGEST = 16_000_000
"""Pixels; a picture of so many takes about six gigabytes on its way."""


def degrade_picture(picture: Picture, recipe: Recipe, *, seed: int) -> Picture:
    """What a network of the recipe would be given for this truth: 8 bits, sides over the scale, no alpha."""
    pixels = picture.pixels
    if pixels.shape[0] * pixels.shape[1] > LARGEST:
        raise PictureError(
            f"has more than {LARGEST // 10**6} megapixels, and is degraded in one piece; cut it into parts"
        )
    truth = _truth(pixels, scale_of(recipe))
    low = _low(truth, recipe, seed)
    return Picture(pixels=(low[0].permute(1, 2, 0) * 255).round().to(torch.uint8).contiguous().numpy())


def write_sheet(path: Path, picture: Picture, recipe: Recipe, *, seed: int) -> Iterator[str]:
    """Write a PNG of the middle of a picture: shrunk alone first, then as eleven draws make it, row by row.

    Yields a line for each draw.
    """
    scale = scale_of(recipe)
    top, left = (max(0, side - CELL) // 2 for side in picture.pixels.shape[:2])
    truth = _truth(picture.pixels[top : top + CELL, left : left + CELL], scale)
    degradation = recipe.degradation
    cells = [paired_up({"high": truth}, None, scale=scale)["low"]]
    for number in range(1, ROWS * COLUMNS):
        chosen = derived_seed(seed, "sheet", number)
        cells.append(_low(truth, recipe, chosen))
        if isinstance(degradation, DegradationConfig):
            words = told(draw(degradation, np.random.default_rng(chosen)))
            yield f"{number:2}  " + "; ".join(f"{name}: {text}" for name, text in words.items())
    large = [cell.repeat_interleave(scale, -1).repeat_interleave(scale, -2) for cell in cells]
    write_grid(path, [torch.cat(large[column::COLUMNS]) for column in range(COLUMNS)])


def scale_of(recipe: Recipe) -> int:
    """How many times smaller a recipe makes its truth."""
    if recipe.degradation is None:
        raise UsageError(f"{recipe.name} degrades nothing, it shrinks alone; choose one such as realesrgan_x4")
    return checked_traits(recipe).scale


def _low(truth: Tensor, recipe: Recipe, seed: int) -> Tensor:
    """Without margins: a whole picture has none to spare."""
    assert recipe.degradation is not None
    batch = {"high": truth, "chance": torch.tensor([seed])}
    return paired_up(batch, without_margin(recipe.degradation), scale=scale_of(recipe))["low"]


def _truth(pixels: Crop, scale: int) -> Tensor:
    """(H, W, C) -> (1, C, H, W) in [0, 1], sides cut to multiples of the scale."""
    height, width = (side // scale * scale for side in pixels.shape[:2])
    if not height or not width:
        raise PictureError(f"is smaller than the scale, {scale}")
    return to_tensor([pixels[:height, :width]])
