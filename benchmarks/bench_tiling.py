"""What do tiles cost, in error near their borders and in time, and what do rows after rows, which have no borders?

Real weights, a real photo. Each scheme against the same network's picture in one go: fp32 for errors, every precision
that is fast here for times. Memory: pictures of two heights and two widths, each in a process of its own.
"""

import argparse
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt

from benchmarks.common import (
    RESULTS,
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
MODELS = {"RealESRGAN_x4plus": 320, "RealESRGAN_x4plus_anime_6B": 512, "realesr-general-x4v3": 768}
"""Weights -> side of the photo that is cut for them."""
PHOTO = "skimage/astronaut.png"
TILE = 128
SIZES = ((256, 384), (512, 384), (256, 768))
"""Height and width of the pictures whose memory is looked at: one, one twice as high, one twice as wide."""
GOAL, FASTER = 1e-4, 1.1


def main() -> None:
    """Measure, draw and publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=SHARED / "data", help="folder of skimage")
    parser.add_argument("--weights", type=Path, default=SHARED / "weights", help="folder of realesrgan")
    parser.add_argument("--rounds", type=int, default=5, help="how often one go and rows are timed")
    parser.add_argument("--smoke", action="store_true", help="small pictures; nothing is written")
    options = parser.parse_args()
    precisions = ["fp32", *(["bf16"] if machine.has_fast_bf16(machine.look()) else [])]
    photo = needed(options.data, PHOTO)[0]
    result: Result = {"machine": machine_facts(), "tile": TILE, "models": {}, "memory": {}}
    for model, side in MODELS.items():
        weights = needed(options.weights, f"realesrgan/{model}.safetensors")[0]
        case: Result = {"side": 96 if options.smoke else side, "precisions": {}}
        for precision in precisions:
            words = [weights, photo, case["side"], 32 if options.smoke else TILE, precision, options.rounds]
            told = run_child([sys.executable, CHILD, "schemes", *map(str, words)]).told
            case["precisions"][precision] = told
            say(f"{model} {precision}: {[(name, round(row['seconds'][0], 1)) for name, row in told.items()]}")
        result["models"][model] = case
    first = needed(options.weights, f"realesrgan/{next(iter(MODELS))}.safetensors")[0]
    for precision in precisions:
        for height, width in SIZES:
            size = (64, width // 4) if options.smoke else (height, width)
            told = run_child([sys.executable, CHILD, "memory", first, *map(str, size), precision]).told
            result["memory"][f"{width}x{height} {precision}"] = told
            say(f"{width}x{height} {precision}: {told}")
    if not options.smoke:
        mpl.use("agg")
        drawn(result).savefig(RESULTS / "tiling.png", dpi=110, bbox_inches="tight", metadata={"Software": None})
    publish("tiling", result, report(result), keep=not options.smoke)


def say(line: str) -> None:
    """Progress, apart from what is published."""
    print(line, file=sys.stderr, flush=True)


def report(result: Mapping[str, Any]) -> list[str]:
    """The README's lines."""
    lines = [
        f"{described(result['machine'])} A photo in tiles of {result['tile']} pixels, in rows, and in one go, all in "
        "restorer. Errors are those of fp32 against one go; the worst is of all output values, in [0, 1].",
        "",
    ]
    rows: list[tuple[object, ...]] = [
        (
            "model, side",
            "scheme",
            "PSNR, dB",
            "worst value",
            "mean level at a border",
            "step over a seam",
            "fp32, s",
            "bf16, s",
        )
    ]
    for model, case in result["models"].items():
        for scheme, row in case["precisions"]["fp32"].items():
            half = case["precisions"].get("bf16", {}).get(scheme)
            error = row.get("error")
            rows.append(
                (
                    f"{model}, {case['side']}",
                    scheme,
                    *(("", "", "", "") if error is None else _errors(error)),
                    ranged(spread(row["seconds"]), 1),
                    "" if half is None else ranged(spread(half["seconds"]), 1),
                )
            )
    lines += table_lines(rows)
    lines.append("")
    for model, case in result["models"].items():
        for precision, told in case["precisions"].items():
            one_go, in_rows = told["one go"]["seconds"], told["rows"]["seconds"]
            ratios = spread([b / a for a, b in zip(one_go, in_rows, strict=True)])
            overlapped = told["overlap 32"]["seconds"][0] / statistics.median(one_go)
            lines.append(
                f"- {model}, {precision}: rows take {ranged(ratios, 2)} times as long as one go (goal {FASTER:g} at "
                f"most), overlap 32 {overlapped:.2f} times."
            )
    lines.append("")
    kept: list[tuple[object, ...]] = [
        ("x4plus in rows", "precision", "kept for each column, KB", "GB above the process")
    ]
    for key, told in result["memory"].items():
        size, precision = key.split()
        kept.append((size, precision, f"{told['kept'] / 1e3:.0f}", f"{told['peak'] / 2**30:.2f}"))
    return [
        *lines,
        *table_lines(kept),
        "",
        "![Error by distance from the nearest border of a tile](results/tiling.png)",
    ]


def _errors(error: Mapping[str, Any]) -> tuple[str, str, str, str]:
    at_border = error["by_distance"][0]
    return f"{error['psnr']:.1f}", f"{error['worst']:.1e}", f"{at_border:.2g}", f"{error['step']:.2g}"


def drawn(result: Mapping[str, Any]) -> Any:
    """Mean error by the distance from the nearest border of a tile, one panel a model."""
    models = result["models"]
    figure, panels = plt.subplots(1, len(models), figsize=(4.2 * len(models), 3), squeeze=False, sharey=True)
    for panel, (model, case) in zip(panels[0], models.items(), strict=True):
        for scheme, row in case["precisions"]["fp32"].items():
            if "error" not in row:
                continue
            values = np.maximum(row["error"]["by_distance"], 1e-6)
            hard, is_rows = scheme == "overlap 10" or "hard" in scheme, scheme == "rows"
            looks = {"linestyle": "--" if hard else "-", "linewidth": 2 if is_rows else 1.2}
            panel.plot(values, label=scheme, color="#1b6ca8" if is_rows else None, **looks)
        panel.set_yscale("log")
        panel.set_title(model, fontsize=9, loc="left")
        panel.set_xlabel("input pixels from the nearest border", fontsize=8)
        panel.tick_params(labelsize=8)
    panels[0][0].set_ylabel("mean error, levels of 255", fontsize=8)
    panels[0][-1].legend(fontsize=7, frameon=False)
    figure.tight_layout()
    return figure


if __name__ == "__main__":
    main()
