"""restorer evaluate: a model's scores over a folder of pictures."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from restorer.apps.cli.screen import show
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
    if plot is not None and plot.suffix not in (".png", ".svg"):
        raise UsageError(f"--plot takes a .png or .svg file, got '{plot}'")
    from restorer.api import Restorer
    from restorer.metrics.evaluate import EvaluateConfig, means
    from restorer.metrics.evaluate import evaluate as scores_of
    from restorer.pipeline.settings import UpscaleSettings

    try:
        config = EvaluateConfig(
            metrics=tuple(metrics.split(",")), luma=not rgb, border=border, niqe=niqe, trust_first_use=trust_first_use
        )
    except ValueError as error:
        raise UsageError(str(error)) from None
    settings = UpscaleSettings(model=model, device=device, precision=precision, facts=facts_of(fact or []))
    scores: list[Score] = []
    if not as_json:
        show(f"{'picture':24}" + "".join(f"{name:>10}{'bicubic':>10}" for name in config.metrics))
    for score in scores_of(Restorer.open(settings=settings), data, low=low, config=config):
        scores.append(score)
        _tell(score, as_json=as_json)
    _tell(means(scores), as_json=as_json)
    if plot is not None:
        from restorer.metrics.plot import draw_scores

        draw_scores(plot, scores, title=model)
    return 0


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
        + "".join(f"{score.model[name]:10.4f}{score.bicubic[name]:10.4f}" for name in score.model)
    )
