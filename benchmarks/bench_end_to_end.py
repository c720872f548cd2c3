"""How fast is `restorer upscale`, how much memory does it take, and how does the reference implementation compare?

Whole processes, start-up and files included, one after another in turn: ours, the reference, ours in fp32, and ours
once more with only the network timed. Same weights, same pictures, same machine, same run.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.common import (
    ROOT,
    SHARED,
    Child,
    Result,
    described,
    machine_facts,
    needed,
    own_peak,
    publish,
    ranged,
    run_child,
    spread,
    table_lines,
)
from restorer import machine

CHILD = ROOT / "benchmarks" / "child.py"
REFERENCE = ROOT / "benchmarks" / "child_reference.py"
PHOTO = Path("skimage") / "astronaut.png"
SCALE = 4
SMOKE_SIDE = 48
MEMORY_GOAL_GB = 1.2
SHARE_GOAL = 0.85


@dataclass(frozen=True, kw_only=True)
class Case:
    """One model on one square picture."""

    model: str
    """As the reference calls it; also the stem of the weights file."""
    side: int
    """Of the input, in pixels."""
    goal: float
    """How many times faster than the reference it should be, where the processor computes bf16."""
    by_openvino: bool = False
    """Whether the OpenVINO engine is run too."""

    @property
    def megapixels_out(self) -> float:
        """Millions of pixels that come out."""
        return (self.side * SCALE) ** 2 / 1e6


OPENVINO = ("bf16", "int8")
"""Precisions of the OpenVINO engine that the first case is run in too."""
INT8_GOAL = 5.0
"""How many times faster than the reference int8 should be."""

CASES = (
    Case(model="RealESRGAN_x4plus", side=512, goal=2.8, by_openvino=True),
    Case(model="realesr-animevideov3", side=2048, goal=3.0),
)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Where one case's files are, and who runs them."""

    case: Case
    weights: Path
    picture: Path
    repacked: Path
    reference_python: Path | None
    """None leaves the reference out."""
    folder: Path

    def ours(self, precision: str, engine: str = "auto") -> Child:
        """The command line, from start to end."""
        out = self.output(precision if engine == "auto" else f"{engine}_{precision}")
        out.unlink(missing_ok=True)
        words: list[str | Path] = ["-m", "restorer", "upscale", self.picture, "-o", out, "--model", self.weights]
        words += ["--quiet", "--device", "cpu", "--engine", engine, "--precision", precision]
        return run_child([sys.executable, *words])

    def reference(self) -> Child:
        """The reference's own inference script, from start to end."""
        assert self.reference_python is not None
        out = self.output("reference")
        out.unlink(missing_ok=True)
        words = [self.case.model, self.repacked, self.picture, out]
        return run_child([self.reference_python, REFERENCE, *words], ours=False)

    def network(self, precision: str) -> Child:
        """Our network alone, with the speed of matrix products beside it."""
        return run_child([sys.executable, CHILD, "network", self.weights, self.picture, precision])

    def output(self, who: str) -> Path:
        """Where a result goes."""
        return self.folder / f"{self.case.model}-{who}.png"


def main() -> None:
    """Measure every case and publish."""
    options = parsed()
    cases = [replace(case, side=SMOKE_SIDE) for case in CASES] if options.smoke else CASES
    repeat = 1 if options.quick or options.smoke else options.repeat
    result: Result = {"machine": machine_facts(), "repetitions": repeat, "reference": None}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["RESTORER_CACHE"] = folder  # so that first runs are first
        torch_alone = [run_child([sys.executable, "-c", "import torch"]) for _ in range(repeat)]
        result["import_torch"] = costs(torch_alone)
        for case in cases:
            bench = prepared(case, options, Path(folder))
            result[case.model] = measured(bench, repeat)
            if bench.reference_python is not None:
                result["reference"] = result[case.model]["reference"].pop("made_by")
    result["memory_above_torch_gb"] = memory_above_torch(result)
    result["parent_peak_mb"] = round(own_peak() / 1e6)
    publish("end_to_end", result, report(result), keep=not options.smoke)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=SHARED / "data", help="folder that holds skimage/astronaut.png")
    parser.add_argument("--weights", type=Path, default=SHARED / "weights", help="folder that holds realesrgan/")
    parser.add_argument("--reference-python", type=Path, help="python of the reference's environment; none: ours only")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each; the median counts")
    parser.add_argument("--quick", action="store_true", help="one run of each")
    parser.add_argument("--smoke", action="store_true", help="one run of each on tiny pictures; nothing is written")
    return parser.parse_args()


