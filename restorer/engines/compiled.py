"""torch.compile: the network is turned into machine code for each shape of batch, once a process."""

import contextlib
import logging
import shutil
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from restorer.engines.eager import EagerEngine
from restorer.engines.precision import choose_device
from restorer.engines.seam import Engine, Stream
from restorer.engines.shared import AGREES_FROM, EQUAL_FROM, closeness, laid_out, probe, without_blocks
from restorer.errors import UnsupportedError, first_line
from restorer.networks.spec import Model

log = logging.getLogger(__name__)
MOST_SHAPES = 8
"""An engine compiles for no more; further shapes are run by PyTorch, and that is said."""
MOST_CODES = 1024
"""What all engines of a process may compile of one kind of network."""


class CompiledEngine:
    """See Engine. All windows of a picture have one shape, so a picture costs one compilation at most."""

    name = "compiled"
    eight_bit = False
    twins: Sequence[Engine] = ()

    def __init__(self, model: Model, *, device: str = "auto", precision: str = "auto", self_check: bool = True) -> None:
        self.device = choose_device(device)
        _need_compiler(self.device)
        self._plain = EagerEngine(model, device=device, precision=precision, self_check=self_check)
        self.where, self.on_cpu, self.dtype = self._plain.where, self._plain.on_cpu, self._plain.dtype
        self.memory_total = self._plain.memory_total
        self.traits = without_blocks(model.traits)
        self.run_again: Callable[[Tensor], Tensor] | None = self._plain.run_again
        self.walk = self._plain.walk
        self.stream: Stream | None = None  # it would compile for every height of rows
        self.notes = (*self._plain.notes, "compiled anew for every shape of window, which takes up to minutes")
        self.pixels_per_second = self._plain.pixels_per_second  # no less than this
        self._largest: dict[tuple[int, ...], int] = {}
        self._plainly: set[tuple[int, ...]] = set()
        self._self_check = self_check
        mode = None if self.on_cpu else "reduce-overhead"
        self._compiled: Any = torch.compile(self._plain.network, dynamic=False, mode=mode)

    def run(self, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """See Engine.run. A smaller batch of a known shape is filled up, not compiled for."""
        x = inputs["image"]
        shape = tuple(x.shape[1:])
        batch = self._largest.get(shape)
        if batch is None and len(self._largest) >= MOST_SHAPES:
            self._say_plain(shape)
            return self._plain.run(inputs)
        if batch is None:
            y = self._ran(x)
            self._check(x)
            self._largest[shape] = len(x)  # only now: what failed, or did not fit, is not known
            return {"image": y}
        if len(x) > batch:
            return {"image": torch.cat([self.run({"image": part})["image"] for part in x.split(batch)])}
        full = x if len(x) == batch else torch.cat([x, x[-1:].expand(batch - len(x), *shape)])
        return {"image": self._ran(full)[: len(x)]}

    def _say_plain(self, shape: tuple[int, ...]) -> None:
        if shape not in self._plainly:
            self._plainly.add(shape)
            size = "x".join(map(str, shape[1:]))
            log.warning("windows of %s are not compiled: %d shapes are the most", size, MOST_SHAPES)

    def _ran(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C, H, W): by machine code, made first where there is none for this shape."""
        from torch._dynamo.exc import TorchDynamoException
        from torch._inductor.exc import CppCompileError, InductorError

        try:
            with _quiet(), _settings(freezing=self.on_cpu):
                y = self._plain.forward(self._compiled, laid_out(x))
        except (TorchDynamoException, InductorError, CppCompileError) as e:
            raise UnsupportedError(f"torch.compile cannot build this here ({first_line(e)}); use --engine eager") from e
        return y.clone()  # a graph on a device writes its next result over this one

    def _check(self, x: Tensor) -> None:
        """Hold new machine code for batches like `x` against PyTorch, on a picture that hides nothing."""
        if not self._self_check:
            return
        traits = self.traits if self.traits.latent else replace(self.traits, fixed_size=(x.shape[2], x.shape[3]))
        seen = probe(traits).to(x.device)
        seen = seen.expand(len(x), *seen.shape[1:])
        close = closeness(self._ran(seen), self._plain.run({"image": seen})["image"], traits)
        if close < (EQUAL_FROM if self.run_again is None else AGREES_FROM):
            raise UnsupportedError(
                f"torch.compile's code disagrees with PyTorch on this machine ({close:.0f} dB); use --engine eager"
            )


def _need_compiler(device: torch.device) -> None:
    if device.type != "cpu":
        return
    names = ("cl",) if sys.platform == "win32" else ("g++", "clang++", "c++")
    if not any(shutil.which(name) for name in names):
        raise UnsupportedError(
            f"torch.compile needs a C++ compiler ({' or '.join(names)}); install one, or use --engine eager"
        )
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        raise UnsupportedError(
            "torch.compile needs Python's headers (Debian: python3-dev); install them, or use --engine eager"
        )


@contextlib.contextmanager
def _settings(*, freezing: bool) -> Iterator[None]:
    """Weights become constants of the code on a processor; and no network falls back to PyTorch behind our back.

    Both are read while a network is traced, and count for all networks of a process.
    """
    import torch._dynamo
    import torch._inductor.config

    limit = torch._dynamo.config.patch(recompile_limit=MOST_CODES, fail_on_recompile_limit_hit=True)
    with limit, torch._inductor.config.patch(freezing=freezing):
        yield


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
