"""MTCNN's networks equal facenet-pytorch's published layouts, and the cascade finds the faces that RetinaFace finds."""

from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from cases import random_batch
from torch import Tensor, nn

from restorer.engines import open_engine
from restorer.networks.mtcnn import MTCNN, SPEC, MTCNNConfig, Stage
from restorer.networks.spec import load_weights
from restorer.pipeline.detectors.mtcnn import Found, Level, MTCNNDetector, cut, proposals, pyramid, squared
from restorer.pipeline.detectors.retinaface import RetinaFaceDetector
from restorer.pipeline.detectors.seam import Detection
from restorer.pipeline.picture import read_picture
from restorer.weights.read import read_checkpoint

SHARED = Path(__file__).resolve().parents[2] / "shared"
SIDES = {"p": 12, "r": 24, "o": 48}
each_stage = pytest.mark.parametrize("stage", SIDES)


def pool(side: int) -> nn.Module:
    return nn.MaxPool2d(side, 2, ceil_mode=True)


class Turned(nn.Module):
    """(N, C, h, w) -> (N, w*h*C)"""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 3).reshape(len(x), -1)


TRUNKS = {
    "p": {
        "conv1": lambda: nn.Conv2d(3, 10, 3), "prelu1": lambda: nn.PReLU(10), "pool1": lambda: pool(2),
        "conv2": lambda: nn.Conv2d(10, 16, 3), "prelu2": lambda: nn.PReLU(16),
        "conv3": lambda: nn.Conv2d(16, 32, 3), "prelu3": lambda: nn.PReLU(32),
    },
    "r": {
        "conv1": lambda: nn.Conv2d(3, 28, 3), "prelu1": lambda: nn.PReLU(28), "pool1": lambda: pool(3),
        "conv2": lambda: nn.Conv2d(28, 48, 3), "prelu2": lambda: nn.PReLU(48), "pool2": lambda: pool(3),
        "conv3": lambda: nn.Conv2d(48, 64, 2), "prelu3": lambda: nn.PReLU(64), "turn": Turned,
        "dense4": lambda: nn.Linear(576, 128), "prelu4": lambda: nn.PReLU(128),
    },
    "o": {
        "conv1": lambda: nn.Conv2d(3, 32, 3), "prelu1": lambda: nn.PReLU(32), "pool1": lambda: pool(3),
        "conv2": lambda: nn.Conv2d(32, 64, 3), "prelu2": lambda: nn.PReLU(64), "pool2": lambda: pool(3),
        "conv3": lambda: nn.Conv2d(64, 64, 3), "prelu3": lambda: nn.PReLU(64), "pool3": lambda: pool(2),
        "conv4": lambda: nn.Conv2d(64, 128, 2), "prelu4": lambda: nn.PReLU(128), "turn": Turned,
        "dense5": lambda: nn.Linear(1152, 256), "prelu5": lambda: nn.PReLU(256),
    },
}  # fmt: skip
HEADS = {
    "p": {"conv4_1": lambda: nn.Conv2d(32, 2, 1), "conv4_2": lambda: nn.Conv2d(32, 4, 1)},
    "r": {"dense5_1": lambda: nn.Linear(128, 2), "dense5_2": lambda: nn.Linear(128, 4)},
    "o": {
        "dense6_1": lambda: nn.Linear(256, 2),
        "dense6_2": lambda: nn.Linear(256, 4),
        "dense6_3": lambda: nn.Linear(256, 10),
    },
}


