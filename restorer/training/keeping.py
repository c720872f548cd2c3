"""What all sources of pictures do: keep decoded ones while there is room, and pass over those that cannot be used."""

import logging
import threading
from collections.abc import Callable, Hashable
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from restorer import machine
from restorer.errors import DataError, PictureError
from restorer.training.objective import derived_seed

log = logging.getLogger(__name__)
Crop = NDArray[Any]
"""(h, w, C) of uint8, uint16 or float32."""
Taken = TypeVar("Taken")
_TOLD = 5
"""Bad files that are named; after them, only counted."""


class Kept:
    """Decoded pictures, until the room is full. Safe to be asked by several threads."""

    def __init__(self, share: float, processes: int) -> None:
        """`share` of the machine's memory, which `processes` share."""
        self._room = int(share * machine.look().memory_total / processes)
        self._kept: dict[Hashable, tuple[Crop, ...]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Hashable, read: Callable[[], tuple[Crop, ...]]) -> tuple[Crop, ...]:
        """What is kept under this key; what is not is read, and kept where there is room."""
        found = self._kept.get(key)
        if found is None:
            found = read()
            size = sum(each.nbytes for each in found)
            with self._lock:
                if size <= self._room and key not in self._kept:
                    self._room -= size
                    self._kept[key] = found
        return found


class LeftOut:
    """Pictures of one place that cannot be used, and why. Safe to be asked by several threads."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._why: dict[int, str] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._why)

    def usable(self, number: int, count: int, take: Callable[[int], Taken]) -> Taken:
        """`take` of this number, or of the next of `count` for which it does not say that the picture is no use."""
        for step in range(count):
            at = (number + step) % count
            if at in self._why:
                continue
            try:
                return take(at)
            except PictureError as error:
                self._leave_out(at, str(error))
        raise DataError(f"none of the {count} pictures of '{self._where}' can be used: {self._why[number]}")

    def _leave_out(self, number: int, why: str) -> None:
        with self._lock:
            self._why[number] = why
            count = len(self._why)
        if count <= _TOLD:
            log.warning("left out: %s%s", why, "; more are only counted" if count == _TOLD else "")


@lru_cache(maxsize=4)
def shuffled(seed: int, epoch: int, count: int) -> NDArray[np.intp]:
    """-> (count,): the order of an epoch."""
    return np.random.default_rng(derived_seed(seed, "epoch", epoch)).permutation(count)
