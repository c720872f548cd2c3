"""How fast are pix2pix and CycleGAN beside the original program, and what do bands of rows cost, in time and memory?

A step and a network: the same first weights, batches and losses in one process, one after the other in turn. Bands: a
picture in one go and in bands, and one of 24 megapixels, which no one go has room for.
"""

import argparse
import math
import sys
from pathlib import Path

from benchmarks.common import ROOT, Result, described, machine_facts, publish, ranged, run_child, spread, table_lines
from restorer import machine

CHILD = ROOT / "benchmarks" / "child_translation.py"
GAMES = {
    "pix2pix": "pix2pix: U-Net of 8 levels, PatchGAN, L1 + GAN",
    "cyclegan": "CycleGAN: two ResNets of 9 blocks, two PatchGANs",
}
GOALS = {"fp32": 1.0, "bf16": 1.5}
NETWORK_GOAL = 1.5
WALKED = {"cyclegan": "ResNet of 9 blocks", "pix2pix": "U-Net of 8 levels"}


def main() -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reference", type=Path, required=True, help="a checkout of pytorch-CycleGAN-and-pix2pix")
    parser.add_argument("--rounds", type=int, default=6, help="timed steps of each with the published networks")
    parser.add_argument("--curve", type=int, default=120, help="steps of the small games")
    parser.add_argument("--side", type=int, default=1000, help="of the picture that the network alone gets")
    parser.add_argument("--size", type=int, nargs=2, default=(4000, 6000), help="height and width of the large picture")
    parser.add_argument("--smoke", action="store_true", help="few small steps; nothing is written")
    options = parser.parse_args()
    precisions = ["fp32", *(["bf16"] if machine.has_fast_bf16(machine.look()) else [])]
    rounds, curve, side, size = (
        (2, 3, 128, (300, 260)) if options.smoke else (options.rounds, options.curve, options.side, options.size)
    )
    result: Result = {"machine": machine_facts(), "steps": {}, "curves": {}, "network": {}, "whole": {}, "large": {}}
    for precision in precisions:
        for game in GAMES:
            key = f"{game} {precision}"
            words = "small" if options.smoke else "paper"
            told = run_child([sys.executable, CHILD, "step", game, precision, rounds, words, options.reference]).told
            result["steps"][key] = compared(told["seconds"])
            told = run_child([sys.executable, CHILD, "step", game, precision, curve, "small", options.reference]).told
            result["curves"][key] = {name: [round(x, 6) for x in told["losses"][name]] for name in told["losses"]}
        told = run_child([sys.executable, CHILD, "network", precision, rounds, side, options.reference]).told
        result["network"][precision] = {"side": side, "db": told["db"], **compared(told["seconds"])}
        for name in WALKED:
            key = f"{name} {precision}"
            half = (size[0] // 3, size[1] // 4)  # 2 megapixels of 24
            result["whole"][key] = run_child([sys.executable, CHILD, "picture", name, precision, *half, "whole"]).told
            result["whole"][key]["size"] = half
            result["large"][key] = run_child([sys.executable, CHILD, "picture", name, precision, *size, "bands"]).told
            result["large"][key]["size"] = size
    publish("translation", result, report(result), keep=not options.smoke)


def compared(seconds: Result) -> Result:
    """Ours, theirs, and how often theirs takes as long."""
    ours, theirs = seconds["ours"], seconds["theirs"]
    times = [b / a for a, b in zip(ours, theirs, strict=True)]
    return {"ours": spread(ours), "theirs": spread(theirs), "times_faster": spread(times)}


def report(result: Result) -> list[str]:
    """The README's lines."""
    rows: list[tuple[object, ...]] = [("what", "precision of ours", "ours, s", "the original's, s", "times faster")]
    for key, case in result["steps"].items():
        game, precision = key.split()
        rows.append((f"a step of {GAMES[game]}", precision, *_told(case, GOALS[precision])))
    for precision, case in result["network"].items():
        megapixels = case["side"] ** 2 / 1e6
        rows.append((f"ResNet of 9 blocks, {megapixels:g} megapixels", precision, *_told(case, NETWORK_GOAL)))
    lines = [
        f"{described(result['machine'])} The original in fp32. Steps of one picture of 256x256, without dropout. "
        "Median of the rounds, least to greatest in brackets.",
        "",
        *table_lines(rows),
        "",
    ]
    for precision, case in result["network"].items():
        lines.append(f"- The ResNet against the original's own: {case['db']:.1f} dB in {precision}, random weights.")
    for key, curve in result["curves"].items():
        last = {name: sum(values[-50:]) / len(values[-50:]) for name, values in curve.items()}
        lines.append(
            f"- A small game of {len(curve['ours']) - 1} steps of {key.split()[0]} from the same weights, ours in "
            f"{key.split()[1]}: over the last 50, the term that is compared is {last['ours']:.3f}, and the original's "
            f"{last['theirs']:.3f}."
        )
    size, large_size = (next(iter(result[name].values()))["size"] for name in ("whole", "large"))
    rows = [
        (
            "network",
            "precision",
            "in one go, s",
            "in bands, s",
            "apart, dB; worst level",
            f"{math.prod(large_size) / 1e6:g} megapixels, s",
            "GB above",
        )
    ]
    for key, case in result["whole"].items():
        name, precision = key.split()
        large = result["large"][key]["bands"]
        rows.append(
            (
                WALKED[name], precision, f"{case['whole']['seconds']:.1f}", f"{case['bands']['seconds']:.1f}",
                f"{case['db']:.1f}; {case['worst']}", f"{large['seconds']:.0f}", f"{large['peak'] / 2**30:.2f}",
            )
        )  # fmt: skip
    return [
        *lines,
        "",
        f"A picture of {size[1]}x{size[0]} in one go and in bands of 128 rows, and one of "
        f"{large_size[1]}x{large_size[0]} in bands; memory above the process with torch. Goals: 40 dB, 3 GB.",
        "",
        *table_lines(rows),
    ]


def _told(case: Result, goal: float) -> tuple[str, str, str]:
    ours, theirs, times = (ranged(case[name], 2) for name in ("ours", "theirs", "times_faster"))
    return ours, theirs, f"{times}; goal {goal:g}"


if __name__ == "__main__":
    sys.exit(main())
