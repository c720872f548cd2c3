"""Which files a run reads and writes: inputs walked, the tree mirrored, no two inputs sharing an output. Torch-free."""

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from restorer.errors import PictureError, UsageError
from restorer.pipeline.codecs.formats import FORMATS, WRITABLE, format_named
from restorer.pipeline.journal import NAME, Journal

READABLE = frozenset(
    [
        ".png",
        ".apng",
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".mpo",
        ".webp",
        ".gif",
        ".bmp",
        ".dib",
        ".tif",
        ".tiff",
        ".avif",
        ".avifs",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
    ]
)
"""Suffixes that a folder is searched for; what a file really is, its content says."""


@dataclass(frozen=True, kw_only=True)
class FileSettings:
    """Where results go and as what; none of it changes what the network sees."""

    suffix: str = ""
    """Added to every output's stem."""
    format: str | None = None
    """png, jpeg, webp, tiff or avif; None keeps the input's, and png where the input's cannot be written."""
    quality: int | None = None
    """1 to 100 for JPEG, WebP and AVIF; None is 95."""
    recursive: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.format is not None:
            format_named(self.format)
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise UsageError(f"quality must be between 1 and 100, got {self.quality}")
        if "/" in self.suffix or os.sep in self.suffix or "\0" in self.suffix:
            raise UsageError(f"suffix must not hold a path separator, got '{self.suffix}'")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One input and its output; None is standard input or output."""

    source: Path | None
    output: Path | None
    name: str
    """The output's path relative to OUT: its name in the journal."""
    beside: list[Path] = field(default_factory=list, compare=False)
    """What is kept beside the output, each file from before it is written: the one thing here that changes."""

    @property
    def label(self) -> str:
        """How messages call the input, on one printable line."""
        name = "standard input" if self.source is None else str(self.source)
        return name if name.isprintable() else repr(name)[1:-1]


@dataclass(frozen=True, kw_only=True)
class Jobs:
    """All jobs of a run; `folder` is OUT when it is a folder, with a journal in it."""

    jobs: tuple[Job, ...]
    folder: Path | None


def plan_jobs(inputs: Sequence[str], out: str, files: FileSettings) -> Jobs:
    """Inputs (files, folders, `-`) and OUT (a file, a folder, `-`) -> what is read and written.

    OUT with a picture suffix names a file and takes one input; any other OUT is a folder that mirrors the inputs' tree.
    """
    if not inputs:
        raise UsageError("no input; name a picture, a folder, or - for standard input")
    if list(inputs).count("-") > 1:
        raise UsageError("standard input can be read once only; name - once")
    try:
        if out == "-" or (_names_file(out) and not Path(out).is_dir()):
            return _single(inputs, out, files)
        return _many(inputs, out, files)
    except OSError as e:  # a name that is too long, a folder that may not be entered
        raise UsageError(f"{e.filename}: {e.strerror}; check the path and its permissions") from e


def output_format(job: Job, files: FileSettings) -> str:
    """The format a job writes: what was asked for, else what the output's suffix says; PNG on standard output."""
    if files.format is not None:
        return format_named(files.format)
    return "PNG" if job.output is None else WRITABLE[job.output.suffix.lower()]


def _names_file(out: str) -> bool:
    suffix = Path(out).suffix.lower()
    if suffix in READABLE and suffix not in WRITABLE:
        raise UsageError(f"{out}: '{suffix}' files are not written; use {', '.join(sorted(set(WRITABLE)))}")
    return suffix in WRITABLE


def _single(inputs: Sequence[str], out: str, files: FileSettings) -> Jobs:
    if len(inputs) > 1 or Path(inputs[0]).is_dir():
        raise UsageError(f"{out}: is one file, but several pictures may come; name a folder instead")
    source = None if inputs[0] == "-" else Path(inputs[0])
    output = None if out == "-" else Path(out)
    if output is not None:
        if files.format is not None and WRITABLE[output.suffix.lower()] != format_named(files.format):
            raise UsageError(f"{out}: the suffix says otherwise than --format {files.format}; give one of the two")
        output = output.with_name(f"{output.stem}{files.suffix}{output.suffix}")
        if source is not None and source.exists() and output.exists() and output.samefile(source):
            raise UsageError(f"{out}: is the input itself; inputs are never changed, name another output")
        if output.is_dir():
            raise UsageError(f"{output}: is a folder; name a file")
        if output.exists() and not files.overwrite:
            raise UsageError(f"{output}: exists; give --overwrite, or another name")
    return Jobs(jobs=(Job(source=source, output=output, name=str(output)),), folder=None)


