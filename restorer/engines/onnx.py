"""ONNX Runtime: the provider that is asked for computes, or it is an error; each result says which one it was."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch

from restorer import machine
from restorer.engines.eager import EagerEngine
from restorer.engines.graph import cached_graph
from restorer.engines.graph_engine import Array, Graph, GraphEngine
from restorer.engines.shared import without_blocks
from restorer.errors import MissingPackageError, UnsupportedError, UsageError, WeightsError, first_line
from restorer.networks.spec import Model

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
SILENT = 4  # onnxruntime's severity: what ends the process; all else comes as an exception
HEAVY = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm"})
"""Operations that a device is there for; shapes are counted on the processor by design."""


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
    runtime()  # a missing package is told before the graph is made
    why: dict[Provider, tuple[str, str]] = {}

    def data(provider: Provider) -> bytes:
        why[provider] = _precision(precision, provider, model.traits.precisions)
        return cached_graph(model, why[provider][0])

    opened = open_session(data, choose_provider(device))
    chosen, reason = why[opened.provider]
    graph = Graph(
        compute=opened.run,
        traits=without_blocks(model.traits),
        where=opened.where,
        on_cpu=opened.provider.kind == "cpu",
        memory_total=opened.memory_total,
        dtype=torch.float16 if chosen == "fp16" else torch.float32,
        errors=errors(),
    )
    plain = EagerEngine(model, device="cpu", precision="fp32", self_check=False)
    notes = (reason, *opened.notes)
    return GraphEngine(
        "onnx", graph, notes=notes, exact=lambda x: plain.run({"image": x})["image"], self_check=self_check
    )


class Session:
    """An ONNX Runtime session whose first input and output count: array in, array out."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.inputs, self.outputs = session.get_inputs(), session.get_outputs()

    def __call__(self, x: Array) -> Array:
        """The input -> the output."""
        return np.asarray(self._session.run([self.outputs[0].name], {self.inputs[0].name: x})[0])


@dataclass(frozen=True, kw_only=True, eq=False)
class Opened:
    """A session on the provider that computes."""

    run: Session
    provider: Provider
    notes: tuple[str, ...]
    """What was given up on the way."""
    told: Mapping[str, str]
    """The graph's own metadata."""

    @property
    def where(self) -> str:
        """Who computes, in words."""
        return f"ONNX Runtime's {self.provider.name}"

    @property
    def memory_total(self) -> int | None:
        """Bytes of the device; None is the host's, 0 is unknown."""
        if self.provider.kind == "cpu":
            return None
        if self.provider.kind in FAST_IN_HALF and torch.cuda.is_available():
            return int(torch.cuda.get_device_properties(self.provider.index).total_memory)
        return 0


def choose_provider(device: str) -> tuple[Provider, ...]:
    """auto, cpu, cuda[:N], tensorrt[:N], directml[:N] or mps -> what to try, in order; more than one only for auto."""
    kind, _, index = device.partition(":")
    if device == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else None
        return tuple(Provider(kind=kind) for kind in (accelerator, "cpu") if kind is not None)
    if kind not in PROVIDERS or (index and (not index.isdecimal() or kind in ("cpu", "mps"))):
        raise UsageError(f"no device named '{device}' for the onnx engine; use auto, {', '.join(PROVIDERS)}")
    return (Provider(kind=kind, index=int(index or 0)),)


def open_session(data: bytes | Callable[[Provider], bytes], wanted: Sequence[Provider]) -> Opened:
    """A graph on the first of `wanted` that really computes it; UnsupportedError where none does.

    `data` is the graph, or makes the one that suits a provider.
    """
    refused: list[str] = []
    for provider in wanted:
        if provider.name not in runtime().get_available_providers():
            refused.append(f"{provider.name} is not in this build")
            continue
        session = _session(data if isinstance(data, bytes) else data(provider), provider)
        if isinstance(session, str):
            refused.append(f"{provider.name} {session}")
            continue
        if refused:
            log.warning("%s; %s computes instead (restorer doctor shows what is installed)", refused[-1], provider.name)
        told = dict(session.get_modelmeta().custom_metadata_map)
        return Opened(run=Session(session), provider=provider, notes=tuple(refused), told=told)
    have = ", ".join(runtime().get_available_providers())
    raise UnsupportedError(
        f"{' and '.join(refused)} (this onnxruntime has: {have}); "
        "install the build and the driver it needs, or use --device cpu"
    )


def _session(data: bytes, provider: Provider) -> Any:
    """A session, or why the provider cannot have one; ONNX Runtime would silently go on without it."""
    ort = runtime()
    options = ort.SessionOptions()
    options.log_severity_level = SILENT
    options.intra_op_num_threads = machine.look().cores
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    providers: list[tuple[str, dict[str, str]]] = [(provider.name, _options(provider))]
    if provider.kind == "tensorrt":  # what it cannot take, CUDA does
        cuda = Provider(kind="cuda", index=provider.index)
        providers.append((cuda.name, _options(cuda)))
    try:
        session = ort.InferenceSession(data, sess_options=options, providers=providers, enable_fallback=0)
    except errors() as e:
        if provider.kind != "cpu":
            return f"did not load ({first_line(e)})"
        raise WeightsError(f"ONNX Runtime cannot load this graph ({first_line(e)}); export it again") from e
    if session.get_providers()[0] != provider.name:
        return "did not load"
    strays = _strays(session, {name for name, _ in providers})
    return f"leaves {strays[0]} and {len(strays)} such in all to the processor" if strays else session


def _options(provider: Provider) -> dict[str, str]:
    if provider.kind in ("cpu", "mps"):
        return {}
    return {"device_id": str(provider.index), **({"use_tf32": "0"} if provider.kind == "cuda" else {})}


def _strays(session: Any, wanted: set[str]) -> list[str]:
    """The heavy operations that another provider than `wanted` was given."""
    return [
        node.op_type
        for part in session.get_provider_graph_assignment_info()
        if part.ep_name not in wanted
        for node in part.get_nodes()
        if node.op_type in HEAVY
    ]


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
