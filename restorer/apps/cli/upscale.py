"""restorer upscale: pictures and folders, larger."""

from typing import TYPE_CHECKING, Annotated

import typer

from restorer import machine
from restorer.apps.cli.screen import Screen, warnings_told
from restorer.apps.cli.words import facts_of
from restorer.errors import UsageError
from restorer.pipeline.files import FileSettings, plan_jobs
from restorer.pipeline.settings import ENGINE_KINDS, PRECISIONS, UpscaleSettings

if TYPE_CHECKING:
    from restorer.api import Restorer

SIZE, RUN, LOOK, FILES, SAY = "Output size", "How it runs", "Look", "Files", "What is said"


def upscale(
    inputs: Annotated[list[str], typer.Argument(help="Pictures, folders, or - for standard input.")],
    *,
    out: Annotated[str, typer.Option("--out", "-o", help="A file with a picture's suffix, a folder, or -.")],
    model: Annotated[
        str, typer.Option(help="A name of `restorer models list`, or a weights file.")
    ] = "realesrgan-x4plus",
    scale: Annotated[float | None, typer.Option(help="Output side over input side.", rich_help_panel=SIZE)] = None,
    width: Annotated[int | None, typer.Option(help="Output width in pixels.", rich_help_panel=SIZE)] = None,
    height: Annotated[int | None, typer.Option(help="Output height in pixels.", rich_help_panel=SIZE)] = None,
    long_side: Annotated[int | None, typer.Option(help="The longer output side.", rich_help_panel=SIZE)] = None,
    megapixels: Annotated[float | None, typer.Option(help="Output area.", rich_help_panel=SIZE)] = None,
    max_megapixels_in: Annotated[float, typer.Option(help="Larger inputs are refused.", rich_help_panel=SIZE)] = 100.0,
    max_megapixels_out: Annotated[float, typer.Option(help="Larger outputs too.", rich_help_panel=SIZE)] = 1000.0,
    tile: Annotated[str, typer.Option(help="auto, 0 (whole picture) or a side.", rich_help_panel=RUN)] = "auto",
    precision: Annotated[str, typer.Option(help=f"{', '.join(PRECISIONS)}.", rich_help_panel=RUN)] = "auto",
    engine: Annotated[str, typer.Option(help=f"{', '.join(ENGINE_KINDS)}.", rich_help_panel=RUN)] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N, mps ...", rich_help_panel=RUN)] = "auto",
    fact: Annotated[
        list[str] | None, typer.Option(help="key=value the weights do not say.", rich_help_panel=RUN)
    ] = None,
    strength: Annotated[float, typer.Option(help="1 all network, 0 plain resample.", rich_help_panel=LOOK)] = 1.0,
    denoise: Annotated[float | None, typer.Option(help="0 keeps noise, 1 removes it.", rich_help_panel=LOOK)] = None,
    keep_colour: Annotated[
        bool, typer.Option("--keep-colour", help="Hold the input's colours.", rich_help_panel=LOOK)
    ] = False,
    wrap: Annotated[
        bool, typer.Option("--wrap", help="Seamless texture: borders touch.", rich_help_panel=LOOK)
    ] = False,
    suffix: Annotated[str, typer.Option(help="Added to every output's stem.", rich_help_panel=FILES)] = "",
    format: Annotated[str | None, typer.Option(help="png, jpeg, webp, tiff or avif.", rich_help_panel=FILES)] = None,
    quality: Annotated[int | None, typer.Option(help="1-100 for JPEG, WebP, AVIF.", rich_help_panel=FILES)] = None,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Sub-folders too.", rich_help_panel=FILES)
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Make everything anew.", rich_help_panel=FILES)
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done.", rich_help_panel=SAY)] = False,
    json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line on stdout.", rich_help_panel=SAY)
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.", rich_help_panel=SAY)] = False,
) -> int:
    """Upscale pictures and folders of pictures; depth, alpha, colour profile and metadata are kept."""
    settings = UpscaleSettings(
        model=model, scale=scale, width=width, height=height, long_side=long_side, megapixels=megapixels,
        max_megapixels_in=max_megapixels_in, max_megapixels_out=max_megapixels_out, tile=_tile(tile),
        precision=precision, engine=engine, device=device, strength=strength, denoise=denoise,
        keep_colour=keep_colour, wrap=wrap, facts=facts_of(fact or []),
    )  # fmt: skip
    files = FileSettings(suffix=suffix, format=format, quality=quality, recursive=recursive, overwrite=overwrite)
    if out == "-" and json:
        raise UsageError("-o - and --json both want standard output; name a file")
    with Screen(as_json=json, quiet=quiet, plans=dry_run) as screen, warnings_told(screen.say):
        return run(inputs, out, settings, files, screen, dry_run=dry_run)


def run(
    inputs: list[str], out: str, settings: UpscaleSettings, files: FileSettings, screen: Screen, *, dry_run: bool
) -> int:
    """Plan, find the weights, read, and only then load torch; returns the exit status."""
    from restorer.weights.find import find_weights, weights_digest
    from restorer.weights.records import partners

    jobs = plan_jobs(inputs, out, files)
    names = [settings.model] if settings.denoise is None else [record.name for record in partners(settings.model)]
    found = [find_weights(name, download=not dry_run, progress=screen.downloading(name)) for name in names]
    from restorer.pipeline.folder import FolderRun

    def open_restorer() -> "Restorer":
        from restorer.api import Restorer

        machine.keep_freed_memory()
        opened = Restorer.open(settings=settings)
        screen({"event": "model", "model": settings.model, "notes": list(opened.engine.notes)})
        return opened

    weights = "-".join(weights_digest(one) for one in found)
    folder_run = FolderRun(
        jobs, settings=settings, files=files, weights=weights, open_restorer=open_restorer, report=screen
    )
    summary = folder_run.preview() if dry_run else folder_run.run()
    screen({"event": "summary", **vars(summary)})
    return 1 if summary.failed else 0


def _tile(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal():
        raise UsageError(f"tile takes auto, 0 or a number of pixels, got '{text}'")
    return int(text)
