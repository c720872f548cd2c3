"""restorer evaluate: a model's scores over a folder of pictures."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from restorer.apps.cli.screen import show, tell
from restorer.apps.cli.words import facts_of
from restorer.errors import UsageError

if TYPE_CHECKING:
    from restorer.metrics.evaluate import Score


def evaluate(
    model: Annotated[str, typer.Argument(help="A name of `restorer models list`, a weights file, a run's checkpoint.")],
    *,
    data: Annotated[Path, typer.Option(help="Folder of pictures as they should be.")],
    low: Annotated[Path | None, typer.Option(help="Folder of their small partners; else made bicubically.")] = None,
    metrics: Annotated[
        str, typer.Option(help="psnr, ssim, niqe, lite0, lpips_alex, lpips_vgg, lpips_squeeze, joined by commas.")
    ] = "psnr,ssim",
    rgb: Annotated[bool, typer.Option("--rgb", help="Compare all channels; else luma (Y) alone.")] = False,
    border: Annotated[int | None, typer.Option(help="Pixels left out at every edge; else the scale.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, fp16 or bf16.")] = "auto",
    niqe: Annotated[Path | None, typer.Option(help="File of NIQE's parameters; else basicsr's are looked for.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the scores into this .png or .svg file.")] = None,
    trust_first_use: Annotated[
        bool, typer.Option("--trust-first-use", help="Accept weights for LPIPS whose full hash was not published.")
    ] = False,
    fact: Annotated[list[str] | None, typer.Option(help="key=value the weights do not say.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a picture, then their mean; null is infinity.")
    ] = False,
) -> int:
    """Shrink pictures, enlarge them with a model, and compare with what they were; plain bicubic stands beside."""
    if not data.is_dir():
        raise UsageError(f"--data takes a folder, '{data}' is none")
    if low is not None and not low.is_dir():
        raise UsageError(f"--low takes a folder, '{low}' is none")
    if plot is not None and plot.suffix.lower() not in (".png", ".svg"):
        raise UsageError(f"--plot takes a .png or .svg file, got '{plot}'")
    from restorer.api import Restorer
    from restorer.metrics.evaluate import EvaluateConfig, means
    from restorer.metrics.evaluate import evaluate as scores_of
    from restorer.pipeline.settings import UpscaleSettings

    try:
        names = dict.fromkeys(name.strip() for name in metrics.split(","))
        config = EvaluateConfig(
            metrics=tuple(names), luma=not rgb, border=border, niqe=niqe, trust_first_use=trust_first_use
        )
    except ValueError as error:
        raise UsageError(str(error)) from None
    settings = UpscaleSettings(model=model, device=device, precision=precision, facts=facts_of(fact))
    if plot is not None:
        from restorer.metrics.plot import check_plot

        check_plot(plot)
    told: list[str] = []
    found = scores_of(Restorer.open(settings=settings), data, low=low, config=config, tell=told.append)
    scores = _shown(found, told, config.metrics, as_json=as_json)
    if scores:
        _tell(means(scores), as_json=as_json)
    if plot is not None and scores:
        from restorer.metrics.plot import draw_scores

        draw_scores(plot, scores, title=model)
    return 1 if told else 0


def _shown(found: Iterable["Score"], told: list[str], names: Iterable[str], *, as_json: bool) -> list["Score"]:
    """Show each score as it comes, and what was told before it."""
    if not as_json:
        show(f"{'picture':24}" + "".join(f"{name:>{_wide(name)}}{'bicubic':>10}" for name in names))
    scores, said = [], 0
    for score in found:
        for message in told[said:]:
            tell(message)
        said = len(told)
        scores.append(score)
        _tell(score, as_json=as_json)
    for message in told[said:]:
        tell(message)
    return scores


def _wide(name: str) -> int:
    return max(10, len(name) + 1)


def _tell(score: "Score", *, as_json: bool) -> None:
    if as_json:
        sides = {"model": score.model, "bicubic": score.bicubic}
        finite = {
            side: {name: value if math.isfinite(value) else None for name, value in numbers.items()}
            for side, numbers in sides.items()
        }
        show(json.dumps({"picture": score.name, **finite}))
        return
    show(
        f"{score.name[:24]:24}"
        + "".join(f"{score.model[name]:{_wide(name)}.4f}{score.bicubic[name]:10.4f}" for name in score.model)
    )
