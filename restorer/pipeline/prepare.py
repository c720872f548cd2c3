"""One tile on its way in: pixels of any depth, grey or colour -> batch (N, 3, H, W) in [0, 1]."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from restorer.kernels.gather_tiles import gather_tiles
from restorer.networks.spec import Traits
from restorer.pipeline.finish import LUMA
from restorer.pipeline.lane import Lane
from restorer.pipeline.picture_types import Pixels
from restorer.pipeline.source import Block


def to_batch(blocks: Sequence[Block], *, channels: int, lane: Lane) -> Tensor:
    """N blocks (h, w, C) -> (N, channels, h, w) float32 in [0, 1] on the lane's device, channels last.

    They travel as the numbers that they are; what is made of them is made there. Grey is repeated, float clipped.
    """
    height, width = blocks[0].shape[:2]
    x = lane.send(np.vstack(blocks))  # (N h, w, C)
    tops = height * torch.arange(len(blocks), device=x.device)
    corners = torch.stack([tops, torch.zeros_like(tops)], 1)
    return gather_tiles(x, corners, (height, width), channels=channels)


def with_channels(pixels: Pixels, channels: int) -> Pixels:
    """(H, W, 1 or 3) -> (H, W, 1 or 3): grey is repeated, colour becomes its luma."""
    if pixels.shape[2] == channels:
        return pixels
    if channels == 1:
        grey = pixels.astype(np.float32) @ np.asarray(LUMA, np.float32)
        return (grey if pixels.dtype == np.float32 else np.rint(grey)).astype(pixels.dtype)[:, :, None]
    return np.repeat(pixels, channels, axis=2)


def pad_to(x: Tensor, traits: Traits) -> Tensor:
    """(N, C, h, w) -> (N, C, h', w'): grow right and bottom by mirroring, to the network's multiple and least side."""
    h, w = x.shape[-2:]
    return _grow(_grow(x, 2, padded_side(h, traits)), 3, padded_side(w, traits))


def padded_side(side: int, traits: Traits) -> int:
    """A side as the network takes it."""
    side = max(side, traits.min_side)
    return -(-side // traits.multiple_of) * traits.multiple_of


def _grow(x: Tensor, axis: int, side: int) -> Tensor:
    have = x.shape[axis]
    if have == side:
        return x
    index = torch.arange(side, device=x.device)
    period = max(1, 2 * have - 2)
    folded = index % period
    return x.index_select(axis, torch.minimum(folded, period - folded).clamp(max=have - 1))
