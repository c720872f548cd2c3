"""YuNet on a picture, run by OpenCV: once over all of it, and over smaller copies for faces that are too large there.

Letters: B boxes, P places of one level, S its stride, H W sides of the picture.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restorer.errors import WeightsError
from restorer.pipeline.codecs.deep import opencv
from restorer.pipeline.detectors.seam import Bytes, Detection, non_maximum_suppression, scaled, shrunk

LONG_SIDE = 1600
"""Larger pictures are shrunk to this: a face of a hundredth of the picture is still found."""
LARGEST = 240
"""Side of the largest face that is taken from a picture of which a smaller copy is looked at too."""
COPIES = (480, 240)
"""Long sides of those copies: of a face larger than about 300 pixels, only parts look like one."""
STRIDES = (8, 16, 32)
MOST_OVERLAP = 0.3
"""Two boxes that share more than this of their union are one face; as in OpenCV."""
Floats = NDArray[np.float64]
Outputs = Mapping[str, NDArray[np.float32]]
"""cls_S, obj_S (1, P, 1), bbox_S (1, P, 4) and kps_S (1, P, 10), for every stride S."""
NAMES = tuple(f"{kind}_{stride}" for kind in ("cls", "obj", "bbox", "kps") for stride in STRIDES)


class YuNetDetector:
    """(H, W, 3) RGB -> faces, the surest first. One pass is what OpenCV's FaceDetectorYN does."""

    name = "yunet"

    def __init__(self, path: Path, *, long_side: int = LONG_SIDE) -> None:
        self.long_side = long_side
        self._net = _opened(path)

    def __call__(self, pixels: Bytes, *, least_score: float = 0.8) -> list[Detection]:
        """See Detector."""
        longest = min(max(pixels.shape[:2]), self.long_side)
        sides = [longest, *(side for side in COPIES if side < longest)]
        found: list[Detection] = []
        least = 0.0
        for side in sides:
            picture, ratios = shrunk(pixels, side)
            most = LARGEST * max(ratios) if side != sides[-1] else np.inf
            found += [
                face for face in scaled(self.one_pass(picture, least_score), ratios) if least < _side(face) <= most
            ]
            least = 0.75 * most  # what only just fits is looked for twice
        return _distinct(found)

    def one_pass(self, pixels: Bytes, least_score: float) -> list[Detection]:
        """(H, W, 3) -> its faces, those that fit; a face much larger than LARGEST may come in parts."""
        height, width = (-(-side // STRIDES[-1]) * STRIDES[-1] for side in pixels.shape[:2])
        padded = np.zeros((height, width, 3), np.uint8)
        padded[: pixels.shape[0], : pixels.shape[1]] = pixels
        self._net.setInput(opencv().dnn.blobFromImage(padded, swapRB=True))
        return decoded(dict(zip(NAMES, self._net.forward(NAMES), strict=True)), width, least_score)


def decoded(outputs: Outputs, width: int, least_score: float) -> list[Detection]:
    """What the network says of a picture `width` wide -> faces, the surest first."""
    levels = [_level(outputs, stride, width // stride, least_score) for stride in STRIDES]
    scores, boxes, landmarks = (np.concatenate(parts) for parts in zip(*levels, strict=True))
    kept = non_maximum_suppression(boxes, scores, most_overlap=MOST_OVERLAP)
    return [Detection(box=tuple(boxes[i].tolist()), landmarks=landmarks[i], score=float(scores[i])) for i in kept]


def _level(outputs: Outputs, stride: int, across: int, least_score: float) -> tuple[Floats, Floats, Floats]:
    """-> scores (B,), boxes (B, 4), landmarks (B, 5, 2) of the places of one level that are sure enough.

    A place says how far the face's centre and its landmarks lie from its own corner, and the logarithms of the face's
    sides, all in strides; two answers, whether it is a face and how well the box fits, make the score.
    """
    judged, fitting = (outputs[f"{kind}_{stride}"].reshape(-1).astype(np.float64) for kind in ("cls", "obj"))
    scores = np.sqrt(judged.clip(0, 1) * fitting.clip(0, 1))
    sure = np.nonzero(scores >= least_score)[0]
    places = np.stack([sure % across, sure // across], axis=1)
    box = outputs[f"bbox_{stride}"].reshape(-1, 4)[sure].astype(np.float64)
    centres, half = places + box[:, :2], np.exp(box[:, 2:]) / 2
    points = outputs[f"kps_{stride}"].reshape(-1, 5, 2)[sure].astype(np.float64) + places[:, None]
    return scores[sure], np.concatenate([centres - half, centres + half], axis=1) * stride, points * stride


def _distinct(found: Sequence[Detection]) -> list[Detection]:
    """Of faces that lie in each other for the most part, the surest."""
    boxes, scores = np.array([face.box for face in found]).reshape(-1, 4), np.array([face.score for face in found])
    return [found[i] for i in non_maximum_suppression(boxes, scores, most_overlap=0.5, of_smaller=True)]


def _side(face: Detection) -> float:
    left, top, right, bottom = face.box
    return max(right - left, bottom - top)


def _opened(path: Path) -> Any:
    """The network of an ONNX file, for OpenCV to run at any size."""
    cv2 = opencv()
    try:
        net = cv2.dnn.readNetFromONNX(np.frombuffer(path.read_bytes(), np.uint8))
        names = net.getUnconnectedOutLayersNames()
    except cv2.error as error:
        raise WeightsError(f"{path}: OpenCV cannot read it; get it again with: restorer models fetch yunet") from error
    if set(names) != set(NAMES):
        raise WeightsError(f"{path}: is an ONNX file, but no YuNet; give face_detection_yunet_2023mar.onnx")
    return net
