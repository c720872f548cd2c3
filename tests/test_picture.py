"""Reading pictures: depth, alpha, colour, orientation, metadata, frames, and every refusal in one line."""

import io
import os
import struct
import sys
import time
import zlib
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, ImageOps

from restorer.errors import MissingPackageError, PictureError
from restorer.pipeline.picture import Picture, read_frames, read_picture

PICTURES = Path(__file__).parent / "pictures"
ORIENTATION, MAKE, EXIF_IFD, EXIF_WIDTH, MAKER_NOTE = 274, 271, 0x8769, 40962, 37500


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


# ---- orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("kind", "mode"), [("JPEG", "RGB"), ("PNG", "RGBA"), ("WEBP", "RGBA"), ("TIFF", "RGBA")])
def test_orientation_is_applied_once_and_then_reset(kind, mode, orientation):
    image = Image.fromarray(random_array((5, 7, len(mode))), mode)
    data = saved(image, kind, exif=exif_with(orientation), **({"lossless": True, "exact": True} if kind == "WEBP" else {}))
    with Image.open(io.BytesIO(data)) as file:
        want = np.asarray(ImageOps.exif_transpose(file))
    picture = read_picture(data)
    assert np.array_equal(picture.pixels, want[:, :, :3])
    if mode == "RGBA":
        assert np.array_equal(picture.alpha, want[:, :, 3])
    exif = parsed(picture.meta["exif"])
    assert exif.get(ORIENTATION, 1) == 1
    assert exif[MAKE] == "Maker"


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


def test_orientation_out_of_range_is_ignored():
    assert read_picture(saved(Image.new("RGB", (7, 5)), "PNG", exif=exif_with(42))).size == (5, 7)


def test_orientation_in_xmp_counts_where_exif_is_silent_and_is_reset():
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    picture = read_picture(saved(Image.new("RGB", (7, 5)), "WEBP", xmp=xmp))
    assert picture.size == (7, 5)
    assert picture.meta["xmp"] == xmp.replace(b'"6"', b'"1"')


def test_density_is_turned_with_the_picture():
    data = saved(Image.new("RGB", (7, 5)), "TIFF", exif=exif_with(6), resolution_unit=2, x_resolution=300, y_resolution=150)
    assert read_picture(data).dpi == (150, 300)


# ---- depth


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
    picture = read_picture(png_of(array.astype(">u2").tobytes(), width=5, height=4, depth=16, colour_type=2, before=before))
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


@pytest.mark.parametrize(("number", "samples", "compression", "predictor", "planes", "order", "tile", "big"), TIFF_ROWS)
def test_deep_tiff_is_read_as_tifffile_wrote_it(number, samples, compression, predictor, planes, order, tile, big):
    values = np.random.default_rng(3).random((37, 53, samples))
    array = (values * 60000 if "u" in number else (values - 0.5) * 65000 if "i" in number else values * 3 - 1).astype(number)
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


# ---- modes and colour


def test_bilevel_becomes_8_bit_grey():
    picture = read_picture(saved(Image.fromarray(np.array([[0, 255, 255]], np.uint8)).convert("1"), "PNG"))
    assert picture.pixels.ravel().tolist() == [0, 255, 255]
    assert (picture.source.mode, picture.source.bits) == ("1", 1)


def test_a_palette_becomes_rgb_and_rgba_only_with_transparency():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    plain, clear = read_picture(saved(image, "PNG")), read_picture(saved(image, "PNG", transparency=bytes([255, 128])))
    assert plain.alpha is None
    assert plain.pixels[0].tolist() == clear.pixels[0].tolist() == [[10, 20, 30], [200, 100, 50]]
    assert clear.alpha[0].tolist() == [255, 128]


def test_grey_with_alpha_stays_grey_with_alpha():
    array = random_array((4, 5, 2))
    picture = read_picture(imagecodecs.png_encode(array))
    assert np.array_equal(picture.pixels[:, :, 0], array[:, :, 0])
    assert np.array_equal(picture.alpha, array[:, :, 1])


