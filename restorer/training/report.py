"""A run on one page: curves, pictures and the recipe, in a single HTML file that needs nothing else."""

import base64
import html
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from restorer.training.games import game_of
from restorer.training.recipe import Recipe, as_data

WIDTH, HEIGHT, PAD = 420, 150, 34
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:960px;margin:2em auto;padding:0 1em;color:#222}"
    "figure{display:inline-block;margin:0 1em 1em 0}figcaption{color:#555;font-size:13px}"
    "img{max-width:100%;image-rendering:pixelated}svg{background:#f7f7f5}pre{background:#f7f7f5;padding:1em;overflow:auto}"
)
_COLOURS = {"g": "#1b6ca8", "d": "#b4552d"}
_LINES_APART = ("step", "seconds", "bad_files")


def write_report(folder: Path, recipe: Recipe, lines: Sequence[Mapping[str, Any]]) -> Path:
    """Write RUN/report.html from what was logged and drawn so far."""
    names = sorted({name for line in lines for name in line if name not in _LINES_APART})
    curves = "".join(_curve(name, _points(lines, name)) for name in names)
    pictures = sorted((folder / "pictures").glob("step-*.png"))
    chosen = pictures if len(pictures) <= 3 else [pictures[0], pictures[len(pictures) // 2], pictures[-1]]
    shown = "".join(_picture(path) for path in chosen)
    done = lines[-1] if lines else {"step": 0, "seconds": 0}
    text = (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(recipe.name)}</title>"
        f"<style>{_STYLE}</style><h1>{html.escape(recipe.name)}</h1>"
        f"<p>Step {done['step']} of {recipe.train.steps}; {html.escape(recipe.network)}; {_bad(done)}</p>"
        f"<h2>Pictures</h2><p>{html.escape(game_of(recipe.weights).caption)}</p>{shown}"
        f"<h2>Curves</h2>{curves}"
        f"<h2>Recipe</h2><pre>{html.escape(json.dumps(as_data(recipe), indent=1))}</pre></html>\n"
    )
    path = folder / "report.html"
    path.write_text(text, encoding="utf-8")
    return path


def _bad(line: Mapping[str, Any]) -> str:
    count = line.get("bad_files", 0)
    return "no picture was left out." if not count else f"{count} pictures could not be used and were left out."


def _points(lines: Sequence[Mapping[str, Any]], name: str) -> list[tuple[float, float]]:
    return [(line["step"], line[name]) for line in lines if name in line and math.isfinite(line[name])]


def _curve(name: str, points: Sequence[tuple[float, float]]) -> str:
    """One reading over the steps, as a figure; the scale is from its least to its greatest value."""
    if not points:
        return ""
    steps, values = [point[0] for point in points], [point[1] for point in points]
    low, high = min(values), max(values)
    path = " ".join(
        f"{_place(step, min(steps), max(steps), PAD, WIDTH - 8):.1f},{_place(value, low, high, HEIGHT - 22, 10):.1f}"
        for step, value in points
    )
    colour = _COLOURS.get(name.partition("/")[0], "#555")
    label = f'font-size="10" fill="#555" text-anchor="end" x="{PAD - 3}"'
    return (
        f'<figure><svg width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{html.escape(name)}">'
        f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{path}"/>'
        f'<text {label} y="14">{high:.2g}</text><text {label} y="{HEIGHT - 22}">{low:.2g}</text>'
        f'<text font-size="10" fill="#555" x="{PAD}" y="{HEIGHT - 6}">{min(steps):g}</text>'
        f'<text font-size="10" fill="#555" text-anchor="end" x="{WIDTH - 8}" y="{HEIGHT - 6}">{max(steps):g}</text>'
        f"</svg><figcaption>{html.escape(name)}: last {values[-1]:.4g}</figcaption></figure>"
    )


def _place(value: float, low: float, high: float, start: float, stop: float) -> float:
    return (start + stop) / 2 if high == low else start + (value - low) / (high - low) * (stop - start)


def _picture(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    step = int(path.stem.removeprefix("step-"))
    image = f'<img alt="step {step}" src="data:image/png;base64,{data}">'
    return f"<figure>{image}<figcaption>step {step}</figcaption></figure>"
