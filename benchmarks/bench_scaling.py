"""Does time per megapixel stay the same from small pictures to large ones? How does it depend on tiles and threads?

One picture in a process of its own, read from memory and thrown away row by row: what is timed is the network's way.
"""

import argparse
import math
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.common import (
    ROOT,
    SHARED,
    Result,
    described,
    machine_facts,
    needed,
    publish,
    ranged,
    run_child,
    spread,
    table_lines,
)
from restorer import machine

CHILD = ROOT / "benchmarks" / "child_tiling.py"
MODEL = "realesr-general-x4v3"
MEGAPIXELS = (1, 4, 16, 64)
"""Of the result, which has 16 times the input's pixels."""
SIDES = (64, 128, 256, 512)
"""Of tiles; 16 megapixels come out."""
BATCHES = (1, 4, 16)
"""Tiles of 64 pixels that the network gets at once."""
FLAT = 1.1


def main() -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=SHARED / "weights", help="folder of realesrgan")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each, in turn; the quickest counts")
    parser.add_argument("--smoke", action="store_true", help="small pictures; nothing is written")
    options = parser.parse_args()
    weights = needed(options.weights, f"realesrgan/{MODEL}.safetensors")[0]
    precision = "bf16" if machine.has_fast_bf16(machine.look()) else "fp32"
    cores = machine.look().cores
    less = 16 if options.smoke else 1

    def seconds(megapixels: float, tile: int | str = "rows", *, threads: int = cores, batch: int = 0) -> float:
        side = round(math.sqrt(megapixels * 1e6 / less) / 4)
        words = [weights, side, tile, precision, threads, batch]
        told = run_child([sys.executable, CHILD, "scaling", *map(str, words)]).told
        print(f"{megapixels} {tile} {threads} {batch}: {told}", file=sys.stderr, flush=True)
        return float(told["seconds"] / (16 * side**2 / 1e6))

    usual = MEGAPIXELS[2]
    runs: dict[str, dict[int, Callable[[], float]]] = {
        "size": {megapixels: partial(seconds, megapixels) for megapixels in MEGAPIXELS},
        "tile": {tile: partial(seconds, usual, tile) for tile in SIDES},
        "batch": {batch: partial(seconds, usual, SIDES[0], batch=batch) for batch in BATCHES},
        "threads": {threads: partial(seconds, usual, threads=threads) for threads in range(1, cores + 1)},
    }
    taken: dict[str, dict[int, list[float]]] = {name: {value: [] for value in of} for name, of in runs.items()}
    for _ in range(1 if options.smoke else options.rounds):
        for name, of in runs.items():
            for value, run in of.items():
                taken[name][value].append(run())
    result: Result = {"machine": machine_facts(), "precision": precision, "rounds": options.rounds}
    for name, found in taken.items():
        result[name] = {value: spread(times, digits=4) for value, times in found.items()}
    publish("scaling", result, report(result), keep=not options.smoke)


def report(result: Mapping[str, Any]) -> list[str]:
    """The README's lines."""
    rows: list[tuple[object, ...]] = [
        ("what", "value", "s per megapixel of the result, least", "median (least-greatest)")
    ]
    words = {
        "size": "rows after rows, megapixels",
        "tile": f"{MEGAPIXELS[2]} megapixels in tiles, side",
        "batch": f"{MEGAPIXELS[2]} megapixels in tiles of {SIDES[0]}, at once",
        "threads": f"{MEGAPIXELS[2]} megapixels rows after rows, threads",
    }
    for name, said in words.items():
        rows += [(said, value, f"{took['min']:.3f}", ranged(took, 3)) for value, took in result[name].items()]
    sizes = [took["min"] for took in result["size"].values()]
    return [
        f"{described(result['machine'])} {MODEL}, {result['precision']}, {result['rounds']} "
        "rounds. The quickest of each counts: what else a shared machine does only ever adds.",
        "",
        *table_lines(rows),
        "",
        f"From the quickest size to the slowest: {max(sizes) / min(sizes):.2f} times (goal {FLAT:g}).",
    ]


if __name__ == "__main__":
    main()
