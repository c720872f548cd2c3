"""How fast are faces restored beside GFPGAN's and facexlib's own code, how near, and in how much memory?

The same photo, random weights of the published size, landmarks and parsings for both, one after the other in turn.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.common import ROOT, Result, described, machine_facts, publish, ranged, run_child, spread, table_lines
from restorer import machine

CHILD = ROOT / "benchmarks" / "child_faces.py"
PARTS = {
    "whole": "a photo of 3 faces, 1200x800 to 2400x1600",
    "network": "the network, a face",
    "paste": "pasting 3 faces back",
}


def main() -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reference-python", type=Path, required=True, help="python that has gfpgan and facexlib")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megapixels", type=float, default=100)
    parser.add_argument("--faces", type=int, default=30, help="of the large photo")
    parser.add_argument("--smoke", action="store_true", help="one round, a small photo; nothing is written")
    options = parser.parse_args()
    rounds, megapixels, faces = (1, 4, 1) if options.smoke else (options.rounds, options.megapixels, options.faces)
    precisions = ["fp32", *(["bf16"] if machine.has_fast_bf16(machine.look()) else [])]
    result: Result = {"machine": machine_facts(), "photo": {}}
    for precision in precisions:
        told = run_child([options.reference_python, CHILD, "photo", str(rounds), precision]).told
        ours, theirs = told["seconds"]["ours"], told["seconds"]["theirs"]
        result |= {"gfpgan": told["gfpgan"], "facexlib": told["facexlib"]}
        result["photo"][precision] = {
            "db": round(told["db"], 1),
            **{
                part: {
                    "ours": spread(ours[part]),
                    "theirs": spread(theirs[part]),
                    "times_faster": spread([b / a for a, b in zip(ours[part], theirs[part], strict=True)]),
                }
                for part in PARTS
            },
        }
    large = run_child([sys.executable, CHILD, "memory", str(megapixels), str(faces)]).told
    result["large"] = {"megapixels": megapixels, **large}
    publish("faces", result, report(result), keep=not options.smoke)


def report(result: Result) -> list[str]:
    """The README's lines."""
    rows: list[tuple[object, ...]] = [("what", "precision of ours", "ours, s", "theirs, s", "times faster")]
    for precision, case in result["photo"].items():
        for part, what in PARTS.items():
            rows.append((what, precision, *(ranged(case[part][who], 2) for who in ("ours", "theirs", "times_faster"))))
    large = result["large"]
    near = ", ".join(f"{case['db']:.1f} dB in {precision}" for precision, case in result["photo"].items())
    return [
        f"{described(result['machine'])} gfpgan {result['gfpgan']}, facexlib {result['facexlib']}, fp32. Median of the "
        "rounds, least to greatest in brackets.",
        "",
        *table_lines(rows),
        "",
        f"- The network against gfpgan's own: {near}, with the reach of its answer as the peak; random weights.",
        f"- A photo of {large['megapixels']:g} megapixels with {large['faces']} faces: {large['peak'] / 2**30:.2f} GB "
        f"above the process with the network, of which the photo and the result are {2 * large['photo'] / 2**30:.2f}; "
        f"{large['seconds']:.0f} s.",
    ]


if __name__ == "__main__":
    sys.exit(main())
