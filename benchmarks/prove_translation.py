"""Do the games of pix2pix and CycleGAN learn, on small street scenes (CamVid, Cambridge), and how good is what ships?

    restorer train pix2pix_256_tiny --data camvid_labels2photo --out RUN --set data.direction=b2a ...
    python -m benchmarks.prove_translation paired RUN --data camvid_labels2photo
    restorer train cyclegan_256_tiny --data camvid_day2dusk --out RUN ...
    python -m benchmarks.prove_translation unpaired RUN --data camvid_day2dusk
    python -m benchmarks.prove_translation faded MODEL --pictures FOLDER

`paired` holds what each checkpoint makes of pairs it has not seen against the truth. `unpaired` goes there and back on
pictures it has not seen, and asks how far what it makes is from the other domain: a distance of sets, of all pictures,
since those held back are too few for one. `faded` fades photos by fixed seeds and compares what is brought back with
them, and so does a plain stretch of each channel.

Sheets of pictures are written into the folder of the run: CamVid is for research only.
"""

import argparse
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

import restorer
from benchmarks.common import RESULTS, Result, described, machine_facts, publish, table_lines
from benchmarks.make_faded import faded
from benchmarks.make_tiles import rgb
from benchmarks.prove_faces import in_bytes
from restorer.metrics.distribution import kernel_distance, open_pooled, pooled_features
from restorer.metrics.features import open_lite0
from restorer.metrics.fidelity import Bytes, psnr
from restorer.networks.spec import get_spec
from restorer.pipeline.files import READABLE
from restorer.pipeline.picture import read_picture
from restorer.training.build import build_parts
from restorer.training.checkpoint import load_run, restore_run
from restorer.training.data import to_tensor
from restorer.training.picture_grid import write_grid
from restorer.training.recipe import Recipe, override
from restorer.training.recipes import get_recipe
from restorer.training.translation import translated
from restorer.training.translation_data import (
    TranslationDataConfig,
    TranslationSource,
    open_domains,
    resized,
)

ROWS = 4
SEED = 3_000_000
FADINGS = 5
"""Of each photo."""
CUT = 0.5
"""Percent of a channel's values that a plain stretch lets go at each end."""
OURS = "#1b6ca8"


def main() -> None:
    """Do what the first word says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, run in (("paired", paired), ("unpaired", unpaired)):
        made = commands.add_parser(name, help="a run -> its scores, step by step")
        made.add_argument("run_folder", type=Path, metavar="RUN")
        made.add_argument("--data", required=True, help="the folder it was trained on")
        made.set_defaults(run=run)
    made = commands.add_parser("faded", help="a model -> its scores on photos that were faded")
    made.add_argument("model")
    made.add_argument("--pictures", type=Path, required=True, help="a folder of photos it was not trained on")
    made.set_defaults(run=unfaded)
    options = parser.parse_args()
    options.run(options)


def paired(options: argparse.Namespace) -> None:
    """Mean absolute error and feature distance on the pairs held back, at each checkpoint."""
    recipe = recipe_of(options.run_folder)
    given, truth = held_back(recipe, options.data, "val")
    distance = open_lite0()

    def scores(average: torch.nn.Module) -> tuple[dict[str, float], list[Tensor]]:
        made = in_turn(average, given)
        apart = [distance(in_bytes(x), in_bytes(y)) for x, y in zip(made, truth, strict=True)]
        return {"l1": F.l1_loss(made, truth).item(), "lite0": statistics.fmean(apart)}, [given, made, truth]

    titles = {"l1": "mean absolute error, of 1", "lite0": "lite0 distance"}
    what = f"{len(given)} pairs of labels and photos held back"
    study("paired", recipe, options.run_folder, scores=scores, titles=titles, what=what)


def unpaired(options: argparse.Namespace) -> None:
    """The way there and back on pictures held back, and the distance of sets to the other domain."""
    recipe = recipe_of(options.run_folder)
    a, b = held_back(recipe, options.data, "test")
    every = [torch.cat([x, y]) for x, y in zip(held_back(recipe, options.data, "train"), (a, b), strict=True)]
    features = open_pooled()
    seen = [pooled_features(x, features) for x in every]

    def scores(average: torch.nn.Module) -> tuple[dict[str, float], list[Tensor]]:
        assert isinstance(average, torch.nn.ModuleDict)
        there, back = average["a2b"], average["b2a"]
        fake_b, fake_a = in_turn(there, a), in_turn(back, b)
        cycle = (F.l1_loss(in_turn(back, fake_b), a) + F.l1_loss(in_turn(there, fake_a), b)) / 2
        made = pooled_features(in_turn(there, every[0]), features), pooled_features(in_turn(back, every[1]), features)
        told = {
            "cycle_l1": cycle.item(),
            "kernel_a2b": kernel_distance(made[0], seen[1]),
            "kernel_b2a": kernel_distance(made[1], seen[0]),
        }
        return told, [a, fake_b, b, fake_a]

    untouched = {"kernel_a2b": kernel_distance(seen[0], seen[1])}
    titles = {
        "cycle_l1": "there and back: mean absolute error",
        "kernel_a2b": "kernel-lite0, day made dusk",
        "kernel_b2a": "kernel-lite0, dusk made day",
    }
    what = (
        f"{len(a)} and {len(b)} pictures held back, and for distances all {len(every[0])} and {len(every[1])}; between "
        f"the domains as they are the distance is {untouched['kernel_a2b']:.1f}"
    )
    study("unpaired", recipe, options.run_folder, scores=scores, titles=titles, what=what)


def study(
    name: str,
    recipe: Recipe,
    folder: Path,
    *,
    scores: Callable[[torch.nn.Module], tuple[dict[str, float], list[Tensor]]],
    titles: dict[str, str],
    what: str,
) -> None:
    """Score every checkpoint of a run; a plot, a table, and a sheet of the first, the middle and the last."""
    paths = sorted(folder.glob("step-*.safetensors"))
    if len(paths) < 3:
        sys.exit(f"{folder}: holds {len(paths)} checkpoints, and start, middle and end are wanted")
    parts = build_parts(recipe, torch.device("cpu"))
    result: Result = {"machine": machine_facts(), "recipe": recipe.name, "what": what, "titles": titles, "steps": {}}
    sheets = {}
    for path in paths:
        tensors, told = load_run(path)
        restore_run(parts, tensors)
        with torch.no_grad():
            result["steps"][str(told["step"])], sheets[path] = scores(parts.average.eval())
        print(told["step"], result["steps"][str(told["step"])], flush=True)
    for word, path in (("start", paths[0]), ("middle", paths[len(paths) // 2]), ("end", paths[-1])):
        write_grid(folder / f"sheet_{word}.png", [x[:ROWS] for x in sheets[path]])
    mpl.use("agg")
    figure, panels = plt.subplots(1, len(titles), figsize=(4.2 * len(titles), 2.8))
    steps = [int(step) for step in result["steps"]]
    for panel, (key, title) in zip(panels, titles.items(), strict=True):
        panel.plot(steps, [each[key] for each in result["steps"].values()], "o-", color=OURS, markersize=3)
        panel.set_title(title, fontsize=9, loc="left")
        panel.set_xlabel("step", fontsize=8)
        panel.set_ylim(bottom=0)
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=8)
    figure.tight_layout()
    figure.savefig(RESULTS / f"translation_{name}.png", dpi=110, metadata={"Software": None})
    publish(f"translation_{name}", result, report(result), keep=True)


def report(result: Result) -> list[str]:
    """The README's lines."""
    rows: list[tuple[object, ...]] = [("step", *result["titles"].values())]
    rows += [(step, *(f"{value:.4g}" for value in each.values())) for step, each in result["steps"].items()]
    return [f"{described(result['machine'])} `{result['recipe']}`; {result['what']}.", "", *table_lines(rows)]


