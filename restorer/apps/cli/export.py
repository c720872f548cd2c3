"""restorer export: a model as an ONNX file."""

import re
from pathlib import Path
from typing import Annotated

import typer

from restorer.apps.cli.screen import show
from restorer.apps.cli.words import facts_of
from restorer.errors import UsageError


def export(
    model: Annotated[str, typer.Argument(help="A name of `restorer models list`, or a weights file.")],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="The .onnx file to write.")],
    precision: Annotated[str, typer.Option(help="fp32 or fp16.")] = "fp32",
    static: Annotated[str | None, typer.Option(help="HxW: one picture of this size; else all sizes.")] = None,
    with_io: Annotated[
        bool, typer.Option("--with-io", help="Take and give (N, H, W, C) uint8 RGB; else floats.")
    ] = False,
    fact: Annotated[list[str] | None, typer.Option(help="key=value the weights do not say.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
) -> int:
    """Write a model as ONNX, and prove that the file gives what PyTorch gives."""
    if precision not in ("fp32", "fp16"):
        raise UsageError(f"precision takes fp32 or fp16, got '{precision}'")
    size = _size(static)
    from restorer.api import open_model
    from restorer.engines.graph import GraphForm
    from restorer.export import export_model
    from restorer.weights.find import find_weights

    record = find_weights(model).record
    beside = {"made_by": "restorer"}
    if record is not None:
        beside |= {"model": record.name, "licence": record.licence, "source": record.source}
    loaded = open_model(model, facts=facts_of(fact))
    form = GraphForm(precision=precision, size=size, with_io=with_io)
    proof = export_model(loaded, out, form=form, beside=beside, overwrite=overwrite)
    sides = "any size" if size is None else f"{size[0]}x{size[1]}"
    unit = "levels of 255" if with_io else "of its range"
    shapes = ", ".join("x".join(map(str, shape)) for shape in proof.shapes)
    show(
        f"{out}: {loaded.spec.name}, {precision}, {sides}, {out.stat().st_size / 1e6:.1f} MB; equals "
        f"PyTorch at {shapes} (worst difference {proof.worst:.1e} {unit}, {proof.db:.0f} dB)"
    )
    return 0


def _size(text: str | None) -> tuple[int, int] | None:
    """
    >>> _size("480x640")
    (480, 640)
    """
    if text is None:
        return None
    found = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text.lower())
    if found is None:
        raise UsageError(f"static takes HxW, such as 512x512; got '{text}'")
    return int(found[1]), int(found[2])
