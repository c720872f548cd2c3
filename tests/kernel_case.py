"""One row of the kernels' tests: an operation with inputs, and what its answer should be."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from restorer.kernels.choice import Impl

FLOATS = (torch.float16, torch.bfloat16, torch.float32)
SHORT = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32", torch.uint8: "u8", torch.uint16: "u16"}


@dataclass(frozen=True, kw_only=True)
class KernelCase:
    """Inputs small enough for Triton's interpreter: at most 50 programs, some milliseconds each."""

    name: str
    """The operation, a space, and what is awkward here."""
    answer: Callable[[Impl], Tensor]
    """The operation's answer by one of its twins; the same inputs each time."""
    truth: Callable[[], Tensor]
    """The answer in float64, by other means than the reference; of bytes, in levels that are not rounded."""
    equal: bool = False
    """Whether the twins must agree in every bit."""
    limit: float | None = None
    """How far from the truth a kernel may be, where the rule of `judged` would be too generous."""


def drawn(*shape: int, dtype: torch.dtype = torch.float32, low: float = 0, high: float = 1, seed: int = 0) -> Tensor:
    """Values evenly between `low` and `high`, the same on each default device; for integers `high` is included."""
    rng = torch.Generator("cpu").manual_seed(seed)
    if dtype.is_floating_point:
        values = torch.rand(shape, generator=rng, device="cpu") * (high - low) + low
    else:
        values = torch.randint(int(low), int(high) + 1, shape, generator=rng, device="cpu")
    return values.to(torch.get_default_device(), dtype)


def judged(case: KernelCase) -> dict[str, object]:
    """Both twins beside the truth: a kernel may be twice as far off as the reference, plus one unit in the last place.

    `excess` is how far the worst value lies beyond what is allowed; the kernel passes where it is at most 0.
    """
    reference, kernel, truth = (each.cpu() for each in (case.answer("reference"), case.answer("triton"), case.truth()))
    assert kernel.shape == reference.shape == truth.shape, f"{kernel.shape}, {reference.shape}, {truth.shape}"
    assert kernel.dtype == reference.dtype and truth.dtype == torch.float64, f"{kernel.dtype}, {reference.dtype}"
    off, reference_off = ((each.double() - truth).abs() for each in (kernel, reference))
    allowed = 2 * reference_off.max() + last_place(truth, kernel.dtype)
    if case.limit is not None:
        allowed = torch.full_like(truth, case.limit)
    return {
        "case": case.name,
        "excess": (off - allowed).max().item(),
        "off": off.max().item(),
        "reference_off": reference_off.max().item(),
        "equal": torch.equal(kernel, reference),
    }


def last_place(truth: Tensor, dtype: torch.dtype) -> Tensor:
    """(any shape) float64 -> same: one unit in the last place of `dtype` at each value; of integers, 1."""
    if not dtype.is_floating_point:
        return torch.ones_like(truth)
    least = torch.finfo(dtype).smallest_normal
    exponent = torch.frexp(truth.abs().clamp(min=least)).exponent - 1
    return torch.ldexp(torch.full_like(truth, torch.finfo(dtype).eps), exponent)
