"""Which kind of picture the bytes are, by content; how large it says it is; nothing is decoded yet.

Pillow's readers are called by name: `Image.open` would try others, and obeys limits that are global to the process.
"""

from collections.abc import Callable
from io import BytesIO
from typing import IO

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
from PIL.ImageFile import ImageFile

from restorer.errors import PictureError
from restorer.pipeline.codecs.intake import DECODE_ERRORS

LIMIT_PIXELS = 100_000_000
LIMIT_SIDE = 1 << 20
OPENERS: dict[str, Callable[[IO[bytes]], ImageFile]] = {
    "PNG": PngImagePlugin.PngImageFile,
    "JPEG": JpegImagePlugin.jpeg_factory,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "AVIF": AvifImagePlugin.AvifImageFile,
    "PPM": PpmImagePlugin.PpmImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "DIB": BmpImagePlugin.DibImageFile,
}
STARTS = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"BM": "BMP",
}
DIB_HEADER_SIZES = (12, 40, 52, 56, 64, 108, 124)


def identify(data: bytes) -> str:
    """Name the kind of picture, a key of OPENERS; PictureError for anything else."""
    for start, kind in STARTS.items():
        if data.startswith(start):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp" and _is_avif(data):
        return "AVIF"
    if data[:1] == b"P" and data[1:2] in b"123456" and data[2:3] in b" \t\n\r#":
        return "PPM"
    if int.from_bytes(data[:4], "little") in DIB_HEADER_SIZES:
        return "DIB"
    raise PictureError("not a picture of a known kind (PNG, JPEG, WebP, GIF, BMP, TIFF, AVIF, PNM); convert it to PNG")


def open_header(data: bytes, kind: str, *, limit_pixels: int) -> ImageFile:
    """Let Pillow read the header, and refuse a picture that would be too large."""
    try:
        image = OPENERS[kind](BytesIO(data))
    except Image.DecompressionBombError as error:
        raise PictureError("says it has more pixels than Pillow decodes; give a smaller picture") from error
    check_pixels((image.height, image.width), limit_pixels)
    return image


def check_pixels(size: tuple[int, int], limit: int) -> None:
    """Refuse a (height, width) of more than `limit` pixels."""
    height, width = size
    if height < 1 or width < 1:
        raise PictureError(f"says it is {width} x {height} pixels; the file is damaged, get a new copy")
    if height * width > limit or max(size) > LIMIT_SIDE:
        raise PictureError(
            f"is {width} x {height} = {height * width / 1e6:,.1f} megapixels, over the limit of {limit / 1e6:,.0f};"
            " make it smaller, or raise limit_pixels"
        )


def count_frames(image: ImageFile) -> int:
    """How many frames the file has; 1 where a later frame is too damaged to count."""
    try:
        return max(1, int(getattr(image, "n_frames", 1)))
    except DECODE_ERRORS:
        return 1


def _is_avif(data: bytes) -> bool:
    """The major brand says so, or, for a plain image file, one of the compatible brands."""
    brands = data[8 : max(16, min(int.from_bytes(data[:4], "big"), 256))]
    return brands[:4] in (b"avif", b"avis") or (brands[:4] in (b"mif1", b"msf1") and b"avif" in brands)
