"""What do the hand-written kernels spare: bytes moved beside plain PyTorch, registers, and, on a GPU, time?"""

import argparse
import json
import sys
from collections.abc import Sequence

from benchmarks.common import ROOT, Result, described, machine_facts, publish, ranged, run_child, table_lines, versions

CHILD = ROOT / "benchmarks" / "child_kernels.py"
NO_DEVICE = (
    "No CUDA device here: bytes are counted and kernels compiled, nothing is timed; `auto` takes the references."
)


def main() -> None:
    """Count, compile, time where there is a device, and publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="write nothing")
    options = parser.parse_args()
    result: Result = {"machine": machine_facts() | {"triton": versions(["triton"])["triton"]}}
    result |= {"bytes": told("count"), "timed": told("time"), "compiled": told("compile")}
    if not result["timed"]:
        print(NO_DEVICE, file=sys.stderr)
    publish("kernels", result, report(result), keep=not options.smoke)


def told(command: str) -> list[Result]:
    """The rows that a child prints."""
    return [json.loads(line) for line in run_child([sys.executable, CHILD, command]).stdout.splitlines()]


def report(result: Result) -> list[str]:
    """The README's lines."""
    facts = result["machine"]
    devices = sorted({row["device"] for row in result["timed"]})
    return [
        f"{described(facts)} triton {facts['triton']}. {', '.join(devices) if devices else NO_DEVICE}",
        "",
        *bytes_lines(result["bytes"]),
        *(["", *timed_lines(result["timed"])] if devices else []),
        "",
        *compiled_lines(result["compiled"]),
    ]


def bytes_lines(rows: Sequence[Result]) -> list[str]:
    """What is moved."""
    cells: list[Sequence[object]] = [("kernel", "work", "must be moved, MB", "reference moves, MB", "times as much")]
    for row in rows:
        least, reference = row["least"], row["reference"]
        cells.append(
            (row["kernel"], row["what"], f"{least / 1e6:.1f}", f"{reference / 1e6:.1f}", f"{reference / least:.1f}")
        )
    return table_lines(cells)


def timed_lines(rows: Sequence[Result]) -> list[str]:
    """What it takes."""
    cells: list[Sequence[object]] = [
        ("kernel", "work", "kernel, us", "GB/s", "reference, us", "times faster", "apart at most")
    ]
    for row in rows:
        ours, speed, theirs = (
            ranged(row[name]) for name in ("microseconds", "gigabytes_per_second", "reference_microseconds")
        )
        faster = ranged(row["times_faster"], 2)
        cells.append((row["kernel"], row["what"], ours, speed, theirs, faster, f"{row['apart']:.3g}"))
    return table_lines(cells)


def compiled_lines(rows: Sequence[Result]) -> list[str]:
    """Registers of a thread, least to most over an operation's forms, and what spilled."""
    arches = sorted({row["arch"] for row in rows})
    heading = ("operation", "forms", *(f"registers, sm_{arch}" for arch in arches), "spilled, bytes")
    cells: list[Sequence[object]] = [heading]
    for operation in dict.fromkeys(row["operation"] for row in rows):
        mine = [row for row in rows if row["operation"] == operation]
        used = [[row["registers"] for row in mine if row["arch"] == arch] for arch in arches]
        spans = [f"{min(counts)}-{max(counts)}" for counts in used]
        cells.append((operation, len({row["build"] for row in mine}), *spans, sum(row["spill_bytes"] for row in mine)))
    return table_lines(cells)


if __name__ == "__main__":
    main()
