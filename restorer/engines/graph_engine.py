"""An ONNX graph behind the engines' seam, whatever library computes it: array in, array out, on the host."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from restorer import machine
from restorer.engines.seam import Engine, Stream, Walk
from restorer.engines.shared import (
    AGREES_FROM,
    EQUAL_FROM,
    closeness,
    from_native,
    memory_errors,
    output_shape,
    pixels_per_second,
    probe,
    to_native,
)
from restorer.errors import UnsupportedError, WeightsError, first_line
from restorer.networks.spec import Traits

Array = NDArray[np.float32] | NDArray[np.float16] | NDArray[np.uint8]
Compute = Callable[[Array], Array]


@dataclass(frozen=True, kw_only=True)
class Graph:
    """A graph that is ready to run, and what must be known of it."""

    compute: Compute
    traits: Traits
    where: str
    """The library and the provider or device that really computes."""
    dtype: torch.dtype = torch.float32
    """What the bulk of it computes in."""
    takes: Literal["float32", "float16", "uint8"] = "float32"
    """The kind of numbers it takes: floats in the network's range, or whole ones."""
    channels_last: bool = False
    """(N, h, w, C) rather than (N, C, h, w), both ways."""
    on_cpu: bool = True
    memory_total: int | None = None
    """Bytes that the device has; None is the host's, 0 is unknown."""
    errors: tuple[type[Exception], ...] = (RuntimeError,)
    """What its library raises, memory errors among them."""
    agrees_from: float = AGREES_FROM
    """dB against float32 under which a lower precision is taken to be broken here."""


class GraphEngine:
    """See Engine."""

    twins: Sequence[Engine] = ()

    def __init__(
        self,
        name: str,
        graph: Graph,
        *,
        notes: tuple[str, ...],
        exact: Callable[[Tensor], Tensor] | None = None,
        self_check: bool = True,
    ) -> None:
        """`exact` is the same network in PyTorch and float32, where there is one: the judge, and what redoes a tile."""
        self.name, self.graph = name, graph
        self.device = torch.device("cpu")
        self.dtype, self.where, self.on_cpu = graph.dtype, graph.where, graph.on_cpu
        self.eight_bit = graph.takes == "uint8"
        self.memory_total = machine.look().memory_total if graph.memory_total is None else graph.memory_total
        self.traits = graph.traits
        self.notes = (*notes, f"{graph.where} computes")
        self.run_again = exact if graph.dtype != torch.float32 else None
        self.walk: Walk | None = None  # a graph is one whole
        self.stream: Stream | None = None
        self.pixels_per_second = 0.0
        if self_check:
            self._check(exact)

    def run(self, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """See Engine.run."""
        x = inputs["image"]
        if self.traits.batch_of_one and len(x) > 1:
            return {"image": torch.cat([self.run({"image": one[None]})["image"] for one in x])}
        try:
            with memory_errors(x, self.graph.where, self.graph.errors):
                y = torch.from_numpy(self.graph.compute(self._array(x)))
        except self.graph.errors as e:
            raise UnsupportedError(
                f"{self.graph.where} cannot run a batch of {tuple(x.shape)} ({first_line(e)}); use another engine"
            ) from e
        y = y.permute(0, 3, 1, 2) if self.graph.channels_last else y
        if y.dtype == torch.uint8:
            y = y.flip(1) if self.traits.channel_order == "bgr" else y
            return {"image": y.float() / 255}
        return {"image": from_native(y.float(), self.traits)}

    def _array(self, x: Tensor) -> Array:
        """(N, C, h, w) in [0, 1] -> what the graph takes."""
        if self.graph.takes == "uint8":
            x = x.flip(1) if self.traits.channel_order == "bgr" else x
            x = (x.clamp(0, 1) * 255).round().to(torch.uint8)
        else:
            x = to_native(x, self.traits).to(torch.float16 if self.graph.takes == "float16" else torch.float32)
        x = x.permute(0, 2, 3, 1) if self.graph.channels_last else x
        return x.cpu().contiguous().numpy()

    def _check(self, exact: Callable[[Tensor], Tensor] | None) -> None:
        """Time one small batch and hold it against PyTorch."""
        x = probe(self.traits)
        y = self.run({"image": x})["image"]
        if self.traits.makes_pictures and tuple(y.shape) != output_shape(self.traits, x):
            raise WeightsError(
                f"the graph makes {tuple(y.shape)} of {tuple(x.shape)}, not what it says of itself; export it again"
            )
        self.pixels_per_second = pixels_per_second(self.run, x)
        if exact is None:
            return
        close = closeness(y, exact(x), self.traits)
        if close < (self.graph.agrees_from if self.run_again is not None else EQUAL_FROM):
            raise UnsupportedError(
                f"{self.graph.where} disagrees with PyTorch on this machine ({close:.0f} dB); use --engine eager"
            )
