"""Take in a file as bytes: only regular files, only of a bearable size, and every refusal in one line."""

import errno
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from PIL import Image

from restorer.errors import PictureError

LIMIT_BYTES = 1 << 30
# what decoders raise on damaged or hostile data; Warning is for hosts that turn warnings into errors
DECODE_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    SyntaxError,
    RuntimeError,
    MemoryError,
    ArithmeticError,
    LookupError,
    AttributeError,
    AssertionError,
    EOFError,
    struct.error,
    Warning,
    Image.DecompressionBombError,
)
CURES = {
    errno.ENOENT: "no such file; check the path",
    errno.ENOTDIR: "no such file; check the path",
    errno.EACCES: "no permission to read it; change its mode or owner",
    errno.ELOOP: "a link that leads back to itself; name a picture file",
    errno.ENAMETOOLONG: "the name is too long; rename the file",
}


class Taken(NamedTuple):
    """A file's bytes, and how messages call it."""

    name: str
    data: bytes


def shown(name: str) -> str:
    """A name as one printable line: undecodable bytes and control characters are escaped.

    >>> shown("a\\nb.png")
    'a\\\\nb.png'
    """
    return name if name.isprintable() else repr(name)[1:-1]


def take_in(source: str | Path | bytes | BinaryIO, *, name: str = "") -> Taken:
    """Read a path, bytes or an open binary file whole; PictureError where that cannot or should not be done."""
    if isinstance(source, str | Path):
        name = name or shown(str(source))
        data = _read_path(source, name)
    else:
        name = name or "picture"
        data = source if isinstance(source, bytes) else _read_stream(source, name)
    if not data:
        raise PictureError(f"{name}: the file is empty; get a new copy")
    if len(data) > LIMIT_BYTES:
        raise PictureError(f"{name}: over {LIMIT_BYTES >> 20} MiB; give a smaller file")
    return Taken(name, data)


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Put the file's name before every refusal, and turn whatever a decoder raises into one."""
    try:
        yield
    except PictureError as error:
        raise PictureError(f"{name}: {error}") from error
    except MemoryError as error:
        raise PictureError(f"{name}: not enough memory to decode it; give a smaller picture") from error
    except DECODE_ERRORS as error:
        cure = "damaged or of a rare kind; get a new copy, or convert it to PNG"
        raise PictureError(f"{name}: cannot be decoded{_reason(error)}, {cure}") from error


def _read_stream(stream: BinaryIO, name: str) -> bytes:
    try:
        return stream.read(LIMIT_BYTES + 1)
    except (OSError, ValueError) as error:  # a broken pipe, a closed file
        raise PictureError(f"{name}: cannot be read ({error}); check where it comes from") from error


def _read_path(path: str | Path, name: str) -> bytes:
    try:
        _check_kind(Path(path).stat(), name)
        # a FIFO that takes the file's place meanwhile must not block us
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(path, flags), "rb") as file:
            _check_kind(os.fstat(file.fileno()), name)
            return file.read(LIMIT_BYTES + 1)
    except OSError as error:
        cure = CURES.get(error.errno or 0, f"cannot be read ({error.strerror}); check the path and the disk")
        raise PictureError(f"{name}: {cure}") from error
    except ValueError as error:  # a NUL in the path
        raise PictureError(f"{name}: no such file; check the path") from error


def _check_kind(status: os.stat_result, name: str) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise PictureError(f"{name}: is a folder; name a picture file")
    if not stat.S_ISREG(status.st_mode):
        raise PictureError(f"{name}: not a regular file; name a picture file")
    if status.st_size > LIMIT_BYTES:
        raise PictureError(f"{name}: over {LIMIT_BYTES >> 20} MiB; give a smaller file")


def _reason(error: BaseException) -> str:
    """What the decoder said, in brackets; "" where it said nothing that a user could use."""
    text = shown(str(error).split("\n")[0]).strip().rstrip(".")
    useful = isinstance(error, OSError | ValueError | SyntaxError | RuntimeError | Warning)
    return f" ({text[:120]})" if useful and text and "<_io." not in text else ""
