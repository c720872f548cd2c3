"""What 8 bits cost and give: nearness to float32 on photos against time, for more and more of a network in int8.

Every form is the same graph in OpenVINO. Ranges are measured on generated pictures, so that no photo was seen before;
NNCF, which stands for the usual way, is shown photos of another set.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.bench_engines import middle, say, tensor
from benchmarks.bench_fidelity import SETS, pictures_of
from benchmarks.common import SHARED, Result, described, machine_facts, needed, publish, spread, table_lines, versions
from restorer.api import open_model
from restorer.engines import int8, shared
from restorer.engines.graph import cached_graph
from restorer.engines.int8_ranges import ranges_of
from restorer.engines.openvino import outputs_of, runtime
from restorer.networks.spec import Model

WEIGHTS = "realesrgan/RealESRGAN_x4plus.safetensors"
NNCF = "int8 by NNCF, everywhere"
SHOWN_TO_NNCF = ("BSD100/LR_x4", 13)
"""Folder, and how many of its photos."""
TIMED_SIDE = 128
CALM = range(4, 12)
"""Blocks whose errors were found to matter least."""

Run = Callable[[NDArray[np.float32]], Sequence[NDArray[np.float32]]]


def main() -> None:
    """Measure every form and publish."""
    options = parsed()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["RESTORER_CACHE"] = folder
        model = open_model(*needed(options.weights, WEIGHTS))
        result: Result = {
            "machine": {**machine_facts(), "engines": versions(("openvino", "nncf"))},
            "network": Path(WEIGHTS).stem,
            "side": TIMED_SIDE,
            "rounds": options.rounds,
            **measured(model, options),
        }
    publish("precision", result, report(result), keep=not options.smoke)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=SHARED / "data", help="folder of RealSRSet, RealESRGAN_inputs")
    parser.add_argument("--weights", type=Path, default=SHARED / "weights", help="folder of realesrgan")
    parser.add_argument("--rounds", type=int, default=7, help="runs of each; the median counts")
    parser.add_argument("--smoke", action="store_true", help="two forms, two photos; nothing is written")
    return parser.parse_args()


def parts_of(model: Model) -> dict[str, tuple[str, ...]]:
    """Name of a form -> what computes in int8 in it, from little to all but the ends."""
    blocks = range(model.config.blocks)

    def convs(places: Sequence[int], of: Sequence[int] = blocks) -> tuple[str, ...]:
        dense = [f"body.{block}.rdb{number}" for block in of for number in (1, 2, 3)]
        return tuple(f"{block}.conv{place}" for block in dense for place in places)

    return {
        "int8 in blocks 5 to 12": convs((1, 2, 3, 4, 5), CALM),
        "int8 in convolutions 1 to 3 of dense blocks": convs((1, 2, 3)),
        "int8 in convolutions 1 to 4 of dense blocks": convs((1, 2, 3, 4)),
        "the same, and the fifth in blocks 5 to 12": model.spec.int8_parts(model.config)[1],
        "int8 in dense blocks": model.spec.int8_parts(model.config)[0],
        "int8 in all but first and last": (*convs((1, 2, 3, 4, 5)), "conv_body", "conv_up1", "conv_up2", "conv_hr"),
    }


def measured(model: Model, options: argparse.Namespace) -> Result:
    """Make every form; hold it against float32; run all in turn, each round in another order."""
    photos = [tensor(path, model).contiguous().numpy() for name in SETS for path in pictures_of(options.data / name)]
    photos = photos[: 2 if options.smoke else None]
    x = middle(options.data, 32 if options.smoke else TIMED_SIDE, model).contiguous().numpy()
    forms = made(model, options)
    exact = [forms["fp32"][1](photo)[0] for photo in photos]
    rows: dict[str, Result] = {}
    for name, (count, run) in forms.items():
        near = [decibels(run(photo)[0], y) for photo, y in zip(photos, exact, strict=True)]
        rows[name] = {
            "int8_convolutions": count,
            "median_db": round(statistics.median(near), 1),
            "worst_db": round(min(near), 1),
        }
        say(f"{name}: {rows[name]}")
    seconds = timed({name: run for name, (_, run) in forms.items()}, x, 1 if options.smoke else options.rounds)
    for name, took in seconds.items():
        rows[name]["milliseconds"] = spread([1000 * one for one in took], digits=1)
        ratios = [one / other for one, other in zip(took, seconds["bf16"], strict=True)]
        rows[name]["ratio_to_bf16"] = round(statistics.median(ratios), 3)
    return {"photos": len(photos), "forms": rows}


def made(model: Model, options: argparse.Namespace) -> dict[str, tuple[int, Run]]:
    """Name -> convolutions in int8, and what runs it. What is not in int8 is in bf16."""
    library, data = runtime(), cached_graph(model)
    chosen = dict(list(parts_of(model).items())[: 1 if options.smoke else None])
    ranges = ranges_of(library, model, data, every_part(chosen), outputs_of)
    forms: dict[str, tuple[int, Run]] = {
        "fp32": (0, outputs_of(loaded(data), "f32")),
        "bf16": (0, outputs_of(loaded(data), "bf16")),
    }
    for name, parts in chosen.items():
        graph = loaded(data)
        forms[name] = int8.quantise(library, graph, parts, ranges), outputs_of(graph, "bf16")
    if not options.smoke:
        forms[NNCF] = usual(loaded(data), model, options.data)
    return forms


def loaded(data: bytes) -> Any:
    """The graph, as OpenVINO's model."""
    return runtime().Core().read_model(data)


