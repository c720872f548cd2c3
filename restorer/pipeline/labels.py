"""Label maps: pictures whose colours are names of things. A palette says which colours there are. Torch-free."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from restorer.errors import PictureError, UsageError
from restorer.pipeline.picture import Picture
from restorer.pipeline.picture_types import without_channel_words

MOST_COLOURS = 4096
Colours = NDArray[np.uint8]
"""(K, 3): what each number stands for."""
_LINE = re.compile(r"\s*(\d{1,3})[\s,]+(\d{1,3})[\s,]+(\d{1,3})(?:[\s,].*)?")
_NO_COLOUR = re.compile(r"\s*(#.*|GIMP Palette.*|Name:.*|Columns:.*)?")


def read_palette(path: str) -> Colours:
    """(K, 3) from a file with a line for each colour: three numbers up to 255, then anything; GIMP's .gpl too.

    The first colour is number 0. Blank lines and those that begin with # are passed over.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig", errors="replace").splitlines()
    except OSError as e:
        raise UsageError(
            f"the palette {path} cannot be read ({e.strerror}); give a file with lines such as: 128 0 0"
        ) from e
    found: list[list[int]] = []
    for number, line in enumerate(lines, start=1):
        if _NO_COLOUR.fullmatch(line):
            continue
        match = _LINE.fullmatch(line)
        values = [int(each) for each in match.groups()] if match else []
        if not values or max(values) > 255 or len(found) == MOST_COLOURS:
            raise UsageError(
                f"line {number} of the palette {path} is no colour; lines are three numbers up to 255, such as: 128 0 0"
            )
        found.append(values)
    if not found:
        raise UsageError(f"the palette {path} holds no colour; each line is three numbers up to 255, such as: 128 0 0")
    return np.array(found, np.uint8)


def in_colours(picture: Picture, palette: Colours) -> Picture:
    """A label map (H, W, 1) of numbers or (H, W, 3) of colours, uint8 -> in colours, all of which the palette has."""
    if picture.pixels.dtype != np.uint8:
        raise PictureError(f"is a label map of {picture.pixels.dtype}; save it with 8 bits")
    if picture.channels == 1:
        if 0 < picture.source.bits < 8:
            raise PictureError(
                f"is a label map of {picture.source.bits} bits, whose numbers are unclear; save it with 8"
            )
        numbers = picture.pixels[:, :, 0]
        wrong = numbers >= len(palette)
        if wrong.any():
            y, x = _first(wrong)
            raise PictureError(
                f"label {numbers[y, x]} at column {x}, row {y} is outside the palette, whose last is {len(palette) - 1}"
            )
        return replace(picture, pixels=palette[numbers], icc=None, meta=without_channel_words(picture.meta))
    wrong = ~np.isin(_packed(picture.pixels), _packed(palette))
    if wrong.any():
        y, x = _first(wrong)
        colour = ",".join(str(value) for value in picture.pixels[y, x])
        raise PictureError(
            f"the colour {colour} at column {x}, row {y} is not in the palette; label maps must be saved without loss, "
            "such as PNG"
        )
    return picture


def _packed(colours: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """(..., 3) -> (...): one number for each colour."""
    wide = colours.astype(np.uint32)
    return np.asarray(wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2], np.uint32)


def _first(wrong: NDArray[np.bool_]) -> tuple[int, int]:
    y, x = divmod(int(wrong.argmax()), wrong.shape[1])
    return y, x
