"""RetinaFace equals facexlib's, its anchors and boxes are those worked by hand, and faces in photos are found."""

import math
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from cases import random_batch
from torch import Tensor, nn

from restorer.engines import open_engine
from restorer.errors import AmbiguousWeightsError, WeightsError
from restorer.networks.retinaface import (
    SPEC,
    RetinaFace,
    RetinaFaceConfig,
    anchors,
    decode_boxes,
    decode_landmarks,
)
from restorer.networks.spec import load_weights
from restorer.pipeline.detectors.retinaface import RetinaFaceDetector
from restorer.pipeline.picture import read_picture
from restorer.resample import resize
from restorer.weights.read import read_checkpoint

SHARED = Path(__file__).resolve().parents[2] / "shared"
WEIGHTS = SHARED / "weights" / "face" / "retinaface_mobilenet0.25.safetensors"
TINY = RetinaFaceConfig(backbone="mobilenet0.25", features=2, pyramid_features=8)
TINY_WIDE = RetinaFaceConfig(features=4, blocks=(1, 2, 1, 1), pyramid_features=8)
PUBLISHED = {
    "mobile0.25": RetinaFaceConfig(backbone="mobilenet0.25", features=8, pyramid_features=64),
    "resnet50": RetinaFaceConfig(),
}


def lively(network: nn.Module, *, peak: float = 1) -> nn.Module:
    """Every weight random and repeatable, and every norm as after training on pictures up to `peak`."""
    rng = torch.Generator().manual_seed(0)
    for name, tensor in network.state_dict().items():
        if tensor.ndim == 4:
            gain = 2 / tensor.shape[1] if "Head" in name else 1  # or every score would be 0 or 1
            tensor.normal_(0, gain * math.sqrt(2 / tensor[0].numel()), generator=rng)
        elif name.endswith("weight"):
            tensor.uniform_(0.5, 1.5, generator=rng)
        elif name.endswith("bias"):
            tensor.uniform_(-0.3, 0.3, generator=rng)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(random_batch((4, 3, 64, 64)) * peak)
    return network.eval()


def detector_of(weights: dict[str, Tensor], form: str | None = None) -> RetinaFaceDetector:
    model = load_weights(weights, facts={} if form is None else {"form": form})
    return RetinaFaceDetector(open_engine(model, kind="eager", device="cpu", precision="fp32"), model.config)


@pytest.fixture(scope="module")
def real() -> RetinaFaceDetector:
    if not WEIGHTS.is_file():
        pytest.skip(f"{WEIGHTS.name} is not among the shared weights here")
    return detector_of(read_checkpoint(WEIGHTS).weights, "small")


def photo(name: str) -> np.ndarray:
    path = SHARED / "data" / name
    if not path.is_file():
        pytest.skip(f"{name} is not among the shared data here")
    pixels = read_picture(path).pixels
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


# Anchors and boxes, worked by hand


def test_anchors_go_place_by_place_and_level_by_level() -> None:
    found = anchors((8, 16), "original")
    first_level = [[0.25, 0.5, 1, 2], [0.25, 0.5, 2, 4], [0.75, 0.5, 1, 2], [0.75, 0.5, 2, 4]]
    others = [[0.5, 1, 4, 8], [0.5, 1, 8, 16], [1, 2, 16, 32], [1, 2, 32, 64]]
    torch.testing.assert_close(found, torch.tensor(first_level + others))
    assert anchors((8, 16), "small")[0, 2] == 10 / 16


def test_boxes_move_by_a_tenth_and_grow_by_a_fifth() -> None:
    regression = torch.tensor([[1, -1, 0, 5 * math.log(2)]])
    boxes = decode_boxes(regression, torch.tensor([[0.5, 0.5, 0.2, 0.4]]))
    torch.testing.assert_close(boxes, torch.tensor([[0.42, 0.06, 0.62, 0.86]]))


def test_landmarks_move_by_a_tenth_of_the_anchor() -> None:
    regression = torch.tensor([[0.0, 0, 10, 0, 0, 10, -5, 5, 1, 2]])
    found = decode_landmarks(regression, torch.tensor([[0.5, 0.5, 0.2, 0.4]]))
    expected = [[0.5, 0.5], [0.7, 0.5], [0.5, 0.9], [0.4, 0.7], [0.52, 0.58]]
    torch.testing.assert_close(found, torch.tensor([expected]))


