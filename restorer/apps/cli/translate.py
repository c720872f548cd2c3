"""restorer translate: pictures and folders, from one kind of picture to another, at the size they have."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from restorer.apps.cli import options
from restorer.apps.cli.runs import check_stdout, opened, run
from restorer.apps.cli.screen import Screen, warnings_told
from restorer.apps.cli.words import facts_of, tile_of
from restorer.pipeline.files import FileSettings
from restorer.pipeline.settings import TranslateSettings
from restorer.weights.directions import model_for
from restorer.weights.records import check_command

if TYPE_CHECKING:
    from restorer.api import Translator


def translate(
    inputs: options.Inputs,
    *,
    out: options.Out,
    model: options.TranslationModel,
    direction: options.Direction = "a2b",
    pair: options.Pair = False,
    palette: options.Palette = "",
    noise: options.Noise = None,
    max_megapixels_in: options.MaxMegapixelsIn = 100.0,
    tile: options.BandOrTile = "auto",
    precision: options.Precision = "auto",
    engine: options.EngineKind = "auto",
    device: options.Device = "auto",
    fact: options.Fact = None,
    strength: options.TranslationStrength = 1.0,
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
    """Translate pictures of one kind into another with pix2pix, CycleGAN and the like; any size, and it stays."""
    settings = TranslateSettings(
        model=model, direction=direction, pair=pair, palette=palette, noise=noise,
        max_megapixels_in=max_megapixels_in, tile=tile_of(tile), precision=precision, engine=engine, device=device,
        strength=strength, keep_colour=keep_colour, facts=facts_of(fact),
    )  # fmt: skip
    files = FileSettings(suffix=suffix, format=format, quality=quality, recursive=recursive, overwrite=overwrite)
    check_stdout(out, as_json=json)
    check_command(model, "translate")
    if palette:
        from restorer.pipeline.labels import read_palette

        read_palette(palette)  # what is wrong with it is told before anything is loaded
    with Screen(as_json=json, quiet=quiet, plans=dry_run) as screen, warnings_told(screen.say):
        name = model_for(model, direction, pair=pair)
        if name != model:  # what is told, and what the journal knows, is what runs
            settings = replace(settings, model=name, direction="a2b")

        def open_translator() -> "Translator":
            from restorer.api import Translator

            return opened(Translator.open(settings=settings), name, screen)

        return run(
            inputs,
            out,
            settings,
            files,
            screen,
            names=[name],
            open_all=open_translator,
            dry_run=dry_run,
            beside=lambda: [Path(palette)] if palette else [],
        )
