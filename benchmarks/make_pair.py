"""Draw the picture pairs of the README and of the model cards: a part enlarged plainly, and the same by the network.

python benchmarks/make_pair.py [NAME...]
"""

import sys
from pathlib import Path

import numpy as np

import restorer
from restorer.resample import resize

HERE = Path(__file__).resolve().parent
PAIRS = {
    "coffee": ("realesrgan-x4plus", "coffee.png", (slice(900, 1230), slice(1250, 1730))),
    "srresnet-photo-x4": ("srresnet-photo-x4", "chelsea.png", (slice(250, 580), slice(500, 980))),
    "srgan-photo-x4": ("srgan-photo-x4", "chelsea.png", (slice(250, 580), slice(500, 980))),
}
"""Name of the result -> model, picture, rows and columns of the enlarged picture."""


def main() -> None:
    """Left: MATLAB's bicubic filter. Right: the network."""
    for name in sys.argv[1:] or PAIRS:
        model, picture, part = PAIRS[name]
        small = restorer.read_picture(HERE.parent / "tests" / "pictures" / picture)
        large = restorer.enhance(small, model=model).pixels
        plain = np.clip(np.rint(resize(small.pixels, large.shape[:2])), 0, 255).astype(np.uint8)
        gap = np.full((large[part].shape[0], 8, 3), 255, np.uint8)
        pair = np.concatenate([plain[part], gap, large[part]], axis=1)
        restorer.write_picture(restorer.Picture(pixels=pair), HERE / "results" / f"{name}.png")


if __name__ == "__main__":
    main()