def _many(inputs: Sequence[str], out: str, files: FileSettings) -> Jobs:
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{out}: is a file without a picture's suffix; name a folder, or a file such as out.png")
    named = list(_walk_all(inputs, folder, files))
    _keep_apart(named, folder, files)
    jobs = [Job(source=source, output=folder / name, name=name) for source, name in _distinct(named, files)]
    taken = {os.path.realpath(job.source) for job in jobs if job.source is not None}
    for job in jobs:
        if job.output is not None and os.path.realpath(job.output) in taken:
            raise UsageError(f"{job.output}: is an input too; give --suffix or another output folder")
    return Jobs(jobs=tuple(jobs), folder=folder)


def _walk_all(inputs: Sequence[str], out: Path, files: FileSettings) -> Iterable[tuple[Path | None, str]]:
    """(input, its path under OUT as if it kept its name)."""
    folders = [text for text in inputs if text != "-" and Path(text).is_dir()]
    for text in inputs:
        path = Path(text)
        if text == "-":
            yield None, "stdin.png"
        elif not path.is_dir():
            yield path, path.name
        else:
            found = list(_walk(path, out, recursive=files.recursive))
            if not found:
                more = "" if files.recursive else ", or search its sub-folders with --recursive"
                raise PictureError(f"{text}: holds no pictures; name another folder{more}")
            top = f"{path.resolve().name}/" if len(folders) > 1 else ""
            for source in found:
                yield source, top + source.relative_to(path).as_posix()


def _walk(folder: Path, out: Path, *, recursive: bool) -> Iterable[Path]:
    """Files with a picture's suffix, in name order; hidden ones and what earlier runs left in OUT are passed over."""
    skip = os.path.realpath(out)
    ours = Journal(out)
    made = {os.path.realpath(out / name) for name in ours.outputs | ours.beside}
    for top, folders, names in os.walk(folder, onerror=_refuse):
        here = Path(top)
        if NAME in names and os.path.realpath(here) != skip:  # another run's OUT: its pictures, but not their sheets
            made |= {os.path.realpath(here / name) for name in Journal(here).beside}
        folders[:] = sorted(
            f for f in folders if recursive and not f.startswith(".") and os.path.realpath(here / f) != skip
        )
        for name in sorted(names):
            readable = not name.startswith(".") and Path(name).suffix.lower() in READABLE
            if readable and os.path.realpath(here / name) not in made:
                yield here / name


def _refuse(error: OSError) -> None:
    raise error


def _keep_apart(named: list[tuple[Path | None, str]], out: Path, files: FileSettings) -> None:
    if files.suffix:
        return
    homes = {os.path.realpath(source.parent) for source, _ in named if source is not None}
    if os.path.realpath(out) in homes:
        raise UsageError(f"{out}: holds the inputs too; give --suffix, or another output folder")


def _distinct(named: list[tuple[Path | None, str]], files: FileSettings) -> Iterable[tuple[Path | None, str]]:
    """Give every input an output name of its own, also where upper and lower case are one.

    Inputs whose outputs would be one keep their own suffix in the name: a.bmp and a.gif become a.bmp.png, a.gif.png.
    """
    first = [_output_name(name, files, keep=False) for _, name in named]
    count: dict[str, int] = defaultdict(int)
    for name in first:
        count[name.casefold()] += 1
    used: set[str] = set()
    for (source, given), name in zip(named, first, strict=True):
        chosen = name if count[name.casefold()] == 1 else _output_name(given, files, keep=True)
        number, base = 2, chosen
        while chosen.casefold() in used:
            path = Path(base)
            chosen = path.with_name(f"{path.stem}~{number}{path.suffix}").as_posix()
            number += 1
        used.add(chosen.casefold())
        yield source, chosen


def _output_name(name: str, files: FileSettings, *, keep: bool) -> str:
    path = Path(name)
    if files.format is not None:
        suffix = FORMATS[format_named(files.format)].suffixes[0]
    else:
        suffix = path.suffix if path.suffix.lower() in WRITABLE else ".png"
    stem = path.name if keep else path.stem
    return path.with_name(f"{stem}{files.suffix}{suffix}").as_posix()
