"""Photos -> square tiles with something in them, to train on: how the pictures of the shipped model were prepared.

Large photos are shrunk to a half and to a quarter first, which hides what their cameras and JPEG left in them.

    python -m benchmarks.make_tiles PHOTO_OR_FOLDER... OUT
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from restorer.pipeline.files import READABLE
from restorer.pipeline.picture import Picture, read_picture, write_picture
from restorer.resample import resize

SIDE = 480
LARGE = 2500
"""Longest side above which a photo is shrunk."""
DETAIL = 2.0
"""Least mean difference between neighbouring pixels, in levels of 255, of a tile that is kept."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sources", type=Path, nargs="+", help="8-bit photos, and folders of them")
    parser.add_argument("out", type=Path, help="an empty folder")
    options = parser.parse_args()
    sources, out = options.sources, options.out
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        sys.exit(f"{out}: is not empty; name another folder")
    files = [file for source in sources for file in (sorted(source.iterdir()) if source.is_dir() else [source])]
    kept = left = 0
    for file in (file for file in files if file.suffix.lower() in READABLE):
        for number, tile in enumerate(_all_tiles(rgb(read_picture(file).pixels))):
            if detail(tile) < DETAIL:
                left += 1
                continue
            path = out / f"{file.stem}-{number:02d}.png"
            if path.exists():
                sys.exit(f"{file}: another photo has its name; rename one")
            write_picture(Picture(pixels=tile), path)
            kept += 1
    print(f"{kept} tiles kept, {left} flat ones left out")
    return 0


def rgb(pixels: NDArray[np.generic]) -> NDArray[np.uint8]:
    """(H, W, 1 or 3) -> (H, W, 3)."""
    if pixels.dtype != np.uint8:
        sys.exit("only 8-bit photos are cut into tiles; leave the others out")
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels


def _all_tiles(pixels: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    height, width = pixels.shape[:2]
    if max(height, width) <= LARGE:
        return tiles(pixels, SIDE)
    small = (resize(pixels, (height // times, width // times), kernel="area") for times in (2, 4))
    return [tile for each in small for tile in tiles(np.rint(each).clip(0, 255).astype(np.uint8), SIDE)]


def tiles(pixels: NDArray[np.uint8], near: int) -> list[NDArray[np.uint8]]:
    """(H, W, 3) -> tiles of equal sides `near` or a little more; a picture smaller than two stays whole."""
    rows, columns = (max(1, side // near) for side in pixels.shape[:2])
    return [
        np.ascontiguousarray(tile)
        for strip in np.array_split(pixels, rows, axis=0)
        for tile in np.array_split(strip, columns, axis=1)
    ]


def detail(tile: NDArray[np.uint8]) -> float:
    """(H, W, 3) -> mean difference between neighbouring pixels, in levels."""
    grey = tile.astype(np.float32).mean(axis=2)
    return float((np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean()) / 2)


if __name__ == "__main__":
    sys.exit(main())
