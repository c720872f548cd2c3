"""Masks of faces: facexlib's for the same parsing, and one of five landmarks that covers the face and then fades."""

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from restorer.networks import bisenet, parsenet
from restorer.pipeline.faces import align
from restorer.pipeline.faces.mask import hull_mask, mask_of_classes, softened

TEMPLATE = np.array(align.TEMPLATE)

FACE_OF_FACEXLIB = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15]


def moved(*ways: tuple[float, float]) -> np.ndarray:
    """(5, 2): the template's landmarks, each moved by its x and y."""
    return TEMPLATE + np.array(ways)


FACES = {
    "straight": TEMPLATE,
    "turned": moved((0, 0), (-30, 0), (35, 0), (5, 0), (-15, 0)),
    "long": moved((0, -25), (0, -25), (0, 0), (0, 20), (0, 20)),
    "aslant": moved((12, 0), (12, 0), (0, 0), (-10, 0), (-10, 0)),
}
each_face = pytest.mark.parametrize("landmarks", FACES.values(), ids=FACES)


def parsing(seed: int, *, side: int = 512) -> np.ndarray:
    """(side, side) of 19 classes in patches."""
    small = np.random.default_rng(seed).integers(0, 19, (8, 8))
    return np.kron(small, np.ones((side // 8, side // 8), int))


def logits_of(classes: np.ndarray) -> torch.Tensor:
    return F.one_hot(torch.from_numpy(classes), 19).permute(0, 3, 1, 2).float()


def facexlib_mask(classes: np.ndarray) -> np.ndarray:
    """Its steps written out: two blurs of 101 pixels in levels of 255, and ten black pixels at every border."""
    mask = 255.0 * np.isin(classes, FACE_OF_FACEXLIB)
    for _ in range(2):
        mask = cv2.GaussianBlur(mask, (101, 101), 11)
    return np.pad(mask[10:-10, 10:-10], 10) / 255


def test_mask_is_facexlibs() -> None:
    classes = np.stack([parsing(seed) for seed in (0, 1)])
    found = mask_of_classes(logits_of(classes))
    assert found.dtype == np.float32 and found.shape == (2, 512, 512)
    np.testing.assert_allclose(found, [facexlib_mask(each) for each in classes], atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_mask_is_what_facexlib_pastes_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its whole helper, with white faces on black, pasted where they already lie: what comes out is its mask."""
    helper = pytest.importorskip("facexlib.utils.face_restoration_helper", reason="facexlib is not installed")
    classes, made = parsing(2), object.__new__(helper.FaceRestoreHelper)
    made.input_img, made.upscale_factor, made.face_size, made.use_parse = np.zeros((512, 512, 3)), 1, (512, 512), True
    made.restored_faces = [np.full((512, 512, 3), 255, np.uint8)]
    made.inverse_affine_matrices, made.device = [np.array([[1.0, 0, 0], [0, 1, 0]])], "cpu"
    made.face_parse = lambda x: [logits_of(classes[None])]
    pasted = made.paste_faces_to_input_image()[:, :, 0] / 255
    inner = np.s_[12:-12, 12:-12]  # it warps, which takes the border's edge along
    assert np.abs(mask_of_classes(logits_of(classes[None]))[0] - pasted)[inner].max() <= 1 / 255


def test_mask_is_the_same_from_either_network() -> None:
    """One picture, told in two orders of classes."""
    other = np.zeros(19, int)
    for name, number in parsenet.CLASSES.items():
        other[number] = bisenet.CLASSES[name]
    classes = parsing(3)[None]
    found = mask_of_classes(logits_of(other[classes]), bisenet.CLASSES)
    np.testing.assert_array_equal(found, mask_of_classes(logits_of(classes)))


def test_face_has_hair_but_no_hat() -> None:
    for name, taken in {"skin": 1, "hair": 1, "earring": 1, "hat": 0, "neck": 0, "necklace": 0, "cloth": 0}.items():
        classes = np.full((1, 512, 512), parsenet.CLASSES[name])
        assert mask_of_classes(logits_of(classes))[0, 256, 256] == pytest.approx(taken, abs=1e-6)


@pytest.mark.parametrize("side", [64, 256, 1024])
def test_other_sides_are_softened_in_proportion(side: int) -> None:
    half = np.zeros((side, side), np.float32)
    half[:, : side // 2] = 1
    soft = softened(half)
    assert soft[side // 2, side // 4] > 0.99 and soft[side // 2, 3 * side // 4] < 0.01
    border = max(1, round(side * 10 / 512))
    assert not soft[:border].any() and not soft[:, :border].any() and not soft[-border:].any()
    full = np.zeros((512, 512), np.float32)
    full[:, :256] = 1
    shrunk = cv2.resize(softened(full), (side, side), interpolation=cv2.INTER_AREA)
    inner = np.s_[2 * border : -2 * border, 2 * border : -2 * border]
    assert np.abs(soft - shrunk)[inner].max() < 0.03


# From landmarks


@each_face
def test_hull_covers_what_a_face_is_known_by(landmarks: np.ndarray) -> None:
    mask = hull_mask(landmarks)
    assert mask.dtype == np.float32 and mask.shape == (512, 512)
    assert mask.min() >= 0 and mask.max() <= 1.0001
    for x, y in landmarks:
        assert mask[round(y) - 12 : round(y) + 13, round(x) - 20 : round(x) + 21].min() > 0.8
    eyes, mouth = landmarks[:2].mean(0), landmarks[3:].mean(0)
    for part in (-0.5, 0.5, 1.3):  # forehead, nose, chin
        x, y = eyes + part * (mouth - eyes)
        assert mask[round(y), round(x)] > 0.8


@each_face
def test_hull_is_whole_and_fades_before_the_border(landmarks: np.ndarray) -> None:
    mask = hull_mask(landmarks)
    for edge in (mask, mask[::-1], mask.T, mask.T[::-1]):
        assert not edge[:10].any()
        assert edge[10].max() < 0.03
    assert max(np.abs(np.diff(mask, axis=axis)).max() for axis in (0, 1)) < 0.04  # no edge can be seen
    for line in (*mask, *mask.T):
        assert np.count_nonzero(np.diff(line > 0.5)) <= 2


def test_hull_of_a_straight_face_is_even_and_of_a_turned_one_on_the_near_side() -> None:
    even = TEMPLATE.copy()
    even[:, 0] = [190, 322, 256, 200, 312]
    even[:2, 1], even[3:, 1] = 240, 371
    mask = hull_mask(even)
    np.testing.assert_allclose(mask[:, 1:], mask[:, :0:-1], atol=1e-5)
    even[2, 0] += 40
    turned = hull_mask(even)
    columns = np.arange(512)
    assert (turned.sum(0) * columns).sum() / turned.sum() < (mask.sum(0) * columns).sum() / mask.sum() - 10


def test_hull_of_a_smaller_face_is_the_same_shrunk() -> None:
    small = cv2.resize(hull_mask(TEMPLATE), (256, 256), interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(hull_mask((TEMPLATE + 0.5) / 2 - 0.5, 256), small, atol=0.02)


@pytest.mark.parametrize("place", [0.0, 256.0, 511.0])
def test_landmarks_that_lie_in_one_place_make_a_small_mask(place: float) -> None:
    mask = hull_mask(np.full((5, 2), place))
    assert np.isfinite(mask).all()
    assert mask.mean() < 0.02
