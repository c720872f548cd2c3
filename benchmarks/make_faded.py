"""Photos -> pairs side by side, a colour print as it has faded and as it was: what the shipped translator learned from.

    python -m benchmarks.make_faded PHOTO_OR_FOLDER... OUT

A print holds cyan, magenta and yellow dyes. With the years each loses a share of its density, one faster than the
other, and the paper turns yellow. Of each tile OUT/train gets six pairs, faded by different chances of fixed seeds.

Letters: H W sides of a picture.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.make_tiles import DETAIL, detail, rgb, tiles
from restorer.pipeline.files import READABLE
from restorer.pipeline.picture import Picture, read_picture, write_picture
from restorer.resample import resize

SIDE, SIDES = 320, (640, 1280)
"""Side of a tile, and the longest sides that photos are shrunk to first, so that a tile is a scene."""
TIMES = 6
LEFT = (0.3, 1.0)
"""What is left of a dye's density, at least and at most."""
STAIN = (0.0, 0.2)
"""Density of the paper's yellow, which stops blue; half of it stops green, a fifth red."""
DARKEST = 1e-3
"""Of linear light: what no print is darker than."""


def main() -> int:
    """Write the pairs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", type=Path, nargs="+", help="8-bit photos, and folders of them")
    parser.add_argument("out", type=Path, help="an empty folder")
    options = parser.parse_args()
    folder = options.out / "train"
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        sys.exit(f"{folder}: is not empty; name another folder")
    files = [file for source in options.sources for file in (sorted(source.iterdir()) if source.is_dir() else [source])]
    count = 0
    for file in (file for file in files if file.suffix.lower() in READABLE):
        pixels = rgb(read_picture(file).pixels)
        cut = (tile for side in SIDES for tile in tiles(shrunk(pixels, side), SIDE))
        for number, tile in enumerate(cut):
            if detail(tile) < DETAIL:
                continue
            for turn in range(TIMES):
                pair = np.concatenate([faded(tile, seed=count), tile], axis=1)
                write_picture(Picture(pixels=pair), folder / f"{file.stem}-{number:02d}-{turn}.png")
                count += 1
    print(f"{count} pairs")
    return 0


def faded(pixels: NDArray[np.uint8], *, seed: int) -> NDArray[np.uint8]:
    """(H, W, 3) sRGB -> the same, faded by the chances of this seed."""
    rng = np.random.default_rng(seed)
    left = rng.uniform(*LEFT, 3)
    stain = rng.uniform(*STAIN) * np.array([0.2, 0.5, 1.0])
    density = -np.log10(np.maximum(to_linear(pixels / 255), DARKEST))
    light = 10 ** -(left * density + stain)
    return np.rint(from_linear(light) * 255).astype(np.uint8)


def to_linear(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """sRGB in [0, 1] -> light in [0, 1] (IEC 61966-2-1)."""
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


def from_linear(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Light in [0, 1] -> sRGB in [0, 1]."""
    return np.where(x <= 0.0031308, 12.92 * x, 1.055 * np.maximum(x, 1e-9) ** (1 / 2.4) - 0.055)


def shrunk(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """(H, W, 3) -> the same with a longest side of at most `side`."""
    height, width = pixels.shape[:2]
    ratio = side / max(height, width)
    if ratio >= 1:
        return pixels
    return np.rint(resize(pixels, (round(height * ratio), round(width * ratio)))).clip(0, 255).astype(np.uint8)


if __name__ == "__main__":
    sys.exit(main())
