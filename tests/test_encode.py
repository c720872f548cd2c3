"""Writing pictures: what comes back through independent readers, with all that travels beside the pixels."""

import io
import itertools
import tracemalloc
import zlib
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms, JpegImagePlugin
from some_pictures import picture_of, written

from restorer.errors import PictureError, UsageError
from restorer.pipeline.codecs import ordered, png, tiff
from restorer.pipeline.picture import (
    Picture,
    PictureInfo,
    SourceInfo,
    check_format,
    format_for,
    open_writer,
    read_picture,
    write_picture,
)

PICTURES = Path(__file__).parent / "pictures"
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>kept</x:xmpmeta>"
MAKE, ORIENTATION, EXIF_IFD, EXIF_WIDTH, EXIF_HEIGHT, MAKER_NOTE = 271, 274, 0x8769, 40962, 40963, 37500


def samples_of(picture):
    """All samples as an independent reader gives them: (H, W) or (H, W, S)."""
    parts = [picture.pixels] if picture.alpha is None else [picture.pixels, picture.alpha[:, :, None]]
    joined = np.concatenate(parts, axis=2)
    return joined[:, :, 0] if joined.shape[2] == 1 else joined


KINDS = list(itertools.product([1, 3], [False, True], [(1, 1), (1, 97), (97, 1), (37, 53)]))


