"""Does adversarial training learn faces, on 400 small grey ones of 40 persons (Olivetti, AT&T Laboratories Cambridge)?

    python -m benchmarks.prove_faces prepare --npz olivetti_faces.npz --out DIR
    restorer train stylegan2_256_tiny --data DIR/all --out RUN
    python -m benchmarks.prove_faces curve RUN --real DIR/all
    restorer train gfpgan_512_tiny --data DIR/train --out RUN
    python -m benchmarks.prove_faces restored RUN --held DIR/held

`prepare` makes folders of PNGs; a person is either in train/ or in held/.

`curve` asks whether what a generator makes comes nearer to the real faces as it learns: at each checkpoint of a run its
average makes pictures of the same noise, and their distances to the real set are drawn. Real faces have a distance too:
that of one half of the set to the other, which holds the same persons.

`restored` asks whether a face restorer helps persons it has never seen: faces that were degraded as in its training, by
fixed seeds, are compared with the truth as they are, brought back to size bicubically instead, and restored.

Sheets of faces are written into the folder of the run: the set has no licence that would let them go farther.
"""

import argparse
import json
import re
import statistics
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor

from benchmarks.common import RESULTS, Result, described, machine_facts, publish, table_lines
from restorer.api import open_model
from restorer.engines.eager import EagerEngine
from restorer.metrics.distribution import DISTANCES, open_pooled, pooled_features
from restorer.metrics.features import open_lite0
from restorer.metrics.fidelity import Bytes, psnr
from restorer.pipeline.files import READABLE
from restorer.pipeline.picture import Picture, read_picture, write_picture
from restorer.training.checkpoint import latest
from restorer.training.degrade_faces import FaceDegradationConfig, degrade_face_batch
from restorer.training.picture_grid import write_grid
from restorer.training.recipes import get_recipe

TRAINED = 34
"""Persons that are trained on; those after them are held out."""
SEED = 2_000_000
"""The first of the seeds of noise and of degradations."""
COLUMNS, ROWS = 4, 8
"""Of the samples of one checkpoint; the sheet of restored faces has as many rows."""
AT_ONCE = 20
CALLED = re.compile(r"s\d+_\d+")
"""How `prepare` calls a face: its person's number, and its own."""
NAMES = {"frechet_lite0": "Fréchet-lite0", "kernel_lite0": "kernel-lite0"}
OURS, THEIRS = "#1b6ca8", "#b4552d"


