"""What a folder run has done, one JSON object a line: so that the next run does only what is missing. Torch-free.

A picture's line names the files that were kept beside it; each of these has a line of its own before that one, as if it
were a picture, but with no settings. Journals that are older have no such lines, and name side files alone.
"""

import hashlib
import json
import logging
import os
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from restorer.errors import WriteError

log = logging.getLogger(__name__)
NAME = "restorer-journal.jsonl"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One input and what came of it."""

    input: str
    """Path as the run was given it."""
    output: str
    """Path relative to OUT."""
    input_sha256: str
    input_stamp: tuple[int, int]
    """(bytes, modification time in ns) when it was read: equal stamps spare the hash."""
    settings: str
    """Hash of the settings; "" of a side file, which is no result."""
    weights: str
    """Hash of the weights."""
    engine: str = ""
    """What ran it: `auto` may choose otherwise another day, and equal settings may then differ in the last bits."""
    precision: str = ""
    output_sha256: str = ""
    output_stamp: tuple[int, int] = (0, 0)
    """As `input_stamp`, of the file that is about to get its name."""
    beside: tuple[str, ...] = ()
    """What else was written, such as a sheet of faces: relative to OUT, or whole paths of files elsewhere."""
    seconds: float = 0.0
    state: Literal["done", "failed"] = "done"
    reason: str = ""

    @property
    def is_beside(self) -> bool:
        """This is the line of a side file."""
        return not self.settings


class Journal:
    """The entries of OUT, the last of each output winning. A line is on the disk before its picture gets its name."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._lock = threading.Lock()
        self._entries: dict[str, list[Entry]] = {}
        self._outputs, self._beside = set[str](), set[str]()
        self._learn(_read(self.path))

    @property
    def outputs(self) -> frozenset[str]:
        """Names of all outputs that a run has made, or tried to; without side files."""
        return frozenset(self._outputs)

    @property
    def beside(self) -> frozenset[str]:
        """Names of all files that were written beside outputs, or were about to be."""
        return frozenset(self._beside)

    def named(self, path: Path) -> str:
        """How a file is called here: relative to OUT, whole where it lies elsewhere."""
        whole, here = (Path(os.path.abspath(each)) for each in (path, self.path.parent))  # noqa: PTH100 -- resolves ..
        return whole.relative_to(here).as_posix() if whole.is_relative_to(here) else str(whole)

    def add(self, *entries: Entry) -> None:
        """Append lines and wait for the disk."""
        lines = "".join(json.dumps(asdict(entry), ensure_ascii=True) + "\n" for entry in entries)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._lock, self.path.open("a+b") as file:
                file.seek(0, os.SEEK_END)
                torn = file.tell() > 0 and not _ends_with_newline(file)
                file.write((b"\n" if torn else b"") + lines.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as e:
            raise WriteError(
                f"{self.path}: cannot be written ({e.strerror}); make room or choose another folder"
            ) from e
        self._learn(entries)

    def made(self, *, output: Path, name: str) -> bool:
        """Whether the file at `output` is one that a run has made, with whatever settings."""
        entries = [entry for entry in self._entries.get(name, ()) if entry.state == "done" and not entry.is_beside]
        try:
            return any(_same(output, entry.output_stamp, entry.output_sha256) for entry in entries)
        except OSError:
            return False

    def keeps(self, name: str) -> bool:
        """Whether the file called `name` is as any line of its own says; where it has none, whether it is there."""
        path, told = self.path.parent / name, [entry for entry in self._entries.get(name, ()) if entry.is_beside]
        try:
            if told:
                return any(_same(path, entry.output_stamp, entry.output_sha256) for entry in told)
            return name in self._beside and path.exists()
        except OSError:
            return False

    def done(self, *, source: Path, output: Path, name: str, settings: str, weights: str) -> bool:
        """Whether `output` and all beside it are whole and came from this input, these settings and these weights."""
        if name not in self._entries:
            return False
        entry = self._entries[name][-1]
        if entry.state != "done" or (entry.settings, entry.weights) != (settings, weights):
            return False
        try:
            return (
                _same(output, entry.output_stamp, entry.output_sha256)
                and _same(source, entry.input_stamp, entry.input_sha256)
                and all(self.keeps(each) for each in entry.beside)
            )
        except OSError:
            return False

    def _learn(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            self._entries.setdefault(entry.output, []).append(entry)
            (self._beside if entry.is_beside else self._outputs).add(entry.output)
            self._beside.update(entry.beside)


def stamp(path: Path) -> tuple[int, int]:
    """(bytes, modification time in ns) of a file."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def sha256(path: Path) -> str:
    """Hash a file without reading it whole."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _same(path: Path, stamped: tuple[int, int], digest: str) -> bool:
    return stamp(path) == stamped or (path.stat().st_size == stamped[0] and sha256(path) == digest)


def _ends_with_newline(file: BinaryIO) -> bool:
    file.seek(-1, os.SEEK_END)
    return bool(file.read(1) == b"\n")


def _read(path: Path) -> list[Entry]:
    """Every line that is whole; a torn or foreign one is passed over."""
    try:
        lines = [line for line in path.read_bytes().split(b"\n") if line.strip()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as e:
        raise WriteError(f"{path}: cannot be read ({e.strerror}); move it away or choose another folder") from e
    entries = [entry for line in lines if (entry := _entry(line))]
    if len(entries) < len(lines):
        log.warning("%s: %d lines that are not whole are passed over", path, len(lines) - len(entries))
    return entries


def _entry(line: bytes) -> Entry | None:
    try:
        fields = json.loads(line)
        stamps = {key: _pair(fields[key]) for key in ("input_stamp", "output_stamp")}
        entry = Entry(**{**fields, **stamps, "beside": tuple(fields.get("beside", ()))})
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return entry if all(isinstance(name, str) for name in (entry.output, *entry.beside)) else None


def _pair(value: list[int]) -> tuple[int, int]:
    size, time = value
    return size, time
