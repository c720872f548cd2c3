"""What engines share: the network's own number range, memory errors, the first batch and what it tells."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from restorer.errors import OutOfMemoryError
from restorer.networks.spec import Traits

PROBE_SIDE = 64
MOST_RUNS, LONG_ENOUGH = 4, 0.5
"""How often the first batch is run, and after how many seconds no more."""
AGREES_FROM = 30.0
"""dB against float32 under which a half precision is not trusted on this machine; honest ones reach 42 and more."""
EQUAL_FROM = 60.0
"""dB against PyTorch that other ways to run the same float32 network reach; honest ones reach 100 and more."""
NO_ROOM = (
    "allocate memory", "not enough memory", "out of memory", "std::bad_alloc", "bad allocation", "alloc_failed",
    "is smaller than requested bytes",
)  # fmt: skip
Run = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]


def input_shape(traits: Traits, count: int, size: tuple[int, int]) -> tuple[int, ...]:
    """A batch's shape: (count, C, h, w) of `size` or the network's only one, or (count, latent) of noise."""
    return (count, traits.latent) if traits.latent else (count, traits.in_channels, *(traits.fixed_size or size))


def output_shape(traits: Traits, x: Tensor) -> tuple[int, ...]:
    """(N, C, h, w) or noise -> the shape of the picture that is made of it."""
    sides = traits.fixed_size if traits.latent else tuple(traits.scale * side for side in x.shape[2:])
    assert sides is not None
    return (len(x), traits.out_channels, *sides)


def to_native(x: Tensor, traits: Traits) -> Tensor:
    """(N, C, h, w) RGB in [0, 1] -> the same in the network's own range and order of colours; noise stays as it is."""
    if traits.latent:
        return x
    low, high = traits.value_range
    x = x.flip(1) if traits.channel_order == "bgr" else x
    return x if (low, high) == (0.0, 1.0) else x * (high - low) + low


def from_native(y: Tensor, traits: Traits) -> Tensor:
    """(N, C, H, W) in the network's own range and order -> RGB, [0, 1], not clipped; numbers stay as they are."""
    if not traits.makes_pictures:
        return y
    low, high = traits.value_range
    y = y if (low, high) == (0.0, 1.0) else (y - low) / (high - low)
    return y.flip(1) if traits.channel_order == "bgr" else y


@contextmanager
def memory_errors(x: Tensor, where: object, kinds: tuple[type[Exception], ...] = (RuntimeError,)) -> Iterator[None]:
    """Turn a library's way of saying that a batch (N, C, h, w) does not fit into OutOfMemoryError."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as e:
        raise OutOfMemoryError(f"a batch of {tuple(x.shape)} does not fit on {where}") from e
    except kinds as e:
        if not any(words in str(e).lower() for words in NO_ROOM):
            raise
        raise OutOfMemoryError(f"a batch of {tuple(x.shape)} does not fit on {where}") from e


def probe(traits: Traits, side: int = PROBE_SIDE) -> Tensor:
    """() -> (1, C, h, w) in [0, 1]: edges, waves and fine texture, the same on every machine, of a size that works.

    (1, latent) of variance 1 for a network that starts from noise.
    """
    if traits.latent:
        return torch.randn((1, traits.latent), generator=torch.Generator().manual_seed(0))
    side = -(-max(side, traits.min_side) // traits.multiple_of) * traits.multiple_of
    height, width = traits.fixed_size or (side, side)
    yy, xx = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    waves = 0.5 + 0.25 * torch.sin(40 * xx * yy) + 0.25 * ((8 * xx).floor() + (8 * yy).floor()).remainder(2)
    planes = [(waves * (1 - 0.2 * i) + 0.1 * i * xx).clamp(0, 1) for i in range(traits.in_channels)]
    return torch.stack(planes)[None].contiguous(memory_format=torch.channels_last)


def pixels_per_second(run: Run, x: Tensor) -> float:
    """(N, C, h, w) -> input pixels a second: the best of a few, since the first ones also pay for set-up.

    A run that takes long is not repeated: set-up is little of it then, and a user is waiting.
    """
    seconds, spent = float("inf"), 0.0
    for _ in range(MOST_RUNS):
        took = seconds_of(run, x)
        seconds, spent = min(seconds, took), spent + took
        if spent > LONG_ENOUGH:
            break
    return x.shape[0] * x.shape[-1] * x.shape[-2] / max(1e-6, seconds)


def laid_out(x: Tensor) -> Tensor:
    """(N, C, h, w) -> the same numbers, channels last, which convolutions are quickest with; noise stays as it is."""
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x.contiguous()


def without_blocks(traits: Traits) -> Traits:
    """The traits of a network that another library runs in one go, not in blocks that fit the cache."""
    return replace(traits, values_in_blocks=None)


def psnr(x: Tensor, y: Tensor) -> float:
    """Same shapes, in [0, 1] -> decibels; not finite counts as 0."""
    if not bool((x + y).isfinite().all()):
        return 0.0
    return decibels((x.clamp(0, 1) - y.clamp(0, 1)).square().mean().item())


def closeness(y: Tensor, exact: Tensor, traits: Traits) -> float:
    """Same shapes -> decibels, with the reach of the exact numbers as the peak where the answer is no picture."""
    if traits.makes_pictures:
        return psnr(y, exact)
    if not bool((y + exact).isfinite().all()):
        return 0.0
    return relative_psnr(y, exact)


def relative_psnr(y: Tensor, exact: Tensor) -> float:
    """Same shapes -> decibels, with the reach of the exact numbers as the peak."""
    return decibels((y - exact).square().mean().item(), peak=float(exact.max() - exact.min()))


def decibels(error: float, *, peak: float = 1.0) -> float:
    """Mean squared error -> decibels; 200 is equal, what is not finite 0."""
    if not math.isfinite(error) or not math.isfinite(peak):
        return 0.0
    return 200.0 if error == 0 else min(200.0, 10 * math.log10(max(peak, 1e-12) ** 2 / error))


def seconds_of(run: Run, x: Tensor) -> float:
    """(N, C, h, w) -> how long one run takes, a device's part included."""
    start = time.perf_counter()
    run({"image": x})["image"].sum().item()  # waits for a device
    return time.perf_counter() - start
