"""A file that appears under its name whole, or not at all."""

import contextlib
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from restorer.errors import WriteError


def write_whole(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """Write a hidden file in the same folder, make it durable, then give it its name."""
    hidden = path.with_name(f".restorer-{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        with hidden.open("xb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        hidden.replace(path)
    except OSError as error:
        raise WriteError(
            f"cannot write {path}: {error.strerror}; choose a folder with room and the right to write"
        ) from None
    finally:
        with contextlib.suppress(OSError):
            hidden.unlink()
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make the new name durable, where the system can open folders."""
    if os.name != "posix":
        return
    with contextlib.suppress(OSError):  # the file is whole; not every file system can do more
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
