"""Reading more than 8 bits: 16-bit PNG and PNM, and TIFF's samples of every kind, without losing any."""

import struct
import sys

import cv2
import imagecodecs
import numpy as np
import pytest
from PIL import Image, ImageOps
from some_pictures import ORIENTATION, png_chunk, png_of, random_array, refusal, tiff_of

from restorer.errors import MissingPackageError, PictureError
from restorer.pipeline.picture import read_picture


def test_a_dark_16_bit_png_stays_16_bit_and_dark():
    array = random_array((9, 11), np.uint16) % 200
    picture = read_picture(imagecodecs.png_encode(array))
    assert picture.pixels.dtype == np.uint16
    assert np.array_equal(picture.pixels[:, :, 0], array)
    assert picture.source.bits == 16


@pytest.mark.parametrize("samples", [1, 2, 3, 4])
def test_16_bit_png_keeps_every_bit(samples):
    array = random_array((9, 11, samples), np.uint16)
    picture = read_picture(imagecodecs.png_encode(array[:, :, 0] if samples == 1 else array))
    colours = 3 if samples > 2 else 1
    assert np.array_equal(picture.pixels, array[:, :, :colours])
    assert (picture.alpha is not None) == (samples in (2, 4))
    if picture.alpha is not None:
        assert np.array_equal(picture.alpha, array[:, :, -1])