def published(stage: Stage) -> tuple[nn.Module, nn.ModuleDict]:
    """Trunk and heads by their published names, with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        trunk = nn.Sequential(OrderedDict((name, make()) for name, make in TRUNKS[stage].items()))
        heads = nn.ModuleDict({name: make() for name, make in HEADS[stage].items()})
        for module in trunk:
            if isinstance(module, nn.PReLU):
                module.weight.data.uniform_(-0.5, 0.8)
    return trunk.eval(), heads.eval()


def detector_of(*weights: dict[str, Tensor], least_side: int = 20) -> MTCNNDetector:
    engines = [
        open_engine(load_weights(each), kind="eager", device="cpu", precision="fp32", self_check=False)
        for each in weights
    ]
    return MTCNNDetector(*engines, least_side=least_side)


def face_weights(name: str) -> dict[str, Tensor]:
    path = SHARED / "weights" / "face" / f"{name}.safetensors"
    if not path.is_file():
        pytest.skip(f"{path.name} is not among the shared weights here")
    return read_checkpoint(path).weights


@pytest.fixture(scope="module")
def real() -> MTCNNDetector:
    return detector_of(*(face_weights(f"mtcnn_{stage}net") for stage in SIDES))


@pytest.fixture(scope="module")
def retinaface() -> RetinaFaceDetector:
    model = load_weights(face_weights("retinaface_mobilenet0.25"), facts={"form": "small"})
    return RetinaFaceDetector(open_engine(model, kind="eager", device="cpu", precision="fp32"), model.config)


def photo(name: str) -> np.ndarray:
    path = SHARED / "data" / name
    if not path.is_file():
        pytest.skip(f"{name} is not among the shared data here")
    pixels = read_picture(path).pixels
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


# The networks


@each_stage
def test_network_equals_the_published_layout(stage: Stage) -> None:
    trunk, heads = published(stage)
    model = load_weights({**trunk.state_dict(), **heads.state_dict()})
    assert (model.spec.name, model.config) == ("mtcnn", MTCNNConfig(stage=stage))
    side = 37 if stage == "p" else SIDES[stage]
    x = random_batch((3, 3, side, 29 if stage == "p" else side))
    with torch.no_grad():
        seen = trunk((x * 255 - 127.5) * 0.0078125)
        scores, *others = (head(seen) for head in heads.values())
        expected = torch.cat([scores.softmax(dim=1)[:, 1:], *others], dim=1)
        torch.testing.assert_close(model.network(x), expected, rtol=1e-4, atol=1e-6)


@each_stage
def test_own_names_are_found_too(stage: Stage) -> None:
    network = MTCNN(MTCNNConfig(stage=stage))
    assert load_weights(network.state_dict()).config.stage == stage


def test_sides_are_those_promised() -> None:
    network, least = MTCNN(MTCNNConfig(stage="p")), SPEC.traits(MTCNNConfig(stage="p")).min_side
    assert network(torch.zeros(1, 3, least, least + 2)).shape == (1, 5, 1, 2)
    with pytest.raises(RuntimeError):
        network(torch.zeros(1, 3, least - 1, least))
    for stage in ("r", "o"):
        assert SPEC.traits(MTCNNConfig(stage=stage)).fixed_size == (SIDES[stage], SIDES[stage])


@pytest.mark.parametrize(("stage", "count"), [("p", 6_632), ("r", 100_178), ("o", 389_040)])
def test_networks_have_their_number_of_parameters(stage: Stage, count: int) -> None:
    assert sum(parameter.numel() for parameter in MTCNN(MTCNNConfig(stage=stage)).parameters()) == count


@each_stage
def test_operations_are_those_of_the_layers(stage: Stage) -> None:
    config, counts = MTCNNConfig(stage=stage), []
    side = 2050 if stage == "p" else SIDES[stage]
    with torch.device("meta"):
        network, x = MTCNN(config), torch.zeros(1, 3, side, side)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda conv, _, y: counts.append(y[0, 0].numel() * conv.weight.numel()))
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda dense, _, y: counts.append(dense.weight.numel()))
    network(x)
    near = 0.01 if stage == "p" else 1e-9  # at the borders of a picture there is less to do
    assert SPEC.traits(config).operations == pytest.approx(sum(counts) / side**2, rel=near)


def test_unknown_stage_is_refused() -> None:
    with pytest.raises(ValueError, match="stage must be one of p, r, o, got q"):
        MTCNNConfig(stage="q")


# The cascade, worked by hand


def test_boxes_are_mended_and_landmarks_placed_in_parts_of_the_box() -> None:
    answers = np.array([[0.9, 0.1, -0.1, 0, 0.5, *np.linspace(0, 1, 5), *np.linspace(1, 0, 5)]])
    found = Found(boxes=np.array([[10.0, 20, 30, 60]]), answers=answers)
    assert found.mended().tolist() == [[12, 16, 30, 80]]
    assert found.landmarks().tolist() == [[[10, 60], [15, 50], [20, 40], [25, 30], [30, 20]]]


def test_squares_have_the_longer_side_and_the_same_centre() -> None:
    assert squared(np.array([[0.0, 0, 10, 20], [0, 0, 8, 4]])).tolist() == [[-5, 0, 15, 20], [0, -2, 8, 6]]


def test_pyramid_begins_with_the_least_face_and_ends_with_one_cell() -> None:
    levels = list(pyramid(np.zeros((60, 90, 3), np.uint8), 20))
    assert [level.pixels.shape[:2] for level in levels] == [(36, 54), (26, 39), (19, 28), (13, 20)]
    assert levels[0].ratios == pytest.approx((90 / 54, 60 / 36))
    assert list(pyramid(np.zeros((19, 900, 3), np.uint8), 20)) == []


def test_what_is_cut_beyond_the_picture_is_black() -> None:
    pixels = np.arange(1, 28, dtype=np.uint8).reshape(3, 3, 3)
    square = cut(pixels, np.array([-1.0, 1, 3, 5]), 4)
    expected = np.zeros((4, 4, 3), np.uint8)
    expected[:2, 1:] = pixels[1:]
    assert square.tolist() == expected.tolist()
    for outside in ((-9, -9, -5, -5), (5, 5, 9, 9), (2, 2, 2, 2)):
        assert cut(pixels, np.array(outside, np.float64), 4).shape == (4, 4, 3)


def test_proposals_are_the_cells_that_the_network_saw() -> None:
    class Fake:
        device = torch.device("cpu")

        def run(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
            y = torch.zeros(1, 5, 3, 5)
            y[0, :, 1, 4] = torch.tensor([0.8, 0.1, 0.2, 0.3, 0.4])
            return {"image": y}

    found = proposals(Fake(), Level(pixels=np.zeros((16, 20, 3), np.uint8), ratios=(2.0, 3.0)))
    assert found.boxes.tolist() == [[16, 6, 40, 42]]
    np.testing.assert_allclose(found.answers, [[0.8, 0.1, 0.2, 0.3, 0.4]], rtol=1e-6)


# Photos


def overlap(one: Detection, other: Detection) -> float:
    """Shared part of two boxes' union."""
    left, top = max(one.box[0], other.box[0]), max(one.box[1], other.box[1])
    right, bottom = min(one.box[2], other.box[2]), min(one.box[3], other.box[3])
    shared = max(0.0, right - left) * max(0.0, bottom - top)
    return shared / (area(one) + area(other) - shared)


