"""Reading pictures: alpha, colour, orientation, metadata, and every refusal in one line."""

import io
import os
import struct
import subprocess
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, ImageOps
from some_pictures import (
    EXIF_IFD,
    MAKE,
    ORIENTATION,
    exif_with,
    parsed,
    png_chunk,
    png_of,
    random_array,
    refusal,
    saved,
    tiff_of,
)

from restorer.errors import PictureError
from restorer.pipeline.picture import Picture, read_picture

PICTURES = Path(__file__).parent / "pictures"
MAKER_NOTE = 37500


# ---- orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("kind", "mode"), [("JPEG", "RGB"), ("PNG", "RGBA"), ("WEBP", "RGBA"), ("TIFF", "RGBA")])
def test_orientation_is_applied_once_and_then_reset(kind, mode, orientation):
    image = Image.fromarray(random_array((5, 7, len(mode))), mode)
    data = saved(
        image, kind, exif=exif_with(orientation), **({"lossless": True, "exact": True} if kind == "WEBP" else {})
    )
    with Image.open(io.BytesIO(data)) as file:
        want = np.asarray(ImageOps.exif_transpose(file))
    picture = read_picture(data)
    assert np.array_equal(picture.pixels, want[:, :, :3])
    if mode == "RGBA":
        assert np.array_equal(picture.alpha, want[:, :, 3])
    exif = parsed(picture.meta["exif"])
    assert exif.get(ORIENTATION, 1) == 1
    assert exif[MAKE] == "Maker"


def test_orientation_out_of_range_is_ignored():
    assert read_picture(saved(Image.new("RGB", (7, 5)), "PNG", exif=exif_with(42))).size == (5, 7)


def test_orientation_in_xmp_counts_where_exif_is_silent_and_is_reset():
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    picture = read_picture(saved(Image.new("RGB", (7, 5)), "WEBP", xmp=xmp))
    assert picture.size == (7, 5)
    assert picture.meta["xmp"] == xmp.replace(b'"6"', b'"1"')


def test_density_is_turned_with_the_picture():
    data = saved(
        Image.new("RGB", (7, 5)), "TIFF", exif=exif_with(6), resolution_unit=2, x_resolution=300, y_resolution=150
    )
    assert read_picture(data).dpi == (150, 300)


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
    tags = {
        b"A2B0": lut,
        b"wtpt": white,
        b"cprt": text,
        b"desc": b"desc\0\0\0\0" + struct.pack(">L", 5) + b"test\0" + bytes(79),
    }
    body, listing = b"", struct.pack(">L", len(tags))
    for name, data in tags.items():
        listing += name + struct.pack(">LL", 128 + 4 + 12 * len(tags) + len(body), len(data))
        body += data + b"\0" * (-len(data) % 4)
    header = struct.pack(
        ">L4sL4s4s4s12x4s", 132 + 12 * len(tags) + len(body), b"", 0x02100000, b"prtr", b"CMYK", b"Lab ", b"acsp"
    )
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
    assert picture.icc[24:36] == bytes([7, 208, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0])  # never the time of day: 2000-01-01


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
    assert read_picture(saved(Image.new("RGB", (2, 2)), kind, dpi=(dpi, dpi))).dpi == pytest.approx(
        (dpi, dpi), abs=0.02
    )


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
    entries = struct.pack(order + "HHLL", 513, 4, 1, len(exif) + 30) + struct.pack(
        order + "HHLL", 514, 4, 1, len(thumbnail)
    )
    exif += struct.pack(order + "H", 2) + entries + struct.pack(order + "L", 0) + thumbnail
    picture = read_picture(saved(Image.new("RGB", (7, 5)), "JPEG", exif=b"Exif\0\0" + bytes(exif)))
    block = picture.meta["exif"]
    assert b"small old picture" not in block
    assert block.index(note) == exif.index(note)
    assert parsed(block).get_ifd(EXIF_IFD)[MAKER_NOTE] == note
    assert parsed(block).get_ifd(ExifTags.IFD.IFD1) == {}


