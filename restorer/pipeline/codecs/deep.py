"""What Pillow would cut to 8 bits: 16-bit PNG in colour or with alpha (OpenCV decodes), and deep PNM (read here)."""

import re
from types import ModuleType

import numpy as np
from PIL import Image

from restorer.errors import MissingPackageError, PictureError
from restorer.pipeline.codecs.colour import profile_for
from restorer.pipeline.codecs.modes import Arrays, keyed_alpha
from restorer.pipeline.picture_types import Pixels

PNG_MODES = {2: "RGB", 4: "LA", 6: "RGBA"}  # by colour type; 16-bit grey alone is kept by Pillow
PNM_HEADER = re.compile(rb"P([2356])" + rb"(?:\s|#[^\r\n]*[\r\n])+([0-9]{1,7})" * 3 + rb"\s")


def is_deep_png(data: bytes) -> bool:
    """Whether a PNG's header says 16 bits, in colour or with alpha."""
    return data[24] == 16 and data[25] in PNG_MODES


def avif_bits(data: bytes) -> int:
    """Bits per sample as the AVIF's codec configuration says."""
    at = data.find(b"av1C")
    if at < 0 or at + 6 >= len(data) or not data[at + 6] & 0x40:
        return 8
    return 12 if data[at + 6] & 0x20 else 10


def deep_png(data: bytes, image: Image.Image) -> tuple[str, Arrays]:
    """Decode a 16-bit PNG in colour or with alpha; `image` is Pillow's decoding of it, with the high bytes only.

    The two decoders must agree on every high byte: OpenCV alone would not say that a file is damaged.
    """
    mode = PNG_MODES[data[25]]
    cv2 = opencv()
    try:
        found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise PictureError("OpenCV cannot decode this 16-bit PNG; save it again") from error
    if found is None or found.dtype != np.uint16 or found.ndim != 3 or found.shape[:2] != (image.height, image.width):
        raise PictureError("OpenCV and Pillow decode this 16-bit PNG differently; save it again")
    pixels = np.ascontiguousarray(found[:, :, 2::-1])
    alpha = None if mode == "RGB" else np.ascontiguousarray(found[:, :, 3])
    _check_high_bytes(pixels, alpha, np.asarray(image))
    if mode == "LA":
        pixels = np.ascontiguousarray(pixels[:, :, :1])
    if mode == "RGB" and "transparency" in image.info:
        alpha = keyed_alpha(pixels, image.info["transparency"], 16)
    icc, notice = profile_for(image.info.get("icc_profile"), pixels.shape[2])
    return mode, Arrays(pixels, alpha, icc, (notice,) if notice else ())


def deep_pnm(data: bytes) -> tuple[Pixels, int]:
    """(H, W, C) uint16 and the file's bits, for grey or RGB PNM of more than 8 bits (`pnm_size` gives its size)."""
    size, match = pnm_size(data), PNM_HEADER.match(data)
    assert size is not None and match is not None
    peak = int(match[4])
    shape = (*size, 3 if match[1] in b"36" else 1)
    count = shape[0] * shape[1] * shape[2]
    body = memoryview(data)[match.end() :]
    if match[1] in b"56":
        values = np.frombuffer(body[: min(2 * count, len(body) // 2 * 2)], ">u2").astype(np.uint32)
    else:
        values = np.array(bytes(body).split(maxsplit=count)[:count]).astype(np.uint32)
    if values.size < count:
        raise PictureError("the file ends before the picture does; get a new copy")
    if values.max() > peak:
        raise PictureError(f"has values over its own maximum of {peak}; the file is damaged, get a new copy")
    scaled = (values * 65535 + peak // 2) // peak
    return scaled.astype(np.uint16).reshape(shape), peak.bit_length()


def pnm_size(data: bytes) -> tuple[int, int] | None:
    """(height, width) of a PNM of more than 8 bits; None for any other."""
    match = PNM_HEADER.match(data)
    if match is None or not 255 < int(match[4]) < 65536:
        return None
    return int(match[3]), int(match[2])


def _check_high_bytes(pixels: Pixels, alpha: Pixels | None, shallow: Pixels) -> None:
    same = np.array_equal(pixels >> 8, shallow[:, :, :3])
    if alpha is not None:
        same = same and np.array_equal(alpha >> 8, shallow[:, :, 3])
    if not same:
        raise PictureError("OpenCV and Pillow decode this 16-bit PNG differently; save it again")


def opencv() -> ModuleType:
    """The module cv2, which is slow to import and does not load on every server."""
    try:
        import cv2
    except ImportError as error:
        raise MissingPackageError(
            f"this picture needs OpenCV, which does not load here ({error});"
            " pip install opencv-python-headless, or install the system package libgl1"
        ) from error
    return cv2