def cmyk_profile():
    """A profile by hand: no ink is white, cyan alone is L* = 50.2 without colour, anything with black ink is black."""
    table = bytearray()
    for index in range(16):
        cyan, key = index >> 3 & 1, index & 1
        table += bytes([0 if key else 128 if cyan else 255, 128, 128])
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + struct.pack(">9l", *[65536, 0, 0, 0, 65536, 0, 0, 0, 65536])
    lut += bytes(range(256)) * 4 + bytes(table) + bytes(range(256)) * 3
    white = b"XYZ \0\0\0\0" + struct.pack(">3l", 63190, 65536, 54061)
    text = b"text\0\0\0\0plain\0\0\0"
    tags = {b"A2B0": lut, b"wtpt": white, b"cprt": text, b"desc": b"desc\0\0\0\0" + struct.pack(">L", 5) + b"test\0" + bytes(79)}
    body, listing = b"", struct.pack(">L", len(tags))
    for name, data in tags.items():
        data += b"\0" * (-len(data) % 4)
        listing += name + struct.pack(">LL", 128 + 4 + 12 * len(tags) + len(body), len(data))
        body += data
    header = struct.pack(">L4sL4s4s4s12x4s", 132 + 12 * len(tags) + len(body), b"", 0x02100000, b"prtr", b"CMYK", b"Lab ", b"acsp")
    return (header.ljust(68, b"\0") + struct.pack(">3l", 63190, 65536, 54061)).ljust(128, b"\0") + listing + body


def test_cmyk_goes_to_srgb_through_its_own_profile():
    image = Image.new("CMYK", (3, 1))
    image.putpixel((1, 0), (255, 0, 0, 0))
    image.putpixel((2, 0), (0, 0, 0, 255))
    picture = read_picture(saved(image, "TIFF", icc_profile=cmyk_profile()))
    # L* = 128 / 255 * 100: Y = ((50.2 + 16) / 116) ** 3 = 0.186, in sRGB 0.468 * 255 = 119
    assert np.abs(picture.pixels[0].astype(int) - [[255] * 3, [119] * 3, [0] * 3]).max() <= 1
    assert ImageCms.getProfileName(io.BytesIO(picture.icc)).startswith("sRGB")
    assert picture.source.notices == ()


def test_cmyk_without_a_profile_is_converted_plainly_and_says_so():
    image = Image.new("CMYK", (1, 1), (255, 0, 0, 0))
    picture = read_picture(saved(image, "TIFF"))
    assert picture.pixels[0, 0].tolist() == [0, 255, 255]
    assert picture.icc is None
    assert "plain formula" in picture.source.notices[0]


def test_lab_becomes_srgb():
    # sRGB's red under D50 is L* 54.3, a* 80.8, b* 69.9; white is 100, 0, 0
    lab = np.array([[[round(54.3 * 2.55), 81, 70], [255, 0, 0]]], np.uint8)
    picture = read_picture(tiff_of(lab, photometric="cielab"))
    assert np.abs(picture.pixels[0].astype(int) - [[255, 0, 0], [255, 255, 255]]).max() <= 6
    assert picture.icc == read_picture(tiff_of(lab, photometric="cielab")).icc


def test_a_profile_is_kept_where_it_describes_the_pixels_and_dropped_with_a_notice_elsewhere():
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert read_picture(saved(Image.new("RGB", (2, 2)), "JPEG", icc_profile=icc)).icc == icc
    grey = read_picture(saved(Image.new("L", (2, 2)), "JPEG", icc_profile=icc))
    assert grey.icc is None
    assert grey.channels == 1
    assert grey.source.notices == ("the colour profile was dropped: it describes RGB, the pixels are grey",)


# ---- metadata