def unfaded(options: argparse.Namespace) -> None:
    """PSNR and feature distance of faded photos as they are, stretched plainly, and brought back."""
    translator = restorer.Translator.open(settings=restorer.TranslateSettings(model=options.model))
    distance = open_lite0()
    files = sorted(path for path in options.pictures.iterdir() if path.suffix.lower() in READABLE)
    ways: dict[str, Callable[[Bytes], Bytes]] = {"faded": lambda x: x, "stretched": stretched, "translated": translator}
    result: Result = {"machine": machine_facts(), "model": Path(options.model).name, "pictures": {}}
    for number, file in enumerate(files):
        truth = rgb(read_picture(file).pixels)
        told: dict[str, dict[str, float]] = {}
        for name, way in ways.items():
            made = [way(faded(truth, seed=SEED + FADINGS * number + turn)) for turn in range(FADINGS)]
            told[name] = {
                "psnr": statistics.fmean(psnr(each, truth, luma=False) for each in made),
                "lite0": statistics.fmean(distance(each, truth) for each in made),
            }
        result["pictures"][file.name] = told
    publish("translation_faded", result, faded_report(result), keep=True)


def faded_report(result: Result) -> list[str]:
    """The README's lines."""
    head = ("picture", "PSNR faded, dB", "stretched", "translated", "lite0 faded", "stretched", "translated")
    rows: list[tuple[object, ...]] = [head]
    for name, told in result["pictures"].items():
        rows.append(
            (name, *(f"{told[way]['psnr']:.2f}" for way in told), *(f"{told[way]['lite0']:.3f}" for way in told))
        )
    return [
        f"{described(result['machine'])} {result['model']} on photos that it was not trained on, each faded in "
        f"{FADINGS} ways. Means. PSNR: higher is better; lite0: lower.",
        "",
        *table_lines(rows),
    ]


def stretched(pixels: Bytes) -> Bytes:
    """(H, W, 3) -> the same, each channel stretched to all of its range: what an editor's button does."""
    low, high = np.percentile(pixels, [CUT, 100 - CUT], axis=(0, 1))
    return np.rint((pixels - low) / np.maximum(high - low, 1) * 255).clip(0, 255).astype(np.uint8)


def recipe_of(folder: Path) -> Recipe:
    """That of a run."""
    return get_recipe(str(folder / "recipe.json"))


def held_back(recipe: Recipe, data: str, phase: str) -> tuple[Tensor, Tensor]:
    """All pictures of a phase, whole, brought to the side of the crops -> (input, truth), (N, C, H, W) in [0, 1]."""
    side = recipe.data.crop
    config = override(
        recipe, {"data.root": data, "data.phase": phase, "data.load_size": str(side), "data.flip": "false"}
    ).data
    assert isinstance(config, TranslationDataConfig)
    if recipe.weights.kind == "unpaired":
        domains = open_domains(config, aligned=False)
        a, b = (
            [resized(each.read(number), (side, side)) for number in range(len(each.names))]
            for each in (domains.a, domains.b)
        )
        return to_tensor(a), to_tensor(b)
    source = TranslationSource(config, get_spec(recipe.network).traits(recipe.config), seed=0)
    found = [source.crops(number, np.random.default_rng(0)) for number in range(len(source))]
    truth, given = zip(*found, strict=True)
    return to_tensor(given), to_tensor(truth)


def in_turn(network: torch.nn.Module, x: Tensor) -> Tensor:
    """(N, C, H, W) in [0, 1] -> what the network makes of each, in [0, 1]."""
    return torch.cat([translated(network, one) for one in x.split(1)]).clamp(0, 1)


if __name__ == "__main__":
    sys.exit(main())
