"""Every engine, side by side: seconds an output megapixel, share of the peak, and how near to float32 PyTorch.

All engines of a network are opened in one process and take turns on the same batch, so that a machine whose speed
drifts is the same for all; the median counts. Nearness is over the middle of every picture of two sets of real photos.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.bench_fidelity import SETS, cut, pictures_of
from benchmarks.child import matrix_speed
from benchmarks.common import SHARED, Result, described, machine_facts, needed, publish, spread, table_lines, versions
from restorer import machine
from restorer.api import open_model
from restorer.engines import ENGINES, Engine, opener
from restorer.engines.shared import psnr
from restorer.errors import RestorerError
from restorer.networks.spec import Model

PRECISIONS = ("fp32", "bf16")
SMOKE_SIDE = 32
CROP = 64
"""Side of what is taken of each photo, in input pixels."""
GIGA = 1e9
IDLE = 0.3
"""Seconds before each timed run."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One network, and the side of the batch that is timed."""

    weights: str
    side: int


CASES = (
    Case(weights="realesrgan/RealESRGAN_x4plus.safetensors", side=96),
    Case(weights="realesrgan/RealESRGAN_x4plus_anime_6B.safetensors", side=128),
    Case(weights="realesrgan/realesr-animevideov3.safetensors", side=256),
    Case(weights="srgan/srgan_leftthomas_x4.safetensors", side=128),
)


def main() -> None:
    """Measure every case and publish."""
    options = parsed()
    machine.keep_freed_memory()  # as the command line does
    result: Result = {
        "machine": {**machine_facts(), "engines": versions(("onnxruntime-gpu", "onnxruntime", "openvino"))},
        "rounds": options.rounds,
        "cases": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        os.environ["RESTORER_CACHE"] = folder
        for case in CASES:
            result["cases"][Path(case.weights).stem] = measured(case, options)
    publish("engines", result, report(result), keep=not options.smoke)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=SHARED / "data", help="folder of RealSRSet, RealESRGAN_inputs")
    parser.add_argument("--weights", type=Path, default=SHARED / "weights", help="folder of realesrgan and srgan")
    parser.add_argument("--rounds", type=int, default=20, help="runs of each; the median counts")
    parser.add_argument("--smoke", action="store_true", help="tiny batches, few pictures; nothing is written")
    return parser.parse_args()


def measured(case: Case, options: argparse.Namespace) -> Result:
    """Open every engine in every precision of use here; time them in turn; hold them against eager float32."""
    model = open_model(*needed(options.weights, case.weights))
    side = SMOKE_SIDE if options.smoke else case.side
    x = middle(options.data, side, model)
    photos = [tensor(path, model) for folder in SETS for path in pictures_of(options.data / folder)]
    engines, refused = opened(model, (x, photos[0]))
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    names = list(engines)
    for number in range(1 if options.smoke else options.rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            time.sleep(IDLE)  # worker threads of the one before spin on for a while
            start = time.perf_counter()
            engines[name].run({"image": x})
            seconds[name].append(time.perf_counter() - start)
    peaks = {precision: matrix_speed(dtype) for precision, dtype in dtypes(engines).items()}
    near = nearness(engines, photos[: 2 if options.smoke else None])
    megapixels = (side * model.traits.scale) ** 2 / 1e6
    rows = {}
    for name in engines:
        speed = 2 * model.traits.operations * side**2 / statistics.median(seconds[name])
        precision = name.split()[1]
        rows[name] = {
            "seconds_per_megapixel": spread([one / megapixels for one in seconds[name]], digits=4),
            "ratio_to_eager": round(
                statistics.median(
                    a / b for a, b in zip(seconds[name], seconds[f"eager {precision}"], strict=True)
                ), 3,
            ),
            "gflops": round(speed / GIGA),
            "share_of_matrix_peak": round(speed / peaks[precision], 3),
            **near[name],
        }  # fmt: skip
        say(f"{case.weights}: {name} {rows[name]['seconds_per_megapixel']['median']:.3f} s per output MP")
    return {
        "side": side,
        "matrix_gflops": {precision: round(peak / GIGA) for precision, peak in peaks.items()},
        "engines": rows,
        "refused": refused,
    }


def opened(model: Model, batches: Sequence[Tensor]) -> tuple[dict[str, Engine], dict[str, str]]:
    """Engines by "name precision", warm for `batches`, and why others are not here."""
    engines: dict[str, Engine] = {}
    refused = {}
    for precision in PRECISIONS if machine.has_fast_bf16(machine.look()) else PRECISIONS[:1]:
        for name in ENGINES:
            try:
                engine = opener(name)(model, device="cpu", precision=precision)
                for x in batches:  # machine code is made now
                    engine.run({"image": x})
                engines[f"{name} {precision}"] = engine
            except RestorerError as e:
                refused[f"{name} {precision}"] = str(e)
    return engines, refused


def dtypes(engines: dict[str, Engine]) -> dict[str, torch.dtype]:
    """What each precision in use computes in."""
    return {name.split()[1]: engine.dtype for name, engine in engines.items()}


def nearness(engines: dict[str, Engine], photos: Sequence[Tensor]) -> dict[str, Result]:
    """Decibels against eager float32: the median and the worst photo."""
    exact = [engines["eager fp32"].run({"image": x})["image"] for x in photos]
    found = {}
    for name, engine in engines.items():
        close = [psnr(engine.run({"image": x})["image"], y) for x, y in zip(photos, exact, strict=True)]
        found[name] = {"median_db": round(statistics.median(close), 1), "worst_db": round(min(close), 1)}
    return found


def middle(data: Path, side: int, model: Model) -> Tensor:
    """(1, C, side, side): the middle of a photo."""
    return as_batch(cut(*needed(data, "skimage/astronaut.png"), (side, side)).pixels, model)


def tensor(path: Path, model: Model) -> Tensor:
    """(1, C, 64, 64): the middle of any photo; grey is repeated."""
    return as_batch(cut(path, (CROP, CROP)).pixels, model)


def as_batch(pixels: np.ndarray, model: Model) -> Tensor:
    """(H, W, 1 or 3) -> (1, C, H, W)"""
    x = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None]
    return x.expand(-1, model.traits.in_channels, -1, -1).contiguous(memory_format=torch.channels_last)


def report(result: Result) -> list[str]:
    """The table."""
    libraries = ", ".join(f"{name} {number}" for name, number in result["machine"]["engines"].items() if number)
    lines = [f"{described(result['machine'])} {libraries}. Median of {result['rounds']} in turn.", ""]
    rows: list[Sequence[object]] = [
        ("network, batch", "engine", "s per output MP (least-greatest)", "time over eager", "GFLOP/s", "share of peak",
         "dB to eager fp32: median, worst"),
    ]  # fmt: skip
    for network, case in result["cases"].items():
        for name, row in case["engines"].items():
            took = row["seconds_per_megapixel"]
            rows.append(
                (
                    f"{network}, {case['side']}x{case['side']}",
                    name,
                    f"{took['median']:.3f} ({took['min']:.3f}-{took['max']:.3f})",
                    f"{row['ratio_to_eager']:.2f}",
                    row["gflops"],
                    f"{row['share_of_matrix_peak']:.0%}",
                    f"{row['median_db']:.1f}, {row['worst_db']:.1f}",
                )
            )
    refused = {why for case in result["cases"].values() for why in case["refused"].values()}
    return [*lines, *table_lines(rows), "", *(f"- Not run: {why}" for why in sorted(refused))]


def say(text: str) -> None:
    """How far the work has come."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
