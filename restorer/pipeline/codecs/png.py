"""PNG out, row by row: filtered, compressed in blocks by a few threads, never whole in memory.

Every row is filtered by Paeth, and blocks are compressed with zlib's run-length strategy: on enlarged photographs
within a few per cent of the usual settings' size, several times faster. Blocks end on a byte boundary and share no
history, so their compressed bytes can be joined; block borders depend on the picture's width only.
"""

import struct
import zlib
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from restorer.pipeline.codecs.atomic import Output
from restorer.pipeline.codecs.ordered import OrderedPool
from restorer.pipeline.picture_types import PictureInfo, Pixels

Bytes = NDArray[np.uint8]
SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOUR_TYPES = {1: 0, 3: 2, 2: 4, 4: 6}  # by samples per pixel
PAETH = 4
BLOCK_BYTES = 1 << 20
CACHE_BYTES = 1 << 16  # what the filter works on at a time stays in the processor's cache
ADLER_BASE = 65521
COMPRESSED_TEXT = range(4096, 1 << 20)  # readers refuse longer compressed text as a bomb


class Deflated(NamedTuple):
    """A block's part of the zlib stream, and what its checksum needs."""

    data: bytes
    adler: int
    length: int
    last: bool


class PngEncoder:
    """(h, W, S) rows of uint8 or uint16, top to bottom -> PNG."""

    def __init__(self, output: Output, info: PictureInfo) -> None:
        self._output = output
        self._step = info.samples * info.dtype.itemsize
        self._left = info.size[0]
        self._block_rows = max(1, BLOCK_BYTES // (info.size[1] * self._step))
        self._row_bytes = info.size[1] * self._step
        self._above = np.zeros(self._row_bytes, np.uint8)
        self._block, self._filled = self._new_block(), 0
        self._adler, self._begun = 1, False
        self._pool = OrderedPool(self._take)
        output.write(SIGNATURE + b"".join(_chunk(name, data) for name, data in _chunks_before(info)))

    def write_rows(self, rows: Pixels) -> None:
        """Filter and compress what fills a block; keep the rest for the next call."""
        lines = rows.astype(rows.dtype.newbyteorder(">"), copy=False)
        lines = np.ascontiguousarray(lines).view(np.uint8).reshape(rows.shape[0], self._row_bytes)
        while len(lines):
            count = min(len(lines), len(self._block) - self._filled)
            self._block[self._filled : self._filled + count] = lines[:count]
            self._filled += count
            lines = lines[count:]
            if self._filled == len(self._block):
                self._submit()

    def finish(self) -> None:
        """Write what is left and the end."""
        self._pool.finish()
        self._output.write(_chunk(b"IEND", b""))

    def cancel(self) -> None:
        """Stop the threads."""
        self._pool.cancel()

    def _new_block(self) -> Bytes:
        return np.empty((min(self._block_rows, self._left), self._row_bytes), np.uint8)

    def _submit(self) -> None:
        block, above = self._block, self._above
        self._left -= len(block)
        self._above = block[-1]
        self._block, self._filled = self._new_block(), 0
        self._pool.submit(partial(_deflate, block, above, self._step, last=self._left == 0))

    def _take(self, block: Deflated) -> None:
        self._adler = _joined_adler(self._adler, block.adler, block.length)
        head = b"" if self._begun else b"\x78\x01"
        tail = struct.pack(">L", self._adler) if block.last else b""
        self._begun = True
        self._output.write(_chunk(b"IDAT", head + block.data + tail))


def _deflate(block: Bytes, above: Bytes, step: int, *, last: bool) -> Deflated:
    """(h, B) rows and the (B,) row above them -> their part of the zlib stream."""
    filtered = np.empty((block.shape[0], block.shape[1] + 1), np.uint8)
    filtered[:, 0] = PAETH
    rows = max(1, CACHE_BYTES // block.shape[1])
    for top in range(0, len(block), rows):
        higher = np.concatenate([above[None] if top == 0 else block[top - 1 : top], block[top : top + rows - 1]])
        here = block[top : top + rows]
        _paeth(here, higher[: len(here)], filtered[top : top + rows, 1:], step)
    data = filtered.reshape(-1)
    engine = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_RLE)
    packed = engine.compress(data.data) + engine.flush(zlib.Z_FINISH if last else zlib.Z_SYNC_FLUSH)
    return Deflated(packed, zlib.adler32(data.data), data.size, last)


def _paeth(here: Bytes, higher: Bytes, out: Bytes, step: int) -> None:
    """(h, B), (h, B) -> `out` (h, B): each byte less whichever of left, above and above-left predicts it best."""
    np.subtract(here[:, :step], higher[:, :step], out=out[:, :step])
    left, above, corner = here[:, :-step], higher[:, step:], higher[:, :-step]
    to_left = np.subtract(above, corner, dtype=np.int16)  # how far left + above - corner is from each of the three
    to_above = np.subtract(left, corner, dtype=np.int16)
    to_corner = to_left + to_above
    for distance in (to_left, to_above, to_corner):
        np.abs(distance, out=distance)
    # choosing by masks of 0 and 255 is several times faster than np.where
    take_above = (to_above <= to_corner).view(np.uint8) * np.uint8(255)
    take_left = (to_left <= np.minimum(to_above, to_corner)).view(np.uint8) * np.uint8(255)
    best = corner ^ ((above ^ corner) & take_above)
    best ^= (left ^ best) & take_left
    np.subtract(here[:, step:], best, out=out[:, step:])


def _joined_adler(first: int, second: int, length: int) -> int:
    """The checksum of two byte strings put together; `second` is of the one of `length` bytes that follows."""
    low, high = first & 0xFFFF, first >> 16
    joined_low = (low + (second & 0xFFFF) - 1) % ADLER_BASE
    joined_high = (high + (second >> 16) + (low - 1) * length) % ADLER_BASE
    return joined_high << 16 | joined_low


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">L", len(data)) + name + data + struct.pack(">L", zlib.crc32(data, zlib.crc32(name)))


