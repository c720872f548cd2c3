"""How much of a restored face is taken at each pixel: from what the pixels belong to, or from five landmarks.

Letters: N faces, K classes, S side of an aligned face.
"""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from restorer.networks import parsenet
from restorer.pipeline.codecs.deep import opencv
from restorer.pipeline.faces.align import SIDE

Floats = NDArray[np.float32]
NOT_FACE = ("background", "hat", "necklace", "neck", "cloth")
"""All else is of the face: hair, ears and earrings too, since they are restored with it; as in facexlib."""
REACH, SIGMA, BORDER = 50, 11.0, 10
"""Of the blur, which is applied twice, and the width of the border where nothing is taken, at SIDE; as in facexlib."""
INSET = 43
"""How far from the border the hull ends, so that it has faded where nothing is taken."""
FOREHEAD, CHIN, CHEEK = 0.92, 0.66, 0.98
"""How far the hull goes: above the eyes and below the mouth in distances of the two, to each side in face sizes."""
TURN = 0.35
"""Part of the nose's way from the middle that the hull is moved the other way: a face turned aside shows more there."""
EXPONENT = 2.4
"""2 is an ellipse, more is nearer to the box around it."""


def mask_of_classes(logits: Tensor, classes: Mapping[str, int] = parsenet.CLASSES) -> Floats:
    """(N, K, S, S) -> (N, S, S) in [0, 1]: softly, where the likeliest class is of the face.

    `classes` are those of the network, whose file has them.
    """
    face = [number for name, number in classes.items() if name not in NOT_FACE]
    found = torch.isin(logits.argmax(dim=1), torch.tensor(face, device=logits.device))
    return np.stack([softened(each) for each in found.float().cpu().numpy()])


def hull_mask(landmarks: NDArray[np.floating], side: int = SIDE) -> Floats:
    """(5, 2) in pixels of an aligned face of `side` -> (side, side) in [0, 1]: softly, from forehead to chin."""
    left_eye, right_eye, nose, left_mouth, right_mouth = landmarks.astype(np.float64)
    eyes, mouth = (left_eye + right_eye) / 2, (left_mouth + right_mouth) / 2
    length = max(float(np.linalg.norm(mouth - eyes)), side / 16)
    size = max(float(np.linalg.norm(right_eye - left_eye)), length)
    x, y = (eyes + mouth) / 2 + (0, (CHIN - FOREHEAD) / 2 * length)
    x -= TURN * (nose[0] - x)
    rows, columns = np.ogrid[:side, :side]
    across = np.abs(columns - x) / (CHEEK * size)
    down = np.abs(rows - y) / ((FOREHEAD + 1 + CHIN) / 2 * length)
    room = (0.5 - INSET / SIDE) * side
    middle = (side - 1) / 2
    within = (np.abs(rows - middle) <= room) & (np.abs(columns - middle) <= room)
    return softened((within & (across**EXPONENT + down**EXPONENT <= 1)).astype(np.float32))


def softened(mask: Floats) -> Floats:
    """(S, S) in [0, 1] -> same: blurred twice, and nothing at the border."""
    cv2 = opencv()
    ratio = len(mask) / SIDE
    reach, border = (max(1, round(length * ratio)) for length in (REACH, BORDER))
    for _ in range(2):
        mask = cv2.GaussianBlur(mask, (2 * reach + 1, 2 * reach + 1), SIGMA * ratio)
    soft = np.zeros_like(mask)
    soft[border:-border, border:-border] = mask[border:-border, border:-border]
    return soft