def test_a_real_photograph_brings_its_profile_density_and_xmp():
    picture = read_picture(PICTURES / "chelsea.png")
    assert (picture.size, picture.channels, picture.alpha) == ((300, 451), 3, None)
    assert len(picture.icc) == 3144
    assert picture.dpi == pytest.approx((72, 72), abs=0.01)
    assert b"PENTAX" in picture.meta["xmp"]


def test_a_jpeg_without_unit_has_no_density():
    data = bytearray(saved(Image.new("RGB", (2, 2)), "JPEG"))
    assert read_picture(bytes(data)).dpi is None


@pytest.mark.parametrize(("kind", "dpi"), [("PNG", 300), ("JPEG", 300), ("TIFF", 300), ("BMP", 300)])
def test_density_is_read_from_the_file(kind, dpi):
    assert read_picture(saved(Image.new("RGB", (2, 2)), kind, dpi=(dpi, dpi))).dpi == pytest.approx((dpi, dpi), abs=0.02)


def test_texts_come_under_their_keywords():
    data = png_of(
        bytes(3), width=1, height=1, depth=8, colour_type=2,
        before=png_chunk(b"tEXt", b"Author\0J\xfcrgen") + png_chunk(b"iTXt", b"Title\0\0\0\0\0" + "猫".encode())
        + png_chunk(b"gAMA", struct.pack(">L", 100000)),
    )  # fmt: skip
    meta = read_picture(data).meta
    assert meta == {
        "text:Author": "Jürgen".encode(),
        "text:Title": "猫".encode(),
        "png:gAMA": struct.pack(">L", 100000),
    }


def test_the_old_thumbnail_is_dropped_and_the_makers_notes_do_not_move():
    note = b"MAKER\0\x01\x02\x03\x04 with offsets of its own"
    exif = bytearray(exif_with(6, t37500=note, t40962=53).tobytes()[6:])
    first = struct.unpack_from("<L", exif, 4)[0] if exif[:2] == b"II" else struct.unpack_from(">L", exif, 4)[0]
    order = "<" if exif[:2] == b"II" else ">"
    count = struct.unpack_from(order + "H", exif, first)[0]
    exif += b"\0" * (len(exif) % 2)
    struct.pack_into(order + "L", exif, first + 2 + 12 * count, len(exif))
    thumbnail = b"\xff\xd8 a small old picture \xff\xd9"
    entries = struct.pack(order + "HHLL", 513, 4, 1, len(exif) + 30) + struct.pack(order + "HHLL", 514, 4, 1, len(thumbnail))
    exif += struct.pack(order + "H", 2) + entries + struct.pack(order + "L", 0) + thumbnail
    picture = read_picture(saved(Image.new("RGB", (7, 5)), "JPEG", exif=b"Exif\0\0" + bytes(exif)))
    block = picture.meta["exif"]
    assert b"small old picture" not in block
    assert block.index(note) == exif.index(note)
    assert parsed(block).get_ifd(EXIF_IFD)[MAKER_NOTE] == note
    assert parsed(block).get_ifd(1) == {}