def _chunks_before(info: PictureInfo) -> Iterator[tuple[bytes, bytes]]:
    """Everything before the pixels, in the order that the standard asks for."""
    height, width = info.size
    yield b"IHDR", struct.pack(">LLBBBBB", width, height, 8 * info.dtype.itemsize, COLOUR_TYPES[info.samples], 0, 0, 0)
    for name in ("cICP", "gAMA", "cHRM", "sRGB"):
        if "png:" + name in info.meta and not (name == "sRGB" and info.icc):
            yield name.encode(), info.meta["png:" + name]
    if info.icc:
        yield b"iCCP", b"ICC profile\0\0" + zlib.compress(info.icc)
    if info.dpi:
        across, down = (round(side / 0.0254) for side in info.dpi)
        yield b"pHYs", struct.pack(">LLB", across, down, 1)
    if "exif" in info.meta:
        yield b"eXIf", info.meta["exif"]
    if "xmp" in info.meta:
        yield b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + info.meta["xmp"]
    for key, text in info.meta.items():
        if key.startswith("text:"):
            yield from _text(key.removeprefix("text:"), text)


def _text(keyword: str, text: bytes) -> Iterator[tuple[bytes, bytes]]:
    """One text chunk of the plainest kind that holds the text; none for a keyword that PNG does not allow."""
    try:
        name = keyword.encode("latin-1")
    except UnicodeEncodeError:
        return
    if not 1 <= len(name) <= 79 or b"\0" in name:
        return
    packed = len(text) in COMPRESSED_TEXT
    try:
        latin = text.decode().encode("latin-1")
    except UnicodeError:
        yield b"iTXt", name + (b"\0\1\0\0\0" + zlib.compress(text) if packed else b"\0\0\0\0\0" + text)
        return
    yield (b"zTXt", name + b"\0\0" + zlib.compress(latin)) if packed else (b"tEXt", name + b"\0" + latin)
