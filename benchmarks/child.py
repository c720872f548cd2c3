"""What a benchmark does in processes of their own, so that torch and pictures never weigh on what is measured.

Each command prints one line of JSON.
"""

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from restorer import Restorer, UpscaleSettings, machine, read_picture

MATRIX_SIDE = 2048
MATRIX_TRIES = 20
EQUAL = 200.0
"""Decibels that stand for no difference at all."""


def picture(source: Path, out: Path, side: int) -> dict[str, object]:
    """Write a square PNG from a photo: cut where it is large enough, repeated where it is not."""
    pixels = read_picture(source).pixels
    repeats = [-(-side // have) for have in pixels.shape[:2]]
    square = np.tile(pixels, (*repeats, 1))[:side, :side]
    cv2.imwrite(str(out), square[:, :, ::-1])
    return {"size": list(square.shape)}


def repack(source: Path, out: Path) -> dict[str, object]:
    """Write safetensors as the .pth that the reference reads: float32, under params_ema."""
    torch.save({"params_ema": {key: tensor.float() for key, tensor in load_file(source).items()}}, out)
    return {"bytes": out.stat().st_size}


def network(weights: Path, source: Path, precision: str, engine_name: str) -> dict[str, object]:
    """Time the network alone on every tile of a picture, and matrix products of the same precision around it."""
    machine.keep_freed_memory()  # as the command line does
    settings = UpscaleSettings(precision=precision, device="cpu", engine=engine_name)
    opened = Restorer.open(weights, settings=settings)
    engine, read = opened.engine, read_picture(source)
    engine.stream = None  # every engine gets tiles
    calls: list[tuple[float, int]] = []
    inner = engine.run

    def timed(inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        start = time.perf_counter()
        outputs = inner(inputs)
        x = inputs["image"]
        calls.append((time.perf_counter() - start, x.shape[0] * x.shape[2] * x.shape[3]))
        return outputs

    before = matrix_speed(engine.dtype)
    engine.run = timed  # type: ignore[method-assign]
    opened.restore(read)
    seconds, seen = sum(call[0] for call in calls), sum(call[1] for call in calls)
    peak = max(before, matrix_speed(engine.dtype))
    speed = 2 * engine.traits.operations * seen / seconds
    return {
        "seconds": seconds,
        "calls": len(calls),
        "seen_pixels": seen,
        "read_pixels": read.size[0] * read.size[1],
        "precision": str(engine.dtype).removeprefix("torch."),
        "notes": list(engine.notes),
        "gflops": speed / 1e9,
        "matrix_gflops": peak / 1e9,
        "share_of_matrix_peak": speed / peak,
        "threads": torch.get_num_threads(),
    }


def matrix_speed(dtype: torch.dtype) -> float:
    """Operations a second of square matrix products, the best of several."""
    a, b = (torch.randn(MATRIX_SIDE, MATRIX_SIDE).to(dtype) for _ in range(2))
    best = float("inf")
    with torch.inference_mode():
        for _ in range(MATRIX_TRIES):
            start = time.perf_counter()
            a @ b
            best = min(best, time.perf_counter() - start)
    return 2 * MATRIX_SIDE**3 / best


def compare(first: Path, second: Path) -> dict[str, object]:
    """How two files of 8-bit pictures differ, a few rows at a time."""
    a, b = (cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in (first, second))
    if a.shape != b.shape:
        raise SystemExit(f"{first} is {a.shape}, {second} is {b.shape}")
    counts = np.zeros(256, np.int64)
    for row in range(0, len(a), 256):
        counts += np.bincount(cv2.absdiff(a[row : row + 256], b[row : row + 256]).ravel(), minlength=256)
    levels, total = np.arange(256), counts.sum()
    error = float((counts * levels**2).sum() / total)
    return {
        "psnr": 10 * float(np.log10(255**2 / error)) if error else EQUAL,
        "mean_levels": float((counts * levels).sum() / total),
        "worst_levels": int(levels[counts > 0].max()),
        "within_1": float(counts[:2].sum() / total),
    }


def main() -> None:
    """Run one command."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    for work, paths in ((picture, ("source", "out")), (repack, ("source", "out")), (compare, ("first", "second"))):
        command = commands.add_parser(work.__name__)
        command.set_defaults(work=work)
        for path in paths:
            command.add_argument(path, type=Path)
        if work is picture:
            command.add_argument("side", type=int)
    command = commands.add_parser("network")
    command.set_defaults(work=network)
    command.add_argument("weights", type=Path)
    command.add_argument("source", type=Path)
    command.add_argument("precision")
    command.add_argument("engine_name", nargs="?", default="auto")
    arguments = vars(parser.parse_args())
    print(json.dumps(arguments.pop("work")(**arguments)))


if __name__ == "__main__":
    main()