def prepared(case: Case, options: argparse.Namespace, folder: Path) -> Bench:
    """Make the picture and, for the reference, the weights file it can read."""
    (photo,) = needed(options.data, str(PHOTO))
    (weights,) = needed(options.weights, f"realesrgan/{case.model}.safetensors")
    picture, repacked = folder / f"{case.model}.png", folder / f"{case.model}.pth"
    run_child([sys.executable, CHILD, "picture", photo, picture, str(case.side)])
    if options.reference_python is not None:
        run_child([sys.executable, CHILD, "repack", weights, repacked])
    return Bench(
        case=case,
        weights=weights,
        picture=picture,
        repacked=repacked,
        reference_python=options.reference_python,
        folder=folder,
    )


def measured(bench: Bench, repeat: int) -> Result:
    """Run everything in turn, `repeat` times, and sum up."""
    turns: dict[str, Callable[[], Child]] = {"auto": lambda: bench.ours("auto")}
    if bench.reference_python is not None:
        turns["reference"] = bench.reference
    turns |= {"fp32": lambda: bench.ours("fp32"), "network": lambda: bench.network("auto")}
    extra = in_openvino() if bench.case.by_openvino else []
    for precision in extra:
        turns[f"openvino_{precision}"] = partial(bench.ours, precision, "openvino")
    made_once = {name: turns[name]().seconds for name in turns if name.startswith("openvino")}
    children: dict[str, list[Child]] = {name: [] for name in turns}
    for number in range(1, repeat + 1):
        for name, turn in turns.items():
            children[name].append(turn())
            seconds = children[name][-1].seconds
            print(f"{bench.case.model} {number}/{repeat}: {name} {seconds:.1f} s", file=sys.stderr, flush=True)
    summed: Result = {
        "input": [bench.case.side, bench.case.side],
        "megapixels_out": bench.case.megapixels_out,
        "auto": costs(children["auto"]),
        "fp32": costs(children["fp32"]),
        "network": network_costs(children["network"], bench.case),
        "goal": bench.case.goal,
        **{f"openvino_{precision}": costs(children[f"openvino_{precision}"]) for precision in extra},
        "first_run_seconds": {name: round(seconds, 1) for name, seconds in made_once.items()},
    }
    if bench.reference_python is not None:
        summed |= beside_reference(bench, children)
    return summed


def in_openvino() -> list[str]:
    """Precisions that the OpenVINO engine can be run in here."""
    here = machine.look()
    able = {"bf16": machine.has_fast_bf16(here), "int8": machine.has_fast_int8(here)}
    return [precision for precision in OPENVINO if able[precision] and machine.installed("openvino")]


def costs(children: Sequence[Child]) -> Result:
    """Time and peak memory of whole processes."""
    return {
        "seconds": spread([child.seconds for child in children]),
        "cpu_seconds": spread([child.cpu_seconds for child in children]),
        "peak_mb": spread([child.peak_bytes / 1e6 for child in children], digits=0),
    }


def network_costs(children: Sequence[Child], case: Case) -> Result:
    """The network alone: seconds an output megapixel, and its share of the speed of matrix products."""
    told = [child.told for child in children]
    kept = ("calls", "seen_pixels", "read_pixels", "precision", "notes", "threads")
    return {
        "seconds_per_megapixel": spread([one["seconds"] / case.megapixels_out for one in told], digits=4),
        "gflops": spread([one["gflops"] for one in told], digits=0),
        "matrix_gflops": spread([one["matrix_gflops"] for one in told], digits=0),
        "share_of_matrix_peak": spread([one["share_of_matrix_peak"] for one in told]),
        **{key: told[0][key] for key in kept},
    }


def beside_reference(bench: Bench, children: Mapping[str, Sequence[Child]]) -> Result:
    """The reference's costs, our speed over it turn by turn, and how far the pictures differ."""
    told = [child.told for child in children["reference"]]
    alone = [one["network_seconds"][0] for one in told]
    ours = [name for name in children if name not in ("reference", "network")]
    ours_alone = [child.told["seconds"] for child in children["network"]]
    return {
        "reference": {
            **costs(children["reference"]),
            "network_seconds_per_megapixel": spread([s / bench.case.megapixels_out for s in alone], digits=4),
            "made_by": {**told[0]["versions"], "threads": told[0]["threads"]},
        },
        "times_faster": {
            name: spread([b.seconds / a.seconds for a, b in zip(children[name], children["reference"], strict=True)])
            for name in ours
        },
        "network_times_faster": spread([b / a for a, b in zip(ours_alone, alone, strict=True)]),
        "difference": {
            name: run_child([sys.executable, CHILD, "compare", bench.output(name), bench.output("reference")]).told
            for name in ours
        },
    }


