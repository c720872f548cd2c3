"""What bench_tiling and bench_scaling run in processes of their own: a network in every scheme, and what rows take.

python child_tiling.py schemes WEIGHTS PHOTO SIDE TILE PRECISION ROUNDS
python child_tiling.py memory WEIGHTS HEIGHT WIDTH PRECISION
python child_tiling.py scaling WEIGHTS SIDE TILE|rows PRECISION THREADS BATCH
"""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.common import own_peak
from restorer import Picture, Restorer, UpscaleSettings, machine, read_picture
from restorer.networks.stages import passed
from restorer.pipeline.plan import Plan
from restorer.pipeline.rows import rows_at_once

OVERLAPS = {"overlap 10": 10, "overlap 16": 16, "overlap 32": 32, "overlap 32, hard seams": 32, "overlap 64": 64}
"""Pixels around a tile."""
HARD = ("overlap 10", "overlap 32, hard seams")
"""Where tiles end at seams and are not mixed. The first is the reference program's way."""
REACH = 64
"""Input pixels from a border that are looked at."""
WARM = 256
"""Side of the picture that goes before what is timed."""

Floats = NDArray[np.float32]


def main() -> None:
    """Do what the first word says, and print it."""
    machine.keep_freed_memory()  # as the command line does
    what, *words = sys.argv[1:]
    if what == "schemes":
        weights, photo, side, tile, precision, rounds = words
        told = schemes(Path(weights), Path(photo), (int(side), int(tile)), precision, int(rounds))
    elif what == "scaling":
        weights, side, tile, precision, threads, batch = words
        torch.set_num_threads(int(threads))
        told = scaling(Path(weights), int(side), None if tile == "rows" else int(tile), precision, int(batch))
    else:
        weights, height, width, precision = words
        told = memory(Path(weights), (int(height), int(width)), precision)
    print(json.dumps(told))


def schemes(weights: Path, photo: Path, sides: tuple[int, int], precision: str, rounds: int) -> dict[str, Any]:
    """Seconds of each scheme with `sides` of picture and tile, and in fp32 its error against one go."""
    side, tile = sides
    picture = middle(photo, side)
    opened = Restorer.open(weights, settings=UpscaleSettings(device="cpu", engine="eager", precision=precision, tile=0))
    engine, own = opened.engine, opened.engine.traits
    told: dict[str, Any] = {"one go": {"seconds": []}, "rows": {"seconds": []}}
    made: dict[str, Floats] = {}
    turns: list[tuple[str, int | None]] = [("one go", 0), ("rows", None)]
    timed(Restorer(engine, opened.settings), middle(photo, tile))  # what is only done once is not counted
    for number in range(rounds):
        for scheme, wanted in turns if number % 2 == 0 else turns[::-1]:
            seconds, made[scheme] = timed(Restorer(engine, replace(opened.settings, tile=wanted)), picture)
            told[scheme]["seconds"].append(seconds)
    tiled = Restorer(engine, replace(opened.settings, tile=tile))
    for scheme, overlap in OVERLAPS.items():
        hard = {"radius": overlap} if scheme in HARD else {}  # as if that were exact: nothing is mixed
        engine.traits = replace(own, overlap=overlap, **hard)
        plan = tiled.plan(picture).plans()[0]
        seconds, pixels = timed(tiled, picture)
        told[scheme] = {"seconds": [seconds]}
        if precision == "fp32":
            told[scheme]["error"] = apart(pixels, made["one go"], plan, own.scale)
    if precision == "fp32":
        told["rows"]["error"] = apart(made["rows"], made["one go"], plan, own.scale)
    return told


def memory(weights: Path, size: tuple[int, int], precision: str) -> dict[str, Any]:
    """What is kept for each column, in bytes, and the peak above the process with its network."""
    opened = Restorer.open(weights, settings=UpscaleSettings(device="cpu", engine="eager", precision=precision))
    x = torch.rand(1, 3, 32, 32)
    opened.engine.run({"image": x})
    base = own_peak()
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    work = opened.plan(Picture(pixels=pixels))
    work.run(lambda: lambda rows: None)
    peak = own_peak() - base
    return {"kept": kept(opened), "peak": peak, "rows": rows_at_once(size[1], opened.engine)}


