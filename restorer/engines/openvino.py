"""OpenVINO on the processor: the precision is set and read back, never its silent default."""

from types import ModuleType
from typing import Any

import numpy as np
import torch

from restorer import machine
from restorer.engines.eager import EagerEngine
from restorer.engines.graph import cached_graph
from restorer.engines.graph_engine import Array, Graph, GraphEngine
from restorer.engines.shared import without_blocks
from restorer.errors import MissingPackageError, UnsupportedError, first_line
from restorer.networks.spec import Model

HINTS = {"fp32": "f32", "bf16": "bf16"}


def open_openvino(
    model: Model, *, device: str = "auto", precision: str = "auto", self_check: bool = True
) -> GraphEngine:
    """Run a model's graph in OpenVINO. The first time, the graph is made, which takes a while, and kept."""
    if device not in ("auto", "cpu"):
        raise UnsupportedError(f"the openvino engine computes on the processor, not on {device}; use --device cpu")
    chosen, why = _precision(precision, model.traits.precisions)
    runtime()  # a missing package is told before the graph is made
    compiled = _compiled(cached_graph(model), HINTS[chosen])
    graph = Graph(
        compute=Compiled(compiled),
        traits=without_blocks(model.traits),
        where=f"OpenVINO's CPU in {chosen}",
        dtype=torch.bfloat16 if chosen == "bf16" else torch.float32,
    )
    plain = EagerEngine(model, device="cpu", precision="fp32", self_check=False)
    return GraphEngine(
        "openvino", graph, notes=(why,), exact=lambda x: plain.run({"image": x})["image"], self_check=self_check
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


def _compiled(data: bytes, hint: str) -> Any:
    core = runtime().Core()
    wanted = {
        "INFERENCE_PRECISION_HINT": hint,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": machine.look().cores,
    }
    try:
        compiled = core.compile_model(core.read_model(data), "CPU", wanted)
    except RuntimeError as e:
        raise UnsupportedError(f"OpenVINO cannot take this graph ({first_line(e)}); use --engine eager") from e
    really = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    if really != hint:
        raise UnsupportedError(f"OpenVINO would compute in {really} where {hint} was asked for; use --engine eager")
    return compiled


def _precision(name: str, allowed: frozenset[str]) -> tuple[str, str]:
    """(fp32 or bf16, why)"""
    if name == "auto":
        return "fp32", "fp32: OpenVINO lowers whole networks, the residual stream too, so bf16 is only on request"
    if name not in HINTS:
        raise UnsupportedError(f"the openvino engine computes in fp32 or bf16, not {name}; use one of them")
    if name not in allowed:
        raise UnsupportedError(f"this network is not proven in {name}; use --precision auto or fp32")
    if name == "bf16" and not machine.has_fast_bf16(machine.look()):
        raise UnsupportedError("this processor has neither avx512_bf16 nor amx_bf16; use --precision fp32")
    return name, f"{name} was asked for"