def test_damaged_exif_is_dropped_with_a_notice():
    picture = read_picture(saved(Image.new("RGB", (7, 5)), "WEBP", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"))
    assert "exif" not in picture.meta
    assert picture.source.notices == ("the EXIF was dropped: it is damaged",)


# ---- frames


def test_frames_of_a_gif_come_composed_with_their_times():
    images = [Image.fromarray(np.full((4, 6, 3), v, np.uint8)) for v in (10, 120, 250)]
    data = saved(images[0], "GIF", save_all=True, append_images=images[1:], duration=[100, 200, 300], disposal=2)
    frames = list(read_frames(data))
    assert [f.duration for f in frames] == [0.1, 0.2, 0.3]
    assert [int(f.picture.pixels[0, 0, 0]) for f in frames] == [10, 120, 250]
    assert {f.disposal for f in frames} == {"background"}
    assert read_picture(data).source.frames == 3


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_frames_of_apng_and_webp_are_all_read(kind):
    images = [Image.fromarray(random_array((4, 6, 3), seed=i)) for i in range(3)]
    options = {"lossless": True} if kind == "WEBP" else {}
    frames = list(read_frames(saved(images[0], kind, save_all=True, append_images=images[1:], duration=50, **options)))
    assert len(frames) == 3
    for frame, image in zip(frames, images, strict=True):
        assert np.array_equal(frame.picture.pixels, np.asarray(image))


def two_pages():
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(random_array((4, 6, 3), np.uint16), photometric="rgb", metadata=None)
        writer.write(random_array((9, 5)), photometric="minisblack", metadata=None)
    return buffer.getvalue()


def test_pages_of_a_tiff_may_differ_in_size_and_depth():
    first, second = (frame.picture for frame in read_frames(two_pages()))
    assert (first.size, first.channels, first.pixels.dtype) == ((4, 6), 3, np.uint16)
    assert (second.size, second.channels, second.pixels.dtype) == ((9, 5), 1, np.uint8)


def test_a_damaged_later_page_is_named_and_does_not_spoil_the_first():
    data = two_pages()[:-30]
    assert read_picture(data).size == (4, 6)
    pages = read_frames(data, name="scan.tif")
    next(pages)
    with pytest.raises(PictureError, match=r"^scan\.tif: page 2 of 2: "):
        next(pages)


def test_frames_together_are_bounded():
    images = [Image.fromarray(random_array((10, 10, 3), seed=i)) for i in range(4)]
    data = saved(images[0], "GIF", save_all=True, append_images=images[1:])
    with pytest.raises(PictureError, match="all frames together"):
        list(read_frames(data, limit_total=399))
    assert len(list(read_frames(data, limit_total=400))) == 4


# ---- refusals


def refusal(source, **options):
    with pytest.raises(PictureError) as caught:
        read_picture(source, **options)
    message = str(caught.value)
    assert "\n" not in message
    message.encode()  # no undecodable byte of a name is left in it
    return message


def test_what_is_not_a_regular_file_is_refused_without_being_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    assert "is a folder" in refusal(tmp_path)
    assert "not a regular file" in refusal(tmp_path / "pipe.png")
    assert "not a regular file" in refusal(tmp_path / "zero.png")
    assert "leads back to itself" in refusal(tmp_path / "loop.png")
    assert "no such file" in refusal(tmp_path / "nowhere.png")
    assert "no such file" in refusal("a\0b.png")


def test_an_empty_file_is_refused_by_name(tmp_path):
    (tmp_path / "empty.png").touch()
    assert refusal(tmp_path / "empty.png") == f"{tmp_path}/empty.png: the file is empty; get a new copy"


@pytest.mark.parametrize("name", [b"caf\xe9.png", b"two\nlines.png", b"-dash and 'quotes'\".png", b"x" * 251 + b".png"])
def test_odd_names_are_shown_in_one_printable_line(tmp_path, name):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    path.write_bytes(b"no picture")
    assert "not a picture of a known kind" in refusal(path)
    path.write_bytes(saved(Image.new("RGB", (3, 2)), "PNG"))
    assert read_picture(path).size == (2, 3)


FOREIGN = {
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
    "pdf": b"%PDF-1.7\n",
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
    "html": b"<!doctype html><title>404</title>",
    "psd": b"8BPS\0\1" + bytes(40),
    "heic": b"\0\0\0\x18ftypheic" + bytes(40),
    "ico": b"\0\0\1\0\1\0" + bytes(40),
    "fits": b"SIMPLE  =                    T" + bytes(90),
    "jp2": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_other_kinds_are_refused_whatever_their_name(tmp_path, kind):
    path = tmp_path / "photo.png"
    path.write_bytes(FOREIGN[kind])
    assert "convert it to PNG" in refusal(path)


SIDE = struct.pack("<H", 65535)
BOMBS = {
    "gif": b"GIF89a" + SIDE * 2 + b"\0\0\0,\0\0\0\0\1\0\1\0\0\2\2D\1\0;",
    "webp": b"RIFF" + struct.pack("<L", 22) + b"WEBPVP8X" + struct.pack("<L", 10) + b"\0\0\0\0" + b"\xfe\xff\0" * 2,
    "jpeg": b"\xff\xd8\xff\xc0\0\x11\x08" + SIDE * 2 + b"\3\1\x11\0\2\x11\0\3\x11\0\xff\xda\0\x0c\3\1\0\2\0\3\0\0\x3f\0\xff\xd9",
    "bmp": b"BM" + struct.pack("<LLLLllHHLLllLL", 58, 0, 54, 40, 65535, 65535, 1, 8, 1, 4, 0, 0, 1, 0) + bytes(8),
    "png": b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">LLBBBBB", 65535, 65535, 1, 0, 0, 0, 0))
    + png_chunk(b"IDAT", zlib.compress(bytes(9))),
    "tiff": b"II*\0\x08\0\0\0\5\0" + b"".join(
        struct.pack("<HHLL", t, 4, 1, v) for t, v in ((256, 65535), (257, 65535), (262, 1), (273, 8), (279, 8))
    ) + bytes(4),
    "tiff16": b"II*\0\x08\0\0\0\6\0" + b"".join(
        struct.pack("<HHLL", t, 4, 1, v)
        for t, v in ((256, 65535), (257, 65535), (258, 16), (262, 1), (273, 8), (279, 8))
    ) + bytes(4),
    "ppm": b"P6 65535 65535 65535\n" + bytes(12),
    "strip": b"P5 100000001 1 255\n",
}  # fmt: skip


@pytest.mark.parametrize("kind", BOMBS)
def test_a_header_that_promises_too_much_is_refused_at_once(kind):
    begun = time.monotonic()
    message = refusal(BOMBS[kind], name="bomb")
    assert message.startswith("bomb: ")
    assert "over the limit of 100" in message or "more pixels than Pillow" in message
    assert time.monotonic() - begun < 2


def test_the_limit_counts_pixels_and_can_be_moved():
    data = saved(Image.new("L", (20, 10)), "PNG")
    assert "20 x 10 = 0.0 megapixels, over the limit" in refusal(data, limit_pixels=199)
    assert read_picture(data, limit_pixels=200).size == (10, 20)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "GIF"])
