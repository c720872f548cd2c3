"""JPEG, WebP and AVIF out: rows are gathered with 8 bits, and encoded by Pillow when the last one is there."""

from collections.abc import Mapping
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from restorer.errors import WriteError
from restorer.pipeline.codecs.atomic import Output
from restorer.pipeline.codecs.exif import PREFIX
from restorer.pipeline.picture_types import PictureInfo, Pixels

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
DEFAULT_QUALITY = {"JPEG": 95, "WEBP": 95, "AVIF": 90}
LOSSLESS = 100
FULL_COLOUR = "4:4:4"


class GatherEncoder:
    """(h, W, S) rows of uint8 or uint16, top to bottom -> JPEG, WebP or AVIF."""

    def __init__(self, output: Output, info: PictureInfo, *, format: str, quality: int | None) -> None:
        self._output, self._info, self._format = output, info, format
        self._quality = DEFAULT_QUALITY[format] if quality is None else quality
        self._pixels = np.empty((*info.size, info.samples), np.uint8)
        self._filled = 0

    def write_rows(self, rows: Pixels) -> None:
        """Keep rows until all are there."""
        if rows.dtype == np.uint16:
            rows = (rows.astype(np.uint32) + 128) // 257
        self._pixels[self._filled : self._filled + len(rows)] = rows
        self._filled += len(rows)

    def finish(self) -> None:
        """Encode and write."""
        mode = MODES[self._info.samples]
        image = Image.fromarray(self._pixels[:, :, 0] if mode == "L" else self._pixels)
        self._pixels = np.empty((0, 0, 0), np.uint8)
        try:
            data = self._encoded(image.convert("RGBA") if mode == "LA" else image)
        except (OSError, ValueError) as error:
            reason = str(error).split("\n")[0]
            name = self._output.name
            raise WriteError(f"{name}: cannot be encoded as {self._format} ({reason}); choose PNG") from error
        self._output.write(data)

    def cancel(self) -> None:
        """Forget the rows."""
        self._pixels = np.empty((0, 0, 0), np.uint8)

    def _encoded(self, image: Image.Image) -> bytes:
        options = {"quality": self._quality, **_beside(self._info)}
        if self._format == "WEBP":
            return _saved(image, "WEBP", options | {"lossless": self._quality == LOSSLESS, "exact": True})
        if self._format == "AVIF":
            subsampling = FULL_COLOUR if self._info.channels == 3 else "4:0:0"
            return _saved(image, "AVIF", options | {"subsampling": subsampling})
        options |= {"subsampling": FULL_COLOUR, **_jpeg_only(self._info)}
        try:
            return _saved(image, "JPEG", options | {"optimize": True})
        except OSError:  # Pillow's buffer for optimising is too small for noise of the highest quality
            return _saved(image, "JPEG", options)


def _saved(image: Image.Image, format: str, options: Mapping[str, Any]) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def _beside(info: PictureInfo) -> dict[str, Any]:
    """What all three carry beside the pixels, as Pillow's options; only what is there."""
    options: dict[str, Any] = {}
    if info.icc:
        options["icc_profile"] = info.icc
    if "exif" in info.meta:
        options["exif"] = PREFIX + info.meta["exif"]
    if "xmp" in info.meta:
        options["xmp"] = info.meta["xmp"]
    return options


def _jpeg_only(info: PictureInfo) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if info.dpi:
        options["dpi"] = info.dpi
    if "text:Comment" in info.meta:
        options["comment"] = info.meta["text:Comment"]
    return options
