"""Reading all frames of an animation, or all pages of a file."""

import io

import numpy as np
import pytest
import tifffile
from PIL import Image
from some_pictures import random_array, saved

from restorer.errors import PictureError
from restorer.pipeline.picture import read_frames, read_picture


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
