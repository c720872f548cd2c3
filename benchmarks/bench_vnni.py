"""What int8 gives a processor that multiplies whole numbers of 8 bits (VNNI), and has neither bfloat16 nor AMX.

On a processor that has them, PyTorch and OpenVINO are kept from using them, by oneDNN's own variable, and restorer is
told of none: the arithmetic is that of such a processor, its speed is that of this one's other units.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.bench_engines import middle, tensor
from benchmarks.bench_fidelity import SETS, pictures_of
from benchmarks.bench_precision import TIMED_SIDE, WEIGHTS, decibels, timed
from benchmarks.common import SHARED, Result, described, machine_facts, needed, publish, spread, table_lines, versions
from restorer import machine
from restorer.api import open_model
from restorer.engines import Engine, open_engine

KEPT_TO = {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI"}
FORMS = {
    "PyTorch, fp32": ("eager", "fp32"),
    "OpenVINO, fp32": ("openvino", "fp32"),
    "OpenVINO, int8": ("openvino", "int8"),
}
YARDSTICK = "PyTorch, fp32"


def main() -> None:
    """Measure, in a process whose libraries know no more than VNNI, and publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=SHARED / "data", help="folder of RealSRSet, RealESRGAN_inputs")
    parser.add_argument("--weights", type=Path, default=SHARED / "weights", help="folder of realesrgan")
    parser.add_argument("--rounds", type=int, default=9, help="runs of each, in turn; the median counts")
    parser.add_argument("--smoke", action="store_true", help="two photos; nothing is written")
    options = parser.parse_args()
    if "avx512_vnni" not in machine.look().instruction_sets:
        sys.exit("this processor has no avx512_vnni, so there is nothing to measure")
    if any(os.environ.get(name) != value for name, value in KEPT_TO.items()):
        again = [sys.executable, "-m", "benchmarks.bench_vnni", *sys.argv[1:]]
        sys.exit(subprocess.run(again, check=False, env=os.environ | KEPT_TO).returncode)
    facts = {**machine_facts(), "engines": versions(("openvino",))}
    whole = machine.look()
    less = frozenset(name for name in whole.instruction_sets if not any(part in name for part in ("bf16", "amx")))
    machine.look = lambda root=machine.ROOT: replace(whole, instruction_sets=less)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["RESTORER_CACHE"] = folder
        result: Result = {"machine": facts, "kept_to": KEPT_TO, "side": TIMED_SIDE, **measured(options)}
    publish("vnni", result, report(result), keep=not options.smoke)


def measured(options: argparse.Namespace) -> Result:
    """Every form on the photos, held against float32 in PyTorch; then all in turn on one."""
    model = open_model(*needed(options.weights, WEIGHTS))
    photos = [tensor(path, model) for name in SETS for path in pictures_of(options.data / name)]
    photos = photos[: 2 if options.smoke else None]
    engines = {name: open_engine(model, kind=kind, precision=how) for name, (kind, how) in FORMS.items()}
    exact = [made(engines[YARDSTICK], photo) for photo in photos]
    forms: dict[str, Result] = {}
    for name, engine in engines.items():
        near = [decibels(made(engine, photo), y) for photo, y in zip(photos, exact, strict=True)]
        forms[name] = {
            "computes_in": str(engine.dtype).removeprefix("torch."),
            "median_db": round(statistics.median(near), 1),
            "worst_db": round(min(near), 1),
        }
    x = middle(options.data, 32 if options.smoke else TIMED_SIDE, model)
    rounds = 1 if options.smoke else options.rounds
    seconds = timed({name: partial(made, engine) for name, engine in engines.items()}, x, rounds)
    for name, took in seconds.items():
        forms[name]["milliseconds"] = spread([1000 * one for one in took], digits=0)
        forms[name]["ratio"] = spread([one / other for one, other in zip(took, seconds[YARDSTICK], strict=True)])
    return {"photos": len(photos), "rounds": rounds, "forms": forms}


def made(engine: Engine, x: Any) -> Any:
    """(1, C, h, w) -> (1, C, H, W), as an array."""
    return engine.run({"image": x})["image"].numpy()


def report(result: Mapping[str, Any]) -> list[str]:
    """The README's lines."""
    rows: list[tuple[object, ...]] = [
        ("form", "dB to fp32: median, worst", "ms (least-greatest)", "time over PyTorch's fp32")
    ]
    for name, row in result["forms"].items():
        took, ratio = row["milliseconds"], row["ratio"]
        rows.append(
            (
                name,
                f"{row['median_db']:.1f}, {row['worst_db']:.1f}",
                f"{took['median']:.0f} ({took['min']:.0f}-{took['max']:.0f})",
                f"{ratio['median']:.2f} ({ratio['min']:.2f}-{ratio['max']:.2f})",
            )
        )
    kept = " ".join(f"{name}={value}" for name, value in result["kept_to"].items())
    libraries = ", ".join(f"{name} {number}" for name, number in result["machine"]["engines"].items() if number)
    return [
        f"{described(result['machine'])} {libraries}. Kept from bfloat16 and AMX by {kept}. x4plus, {result['side']}x"
        f"{result['side']}, median of {result['rounds']} in turn; the middle 64x64 of {result['photos']} photos.",
        "",
        *table_lines(rows),
    ]


if __name__ == "__main__":
    main()
