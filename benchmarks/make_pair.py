"""Draw the picture pair of the README: a part of coffee.png four times as large, plainly resampled and by the network.

python benchmarks/make_pair.py
"""

from pathlib import Path

import numpy as np

import restorer
from restorer.resample import resize

HERE = Path(__file__).resolve().parent
PART = (slice(900, 1230), slice(1250, 1730))
"""Rows and columns of the enlarged picture."""


def main() -> None:
    """Left: MATLAB's bicubic filter. Right: realesrgan-x4plus."""
    small = restorer.read_picture(HERE.parent / "tests" / "pictures" / "coffee.png")
    large = restorer.enhance(small, model="realesrgan-x4plus").pixels
    plain = np.clip(np.rint(resize(small.pixels, large.shape[:2])), 0, 255).astype(np.uint8)
    gap = np.full((large[PART].shape[0], 8, 3), 255, np.uint8)
    pair = np.concatenate([plain[PART], gap, large[PART]], axis=1)
    restorer.write_picture(restorer.Picture(pixels=pair), HERE / "results" / "coffee.png")


if __name__ == "__main__":
    main()