def test_damaged_exif_is_dropped_with_a_notice():
    picture = read_picture(saved(Image.new("RGB", (7, 5)), "WEBP", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"))
    assert "exif" not in picture.meta
    assert picture.source.notices == ("the EXIF was dropped: it is damaged",)


# ---- refusals


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
    "jpeg": b"\xff\xd8\xff\xc0\0\x11\x08"
    + SIDE * 2 + b"\3\1\x11\0\2\x11\0\3\x11\0\xff\xda\0\x0c\3\1\0\2\0\3\0\0\x3f\0\xff\xd9",
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
    refused = ("over the limit of 100", "more pixels than Pillow", "cannot be decoded")  # the last: WebP in Pillow 12
    assert any(words in message for words in refused)
    assert time.monotonic() - begun < 2


def test_the_limit_counts_pixels_and_can_be_moved():
    data = saved(Image.new("L", (20, 10)), "PNG")
    assert "20 x 10 = 0.0 megapixels, over the limit" in refusal(data, limit_pixels=199)
    assert read_picture(data, limit_pixels=200).size == (10, 20)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "GIF"])
def test_pillows_global_limit_is_neither_obeyed_nor_changed(monkeypatch, kind):
    data = saved(Image.new("RGB", (20, 10)), kind)
    monkeypatch.setattr("restorer.pipeline.codecs.modes.BAND", 20)  # some Pillows also hold parts of a picture to it
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    assert read_picture(data).size == (10, 20)
    assert Image.MAX_IMAGE_PIXELS == 20


def test_an_open_file_can_be_read():
    with (PICTURES / "rocket.jpg").open("rb") as file:
        assert read_picture(file).size == (427, 640)
    assert "check where it comes from" in refusal(file)


def test_pixels_of_another_shape_or_kind_are_no_picture():
    with pytest.raises(PictureError, match=r"\(height, width, 3\)"):
        Picture(pixels=np.zeros((4, 5), np.uint8))
    with pytest.raises(PictureError, match="float64; give one of uint8"):
        Picture(pixels=np.zeros((4, 5, 3)))
    with pytest.raises(PictureError, match="alpha is"):
        Picture(pixels=np.zeros((4, 5, 3), np.uint8), alpha=np.zeros((4, 5), np.uint16))


def test_pixels_are_writable_and_contiguous():
    for data in (
        saved(Image.new("RGBA", (5, 4)), "PNG", exif=exif_with(6)),
        tiff_of(random_array((4, 5, 3), np.uint16)),
    ):
        picture = read_picture(data)
        assert picture.pixels.flags.c_contiguous
        assert picture.pixels.flags.writeable


def test_threads_read_what_one_thread_reads():
    deep = imagecodecs.png_encode(random_array((60, 50, 4), np.uint16))
    sources = [
        PICTURES / "chelsea.png",
        PICTURES / "rocket.jpg",
        deep,
        tiff_of(random_array((60, 50, 3), np.uint16)),
    ] * 4
    want = [read_picture(source).pixels for source in sources]
    with ThreadPoolExecutor(8) as pool:
        for pixels, picture in zip(want, pool.map(read_picture, sources), strict=True):
            assert np.array_equal(pixels, picture.pixels)


def test_reading_needs_no_torch_and_changes_nothing_global():
    code = """if True:
        import sys, warnings
        import numpy  # sets warning filters of its own
        from PIL import Image, ImageFile
        before = list(warnings.filters), Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, ImageFile.MAXBLOCK
        from restorer.pipeline.picture import read_picture
        read_picture(sys.argv[1])
        after = list(warnings.filters), Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, ImageFile.MAXBLOCK
        assert before == after
        assert not {"torch", "cv2"} & set(sys.modules)
    """
    command = [sys.executable, "-c", code, str(PICTURES / "coffee.png")]
    done = subprocess.run(command, cwd=PICTURES.parents[1], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
