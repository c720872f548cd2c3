"""What 8 bits cost a network: its ranges, measured once on generated pictures, and how near it then comes to float32.

No photo is needed, and none of the user's is looked at. Both are kept beside the graphs.
"""

import hashlib
import logging
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save

from restorer import machine
from restorer.engines.graph import keep_bytes, kept_bytes
from restorer.engines.graph_engine import Array
from restorer.engines.int8 import Floats, Ranges, measured, patterns, quantise
from restorer.engines.shared import from_native, psnr, to_native
from restorer.errors import WeightsError
from restorer.networks.spec import Model, Traits
from restorer.weights.fetch import cache_home

log = logging.getLogger(__name__)
FORMAT = 1
"""Raised when ranges or rounding change: what was kept until then is made again."""
FAITHFUL = 40.0
"""dB against float32 that the median picture must reach; with less, 8 bits are not used."""
SIDE, PICTURES, JUDGES = 64, 16, 8
"""Side of the generated pictures in input pixels; how many measure the ranges, and how many others judge."""
JUDGES_DB = "db of the judges"

Compile = Callable[[Any, str], Callable[[Array], Sequence[Floats]]]
"""(OpenVINO model, precision of what stays in floating point) -> what runs it: one input in, all outputs out."""


@dataclass(frozen=True, kw_only=True)
class Quantised:
    """A graph with convolutions in 8 bits, and what they cost."""

    model: Any
    """OpenVINO's."""
    convs: int
    db: tuple[float, ...]
    """Against float32, of pictures that the ranges were not measured on."""

    @property
    def faithful(self) -> bool:
        """Is the median picture near enough?"""
        return statistics.median(self.db) >= FAITHFUL

    def __str__(self) -> str:
        return (
            f"median {statistics.median(self.db):.1f} dB, worst {min(self.db):.1f} dB to fp32 "
            f"on {len(self.db)} generated pictures"
        )


def quantised(runtime: Any, model: Model, data: bytes, *, rest: str, compile_graph: Compile) -> Quantised:
    """The graph in `data` with convolutions in 8 bits: the first set of the network's `int8_parts` that is faithful.

    The last set, where none is.

    Args:
        rest: the precision of everything else, f32 or bf16.
    """
    ranges: Ranges | None = None
    made: Quantised | None = None
    for parts in model.spec.int8_parts(model.config):
        known = _kept(data, parts, rest)
        if known is None:
            ranges = ranges or ranges_of(runtime, model, data, parts, compile_graph)  # a set holds those after it
            near = _judged(runtime, model, data, parts, ranges=ranges, rest=rest, compile_graph=compile_graph)
            known = {**ranges, JUDGES_DB: np.array(near)}
            _keep(data, parts, rest, known)
        ranges = {name: reach for name, reach in known.items() if name != JUDGES_DB}
        graph = runtime.Core().read_model(data)
        count = quantise(runtime, graph, parts, ranges)
        made = Quantised(model=graph, convs=count, db=tuple(float(one) for one in known[JUDGES_DB]))
        if made.faithful:
            break
    assert made is not None, "a network that is proven in int8 says which parts"
    return made


def _judged(
    runtime: Any,
    model: Model,
    data: bytes,
    parts: Sequence[str],
    *,
    ranges: Ranges,
    rest: str,
    compile_graph: Compile,
) -> list[float]:
    """Decibels against float32 of generated pictures, with these convolutions in 8 bits."""
    core = runtime.Core()
    graph = core.read_model(data)
    quantise(runtime, graph, parts, ranges)
    exact, ours = compile_graph(core.read_model(data), "f32"), compile_graph(graph, rest)
    return [_nearness(ours(x)[0], exact(x)[0], model.traits) for x in _pictures(model.traits, JUDGES, seed=1)]


def ranges_of(runtime: Any, model: Model, data: bytes, parts: Sequence[str], compile_graph: Compile) -> Ranges:
    """The ranges of what the convolutions in `parts` of the graph in `data` read, on generated pictures."""
    log.info("measuring what these weights need in int8, once")
    pictures = _pictures(model.traits, PICTURES, seed=0)

    def run(graph: Any) -> list[Floats]:
        compute = compile_graph(graph, "f32")
        return [np.stack(rows) for rows in zip(*(compute(x) for x in pictures), strict=True)]

    return measured(runtime, runtime.Core().read_model(data), parts, run)


def _pictures(traits: Traits, count: int, *, seed: int) -> list[Floats]:
    side = -(-max(SIDE, traits.min_side) // traits.multiple_of) * traits.multiple_of
    made = patterns(count, traits.in_channels, side, seed=seed)
    return [to_native(torch.from_numpy(x), traits).contiguous().numpy() for x in made]


def _nearness(y: Floats, exact: Floats, traits: Traits) -> float:
    ours, theirs = (from_native(torch.from_numpy(np.asarray(each)), traits) for each in (y, exact))
    return psnr(ours, theirs)


def _kept(data: bytes, parts: Sequence[str], rest: str) -> Mapping[str, Floats] | None:
    try:
        found = kept_bytes(cache_home() / "graphs" / _name(data, parts, rest))
        return load(found) if found else None
    except (WeightsError, SafetensorError):
        return None


def _keep(data: bytes, parts: Sequence[str], rest: str, known: Mapping[str, Floats]) -> None:
    try:
        path = cache_home() / "graphs" / _name(data, parts, rest)
    except WeightsError:  # this user has no home
        return
    keep_bytes(path, save(dict(known)))


def _name(data: bytes, parts: Sequence[str], rest: str) -> str:
    """All that decides the ranges and what they cost here."""
    sets = sorted(machine.look().instruction_sets)
    about = (FORMAT, tuple(parts), rest, machine.installed("openvino"), machine.installed("restorer"), sets)
    return f"{hashlib.sha256(hashlib.sha256(data).digest() + repr(about).encode()).hexdigest()[:32]}.ranges"
