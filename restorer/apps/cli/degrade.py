"""restorer degrade: pictures as a recipe would give them to its network, or a sheet of what it may do to them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from restorer.apps.cli.screen import show, tell
from restorer.errors import PictureError, RestorerError, UsageError, WriteError
from restorer.pipeline.codecs.formats import WRITABLE
from restorer.pipeline.files import FileSettings, Job, plan_jobs

if TYPE_CHECKING:
    from restorer.training.recipe import Recipe


def degrade(
    inputs: Annotated[list[str], typer.Argument(help="Pictures and folders.")],
    *,
    out: Annotated[str, typer.Option("--out", "-o", help="A PNG file, or a folder.")],
    recipe: Annotated[str, typer.Option(help="A recipe's name, or its .toml or .json file.")] = "realesrgan_x4",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="degradation.name=value; may be repeated.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Another seed draws other numbers.")] = 0,
    preview: Annotated[
        bool, typer.Option("--preview", help="A sheet of eleven draws of each picture, and what was drawn.")
    ] = False,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Sub-folders too.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")] = False,
) -> int:
    """Blur, shrink, noise and compress pictures as training does; colours alone are kept, in 8 bits, as PNG."""
    if Path(out).suffix.lower() in WRITABLE and Path(out).suffix.lower() != ".png":
        raise UsageError(f"{out}: degraded pictures are written as PNG; give such a name, or a folder")
    files = FileSettings(format="png", recursive=recursive, overwrite=overwrite)
    planned = plan_jobs(inputs, out, files)
    jobs = planned.jobs
    there = [job.output for job in jobs if job.output is not None and job.output.exists()]
    if there and not overwrite:
        raise UsageError(f"{there[0]}: exists; give --overwrite, or another folder")
    if any(job.source is None or job.output is None for job in jobs):
        raise UsageError("degrade reads and writes files, not - (standard input and output)")
    from restorer.apps.cli.train import setting_of
    from restorer.training.degrade_files import scale_of
    from restorer.training.recipes import changed, get_recipe

    chosen = changed(get_recipe(recipe), dict(setting_of(text) for text in settings or []))
    scale_of(chosen)
    for label, reason in planned.notices:
        tell(f"{label}: {reason}")
    failed = 0
    for job in jobs:
        try:
            _one(job, chosen, seed=seed, preview=preview)
        except RestorerError as error:
            tell(str(error))
            failed += 1
    return 1 if failed else 0


def _one(job: Job, recipe: "Recipe", *, seed: int, preview: bool) -> None:
    from restorer.pipeline.picture import read_picture, write_picture
    from restorer.training.degrade_files import degrade_picture, write_sheet
    from restorer.training.objective import derived_seed

    assert job.source is not None and job.output is not None
    picture = read_picture(job.source)
    try:
        job.output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"cannot make the folder {job.output.parent}: {error.strerror}") from None
    chosen = derived_seed(seed, job.source.name)  # wherever it lies and goes, it becomes the same
    try:
        if preview:
            show(f"{job.output}: row by row from its second cell")
            for line in write_sheet(job.output, picture, recipe, seed=chosen):
                show(line)
            return
        write_picture(degrade_picture(picture, recipe, seed=chosen), job.output)
    except PictureError as error:
        raise PictureError(f"{job.label}: {error}") from None
    show(str(job.output))
