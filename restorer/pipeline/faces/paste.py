"""Restored faces into finished rows, in one pass at the picture's depth: what no mask covers stays as it was.

Letters: H W sides of the finished picture, C its channels with alpha, S side of an aligned face.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from restorer.kernels.choice import uses_triton
from restorer.kernels.paste_face import Affine, paste_face
from restorer.pipeline.codecs.deep import opencv
from restorer.pipeline.faces.align import Matrix, corners, resized, then, undone
from restorer.pipeline.finish import LUMA
from restorer.pipeline.picture import PEAKS
from restorer.pipeline.source import Block, RowTaker

Floats = NDArray[np.float32]
BAND = 256
"""Rows that are blended at a time."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Patch:
    """A restored face and where it goes."""

    pixels: Floats
    """(S, S, 3) in [0, 1]."""
    mask: Floats
    """(S, S) in [0, 1]: how much of the face is taken."""
    matrix: Matrix
    """From the unrestored picture to the aligned face."""


class Paster:
    """Takes finished rows, in order, blends faces into them, and hands them on."""

    def __init__(
        self, faces: Sequence["Placed"], take: RowTaker, *, channels: int, device: torch.device | None = None
    ) -> None:
        """The first of `faces` comes lowest. `channels` are those of colour; alpha beside them is left alone.

        On a `device` a kernel pastes, and otherwise OpenCV.
        """
        self._placed, self._device = faces, device
        self._take, self._channels, self._top = take, channels, 0

    def __call__(self, rows: Block) -> None:
        """(h, W, C): the next rows."""
        top, bottom = self._top, self._top + len(rows)
        self._top = bottom
        near = [placed for placed in self._placed if placed.top < bottom and placed.bottom > top]
        if near and not rows.flags.writeable:
            rows = rows.copy()
        for placed in near:
            for start in range(max(top, placed.top), min(bottom, placed.bottom), BAND):
                stop = min(start + BAND, bottom, placed.bottom)
                part = rows[start - top : stop - top, placed.left : placed.right, : self._channels]
                if self._device is None:
                    _blend(part, placed, start)
                else:
                    _blend_there(part, placed, start, self._device)
        self._take(rows)


@dataclass(frozen=True, kw_only=True, eq=False)
class Placed:
    """A patch in the finished picture's pixels."""

    pixels: Floats
    """(h, w, 3): at most S high and wide."""
    mask: Floats
    """(h, w)"""
    matrix: Matrix
    """From the finished picture to the patch."""
    top: int
    left: int
    bottom: int
    right: int


def place(patch: Patch, size_in: tuple[int, int], size: tuple[int, int]) -> Placed | None:
    """Where a face goes in the finished picture of `size` (height, width); None where nothing of it is inside.

    A face that becomes small there is made small now, so hundreds of them take little memory.
    """
    down, across = (out / before for out, before in zip(size, size_in, strict=True))
    grown = resized(across, down)
    matrix = then(undone(grown), patch.matrix)
    around = corners(matrix, len(patch.mask))
    pixels, mask, matrix = _shrunk(patch.pixels, patch.mask, matrix)
    left, top = (max(0, math.floor(low)) for low in around.min(0))
    right, bottom = (min(end, math.ceil(high) + 1) for end, high in zip(size[::-1], around.max(0), strict=True))
    if right <= left or bottom <= top:
        return None
    return Placed(pixels=pixels, mask=mask, matrix=matrix, top=top, left=left, bottom=bottom, right=right)


def _shrunk(pixels: Floats, mask: Floats, matrix: Matrix) -> tuple[Floats, Floats, Matrix]:
    """Average a face that is wider or higher than its place down to it, so that nothing flickers."""
    cv2 = opencv()
    side = len(mask)
    width, height = (min(side, math.ceil(side * length)) for length in np.linalg.norm(undone(matrix)[:, :2], axis=0))
    if (width, height) == (side, side):
        return pixels, mask, matrix
    pixels, mask = (
        np.asarray(cv2.resize(each, (width, height), interpolation=cv2.INTER_AREA), np.float32)
        for each in (pixels, mask)
    )
    return pixels, mask, then(matrix, resized(width / side, height / side))


def where_it_pays(device: torch.device) -> torch.device | None:
    """Where the network of faces runs -> the same where a kernel is proven there, else None."""
    return device if uses_triton("paste_face", "auto", torch.empty(0, device=device)) else None


def _blend_there(rows: Block, placed: Placed, start: int, device: torch.device) -> None:
    """(h, w, C): as `_blend`, on a device."""
    inside = then(np.array([[1.0, 0, placed.left], [0, 1.0, start]]), placed.matrix)
    there, face, mask = (
        torch.from_numpy(np.ascontiguousarray(each)).to(device) for each in (rows, placed.pixels, placed.mask)
    )
    paste_face(there, face.permute(2, 0, 1), mask, cast(Affine, tuple(inside.flatten().tolist())))
    rows[...] = there.cpu().numpy()


def _blend(rows: Block, placed: Placed, start: int) -> None:
    """Rows from `start` on, columns of the patch: mask * face + (1 - mask) * what is there, rounded, in place."""
    cv2 = opencv()
    height, width, channels = rows.shape
    inside = then(np.array([[1.0, 0, placed.left], [0, 1.0, start]]), placed.matrix)
    flags = cv2.WARP_INVERSE_MAP
    mask = cv2.warpAffine(placed.mask, inside, (width, height), flags=flags | cv2.INTER_LINEAR)
    covered = mask > 0
    if not covered.any():
        return
    face = cv2.warpAffine(
        placed.pixels, inside, (width, height), flags=flags | cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    if channels == 1:
        face = (face @ np.array(LUMA, np.float32))[:, :, None]
    peak = np.float32(PEAKS[rows.dtype.name])
    before = rows[covered].astype(np.float32)
    # what floats hold above white is no part of the face, and stays
    after = before + mask[covered][:, None] * (face[covered].clip(0, 1) * peak - before.clip(0, peak))
    rows[covered] = after if rows.dtype == np.float32 else np.rint(after.clip(0, peak)).astype(rows.dtype)
