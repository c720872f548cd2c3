"""Label maps in colours: every label is in the palette, or the first that is not is named."""

import numpy as np
import pytest

from restorer.errors import PictureError, UsageError
from restorer.pipeline.labels import in_colours, read_palette
from restorer.pipeline.picture import Picture
from restorer.pipeline.picture_types import SourceInfo

PALETTE = np.array([[0, 0, 0], [128, 0, 0], [0, 128, 64]], np.uint8)


def test_a_palette_is_read_as_people_write_it(tmp_path):
    file = tmp_path / "colours.txt"
    for text in (
        "0 0 0 void\n128 0 0 building\n\n0 128 64 tree\n",
        "# CamVid\n0,0,0\n128, 0, 0\n0,128,64\n",
        "\ufeff0 0 0\n128 0 0\n0 128 64\n",
        "GIMP Palette\nName: mine\nColumns: 3\n#\n  0   0   0\tvoid\n128 0 0\n0 128 64\n",
    ):
        file.write_text(text, encoding="utf-8")
        assert read_palette(str(file)).tolist() == PALETTE.tolist()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no colour"),
        ("1 2\n", "line 1"),
        ("0 0 0\n0 0 300\n", "line 2"),
        ("red\n", "line 1"),
    ],
)
def test_a_palette_that_is_none_is_refused_in_one_line(tmp_path, text, words):
    file = tmp_path / "colours.txt"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=words) as caught:
        read_palette(str(file))
    assert "\n" not in str(caught.value)


def test_a_palette_that_is_not_there_is_told(tmp_path):
    with pytest.raises(UsageError, match="No such file"):
        read_palette(str(tmp_path / "none.txt"))


def test_numbers_become_their_colours_and_colours_stay():
    numbers = np.array([[0, 1], [2, 1]], np.uint8)[:, :, None]
    coloured = in_colours(Picture(pixels=numbers), PALETTE)
    assert coloured.pixels.tolist() == [[[0, 0, 0], [128, 0, 0]], [[0, 128, 64], [128, 0, 0]]]
    assert in_colours(coloured, PALETTE) is coloured


def test_a_label_outside_the_palette_is_named_with_its_place():
    numbers = np.zeros((4, 5, 1), np.uint8)
    numbers[2, 3] = 3
    with pytest.raises(PictureError, match="label 3 at column 3, row 2 is outside the palette, whose last is 2"):
        in_colours(Picture(pixels=numbers), PALETTE)
    colours = np.zeros((4, 5, 3), np.uint8)
    colours[1, 4] = 128, 0, 1
    with pytest.raises(PictureError, match="colour 128,0,1 at column 4, row 1"):
        in_colours(Picture(pixels=colours), PALETTE)


def test_a_deep_label_map_is_refused():
    with pytest.raises(PictureError, match="8 bits"):
        in_colours(Picture(pixels=np.zeros((2, 2, 1), np.uint16)), PALETTE)


def test_what_was_said_of_grey_does_not_follow_into_colours():
    grey = Picture(pixels=np.zeros((2, 2, 1), np.uint8), icc=b"grey profile", meta={"png:sBIT": b"x", "exif": b"y"})
    coloured = in_colours(grey, PALETTE)
    assert coloured.icc is None
    assert coloured.meta == {"exif": b"y"}


def test_numbers_of_fewer_than_eight_bits_are_refused():
    few = Picture(pixels=np.full((2, 2, 1), 17, np.uint8), source=SourceInfo(bits=4))
    with pytest.raises(PictureError, match="4 bits"):
        in_colours(few, PALETTE)
