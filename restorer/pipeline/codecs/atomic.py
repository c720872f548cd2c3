"""Files that appear under their name only when whole: a hidden temporary file, fsync, rename.

A temporary file is locked while its writer lives, so that the next run can tell a dead one from a live one. Files that
get their names together wait in a hidden folder instead, where one lock holds for all of them.
"""

import errno
import os
import re
import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol, Self

from restorer.errors import WriteError
from restorer.pipeline.codecs.intake import shown

try:
    import fcntl
except ImportError:  # Windows: there an open file cannot be removed, which does as well
    fcntl = None  # type: ignore[assignment]

TEMPORARY = re.compile(r"\.(?s:.+)\.[0-9]+-[0-9a-f]{8}\.part")
LOCK = ".lock"
"""In a hidden folder, the file that its writer holds."""
LONGEST_NAME = 255
SPOOLED = 64 << 20
BLOCK = 1 << 20
REASONS = {
    errno.ENOSPC: "the disk is full; free some space",
    errno.EDQUOT: "the disk quota is used up; free some space",
    errno.EFBIG: "the file would be larger than this system allows; choose a smaller size",
    errno.EACCES: "no permission to write there; choose another folder",
    errno.EPERM: "no permission to write there; choose another folder",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.ENOENT: "the folder does not exist; create it first",
    errno.ENOTDIR: "a part of the path is a file, not a folder; choose another folder",
    errno.EISDIR: "is a folder; name a file in it",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.EPIPE: "the reader has gone away; keep it running until the picture is written",
}


class Output(Protocol):
    """Where an encoder's bytes go; nobody sees them before `commit`."""

    name: str

    def write(self, data: bytes | memoryview) -> None:
        """Append at the current place."""

    def seek(self, offset: int) -> None:
        """Go back to a place that has been written, or to the end."""

    def commit(self) -> None:
        """Make what was written visible."""

    def abort(self) -> None:
        """Leave nothing behind; harmless after `commit`."""


class AtomicFile:
    """An output that becomes the file at `path` on `commit`; as a context manager, when the block ends well."""

    def __init__(self, path: str | Path, *, before_rename: Callable[[Path], None] | None = None) -> None:
        """`before_rename` is given the whole file, on the disk, before it gets its name."""
        self.name = shown(str(path))
        self._before_rename = before_rename
        self._path = _resolved(Path(path), self.name)
        with writing(self.name):
            self._temporary, self._file = _create(self._path)
        self._open = True

    def write(self, data: bytes | memoryview) -> None:
        """Append at the current place."""
        view = memoryview(data).cast("B")
        with writing(self.name):
            while view:
                view = view[os.write(self._file, view) :]

    def seek(self, offset: int) -> None:
        """Go to a place that has been written."""
        with writing(self.name):
            os.lseek(self._file, offset, os.SEEK_SET)

    def commit(self) -> None:
        """Bring the bytes to the disk, then give the file its name."""
        try:
            with writing(self.name):
                os.fsync(self._file)
                if self._before_rename is not None:
                    self._before_rename(self._temporary)
                self._temporary.replace(self._path)
        except BaseException:
            self.abort()
            raise
        self._close()
        _sync_folder(self._path.parent)

    def abort(self) -> None:
        """Remove the temporary file; harmless after `commit`."""
        if self._open:
            self._close()
            with suppress(OSError):  # already gone, or the disk has died: nothing more to do
                self._temporary.unlink()

    def _close(self) -> None:
        self._open = False
        with suppress(OSError):  # after fsync a failing close has nothing left to lose
            os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.commit()
        else:
            self.abort()


