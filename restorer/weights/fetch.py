"""Bring published weights to this machine: whole, checked, and only then under their own name.

A download lives in two files beside its target until it is done: `.part` is what has arrived, `.part.json` says of what
that is the beginning; both survive a kill and are used again. An empty `.lock` lets one process work while others wait.
"""

import contextlib
import hashlib
import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from restorer.errors import DownloadError, WeightsError
from restorer.weights.record import Record
from restorer.weights.transfer import Broken, Progress, Transfer, discard, is_allowed, receive

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

PINS = "first-seen.json"
"""In the cache: model -> SHA-256 that was accepted on first use."""

_log = logging.getLogger(__name__)


def fetch(
    record: Record,
    *,
    folder: Path | None = None,
    trust_first_use: bool = False,
    progress: Progress | None = None,
    timeout: float = 30.0,
    tries: int = 3,
    pause: float = 1.0,
) -> Path:
    """Return the record's file in `folder` (None: the user's cache), downloading what is missing of it.

    Args:
        trust_first_use: accept a record without a published SHA-256, and hold every later file to the one seen now.
        timeout: seconds without news after which the connection counts as dead.
        pause: seconds before the second try; doubled before each further one.
    """
    if tries < 1:
        raise ValueError(f"tries must be at least 1, got {tries}")
    folder = _made(cache_folder() if folder is None else folder)
    target = folder / record.file
    with _locked(folder / f".{record.file}.lock"):
        if _settled(target, record, trust_first_use):
            return target
        expected = expected_hash(record, folder)
        url = _permitted_url(record, expected, trust_first_use)
        job = Transfer(
            url=url,
            part=folder / f"{record.file}.part",
            size=record.size,
            verifiable=expected is not None,
            timeout=timeout,
            progress=progress,
        )
        _log.info("downloading %s from %s", record.name, url)
        seen = _download(job, record, expected, tries, pause)
        if expected is None:
            _pin(record, seen, folder)
        _put_in_place(job, target)
    return target


def cache_folder() -> Path:
    """Where downloaded weights are kept."""
    return cache_home() / "weights"


def cache_home() -> Path:
    """Where all that can be had again is kept: $RESTORER_CACHE, else restorer in the user's cache folder."""
    try:
        if chosen := os.environ.get("RESTORER_CACHE"):
            return Path(chosen).expanduser()
        return _user_cache() / "restorer"
    except RuntimeError as error:
        raise WeightsError("this user has no home folder; set RESTORER_CACHE to a folder") from error


def _user_cache() -> Path:
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    chosen = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return chosen if chosen.is_absolute() else Path.home() / ".cache"


def is_offline() -> bool:
    """Whether $RESTORER_OFFLINE forbids downloads."""
    return os.environ.get("RESTORER_OFFLINE", "").strip().lower() not in {"", "0", "no", "false"}


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from error


def expected_hash(record: Record, folder: Path) -> str | None:
    """The SHA-256 that was published for the record or, failing that, was accepted on first use."""
    return record.sha256 or _pins(folder).get(record.name)


def is_right(path: Path, record: Record, folder: Path) -> bool:
    """Whether `path` is a file with exactly the bytes that are expected; False where nothing is known of them."""
    expected = expected_hash(record, folder)
    return expected is not None and path.is_file() and sha256_of(path) == expected


def _settled(target: Path, record: Record, trust_first_use: bool) -> bool:
    """Whether the file is there and may be used; a wrong one is removed."""
    if not target.is_file():
        return False
    if is_right(target, record, target.parent):
        return True
    if expected_hash(record, target.parent) is not None:
        _log.warning("%s does not have the expected bytes; it is removed", target)
        target.unlink()
        return False
    seen = sha256_of(target)
    if trust_first_use and seen.startswith(record.sha256_prefix):
        _pin(record, seen, target.parent)
        return True
    return False


def _permitted_url(record: Record, expected: str | None, trust_first_use: bool) -> str:
    """The record's address, if a request can and may be sent to it."""
    if record.url is None:
        raise DownloadError(
            f"no direct address is known for '{record.name}'; get {record.file} from {record.source}"
            " and give its path, or put it into a folder that RESTORER_WEIGHTS names"
        )
    if not is_allowed(record.url) and not _is_plain_and_trusted(record, trust_first_use):
        trust = "; --trust-first-use takes it as it comes" if _is_plain_and_trusted(record, True) else ""
        raise DownloadError(f"{record.url} is not https; '{record.name}' is not downloaded{trust}")
    if is_offline():
        raise DownloadError(f"RESTORER_OFFLINE is set, so '{record.name}' is not downloaded; unset it, or give a path")
    if expected is None and not trust_first_use:
        raise DownloadError(
            f"no full SHA-256 was published for '{record.name}'; add --trust-first-use to accept the file as it is now"
            " and hold later ones to it"
        )
    return record.url


