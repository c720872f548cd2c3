"""How fast is a step of adversarial training beside BasicSR's, and does it learn the same?

The same networks, first weights, batches and losses in one process, one step after another in turn; and a longer game
of small networks, whose pixel losses are drawn over each other.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.common import ROOT, Result, described, machine_facts, publish, ranged, run_child, spread, table_lines
from restorer import machine

CHILD = ROOT / "benchmarks" / "child_training.py"
GAMES = {"srgan": "MSRResNet, VGG discriminator, L1 + VGG19 + GAN", "esrgan": "RRDBNet-23, the same, relativistic"}
GOAL = 1.8
"""Times as many steps a second, where the processor multiplies bf16 fast; in fp32 never fewer."""


def main() -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reference-python", type=Path, required=True, help="python that has basicsr")
    parser.add_argument("--rounds", type=int, default=6, help="timed steps of each with the papers' networks")
    parser.add_argument("--curve", type=int, default=120, help="steps of the small game")
    parser.add_argument("--smoke", action="store_true", help="few small steps; nothing is written")
    options = parser.parse_args()
    precisions = ["fp32", *(["bf16"] if machine.has_fast_bf16(machine.look()) else [])]
    result: Result = {"machine": machine_facts(), "steps": {}, "curves": {}}
    rounds, size = (2, "small") if options.smoke else (options.rounds, "paper")
    for game in GAMES:
        for precision in precisions:
            told = run_child([options.reference_python, CHILD, game, precision, str(rounds), size]).told
            result["basicsr"] = told["basicsr"]
            ours, theirs = told["seconds"]["ours"], told["seconds"]["theirs"]
            result["steps"][f"{game} {precision}"] = {
                "ours": spread(ours),
                "theirs": spread(theirs),
                "times_faster": spread([b / a for a, b in zip(ours, theirs, strict=True)]),
            }
    for precision in precisions:
        count = 3 if options.smoke else options.curve
        told = run_child([options.reference_python, CHILD, "esrgan", precision, str(count), "small"]).told
        result["curves"][precision] = {name: [round(x, 7) for x in told["losses"][name]] for name in told["losses"]}
    publish("training_step", result, report(result), keep=not options.smoke)


def report(result: Result) -> list[str]:
    """The README's lines."""
    rows: list[tuple[object, ...]] = [
        ("game", "precision of ours", "ours, s a step", "BasicSR, s a step", "times faster")
    ]
    for name, case in result["steps"].items():
        game, precision = name.split()
        goal = 1.0 if precision == "fp32" else GOAL
        rows.append(
            (
                f"{game}: {GAMES[game]}", precision, *(ranged(case[who], 2) for who in ("ours", "theirs")),
                f"{ranged(case['times_faster'], 2)}; goal {goal:g}",
            )
        )  # fmt: skip
    lines = [
        f"{described(result['machine'])} BasicSR {result['basicsr']}, fp32. 4 crops of 128x128 a step. Median "
        "of the steps, least to greatest in brackets.",
        "",
        *table_lines(rows),
        "",
    ]
    for precision, curve in result["curves"].items():
        apart = [abs(a - b) / b for a, b in zip(curve["ours"], curve["theirs"], strict=True)]
        mean = {name: sum(values[-50:]) / len(values[-50:]) for name, values in curve.items()}
        lines.append(
            f"- A small game of {len(apart) - 1} steps from the same weights, ours in {precision}: pixel losses differ "
            f"by {100 * sum(apart) / len(apart):.2f} % on average; over the last 50 steps {mean['ours']:.6f} and "
            f"{mean['theirs']:.6f}."
        )
    return lines


if __name__ == "__main__":
    sys.exit(main())
