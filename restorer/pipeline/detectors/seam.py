"""What a face detector takes and gives, and what two of them need.

Coordinates count pixels from the picture's left and top edge: its right edge is at `width`, and the centre of its first
pixel is at 0.5. So a place in a smaller copy is a place in the picture times the ratio of their sides.

Letters: B boxes, H W sides of the picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from restorer.pipeline.codecs.deep import opencv

Floats = NDArray[np.floating]
Bytes = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, eq=False)
class Detection:
    """One face in a picture, in the picture's pixels."""

    box: tuple[float, float, float, float]
    """Left, top, right, bottom; a face at the border may reach over it."""
    landmarks: NDArray[np.float64]
    """(5, 2): x, y of the left eye, the right eye, the nose, the left and the right corner of the mouth, as seen."""
    score: float
    """In [0, 1]; how sure the detector is."""


class Detector(Protocol):
    """(H, W, 3) RGB -> faces, the surest first."""

    @property
    def name(self) -> str:
        """What the detector is called in messages."""

    def __call__(self, pixels: Bytes, *, least_score: float = ...) -> list[Detection]:
        """Find the faces of (H, W, 3) pixels whose score is at least `least_score`."""


def shrunk(pixels: Bytes, long_side: int) -> tuple[Bytes, tuple[float, float]]:
    """(H, W, 3) -> (h, w, 3) whose long side is at most `long_side`, and (W / w, H / h) to multiply x and y by.

    Pixels are averaged by area; smaller pictures come back as they are.
    """
    if long_side < 1:
        raise ValueError(f"long_side must be at least 1, got {long_side}")
    height, width = pixels.shape[:2]
    longest = max(height, width)
    if longest <= long_side:
        return pixels, (1.0, 1.0)
    small_height, small_width = (max(1, round(side * long_side / longest)) for side in (height, width))
    cv2 = opencv()
    small = cv2.resize(pixels, (small_width, small_height), interpolation=cv2.INTER_AREA)
    return small, (width / small_width, height / small_height)


def scaled(detections: Sequence[Detection], ratios: tuple[float, float]) -> list[Detection]:
    """Multiply x and y of `detections` by `ratios`, as `shrunk` gives them."""
    across, down = ratios
    return [
        Detection(
            box=(each.box[0] * across, each.box[1] * down, each.box[2] * across, each.box[3] * down),
            landmarks=each.landmarks * (across, down),
            score=each.score,
        )
        for each in detections
    ]


def non_maximum_suppression(
    boxes: Floats, scores: Floats, *, most_overlap: float, of_smaller: bool = False
) -> NDArray[np.intp]:
    """(B, 4) of left, top, right, bottom, (B,) -> indices of the boxes to keep, the best first.

    A box goes when a better one that stays shares more than `most_overlap` with it: of their union, or `of_smaller` of
    the smaller of the two. Equal scores keep their order.
    """
    order = np.argsort(-scores, kind="stable")
    corners = boxes.astype(np.float64)
    areas = _area(corners)
    kept: list[int] = []
    while order.size:
        best, rest = order[0], order[1:]
        kept.append(int(best))
        shared = np.concatenate(
            [np.maximum(corners[best, :2], corners[rest, :2]), np.minimum(corners[best, 2:], corners[rest, 2:])], axis=1
        )
        common = _area(shared)
        whole = np.minimum(areas[best], areas[rest]) if of_smaller else areas[best] + areas[rest] - common
        order = rest[common <= most_overlap * whole]
    return np.array(kept, dtype=np.intp)


def _area(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """(B, 4) -> (B,): zero for boxes that are inside out."""
    sides = np.maximum(0, boxes[:, 2:] - boxes[:, :2])
    return sides[:, 0] * sides[:, 1]
