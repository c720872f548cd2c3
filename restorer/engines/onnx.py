"""ONNX Runtime: the provider that is asked for computes, or it is an error; which one it was is always said."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np
import torch

from restorer import machine
from restorer.engines.eager import EagerEngine
from restorer.engines.graph import cached_graph
from restorer.engines.graph_engine import Array, Graph, GraphEngine
from restorer.errors import MissingPackageError, UnsupportedError, UsageError, WeightsError
from restorer.networks.spec import Model, Traits

log = logging.getLogger(__name__)
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "directml": "DmlExecutionProvider",
    "mps": "CoreMLExecutionProvider",
}
"""Kind of device -> ONNX Runtime's name for what computes on it."""
FAST_IN_HALF = ("cuda", "tensorrt")
SILENT = 3  # onnxruntime's severity: errors only


@dataclass(frozen=True, kw_only=True)
class Provider:
    """One device to compute on."""

    kind: str
    index: int = 0

    @property
    def name(self) -> str:
        """ONNX Runtime's name for it."""
        return PROVIDERS[self.kind]


def open_onnx(model: Model, *, device: str = "auto", precision: str = "auto", self_check: bool = True) -> GraphEngine:
    """Run a model's graph in ONNX Runtime. The first time, the graph is made, which takes a while, and kept."""
    wanted = choose_provider(device)
    chosen, why = _precision(precision, wanted[0], model.traits.precisions)
    data = cached_graph(model, chosen)
    session, notes = open_session(data, wanted)
    graph = Graph(
        compute=Session(session),
        traits=without_blocks(model.traits),
        where=f"ONNX Runtime's {session.get_providers()[0]}",
        dtype=torch.float16 if chosen == "fp16" else torch.float32,
        errors=errors(),
    )
    plain = EagerEngine(model, device="cpu", precision="fp32", self_check=False)
    return GraphEngine(
        "onnx", graph, notes=(why, *notes), exact=lambda x: plain.run({"image": x})["image"], self_check=self_check
    )


def without_blocks(traits: Traits) -> Traits:
    """The traits of a network that another library runs in one go, not in blocks that fit the cache."""
    return replace(traits, values_in_blocks=None)


class Session:
    """An ONNX Runtime session with one input and one output: array in, array out."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._input = session.get_inputs()[0].name
        self._output = session.get_outputs()[0].name

    def __call__(self, x: Array) -> Array:
        """The input -> the output."""
        return np.asarray(self._session.run([self._output], {self._input: x})[0])


def choose_provider(device: str) -> tuple[Provider, ...]:
    """auto, cpu, cuda[:N], tensorrt[:N], directml[:N] or mps -> what to try, in order; more than one only for auto."""
    kind, _, index = device.partition(":")
    if device == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else None
        return tuple(Provider(kind=kind) for kind in (accelerator, "cpu") if kind is not None)
    if kind not in PROVIDERS or (index and not index.isdecimal()):
        raise UsageError(f"no device named '{device}' for the onnx engine; use auto, {', '.join(PROVIDERS)}")
    return (Provider(kind=kind, index=int(index or 0)),)


def open_session(data: bytes, wanted: tuple[Provider, ...]) -> tuple[Any, tuple[str, ...]]:
    """A graph's bytes -> (session, notes) on the first of `wanted` that really takes it; no other is fallen back to."""
    ort = runtime()
    refused: list[str] = []
    for provider in wanted:
        session = None
        if provider.name in ort.get_available_providers():
            session = _session(ort, data, provider)
        if session is not None and session.get_providers()[0] == provider.name:
            if refused:
                log.warning("%s", "; ".join(refused))
            return session, tuple(refused)
        refused.append(f"{provider.name} did not load")
    have = ", ".join(ort.get_available_providers())
    raise UnsupportedError(
        f"{' and '.join(refused)} (this onnxruntime has: {have}); "
        "install the build and the driver it needs, or use --device cpu"
    )


def _session(ort: ModuleType, data: bytes, provider: Provider) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = SILENT
    options.intra_op_num_threads = machine.look().cores
    extra: Mapping[str, str] = {} if provider.kind in ("cpu", "mps") else {"device_id": str(provider.index)}
    try:
        return ort.InferenceSession(data, sess_options=options, providers=[(provider.name, dict(extra))])
    except errors() as e:
        why = str(e).strip().splitlines()[0][:200] if str(e).strip() else type(e).__name__
        raise WeightsError(f"ONNX Runtime cannot load this graph ({why}); export it again") from e


def runtime() -> ModuleType:
    """The onnxruntime package."""
    try:
        import onnxruntime
    except ImportError as e:
        raise MissingPackageError('the onnx engine needs extra packages: pip install "restorer[onnx]"') from e
    return onnxruntime


def errors() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises: its own kinds, each an Exception of its own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = (
        "Fail",
        "RuntimeException",
        "InvalidArgument",
        "InvalidGraph",
        "InvalidProtobuf",
        "NotImplemented",
        "EPFail",
    )
    return (RuntimeError, *(getattr(state, name) for name in names))


def _precision(name: str, provider: Provider, allowed: frozenset[str]) -> tuple[str, str]:
    """(fp32 or fp16, why)"""
    fast = provider.kind in FAST_IN_HALF
    if name == "auto":
        if fast and "fp16" in allowed:
            return "fp16", "fp16: an NVIDIA device computes it at least twice as fast as fp32"
        return "fp32", "fp32: what ONNX Runtime computes best here"
    if name not in ("fp32", "fp16"):
        raise UnsupportedError(f"ONNX Runtime has no {name} convolutions; use --precision auto, fp32 or --engine eager")
    if name == "fp16" and provider.kind == "cpu":
        raise UnsupportedError("processors do not compute fp16 at a useful speed; use --precision auto or fp32")
    if name not in allowed:
        raise UnsupportedError(f"this network is not proven in {name}; use --precision auto or fp32")
    return name, f"{name} was asked for"
