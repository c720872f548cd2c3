"""Which twin of an operation runs: the reference in plain PyTorch, or the Triton kernel."""

import importlib.util
import os
from typing import Literal, get_args

import torch
from torch import Tensor

from restorer.errors import MissingPackageError, UnsupportedError, unknown_name

Impl = Literal["auto", "reference", "triton"]
PROVEN: frozenset[str] = frozenset()
"""Kernels that `auto` takes on a GPU: results/kernels.json of the benchmarks shows each equal and faster on one."""
INTERPRETER = "TRITON_INTERPRET"
"""The variable by which Triton runs kernels on a processor, slowly; it must be set before Triton is imported."""


def uses_triton(name: str, impl: Impl, *tensors: Tensor) -> bool:
    """(...), any shapes -> whether kernel `name` runs. `auto` takes proven ones, on a GPU, where no gradient is wanted.

    While a graph is made of a network, `auto` is the reference: compilers fuse plain operations by themselves.
    """
    if impl not in get_args(Impl):
        raise unknown_name("impl", impl, get_args(Impl))
    if impl == "reference":
        return False
    if impl == "auto":
        if name not in PROVEN or not all(each.is_cuda for each in tensors):
            return False
        return not (_wants_gradient(tensors) or torch.compiler.is_compiling())
    _check(name, tensors)
    return True


def _check(name: str, tensors: tuple[Tensor, ...]) -> None:
    """Refuse what the kernel cannot do here."""
    if importlib.util.find_spec("triton") is None:
        raise MissingPackageError(f"the triton kernel of {name} needs a package: pip install triton")
    if not all(each.is_cuda for each in tensors) and not _interpreted():
        kinds = ", ".join(sorted({each.device.type for each in tensors}))
        raise UnsupportedError(
            f"the triton kernel of {name} runs on CUDA, and these tensors are on {kinds}; use impl='reference'"
        )
    if _wants_gradient(tensors):
        raise UnsupportedError(f"the triton kernel of {name} has no gradient; use impl='reference' or torch.no_grad()")


def _wants_gradient(tensors: tuple[Tensor, ...]) -> bool:
    return torch.is_grad_enabled() and any(each.requires_grad for each in tensors)


def _interpreted() -> bool:
    return os.environ.get(INTERPRETER, "").lower() in ("1", "true", "yes", "on", "y")
