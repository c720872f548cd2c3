"""Deep TIFF samples without loss: 16 to 64 bits, whole numbers or floats, with or without alpha.

Pillow decodes TIFF, but keeps no more than 8 bits of colour, and nothing of a deep picture with alpha. So a deep page
is described to it anew, as a grey picture whose samples are the bytes of the real ones: then libtiff only undoes the
compression, and the predictor and the kind of number are undone here.

Letters: h rows of a band, W pixels of a row, B bytes of a row, S samples of a pixel.
"""

import struct
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from restorer.errors import PictureError
from restorer.pipeline.codecs.ifd import LONG, SHORT, Field, Header, Tree, directory_bytes, integers, whole
from restorer.pipeline.codecs.tags import Tag
from restorer.pipeline.picture_types import Pixels

LOSSLESS = {1, 5, 8, 32773, 32946, 34925, 50000}  # none, LZW, deflate, PackBits, deflate again, LZMA, Zstandard
NUMBERS = {
    (16, 1): "u2",
    (16, 2): "i2",
    (32, 1): "u4",
    (32, 2): "i4",
    (16, 3): "f2",
    (32, 3): "f4",
    (64, 3): "f8",
}
PIXELS_PER_BAND = 1 << 19
HORIZONTAL, FLOATING = 2, 3
WIDEST_TILE = 1 << 14
MOST_BYTES = 1 << 32


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How the samples of one deep page lie in the file."""

    size: tuple[int, int]
    """(height, width)"""
    samples: int
    """Per pixel, in the file: colour, alpha and what else there is."""
    colours: int
    number: str
    """numpy's name of the number, in the file's byte order."""
    separate: bool
    """One plane for each sample; else a pixel's samples lie together."""
    predictor: int
    block: int
    """Pixels of a row that were predicted together: a tile's width, or the picture's."""
    inverted: bool
    """White is zero."""
    alpha: int
    """Which sample is alpha; 0: none."""
    premultiplied: bool

    @property
    def blocks(self) -> int:
        """How many blocks a row takes; the last may reach past the picture."""
        return -(-self.size[1] // self.block)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of one plane, up to the end of its last block."""
        return self.blocks * self.block * (1 if self.separate else self.samples) * np.dtype(self.number).itemsize


def read_layout(fields: dict[int, Field], header: Header, size: tuple[int, int]) -> Layout | None:
    """Say how a page's samples lie; None where they are not deep, or not for this reader."""

    def numbers(tag: int, default: int) -> tuple[int, ...]:
        return integers(fields.get(tag), header.order) or (default,)

    bits, kind = numbers(Tag.BITS, 1), numbers(Tag.SAMPLE_FORMAT, 1)
    number = NUMBERS.get((bits[0], {4: 1}.get(kind[0], kind[0])))
    photometric, samples = numbers(Tag.PHOTOMETRIC, 0)[0], numbers(Tag.SAMPLES, 1)[0]
    colours = 3 if photometric == 2 else 1
    if number is None or len(set(bits)) > 1 or len(set(kind)) > 1 or photometric > 2:
        return None
    block = numbers(Tag.TILE_WIDTH, 0)[0] if Tag.TILES in fields else size[1]
    if numbers(Tag.COMPRESSION, 1)[0] not in LOSSLESS or not colours <= samples <= 16:
        return None
    if not 1 <= block <= max(size[1], WIDEST_TILE):
        return None
    extra = numbers(Tag.EXTRA_SAMPLES, 2 if samples == colours + 1 else 0)
    named = [i for i, meaning in enumerate(extra[: samples - colours]) if meaning in (1, 2)]
    return Layout(
        size=size,
        samples=samples,
        colours=colours,
        number=header.order + number,
        separate=numbers(Tag.PLANAR, 1)[0] == 2 and samples > 1,
        predictor=numbers(Tag.PREDICTOR, 1)[0],
        block=block,
        inverted=photometric == 0,
        alpha=colours + named[0] if named else 0,
        premultiplied=bool(named) and extra[named[0]] == 1,
    )


def read_samples(data: bytes, header: Header, fields: dict[int, Field], layout: Layout) -> tuple[Pixels, Pixels | None]:
    """Decode a deep page -> (H, W, C), (H, W) or None: uint16 for whole numbers, float32 for floats.

    Signed 16-bit samples are moved up by 32768, as TIFF's default range for them says. 32-bit whole numbers keep
    their values, and are refused where these do not fit in 16 bits: nothing is scaled by what a file happens to hold.
    """
    height, width = layout.size
    needed = max(layout.colours, layout.alpha + 1) if layout.separate else 1
    if layout.row_bytes * height * needed > MOST_BYTES:
        raise PictureError(f"has over {MOST_BYTES >> 30} GiB of samples; make it smaller")
    planes = [_decompressed(data, header, fields, layout, plane) for plane in range(needed)]
    dtype = np.float32 if "f" in layout.number else np.uint16
    pixels = np.empty((height, width, layout.colours), dtype)
    alpha = np.empty((height, width), dtype) if layout.alpha else None
    rows = max(1, PIXELS_PER_BAND // width)
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        bands = [_numbers(np.asarray(p.crop((0, top, layout.row_bytes, bottom))), layout) for p in planes]
        band = _in_range(np.concatenate(bands, axis=2)[:, :width])
        colour = band[:, :, : layout.colours]
        if layout.inverted and dtype is np.uint16:
            colour = 65535 - colour
        if alpha is not None:
            alpha[top:bottom] = band[:, :, layout.alpha]
            colour = _unmultiplied(colour, band[:, :, layout.alpha :][:, :, :1]) if layout.premultiplied else colour
        pixels[top:bottom] = colour
    return pixels, alpha


def _decompressed(data: bytes, header: Header, fields: dict[int, Field], layout: Layout, plane: int) -> Image.Image:
    """One plane as an 8-bit grey picture of its bytes: (H, B)."""
    row = layout.row_bytes
    tree: Tree = {
        Tag.WIDTH: whole(LONG, [row], header.order),
        Tag.HEIGHT: whole(LONG, [layout.size[0]], header.order),
        Tag.BITS: whole(SHORT, [8], header.order),
        Tag.PHOTOMETRIC: whole(SHORT, [1], header.order),
        Tag.SAMPLES: whole(SHORT, [1], header.order),
    }
    for tag in (Tag.COMPRESSION, Tag.FILL_ORDER, Tag.ROWS_PER_STRIP, Tag.TILE_HEIGHT):
        if tag in fields:
            tree[tag] = fields[tag]
    if Tag.TILES in fields:
        tree[Tag.TILE_WIDTH] = whole(LONG, [row // layout.blocks], header.order)
    for tag in (Tag.STRIPS, Tag.STRIP_SIZES, Tag.TILES, Tag.TILE_SIZES):
        if tag in fields:
            numbers = integers(fields[tag], header.order)
            share = len(numbers) // (layout.samples if layout.separate else 1)
            tree[tag] = whole(LONG, numbers[plane * share : (plane + 1) * share], header.order)
    small = Header(header.order, False, len(data) + len(data) % 2)  # Pillow knows no big-endian BigTIFF
    mark = (b"II" if header.order == "<" else b"MM") + struct.pack(header.order + "HL", 42, small.first)
    described = mark + data[8:] + bytes(len(data) % 2) + directory_bytes(tree, small, small.first)
    image = TiffImageFile(BytesIO(described))
    allocate(image, (row, layout.size[0]))
    image.load()
    return image


def pointed(data: bytes, header: Header, offset: int) -> bytes:
    """The same stream with the directory at `offset` as its first."""
    if header.big:
        return data[:8] + struct.pack(header.order + "Q", offset) + data[16:]
    return data[:4] + struct.pack(header.order + "L", offset) + data[8:]


def allocate(image: TiffImageFile, size: tuple[int, int]) -> None:
    """Make room for (width, height) now: Pillow would hold it against a limit that is global to the process."""
    image.im = Image.new(image.mode, size, None).im


def _numbers(rows: NDArray[np.uint8], layout: Layout) -> NDArray[Any]:
    """(h, B) bytes -> (h, blocks * block, S) numbers, the predictor undone in each block by itself."""
    height = rows.shape[0]
    samples = 1 if layout.separate else layout.samples
    if layout.predictor == FLOATING:
        steps = rows.reshape(height, layout.blocks, -1, samples)
        summed = np.cumsum(steps, axis=2, dtype=np.uint8)
        size = np.dtype(layout.number).itemsize
        planes = summed.reshape(height, layout.blocks, size, -1)  # the highest byte of every number first
        mixed = np.ascontiguousarray(planes.swapaxes(2, 3))
        return mixed.view(layout.number.replace("<", ">")).reshape(height, -1, samples)
    found = np.ascontiguousarray(rows).view(layout.number).reshape(height, layout.blocks, -1, samples)
    if layout.predictor == HORIZONTAL:
        unsigned = np.dtype(layout.number.replace("i", "u").replace("f", "u")).newbyteorder("=")
        found = np.cumsum(found.view(layout.number.replace("i", "u").replace("f", "u")), axis=2, dtype=unsigned)
        found = found.view(np.dtype(layout.number).newbyteorder("="))
    return found.reshape(height, -1, samples)


def _in_range(band: NDArray[Any]) -> Pixels:
    """Numbers of any kind -> uint16 or float32; PictureError where that would change what they say."""
    kind = band.dtype.kind + str(band.dtype.itemsize)
    if kind == "u2":
        return band.astype(np.uint16)
    if kind == "i2":
        return (band.astype(np.int32) + 32768).astype(np.uint16)
    if band.dtype.kind in "iu":
        if band.min() < 0 or band.max() > 65535:
            raise PictureError("has 32-bit whole numbers beyond 16 bits; scale it to 16 bits or to floats")
        return band.astype(np.uint16)
    if not np.isfinite(band).all() or np.abs(band).max() > np.finfo(np.float32).max:
        raise PictureError("has samples that are not finite numbers; replace its NaN and infinite values")
    return band.astype(np.float32)


def _unmultiplied(colour: Pixels, alpha: Pixels) -> Pixels:
    """(h, W, C), (h, W, 1) -> (h, W, C): colour that was stored multiplied by alpha, as it is alone."""
    opaque = 65535.0 if colour.dtype == np.uint16 else 1.0
    shared = np.where(alpha > 0, alpha, opaque).astype(np.float64)
    alone = colour * (opaque / shared)
    if colour.dtype == np.uint16:
        return np.minimum(np.rint(alone), 65535).astype(np.uint16)
    return alone.astype(np.float32)
