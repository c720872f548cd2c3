"""Draw the picture pairs of the README and of the model cards: a part enlarged plainly, and the same by the network.

python -m benchmarks.make_pair [NAME...]
"""

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import restorer
from benchmarks.make_faded import faded
from restorer.resample import resize

HERE = Path(__file__).resolve().parent
PAIRS = {
    "coffee": ("realesrgan-x4plus", "coffee.png", (slice(900, 1230), slice(1250, 1730))),
    "srresnet-photo-x4": ("srresnet-photo-x4", "chelsea.png", (slice(250, 580), slice(500, 980))),
    "srgan-photo-x4": ("srgan-photo-x4", "chelsea.png", (slice(250, 580), slice(500, 980))),
}
"""Name of the result -> model, picture, rows and columns of the enlarged picture."""
FACE = "face"
"""astronaut-face.png at half its size, enlarged four times with the face restored: all by realesrgan-x4plus."""
UNFADED = "unfaded"
"""A part of coffee.png as a faded print, what pix2pix-unfade makes of it, and as it is."""
FADING = 3_000_002
"""The seed of its chances; one of those that the model is judged by."""


def main() -> None:
    """Left: MATLAB's bicubic filter, or what was given. Right: the network."""
    for name in sys.argv[1:] or (*PAIRS, FACE, UNFADED):
        if name == UNFADED:
            whole = picture_of("coffee.png")
            given = faded(whole, seed=FADING)
            three = given, restorer.translate(given, model="pix2pix-unfade"), whole
            save(name, [picture[20:320, 70:430] for picture in three])
            continue
        if name == FACE:
            small = resized(picture_of("astronaut-face.png"), (128, 128))
            settings = restorer.FaceSettings(background=restorer.UpscaleSettings(scale=4))
            result = restorer.restore_faces(
                restorer.Picture(pixels=small), model="realesrgan-x4plus", settings=settings
            )
            large, part = result.picture.pixels, (slice(0, 400), slice(60, 460))
        else:
            model, picture, part = PAIRS[name]
            small = picture_of(picture)
            large = restorer.enhance(small, model=model)
        plain = resized(small, large.shape[:2])
        save(name, [plain[part], large[part]])


def save(name: str, pictures: list[NDArray[np.uint8]]) -> None:
    """[(H, W, 3), ...] side by side, with a white gap."""
    gap = np.full((len(pictures[0]), 8, 3), 255, np.uint8)
    row = [part for picture in pictures for part in (gap, picture)][1:]
    restorer.write_picture(restorer.Picture(pixels=np.concatenate(row, axis=1)), HERE / "results" / f"{name}.png")


def picture_of(name: str) -> NDArray[np.uint8]:
    """-> (H, W, 3)."""
    return restorer.read_picture(HERE.parent / "tests" / "pictures" / name).pixels


def resized(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """(H, W, 3) -> the same at this (height, width), by MATLAB's bicubic filter."""
    return np.clip(np.rint(resize(pixels, size)), 0, 255).astype(np.uint8)


if __name__ == "__main__":
    main()