def area(face: Detection) -> float:
    return (face.box[2] - face.box[0]) * (face.box[3] - face.box[1])


PHOTOS = {
    "faces_lq_codeformer/whole/00.jpg": 4,
    "faces_lq_codeformer/whole/03.jpg": 1,
    "faces_lq_gfpgan/whole/10045.png": 3,
    "faces_lq_gfpgan/whole/Blake_Lively.jpg": 2,
    "faces_lq_real/face_09.png": 1,
    "faces_hq_aligned256/000001.png": 1,
}


@pytest.mark.parametrize(("name", "count"), PHOTOS.items())
def test_cascade_finds_the_faces_that_retinaface_finds(
    real: MTCNNDetector, retinaface: RetinaFaceDetector, name: str, count: int
) -> None:
    pixels = photo(name)
    faces, others = real(pixels, least_score=0.9), retinaface(pixels)
    assert len(faces) == len(others) == count
    for other in others:
        face = max(faces, key=lambda face: overlap(face, other))
        assert overlap(face, other) > 0.7
        side = np.sqrt(area(other))
        assert np.abs(face.landmarks - other.landmarks).max() < 0.1 * side


def test_faces_are_where_they_are_in_a_larger_picture(real: MTCNNDetector) -> None:
    pixels = photo("faces_lq_codeformer/whole/03.jpg")
    (face,) = real(pixels)
    (large,) = real(pixels.repeat(5, axis=0).repeat(5, axis=1))
    np.testing.assert_allclose(large.landmarks, face.landmarks * 5, atol=0.05 * np.sqrt(area(large)))


@pytest.mark.parametrize("level", [0, 128, 255])
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (19, 19), (64, 64)])
def test_plain_picture_has_no_faces(real: MTCNNDetector, level: int, size: tuple[int, int]) -> None:
    assert real(np.full((*size, 3), level, np.uint8)) == []


def test_cascade_ends_whatever_the_networks_say() -> None:
    """Offsets of hundreds of sides ask for squares far outside the picture."""
    wild = [{**trunk.state_dict(), **heads.state_dict()} for trunk, heads in map(published, SIDES)]
    for weights in wild:
        for key in weights:
            if key.endswith("_2.bias"):
                weights[key] = torch.tensor([-400.0, -300, 500, 900])
            if key.endswith("_1.bias"):
                weights[key] = torch.tensor([-5.0, 5])
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
    faces = detector_of(*wild)(pixels)
    assert all(np.isfinite(face.landmarks).all() for face in faces)
