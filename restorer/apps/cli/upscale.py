"""restorer upscale: pictures and folders, larger, and faces restored in the same pass."""

from typing import TYPE_CHECKING

from restorer.apps.cli import options
from restorer.apps.cli.faces import run_faces
from restorer.apps.cli.runs import check_stdout, model_names, opened, run
from restorer.apps.cli.screen import Screen, warnings_told
from restorer.apps.cli.words import facts_of, tile_of
from restorer.errors import UsageError
from restorer.pipeline.files import FileSettings
from restorer.pipeline.settings import FaceSettings, UpscaleSettings
from restorer.weights.records import check_command

if TYPE_CHECKING:
    from restorer.api import Restorer


def upscale(
    inputs: options.Inputs,
    *,
    out: options.Out,
    model: options.Model = "realesrgan-x4plus",
    faces: options.FaceModel = "",
    scale: options.Scale = None,
    width: options.Width = None,
    height: options.Height = None,
    long_side: options.LongSide = None,
    megapixels: options.Megapixels = None,
    max_megapixels_in: options.MaxMegapixelsIn = 100.0,
    max_megapixels_out: options.MaxMegapixelsOut = 1000.0,
    tile: options.TileSide = "auto",
    precision: options.Precision = "auto",
    engine: options.EngineKind = "auto",
    device: options.Device = "auto",
    fact: options.Fact = None,
    strength: options.Strength = 1.0,
    denoise: options.Denoise = None,
    keep_colour: options.KeepColour = False,
    wrap: options.Wrap = False,
    suffix: options.Suffix = "",
    format: options.Format = None,
    quality: options.Quality = None,
    recursive: options.Recursive = False,
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Upscale pictures and folders of pictures; depth, alpha, colour profile and metadata are kept."""
    settings = UpscaleSettings(
        model=model, scale=scale, width=width, height=height, long_side=long_side, megapixels=megapixels,
        max_megapixels_in=max_megapixels_in, max_megapixels_out=max_megapixels_out, tile=tile_of(tile),
        precision=precision, engine=engine, device=device, strength=strength, denoise=denoise,
        keep_colour=keep_colour, wrap=wrap, facts=facts_of(fact),
    )  # fmt: skip
    files = FileSettings(suffix=suffix, format=format, quality=quality, recursive=recursive, overwrite=overwrite)
    check_stdout(out, as_json=json)
    with Screen(as_json=json, quiet=quiet, plans=dry_run) as screen, warnings_told(screen.say):
        if faces and wrap:
            raise UsageError("--faces and --wrap do not go together: a face would not go on at the opposite border")
        if faces:
            both = FaceSettings(model=faces, background=settings, strength=strength)
            return run_faces(inputs, out, both, files, screen, dry_run=dry_run)

        def open_restorer() -> "Restorer":
            from restorer.api import Restorer

            return opened(Restorer.open(settings=settings), settings.model, screen)

        check_command(model, "upscale")
        names = model_names(settings)
        return run(inputs, out, settings, files, screen, names=names, open_all=open_restorer, dry_run=dry_run)
