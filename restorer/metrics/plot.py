"""Scores of a folder as a picture: one panel a metric, one line a picture, the model's value beside plain bicubic's."""

import math
from collections.abc import Sequence
from pathlib import Path

from restorer.errors import MissingPackageError, WriteError
from restorer.metrics.evaluate import METRICS, Score, means

MODEL, BICUBIC = "#1b6ca8", "#b4552d"
SHOWN = 60
"""Most pictures that get a line; of more, those whose gain is least are shown."""


def draw_scores(path: Path, scores: Sequence[Score], *, title: str) -> None:
    """Write a .png or .svg file. Values that are not finite are left out of it."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingPackageError('plots need extra packages: pip install "restorer[train]"') from None
    names = list(scores[0].model)
    shown = [*_fewest_gains(scores, names[0]), means(scores)]
    figure = Figure(figsize=(4.2 * len(names), 1.2 + 0.26 * len(shown)), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=10)
    panels = figure.subplots(1, len(names), squeeze=False, sharey=True)[0]
    rows = range(len(shown), 0, -1)
    for panel, name in zip(panels, names, strict=True):
        for row, score in zip(rows, shown, strict=True):
            model, plain = score.model[name], score.bicubic[name]
            if math.isfinite(model) and math.isfinite(plain):
                panel.plot([plain, model], [row, row], color="#999", linewidth=1, zorder=1)
                panel.scatter([plain], [row], s=18, color=BICUBIC, zorder=2, label="bicubic" if row == 1 else None)
                panel.scatter([model], [row], s=24, color=MODEL, zorder=3, label="model" if row == 1 else None)
        panel.set_title(f"{name}, {METRICS[name].better} is better", fontsize=9)
        panel.tick_params(labelsize=8)
        panel.grid(axis="x", color="#ddd", linewidth=0.5)
        panel.axhline(1.5, color="#999", linewidth=0.5)
        panel.set_yticks(list(rows), [score.name[:24] for score in shown])
    panels[0].legend(fontsize=8)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror}") from None


def _fewest_gains(scores: Sequence[Score], name: str) -> list[Score]:
    sign = 1 if METRICS[name].better == "higher" else -1
    worst = sorted(scores, key=lambda score: sign * (score.model[name] - score.bicubic[name]))[:SHOWN]
    return [score for score in scores if score in worst]