def main() -> None:
    """Do what the first word says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    made = commands.add_parser("prepare", help="faces of an .npz file -> folders of PNGs")
    made.add_argument("--npz", type=Path, required=True, help="`faces` (N, H, W) uint8 and `identity` (N,), from 0 on")
    made.add_argument("--out", type=Path, required=True, help="an empty folder; gets all/, train/ and held/")
    made.set_defaults(run=prepare)
    drawn = commands.add_parser("curve", help="a run of a generator -> its distances to real faces, step by step")
    drawn.add_argument("checkpoints", type=Path, metavar="RUN")
    drawn.add_argument("--real", type=Path, required=True, help="a folder of real faces")
    drawn.add_argument("--count", type=int, default=400, help="pictures that each checkpoint makes")
    drawn.set_defaults(run=curve)
    judged = commands.add_parser("restored", help="a run of a face restorer -> its scores on faces it has not seen")
    judged.add_argument("checkpoints", type=Path, metavar="RUN_OR_FILE", help="of a run the newest checkpoint")
    judged.add_argument("--held", type=Path, required=True, help="a folder of faces that were not trained on")
    judged.set_defaults(run=restored)
    for parser_of_results in (drawn, judged):
        parser_of_results.add_argument("--out", type=Path, help="a folder, in place of results/ and the README")
    options = parser.parse_args()
    options.run(options)


def prepare(options: argparse.Namespace) -> None:
    """Write every face to all/, and to train/ or held/ by its person."""
    with np.load(options.npz, allow_pickle=False) as file:
        faces, persons = file["faces"], file["identity"]
    if faces.dtype != np.uint8 or faces.ndim != 3 or persons.shape != faces.shape[:1]:
        sys.exit(f"{options.npz}: holds {faces.dtype} {faces.shape} and {persons.shape}; give (N, H, W) uint8 and (N,)")
    folders = {name: options.out / name for name in ("all", "train", "held")}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            sys.exit(f"{folder}: is not empty; name another folder")
    counts: dict[int, int] = {}
    for face, person in zip(faces, persons.tolist(), strict=True):
        number = counts.get(person, 0)
        counts[person] = number + 1
        picture = Picture(pixels=np.repeat(face[:, :, None], 3, axis=2))
        for name in ("all", "train" if person < TRAINED else "held"):
            write_picture(picture, folders[name] / f"s{person:02d}_{number:02d}.png")
    print(*(f"{name}: {len(list(folder.iterdir()))} faces" for name, folder in folders.items()), sep="\n")


def curve(options: argparse.Namespace) -> None:
    """Distances at each checkpoint, a plot of them, and samples of the first beside those of the last."""
    paths = sorted(options.checkpoints.glob("step-*.safetensors"))
    if not paths:
        sys.exit(f"{options.checkpoints}: holds no step-*.safetensors; give the folder of a run")
    features = open_pooled()
    real = pooled_features(read_faces(faces_of(options.real)), features)
    halves = {name: distance(real[::2], real[1::2]) for name, distance in DISTANCES.items()}
    result: Result = {"machine": machine_facts(), "real": len(real), "made": options.count, "halves": halves}
    result["steps"] = {}
    shown: list[Tensor] = []
    for path in paths:
        pictures = made_by(path, options.count)
        seen = pooled_features(pictures, features)
        step = str(int(path.stem.removeprefix("step-")))
        result["steps"][step] = {name: distance(seen, real) for name, distance in DISTANCES.items()}
        print(f"step {step}:", ", ".join(f"{NAMES[name]} {x:.4g}" for name, x in result["steps"][step].items()))
        shown = [*shown[:1], pictures]
    out = folder_for(options.out)
    write_grid(options.checkpoints / "faces_samples.png", beside_each_other(shown))
    draw_curve(result).savefig(out / "faces_curve.png", dpi=110, bbox_inches="tight", metadata={"Software": None})
    keep("faces_curve", result, curve_report(result), options.out)


def made_by(path: Path, count: int) -> Tensor:
    """-> (count, 3, H, W) in [0, 1]: what the average of a checkpoint makes of the same noise each time."""
    model = open_model(path)
    if model.traits.latent is None:
        sys.exit(f"{path}: holds a {model.spec.name}, which makes no pictures of noise; give a run of stylegan2")
    rng = torch.Generator().manual_seed(SEED)
    return through(EagerEngine(model, device="cpu", precision="fp32", self_check=False),
                   torch.randn(count, model.traits.latent, generator=rng))  # fmt: skip


def through(engine: EagerEngine, x: Tensor) -> Tensor:
    """(N, ...) -> (N, 3, H, W) in [0, 1]."""
    return torch.cat([engine.run({"image": part})["image"].clamp(0, 1) for part in x.split(AT_ONCE)])


def beside_each_other(sets: list[Tensor]) -> list[Tensor]:
    """[(N, 3, H, W), ...] -> columns (n, 3, H, W) of the first of each, with a white one between two sets."""
    rows = max(1, min(ROWS, min(map(len, sets)) // COLUMNS))
    columns: list[Tensor] = []
    for pictures in sets:
        gap = [torch.ones_like(pictures[:rows])] if columns else []
        columns += [*gap, *(pictures[at * rows : (at + 1) * rows] for at in range(min(COLUMNS, len(pictures))))]
    return columns


def draw_curve(result: Result) -> plt.Figure:
    """One panel a distance, on a logarithmic axis; what is not above 0 is left out of it."""
    mpl.use("agg")
    figure, panels = plt.subplots(1, len(NAMES), figsize=(4.6 * len(NAMES), 2.8))
    steps = [int(step) for step in result["steps"]]
    for panel, (name, title) in zip(panels, NAMES.items(), strict=True):
        panel.plot(steps, [scores[name] for scores in result["steps"].values()], "o-", color=OURS, markersize=3)
        panel.set_yscale("log", nonpositive="mask")
        if result["halves"][name] > 0:
            panel.axhline(result["halves"][name], color=THEIRS, linewidth=1, linestyle=":", label="two real halves")
            panel.legend(frameon=False, fontsize=8)
        panel.set_title(f"{title} distance to {result['real']} real faces", fontsize=9, loc="left")
        panel.set_xlabel("step", fontsize=8)
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(which="both", labelsize=8)
    figure.tight_layout()
    return figure


def curve_report(result: Result) -> list[str]:
    """The README's lines."""
    rows: list[tuple[object, ...]] = [("step", *NAMES.values())]
    rows += [(step, *_told(scores)) for step, scores in result["steps"].items()]
    rows.append(("one half of the real faces, of the other", *_told(result["halves"])))
    return [
        f"{described(result['machine'])} {result['made']} pictures of the averaged generator, of the same noise at "
        f"every step, against {result['real']} real faces; the halves are of {result['real'] // 2}, and fewer pictures "
        "make Fréchet-lite0 larger.",
        "",
        *table_lines(rows),
    ]  # fmt: skip


