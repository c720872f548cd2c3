"""How a model is run: one batch at a time, on one device, in one precision, by the engine that is fastest here."""

import importlib
import logging

from restorer.engines import tune
from restorer.engines.precision import choose_device
from restorer.engines.seam import Engine, Open
from restorer.errors import MissingPackageError, UnknownNameError, UnsupportedError, WeightsError, unknown_name
from restorer.networks.spec import Model

log = logging.getLogger(__name__)

__all__ = ["ENGINES", "Engine", "open_engine", "opener"]

ENGINES = {
    "eager": ("restorer.engines.eager", "EagerEngine"),  # PyTorch, operation by operation
    "compiled": ("restorer.engines.compiled", "CompiledEngine"),  # PyTorch, turned into machine code by torch.compile
    "onnx": ("restorer.engines.onnx", "open_onnx"),  # ONNX Runtime: CPU, CUDA, TensorRT, DirectML, CoreML
    "openvino": ("restorer.engines.openvino", "open_openvino"),  # OpenVINO on Intel and AMD processors
}
"""Name -> module, what opens it there."""


def opener(name: str) -> Open:
    """What opens the engine of this name; its library is imported only then."""
    if name not in ENGINES:
        raise unknown_name("engine", name, ("auto", *ENGINES))
    module, maker = ENGINES[name]
    return getattr(importlib.import_module(module), maker)


def open_engine(
    model: Model, *, kind: str = "auto", device: str = "auto", precision: str = "auto", self_check: bool = True
) -> Engine:
    """Put a model on a device, in a precision, behind an engine.

    `auto` for the kind is the fastest in what `restorer doctor --tune` measured for this network on this machine, and
    eager where nothing was measured; the rest of `auto` is decided by rules that `restorer doctor` explains.
    """
    chosen, why = (kind, ()) if kind != "auto" else _fastest(model, device, precision)
    try:
        engine = opener(chosen)(model, device=device, precision=precision, self_check=self_check)
    except (UnsupportedError, MissingPackageError, WeightsError, UnknownNameError) as e:
        if kind != "auto" or chosen == "eager":
            raise
        why = (f"eager: {chosen} cannot run this model ({e})",)
        log.warning("%s cannot run this model (%s); eager is used instead", chosen, e)
        engine = opener("eager")(model, device=device, precision=precision, self_check=self_check)
    for remark in model.remarks:
        log.warning("%s", remark)
    engine.notes = (*model.remarks, *engine.notes, *why)
    return engine


def _fastest(model: Model, device: str, precision: str) -> tuple[str, tuple[str, ...]]:
    """(engine, why)"""
    if device != "auto" and choose_device(device) != choose_device("auto"):
        return "eager", ("eager: engines were measured for another device",)
    rows = tune.kept(model)
    best = tune.choose(rows, precision)
    if best is None and rows:
        return "eager", (f"eager: nothing that was measured here is faithful in {precision}",)
    if best is None:
        return "eager", ("eager: other engines are not measured here yet (restorer doctor --tune)",)
    why = f"{best.engine}: the fastest measured here, {best.seconds_per_megapixel:.2f} s per output MP"
    return best.engine, (why,)