def _is_plain_and_trusted(record: Record, trust_first_use: bool) -> bool:
    """Plain http is asked only where no hash was ever published and the user takes the file as it comes."""
    unknown = record.sha256 is None and not record.sha256_prefix
    return trust_first_use and unknown and str(record.url).startswith("http://")


def _download(job: Transfer, record: Record, expected: str | None, tries: int, pause: float) -> str:
    """Complete and check the part file; the SHA-256 of what arrived."""
    for attempt in range(tries):
        if attempt:
            time.sleep(pause * 2 ** (attempt - 1))
        try:
            in_one_piece = receive(job)
            return _checked(job, record, expected, in_one_piece)
        except Broken as broken:
            reason = str(broken)
            _log.warning("download of %s, try %d of %d: %s", record.name, attempt + 1, tries, reason)
    raise DownloadError(
        f"could not download '{record.name}' from {job.url}: {reason} ({tries} tries);"
        " what arrived is kept, and the same command goes on from there"
    )


def _checked(job: Transfer, record: Record, expected: str | None, in_one_piece: bool) -> str:
    """The part file's SHA-256, if it is the right one; else the file is thrown away."""
    seen = sha256_of(job.part)
    if seen == expected or (expected is None and seen.startswith(record.sha256_prefix)):
        return seen
    discard(job)
    if not in_one_piece:  # a stale beginning or an unseen cut can be the reason, so once more from zero
        raise Broken("the pieces did not make the right file")
    wanted = expected or f"{record.sha256_prefix}..."
    cure = "the file was not used, see " + record.source
    if record.sha256 is None and expected is not None:
        pins = job.part.parent / PINS
        cure = f"it changed since it was first trusted; to trust it anew, remove '{record.name}' from {pins}"
    raise DownloadError(f"{job.url} sent other bytes than expected (SHA-256 {seen}, not {wanted}); {cure}")


def _put_in_place(job: Transfer, target: Path) -> None:
    """Give the whole, checked file its name, so that a power cut cannot undo it."""
    try:
        job.part.replace(target)
        discard(job)
        if os.name == "posix":
            handle = os.open(target.parent, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
    except OSError as error:
        raise DownloadError(f"cannot write {target}: {error.strerror or error}; set RESTORER_CACHE") from error


def _pins(folder: Path) -> dict[str, str]:
    path = folder / PINS
    try:
        pins = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"cannot read {path}, which says what was trusted on first use; mend or remove it"
        ) from error
    if not isinstance(pins, dict):
        raise WeightsError(f"{path} is not a table of model names and hashes; mend or remove it")
    return {str(name): str(sha256) for name, sha256 in pins.items()}


def _pin(record: Record, seen: str, folder: Path) -> None:
    """Remember the SHA-256 that was seen first."""
    path = folder / PINS
    with _locked(folder / f".{PINS}.lock"):
        text = json.dumps(_pins(folder) | {record.name: seen}, indent=1, sort_keys=True)
        fresh = path.with_name(f".{PINS}.new")
        try:
            fresh.write_text(text, encoding="utf-8")
            fresh.replace(path)
        except OSError as error:
            raise DownloadError(f"cannot write {path}: {error.strerror or error}; set RESTORER_CACHE") from error
    _log.warning("%s: trusted on first use, SHA-256 %s", record.name, seen)


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DownloadError(
            f"cannot make the folder {folder}: {error.strerror or error}; set RESTORER_CACHE to one that can be written"
        ) from error
    return folder


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock that the system takes back when its holder dies; wait while another process has it."""
    try:
        file = path.open("ab")
    except OSError as error:
        raise DownloadError(f"cannot write {path}: {error.strerror or error}; set RESTORER_CACHE") from error
    with file:
        waiting = False
        while not _try_lock(file.fileno()):
            if not waiting:
                _log.info("another process has %s; waiting", path)
            waiting = True
            time.sleep(0.1)
        yield


if sys.platform == "win32":

    def _try_lock(handle: int) -> bool:
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:

    def _try_lock(handle: int) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:  # some network file systems know no locks; the hash still guards the result
            _log.warning("no lock on this file system (%s): do not download twice at once", error.strerror)
        return True
