"""Scores of a folder as a picture: one panel a metric, one line a picture, the model's value beside plain bicubic's."""

import importlib.util
import math
import warnings
from collections.abc import Sequence
from pathlib import Path

from restorer.errors import MissingPackageError, WriteError
from restorer.metrics.evaluate import METRICS, Score, means

MODEL, BICUBIC = "#1b6ca8", "#b4552d"
SHOWN = 60
"""Most pictures that get a line; of more, those whose gain is least are shown."""


def check_plot(path: Path) -> None:
    """Refuse early what could not be drawn or written in the end."""
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingPackageError('plots need extra packages: pip install "restorer[train]"')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror}") from None


def draw_scores(path: Path, scores: Sequence[Score], *, title: str) -> None:
    """Write a .png or .svg file. Values that are not finite are left out of it."""
    check_plot(path)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = list(scores[0].model)
    shown = [*_fewest_gains(scores, names[0]), means(scores)]
    figure = Figure(figsize=(4.2 * len(names), 1.2 + 0.26 * len(shown)), layout="constrained")
    FigureCanvasAgg(figure)
    more = f", the {SHOWN} of {len(scores)} pictures that gain least" if len(scores) > SHOWN else ""
    figure.suptitle(title + more, fontsize=10, parse_math=False)
    panels = figure.subplots(1, len(names), squeeze=False, sharey=True)[0]
    rows = range(len(shown), 0, -1)
    for panel, name in zip(panels, names, strict=True):
        for row, score in zip(rows, shown, strict=True):
            model, plain = score.model[name], score.bicubic[name]
            if math.isfinite(model) and math.isfinite(plain):
                panel.plot([plain, model], [row, row], color="#999", linewidth=1, zorder=1)
                panel.scatter([plain], [row], s=18, color=BICUBIC, zorder=2)
                panel.scatter([model], [row], s=24, color=MODEL, zorder=3)
        panel.set_title(f"{name}, {METRICS[name].better} is better", fontsize=9)
        panel.tick_params(labelsize=8)
        panel.grid(axis="x", color="#ddd", linewidth=0.5)
        panel.axhline(1.5, color="#999", linewidth=0.5)
        panel.set_yticks(list(rows), [score.name[:24] for score in shown], parse_math=False)
    for name, colour in (("bicubic", BICUBIC), ("model", MODEL)):
        panels[0].scatter([], [], s=20, color=colour, label=name)
    panels[0].legend(fontsize=8)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # letters that the font lacks are drawn as boxes
            figure.savefig(path, dpi=120)
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror}") from None


def _fewest_gains(scores: Sequence[Score], name: str) -> list[Score]:
    sign = 1 if METRICS[name].better == "higher" else -1
    gains = {score.name: sign * (score.model[name] - score.bicubic[name]) for score in scores}
    finite = {each: gain if math.isfinite(gain) else math.inf for each, gain in gains.items()}
    worst = sorted(scores, key=lambda score: finite[score.name])[:SHOWN]
    return [score for score in scores if score in worst]