@pytest.mark.parametrize("size", [(1, 1), (9, 8), (33, 7), (64, 95)])
@pytest.mark.parametrize("config", [TINY, TINY_WIDE], ids=lambda c: c.backbone)
def test_network_answers_once_for_every_anchor(size: tuple[int, int], config: RetinaFaceConfig) -> None:
    y = lively(RetinaFace(config))(random_batch((2, 3, *size)))
    assert y.shape == (2, len(anchors(size, config.form)), 15)
    assert 0 <= y[..., 0].min() <= y[..., 0].max() <= 1


# What weights say


def test_mobilenet_must_be_told_its_form() -> None:
    weights = RetinaFace(TINY).state_dict()
    with pytest.raises(AmbiguousWeightsError, match=r"form=original .* form=small"):
        load_weights(weights)
    with pytest.raises(WeightsError, match="form=large is no form"):
        load_weights(weights, facts={"form": "large"})
    assert load_weights(weights, facts={"form": "small"}).config.form == "small"


@pytest.mark.parametrize("prefix", ["", "module."])
def test_wide_network_says_all_itself(prefix: str) -> None:
    weights = {prefix + key: tensor for key, tensor in RetinaFace(TINY_WIDE).state_dict().items()}
    assert load_weights(weights).config == TINY_WIDE


@pytest.mark.parametrize(("name", "count"), [("mobile0.25", 426_608), ("resnet50", 27_293_600)])
def test_published_networks_have_their_number_of_parameters(name: str, count: int) -> None:
    with torch.device("meta"):
        network = RetinaFace(PUBLISHED[name])
    assert sum(parameter.numel() for parameter in network.parameters()) == count


@pytest.mark.parametrize("config", [TINY, TINY_WIDE, *PUBLISHED.values()])
def test_operations_are_those_of_the_convolutions(config: RetinaFaceConfig) -> None:
    counts = []
    with torch.device("meta"):
        network, x = RetinaFace(config).eval(), torch.zeros(1, 3, 64, 96)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda conv, _, y: counts.append(y[0, 0].numel() * conv.weight.numel()))
    network(x)
    assert SPEC.traits(config).operations == sum(counts) / (64 * 96)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"form": "large"}, "form must be one of original, small"),
        ({"pyramid_features": 6}, "multiple of 4"),
        ({"blocks": (1, 0, 1, 1)}, "blocks must be at least 1, got 0"),
    ],
)
def test_config_that_makes_no_network_is_refused(change: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        RetinaFaceConfig(**change)


# facexlib


def in_facexlib(name: str) -> nn.Module:
    module: ModuleType = pytest.importorskip("facexlib.detection.retinaface", reason="facexlib is not installed")
    return lively(module.RetinaFace(network_name=name, device="cpu"), peak=255)


def raw(theirs: nn.Module, x: Tensor) -> Tensor:
    """What theirs says of RGB in [0, 1], put together as ours."""
    boxes, classes, landmarks = theirs(x.flip(1) * 255 - theirs.mean_tensor)
    return torch.cat([classes[..., 1:], boxes, landmarks], dim=-1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PUBLISHED)
def test_network_equals_facexlib(name: str) -> None:
    theirs, x = in_facexlib(name), random_batch((2, 3, 75, 52))
    model = load_weights(theirs.state_dict(), facts={"form": "original"})
    assert model.config == PUBLISHED[name]
    with torch.no_grad():
        assert_close(model.network(x), raw(theirs, x))


@pytest.mark.filterwarnings("ignore")
def test_small_form_is_the_network_without_slopes() -> None:
    theirs, x = in_facexlib("mobile0.25"), random_batch((1, 3, 40, 64))
    for module in theirs.modules():
        if isinstance(module, nn.LeakyReLU):
            module.negative_slope = 0
    with torch.no_grad():
        assert_close(load_weights(theirs.state_dict(), facts={"form": "small"}).network(x), raw(theirs, x))


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    """Within 1e-4 of the largest value of scores, boxes and landmarks each."""
    for part in (slice(0, 1), slice(1, 5), slice(5, 15)):
        assert theirs[..., part].std() > 0.02
        assert (ours[..., part] - theirs[..., part]).abs().max() <= 1e-4 * theirs[..., part].abs().max()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PUBLISHED)
