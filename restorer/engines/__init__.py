"""How a model is run: one batch at a time, on one device, in one precision, by the engine that is fastest here."""

import importlib
import logging
from collections.abc import Sequence

from restorer.engines import tune
from restorer.engines.precision import choose_device, device_names
from restorer.engines.seam import Engine, Open
from restorer.errors import (
    MissingPackageError,
    UnknownNameError,
    UnsupportedError,
    UsageError,
    WeightsError,
    unknown_name,
)
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
SHARING = ("eager", "compiled")
"""Those whose devices compute by themselves, so that several share a picture; the first is the default."""


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
    eager where nothing was measured; the rest of `auto` is decided by rules that `restorer doctor` explains. Several
    devices (cuda:0,cuda:1, or cuda:all) share pictures: the first one's engine has those of the others as its twins.
    """
    device, *others = device_names(device)
    if others and kind not in ("auto", *SHARING):
        raise UsageError(f"the {kind} engine runs on one device; name one, or use --engine {' or '.join(SHARING)}")
    chosen, why = (kind, ()) if kind != "auto" else (SHARING[0], ()) if others else _fastest(model, device, precision)
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
    if others:
        _share(engine, [opener(engine.name)(model, device=each, precision=precision) for each in others])
    return engine


def _share(engine: Engine, others: Sequence[Engine]) -> None:
    """Make engines twins of the first one; one that cannot compute as it does stays out, and that is said."""
    twins = [each for each in others if each.dtype == engine.dtype]
    for each in others:
        if each not in twins:
            log.warning("%s computes in %s and %s in %s; the latter takes no part; give --precision", *(
                word for one in (engine, each) for word in (one.where, str(one.dtype).removeprefix("torch."))
            ))  # fmt: skip
    engine.twins = tuple(twins)
    engine.where = ", ".join(each.where for each in (engine, *twins))
    engine.pixels_per_second += sum(each.pixels_per_second for each in twins)


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
