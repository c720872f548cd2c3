"""Pillow's pixel modes -> arrays: RGB or grey, with alpha where the file has transparency of any kind."""

from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from restorer.errors import PictureError
from restorer.pipeline.codecs.colour import cmyk_to_srgb, lab_to_srgb, profile_for
from restorer.pipeline.picture_types import Pixels

BAND = 1 << 20
PROMOTED = {"1": "L", "La": "LA", "RGBa": "RGBA", "RGBX": "RGB", "YCbCr": "RGB", "HSV": "RGB", "PA": "RGBA"}
LAYOUTS: dict[str, tuple[int, bool, type[np.generic]]] = {
    "L": (1, False, np.uint8),
    "LA": (1, True, np.uint8),
    "RGB": (3, False, np.uint8),
    "RGBA": (3, True, np.uint8),
    "I;16": (1, False, np.uint16),
    "I;16L": (1, False, np.uint16),
    "I;16B": (1, False, np.uint16),
    "I;16N": (1, False, np.uint16),
}


class Arrays(NamedTuple):
    """(H, W, C), (H, W) or None, and the profile that describes them."""

    pixels: Pixels
    alpha: Pixels | None
    icc: bytes | None = None
    notices: tuple[str, ...] = ()


def to_arrays(image: Image.Image, *, bits: int = 8) -> Arrays:
    """A decoded image -> arrays; `bits` is the file's depth, in whose scale a transparent colour is named."""
    icc = image.info.get("icc_profile")
    notices: list[str] = []
    if "icc_profile" in image.info and icc is None:
        notices.append("the colour profile was dropped: it is damaged")
    key = image.info.get("transparency") if image.mode in ("1", "L", "RGB", "I;16") else None
    if image.mode == "CMYK":
        image, icc, notice = cmyk_to_srgb(image, icc)
        notices.append(notice)
    elif image.mode == "LAB":
        image, icc = lab_to_srgb(image)
    elif image.mode == "P":
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    elif image.mode in PROMOTED:
        image = image.convert(PROMOTED[image.mode])
    if image.mode not in LAYOUTS:
        raise PictureError(f"has pixels of the kind {image.mode}, which are not read; convert it to PNG")
    pixels, alpha = _copy_out(image)
    if key is not None:
        alpha = keyed_alpha(pixels, key, bits)
    icc, notice = profile_for(icc, pixels.shape[2])
    return Arrays(pixels, alpha, icc, tuple(n for n in (*notices, notice) if n))


def keyed_alpha(pixels: Pixels, key: int | tuple[int, ...], bits: int) -> Pixels:
    """(H, W, C) -> (H, W): transparent where a pixel has exactly the colour that the file names as transparent."""
    peak = np.iinfo(pixels.dtype).max
    wanted: Any = np.array(key, np.int64).reshape(-1)
    if bits < 8 and wanted.max() < 1 << bits:
        wanted = wanted * peak // ((1 << bits) - 1)
    clear = (pixels == wanted).all(axis=2)
    return np.where(clear, 0, peak).astype(pixels.dtype)


def turned(array: Pixels, orientation: int) -> Pixels:
    """(H, W[, C]) as stored -> upright, by EXIF's orientation 1 to 8."""
    if orientation >= 5:
        array = array.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return np.ascontiguousarray(array)


def _copy_out(image: Image.Image) -> tuple[Pixels, Pixels | None]:
    """Copy band by band: never two whole copies beside Pillow's own."""
    channels, has_alpha, dtype = LAYOUTS[image.mode]
    width, height = image.size
    pixels = np.empty((height, width, channels), dtype)
    alpha = np.empty((height, width), dtype) if has_alpha else None
    rows = max(1, BAND // width)
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        band = np.asarray(image.crop((0, top, width, bottom))).reshape(bottom - top, width, channels + has_alpha)
        pixels[top:bottom] = band[:, :, :channels]
        if alpha is not None:
            alpha[top:bottom] = band[:, :, channels]
    return pixels, alpha
