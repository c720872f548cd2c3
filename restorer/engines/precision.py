"""Which device and which number format, and why; and how a network is lowered to half precision."""

import copy
from dataclasses import dataclass

import torch
from torch import nn

from restorer import machine
from restorer.errors import UnsupportedError, UsageError
from restorer.networks.layers import lower
from restorer.networks.spec import Model

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A decision, with the reason in one sentence."""

    dtype: torch.dtype
    why: str


def choose_device(name: str) -> torch.device:
    """auto, cpu, cuda, cuda:N or mps -> a device that is there; refuses one that is not."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda:0")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (index and not index.isdecimal()):
        raise UsageError(f"no device named '{name}'; use auto, cpu, cuda, cuda:N, cuda:all or mps")
    if kind == "cuda":
        count = torch.cuda.device_count()
        if count == 0:
            raise UnsupportedError("no CUDA device is here; use --device cpu, or see what `restorer doctor` finds")
        if int(index or 0) >= count:
            raise UnsupportedError(f"there is no device {name}; the last one is cuda:{count - 1}")
        return torch.device("cuda", int(index or 0))
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UnsupportedError("no Apple GPU is here; use --device cpu")
    return torch.device(kind)


def device_names(name: str) -> list[str]:
    """What --device says -> names for `choose_device`: cuda:0,cuda:1 are two, cuda:all are as many as there are."""
    if name == "cuda:all":
        return [f"cuda:{i}" for i in range(torch.cuda.device_count())] or ["cuda"]
    names = name.split(",")
    if len(names) > 1 and (twice := [each for each in names if names.count(each) > 1]):
        raise UsageError(f"--device {name} names {twice[0]} twice; name each device once")
    return names


def choose_precision(name: str, device: torch.device, allowed: frozenset[str]) -> Choice:
    """The precision asked for, or for `auto` the fastest that measured safe on this kind of device.

    `allowed` is what the network's test row proves; anything else is refused when asked for by name.
    """
    if name != "auto":
        if name == "int8":
            raise UnsupportedError("only the openvino engine computes in int8; give --engine openvino too")
        if name not in DTYPES:
            raise UsageError(f"no precision named '{name}'; use auto, {', '.join(DTYPES)}")
        if name != "fp32" and name not in allowed:
            raise UnsupportedError(f"this network is not proven in {name}; use --precision auto or fp32")
        if name == "fp16" and device.type == "cpu":
            raise UnsupportedError(
                "processors do not compute fp16 at a useful speed; use --precision auto, bf16 or fp32"
            )
        return Choice(dtype=DTYPES[name], why=f"{name} was asked for")
    if device.type == "cuda":
        return _on_cuda(allowed)
    if device.type == "mps":
        return Choice(dtype=torch.float32, why="fp32: half precision is not measured on Apple GPUs yet")
    return _on_cpu(allowed)


def _on_cuda(allowed: frozenset[str]) -> Choice:
    if "fp16" in allowed:
        return Choice(dtype=torch.float16, why="fp16: a CUDA device computes it at least twice as fast as fp32")
    if "bf16" in allowed and torch.cuda.is_bf16_supported():
        return Choice(dtype=torch.bfloat16, why="bf16: this network overflows in fp16")
    return Choice(dtype=torch.float32, why="fp32: this network is not proven in half precision")


def _on_cpu(allowed: frozenset[str]) -> Choice:
    here = machine.look()
    if "bf16" not in allowed:
        return Choice(dtype=torch.float32, why="fp32: this network is not proven in bf16")
    if not machine.has_fast_bf16(here):
        return Choice(dtype=torch.float32, why="fp32: this processor has neither avx512_bf16 nor amx_bf16")
    found = "amx_bf16" if "amx_bf16" in here.instruction_sets else "native bf16"
    return Choice(
        dtype=torch.bfloat16, why=f"bf16: this processor has {found}; residual stream and end layers stay fp32"
    )


def lowered(model: Model, dtype: torch.dtype) -> nn.Module:
    """A copy of the network whose convolutions compute in `dtype`, but for its `float_parts`, which stay float32."""
    network = copy.deepcopy(model.network)
    lower(network, dtype=dtype, float_parts=model.spec.float_parts(model.config))
    return network
