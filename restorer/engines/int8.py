"""Chosen convolutions of an OpenVINO graph in whole numbers of 8 bits.

Every channel of what such a convolution reads has a step of its own; the steps are folded into the weights, so that
all that meets in one convolution counts in the same unit. Weights are rounded so that errors of neighbouring taps
cancel. Sums, and every convolution that is not named, stay in floating point.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ranges = Mapping[str, Floats]
"""Name of a map -> (2, C): the least and the greatest value of each of its channels."""

UNIT = 1 / 64
"""What one step stands for between maps and weights: any number does; this one keeps both near 1."""
ZERO, TOP = 128, 127
"""The level of 0 in 256 levels, and how many levels lie above it."""
ROOM = 0.5
"""Of the widest channel's step: what every channel's is at least."""
LIKENESS = 0.97
"""How much neighbouring pixels of a map are taken to be alike: what rounding goes by."""
LEAST = 1e-9
CONTRAST = 0.3, 0.9
"""Of the pictures that stand for photos: full contrast everywhere would stretch the ranges to twice theirs."""


@dataclass(frozen=True, kw_only=True)
class Conv:
    """A convolution of the graph that is to compute in whole numbers."""

    node: Any
    maps: Sequence[Any]
    """The map that it reads, or those that are joined for it."""


def measured(runtime: Any, model: Any, parts: Sequence[str], run: Callable[[Any], Sequence[Floats]]) -> Ranges:
    """The ranges of all maps that the convolutions in `parts` read, over all calibration pictures.

    Args:
        run: takes a model of many outputs, and gives for each its values, (pictures, C).
    """
    opset = runtime.opset13
    maps = _maps(_convs(model, parts))
    axes = opset.constant(np.array([0, 2, 3], np.int64))
    ends = [reduce(found, axes) for found in maps.values() for reduce in (opset.reduce_min, opset.reduce_max)]
    values = run(runtime.Model([opset.result(end) for end in ends], model.get_parameters(), "ranges"))
    lows, highs = values[0::2], values[1::2]
    return {name: np.stack([low.min(0), high.max(0)]) for name, low, high in zip(maps, lows, highs, strict=True)}


def quantise(runtime: Any, model: Any, parts: Sequence[str], ranges: Ranges) -> int:
    """Turn the convolutions in `parts` to 8 bits, in place; returns how many there are."""
    convs = _convs(model, parts)
    steps = {name: steps_of(ranges[name]) for name in _maps(convs)}
    levels = {name: _levels(runtime.opset13, found, steps[name]) for name, found in _maps(convs).items()}
    for conv in convs:
        names = [_name(found) for found in conv.maps]
        read = runtime.opset13.concat([levels[name] for name in names], 1).output(0)
        weight = conv.node.input_value(1).get_node().get_data().astype(np.float32)
        folded = weight * np.concatenate([steps[name] / UNIT for name in names]).reshape(1, -1, 1, 1)
        conv.node.input(0).replace_source_output(read)
        conv.node.input(1).replace_source_output(_weights(runtime.opset13, folded))
    model.validate_nodes_and_infer_types()
    return len(convs)


def steps_of(reach: Floats) -> Floats:
    """(2, C) least and greatest -> (C,) the step of each channel: 0 is a level, and nothing that was seen is cut.

    Quiet channels keep room for what was not seen: without it the worst photo is 4 dB worse, and the median half a dB
    better.

    >>> [round(float(step), 4) for step in steps_of(np.array([[-1.28, 0, 0], [1.0, 0.762, 0]]))]
    [0.01, 0.006, 0.005]
    """
    low, high = reach
    steps = np.maximum(-low / ZERO, high / TOP)
    return np.maximum(steps, max(steps.max() * ROOM, LEAST)).astype(np.float32)


def rounded(weight: NDArray[np.floating[Any]], likeness: float = LIKENESS) -> NDArray[np.float64]:
    """(O, I, k, k) in steps -> whole numbers in [-127, 127], so that the error on maps like photos' is small.

    One tap after another is rounded, and those that follow make good what it lost, as they best can where a pixel is
    like its neighbours: the least squares of GPTQ (arXiv:2210.17323), with one covariance for all. A likeness of 0
    is plain rounding.
    """
    side = weight.shape[-1]
    places = np.stack(np.divmod(np.arange(side * side), side), 1)
    distance = np.sqrt(np.square(places[:, None] - places[None]).sum(-1))
    covariance = np.power(likeness, distance) + 1e-3 * np.eye(side * side)
    left = weight.reshape(*weight.shape[:2], -1).astype(np.float64)
    whole = np.empty_like(left)
    for tap in range(side * side):
        whole[..., tap] = np.clip(np.round(left[..., tap]), -TOP, TOP)
        if tap + 1 < side * side:
            lost = left[..., tap] - whole[..., tap]
            after = slice(tap + 1, None)
            left[..., after] += lost[..., None] * np.linalg.solve(covariance[after, after], covariance[after, tap])
    return whole.reshape(weight.shape)


def patterns(count: int, channels: int, side: int, *, seed: int) -> list[Floats]:
    """[(1, C, side, side)] in [0, 1]: shapes that hide each other, plain or striped; sharp, noisy, soft or too sharp.

    They stand for photos: edges of every contrast, texture and flat parts, and what cameras and files add.
    """
    return [_pattern(np.random.default_rng((seed, number)), channels, side, number % 4) for number in range(count)]


def _pattern(random: np.random.Generator, channels: int, side: int, kind: int) -> Floats:
    fine = 2 * side
    y, x = np.mgrid[:fine, :fine].astype(np.float32)
    canvas = np.ones((channels, fine, fine), np.float32) * random.random((channels, 1, 1))
    for _ in range(150):
        radius = 2 / (0.02 + random.random() ** 0.7) * fine / 128
        right, down = x - random.random() * fine, y - random.random() * fine
        turn = random.random() * np.pi
        along, across = np.cos(turn) * right + np.sin(turn) * down, np.cos(turn) * down - np.sin(turn) * right
        if random.random() < 0.5:
            inside = along**2 + across**2 < radius**2
        else:
            inside = (abs(along) < radius) & (abs(across) < radius * random.uniform(0.1, 1.1))
        stripes = random.choice([0, 0.5]) * random.random() * np.sin(along[inside] * random.uniform(0.1, 2))
        canvas[:, inside] = random.random((channels, 1)) + stripes
    small = canvas.reshape(channels, side, 2, side, 2).mean((2, 4))
    small = 0.5 + (small - 0.5) * random.uniform(*CONTRAST)
    soft = np.mean([small, *(np.roll(small, shift, axis) for shift, axis in ((1, 1), (1, 2), ((1, 1), (1, 2))))], 0)
    noise = random.normal(0, 0.05, small.shape)
    made = (small, small + noise, soft, small + (small - soft))[kind]
    return np.clip(made, 0, 1).astype(np.float32)[None]


def _convs(model: Any, parts: Sequence[str]) -> list[Conv]:
    return [
        Conv(node=node, maps=_read_by(node))
        for node in model.get_ordered_ops()
        if node.get_type_name() == "Convolution" and _is_in(node.input_value(1).get_node(), parts)
    ]


def _is_in(weight: Any, parts: Sequence[str]) -> bool:
    name = weight.get_friendly_name()
    return weight.get_type_name() == "Constant" and any(name.startswith(f"{part}.") for part in parts)


def _read_by(node: Any) -> list[Any]:
    read = node.input_value(0)
    return list(read.get_node().input_values()) if read.get_node().get_type_name() == "Concat" else [read]


def _name(found: Any) -> str:
    return f"{found.get_node().get_friendly_name()}:{found.get_index()}"


def _maps(convs: Sequence[Conv]) -> dict[str, Any]:
    return {_name(found): found for conv in convs for found in conv.maps}


def _levels(opset: Any, found: Any, steps: Floats) -> Any:
    """A map -> its nearest levels, in units."""
    low, high = (opset.constant((level * steps).reshape(1, -1, 1, 1)) for level in (-ZERO, TOP))
    ends = (opset.constant(np.full((1, 1, 1, 1), level * UNIT, np.float32)) for level in (-ZERO, TOP))
    return opset.fake_quantize(found, low, high, *ends, 256).output(0)


def _weights(opset: Any, weight: Floats) -> Any:
    reach = np.abs(weight).max((1, 2, 3), keepdims=True).clip(LEAST)
    whole = opset.constant((rounded(weight * (TOP / reach)) * (reach / TOP)).astype(np.float32))
    low, high = opset.constant(-reach), opset.constant(reach)
    return opset.fake_quantize(whole, low, high, low, high, 2 * TOP + 1).output(0)
