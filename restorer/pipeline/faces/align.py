"""Where a face lies: from its five landmarks to the template on which networks for faces were trained, and back.

Letters: h w sides of the picture, x y places in it. A matrix (2, 3) takes (x, y, 1) to (x, y), centres of pixels at
whole numbers, as OpenCV and facexlib count.
"""

import math

import numpy as np
from numpy.typing import NDArray

from restorer.pipeline.codecs.deep import opencv
from restorer.pipeline.picture import PEAKS, Pixels

Matrix = NDArray[np.float64]
TEMPLATE = (
    (192.98138, 239.94708),
    (318.90277, 240.1936),
    (256.63416, 314.01935),
    (201.26117, 371.41043),
    (313.08905, 371.15118),
)
"""x, y of eyes, nose and corners of the mouth in an aligned face of `SIDE` pixels: facexlib's, from FFHQ."""
SIDE = 512
OUTSIDE = (135 / 255, 133 / 255, 132 / 255)
"""What an aligned face shows where there is no picture, RGB: facexlib's."""
MOST_TURN = 1e3
"""Times that a face may be larger or smaller than the template."""


def to_template(landmarks: NDArray[np.float64]) -> Matrix | None:
    """(5, 2) -> the turn, size and shift that bring them nearest to the template; None where there is none.

    Least median of squares, as facexlib: one landmark that is wrong does not turn the face.
    """
    if not np.isfinite(landmarks).all():
        return None
    matrix, _ = opencv().estimateAffinePartial2D(landmarks, np.array(TEMPLATE), method=opencv().LMEDS)
    if matrix is None or not np.isfinite(matrix).all():
        return None
    return np.asarray(matrix, np.float64) if 1 / MOST_TURN < size_of(matrix) < MOST_TURN else None


def size_of(matrix: Matrix) -> float:
    """Pixels of the template for one of the picture."""
    return math.hypot(matrix[0, 0], matrix[1, 0])


def then(first: Matrix, second: Matrix) -> Matrix:
    """The matrix that does `first` and then `second`."""
    return second[:, :2] @ first + np.array([[0, 0, second[0, 2]], [0, 0, second[1, 2]]])


def undone(matrix: Matrix) -> Matrix:
    """The matrix that takes back what `matrix` did."""
    turned = np.linalg.inv(matrix[:, :2])
    return np.concatenate([turned, -turned @ matrix[:, 2:]], axis=1)


def resized(across: float, down: float) -> Matrix:
    """The matrix of a picture made `across` and `down` times as large, corner on corner."""
    return np.array([[across, 0, (across - 1) / 2], [0, down, (down - 1) / 2]])


def corners(matrix: Matrix, side: int = SIDE) -> NDArray[np.float64]:
    """(4, 2): where the corners of an aligned face of `side` pixels lie in the picture."""
    ends = np.array([(-0.5, -0.5), (side - 0.5, -0.5), (side - 0.5, side - 0.5), (-0.5, side - 0.5)])
    back = undone(matrix)
    return ends @ back[:, :2].T + back[:, 2]


def within(matrix: Matrix, size: tuple[int, int], side: int = SIDE) -> NDArray[np.bool_]:
    """-> (side, side): where `aligned` shows a picture of `size` (height, width) with nothing of OUTSIDE mixed in."""
    edge = max(0.0, 1 / size_of(matrix) - 1) / 2  # a pixel of the smaller copy is whole if all that it averages is
    rows, columns = np.ogrid[:side, :side]
    inside = np.ones((side, side), bool)
    for (across, down, shift), length in zip(undone(matrix), reversed(size), strict=True):
        place = across * columns + down * rows + shift
        inside &= (place >= edge) & (place <= length - 1 - edge)
    return inside


def aligned(pixels: Pixels, matrix: Matrix, side: int = SIDE, *, is_cut: bool = False) -> NDArray[np.float32]:
    """(h, w, 1 or 3) of any depth -> (side, side, 3) in [0, 1]: the face that `matrix` brings to `side` pixels.

    Around the picture is grey, OUTSIDE; around a picture that `is_cut` to its face, more of its edge. A larger face is
    averaged down first, so that nothing flickers; a smaller one is interpolated linearly.
    """
    cv2 = opencv()
    height, width = pixels.shape[:2]
    around = corners(matrix, side)
    reach = 2 + math.ceil(1 / size_of(matrix))
    left, top = (max(0, math.floor(low) - reach) for low in around.min(0))
    right, bottom = (
        min(end, math.ceil(high) + reach + 1) for end, high in zip((width, height), around.max(0), strict=True)
    )
    if right <= left or bottom <= top:
        return np.full((side, side, 3), OUTSIDE, np.float32)
    part = pixels[top:bottom, left:right]
    inside = then(np.array([[1.0, 0, left], [0, 1.0, top]]), matrix)
    ratio = size_of(matrix)
    if ratio < 1:  # before anything is made floats: a face may fill a picture of a hundred megapixels
        small = [max(1, round(length * ratio)) for length in (part.shape[1], part.shape[0])]
        shrink = resized(small[0] / part.shape[1], small[1] / part.shape[0])
        part = cv2.resize(part, small, interpolation=cv2.INTER_AREA).reshape(small[1], small[0], -1)
        inside = then(undone(shrink), inside)
    part = (part.astype(np.float32) / np.float32(PEAKS[pixels.dtype.name])).clip(0, 1)
    part = np.repeat(part, 3, axis=2) if part.shape[2] == 1 else part
    face = cv2.warpAffine(
        part,
        inside,
        (side, side),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE if is_cut else cv2.BORDER_CONSTANT,
        borderValue=OUTSIDE,
    )
    return np.asarray(face, np.float32).clip(0, 1)