def every_part(chosen: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """All that some form computes in int8, once each."""
    return tuple({part: None for parts in chosen.values() for part in parts})


def usual(graph: Any, model: Model, data: Path) -> tuple[int, Run]:
    """NNCF as it comes: every convolution, ranges of photos of another set."""
    import nncf  # type: ignore[import-untyped]

    folder, count = SHOWN_TO_NNCF
    photos = [tensor(path, model).contiguous().numpy() for path in pictures_of(data / folder)[:count]]
    ready = nncf.quantize(graph, nncf.Dataset(photos), subset_size=len(photos))
    convs = [node for node in ready.get_ordered_ops() if node.get_type_name() == "Convolution"]
    whole = [node for node in convs if node.input_value(1).get_node().get_type_name() != "Constant"]
    return len(whole), outputs_of(ready, "bf16")


def timed(runs: Mapping[str, Callable[[Any], object]], x: Any, rounds: int) -> dict[str, list[float]]:
    """Seconds of each with `x`, in turn, once each has run."""
    names = list(runs)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for name in names:
        runs[name](x)
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            start = time.perf_counter()
            runs[name](x)
            seconds[name].append(time.perf_counter() - start)
    return seconds


def decibels(y: NDArray[np.float32], exact: NDArray[np.float32]) -> float:
    """Same shapes, in [0, 1] -> decibels between the 8-bit pictures; 200 is equal."""
    ours, theirs = (np.round(np.clip(each, 0, 1) * 255) / 255 for each in (y, exact))
    error = float(np.square(ours - theirs).mean())
    return shared.decibels(error)


def report(result: Result) -> list[str]:
    """The table."""
    libraries = ", ".join(f"{name} {number}" for name, number in result["machine"]["engines"].items() if number)
    rows: list[Sequence[object]] = [
        ("form", "convolutions in int8", "dB to fp32: median, worst", "ms (least-greatest)", "time over bf16")
    ]
    for name, row in result["forms"].items():
        took = row["milliseconds"]
        rows.append(
            (
                name,
                row["int8_convolutions"],
                f"{row['median_db']:.1f}, {row['worst_db']:.1f}",
                f"{took['median']:.0f} ({took['min']:.0f}-{took['max']:.0f})",
                f"{row['ratio_to_bf16']:.2f}",
            )
        )
    return [
        f"{described(result['machine'])} {libraries}. {result['network']}, {result['side']}x{result['side']}, median "
        f"of {result['rounds']} in turn; the middle 64x64 of {result['photos']} photos.",
        "",
        *table_lines(rows),
    ]


if __name__ == "__main__":
    main()