def restored(options: argparse.Namespace) -> None:
    """Scores of degraded faces as they are and restored, and a sheet of some of them."""
    if not options.checkpoints.exists():
        sys.exit(f"{options.checkpoints}: does not exist; give the folder of a run, or a file in it")
    path = latest(options.checkpoints) if options.checkpoints.is_dir() else options.checkpoints
    if path is None:
        sys.exit(f"{options.checkpoints}: holds no whole checkpoint; give the folder of a run, or a file in it")
    if not (path.parent / "recipe.json").is_file():
        sys.exit(f"{path}: has no recipe.json beside it; give a file in the folder of its run")
    degradation = get_recipe(str(path.parent / "recipe.json")).degradation
    if not isinstance(degradation, FaceDegradationConfig):
        sys.exit(f"{path.parent}: was not trained on degraded faces; give a run with degradation.kind=face")
    files = faces_of(options.held)
    for file in files:
        if not CALLED.fullmatch(file.stem):
            sys.exit(f"{file}: its name says no person; give held/ of `prepare`, whose faces are called sPP_NN.png")
    truth = read_faces(files)
    seeds = range(SEED, SEED + len(truth))
    given = degrade_face_batch(truth, seeds, degradation)
    bicubic = degrade_face_batch(truth, seeds, replace(degradation, enlarge="bicubic"))
    engine = EagerEngine(open_model(path), device="cpu", precision="fp32", self_check=False)
    size, only = tuple(truth.shape[2:]), engine.traits.fixed_size
    if only not in (None, size):
        sys.exit(f"{path}: restores faces of {only} alone, and those of {options.held} are of {size}")
    made = through(engine, given)
    result: Result = {
        "machine": machine_facts(),
        "checkpoint": path.name,
        "faces": len(files),
        "degradation": asdict(degradation),
        "scores": {"given": scored(given, truth), "bicubic": scored(bicubic, truth), "restored": scored(made, truth)},
    }
    folder_for(options.out)
    few = [files.index(file) for file in of_different_persons(files)[:ROWS]]
    write_grid(path.parent / "faces_restored.png", [bicubic[few], made[few], truth[few]])
    keep("faces_restored", result, restored_report(result), options.out)


