"""What the kernels share: how they are built ahead of time, on which device they start, and rounding to bytes."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

POINTERS = {
    torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.float32: "*fp32",
    torch.uint8: "*u8", torch.uint16: "*u16", torch.int32: "*i32",
}  # fmt: skip
"""What Triton calls a tensor of each dtype."""
FLOATS = (torch.float16, torch.bfloat16, torch.float32)


@dataclass(frozen=True, kw_only=True)
class Build:
    """One form in which a kernel is compiled: what tests compile without a GPU, and benchmarks count registers of."""

    name: str
    """The operation, and what tells this form from its others, e.g. "to_bytes float16"."""
    kernel: Any
    signature: Mapping[str, str]
    """Type of each argument that is not a constant."""
    constants: Mapping[str, object]
    options: Mapping[str, object] = field(default_factory=dict)
    """As the launch has them, e.g. num_warps."""
    least_arch: int = 75
    """Compute capability below which this form does not exist: bfloat16 begins at 80."""


def least_arch(dtype: torch.dtype) -> int:
    """The compute capability from which kernels of this dtype compile."""
    return 80 if dtype == torch.bfloat16 else 75


def name_of(dtype: torch.dtype) -> str:
    """What a dtype is called in the name of a build, e.g. float16."""
    return str(dtype).removeprefix("torch.")


def on_device_of(x: Tensor) -> AbstractContextManager[object]:
    """(any shape) -> a context in which kernels start on the device of `x`, whichever is current."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


@triton.jit
def to_level(x: tl.tensor) -> tl.tensor:
    """float32 -> 0..255: clamp to [0, 1], times 255, round half to even. Build with enable_fp_fusion=False.

    Adding and taking away 2**23 rounds as the processor rounds; a product fused into the sum would not round first.
    """
    x = tl.where(x < 0.0, 0.0, x)
    x = tl.where(x > 1.0, 1.0, x) * 255.0
    return ((x + 8388608.0) - 8388608.0).to(tl.uint8)
