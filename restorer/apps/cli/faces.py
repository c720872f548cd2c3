"""restorer faces: faces in pictures and folders, restored and put back; the rest enlarged."""

from pathlib import Path
from typing import TYPE_CHECKING

from restorer.apps.cli import options
from restorer.apps.cli.runs import check_stdout, model_names, opened, run
from restorer.apps.cli.screen import Screen, warnings_told
from restorer.apps.cli.words import facts_of, strengths_of, tile_of
from restorer.errors import DownloadError, UsageError, WeightsError
from restorer.pipeline.faces.beside import FaceKeeper
from restorer.pipeline.files import FileSettings
from restorer.pipeline.settings import FaceSettings, UpscaleSettings
from restorer.weights.records import check_command

if TYPE_CHECKING:
    from restorer.api import Faces

STAND_IN = "realesrgan-x4plus"


def faces(
    inputs: options.Inputs,
    *,
    out: options.Out,
    model: options.Model = "gfpgan-1.4",
    background: options.Background = "realesrgan-x4plus",
    only: options.Only = "all",
    min_face: options.MinFace = 16.0,
    max_face: options.MaxFace = None,
    confidence: options.Confidence = None,
    detector: options.DetectorName = "auto",
    parser: options.Parser = "auto",
    identity: options.Identity = "",
    strength: options.FacesStrength = 1.0,
    face_strength: options.FaceStrength = None,
    own_colours: options.OwnColours = False,
    aligned: options.Aligned = False,
    save_crops: options.SaveCrops = "",
    compare: options.Compare = False,
    sidecar: options.Sidecar = False,
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
    denoise: options.Denoise = None,
    keep_colour: options.KeepColour = False,
    suffix: options.Suffix = "",
    format: options.Format = None,
    quality: options.Quality = None,
    recursive: options.Recursive = False,
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Find faces, restore them, and put them back into the enlarged picture: twice as large, where no size is given."""
    scale = _scale_of(scale, (width, height, long_side, megapixels), aligned=aligned)
    rest = UpscaleSettings(
        model=background, scale=scale, width=width, height=height, long_side=long_side,
        megapixels=megapixels, max_megapixels_in=max_megapixels_in, max_megapixels_out=max_megapixels_out,
        tile=tile_of(tile), precision=precision, engine=engine, device=device, denoise=denoise, keep_colour=keep_colour,
    )  # fmt: skip
    settings = FaceSettings(
        model=model, background=rest, detector=detector, parser=parser, identity=identity, only=only,
        min_face=min_face, max_face=max_face, confidence=confidence, strength=strength,
        strengths=strengths_of(face_strength), match_colour=not own_colours, aligned=aligned, facts=facts_of(fact),
    )  # fmt: skip
    check_stdout(out, as_json=json)
    keeper = _keeper(out, save_crops, compare=compare, sidecar=sidecar)
    files = FileSettings(suffix=suffix, format=format, quality=quality, recursive=recursive, overwrite=overwrite)
    with Screen(as_json=json, quiet=quiet, plans=dry_run) as screen, warnings_told(screen.say):
        return run_faces(inputs, out, settings, files, screen, dry_run=dry_run, keeper=keeper)


def run_faces(
    inputs: list[str],
    out: str,
    settings: FaceSettings,
    files: FileSettings,
    screen: Screen,
    *,
    dry_run: bool,
    keeper: FaceKeeper | None = None,
) -> int:
    """As `run`, for faces; says what would do where the face model's weights are not to be had."""
    from restorer.pipeline.faces.at_hand import files_beside, with_parser

    check_command(settings.model, "faces")
    if not settings.aligned:
        check_command(settings.background.model, "upscale")
    settings = with_parser(settings)

    def open_faces() -> "Faces":
        from restorer.api import Faces

        return opened(Faces.open(settings=settings), settings.model, screen)

    def beside() -> list[Path]:
        return files_beside(settings, download=not dry_run)

    names = [settings.model, *([] if settings.aligned else model_names(settings.background))]
    try:
        return run(
            inputs, out, settings, files, screen,
            names=names, open_all=open_faces, dry_run=dry_run, keeper=keeper, beside=beside,
        )  # fmt: skip
    except (WeightsError, DownloadError) as e:
        if settings.model == STAND_IN or settings.model not in str(e):
            raise
        raise type(e)(f"{e}; or take --model {STAND_IN}, which sharpens faces but invents no features") from e


def _scale_of(scale: float | None, others: tuple[float | None, ...], *, aligned: bool) -> float | None:
    """Twice as large, where no size is given; a face that is cut already is given none."""
    sized = any(each is not None for each in (scale, *others))
    if aligned and sized:
        raise UsageError("--aligned gives faces of the network's own size; leave out the options of output size")
    return scale if sized else 2.0


def _keeper(out: str, crops: str, *, compare: bool, sidecar: bool) -> FaceKeeper | None:
    """What is written beside each picture."""
    if out == "-" and (compare or sidecar):
        raise UsageError("--compare and --sidecar write beside the output; name a file or a folder")
    if not (crops or compare or sidecar):
        return None
    return FaceKeeper(crops=crops, compare=compare, sidecar=sidecar)