def memory_above_torch(result: Mapping[str, Any]) -> Result:
    """Peak memory of the large picture, above that of an interpreter that has only imported torch."""
    floor = result["import_torch"]["peak_mb"]["median"]
    case = result[CASES[-1].model]
    return {name: round((case[name]["peak_mb"]["median"] - floor) / 1e3, 3) for name in ("auto", "fp32")}


def report(result: Mapping[str, Any]) -> list[str]:
    """The README's section."""
    made_by = result["reference"]
    against = f"Reference: realesrgan {made_by['realesrgan']}, fp32, whole picture at once. " if made_by else ""
    count = result["repetitions"]
    runs = "One run of each." if count == 1 else f"Median of {count}, least to greatest in brackets."
    lines = [f"{described(result['machine'])} {against}{runs}", ""]
    rows: list[Sequence[object]] = [
        ("model, input", "who", "whole process, s", "times faster", "peak, MB", "network alone, s per output MP")
    ]
    for case in CASES:
        rows += case_rows(case, result[case.model])
    above = result["memory_above_torch_gb"]
    network = result[CASES[0].model]["network"]
    lines += table_lines(rows)
    lines += [
        "",
        f"- Memory of {CASES[1].model}, above an interpreter that has imported torch: {above['auto']:.2f} GB "
        f"({above['fp32']:.2f} GB in fp32); goal: at most {MEMORY_GOAL_GB} GB.",
        f"- {CASES[0].model} reaches {ranged(network['gflops'])} GFLOP/s in {network['precision']}, "
        f"{network['share_of_matrix_peak']['median']:.0%} of this machine's matrix products "
        f"({ranged(network['matrix_gflops'])} GFLOP/s in the same precision); goal: {SHARE_GOAL:.0%}.",
        *(difference_line(case, result[case.model]) for case in CASES if "difference" in result[case.model]),
        *(first_run_line(case, result[case.model]) for case in CASES if result[case.model].get("first_run_seconds")),
    ]
    return lines


def case_rows(case: Case, measured: Mapping[str, Any]) -> list[Sequence[object]]:
    """One row for each that ran."""
    side, network = measured["input"][0], measured["network"]
    faster = measured.get("times_faster", {})
    alone = f"{network['seconds_per_megapixel']['median']:.3f}"
    if "network_times_faster" in measured:
        alone += f" ({measured['network_times_faster']['median']:.2f} times faster)"
    rows: list[Sequence[object]] = []
    goals = {"auto": case.goal, "fp32": 1, "openvino_int8": INT8_GOAL}
    whos = {"auto": f"ours, auto ({network['precision']})", "fp32": "ours, fp32"}
    whos |= {f"openvino_{one}": f"ours, openvino {one}" for one in OPENVINO if f"openvino_{one}" in measured}
    for name, who in whos.items():
        times = f"{ranged(faster[name], 2)}" if name in faster else "-"
        goal = f"; goal {goals[name]:g}" if name in faster and name in goals else ""
        rows.append((*who_cells(case, side, who, measured[name], times + goal), alone if name == "auto" else "-"))
    if "reference" in measured:
        theirs = measured["reference"]
        alone = f"{theirs['network_seconds_per_megapixel']['median']:.3f}"
        rows.append((*who_cells(case, side, "reference", theirs, "1"), alone))
    return rows


def who_cells(case: Case, side: int, who: str, cost: Mapping[str, Any], times: str) -> Sequence[object]:
    """All cells of a row but the last."""
    return f"{case.model}, {side}x{side}", who, ranged(cost["seconds"], 1), times, f"{cost['peak_mb']['median']:.0f}"


def difference_line(case: Case, measured: Mapping[str, Any]) -> str:
    """How far our pictures are from the reference's, in words."""
    words = [
        f"{name} {one['psnr']:.1f} dB, mean {one['mean_levels']:.2f}, worst {one['worst_levels']} of 255"
        if one["worst_levels"]
        else f"{name} equal"
        for name, one in measured["difference"].items()
    ]
    return f"- {case.model}, our 8-bit picture against the reference's: {'; '.join(words)}."


def first_run_line(case: Case, measured: Mapping[str, Any]) -> str:
    """What is only done once for each weights file, and not counted above."""
    words = [f"{name.replace('_', ' ')} {seconds:.0f} s" for name, seconds in measured["first_run_seconds"].items()]
    return f"- {case.model}, the first run ever, which makes the graph and measures ranges: {', '.join(words)}."


if __name__ == "__main__":
    main()
