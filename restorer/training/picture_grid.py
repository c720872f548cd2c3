"""Batches side by side, as one picture on disk."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from restorer.pipeline.picture import Picture, write_picture

GAP = 4
"""White pixels between pictures."""


def write_grid(path: Path, columns: Sequence[Tensor]) -> NDArray[np.uint8]:
    """[(N, C, H, W) in [0, 1], ...] -> (rows, columns, C): a PNG with a row for each of N, a column for each batch."""
    cells = torch.stack([column.detach().float().cpu().clamp(0, 1) for column in columns])  # (K, N, C, H, W)
    framed = torch.nn.functional.pad(cells, (0, GAP, 0, GAP), value=1.0)
    count, rows, channels, height, width = framed.shape
    sheet = framed.permute(1, 3, 0, 4, 2).reshape(rows * height, count * width, channels)
    pixels = np.ascontiguousarray((sheet[:-GAP, :-GAP] * 255).round().to(torch.uint8).numpy())
    write_picture(Picture(pixels=pixels), path)
    return pixels
