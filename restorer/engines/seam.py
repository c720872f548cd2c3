"""The seam: what every engine is, and how one is opened."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from restorer.networks.bands import Bands, PictureRows
from restorer.networks.spec import Model, Traits


class Walk(Protocol):
    """Takes a whole picture through a network in bands of rows: see networks/bands.py."""

    def __call__(self, picture: PictureRows, bands: Bands, *, exact: bool = False) -> Iterator[tuple[int, Tensor]]:
        """Rows (1, C, h, W) in [0, 1] -> (first row, (1, C', h, W)), not clipped; `exact` computes in float32.

        Raises OutOfMemoryError where the maps do not fit.
        """


class Stream(Protocol):
    """Takes a picture through a network rows after rows: see networks/stages.py."""

    def __call__(self, bands: Iterable[Tensor], *, exact: bool = False) -> Iterator[Tensor]:
        """(1, C, h, W) in [0, 1], from top to bottom -> (1, C', h', W'), not clipped; `exact` computes in float32.

        Raises OutOfMemoryError where what must be kept does not fit.
        """


class Engine(Protocol):
    """Runs batches of named tensors, (N, C, h, w) in [0, 1], RGB, float32, on `device`; never sees a file."""

    name: str
    traits: Traits
    device: torch.device
    """Where its batches are."""
    where: str
    """What really computes: a device, or a library's name for one."""
    on_cpu: bool
    """A processor computes: small windows pay there."""
    eight_bit: bool
    """It takes and gives whole levels of 255: deeper pictures lose what lies between."""
    dtype: torch.dtype
    """What the bulk of the network computes in."""
    memory_total: int
    """Bytes the device has in all, whoever uses them now."""
    notes: tuple[str, ...]
    """What was chosen and why, and what was given up; one sentence each."""
    run_again: Callable[[Tensor], Tensor] | None
    """The same network in float32, for a tile that failed in half precision; None where it is float32 already."""
    walk: Walk | None
    """What a network goes through that only knows whole pictures, too large for one go; None where there is none."""
    stream: Stream | None
    """What a picture goes through rows after rows, as exact as in one go; None where there is no such way."""
    twins: "Sequence[Engine]"
    """The same network in the same precision on other devices: a picture that is large enough is shared with them."""
    pixels_per_second: float
    """Input pixels a second, as measured on one small batch when the engine was opened."""

    def run(self, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """{"image": (N, C, h, w)} -> {"image": (N, C, scale*h, scale*w)}, float32, not clipped.

        Raises OutOfMemoryError where the batch does not fit.
        """


class Open(Protocol):
    """Makes an engine of a model."""

    def __call__(
        self, model: Model, *, device: str = "auto", precision: str = "auto", self_check: bool = True
    ) -> Engine:
        """`auto` is decided by the engine; what it cannot do is refused with the cure."""