def test_detections_equal_facexlib(name: str) -> None:
    theirs = in_facexlib(name)
    pixels = np.random.default_rng(0).integers(0, 256, (90, 121, 3), np.uint8)
    least = float(np.quantile(raw_scores(theirs, pixels), 0.803))
    with torch.no_grad():
        expected = theirs.detect_faces(np.ascontiguousarray(pixels[:, :, ::-1]), least, 0.4)
    found = detector_of(theirs.state_dict(), "original")(pixels, least_score=least)
    assert len(found) == len(expected) > 5
    ours = np.array([[*face.box, face.score, *face.landmarks.ravel()] for face in found])
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=0.02)


def raw_scores(theirs: nn.Module, pixels: np.ndarray) -> np.ndarray:
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        return raw(theirs, x)[0, :, 0].numpy()


# Photos

FACES = {
    "faces_lq_codeformer/whole/00.jpg": 4,
    "faces_lq_codeformer/whole/03.jpg": 1,
    "faces_lq_gfpgan/whole/10045.png": 3,
    "faces_lq_gfpgan/whole/Blake_Lively.jpg": 2,
    "faces_lq_codeformer/gray/067_David_Beckham_00.png": 1,
    "faces_hq_aligned256/000001.png": 1,
    "faces_hq_ffhq1024/00002.png": 1,
    "faces_hq_ffhq1024/00009.png": 1,
    "faces_lq_real/face_09.png": 1,
    "skimage/astronaut.png": 1,
    "skimage/chelsea.png": 0,
    "skimage/brick.png": 0,
}


@pytest.mark.parametrize(("name", "count"), FACES.items())
def test_all_faces_of_a_photo_are_found(real: RetinaFaceDetector, name: str, count: int) -> None:
    pixels = photo(name)
    faces = real(pixels)
    assert len(faces) == count
    assert [face.score for face in faces] == sorted((face.score for face in faces), reverse=True)
    for face in faces:
        left, top, right, bottom = face.box
        x, y = face.landmarks.T
        assert ((left < x) & (x < right) & (top < y) & (y < bottom)).all()
        assert x[0] < x[1] and x[3] < x[4] and max(y[:2]) < y[2] < min(y[3:])
        assert 0 < right - left <= pixels.shape[1] and 0 < bottom - top <= pixels.shape[0]


def test_faces_are_found_where_they_are_in_a_large_picture(real: RetinaFaceDetector) -> None:
    """A face of 46 pixels, of 600 and of 1800, in a picture that is shrunk by more than two."""
    astronaut, canvas = photo("skimage/astronaut.png")[:256, 96:352], np.full((3000, 4000, 3), 90, np.uint8)
    places = [(100, 150, 256), (200, 3300, 640), (700, 900, 2240)]
    for top, left, side in places:
        part = resize(astronaut.astype(np.float32), (side, side), kernel="cubic").clip(0, 255).astype(np.uint8)
        canvas[top : top + side, left : left + side] = part
    (face,) = real(astronaut)
    faces = sorted(real(canvas), key=lambda face: face.box[2] - face.box[0])
    assert len(faces) == 3
    for found, (top, left, side) in zip(faces, places, strict=True):
        expected = face.landmarks * (side / 256) + (left, top)
        np.testing.assert_allclose(found.landmarks, expected, atol=0.05 * side)


@pytest.mark.parametrize("level", [0, 128, 255])
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (64, 64)])
def test_plain_picture_has_no_faces(real: RetinaFaceDetector, level: int, size: tuple[int, int]) -> None:
    assert real(np.full((*size, 3), level, np.uint8)) == []


@pytest.mark.parametrize("config", [TINY, TINY_WIDE], ids=lambda c: c.backbone)
@pytest.mark.parametrize("size", [(1, 1), (3, 50), (1030, 6)])
def test_any_size_is_looked_through(config: RetinaFaceConfig, size: tuple[int, int]) -> None:
    detector = detector_of(lively(RetinaFace(config)).state_dict(), config.form)
    pixels = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    found = detector(pixels, least_score=0.0)
    assert found and all(face.landmarks.shape == (5, 2) for face in found)
