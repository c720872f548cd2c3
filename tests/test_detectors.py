"""What detectors share: which boxes stay, and where things are after a picture was shrunk."""

import numpy as np
import pytest

from restorer.pipeline.detectors.seam import Detection, non_maximum_suppression, scaled, shrunk


def boxes_of(*boxes: tuple[float, float, float, float]) -> np.ndarray:
    return np.array(boxes, np.float64).reshape(-1, 4)


# Worked by hand: the second box shares 50 of 150 with the first, the third 25 of 100 with it and all of itself
NESTED = boxes_of((0, 0, 10, 10), (5, 0, 15, 10), (0, 0, 5, 5))


@pytest.mark.parametrize(
    ("most_overlap", "of_smaller", "kept"),
    [
        (0.34, False, [0, 1, 2]),
        (0.33, False, [0, 2]),
        (0.24, False, [0]),
        (0.51, True, [0, 1]),
        (0.49, True, [0]),
        (1.0, True, [0, 1, 2]),
    ],
)
def test_boxes_that_share_too_much_with_a_better_one_go(most_overlap, of_smaller, kept):
    scores = np.array([0.9, 0.8, 0.7])
    found = non_maximum_suppression(NESTED, scores, most_overlap=most_overlap, of_smaller=of_smaller)
    assert found.tolist() == kept


def test_best_comes_first_and_equal_scores_keep_their_order():
    apart = boxes_of((0, 0, 1, 1), (2, 0, 3, 1), (4, 0, 5, 1), (6, 0, 7, 1))
    found = non_maximum_suppression(apart, np.array([0.5, 0.9, 0.5, 0.7]), most_overlap=0.5)
    assert found.tolist() == [1, 3, 0, 2]


def test_a_box_that_went_suppresses_nothing():
    chain = boxes_of((0, 0, 10, 1), (4, 0, 14, 1), (8, 0, 18, 1))  # neighbours share 6 of 14, the ends 2 of 18
    found = non_maximum_suppression(chain, np.array([0.9, 0.8, 0.7]), most_overlap=0.4)
    assert found.tolist() == [0, 2]


def test_no_boxes_are_no_boxes():
    found = non_maximum_suppression(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), most_overlap=0.5)
    assert found.shape == (0,)


def test_boxes_without_area_and_inside_out_are_harmless():
    odd = boxes_of((0, 0, 10, 10), (3, 3, 3, 3), (8, 8, 2, 2))
    found = non_maximum_suppression(odd, np.array([0.9, 0.8, 0.7]), most_overlap=0.5)
    assert found[0] == 0


def test_suppression_equals_torchvision():
    ops = pytest.importorskip("torchvision", reason="torchvision is not installed").ops
    import torch

    rng = np.random.default_rng(0)
    corners = rng.random((300, 2)) * 80
    boxes = np.concatenate([corners, corners + 5 + rng.random((300, 2)) * 30], axis=1)
    scores = rng.random(300)
    expected = ops.nms(torch.from_numpy(boxes), torch.from_numpy(scores), 0.4).tolist()
    assert non_maximum_suppression(boxes, scores, most_overlap=0.4).tolist() == expected
    assert 10 < len(expected) < 290


# Shrinking


@pytest.mark.parametrize(
    ("size", "long_side", "expected"),
    [
        ((100, 200), 200, (100, 200)),
        ((100, 200), 50, (25, 50)),
        ((333, 100), 111, (111, 33)),
        ((1, 1000), 10, (1, 10)),
        ((1, 1), 1, (1, 1)),
    ],
)
def test_long_side_is_at_most_what_was_asked(size, long_side, expected):
    small, (across, down) = shrunk(np.zeros((*size, 3), np.uint8), long_side)
    assert small.shape == (*expected, 3)
    assert (across, down) == pytest.approx((size[1] / expected[1], size[0] / expected[0]))


def test_small_pictures_come_back_untouched():
    pixels = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    small, ratios = shrunk(pixels, 5)
    assert small is pixels
    assert ratios == (1, 1)


def test_pixels_are_averaged_by_area():
    pixels = np.zeros((2, 4, 3), np.uint8)
    pixels[:, :2] = [[[0, 40, 80]], [[100, 60, 20]]]
    small, _ = shrunk(pixels, 2)
    assert small.tolist() == [[[50, 50, 50], [0, 0, 0]]]


@pytest.mark.parametrize("size", [(300, 400), (401, 299), (97, 1203)])
def test_a_place_comes_back_to_where_it_was(size):
    """The middle of a bright patch, found in the small copy, is the middle of the patch."""
    pixels = np.zeros((*size, 3), np.uint8)
    top, left, side = size[0] // 3, size[1] // 2, 24
    pixels[top : top + side, left : left + side] = 255
    small, ratios = shrunk(pixels, 100)
    weights = small[:, :, 0].astype(np.float64)
    rows, columns = np.indices(weights.shape) + 0.5
    x, y = (columns * weights).sum() / weights.sum(), (rows * weights).sum() / weights.sum()
    face = Detection(box=(0, 0, small.shape[1], small.shape[0]), landmarks=np.full((5, 2), (x, y)), score=0.5)
    (found,) = scaled([face], ratios)
    assert found.box == pytest.approx((0, 0, size[1], size[0]))
    np.testing.assert_allclose(found.landmarks, np.full((5, 2), (left + side / 2, top + side / 2)), atol=0.15)
    assert found.score == 0.5


def test_no_side_at_all_is_refused():
    with pytest.raises(ValueError, match="long_side must be at least 1, got 0"):
        shrunk(np.zeros((4, 4, 3), np.uint8), 0)
