"""A run over pictures, as every command plays it: plan, find the weights, read, and only then load torch."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from restorer import machine
from restorer.apps.cli.screen import Screen
from restorer.errors import UsageError
from restorer.pipeline.files import FileSettings, plan_jobs
from restorer.pipeline.settings import NO_MODEL, UpscaleSettings

if TYPE_CHECKING:
    from restorer.pipeline.beside import Keeper
    from restorer.pipeline.work import Planner, Settings

P = TypeVar("P", bound="Planner")


def run(
    inputs: list[str],
    out: str,
    settings: "Settings",
    files: FileSettings,
    screen: Screen,
    *,
    names: Sequence[str],
    open_all: "Callable[[], Planner]",
    dry_run: bool,
    keeper: "Keeper | None" = None,
    beside: "Callable[[], list[Path]]" = list,
) -> int:
    """Restore every picture; returns the exit status.

    `names` are the models whose weights must be there, `beside` gives more files that decide what is made; both are in
    the journal, and so is what `keeper` writes beside each picture.
    """
    from restorer.weights.fetch import sha256_of
    from restorer.weights.find import find_weights, weights_digest

    jobs = plan_jobs(inputs, out, files)
    if keeper is not None:
        from restorer.pipeline.beside import check_names

        check_names(jobs, keeper, overwrite=files.overwrite)
    found = [find_weights(name, download=not dry_run, progress=screen.downloading(name)) for name in names]
    from restorer.pipeline.folder import FolderRun

    weights = "-".join([*(weights_digest(one) for one in found), *(sha256_of(path)[:16] for path in beside())])
    folder_run = FolderRun(
        jobs,
        settings=settings,
        files=files,
        weights=weights,
        open_restorer=open_all,
        report=screen,
        keeper=keeper,
    )
    summary = folder_run.preview() if dry_run else folder_run.run()
    screen({"event": "summary", **vars(summary)})
    return 1 if summary.failed else 0


def check_stdout(out: str, *, as_json: bool) -> None:
    """Refuse a picture and JSON on the same standard output."""
    if out == "-" and as_json:
        raise UsageError("-o - and --json both want standard output; name a file")


def model_names(settings: UpscaleSettings) -> list[str]:
    """The models that these settings need: one, a pair, or none."""
    if settings.model == NO_MODEL:
        return []
    if settings.denoise is None:
        return [settings.model]
    from restorer.weights.records import partners

    return [record.name for record in partners(settings.model)]


def opened(planner: P, model: str, screen: Screen) -> P:
    """Say what runs, and make the process ready for large arrays."""
    machine.keep_freed_memory()
    screen({"event": "model", "model": model, "notes": list(planner.engine.notes)})
    return planner
