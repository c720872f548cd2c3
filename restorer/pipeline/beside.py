"""What a run keeps beside its pictures: named after them, never over a file of others, and only when all is whole."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from restorer.errors import UsageError, WriteError
from restorer.pipeline.codecs.atomic import HiddenFolder
from restorer.pipeline.files import Job, Jobs, make_folder
from restorer.pipeline.journal import Entry, Journal, stamp
from restorer.pipeline.work import Work


class Keeper(Protocol):
    """What is written beside each picture of a run. All but `keep` is asked before torch is loaded."""

    @property
    def name(self) -> str:
        """What is kept, for the journal: a picture that was made without it is not done."""

    def folders(self, job: Job) -> list[Path]:
        """Where a picture's side files lie."""

    def paths(self, job: Job, work: Work | None = None) -> list[Path]:
        """Every file that may be written; without the work, those whose names do not depend on it."""

    def keep(self, job: Job, work: Work, aside: "Aside") -> None:
        """Hand over the files of a picture whose work was run."""


@dataclass(frozen=True, kw_only=True)
class SideFile:
    """A file that is whole, and about to get its name."""

    path: Path
    sha256: str
    stamp: tuple[int, int]


class Aside:
    """The side files of one picture. They wait under hidden names until the picture has its own.

    So the journal can name them all before any of them is there, and who is killed meanwhile leaves hidden ones only.
    """

    def __init__(self) -> None:
        self.files: list[SideFile] = []
        self._hidden: dict[Path, HiddenFolder] = {}

    def add(self, path: Path, data: bytes) -> None:
        """Bring to the disk what is to become the file at `path`. WriteError: there is no room or no folder for it."""
        folder = path.parent
        if folder not in self._hidden:
            make_folder(folder)
            self._hidden[folder] = HiddenFolder(folder)
        self._hidden[folder].write(path.name, data)
        stamped = stamp(self._hidden[folder].path / path.name)
        self.files.append(SideFile(path=path, sha256=hashlib.sha256(data).hexdigest(), stamp=stamped))

    def end(self, whole: bool) -> None:
        """Give all files their names, if the picture is whole and has its own; otherwise leave nothing behind."""
        waiting, self._hidden = list(self._hidden.values()), {}
        try:
            for hidden in waiting:
                if whole:
                    hidden.hand_over()
        finally:
            for hidden in waiting:
                hidden.remove()


def entries_of(entry: Entry, aside: Aside, journal: Journal) -> list[Entry]:
    """A picture's line -> the lines of its side files, and then its own with their names in it."""
    names = [journal.named(each.path) for each in aside.files]
    lines = [
        replace(entry, output=name, settings="", output_sha256=each.sha256, output_stamp=each.stamp)
        for name, each in zip(names, aside.files, strict=True)
    ]
    return [*lines, replace(entry, beside=tuple(names))]


def taken_by(jobs: Jobs) -> dict[str, str]:
    """Real path -> what a run reads or writes there, in words."""
    taken = {os.path.realpath(job.output): f"the result of {job.label}" for job in jobs.jobs if job.output is not None}
    return taken | {os.path.realpath(job.source): "an input" for job in jobs.jobs if job.source is not None}


def check_names(jobs: Jobs, keeper: Keeper, *, overwrite: bool) -> None:
    """Refuse before any work side files that would be another's input or result, or are there already.

    In a folder the journal says whose they are, which is asked picture by picture.
    """
    taken = taken_by(jobs)
    for job in jobs.jobs:
        for path in keeper.paths(job):
            if found := _met(path, taken):
                raise UsageError(found)
            if jobs.folder is None and not overwrite and os.path.lexists(path):
                raise UsageError(f"{path}: exists; give --overwrite, or another name for the output")


def check_free(path: Path, *, taken: Mapping[str, str], journal: Journal | None, overwrite: bool) -> None:
    """Refuse a side file whose name is taken in this run, or by a file that no run of ours made."""
    if found := _met(path, taken):
        raise WriteError(found)
    if not overwrite and os.path.lexists(path) and not (journal is not None and journal.keeps(journal.named(path))):
        raise WriteError(f"{path}: exists, and is not as an earlier run made it; give --overwrite or another folder")


def _met(path: Path, taken: Mapping[str, str]) -> str:
    what = taken.get(os.path.realpath(path), "")
    return f"{path}: would be kept beside a picture, and is {what}; give --suffix or another folder" if what else ""
