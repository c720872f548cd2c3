"""MTCNN on a picture: proposals at every size, then two networks that look closer at what is left.

Letters: B boxes, as left, top, right, bottom.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from restorer.engines import Engine
from restorer.pipeline.codecs.deep import opencv
from restorer.pipeline.detectors.seam import Bytes, Detection, non_maximum_suppression, scaled, shrunk
from restorer.pipeline.lane import lane_to
from restorer.pipeline.prepare import to_batch

LONG_SIDE = 1600
STEP = 0.709
"""Side of each picture of the pyramid over that of the one before: its area is halved."""
STRIDE, CELL = 2, 12
"""The first network answers at every second pixel, on a square of this side."""
PROPOSED_FROM, REFINED_FROM = 0.6, 0.7
"""Least scores of the first two networks; as in facenet-pytorch."""
AT_ONCE = 512
"""Most squares in one batch."""
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """What one network says of B boxes."""

    boxes: Floats
    """(B, 4)"""
    answers: Floats
    """(B, 5 or 15): score; how far the true sides lie from the box's; x of landmarks, then y; in parts of the box."""

    @property
    def scores(self) -> Floats:
        """(B,)"""
        return self.answers[:, 0]

    def take(self, which: NDArray[np.intp] | NDArray[np.bool_]) -> "Found":
        """Keep some of the boxes."""
        return Found(boxes=self.boxes[which], answers=self.answers[which])

    def suppressed(self, most_overlap: float) -> "Found":
        """Of boxes that share more than this of their union, keep the best."""
        return self.take(non_maximum_suppression(self.boxes, self.scores, most_overlap=most_overlap))

    def mended(self) -> Floats:
        """-> (B, 4): the boxes with their sides where the network says."""
        return self.boxes + self.answers[:, 1:5] * np.tile(self.boxes[:, 2:] - self.boxes[:, :2], 2)

    def landmarks(self) -> Floats:
        """-> (B, 5, 2): x and y of the landmarks in the picture."""
        points = self.answers[:, 5:].reshape(-1, 2, 5).transpose(0, 2, 1)
        return self.boxes[:, None, :2] + points * (self.boxes[:, 2:] - self.boxes[:, :2])[:, None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Level:
    """One picture of the pyramid, and what its x and y are multiplied by to be those of the whole picture."""

    pixels: Bytes
    ratios: tuple[float, float]


class MTCNNDetector:
    """(H, W, 3) RGB -> faces, the surest first."""

    name = "mtcnn"

    def __init__(
        self, propose: Engine, refine: Engine, output: Engine, *, least_side: int = 20, long_side: int = LONG_SIDE
    ) -> None:
        self.propose, self.refine, self.output = propose, refine, output
        self.least_side, self.long_side = least_side, long_side

    def __call__(self, pixels: Bytes, *, least_score: float = 0.7) -> list[Detection]:
        """See Detector."""
        small, ratios = shrunk(pixels, self.long_side)
        levels = [proposals(self.propose, level).suppressed(0.5) for level in pyramid(small, self.least_side)]
        if not levels:
            return []
        refined = looked_at(self.refine, small, squared(joined(levels).suppressed(0.7).mended()), REFINED_FROM)
        last = looked_at(self.output, small, squared(refined.suppressed(0.7).mended()), least_score)
        boxes, landmarks = last.mended(), last.landmarks()
        kept = non_maximum_suppression(boxes, last.scores, most_overlap=0.7, of_smaller=True)
        found = [
            Detection(box=tuple(boxes[i].tolist()), landmarks=landmarks[i], score=float(last.scores[i])) for i in kept
        ]
        return scaled(found, ratios)


def pyramid(pixels: Bytes, least_side: int) -> Iterator[Level]:
    """(H, W, 3) -> smaller and smaller copies, in the first of which a face of `least_side` fills a cell."""
    cv2 = opencv()
    height, width = pixels.shape[:2]
    scale = CELL / least_side
    while min(height, width) * scale >= CELL:
        h, w = int(np.ceil(height * scale)), int(np.ceil(width * scale))
        copy = cv2.resize(pixels, (w, h), interpolation=cv2.INTER_AREA)
        yield Level(pixels=copy, ratios=(width / w, height / h))
        scale *= STEP


def proposals(engine: Engine, level: Level) -> Found:
    """What the first network sees in one picture of the pyramid, in pixels of the whole one."""
    answers = _run(engine, [level.pixels])[0]  # (5, h, w)
    rows, columns = np.nonzero(answers[0] >= PROPOSED_FROM)
    corners = STRIDE * np.stack([columns, rows], axis=1)
    boxes = np.concatenate([corners, corners + CELL], axis=1) * np.tile(level.ratios, 2)
    return Found(boxes=boxes, answers=answers[:, rows, columns].T)


def joined(parts: Sequence[Found]) -> Found:
    """All boxes of some, one after another."""
    return Found(
        boxes=np.concatenate([part.boxes for part in parts]), answers=np.concatenate([part.answers for part in parts])
    )


def squared(boxes: Floats) -> Floats:
    """(B, 4) -> (B, 4): squares of the longer side around the same centres."""
    centres, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    half = sides.max(axis=1, keepdims=True) / 2
    return np.concatenate([centres - half, centres + half], axis=1)


def looked_at(engine: Engine, pixels: Bytes, squares: Floats, least_score: float) -> Found:
    """(H, W, 3), (B, 4) -> what a later network says of the squares, of those with at least `least_score`."""
    assert engine.traits.fixed_size is not None
    side, reach = engine.traits.fixed_size[0], max(pixels.shape[:2])
    boxes = np.concatenate([np.floor(squares[:, :2]), np.ceil(squares[:, 2:])], axis=1).clip(-reach, 2 * reach)
    parts = [
        _run(engine, [cut(pixels, box, side) for box in boxes[start : start + AT_ONCE]])
        for start in range(0, len(boxes), AT_ONCE)
    ]
    found = Found(boxes=boxes, answers=np.concatenate(parts) if parts else np.zeros((0, 15)))
    return found.take(found.scores >= least_score)


def cut(pixels: Bytes, box: Floats, side: int) -> Bytes:
    """(H, W, 3), (4,) whole numbers -> (side, side, 3): what is in the box, black outside the picture."""
    cv2 = opencv()
    left, top, right, bottom = (int(edge) for edge in box)
    square = np.zeros((max(1, bottom - top), max(1, right - left), 3), np.uint8)
    inside = pixels[max(0, top) : max(0, bottom), max(0, left) : max(0, right)]
    down, across = max(0, -top), max(0, -left)
    square[down : down + inside.shape[0], across : across + inside.shape[1]] = inside
    resized: Bytes = cv2.resize(square, (side, side), interpolation=cv2.INTER_AREA)
    return resized


def _run(engine: Engine, pictures: Sequence[Bytes]) -> Floats:
    """N pictures of one size -> what the network says of them."""
    x = to_batch(pictures, channels=3, lane=lane_to(engine.device))
    return engine.run({"image": x})["image"].double().cpu().numpy()
