"""Which of the faces that were found are restored, and why the others are not."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from restorer.errors import UsageError
from restorer.pipeline.detectors.seam import Detection
from restorer.pipeline.faces.align import Matrix, to_template
from restorer.pipeline.settings import wanted_faces

NOT_CHOSEN = "was not chosen"


@dataclass(kw_only=True, eq=False)
class Face:
    """A face of one picture, and what became of it. Numbers count from 1, the largest face first."""

    number: int
    box: tuple[float, float, float, float]
    """Left, top, right, bottom in the picture's pixels."""
    landmarks: NDArray[np.float64]
    """(5, 2): x, y."""
    score: float
    strength: float = 1.0
    skipped: str = ""
    """Why it was left as it was; "" where it is restored."""
    matrix: Matrix | None = field(default=None, repr=False)
    likeness: float | None = None
    """How much the restored face is like the one before, -1 to 1, where a network for identity was given."""

    @property
    def side(self) -> float:
        """The longer side of its box."""
        left, top, right, bottom = self.box
        return max(right - left, bottom - top)

    def told(self) -> dict[str, object]:
        """As plain values, for JSON."""
        values: dict[str, object] = {
            "face": self.number,
            "box": [round(edge, 2) for edge in self.box],
            "landmarks": [[round(float(x), 2), round(float(y), 2)] for x, y in self.landmarks],
            "score": round(self.score, 4),
        }
        if self.skipped:
            return {**values, "skipped": self.skipped}
        likeness = {} if self.likeness is None else {"likeness": round(self.likeness, 4)}
        return {**values, "strength": self.strength, **likeness}


def choose(
    found: Sequence[Detection],
    size: tuple[int, int],
    *,
    only: str = "all",
    least: float = 0,
    most: float | None = None,
) -> list[Face]:
    """Detections in a picture of `size` (height, width) -> faces, numbered by size; `skipped` says why one is left out.

    `least` and `most` are sides of a face in pixels. UsageError: `only` names a face that is not there.
    """
    faces = [
        Face(number=number, box=each.box, landmarks=each.landmarks, score=each.score)
        for number, each in enumerate(sorted(found, key=_by_size), start=1)
    ]
    for face in faces:
        if face.side < least:
            face.skipped = f"is {face.side:.0f} pixels large, less than {least:g}"
        elif most is not None and face.side > most:
            face.skipped = f"is {face.side:.0f} pixels large, more than {most:g}"
        else:
            face.matrix = to_template(face.landmarks)
            face.skipped = "" if face.matrix is not None else "its landmarks lie on one another or on a line"
    _pick(faces, wanted_faces(only), size)
    return faces


def check_numbers(only: tuple[int, ...], count: int) -> None:
    """Refuse the number of a face that is not there; a picture without any face is told otherwise."""
    missing = [number for number in sorted(only) if number > count]
    if missing and count:
        raise UsageError(f"there is no face {missing[0]}, the picture has {count}; leave --only out to see all")


def _by_size(face: Detection) -> tuple[float, float, float]:
    left, top, right, bottom = face.box
    return (-max(right - left, bottom - top), left, top)


def _pick(faces: Sequence[Face], only: str | tuple[int, ...], size: tuple[int, int]) -> None:
    usable = [face for face in faces if not face.skipped]
    if only == "all":
        return
    if isinstance(only, tuple):
        check_numbers(only, len(faces))
        chosen = set(only)
    elif only == "largest":
        chosen = {face.number for face in usable[:1]}
    else:
        chosen = {face.number for face in sorted(usable, key=lambda face: _off_centre(face, size))[:1]}
    for face in usable:
        if face.number not in chosen:
            face.skipped = NOT_CHOSEN


def _off_centre(face: Face, size: tuple[int, int]) -> float:
    left, top, right, bottom = face.box
    return float(np.hypot((left + right - size[1]) / 2, (top + bottom - size[0]) / 2))