def test_pillows_global_limit_is_neither_obeyed_nor_changed(monkeypatch, kind):
    data = saved(Image.new("RGB", (20, 10)), kind)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert read_picture(data).size == (10, 20)
    assert Image.MAX_IMAGE_PIXELS == 10


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


def test_an_open_file_can_be_read():
    with (PICTURES / "rocket.jpg").open("rb") as file:
        assert read_picture(file).size == (427, 640)


def test_pixels_of_another_shape_or_kind_are_no_picture():
    with pytest.raises(PictureError, match=r"\(height, width, 3\)"):
        Picture(pixels=np.zeros((4, 5), np.uint8))
    with pytest.raises(PictureError, match="float64; give one of uint8"):
        Picture(pixels=np.zeros((4, 5, 3)))
    with pytest.raises(PictureError, match="alpha is"):
        Picture(pixels=np.zeros((4, 5, 3), np.uint8), alpha=np.zeros((4, 5), np.uint16))


def test_pixels_are_writable_and_contiguous():
    for data in (saved(Image.new("RGBA", (5, 4)), "PNG", exif=exif_with(6)), tiff_of(random_array((4, 5, 3), np.uint16))):
        picture = read_picture(data)
        assert picture.pixels.flags.c_contiguous
        assert picture.pixels.flags.writeable
