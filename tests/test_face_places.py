"""Where faces lie and which are chosen: aligned as facexlib does, within half a pixel."""

import cv2
import numpy as np
import pytest
from face_pictures import TEMPLATE, face_at, smooth

from restorer.errors import UsageError
from restorer.pipeline.detectors.seam import Detection
from restorer.pipeline.faces.align import SIDE, aligned, corners, resized, size_of, then, to_template, undone, within
from restorer.pipeline.faces.choose import choose
from restorer.pipeline.settings import wanted_faces

# Geometry


@pytest.mark.parametrize(("side", "turn"), [(512, 0.0), (60, 0.3), (1500, -1.2), (200, 3.0)])
def test_landmarks_of_the_template_give_its_size_and_turn(side, turn):
    found = face_at((400, 300), side, turn=turn)
    matrix = to_template(found.landmarks)
    assert size_of(matrix) == pytest.approx(SIDE / side, rel=1e-4)
    there = found.landmarks @ matrix[:, :2].T + matrix[:, 2]
    assert np.abs(there - TEMPLATE).max() < 0.02
    assert np.allclose(then(matrix, undone(matrix)), [[1, 0, 0], [0, 1, 0]])


def test_sizes_change_corner_on_corner():
    matrix = resized(2, 3)
    assert np.allclose(matrix @ [-0.5, -0.5, 1], [-0.5, -0.5])
    assert np.allclose(matrix @ [9.5, 9.5, 1], [19.5, 29.5])


def test_alignment_is_facexlibs_within_half_a_pixel():
    """The same landmarks through facexlib's own code; the crops are compared by the shift that fits them best."""
    helper = pytest.importorskip("facexlib.utils.face_restoration_helper", reason="facexlib is not installed")
    photo = (smooth((400, 500)) * 255).astype(np.uint8)
    theirs = object.__new__(helper.FaceRestoreHelper)
    theirs.template_3points, theirs.pad_blur, theirs.save_ext = False, False, "png"
    theirs.face_template, theirs.face_size, theirs.upscale_factor = TEMPLATE, (SIDE, SIDE), 1
    theirs.affine_matrices, theirs.cropped_faces = [], []
    rng = np.random.default_rng(3)
    for side, turn in ((150, 0.2), (90, -0.5), (300, 0.0)):
        found = face_at((250, 200), side, turn=turn)
        points = found.landmarks + rng.normal(0, side / 60, (5, 2))
        theirs.input_img, theirs.all_landmarks_5 = photo[:, :, ::-1], [points]
        theirs.align_warp_face()
        other = theirs.cropped_faces[-1][:, :, ::-1].astype(np.float32) / 255
        ours = aligned(photo, to_template(points))
        assert np.abs(theirs.affine_matrices[-1] - to_template(points)).max() < 1e-9
        (across, down), _ = cv2.phaseCorrelate(ours.mean(2).astype(np.float64), other.mean(2).astype(np.float64))
        assert max(abs(across), abs(down)) < 0.1
        assert np.abs(ours - other).mean() < 0.004


def test_a_large_face_is_averaged_and_does_not_flicker():
    """Stripes of one pixel are grey when shrunk 2.93 times: the mean over w of them is at most 1 / 2w from a half."""
    stripes = np.zeros((1600, 1600, 3), np.uint8)
    stripes[:, ::2] = 255
    crop = aligned(stripes, to_template(face_at((800, 800), 1500).landmarks))
    assert abs(crop[100:400, 100:400] - 0.5).max() <= SIDE / 1500 / 2 + 0.002


def test_places_outside_are_grey_as_in_training():
    photo = np.zeros((100, 100, 3), np.uint8)
    crop = aligned(photo, to_template(face_at((0, 50), 80).landmarks))
    assert np.allclose(crop[256, 5], (135 / 255, 133 / 255, 132 / 255), atol=1e-6)
    far = aligned(photo, to_template(face_at((-900, 50), 80).landmarks))
    assert np.ptp(far.reshape(-1, 3), axis=0).max() == 0


def test_what_is_within_the_picture_is_counted():
    """By hand: pixels of a face twice as large lie at -0.25, 0.25, ... 8.75, 9.25 of ten."""
    assert within(resized(1, 1), (5, 10), 16).sum(0).tolist() == [5] * 10 + [0] * 6
    assert within(resized(2, 2), (5, 10), 32)[5].nonzero()[0].tolist() == list(range(1, 19))
    assert not within(to_template(face_at((-900, 50), 80).landmarks), (100, 100)).any()


@pytest.mark.parametrize(("side", "turn"), [(80, 0.0), (150, 0.7), (700, 0.0), (1800, -0.4)])
def test_within_the_picture_nothing_of_the_outside_is_mixed_in(side, turn):
    matrix = to_template(face_at((20, 300), side, turn=turn).landmarks)
    black, inside = aligned(np.zeros((310, 400, 3), np.uint8), matrix), within(matrix, (310, 400))
    assert black[inside].max() < 0.01
    seen = (black < 0.4).all(axis=2)
    assert 0.02 < inside.mean() < 0.9
    assert (seen & ~inside).mean() < 0.04, "no more than a pixel's width is left out"


@pytest.mark.parametrize(
    "points", [np.zeros((5, 2)), np.full((5, 2), np.nan), np.full((5, 2), 1e9), np.full((5, 2), -np.inf)]
)
def test_landmarks_that_lie_on_one_another_give_no_place(points):
    assert to_template(points) is None
    (face,) = choose([Detection(box=(0, 0, 30, 30), landmarks=points, score=1)], (50, 50))
    assert "its landmarks" in face.skipped


# Choosing


def three():
    return [face_at((40, 40), 60), face_at((200, 150), 90), face_at((330, 60), 30)]


@pytest.mark.parametrize(
    ("rules", "kept"),
    [
        ({}, [1, 2, 3]),
        ({"only": "largest"}, [1]),
        ({"only": "centre"}, [1]),
        ({"only": "2"}, [2]),
        ({"only": "1, 3"}, [1, 3]),
        ({"least": 25}, [1, 2]),
        ({"most": 40}, [2, 3]),
        ({"least": 25, "most": 40}, [2]),
        ({"only": "largest", "most": 40}, [2]),
    ],
)
def test_faces_are_chosen(rules, kept):
    faces = choose(three(), (300, 400), **rules)
    assert [face.number for face in faces] == [1, 2, 3]
    assert [round(face.side) for face in faces] == sorted((round(face.side) for face in faces), reverse=True)
    assert [face.number for face in faces if not face.skipped] == kept


def test_a_face_that_is_not_there_is_a_mistake_and_an_empty_picture_is_none():
    with pytest.raises(UsageError, match="no face 4, the picture has 3"):
        choose(three(), (300, 400), only="4")
    assert choose([], (300, 400), only="4") == []
    for text in ("biggest", "0", "1,", "-1", "1.5", ""):
        with pytest.raises(UsageError, match="only takes all, largest, centre or numbers"):
            wanted_faces(text)


def test_corners_of_a_face_lie_around_its_landmarks():
    found = face_at((100, 100), 50)
    around = corners(to_template(found.landmarks))
    assert np.allclose(around.min(0), 75, atol=0.2)
    assert np.allclose(around.max(0), 125, atol=0.2)
