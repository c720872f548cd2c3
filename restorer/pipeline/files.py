"""Which files a run reads and writes: inputs walked, the tree mirrored, no two inputs sharing an output. Torch-free."""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from restorer.errors import PictureError, UsageError, WriteError
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
    """The output's path relative to OUT, its name in the journal; of a single file its last part."""

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
    notices: tuple[tuple[str, str], ...] = ()
    """(input, what should be said of it) before any work."""


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
    name = "-" if output is None else output.name
    return Jobs(jobs=(Job(source=source, output=output, name=name),), folder=None)


def _many(inputs: Sequence[str], out: str, files: FileSettings) -> Jobs:
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{out}: is a file without a picture's suffix; name a folder, or a file such as out.png")
    found, notices = _pictures_in([text for text in inputs if text != "-" and Path(text).is_dir()], folder, files)
    named = list(_named(inputs, found, files))
    _keep_apart(named, folder, files)
    jobs = [Job(source=source, output=folder / name, name=name) for source, name in _distinct(named, files)]
    taken = {os.path.realpath(job.source) for job in jobs if job.source is not None}
    for job in jobs:
        if job.output is not None and os.path.realpath(job.output) in taken:
            raise UsageError(f"{job.output}: is an input too; give --suffix or another output folder")
    return Jobs(jobs=tuple(jobs), folder=folder, notices=tuple(notices))


def _named(
    inputs: Sequence[str], found: Mapping[str, list[Path]], files: FileSettings
) -> Iterable[tuple[Path | None, str]]:
    """(input, its path under OUT as if it kept its name); `found` are the pictures of each folder."""
    for text in inputs:
        path = Path(text)
        if text == "-":
            yield None, "stdin.png"
        elif text not in found:
            yield path, path.name
        else:
            if not found[text]:
                more = "" if files.recursive else ", or search its sub-folders with --recursive"
                raise PictureError(f"{text}: holds no pictures; name another folder{more}")
            top = f"{path.resolve().name}/" if sum(each in found for each in inputs) > 1 else ""
            for source in found[text]:
                yield source, top + source.relative_to(path).as_posix()


def _pictures_in(
    folders: Sequence[str], out: Path, files: FileSettings
) -> tuple[dict[str, list[Path]], list[tuple[str, str]]]:
    """Named folders -> the pictures in each, and what should be said of it.

    What earlier runs made in OUT is passed over, and so is what any run kept beside its pictures, if it is still that.
    All journals are read before anything is passed over, those of the folders around too: in whatever order folders
    come, the same files are taken.
    """
    walked = {text: _walk(Path(text), out, recursive=files.recursive) for text in folders}
    ours, results = Journal(out), set[str]()
    results.update(os.path.realpath(out / name) for name in ours.outputs)
    places = {place for _, known in walked.values() for place in known} - {os.path.realpath(out)}
    own, others = _Beside([ours]), _Beside([Journal(Path(place)) for place in sorted(places)])
    found, notices = {}, []
    for text, (paths, _) in walked.items():
        pictures = [path for path in paths if os.path.realpath(path) not in results]
        rest = [path for path in pictures if not own.holds(path)]
        kept = [path for path in rest if not others.holds(path)]
        found[text] = kept or rest  # who names a folder that holds nothing else means what is in it
        if count := len(pictures) - len(found[text]):
            what = "1 file is" if count == 1 else f"{count} files are"
            notices.append((text, f"{what} passed over: kept beside pictures by a run; name a file to have it taken"))
    return found, notices


class _Beside:
    """The side files that journals know, by their real paths."""

    def __init__(self, journals: Sequence[Journal]) -> None:
        self._known: dict[str, list[tuple[Journal, str]]] = defaultdict(list)
        for journal in journals:
            for name in journal.beside:
                self._known[os.path.realpath(journal.path.parent / name)].append((journal, name))

    def holds(self, path: Path) -> bool:
        """Whether the file is still what was kept."""
        return any(journal.keeps(name) for journal, name in self._known.get(os.path.realpath(path), ()))


def _walk(folder: Path, out: Path, *, recursive: bool) -> tuple[list[Path], list[str]]:
    """Files with a picture's suffix that are not hidden, in name order; and where journals lie that may know them."""
    skip, here = os.path.realpath(out), Path(os.path.realpath(folder))
    found = list[Path]()
    above = (here, *here.parents)  # where some are not ours to read
    places = [str(each) for each in above if os.access(each / NAME, os.R_OK)]
    for top, folders, names in os.walk(folder, onerror=_refuse):
        inside = [Path(top) / each for each in sorted(folders)]
        places += [os.path.realpath(each) for each in inside if (each / NAME).is_file()]
        folders[:] = [
            each.name
            for each in inside
            if recursive and not each.name.startswith(".") and os.path.realpath(each) != skip
        ]
        found += [
            Path(top) / name
            for name in sorted(names)
            if not name.startswith(".") and Path(name).suffix.lower() in READABLE
        ]
    return found, places


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


def check_writable(folder: Path) -> None:
    """Refuse a folder that cannot be made, or into which nothing may be written."""
    here = Path(os.path.abspath(folder))  # noqa: PTH100 -- absolute() leaves `..` in
    while not os.path.lexists(here):
        here = here.parent
    if not here.is_dir():
        raise WriteError(f"{folder}: cannot be made, {here} is not a folder; choose another output folder")
    if not os.access(here, os.W_OK | os.X_OK):
        raise WriteError(f"{folder}: no permission to write in {here}; choose another output folder")


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, or say in one line why not."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise WriteError(f"{folder}: cannot be made ({e.strerror}); choose another output folder") from e
