"""Blocks and readers that two networks or more share.

Mixed precision works by the weights: a convolution answers in its own weight's dtype, whatever it is given, and sums
with a float32 stream are float32 again. Nothing else has to know which convolutions were lowered.
"""

import math
import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restorer.errors import WeightsError
from restorer.networks.spec import Facts, StateDict

ActivationName = Literal["prelu", "relu", "leakyrelu"]
Rule = tuple[str, str | Callable[[re.Match[str]], str]]
"""A pattern of keys, and what to call what matches it: a template, or a function of the match."""


class Conv(nn.Conv2d):
    """(N, Cin, H, W) of any float dtype -> (N, Cout, H, W) in the weight's dtype; zero padding keeps the sides."""

    def __init__(self, in_channels: int, out_channels: int, side: int = 3, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, side, padding=side // 2, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.weight.dtype))


class ShuffleConv(Conv):
    """(N, C, H, W) -> (N, Cout, factor*H, factor*W): a convolution whose extra channels become pixels."""

    def __init__(self, in_channels: int, out_channels: int, factor: int) -> None:
        super().__init__(in_channels, out_channels * factor**2)
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(super().forward(x), self.factor)


class PReLU(nn.PReLU):
    """(N, C, H, W) of any float dtype -> same, with one slope per channel or one for all."""

    def forward(self, x: Tensor) -> Tensor:
        return F.prelu(x, self.weight.to(x.dtype))


def in_blocks(part: Callable[[Tensor], Tensor], x: Tensor, *, radius: int, side: int, scale: int = 1) -> Tensor:
    """(N, C, H, W) -> what `part` makes of it, (N, C', scale*H, scale*W), in blocks that fit a processor's cache.

    Each block of `side` pixels is read with `radius` more around it, which is all that `part` sees from a pixel, so
    the result is the same as in one go. Where gradients, graphs or another device are involved, it is one go.
    """
    height, width = x.shape[-2:]
    if x.device.type != "cpu" or torch.is_grad_enabled() or torch.compiler.is_compiling() or height * width <= side**2:
        return part(x)
    out: Tensor | None = None
    for top, bottom in _cuts(height, side):
        for left, right in _cuts(width, side):
            up, across = max(0, top - radius), max(0, left - radius)
            y = part(x[:, :, up : bottom + radius, across : right + radius])
            if out is None:
                shape = (x.shape[0], y.shape[1], scale * height, scale * width)
                out = torch.empty(shape, dtype=y.dtype, memory_format=torch.channels_last)
            rows = slice(scale * (top - up), scale * (bottom - up))
            columns = slice(scale * (left - across), scale * (right - across))
            out[:, :, scale * top : scale * bottom, scale * left : scale * right] = y[:, :, rows, columns]
    assert out is not None
    return out


def _cuts(length: int, side: int) -> list[tuple[int, int]]:
    """Even parts of at most `side`."""
    count = -(-length // side)
    edges = [length * i // count for i in range(count + 1)]
    return list(pairwise(edges))


def activation(name: ActivationName, *, slopes: int = 1) -> nn.Module:
    """Make an activation; "leakyrelu" has BasicSR's slope of 0.1, and `slopes` is how many "prelu" learns.

    It may write over what it is given: the result of a convolution or a norm, which nobody else reads.
    """
    if name == "prelu":
        return PReLU(slopes)
    return nn.ReLU(inplace=True) if name == "relu" else nn.LeakyReLU(0.1, inplace=True)


def leaky(x: Tensor) -> Tensor:
    """(N, C, H, W) -> same, written over `x`: leaky ReLU of slope 0.2, for results that nobody else reads.

    Not written over while a graph is made, which takes twice as long otherwise.
    """
    return F.leaky_relu(x, 0.2, inplace=not torch.compiler.is_exporting())


def check_slope(facts: Facts, expected: float) -> None:
    """Refuse weights whose file tells a slope below zero, as ncnn files do, that is not the network's."""
    told = facts.get("slope", expected)
    if not isinstance(told, int | float) or not math.isclose(told, expected, rel_tol=1e-4):
        raise WeightsError(f"these weights were made for a slope of {told}, this network has {expected}; use others")


def start_small(block: nn.Module, scale: float = 0.1) -> None:
    """Draw the convolutions of a residual block small, biases zero: it begins as nearly nothing (as in BasicSR)."""
    for module in block.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
            module.weight.data.mul_(scale)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def lower(network: nn.Module, *, dtype: torch.dtype, float_parts: Sequence[str] = ()) -> None:
    """Turn the convolutions of `network` to `dtype`, in place, except those inside `float_parts`."""
    kept = {id(module) for part in float_parts for module in network.get_submodule(part).modules()}
    for module in network.modules():
        if isinstance(module, Conv) and id(module) not in kept:
            module.to(dtype)


def keys_like(pattern: str, *, anchors: Sequence[str | tuple[str, ...]]) -> Callable[[StateDict, Facts], bool]:
    """Make a `detect`: some key begins with each anchor, and all but one key, or one in ten, match `pattern` in full.

    An anchor of several beginnings needs one of them. A few strangers are let in so that a checkpoint with a key too
    many is refused with that key's name, and not as foreign.
    """
    regex = re.compile(pattern)

    def detect(weights: StateDict, facts: Facts) -> bool:
        if not all(any(key.startswith(anchor) for key in weights) for anchor in anchors):
            return False
        strangers = sum(regex.fullmatch(key) is None for key in weights)
        return strangers <= max(1, len(weights) // 10)

    return detect


def count_blocks(weights: StateDict, prefix: str) -> int:
    """Count the blocks `prefix`0, `prefix`1, ...; a gap is refused, so the count is never larger than the file.

    >>> count_blocks({"body.0.weight": torch.ones(1), "body.1.weight": torch.ones(1)}, "body.")
    2
    """
    found = {int(match[1]) for key in weights if (match := re.match(rf"{re.escape(prefix)}(\d{{1,6}})\b", key))}
    for index in range(len(found)):
        if index not in found:
            have = f"{prefix}{max(found)}"
            raise WeightsError(f"these weights lack {prefix}{index} but have {have}; use a whole checkpoint")
    return len(found)


def conv_shape(weights: StateDict, key: str) -> tuple[int, int, int]:
    """Read (out channels, in channels, side) of the square convolution weight at `key`."""
    if key not in weights:
        raise WeightsError(f"these weights lack {key}; use a whole checkpoint")
    shape = tuple(weights[key].shape)
    if len(shape) != 4 or 0 in shape or shape[2] != shape[3]:
        raise WeightsError(f"{key} has shape {shape}, expected a square convolution kernel; the file is damaged")
    return shape[0], shape[1], shape[2]


def linear_shape(weights: StateDict, key: str) -> tuple[int, int]:
    """Read (out, in) of the linear layer's weight at `key`."""
    if key not in weights:
        raise WeightsError(f"these weights lack {key}; use a whole checkpoint")
    shape = tuple(weights[key].shape)
    if len(shape) != 2 or 0 in shape:
        raise WeightsError(f"{key} has shape {shape}, expected a matrix; the file is damaged")
    return shape[0], shape[1]


def shuffle_factor(channels: int, *, onto: int) -> int:
    """Find the factor of a pixel shuffle that turns `channels` into `onto`.

    >>> shuffle_factor(48, onto=3)
    4
    """
    factor = math.isqrt(channels // onto)
    if factor < 1 or channels != onto * factor**2:
        raise ValueError(f"{channels} channels cannot be shuffled into {onto}")
    return factor


def rename_keys(weights: StateDict, rules: Sequence[Rule]) -> StateDict:
    """Rewrite every key by the first rule that matches all of it; keys that match none stay as they are."""
    renamed = {_rename_key(key, rules): tensor for key, tensor in weights.items()}
    if len(renamed) < len(weights):
        raise WeightsError("these weights hold the same layer under two names; use a checkpoint in one dialect")
    return renamed


def without_wrapper(weights: StateDict) -> StateDict:
    """Take off the `module.` that a wrapper for several devices put before every key, if it did."""
    if not weights or not all(key.startswith("module.") for key in weights):
        return weights
    return {key.removeprefix("module."): tensor for key, tensor in weights.items()}


def _rename_key(key: str, rules: Sequence[Rule]) -> str:
    for pattern, name in rules:
        if match := re.fullmatch(pattern, key):
            return match.expand(name) if isinstance(name, str) else name(match)
    return key


def ncnn_layers(weights: StateDict) -> list[str]:
    """List the layers of weights read from an ncnn file, in order, as "0000.Convolution"; empty for any others."""
    matches = [re.fullmatch(r"ncnn\.(\d+\.\w+)\.(weight|bias|slope)", key) for key in weights]
    if not all(matches):
        return []
    return sorted({match[1] for match in matches if match})


def rename_ncnn(weights: StateDict, names: Sequence[str]) -> StateDict:
    """Give the layers of an ncnn file, in order, these `names`; ncnn's slopes are weights here."""
    layers = dict(zip(ncnn_layers(weights), names, strict=True))
    parts = {key: key.removeprefix("ncnn.").rsplit(".", 1) for key in weights}
    return {f"{layers[layer]}.{part.replace('slope', 'weight')}": weights[key] for key, (layer, part) in parts.items()}
