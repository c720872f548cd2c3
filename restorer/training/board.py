"""The same readings and pictures for TensorBoard, where that package is installed."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from restorer import machine

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class Board:
    """Writes to RUN/tensorboard; does nothing where TensorBoard is not installed."""

    def __init__(self, folder: Path, *, step: int) -> None:
        """What was written after `step`, by a run that was then stopped, is no longer shown."""
        self._writer = _open(folder / "tensorboard", step + 1) if machine.installed("tensorboard") else None

    def tell(self, step: int, readings: Mapping[str, float]) -> None:
        """One point of each curve."""
        if self._writer is not None:
            for name, value in readings.items():
                self._writer.add_scalar(name, value, step)
            self._writer.flush()

    def show(self, step: int, pixels: NDArray[np.uint8]) -> None:
        """(H, W, C): the grid of this step."""
        if self._writer is not None:
            self._writer.add_image("pictures", pixels, step, dataformats="HWC")
            self._writer.flush()

    def close(self) -> None:
        """No more will come."""
        if self._writer is not None:
            self._writer.close()


def _open(folder: Path, purge_step: int) -> "SummaryWriter":
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=purge_step)
