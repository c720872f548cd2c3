"""Which weights a run over faces takes beside the face model's: known before anything is opened, for the journal."""

from dataclasses import replace
from pathlib import Path

from restorer.errors import WeightsError
from restorer.pipeline.detectors import AUTO, detector_files
from restorer.pipeline.settings import NO_MODEL, FaceSettings
from restorer.weights.find import find_weights

PARSERS = ("parsing-bisenet", "parsing-parsenet")
"""What `auto` looks for, without a download: both are facexlib's, and the first takes a twentieth of the time."""


def with_parser(settings: FaceSettings) -> FaceSettings:
    """Decide on `auto`, once a run, since files are hashed for it: the first whose weights are here, else none."""
    if settings.parser != AUTO:
        return settings
    for name in PARSERS:
        try:
            find_weights(name, download=False)
        except WeightsError:
            continue
        return replace(settings, parser=name)
    return replace(settings, parser=NO_MODEL)


def files_beside(settings: FaceSettings, *, download: bool) -> list[Path]:
    """The files of detector, parser and identity; named ones are fetched where they are nowhere, if `download`.

    The parser of `settings` is decided.
    """
    files = [] if settings.aligned else list(detector_files(settings.detector, download=download))
    named = [name for name in (settings.parser, settings.identity) if name not in ("", NO_MODEL)]
    return files + [find_weights(name, download=download).path for name in named]
