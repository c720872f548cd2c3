"""TIFF out, row by row: strips, each compressed by itself in a few threads; the directory comes last.

Whole numbers are stored as differences from their left neighbour (predictor 2), floats as they are.
"""

import struct
import zlib
from functools import partial

import numpy as np

from restorer.pipeline.codecs import exif as exif_block
from restorer.pipeline.codecs.atomic import Output
from restorer.pipeline.codecs.exif import density_fields
from restorer.pipeline.codecs.ifd import (
    BYTE,
    LONG,
    LONG8,
    SHORT,
    UNDEFINED,
    Field,
    Header,
    Tree,
    directory_bytes,
    whole,
)
from restorer.pipeline.codecs.ordered import OrderedPool
from restorer.pipeline.codecs.tags import Tag
from restorer.pipeline.picture_types import PictureInfo, Pixels

STRIP_BYTES = 1 << 19
BIG = 4_000_000_000
"""Bytes of samples beyond which offsets take 64 bits (BigTIFF): deflate never makes them more than a little larger."""
DEFLATE, HORIZONTAL = 8, 2
WHOLE_NUMBER, FLOATING = 1, 3
GREY, RGB = 1, 2
ALPHA = 2  # not multiplied into the colour


class TiffEncoder:
    """(h, W, S) rows of uint8, uint16 or float32, top to bottom -> TIFF, little-endian."""

    def __init__(self, output: Output, info: PictureInfo) -> None:
        self._output, self._info = output, info
        row_bytes = info.size[1] * info.samples * info.dtype.itemsize
        self._strip_rows = max(1, STRIP_BYTES // row_bytes)
        self._big = row_bytes * info.size[0] > BIG
        self._left = info.size[0]
        self._strip, self._filled = self._new_strip(), 0
        self._offsets: list[int] = []
        self._sizes: list[int] = []
        self._end = 16 if self._big else 8
        self._pool = OrderedPool(self._take)
        output.write(bytes(self._end))  # the header is written last: it says where the directory is

    def write_rows(self, rows: Pixels) -> None:
        """Compress what fills a strip; keep the rest for the next call."""
        while len(rows):
            count = min(len(rows), len(self._strip) - self._filled)
            self._strip[self._filled : self._filled + count] = rows[:count]
            self._filled += count
            rows = rows[count:]
            if self._filled == len(self._strip):
                strip = self._strip
                self._left -= len(strip)
                self._strip, self._filled = self._new_strip(), 0
                self._pool.submit(partial(_deflate, strip))

    def finish(self) -> None:
        """Write what is left, the directory and the header."""
        self._pool.finish()
        header = Header("<", self._big, self._end + self._end % 2)
        self._output.write(bytes(self._end % 2) + directory_bytes(self._tree(), header, header.first))
        self._output.seek(0)
        if self._big:
            self._output.write(b"II" + struct.pack("<HHHQ", 43, 8, 0, header.first))
        else:
            self._output.write(b"II" + struct.pack("<HL", 42, header.first))

    def cancel(self) -> None:
        """Stop the threads."""
        self._pool.cancel()

    def _new_strip(self) -> Pixels:
        shape = min(self._strip_rows, self._left), self._info.size[1], self._info.samples
        return np.empty(shape, self._info.dtype)

    def _take(self, strip: bytes) -> None:
        self._offsets.append(self._end)
        self._sizes.append(len(strip))
        self._end += len(strip)
        self._output.write(strip)

    def _tree(self) -> Tree:
        """The directory: how the samples lie, then what travels beside them."""
        info = self._info
        floating = info.dtype == np.float32
        place = LONG8 if self._big else LONG
        tree = exif_block.for_tiff(info.meta["exif"]) if "exif" in info.meta else {}
        tree |= {
            Tag.WIDTH: whole(LONG, [info.size[1]], "<"),
            Tag.HEIGHT: whole(LONG, [info.size[0]], "<"),
            Tag.BITS: whole(SHORT, [8 * info.dtype.itemsize] * info.samples, "<"),
            Tag.COMPRESSION: whole(SHORT, [DEFLATE], "<"),
            Tag.PHOTOMETRIC: whole(SHORT, [GREY if info.channels == 1 else RGB], "<"),
            Tag.STRIPS: whole(place, self._offsets, "<"),
            Tag.ORIENTATION: whole(SHORT, [1], "<"),
            Tag.SAMPLES: whole(SHORT, [info.samples], "<"),
            Tag.ROWS_PER_STRIP: whole(LONG, [self._strip_rows], "<"),
            Tag.STRIP_SIZES: whole(place, self._sizes, "<"),
            Tag.PLANAR: whole(SHORT, [1], "<"),
            Tag.SAMPLE_FORMAT: whole(SHORT, [FLOATING if floating else WHOLE_NUMBER] * info.samples, "<"),
        }
        if not floating:
            tree[Tag.PREDICTOR] = whole(SHORT, [HORIZONTAL], "<")
        if info.alpha:
            tree[Tag.EXTRA_SAMPLES] = whole(SHORT, [ALPHA], "<")
        if info.dpi:
            tree |= density_fields(info.dpi, "<")
        for tag, kind, value in ((Tag.ICC, UNDEFINED, info.icc), (Tag.XMP, BYTE, info.meta.get("xmp"))):
            if value:
                tree[tag] = Field(kind, len(value), memoryview(value))
        return tree


def _deflate(strip: Pixels) -> bytes:
    """(h, W, S) -> one strip: a zlib stream, of differences where the samples are whole numbers."""
    if strip.dtype == np.float32:
        return zlib.compress(strip.astype("<f4", copy=False).data, 1)
    steps = strip.copy()
    np.subtract(strip[:, 1:], strip[:, :-1], out=steps[:, 1:])
    engine = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_RLE)
    return engine.compress(steps.astype(steps.dtype.newbyteorder("<"), copy=False).data) + engine.flush()