def test_a_16_bit_colour_named_transparent_is_compared_with_all_16_bits():
    array = random_array((4, 5, 3), np.uint16)
    array[1, 2], array[2, 2] = (1, 258, 3), (1, 259, 3)
    before = png_chunk(b"tRNS", struct.pack(">HHH", 1, 258, 3))
    picture = read_picture(
        png_of(array.astype(">u2").tobytes(), width=5, height=4, depth=16, colour_type=2, before=before)
    )
    assert np.array_equal(picture.pixels, array)
    assert picture.alpha[1, 2] == 0
    assert np.count_nonzero(picture.alpha == 65535) == 19


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_of_few_bits_is_spread_and_its_transparent_level_found(bits):
    top = (1 << bits) - 1
    levels = np.arange(8 // bits) % (top + 1)
    byte = sum(int(v) << (8 - bits * (i + 1)) for i, v in enumerate(levels))
    before = png_chunk(b"tRNS", struct.pack(">H", 1))
    data = png_of(bytes([byte]), width=8 // bits, height=1, depth=bits, colour_type=0, before=before)
    picture = read_picture(data)
    assert picture.pixels[0, :, 0].tolist() == [v * 255 // top for v in levels]
    assert picture.alpha[0].tolist() == [0 if v == 1 else 255 for v in levels]


@pytest.mark.parametrize("magic", [b"P5", b"P6", b"P2", b"P3"])
def test_deep_pnm_is_scaled_by_its_own_maximum(magic):
    channels = 3 if magic in (b"P3", b"P6") else 1
    values = np.array([0, 1, 500, 1000, 999, 250] * channels)
    body = values.astype(">u2").tobytes() if magic in (b"P5", b"P6") else " ".join(map(str, values)).encode()
    picture = read_picture(magic + b"\n# remark\n3 2\n1000\n" + body)
    assert picture.pixels.shape == (2, 3, channels)
    assert np.array_equal(picture.pixels.ravel(), np.floor(values * 65535 / 1000 + 0.5))


def test_deep_pnm_that_ends_too_early_is_refused():
    with pytest.raises(PictureError, match="ends before the picture"):
        read_picture(b"P6 3 2 1000\n" + bytes(35))


# ---- TIFF's deep samples

TIFF_ROWS = [
    # number, samples, compression, predictor, planes, byte order, tile, BigTIFF
    ("u2", 1, None, False, "contig", "<", None, False),
    ("u2", 2, "lzw", True, "contig", "<", None, False),
    ("u2", 3, "lzw", True, "contig", ">", None, False),
    ("u2", 3, "deflate", True, "separate", "<", (16, 32), False),
    ("u2", 4, "zstd", False, "contig", "<", (16, 32), False),
    ("u2", 5, "deflate", True, "contig", "<", None, True),
    ("u2", 3, "packbits", False, "separate", ">", None, False),
    ("u2", 3, None, False, "contig", ">", (16, 32), True),
    ("i2", 1, "deflate", True, "contig", "<", None, False),
    ("f2", 3, "deflate", False, "contig", "<", None, False),
    ("f4", 1, None, False, "contig", ">", None, False),
    ("f4", 3, "lzw", True, "contig", "<", (16, 32), False),
    ("f4", 4, "deflate", True, "separate", ">", None, False),
    ("f8", 3, "deflate", True, "contig", "<", None, False),
    ("u4", 3, "lzw", False, "contig", "<", None, False),
]


@pytest.mark.parametrize("row", TIFF_ROWS)
def test_deep_tiff_is_read_as_tifffile_wrote_it(row):
    number, samples, compression, predictor, planes, order, tile, big = row
    values = np.random.default_rng(3).random((37, 53, samples))
    array = (values * 60000 if "u" in number else (values - 0.5) * 65000 if "i" in number else values * 3 - 1).astype(
        number
    )
    colours = 3 if samples > 2 else 1
    stored = array[:, :, 0] if samples == 1 else array if planes == "contig" else np.moveaxis(array, -1, 0)
    data = tiff_of(
        np.ascontiguousarray(stored),
        photometric="rgb" if colours == 3 else "minisblack",
        byteorder=order,
        bigtiff=big,
        compression=compression,
        predictor=predictor,
        tile=tile,
        rowsperstrip=None if tile else 7,
        planarconfig=planes if samples > 1 else None,
        extrasamples=["unassalpha", "unspecified"][: samples - colours] or None,
    )
    picture = read_picture(data)
    want = array.astype(np.float32) if "f" in number else array.astype(np.int64) + (32768 if "i" in number else 0)
    assert picture.pixels.dtype == (np.float32 if "f" in number else np.uint16)
    assert np.array_equal(picture.pixels, want[:, :, :colours])
    assert (picture.alpha is not None) == (samples in (2, 4, 5))
    if picture.alpha is not None:
        assert np.array_equal(picture.alpha, want[:, :, colours])


def test_a_tile_far_wider_than_the_picture_is_refused_before_memory_is_taken():
    data = bytearray(tiff_of(random_array((20, 30), np.uint16), tile=(16, 16)))
    place = data.index(struct.pack("<HHL", 322, 4, 1)) + 8
    struct.pack_into("<L", data, place, 1 << 30)
    assert "cannot be decoded" in refusal(bytes(data)) or "not read" in refusal(bytes(data))


def test_white_is_zero_is_turned_over_at_16_bits_too():
    array = random_array((5, 7), np.uint16)
    assert np.array_equal(read_picture(tiff_of(array, photometric="miniswhite")).pixels[:, :, 0], 65535 - array)


def test_12_bit_grey_is_spread_over_16_bits():
    array = np.array([[0, 1, 2048, 4095]], np.uint16)
    data = tiff_of(array, bitspersample=12, photometric="minisblack")
    assert read_picture(data).pixels[0, :, 0].tolist() == [0, 16, 32776, 65535]  # v * 16 + v // 256


def test_colour_stored_multiplied_by_alpha_is_divided_again():
    array = np.array([[[10000, 20000, 0, 32768], [5, 6, 7, 0]]], np.uint16)
    picture = read_picture(tiff_of(array, photometric="rgb", extrasamples=["assocalpha"]))
    assert picture.pixels[0, 0].tolist() == [20000, 39999, 0]  # 10000 * 65535 / 32768 = 19999.7
    assert picture.alpha[0].tolist() == [32768, 0]


def test_32_bit_whole_numbers_keep_their_values_or_are_refused():
    assert read_picture(tiff_of(np.array([[0, 65535]], np.uint32))).pixels.ravel().tolist() == [0, 65535]
    with pytest.raises(PictureError, match="beyond 16 bits; scale it"):
        read_picture(tiff_of(np.array([[0, 65536]], np.uint32)))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_floats_that_are_no_numbers_are_refused(value):
    with pytest.raises(PictureError, match="not finite numbers; replace"):
        read_picture(tiff_of(np.array([[0.5, value]], np.float32)))


def test_float_values_are_kept_as_they_are():
    array = np.array([[-0.25, 0.0, 1.0, 1000.5]], np.float32)
    picture = read_picture(tiff_of(array))
    assert np.array_equal(picture.pixels[:, :, 0], array)
    assert picture.peak == 1.0


@pytest.mark.parametrize("orientation", range(1, 9))
def test_deep_tiff_is_turned_as_pillow_turns_a_shallow_one(orientation):
    array = random_array((5, 7, 3), np.uint16)
    data = tiff_of(array, photometric="rgb", extratags=[(ORIENTATION, "H", 1, orientation, True)])
    image = Image.fromarray((array >> 8).astype(np.uint8))
    image.getexif()[ORIENTATION] = orientation
    want = np.asarray(ImageOps.exif_transpose(image))
    picture = read_picture(data)
    assert picture.pixels.dtype == np.uint16
    assert np.array_equal(picture.pixels >> 8, want)


def test_opencv_that_does_not_load_is_named_with_the_cure(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    data = imagecodecs.png_encode(random_array((4, 5, 3), np.uint16))
    with pytest.raises(MissingPackageError, match=r"pip install opencv-python-headless.*libgl1"):
        read_picture(data)


def test_decoders_that_disagree_are_an_error(monkeypatch):
    data = imagecodecs.png_encode(random_array((4, 5, 3), np.uint16))
    decode = cv2.imdecode
    monkeypatch.setattr(cv2, "imdecode", lambda *arguments: decode(*arguments) ^ np.uint16(256))
    assert "decode this 16-bit PNG differently" in refusal(data)
    monkeypatch.setattr(cv2, "imdecode", lambda *arguments: decode(*arguments)[:-1])
    assert "decode this 16-bit PNG differently" in refusal(data)
