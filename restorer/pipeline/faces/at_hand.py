"""Which weights a run over faces takes beside the face model's: known before anything is opened, for the journal."""

from pathlib import Path

from restorer.errors import WeightsError
from restorer.pipeline.detectors import AUTO, detector_files
from restorer.pipeline.settings import NO_MODEL, FaceSettings
from restorer.weights.find import find_weights

PARSERS = ("parsing-parsenet", "parsing-bisenet")
"""What `auto` looks for, without a download, the better first."""


def parser_of(settings: FaceSettings) -> str:
    """The parser that is asked for; of `auto` the first whose weights are here, else none."""
    if settings.parser != AUTO:
        return settings.parser
    for name in PARSERS:
        try:
            find_weights(name, download=False)
        except WeightsError:
            continue
        return name
    return NO_MODEL


def files_beside(settings: FaceSettings, *, download: bool) -> list[Path]:
    """The files of detector, parser and identity; named ones are fetched where they are nowhere, if `download`."""
    files = [] if settings.aligned else list(detector_files(settings.detector, download=download))
    named = [name for name in (parser_of(settings), settings.identity) if name not in ("", NO_MODEL)]
    return files + [find_weights(name, download=download).path for name in named]
