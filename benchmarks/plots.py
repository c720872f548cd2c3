"""Draw the plots of README.md from results/*.json: python -m benchmarks.plots"""

import json
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt

from benchmarks.common import RESULTS

OURS, THEIRS = "#1b6ca8", "#b9b4ab"
SHADES = {"eager": "#1b6ca8", "compiled": "#6aa6cf", "onnx": "#b4552d", "openvino": "#d9a273"}


def main() -> None:
    """Draw whatever has results."""
    mpl.use("agg")
    for name, draw in (
        ("peers", peers),
        ("engines", engines),
        ("training_step", training_step),
        ("precision", precision),
    ):
        path = RESULTS / f"{name}.json"
        if path.is_file():
            figure = draw(json.loads(path.read_text(encoding="utf-8")))
            figure.savefig(RESULTS / f"{name}.png", dpi=110, bbox_inches="tight", metadata={"Software": None})


def peers(result: dict[str, Any]) -> plt.Figure:
    """Seconds of whole processes, with the spread of their runs, one panel a model."""
    cases = result["cases"]
    figure, panels = plt.subplots(1, len(cases), figsize=(5.2 * len(cases), 2.2), squeeze=False)
    for panel, (model, case) in zip(panels[0], cases.items(), strict=True):
        names = list(case["who"])
        ours = ("auto", "fp32")
        for place, name in enumerate(names):
            took = case["who"][name]["seconds"]
            spread = [[took["median"] - took["min"]], [took["max"] - took["median"]]]
            panel.barh(place, took["median"], xerr=spread, color=OURS if name in ours else THEIRS, capsize=2)
            panel.text(took["max"], place, f"  {took['median']:.1f} s", va="center", fontsize=8)
        panel.set_yticks(range(len(names)), [f"restorer, {name}" if name in ours else name for name in names])
        panel.invert_yaxis()
        panel.set_title(f"{model}, {case['input'][0]}x{case['input'][1]}", fontsize=9, loc="left")
        _bare(panel)
        panel.set_xlabel("seconds, start to end", fontsize=8)
    figure.tight_layout()
    return figure


def engines(result: dict[str, Any]) -> plt.Figure:
    """Time of each engine over eager's, in groups of a network and a precision."""
    cases = result["cases"]
    groups = [(network, precision) for network, case in cases.items() for precision in case["matrix_gflops"]]
    figure, panel = plt.subplots(figsize=(10, 0.55 * len(groups) + 1.2))
    height = 0.8 / len(SHADES)
    for place, (network, precision) in enumerate(groups):
        rows = cases[network]["engines"]
        for number, (name, colour) in enumerate(SHADES.items()):
            row = rows.get(f"{name} {precision}")
            if row is not None:
                at = place + (number - (len(SHADES) - 1) / 2) * height
                panel.barh(at, row["ratio_to_eager"], height, color=colour, label=name if place == 0 else None)
                panel.text(row["ratio_to_eager"], at, f" {row['ratio_to_eager']:.2f}", va="center", fontsize=7)
    panel.axvline(1, color="#555", linewidth=0.8)
    panel.set_yticks(range(len(groups)), [f"{network}, {precision}" for network, precision in groups])
    panel.invert_yaxis()
    panel.set_xlabel("time over eager's, network alone", fontsize=8)
    panel.legend(frameon=False, fontsize=8, ncols=len(SHADES), loc="lower right", bbox_to_anchor=(1, 1))
    _bare(panel)
    return figure


def training_step(result: dict[str, Any]) -> plt.Figure:
    """Pixel losses of the small game, ours over BasicSR's: where only one line is seen, they are equal."""
    figure, panel = plt.subplots(figsize=(7, 2.6))
    panel.plot(result["curves"]["fp32"]["theirs"], color="#b4552d", linewidth=3, alpha=0.5, label="BasicSR, fp32")
    for precision, dash in (("fp32", "-"), ("bf16", ":")):
        if precision in result["curves"]:
            panel.plot(
                result["curves"][precision]["ours"], dash, color=OURS, linewidth=1, label=f"restorer, {precision}"
            )
    panel.set_xlabel("step", fontsize=8)
    panel.set_ylabel("pixel loss, weighted", fontsize=8)
    panel.legend(frameon=False, fontsize=8)
    _bare(panel)
    return figure


def precision(result: dict[str, Any]) -> plt.Figure:
    """Nearness to float32 against time, median and worst photo of each form."""
    figure, panel = plt.subplots(figsize=(8, 3.6))
    named = panel.get_legend_handles_labels
    halves = [(name, row) for name, row in result["forms"].items() if name != "fp32"]
    for number, (name, row) in enumerate(halves):
        at, colour = row["ratio_to_bf16"], THEIRS if "NNCF" in name else OURS
        panel.plot([at, at], [row["worst_db"], row["median_db"]], color=colour, linewidth=1)
        panel.plot(at, row["median_db"], "o", color=colour, label=None if named()[0] else "median photo")
        panel.plot(at, row["worst_db"], "v", color=colour, label=None if len(named()[0]) > 1 else "worst photo")
        panel.annotate(str(number), (at, row["median_db"]), (4, 4), textcoords="offset points", fontsize=8)
        panel.text(1.02, 0.95 - 0.07 * number, f"{number}  {name}", fontsize=7, transform=panel.transAxes)
    panel.axhline(40, color="#555", linewidth=0.8, linestyle=":")
    panel.set_xlabel("time over bf16's, OpenVINO", fontsize=8)
    panel.set_ylabel("dB to float32", fontsize=8)
    panel.legend(frameon=False, fontsize=8, loc="lower right")
    _bare(panel)
    return figure


def _bare(panel: plt.Axes) -> None:
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(labelsize=8)


if __name__ == "__main__":
    main()
