"""Reading: a file's bytes -> Picture, upright, as deep as the file, with nothing left behind."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from PIL.ImageFile import ImageFile

from restorer.errors import PictureError
from restorer.pipeline.codecs.deep import avif_bits, deep_png, deep_pnm, is_deep_png, pnm_size
from restorer.pipeline.codecs.header import LIMIT_PIXELS, check_pixels, count_frames, identify, open_header
from restorer.pipeline.codecs.ifd import read_header
from restorer.pipeline.codecs.intake import naming, take_in
from restorer.pipeline.codecs.metadata import read_metadata
from restorer.pipeline.codecs.modes import to_arrays, turned
from restorer.pipeline.codecs.tiff_pages import page_offsets, page_size, read_page
from restorer.pipeline.picture_types import Frame, Picture, SourceInfo

LIMIT_TOTAL = 1_000_000_000
GIF_DISPOSALS = {2: "background", 3: "previous"}
PNG_DISPOSALS = {1: "background", 2: "previous"}


def read_picture(source: str | Path | bytes | BinaryIO, *, limit_pixels: int = LIMIT_PIXELS, name: str = "") -> Picture:
    """Read a picture; of several frames or pages the first, with their count in `source.frames`.

    PictureError says in one line, after the file's name, why it cannot be read and what to do. `name` is how messages
    call a source that is no path.
    """
    taken = take_in(source, name=name)
    with naming(taken.name):
        return _read_first(taken.data, limit_pixels)


def read_frames(
    source: str | Path | bytes | BinaryIO,
    *,
    limit_pixels: int = LIMIT_PIXELS,
    limit_total: int = LIMIT_TOTAL,
    name: str = "",
) -> Iterator[Frame]:
    """Read every frame of an animation or page of a file, one at a time; a damaged one is a PictureError.

    `limit_total` bounds the pixels of all frames together.
    """
    taken = take_in(source, name=name)
    frames = _read_all(taken.data, limit_pixels, limit_total)
    while True:
        with naming(taken.name):
            frame = next(frames, None)
        if frame is None:
            return
        yield frame


def _read_first(data: bytes, limit_pixels: int) -> Picture:
    kind = identify(data)
    if kind == "TIFF":
        header = read_header(data)
        frames = len(page_offsets(data, header))
        return read_page(data, header, header.first, limit_pixels=limit_pixels, frames=frames)
    if kind == "PPM" and (size := pnm_size(data)):
        check_pixels(size, limit_pixels)
        pixels, bits = deep_pnm(data)
        mode = "L" if pixels.shape[2] == 1 else "RGB"
        return Picture(pixels=pixels, source=SourceInfo(format="PPM", mode=mode, bits=bits))
    image = open_header(data, kind, limit_pixels=limit_pixels)
    picture = _compose(image, data, kind)
    return _counted(picture, count_frames(image))


def _read_all(data: bytes, limit_pixels: int, limit_total: int) -> Iterator[Frame]:
    kind = identify(data)
    if kind == "TIFF":
        yield from _pages(data, limit_pixels, limit_total)
        return
    if kind == "PPM":
        yield Frame(picture=_read_first(data, limit_pixels))
        return
    image = open_header(data, kind, limit_pixels=limit_pixels)
    count = int(getattr(image, "n_frames", 1))
    _check_total(image.width * image.height * count, limit_total)
    if count == 1:
        yield Frame(picture=_read_first(data, limit_pixels))
        return
    for index in range(count):
        with naming(f"frame {index + 1} of {count}"):
            image.seek(index)
            check_pixels((image.height, image.width), limit_pixels)
            picture = _counted(_compose(image, data, kind, animated=True), count)
            milliseconds = float(image.info.get("duration") or 0)
        yield Frame(picture=picture, duration=milliseconds / 1000, disposal=_disposal(image, kind))


def _pages(data: bytes, limit_pixels: int, limit_total: int) -> Iterator[Frame]:
    header = read_header(data)
    offsets = page_offsets(data, header)
    total = 0
    for index, offset in enumerate(offsets):
        with naming(f"page {index + 1} of {len(offsets)}"):
            height, width = page_size(data, header, offset)
            total += height * width
            _check_total(total, limit_total)
            picture = read_page(data, header, offset, limit_pixels=limit_pixels, frames=len(offsets))
        yield Frame(picture=picture)


def _compose(image: ImageFile, data: bytes, kind: str, *, animated: bool = False) -> Picture:
    """Decode the current frame of an opened image, and put it together with what travels beside it."""
    mode = image.mode
    image.load()
    bits = data[24] if kind == "PNG" else avif_bits(data) if kind == "AVIF" else 1 if mode == "1" else 8
    beside = read_metadata(image, data, kind)
    if kind == "PNG" and is_deep_png(data) and not animated:
        mode, arrays = deep_png(data, image)
    else:
        arrays = to_arrays(image, bits=bits)
    notices = arrays.notices + beside.notices
    if bits > 8 and arrays.pixels.itemsize == 1:
        notices = (*notices, f"{bits}-bit {'animated ' if animated else ''}{kind} was read with 8 bits")
    return Picture(
        pixels=turned(arrays.pixels, beside.orientation),
        alpha=None if arrays.alpha is None else turned(arrays.alpha, beside.orientation),
        icc=arrays.icc,
        dpi=beside.dpi,
        meta=beside.meta,
        source=SourceInfo(format="BMP" if kind == "DIB" else kind, mode=mode, bits=bits, notices=notices),
    )


def _counted(picture: Picture, frames: int) -> Picture:
    return replace(picture, source=replace(picture.source, frames=frames)) if frames > 1 else picture


def _check_total(pixels: int, limit: int) -> None:
    if pixels > limit:
        raise PictureError(
            f"all frames together have {pixels / 1e6:,.1f} megapixels, over the limit of {limit / 1e6:,.0f};"
            " take fewer, or raise limit_total"
        )


def _disposal(image: ImageFile, kind: str) -> str:
    if kind == "GIF":
        return GIF_DISPOSALS.get(getattr(image, "disposal_method", 0), "none")
    return PNG_DISPOSALS.get(int(image.info.get("disposal", 0)), "none")
