"""The plain engine: PyTorch runs the network operation by operation."""

import contextlib
import copy
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from restorer import machine
from restorer.engines.precision import choose_device, choose_precision, lowered
from restorer.engines.seam import Engine, Stream, Walk
from restorer.engines.shared import (
    AGREES_FROM,
    closeness,
    from_native,
    memory_errors,
    pixels_per_second,
    probe,
    to_native,
)
from restorer.networks.bands import Bands, PictureRows
from restorer.networks.spec import Model
from restorer.networks.stages import pixels_at_once, streamed

log = logging.getLogger(__name__)


class EagerEngine:
    """See Engine. Checks itself against float32 on one small batch, and falls back to float32 when it disagrees."""

    name = "eager"
    eight_bit = False
    twins: Sequence[Engine] = ()

    def __init__(self, model: Model, *, device: str = "auto", precision: str = "auto", self_check: bool = True) -> None:
        self.traits = model.traits
        self.device = choose_device(device)
        self.where, self.on_cpu = str(self.device), self.device.type == "cpu"
        choice = choose_precision(precision, self.device, model.traits.precisions)
        self.memory_total = _memory_total(self.device)
        self.dtype = torch.float32
        self.notes: tuple[str, ...] = (choice.why,)
        self.run_again: Callable[[Tensor], Tensor] | None = None
        self.walk: Walk | None = None if model.spec.walk is None else self._walked
        self._walk = model.spec.walk
        self.stream: Stream | None = None if model.spec.stages is None else self._streamed
        self._stages = model.spec.stages
        own = (
            model.network if self.on_cpu else copy.deepcopy(model.network).to(self.device)
        )  # the model stays its owner's
        self._float = own.to(memory_format=torch.channels_last)
        self.network: nn.Module = self._float
        self.pixels_per_second = 0.0
        if choice.dtype != torch.float32:
            self._lower(model, choice.dtype)
        if self_check:
            self._check()

    def run(self, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """See Engine.run."""
        return {"image": self.forward(self.network, inputs["image"])}

    def forward(self, network: nn.Module, x: Tensor) -> Tensor:
        """(N, C, h, w) in [0, 1] -> what `network`, this engine's or a twin of it, makes of it, float32."""
        with self._computing(x, network):
            return from_native(network(to_native(x, self.traits)).float(), self.traits)

    def _walked(self, picture: PictureRows, bands: Bands, *, exact: bool = False) -> Iterator[tuple[int, Tensor]]:
        assert self._walk is not None
        network = self._float if exact else self.network
        native = PictureRows(picture.height, lambda top, bottom: to_native(picture.read(top, bottom), self.traits))
        size = torch.empty(1, self.traits.in_channels, picture.height, 0, device="meta")  # for words about memory
        with self._computing(size, network):
            steps = bands.of(self._walk(network, native, bands))
        while True:
            with self._computing(size, network):
                step = next(steps, None)
                if step is None:
                    return
                made = step[0], from_native(step[1].float(), self.traits)
            yield made

    def _streamed(self, bands: Iterable[Tensor], *, exact: bool = False) -> Iterator[Tensor]:
        assert self._stages is not None
        network = self._float if exact else self.network
        native = (to_native(band, self.traits) for band in bands)
        rows = streamed(self._stages(network), native, pixels=pixels_at_once(on_cpu=self.on_cpu))
        size = torch.empty(1, self.traits.in_channels, 0, 0, device="meta")  # for words about memory
        while True:
            with self._computing(size, network):
                made = next(rows, None)
                made = None if made is None else from_native(made.float(), self.traits)
            if made is None:
                return
            yield made

    @contextlib.contextmanager
    def _computing(self, x: Tensor, network: nn.Module) -> Iterator[None]:
        with (
            memory_errors(x, self.device),
            torch.inference_mode(),
            _true_float32(network is self._float or self.dtype == torch.float32),
        ):
            yield

    def _run_float(self, x: Tensor) -> Tensor:
        return self.forward(self._float, x)

    def _lower(self, model: Model, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.network = lowered(model, dtype).to(memory_format=torch.channels_last)
        self.run_again = self._run_float

    def _check(self) -> None:
        """Time one small batch; in half precision compare it with float32 too."""
        x = probe(self.traits).to(self.device)
        self.pixels_per_second = pixels_per_second(self.run, x)
        if self.run_again is None:
            return
        small = probe(self.traits, 32).to(self.device)
        close = closeness(self.run({"image": small})["image"], self._run_float(small), self.traits)
        if close < AGREES_FROM:
            name = str(self.dtype).removeprefix("torch.")
            note = f"{name} disagrees with fp32 on this machine ({close:.0f} dB); fp32 is used instead"
            log.warning("%s", note)
            self.dtype, self.network, self.run_again = torch.float32, self._float, None
            self.notes = (*self.notes, note)


@contextlib.contextmanager
def _true_float32(wanted: bool) -> Iterator[None]:
    """CUDA's convolutions otherwise round float32 to 10 bits (TF32); no effect elsewhere."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = before and not wanted
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def _memory_total(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return machine.look().memory_total