def scored(pictures: Tensor, truth: Tensor) -> dict[str, list[float]]:
    """(N, 3, H, W) in [0, 1], same -> the numbers of each, of 8 bits."""
    pairs = [(in_bytes(x), in_bytes(y)) for x, y in zip(pictures, truth, strict=True)]
    distance = open_lite0()
    return {
        "psnr": [round(psnr(x, y, luma=False), 3) for x, y in pairs],
        "lite0": [round(distance(x, y), 5) for x, y in pairs],
    }


def restored_report(result: Result) -> list[str]:
    """The README's lines."""
    given, bicubic, made = (result["scores"][who] for who in ("given", "bicubic", "restored"))
    means = {name: [statistics.fmean(scores[name]) for scores in (given, bicubic, made)] for name in given}
    better = {
        "psnr": sum(b > a for a, b in zip(bicubic["psnr"], made["psnr"], strict=True)),
        "lite0": sum(b < a for a, b in zip(bicubic["lite0"], made["lite0"], strict=True)),
    }
    rows: list[tuple[object, ...]] = [
        ("", "degraded, as given", "the same, bicubic", "restored", f"better than bicubic, of {result['faces']}"),
        ("PSNR of RGB, dB: higher is better", *(f"{x:.2f}" for x in means["psnr"]), better["psnr"]),
        ("lite0: lower is better", *(f"{x:.4f}" for x in means["lite0"]), better["lite0"]),
    ]
    return [
        f"{described(result['machine'])} {result['checkpoint']} on {result['faces']} faces of persons it was not "
        "trained on. Means.",
        "",
        *table_lines(rows),
    ]


def faces_of(folder: Path) -> list[Path]:
    """The pictures of a folder, by name."""
    if not folder.is_dir():
        sys.exit(f"{folder}: is no folder; `prepare` makes folders of faces")
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in READABLE)
    if not files:
        sys.exit(f"{folder}: holds no pictures; `prepare` makes such folders")
    return files


def read_faces(files: list[Path]) -> Tensor:
    """Files of one size and 8 bits -> (N, 3, H, W) in [0, 1]."""
    faces: list[Tensor] = []
    for file in files:
        pixels = read_picture(file).pixels
        if pixels.dtype != np.uint8:
            sys.exit(f"{file}: holds {pixels.dtype} samples; give faces of 8 bits")
        faces.append(torch.from_numpy(pixels).permute(2, 0, 1).expand(3, -1, -1))
        if faces[-1].shape != faces[0].shape:
            sizes = [f"{face.shape[2]}x{face.shape[1]}" for face in (faces[-1], faces[0])]
            sys.exit(f"{file}: is {sizes[0]}, and {files[0].name} is {sizes[1]}; give faces of one size")
    return torch.stack(faces).float() / 255


def of_different_persons(files: list[Path]) -> list[Path]:
    """sPP_NN files -> the first of each person, then the second of each, and so on.

    >>> [file.name for file in of_different_persons([Path("s1_0"), Path("s1_1"), Path("s2_0")])]
    ['s1_0', 's2_0', 's1_1']
    """
    return sorted(files, key=lambda file: file.stem.split("_")[::-1])


def in_bytes(x: Tensor) -> Bytes:
    """(3, H, W) in [0, 1] -> (H, W, 3) uint8."""
    return np.ascontiguousarray((x * 255).round().to(torch.uint8).permute(1, 2, 0).numpy())


def folder_for(out: Path | None) -> Path:
    """Where results go."""
    folder = RESULTS if out is None else out
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def keep(name: str, result: Result, table: list[str], out: Path | None) -> None:
    """To results/ and the README, or to `out` alone."""
    if out is not None:
        (out / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print("\n".join(table))
    else:
        publish(name, result, table, keep=True)


def _told(scores: dict[str, float]) -> Iterator[str]:
    return (f"{scores[name]:.4g}" for name in NAMES)


if __name__ == "__main__":
    sys.exit(main())
