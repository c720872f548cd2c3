"""The way of pixels to a device and back, as the numbers that they are, beside what is computed there meanwhile."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor

from restorer.pipeline.source import Block

Later = Callable[[], Block]
"""Waits for what is on its way, and gives it."""


class Lane(Protocol):
    """To one device and back."""

    ahead: int
    """How many batches may be under way before the first of them is waited for."""

    def send(self, block: NDArray[Any]) -> Tensor:
        """Any shape -> the same numbers on the device; the array is left alone from then on."""

    def fetch(self, x: Tensor) -> Later:
        """Any shape on the device -> what gives the same numbers here."""


class Direct:
    """To where nothing runs by itself: all that is asked for is done at once."""

    ahead = 0

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def send(self, block: NDArray[Any]) -> Tensor:
        """See Lane.send."""
        return torch.from_numpy(block).to(self._device)

    def fetch(self, x: Tensor) -> Later:
        """(...) on the device -> what gives the same numbers here: see Lane.fetch."""
        block = x.cpu().numpy()
        return lambda: block


class Streams:
    """To a CUDA device: page-locked memory, one stream up and one down, beside the one that computes.

    PyTorch keeps page-locked blocks that are free again, so that two of each size suffice.
    """

    ahead = 1

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._up, self._down = torch.cuda.Stream(device), torch.cuda.Stream(device)

    def send(self, block: NDArray[Any]) -> Tensor:
        """See Lane.send."""
        waiting = torch.from_numpy(block).pin_memory()
        computing = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._up):
            x = waiting.to(self._device, non_blocking=True)
        computing.wait_stream(self._up)
        x.record_stream(computing)
        return x

    def fetch(self, x: Tensor) -> Later:
        """(...) on the device -> what gives the same numbers here: see Lane.fetch."""
        self._down.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._down):
            here = torch.empty(x.shape, dtype=x.dtype, pin_memory=True)
            here.copy_(x, non_blocking=True)
            done = self._down.record_event()
        x.record_stream(self._down)

        def wait() -> Block:
            done.synchronize()
            return here.numpy()

        return wait


@lru_cache(maxsize=16)
def lane_to(device: torch.device) -> Lane:
    """What is used for a device."""
    return Streams(device) if device.type == "cuda" else Direct(device)
