"""Eyes and mouth of an aligned face: where they are, cut out, and how alike two are (GFPGAN, arXiv:2101.04061).

Places are in pixels of the face, x and y, centres at whole numbers. Letters: N batch, C channels, S side of the face.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from restorer.losses.perceptual import gram
from restorer.pipeline.faces.align import SIDE, TEMPLATE

Part = Literal["left_eye", "right_eye", "mouth"]
PARTS: tuple[Part, ...] = ("left_eye", "right_eye", "mouth")
"""Left and right are the picture's."""
SIDES: dict[Part, int] = {"left_eye": 80, "right_eye": 80, "mouth": 120}
"""Of what is cut out of an aligned face of `SIDE` pixels."""
LEVELS = (0.5, 1.0)
"""How much the finer and the coarser features of a component count in its style."""


class Box(NamedTuple):
    """Edges of what is cut out; an edge at 0.5 is between the first and the second pixel."""

    left: float
    top: float
    right: float
    bottom: float


class Place(NamedTuple):
    """Where a component is, and the side of the picture that is made of it."""

    box: Box
    side: int


def places(side: int) -> dict[Part, Place]:
    """Find the components of an aligned face of `side` pixels, by the template that it was aligned to.

    GFPGAN reads a box for each face from a file of FFHQ's landmarks: its middle is the mean of the component's
    landmarks, its side the longer of their width and height, for eyes 1.4 times that, and what it makes of them has
    sides of 80 and 120. Here every face has boxes of just these sides around the template's landmarks. A mirrored face
    has its components in the mirrored boxes; so that these are the same, the template is averaged with its own mirror
    image, which moves eyes by less than half a pixel of 512 and the mouth by less than two.
    """
    found: dict[Part, Place] = {}
    for part, (x, y) in _middles().items():
        scale = side / SIDE
        half = SIDES[part] * scale / 2
        across, down = ((middle + 0.5) * scale - 0.5 for middle in (x, y))
        box = Box(across - half, down - half, across + half, down + half)
        found[part] = Place(box, max(1, round(2 * half)))
    return found


def crop(faces: Tensor, box: Box, side: int) -> Tensor:
    """(N, C, S, S) -> (N, C, side, side): what is in the box of each, linear between pixels.

    Each pixel is the mean of as many samples as there are pixels under it, across and down, as in Mask R-CNN's RoIAlign
    (arXiv:1703.06870). All faces share the box, so two small matrices do it: gradients then add up in one order on
    every device, which those of RoIAlign do not. Beyond the edge is more of the edge.
    """
    exact = faces.to(torch.promote_types(faces.dtype, torch.float32))
    rows = _sampling(box.top, box.bottom, side, faces.shape[-2], like=(exact.dtype, exact.device))
    columns = _sampling(box.left, box.right, side, faces.shape[-1], like=(exact.dtype, exact.device))
    with torch.autocast(faces.device.type, enabled=False):
        return (rows @ (exact @ columns.T)).to(faces.dtype)


def component_style(fake: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """(N, C, h, w) of two levels, same -> (): L1 of their Gram matrices, half of the finer and all of the coarser.

    The features are those of a `ComponentDiscriminator`; the real ones are held still.
    """
    pairs = zip(LEVELS, fake, real, strict=True)
    return torch.stack([weight * F.l1_loss(gram(one), gram(other.detach())) for weight, one, other in pairs]).sum()


@lru_cache(maxsize=64)
def _sampling(start: float, stop: float, side: int, length: int, *, like: tuple[torch.dtype, torch.device]) -> Tensor:
    """-> (side, length): how much each of `length` pixels counts in each of `side` pixels between two edges."""
    samples = max(1, math.ceil((stop - start) / side - 1e-3))  # lengths are floats: 80.00001 pixels are 80
    with torch.inference_mode(False), torch.device("cpu"):  # what is kept must serve training too
        steps = (torch.arange(side * samples, dtype=torch.float64) + 0.5) / (side * samples)
        at = (start + steps * (stop - start)).clamp(0, length - 1)
        near = (1 - (at[:, None] - torch.arange(length)).abs()).clamp(min=0)  # (side * samples, length)
        return near.view(side, samples, length).mean(1).to(like[0]).to(like[1])


def _middles() -> dict[Part, tuple[float, float]]:
    """x and y of each component in the symmetric template."""
    left, right, _, *corners = TEMPLATE
    end = SIDE - 1
    apart, eyes = (right[0] - left[0]) / 2, (left[1] + right[1]) / 2
    mouth = sum(y for _, y in corners) / len(corners)
    return {"left_eye": (end / 2 - apart, eyes), "right_eye": (end / 2 + apart, eyes), "mouth": (end / 2, mouth)}
