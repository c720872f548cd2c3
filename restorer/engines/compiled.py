"""torch.compile: the network is turned into machine code for each shape of batch, once a process."""

import contextlib
import logging
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from restorer.engines.eager import EagerEngine
from restorer.engines.shared import AGREES_FROM, EQUAL_FROM, psnr
from restorer.errors import UnsupportedError
from restorer.networks.spec import Model

log = logging.getLogger(__name__)
MOST_SHAPES = 8
"""What torch.compile makes of one function before it gives up; further shapes are run by PyTorch, and that is said."""


class CompiledEngine:
    """See Engine. All windows of a picture have one shape, so a picture costs one compilation at most."""

    name = "compiled"

    def __init__(self, model: Model, *, device: str = "auto", precision: str = "auto", self_check: bool = True) -> None:
        self._plain = EagerEngine(model, device=device, precision=precision, self_check=self_check)
        self.device, self.dtype = self._plain.device, self._plain.dtype
        _need_compiler(self.device)
        self.memory_total = self._plain.memory_total
        self.traits = replace(model.traits, values_in_blocks=None)  # machine code runs the network in one go
        self.run_again: Callable[[Tensor], Tensor] | None = self._plain.run_again
        self.notes = (*self._plain.notes, "compiled anew for every shape of window, which takes up to minutes")
        self._largest: dict[tuple[int, int], int] = {}
        on_cpu = self.device.type == "cpu"
        how: dict[str, Any] = {"options": {"freezing": True}} if on_cpu else {"mode": "reduce-overhead"}
        self._compiled: Any = torch.compile(self._plain.network, dynamic=False, **how)
        self.pixels_per_second = self._plain.pixels_per_second  # no less than this

    def run(self, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """See Engine.run. A smaller batch of a known shape is filled up, not compiled for."""
        x = inputs["image"]
        shape = (x.shape[2], x.shape[3])
        if shape not in self._largest and len(self._largest) >= MOST_SHAPES:
            log.warning("windows of %dx%d are not compiled: %d shapes are the most", *shape, MOST_SHAPES)
            return self._plain.run(inputs)
        known = shape in self._largest
        batch = self._largest.setdefault(shape, len(x))
        if len(x) > batch:
            return {"image": torch.cat([self.run({"image": part})["image"] for part in x.split(batch)])}
        full = x if len(x) == batch else torch.cat([x, x[-1:].expand(batch - len(x), -1, -1, -1)])
        with _quiet():
            y = self._plain.forward(self._compiled, full.contiguous(memory_format=torch.channels_last))
        y = y[: len(x)].clone()  # a graph on a device writes its next result over this one
        if not known:
            self._check(y, self._plain.run(inputs)["image"])
        return {"image": y}

    def _check(self, y: Tensor, plain: Tensor) -> None:
        """Hold the first result of new machine code against PyTorch's."""
        close = psnr(y, plain)
        if close < (EQUAL_FROM if self.run_again is None else AGREES_FROM):
            raise UnsupportedError(
                f"torch.compile's code disagrees with PyTorch on this machine ({close:.0f} dB); use --engine eager"
            )


def _need_compiler(device: torch.device) -> None:
    if sys.platform == "win32" and device.type != "cuda":
        names: tuple[str, ...] = ("cl",)
    else:
        names = ("g++", "clang++", "c++")
    if device.type == "cpu" and not any(shutil.which(name) for name in names):
        raise UnsupportedError(
            f"torch.compile needs a C++ compiler ({' or '.join(names)}); install one, or use --engine eager"
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The compiler's remarks on what this machine lacks."""
    remarks = logging.getLogger("torch.utils.cpp_extension")
    level = remarks.level
    remarks.setLevel(logging.ERROR)
    try:
        yield
    finally:
        remarks.setLevel(level)