class HiddenFolder:
    """Whole files that wait, inside the folder that they are for, until all of them get their names."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with writing(shown(str(folder))):
            self.path, self._file = _create_folder(folder)
        self._open = True

    def write(self, name: str, data: bytes) -> None:
        """Bring one file to the disk; errors call it as it will be called."""
        with writing(shown(str(self.folder / name))), (self.path / name).open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def hand_over(self) -> None:
        """Give every file its name, over what had it before, and leave nothing else behind."""
        try:
            with writing(shown(str(self.folder))):
                waiting = sorted(path for path in self.path.iterdir() if path.name != LOCK)
            for path in waiting:
                with writing(shown(str(self.folder / path.name))):
                    path.replace(self.folder / path.name)
            _sync_folder(self.folder)
        finally:
            self.remove()

    def remove(self) -> None:
        """Leave nothing behind; harmless after `hand_over`."""
        if self._open:
            self._open = False
            with suppress(OSError):  # the disk has died: nothing more to do
                os.close(self._file)
            _remove_folder(self.path)


class StreamOutput:
    """An output that reaches an open stream (standard output, a pipe) on `commit`, in one go."""

    def __init__(self, stream: BinaryIO, *, name: str = "output") -> None:
        self.name = name
        self._stream = stream
        with writing(name):
            self._spool = tempfile.SpooledTemporaryFile(max_size=SPOOLED)  # noqa: SIM115  closed by commit or abort

    def write(self, data: bytes | memoryview) -> None:
        """Append at the current place."""
        with writing(self.name):
            self._spool.write(data)

    def seek(self, offset: int) -> None:
        """Go to a place that has been written."""
        with writing(self.name):
            self._spool.seek(offset)

    def commit(self) -> None:
        """Hand everything to the stream."""
        try:
            with writing(self.name):
                self._spool.seek(0)
                while block := self._spool.read(BLOCK):
                    self._stream.write(block)
                self._stream.flush()
        finally:
            self.abort()

    def abort(self) -> None:
        """Forget what was written; harmless after `commit`."""
        self._spool.close()


@contextmanager
def writing(name: str) -> Iterator[None]:
    """Turn an error of the system into one line that names the output, the reason and the cure.

    The cause stays attached (`error.__cause__.errno`), so that a caller can tell a full disk from a wrong name.
    """
    try:
        yield
    except OSError as error:
        code = error.errno or 0
        reason = REASONS.get(code, f"{error.strerror or error}; check the disk and the path")
        raise WriteError(f"{name}: cannot be written: {reason}") from error
    except ValueError as error:  # a NUL in the path, a closed stream
        raise WriteError(f"{name}: cannot be written: {error}; choose another output") from error


def sweep(folder: Path) -> int:
    """Remove the temporary files, and hidden folders, of writers that have died in `folder`; say how many."""
    swept = 0
    with suppress(OSError):
        for entry in list(os.scandir(folder)):
            if TEMPORARY.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                swept += _remove_if_dead(Path(entry.path))
            elif TEMPORARY.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                swept += _remove_folder_if_dead(Path(entry.path))
    return swept


def _resolved(path: Path, name: str) -> Path:
    """The file that will be replaced; a link keeps pointing at it, and only regular files are replaced."""
    with writing(name):
        path = Path(os.path.realpath(path)) if path.is_symlink() else path
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "is a folder")
        if path.exists() and not path.is_file():
            raise WriteError(f"{name}: cannot be written: not a regular file; name a file, or '-' for standard output")
    return path


def _create(path: Path) -> tuple[Path, int]:
    """Make and lock a new hidden file beside `path`."""
    while True:
        ending = f".{os.getpid()}-{secrets.token_hex(4)}.part"
        stem = os.fsencode(path.name)[: LONGEST_NAME - 1 - len(ending)]
        temporary = path.with_name("." + os.fsdecode(stem) + ending)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        file = os.open(temporary, flags, 0o666)
        _lock(file)
        if os.fstat(file).st_nlink:
            return temporary, file
        os.close(file)  # swept between its birth and its lock


def _create_folder(folder: Path) -> tuple[Path, int]:
    """Make a new hidden folder in `folder`, and the locked file in it."""
    while True:
        path = folder / f".beside.{os.getpid()}-{secrets.token_hex(4)}.part"
        path.mkdir()
        try:
            file = os.open(path / LOCK, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o666)
        except FileNotFoundError:
            continue  # swept between its birth and its lock
        _lock(file)
        if os.fstat(file).st_nlink:
            return path, file
        os.close(file)


def _remove_folder(path: Path) -> None:
    """The lock last: without it, what is left would never be known for a dead writer's."""
    with suppress(OSError):  # gone meanwhile, or not ours to remove
        for inside in path.iterdir():
            if inside.name != LOCK:
                inside.unlink()
        (path / LOCK).unlink(missing_ok=True)
        path.rmdir()


def _remove_folder_if_dead(path: Path) -> bool:
    with suppress(OSError):  # gone meanwhile, or not ours to remove
        if not (path / LOCK).exists():
            path.rmdir()  # its writer died before the lock; one that is just being born makes another
            return True
        file = os.open(path / LOCK, os.O_WRONLY)
        try:
            if _lock(file):
                _remove_folder(path)
                return True
        finally:
            os.close(file)
    return False


def _lock(file: int) -> bool:
    """Lock, without waiting; False where another holds it, or where the file system has no locks."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _remove_if_dead(path: Path) -> bool:
    with suppress(OSError):  # gone meanwhile, or not ours to remove
        file = os.open(path, os.O_WRONLY)
        try:
            if _lock(file):
                path.unlink()
                return True
        finally:
            os.close(file)
    return False


def _sync_folder(folder: Path) -> None:
    """Bring the new name to the disk too; some systems cannot, and the file is whole all the same."""
    with suppress(OSError):
        file = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)