def scaling(weights: Path, side: int, tile: int | None, precision: str, batch: int) -> dict[str, Any]:
    """Seconds of a square picture; `batch` tiles at once, 0 for what is usual. What is done once is not counted."""
    settings = UpscaleSettings(device="cpu", engine="eager", precision=precision, tile=tile)
    opened = Restorer.open(weights, settings=settings)
    opened.plan(Picture(pixels=noise(min(side, WARM)))).run(lambda: lambda rows: None)
    work = opened.plan(Picture(pixels=noise(side)))
    if batch:
        window = work.plans()[0].window
        work.batch_pixels = batch * window[0] * window[1]
    start = time.perf_counter()
    work.run(lambda: lambda rows: None)
    return {"seconds": round(time.perf_counter() - start, 3), "batch": work.plans()[0].batch}


def kept(opened: Restorer, width: int = 64, height: int = 420) -> float:
    """Bytes for each column once every stage has begun."""
    engine: Any = opened.engine
    stages = engine._stages(engine.network)
    with torch.inference_mode():
        for band in torch.rand(1, 3, height, width).split(60, 2):
            for _ in passed(stages, band, last=False):
                pass
    return sum(each.numel() * each.element_size() for stage in stages for each in stage.held) / width


def noise(side: int) -> NDArray[np.uint8]:
    """() -> (side, side, 3): each value for itself."""
    return np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)


def timed(opened: Restorer, picture: Picture) -> tuple[float, Floats]:
    """-> (seconds, (H, W, 3) float32)."""
    start = time.perf_counter()
    pixels = opened.restore(picture).pixels
    assert pixels.dtype == np.float32
    return round(time.perf_counter() - start, 3), pixels


def middle(photo: Path, side: int) -> Picture:
    """A square of a photo, as float32 in [0, 1]; where it is smaller, mirrored beside itself."""
    read = read_picture(photo)
    lacking = [(0, max(0, side - have)) for have in read.size]
    pixels = np.pad(read.pixels, [*lacking, (0, 0)], "symmetric")
    top, left = ((have - side) // 2 for have in pixels.shape[:2])
    return Picture(pixels=pixels[top : top + side, left : left + side].astype(np.float32) / np.float32(read.peak))


def apart(made: Floats, one_go: Floats, plan: Plan, scale: int) -> dict[str, Any]:
    """How far a picture is from that of one go: in all, at worst, over seams, and by the distance from a border."""
    error = np.abs(made - one_go)
    mean_square = float(np.square(error, dtype=np.float64).mean())
    distance = np.minimum(*(
        from_borders(side, [span.keep[0] for span in spans[1:]], scale)[index]
        for side, spans, index in (
            (plan.size[0], plan.rows, np.s_[:, None]), (plan.size[1], plan.columns, np.s_[None, :])
        )
    ))  # fmt: skip
    levels = 255 * error.mean(2)
    by_distance = [float(levels[distance == d].mean()) for d in range(REACH) if (distance == d).any()]
    return {
        "psnr": min(200.0, -10 * float(np.log10(max(mean_square, 1e-20)))),
        "worst": float(error.max()),
        "step": over_seams(made - one_go, plan, scale),
        "by_distance": by_distance,
    }


def over_seams(error: Floats, plan: Plan, scale: int) -> float:
    """Mean difference, in levels of 255, of the errors of two neighbours between which there is a seam."""
    rows, columns = ([span.keep[0] * scale for span in spans[1:]] for spans in (plan.rows, plan.columns))
    steps = [np.abs(error[y] - error[y - 1]) for y in rows] + [np.abs(error[:, x] - error[:, x - 1]) for x in columns]
    return 255 * float(np.mean([step.mean() for step in steps])) if steps else 0.0


def from_borders(side: int, borders: list[int], scale: int) -> NDArray[np.int64]:
    """For each output row or column the input pixels to the nearest border."""
    places = np.arange(side * scale) // scale
    far = [np.where(places >= border, places - border, border - 1 - places) for border in borders]
    return np.min(far, axis=0) if far else np.full(side * scale, REACH)


if __name__ == "__main__":
    main()
