"""Small pictures and files, made for tests: random arrays, files of every kind, PNG chunk by chunk."""

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from restorer.errors import PictureError
from restorer.pipeline.picture import Picture, read_picture, write_picture

ORIENTATION, MAKE, EXIF_IFD = 274, 271, 0x8769


def random_array(shape, dtype=np.uint8, seed=0):
    rng = np.random.default_rng(seed)
    if np.dtype(dtype) == np.float32:
        return (rng.random(shape) * 3 - 1).astype(np.float32)
    return rng.integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)


def saved(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def tiff_of(array, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, metadata=None, **options)
    return buffer.getvalue()


def png_of(rows, *, width, height, depth, colour_type, before=b""):
    """A PNG by hand: `rows` are the bytes of all rows, each without its filter byte."""
    line = len(rows) // height
    raw = b"".join(b"\0" + rows[y * line : (y + 1) * line] for y in range(height))
    header = png_chunk(b"IHDR", struct.pack(">LLBBBBB", width, height, depth, colour_type, 0, 0, 0))
    pixels = png_chunk(b"IDAT", zlib.compress(raw))
    return b"\x89PNG\r\n\x1a\n" + header + before + pixels + png_chunk(b"IEND", b"")


def png_chunk(name, data):
    return struct.pack(">L", len(data)) + name + data + struct.pack(">L", zlib.crc32(name + data))


def exif_with(orientation=1, **inside):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    exif[MAKE] = "Maker"
    for tag, value in inside.items():
        exif.get_ifd(EXIF_IFD)[int(tag[1:])] = value
    return exif


def parsed(blob):
    exif = Image.Exif()
    exif.load(blob)
    return exif


def picture_of(height, width, channels=3, *, alpha=False, dtype=np.uint8, smooth=False, **beside):
    rng = np.random.default_rng(height * width + channels)
    values = rng.random((height, width, channels + alpha))
    if smooth:
        values = np.broadcast_to(np.linspace(0.1, 0.9, width)[None, :, None], values.shape)
    peak = 1.0 if dtype == np.float32 else np.iinfo(dtype).max
    array = (values * peak).astype(dtype)
    return Picture(pixels=array[:, :, :channels], alpha=array[:, :, channels] if alpha else None, **beside)


def written(picture, format, **options):
    buffer = io.BytesIO()
    write_picture(picture, buffer, format=format, **options)
    return buffer.getvalue()


def refusal(source, **options):
    with pytest.raises(PictureError) as caught:
        read_picture(source, **options)
    message = str(caught.value)
    assert "\n" not in message
    message.encode()  # no undecodable byte of a name is left in it
    return message