@pytest.mark.parametrize(("channels", "alpha", "size"), KINDS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_png_comes_back_exactly_through_libpng(dtype, channels, alpha, size):
    picture = picture_of(*size, channels, alpha=alpha, dtype=dtype)
    back = imagecodecs.png_decode(written(picture, "png"))
    assert back.dtype == dtype
    assert np.array_equal(back.reshape(samples_of(picture).shape), samples_of(picture))


@pytest.mark.parametrize(("channels", "alpha", "size"), KINDS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_tiff_comes_back_exactly_through_tifffile(dtype, channels, alpha, size):
    picture = picture_of(*size, channels, alpha=alpha, dtype=dtype)
    with tifffile.TiffFile(io.BytesIO(written(picture, "tiff"))) as file:
        page = file.pages[0]
        back = page.asarray()
        assert page.photometric == (tifffile.PHOTOMETRIC.RGB if channels == 3 else tifffile.PHOTOMETRIC.MINISBLACK)
        assert page.extrasamples == ((tifffile.EXTRASAMPLE.UNASSALPHA,) if alpha else ())
    assert back.dtype == dtype
    assert np.array_equal(back.reshape(samples_of(picture).shape), samples_of(picture))


@pytest.mark.parametrize("alpha", [False, True])
def test_webp_of_quality_100_comes_back_exactly_even_under_transparent_parts(alpha):
    picture = picture_of(37, 53, alpha=alpha)
    assert np.array_equal(imagecodecs.webp_decode(written(picture, "webp", quality=100)), samples_of(picture))


@pytest.mark.parametrize(
    ("format", "decode"),
    [("jpeg", imagecodecs.jpeg_decode), ("webp", imagecodecs.webp_decode), ("avif", imagecodecs.avif_decode)],
)
def test_lossy_formats_come_back_close(format, decode):
    picture = picture_of(64, 64, smooth=True)
    back = decode(written(picture, format))
    assert back.shape == picture.pixels.shape
    assert np.abs(back.astype(int) - picture.pixels).max() <= 4


def test_grey_and_alpha_survive_where_the_format_has_them():
    grey = picture_of(16, 16, 1, smooth=True)
    assert read_picture(written(grey, "jpeg")).channels == 1
    assert read_picture(written(grey, "avif")).channels == 1
    both = picture_of(16, 16, 1, alpha=True, smooth=True)
    back = read_picture(written(both, "webp"))
    assert np.array_equal(back.alpha, both.alpha)


def test_jpeg_keeps_full_colour_resolution():
    with Image.open(io.BytesIO(written(picture_of(16, 16), "jpeg"))) as image:
        assert JpegImagePlugin.get_sampling(image) == 0  # 4:4:4


def test_jpeg_of_noise_at_the_highest_quality_can_be_written(capfd):
    picture = picture_of(200, 300)
    back = imagecodecs.jpeg_decode(written(picture, "jpeg", quality=100))
    assert np.abs(back.astype(int) - picture.pixels).mean() < 2
    capfd.readouterr()  # libjpeg remarks on the buffer that was too small


def test_16_bits_are_rounded_for_8_bit_formats():
    picture = Picture(pixels=np.array([[[0], [128], [129], [257], [65535]]], np.uint16))
    assert read_picture(written(picture, "webp", quality=100)).pixels[0, :, 0].tolist() == [0, 0, 1, 1, 255]


def test_the_files_of_both_own_writers_are_read_back_whole_by_pillow():
    picture = picture_of(37, 53)
    for format in ("png", "tiff"):
        with Image.open(io.BytesIO(written(picture, format))) as image:
            assert np.array_equal(np.asarray(image), picture.pixels)


# ---- what travels beside the pixels


def travelled():
    exif = Image.Exif()
    exif[MAKE], exif[ORIENTATION] = "Maker", 1
    exif.get_ifd(EXIF_IFD).update({EXIF_WIDTH: 53, EXIF_HEIGHT: 37, MAKER_NOTE: b"maker's own notes"})
    meta = {"exif": exif.tobytes()[6:], "xmp": XMP, "text:Comment": "Grüße".encode(), "text:Title": "猫".encode()}
    return picture_of(37, 53, icc=SRGB, dpi=(300.0, 150.0), meta=meta)


@pytest.mark.parametrize("format", ["png", "jpeg", "webp", "tiff", "avif"])
def test_profile_exif_density_and_xmp_are_kept(format):
    picture = travelled()
    buffer = io.BytesIO()
    with open_writer(buffer, like=replace(picture.info, size=(74, 106)), format=format) as writer:
        writer.write_rows(np.repeat(np.repeat(picture.pixels, 2, axis=0), 2, axis=1))
    with Image.open(io.BytesIO(buffer.getvalue())) as image:
        image.load()
        assert image.size == (106, 74)
        assert image.info["icc_profile"] == SRGB
        assert image.info["xmp"] == XMP
        exif = image.getexif()
        inside = exif.get_ifd(EXIF_IFD)
        density = image.info.get("dpi") or (exif[282], exif[283])
    assert tuple(float(side) for side in density) == pytest.approx((300, 150), abs=0.02)
    assert (exif[MAKE], exif.get(ORIENTATION, 1)) == ("Maker", 1)
    assert (inside[EXIF_WIDTH], inside[EXIF_HEIGHT]) == (106, 74)
    assert inside[MAKER_NOTE] == b"maker's own notes"


def test_exif_of_a_big_endian_camera_reaches_a_tiff():
    exif = b"MM\0*\0\0\0\x08" + bytes.fromhex("0002 010f0002 00000006 00000026 87690004 00000001 0000002c 00000000")
    exif += b"Canon\0" + bytes.fromhex("0001 a0020004 00000001 00001234 00000000")
    picture = picture_of(4, 5, meta={"exif": exif})
    with tifffile.TiffFile(io.BytesIO(written(picture, "tiff"))) as file:
        tags = file.pages[0].tags
        assert tags["Make"].value == "Canon"
        assert tags["ExifTag"].value["PixelXDimension"] == 5
    again = read_picture(written(picture, "tiff"))
    loaded = Image.Exif()
    loaded.load(again.meta["exif"])
    assert loaded[MAKE] == "Canon"


def test_texts_are_kept_by_png_and_comments_by_jpeg():
    picture = travelled()
    with Image.open(io.BytesIO(written(picture, "png"))) as image:
        image.load()
        assert image.text["Comment"] == "Grüße"
        assert image.text["Title"] == "猫"
    with Image.open(io.BytesIO(written(picture, "jpeg"))) as image:
        assert image.info["comment"] == "Grüße".encode()


@pytest.mark.parametrize("length", [0, 10, 5000, 2_000_000])
def test_texts_of_any_length_come_back(length):
    for word in ("ab cd ", "猫 "):
        text = (word * length)[:length].encode()
        assert read_picture(written(picture_of(2, 2, meta={"text:parameters": text}), "png")).meta == {
            "text:parameters": text
        }


def test_colour_chunks_of_a_png_stay_in_a_png():
    meta = {"png:gAMA": (100000).to_bytes(4, "big"), "png:cHRM": bytes(32), "png:sRGB": b"\0"}
    assert read_picture(written(picture_of(2, 2, meta=meta), "png")).meta == meta
    assert "colours may look different" in check_format("JPEG", picture_of(2, 2, meta=meta).info)[0]


def test_a_real_photograph_keeps_everything_through_png():
    first = read_picture(PICTURES / "chelsea.png")
    second = read_picture(written(first, "png"))
    assert np.array_equal(first.pixels, second.pixels)
    assert (first.icc, first.dpi, first.meta) == (second.icc, second.dpi, second.meta)


def test_exif_that_is_none_is_refused():
    with pytest.raises(PictureError, match="damaged"):
        written(picture_of(2, 2, meta={"exif": b"no exif"}), "png")


# ---- the same bytes, whatever the order of events


@pytest.mark.parametrize("format", ["png", "tiff"])
def test_bytes_do_not_depend_on_how_rows_are_cut_or_on_threads(format, monkeypatch):
    monkeypatch.setattr(png, "BLOCK_BYTES", 3000)
    monkeypatch.setattr(tiff, "STRIP_BYTES", 3000)
    picture = picture_of(97, 31, alpha=True, dtype=np.uint16)
    rows = samples_of(picture)
    want = written(picture, format)
    for workers, step in ((1, 1), (4, 7), (2, 96)):
        monkeypatch.setattr(ordered, "MOST_WORKERS", workers)
        buffer = io.BytesIO()
        with open_writer(buffer, like=picture, format=format) as writer:
            for top in range(0, 97, step):
                writer.write_rows(rows[top : top + step])
        assert buffer.getvalue() == want
    assert np.array_equal(imagecodecs.imread(want), rows)


def test_a_png_of_many_blocks_is_one_valid_zlib_stream():
    picture = picture_of(700, 900, smooth=True)  # 1.9 MB: two blocks
    data = written(picture, "png")
    at, packed, chunks = 8, b"", 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] == b"IDAT":
            packed += data[at + 8 : at + 8 + length]
            chunks += 1
        assert zlib.crc32(data[at + 4 : at + 8 + length]) == int.from_bytes(
            data[at + 8 + length : at + 12 + length], "big"
        )
        at += 12 + length
    assert chunks == 2
    assert len(zlib.decompress(packed)) == 700 * (1 + 900 * 3)  # checks the joined checksum too
    assert np.array_equal(imagecodecs.png_decode(data), picture.pixels)


@given(st.binary(), st.binary())
def test_checksums_join(first, second):
    joined = png._joined_adler(zlib.adler32(first), zlib.adler32(second), len(second))
    assert joined == zlib.adler32(first + second)


def test_beyond_four_gigabytes_a_tiff_takes_64_bit_offsets(monkeypatch):
    monkeypatch.setattr(tiff, "BIG", 100)
    picture = travelled()
    data = written(picture, "tiff")
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        assert file.is_bigtiff
        assert np.array_equal(file.asarray(), picture.pixels)
        assert file.pages[0].tags["ExifTag"].value["PixelXDimension"] == 53
    assert np.array_equal(read_picture(data).pixels, picture.pixels)


def test_png_and_tiff_need_memory_for_a_few_rows_only(tmp_path):
    info = PictureInfo(size=(8000, 4000), channels=3, alpha=False, dtype=np.dtype(np.uint8))  # 96 MB
    band = np.zeros((250, 4000, 3), np.uint8)
    for name in ("a.png", "a.tif"):
        tracemalloc.start()
        with open_writer(tmp_path / name, like=info) as writer:
            for _ in range(32):
                writer.write_rows(band)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 40e6


# ---- which format, and what it holds


@pytest.mark.parametrize(
    ("path", "format", "source", "want"),
    [
        ("a.PNG", None, "JPEG", "PNG"),
        ("a.jpeg", None, "PNG", "JPEG"),
        ("a.tif", "webp", "PNG", "WEBP"),
        ("a", None, "WEBP", "WEBP"),
        (None, None, "GIF", "PNG"),
        (None, "jpg", "", "JPEG"),
    ],
)
def test_the_format_is_the_one_asked_for_else_the_suffixs_else_the_sources(path, format, source, want):
    assert format_for(path, format=format, source=SourceInfo(format=source)) == want


def test_unknown_formats_are_refused_with_the_known_ones():
    with pytest.raises(UsageError, match=r"no format named .pngg.; use png, jpeg, webp, tiff, avif"):
        format_for(None, format="pngg")
    with pytest.raises(UsageError, match=r"cannot write \.gif files; use one of \.png"):
        format_for("a.gif")


def test_a_stream_takes_the_sources_format_where_that_holds_the_picture():
    buffer = io.BytesIO()
    write_picture(picture_of(2, 2, alpha=True, source=SourceInfo(format="JPEG", mode="RGB", bits=8)), buffer)
    assert buffer.getvalue().startswith(b"\x89PNG")
    buffer = io.BytesIO()
    write_picture(picture_of(2, 2, dtype=np.float32), buffer)
    assert buffer.getvalue().startswith(b"II*\0")


@pytest.mark.parametrize(
    ("format", "info", "cure"),
    [
        ("JPEG", {"alpha": True}, "holds no transparency.*choose PNG, WebP or TIFF"),
        ("PNG", {"dtype": np.dtype(np.float32)}, "choose TIFF"),
        ("WEBP", {"size": (10, 16384)}, "at most 16383 pixels a side.*16384 x 10.*choose PNG or TIFF"),
        ("JPEG", {"size": (65536, 10)}, "at most 65500 pixels a side"),
    ],
)
def test_what_a_format_cannot_hold_is_refused_with_the_cure(tmp_path, format, info, cure):
    like = replace(picture_of(4, 5).info, **info)
    with pytest.raises(UsageError, match=cure):
        check_format(format, like)
    with pytest.raises(UsageError, match=cure):
        open_writer(tmp_path / "a", like=like, format=format)
    assert list(tmp_path.iterdir()) == []


def test_what_will_be_lost_is_said_beforehand():
    deep = picture_of(4, 5, dtype=np.uint16, meta={"text:Title": b"x", "text:Comment": b"y"}).info
    assert check_format("PNG", deep) == []
    rounded, texts = check_format("JPEG", deep)
    assert "16-bit samples are rounded" in rounded
    assert texts.endswith("left out: Title")
    assert check_format("TIFF", deep, quality=90)[-1] == "TIFF loses nothing: quality 90 is ignored"
    long = picture_of(4, 5, meta={"xmp": bytes(70000)}).info
    assert check_format("JPEG", long) == ["JPEG holds at most 65504 bytes of xmp: it is left out"]
    with pytest.raises(UsageError, match="from 1 to 100, got 0"):
        check_format("JPEG", deep, quality=0)
