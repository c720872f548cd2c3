"""OpenVINO on the processor: the precision is set and read back, never its silent default."""

import logging
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import torch

from restorer import machine
from restorer.engines.eager import EagerEngine
from restorer.engines.graph import cached_graph
from restorer.engines.graph_engine import Array, Graph, GraphEngine
from restorer.engines.int8 import Floats
from restorer.engines.int8_ranges import FAITHFUL, quantised
from restorer.engines.shared import AGREES_FROM, without_blocks
from restorer.errors import MissingPackageError, UnsupportedError, first_line
from restorer.networks.spec import Model

log = logging.getLogger(__name__)
HINTS = {"fp32": "f32", "bf16": "bf16"}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.int8}
SOUND_INT8 = 20.0
"""dB against float32 on the probe, harder than any picture: there it is only to show that nothing is broken."""


def open_openvino(
    model: Model, *, device: str = "auto", precision: str = "auto", self_check: bool = True
) -> GraphEngine:
    """Run a model's graph in OpenVINO. The first time, the graph is made, which takes a while, and kept."""
    if device not in ("auto", "cpu"):
        raise UnsupportedError(f"the openvino engine computes on the processor, not on {device}; use --device cpu")
    chosen, why = _precision(precision, model.traits.precisions)
    runtime()  # a missing package is told before the graph is made
    data, notes = cached_graph(model), [why]
    if chosen == "int8":
        loaded, chosen, told = _in_int8(model, data)
        notes.append(told)
    else:
        loaded = _read(data)
    compiled = _compiled(loaded, HINTS[_rest() if chosen == "int8" else chosen])
    graph = Graph(
        compute=Compiled(compiled),
        traits=without_blocks(model.traits),
        where=f"OpenVINO's CPU in {chosen}",
        dtype=DTYPES[chosen],
        agrees_from=SOUND_INT8 if chosen == "int8" else AGREES_FROM,
    )
    plain = EagerEngine(model, device="cpu", precision="fp32", self_check=False)
    return GraphEngine(
        "openvino", graph, notes=tuple(notes), exact=lambda x: plain.run({"image": x})["image"], self_check=self_check
    )


class Compiled:
    """A compiled OpenVINO model with one input and one output: array in, array out."""

    def __init__(self, compiled: Any) -> None:
        self._request = compiled.create_infer_request()

    def __call__(self, x: Array) -> Array:
        """The input -> the output, which the next call does not touch."""
        return np.array(self._request.infer([x], share_inputs=True)[0])


def runtime() -> ModuleType:
    """The openvino package."""
    try:
        import openvino
    except ImportError as e:
        raise MissingPackageError('the openvino engine needs extra packages: pip install "restorer[openvino]"') from e
    return openvino


def _in_int8(model: Model, data: bytes) -> tuple[Any, str, str]:
    """(graph, the precision that it is for, a note): where 8 bits cost these weights too much, the next best."""
    rest = _rest()
    made = quantised(runtime(), model, data, rest=HINTS[rest], compile_graph=outputs_of)
    if made.faithful:
        return made.model, "int8", f"int8 in {made.convs} convolutions, {rest} elsewhere: {made}"
    note = f"int8 costs these weights too much ({made}; {FAITHFUL:.0f} are needed); {rest} is used instead"
    log.warning("%s", note)
    return _read(data), rest, note


def outputs_of(model: Any, hint: str) -> Callable[[Array], list[Floats]]:
    """OpenVINO's model, f32 or bf16 for what is not quantised in it -> what runs it: its input in, all outputs out."""
    request = _compiled(model, hint).create_infer_request()
    return lambda x: [np.array(y) for y in request.infer([x], share_inputs=True).values()]


def _read(data: bytes) -> Any:
    try:
        return runtime().Core().read_model(data)
    except RuntimeError as e:
        raise UnsupportedError(f"OpenVINO cannot read this graph ({first_line(e)}); use --engine eager") from e


def _compiled(model: Any, hint: str) -> Any:
    core = runtime().Core()
    wanted = {
        "INFERENCE_PRECISION_HINT": hint,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": machine.look().cores,
    }
    try:
        compiled = core.compile_model(model, "CPU", wanted)
    except RuntimeError as e:
        raise UnsupportedError(f"OpenVINO cannot take this graph ({first_line(e)}); use --engine eager") from e
    really = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    if really != hint:
        raise UnsupportedError(f"OpenVINO would compute in {really} where {hint} was asked for; use --engine eager")
    return compiled


def _precision(name: str, allowed: frozenset[str]) -> tuple[str, str]:
    """(fp32, bf16 or int8, why)"""
    if name == "auto":
        return "fp32", "fp32: OpenVINO lowers whole networks, the residual stream too, so bf16 is only on request"
    if name not in DTYPES:
        raise UnsupportedError(f"the openvino engine computes in fp32 or bf16 or int8, not {name}; use one of them")
    if name not in allowed:
        raise UnsupportedError(f"this network is not proven in {name}; use --precision auto or fp32")
    if name == "bf16" and not machine.has_fast_bf16(machine.look()):
        raise UnsupportedError("this processor has neither avx512_bf16 nor amx_bf16; use --precision fp32")
    if name == "int8" and not machine.has_fast_int8(machine.look()):
        raise UnsupportedError("this processor has none of avx512_vnni, avx_vnni, amx_int8; use --precision auto")
    return name, f"{name} was asked for"


def _rest() -> str:
    """What int8 leaves to floating point is computed in."""
    return "bf16" if machine.has_fast_bf16(machine.look()) else "fp32"
