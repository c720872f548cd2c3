"""How a model is run: one batch at a time, on one device, in one precision."""

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor

from restorer.errors import unknown_name
from restorer.networks.spec import Model, Traits


class Engine(Protocol):
    """Runs batches of named tensors, (N, C, h, w) in [0, 1], RGB, float32, on `device`; never sees a file."""

    name: str
    traits: Traits
    device: torch.device
    dtype: torch.dtype
    """What the bulk of the network computes in."""
    memory_total: int
    """Bytes the device has in all, whoever uses them now."""
    notes: tuple[str, ...]
    """What was chosen and why, and what was given up; one sentence each."""
    run_again: Callable[[Tensor], Tensor] | None
    """The same network in float32, for a tile that failed in half precision; None where it is float32 already."""
    pixels_per_second: float
    """Input pixels a second, as measured on one small batch when the engine was opened."""

    def run(self, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """{"image": (N, C, h, w)} -> {"image": (N, C, scale*h, scale*w)}, float32, not clipped.

        Raises OutOfMemoryError where the batch does not fit.
        """


ENGINES = {"eager": "PyTorch, operation by operation"}


def open_engine(
    model: Model, *, kind: str = "auto", device: str = "auto", precision: str = "auto", self_check: bool = True
) -> Engine:
    """Put a model on a device, in a precision, behind an engine. `auto` is decided by rules that `doctor` explains."""
    from restorer.engines.eager import EagerEngine

    if kind not in ("auto", *ENGINES):
        raise unknown_name("engine", kind, ("auto", *ENGINES))
    return EagerEngine(model, device=device, precision=precision, self_check=self_check)
