"""RetinaFace on a picture: one pass over all of it, then of every face the surest box."""

from collections.abc import Sequence

import torch

from restorer.engines import Engine
from restorer.networks.retinaface import ANCHOR_SIDES, RetinaFaceConfig, anchors, decode_boxes, decode_landmarks
from restorer.pipeline.detectors.seam import Bytes, Detection, non_maximum_suppression, scaled, shrunk
from restorer.pipeline.lane import lane_to
from restorer.pipeline.prepare import to_batch

LONG_SIDE = 1600
"""Larger pictures are shrunk to this: memory stays bounded, and a face of a hundredth of the picture is still found."""
MOST_OVERLAP = 0.4
"""Two boxes that share more than this of their union are one face; as in facexlib."""


class RetinaFaceDetector:
    """(H, W, 3) RGB -> faces, the surest first.

    In a picture that is larger than twice the largest anchor, faces larger than that anchor are looked for in a smaller
    copy, since in the picture itself only parts of them look like faces. Otherwise the result is facexlib's.
    """

    name = "retinaface"

    def __init__(self, engine: Engine, config: RetinaFaceConfig, *, long_side: int = LONG_SIDE) -> None:
        self.engine, self.config, self.long_side = engine, config, long_side

    def __call__(self, pixels: Bytes, *, least_score: float = 0.97) -> list[Detection]:
        """See Detector."""
        largest = ANCHOR_SIDES[self.config.form][-1][-1]
        picture, ratios = shrunk(pixels, self.long_side)
        found = scaled(self._one_pass(picture, least_score), ratios)
        if max(picture.shape[:2]) <= 2 * largest:
            return found
        copy, copy_ratios = shrunk(pixels, 2 * largest)
        limit = largest * max(ratios)
        large = [each for each in scaled(self._one_pass(copy, least_score), copy_ratios) if _side(each) > 0.75 * limit]
        small = [each for each in found if _side(each) <= limit and not _inside_any(each, large)]
        return sorted(large + small, key=lambda each: -each.score)

    def _one_pass(self, pixels: Bytes, least_score: float) -> list[Detection]:
        x = to_batch([pixels], channels=3, lane=lane_to(self.engine.device))
        y = self.engine.run({"image": x})["image"][0].float().cpu()  # (A, 15)
        height, width = pixels.shape[:2]
        likely = torch.nonzero(y[:, 0] >= least_score)[:, 0]
        y, around = y[likely], anchors((height, width), self.config.form)[likely]
        sides = torch.tensor([width, height])
        boxes = (decode_boxes(y[:, 1:5], around) * sides.repeat(2)).numpy()
        landmarks = (decode_landmarks(y[:, 5:], around) * sides).double().numpy()
        scores = y[:, 0].numpy()
        kept = non_maximum_suppression(boxes, scores, most_overlap=MOST_OVERLAP)
        return [Detection(box=tuple(boxes[i].tolist()), landmarks=landmarks[i], score=float(scores[i])) for i in kept]


def _side(face: Detection) -> float:
    left, top, right, bottom = face.box
    return max(right - left, bottom - top)


def _inside_any(face: Detection, others: Sequence[Detection]) -> bool:
    """Whether more than half of a face's box is inside the box of one of the others."""
    left, top, right, bottom = face.box
    return any(
        2
        * max(0.0, min(right, other.box[2]) - max(left, other.box[0]))
        * max(0.0, min(bottom, other.box[3]) - max(top, other.box[1]))
        > (right - left) * (bottom - top)
        for other in others
    )
