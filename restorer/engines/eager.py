"""The plain engine: PyTorch runs the network operation by operation."""

import logging
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from restorer import machine
from restorer.engines.precision import choose_device, choose_precision, lowered
from restorer.errors import OutOfMemoryError
from restorer.networks.spec import Model

log = logging.getLogger(__name__)
PROBE_SIDE = 64
AGREES_FROM = 30.0
"""dB against float32 under which a half precision is not trusted on this machine; honest ones reach 42 and more."""
NO_ROOM = ("can't allocate memory", "not enough memory", "out of memory", "std::bad_alloc")


class EagerEngine:
    """See Engine. Checks itself against float32 on one small batch, and falls back to float32 when it disagrees."""

    name = "eager"

    def __init__(self, model: Model, *, device: str = "auto", precision: str = "auto", self_check: bool = True) -> None:
        self.traits = model.traits
        self.device = choose_device(device)
        choice = choose_precision(precision, self.device, model.traits.precisions)
        self.memory_total = _memory_total(self.device)
        self.dtype = torch.float32
        self.notes: tuple[str, ...] = (choice.why,)
        self.run_again: Callable[[Tensor], Tensor] | None = None
        self._float = model.network.to(self.device).to(memory_format=torch.channels_last)
        self._network: nn.Module = self._float
        self.pixels_per_second = 0.0
        if choice.dtype != torch.float32:
            self._lower(model, choice.dtype)
        if self_check:
            self._check()

    def run(self, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """See Engine.run."""
        return {"image": self._forward(self._network, inputs["image"])}

    def _run_float(self, x: Tensor) -> Tensor:
        return self._forward(self._float, x)

    def _lower(self, model: Model, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self._network = lowered(model, dtype).to(memory_format=torch.channels_last)
        self.run_again = self._run_float

    def _check(self) -> None:
        """Time one small batch; in half precision compare it with float32 too."""
        x = _probe(self.traits.in_channels, max(PROBE_SIDE, self.traits.min_side)).to(self.device)
        seconds = min(self._seconds(x) for _ in range(4))  # the first ones also pay for memory and set-up
        self.pixels_per_second = x.shape[-1] * x.shape[-2] / max(1e-6, seconds)
        if self.run_again is None:
            return
        patch = x[:, :, :32, :32] if self.traits.min_side <= 32 else x
        close = psnr(self.run({"image": patch})["image"], self._run_float(patch))
        if close < AGREES_FROM:
            name = str(self.dtype).removeprefix("torch.")
            note = f"{name} disagrees with fp32 on this machine ({close:.0f} dB); fp32 is used instead"
            log.warning("%s", note)
            self.dtype, self._network, self.run_again = torch.float32, self._float, None
            self.notes = (*self.notes, note)

    def _seconds(self, x: Tensor) -> float:
        start = time.perf_counter()
        self.run({"image": x})["image"].sum().item()  # waits for a device
        return time.perf_counter() - start

    def _forward(self, network: nn.Module, x: Tensor) -> Tensor:
        low, high = self.traits.value_range
        x = x.flip(1) if self.traits.channel_order == "bgr" else x
        x = x if (low, high) == (0.0, 1.0) else x * (high - low) + low
        try:
            with torch.inference_mode():
                y = network(x).float()
        except (torch.OutOfMemoryError, MemoryError) as e:
            raise OutOfMemoryError(f"a batch of {tuple(x.shape)} does not fit on {self.device}") from e
        except RuntimeError as e:
            if not any(words in str(e).lower() for words in NO_ROOM):
                raise
            raise OutOfMemoryError(f"a batch of {tuple(x.shape)} does not fit on {self.device}") from e
        y = y if (low, high) == (0.0, 1.0) else (y - low) / (high - low)
        return y.flip(1) if self.traits.channel_order == "bgr" else y


def psnr(x: Tensor, y: Tensor) -> float:
    """Same shapes, in [0, 1] -> decibels; not finite counts as 0."""
    if not bool((x + y).isfinite().all()):
        return 0.0
    error = (x.clamp(0, 1) - y.clamp(0, 1)).square().mean().item()
    return 200.0 if error == 0 else float(-10 * torch.tensor(error).log10())


def _probe(channels: int, side: int) -> Tensor:
    """() -> (1, channels, side, side) in [0, 1]: edges, waves and fine texture, the same on every machine."""
    line = torch.linspace(0, 1, side)
    yy, xx = torch.meshgrid(line, line, indexing="ij")
    waves = 0.5 + 0.25 * torch.sin(40 * xx * yy) + 0.25 * ((8 * xx).floor() + (8 * yy).floor()).remainder(2)
    planes = [(waves * (1 - 0.2 * i) + 0.1 * i * xx).clamp(0, 1) for i in range(channels)]
    return torch.stack(planes)[None].contiguous(memory_format=torch.channels_last)


def _memory_total(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return machine.look().memory_total
