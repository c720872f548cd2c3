"""One request for one file: go on where the last one ended, and refuse whatever is plainly not the file.

The bytes lie in a part file, and beside it a note says which address and version they are the beginning of. `Broken`
means that another try may go on from there; `DownloadError` that it would not help.
"""

import contextlib
import http
import http.client
import itertools
import json
import logging
import os
import re
import shutil
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from restorer.errors import DownloadError

Progress = Callable[[int, int | None], None]
"""Told (bytes that are here, bytes of the whole file or None) after every piece."""

CHUNK = 256 * 2**10
SLOWEST = 1024
"""Bytes a second below which a transfer counts as stalled."""
SIZE_LIMIT = 4 * 2**30
"""Most bytes taken from a server that does not say how many will come."""
SPARE = 16 * 2**20
"""Bytes of disk that must stay free."""
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_WORTH_ANOTHER_TRY = frozenset({408, 425, 429})
_PAGE_STARTS = (b"<!doctype", b"<html", b"<head", b"<?xml", b"<script")

_log = logging.getLogger(__name__)


class Broken(Exception):  # noqa: N818 -- a state to go on from, not an error that a user sees
    """The transfer ended early; the next try goes on from what is here."""


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """What is wanted, where it comes from and where it goes."""

    url: str
    part: Path
    size: int | None
    """Bytes of the whole file, where known."""
    verifiable: bool
    """The whole file can be told from a wrong one by its hash."""
    timeout: float
    """Seconds without news after which the connection counts as dead."""
    progress: Progress | None = None

    @property
    def note(self) -> Path:
        """The file that says what the part is the beginning of."""
        return self.part.with_name(f"{self.part.name}.json")


def receive(job: Transfer) -> bool:
    """Complete `job.part`; True when it came whole and in one piece, so that wrong bytes are the server's own."""
    start, validator = _kept(job)
    if start and start == job.size:
        return False
    with contextlib.closing(_ask(job, start, validator)) as response:
        begin = _begin(response, job, start)
        length = _length(response)
        end = job.size if length is None else begin + length
        body = _pieces(response, job.timeout)
        first = next(body, b"")
        _refuse_wrong_kind(job, begin, end, first)
        told = length is not None or response.chunked
        if not told and job.size is None and not job.verifiable:
            raise DownloadError(
                f"{job.url} does not say how long the file is, so a cut could not be seen; download it by hand"
            )
        _check_room(job, (end or 0) - begin)
        _store(job, response, begin, end, itertools.chain((first,), body))
    return not begin and told


def discard(job: Transfer) -> None:
    """Forget what has arrived so far."""
    job.part.unlink(missing_ok=True)
    job.note.unlink(missing_ok=True)


def is_allowed(url: str) -> bool:
    """Whether `url` is https, or plain http that does not leave this machine."""
    parts = urllib.parse.urlsplit(url)
    return bool(parts.hostname) and (parts.scheme == "https" or _is_loopback(url))


def _is_loopback(url: str) -> bool:
    parts = urllib.parse.urlsplit(url)
    return parts.scheme == "http" and parts.hostname in _LOOPBACK


def _kept(job: Transfer) -> tuple[int, str]:
    """How many bytes of the part file are worth going on from, and the validator of the version they belong to."""
    try:
        note = json.loads(job.note.read_text(encoding="utf-8"))
        url, validator = str(note["url"]), str(note["validator"])
        here = job.part.stat().st_size
    except (OSError, ValueError, KeyError, TypeError):
        return 0, ""
    useful = url == job.url and here <= (job.size or SIZE_LIMIT) and (validator or job.verifiable)
    return (here, validator) if useful else (0, "")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows five redirects at most, and only to https; a server on this machine may point at itself."""

    max_redirections = 5
    max_repeats = 5

    def http_error_302(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: http.client.HTTPMessage
    ) -> Any:
        try:
            return super().http_error_302(req, fp, code, msg, headers)
        except ValueError as error:
            fp.close()
            raise DownloadError(f"{req.full_url} redirects to something that is not an address; refused") from error

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302

    def redirect_request(  # noqa: PLR0917 -- the signature is urllib's
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if not is_allowed(newurl) or (_is_loopback(newurl) and not _is_loopback(req.full_url)):
            fp.close()
            raise DownloadError(f"{req.full_url} redirects to {newurl}, which is not https; refused")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _ask(job: Transfer, start: int, validator: str) -> http.client.HTTPResponse:
    """Send the request for everything from byte `start` on."""
    headers = {"User-Agent": "restorer", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    if start and validator:
        headers["If-Range"] = validator
    proxies = [urllib.request.ProxyHandler({})] if _is_loopback(job.url) else []
    opener = urllib.request.build_opener(_Redirects, *proxies)
    try:
        return opener.open(urllib.request.Request(job.url, headers=headers), timeout=job.timeout)
    except urllib.error.HTTPError as answer:
        answer.close()
        raise _refusal(job, answer.code) from answer
    except (OSError, http.client.HTTPException) as error:
        raise _failure(job, error) from error


def _refusal(job: Transfer, code: int) -> Exception:
    """What an answer other than 200 or 206 means."""
    phrase = f"{code} {http.client.responses.get(code, '')}".strip()
    if code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        discard(job)
        return Broken("what was kept of an earlier try is not the beginning of the file")
    if code >= 500 or code in _WORTH_ANOTHER_TRY:
        return Broken(f"the server answered {phrase}")
    if 300 <= code < 400:
        return DownloadError(f"{job.url} redirects in circles or to a place that is not https ({phrase}); refused")
    return DownloadError(f"{job.url} answered {phrase}; the file may have moved: see where the model is described")


def _failure(job: Transfer, error: Exception) -> Exception:
    """What a fault of the connection means."""
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, ssl.SSLCertVerificationError):
        return DownloadError(
            f"the certificate of {job.url} cannot be verified ({reason.verify_message}); is a proxy between?"
        )
    if isinstance(reason, TimeoutError):
        return Broken(f"nothing arrived for {job.timeout:g} s")
    if isinstance(reason, http.client.HTTPException | ConnectionError) and not isinstance(
        reason, ConnectionRefusedError
    ):
        return Broken("the connection was cut")
    return Broken(" ".join(str(reason).split()) or type(reason).__name__)


def _begin(response: http.client.HTTPResponse, job: Transfer, start: int) -> int:
    """Where in the file the body begins: at `start` as asked (206), or at 0 (200)."""
    if response.status != http.HTTPStatus.PARTIAL_CONTENT:
        return 0
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", response.headers.get("Content-Range", "").strip())
    if not start or match is None or int(match[1]) != start:
        discard(job)
        raise Broken("the server sent another part of the file than it was asked for")
    return start


def _length(response: http.client.HTTPResponse) -> int | None:
    """Bytes that the server promises to send, or None."""
    text = response.headers.get("Content-Length", "")
    return int(text) if text.isascii() and text.isdigit() and not response.chunked else None


def _pieces(response: http.client.HTTPResponse, timeout: float) -> Iterator[bytes]:
    """The body as it comes; a connection that trickles is as dead as one that is silent."""
    mark, arrived = time.monotonic(), 0
    while True:
        try:
            piece = response.read1(CHUNK)
        except TimeoutError as error:
            raise Broken(f"nothing arrived for {timeout:g} s") from error
        except (OSError, http.client.HTTPException) as error:
            raise Broken("the connection was cut") from error
        if not piece:
            return
        yield piece
        arrived += len(piece)
        if time.monotonic() - mark > timeout:
            if arrived < SLOWEST * timeout:
                raise Broken(f"fewer than {SLOWEST} bytes a second arrived")
            mark, arrived = time.monotonic(), 0


def _refuse_wrong_kind(job: Transfer, begin: int, end: int | None, first: bytes) -> None:
    """Stop before anything is written when this is a web page or a file of another size."""
    if not begin and first[:512].lstrip().lower().startswith(_PAGE_STARTS):
        raise DownloadError(
            f"{job.url} sent a web page instead of weights; a login or a proxy may be in the way: open it in a browser"
        )
    if job.size is not None and end != job.size:
        discard(job)
        raise DownloadError(f"{job.url} holds another file now: {end} bytes instead of {job.size}; it was not used")


def _check_room(job: Transfer, wanted: int) -> None:
    free = shutil.disk_usage(job.part.parent).free
    if wanted + SPARE > free:
        raise DownloadError(
            f"{job.part.parent} has {free / 1e6:.0f} MB free, {(wanted + SPARE) / 1e6:.0f} MB are needed;"
            " make room, or let RESTORER_CACHE name a folder on another disk"
        )


def _store(
    job: Transfer, response: http.client.HTTPResponse, begin: int, end: int | None, body: Iterable[bytes]
) -> None:
    """Append the body to the part file, down to the disk."""
    done = begin
    try:
        with job.part.open("ab" if begin else "wb") as file:
            if not begin:  # the old beginning is gone by now, so the new note cannot be taken for its
                _write_note(job, response)
            for piece in body:
                file.write(piece)
                done += len(piece)
                if job.progress is not None:
                    job.progress(done, end)
                if done >= (end or SIZE_LIMIT):
                    break  # a file that is longer is a wrong one, and its hash or length will say so
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        discard(job)
        raise DownloadError(
            f"cannot write {job.part}: {error.strerror or error}; make room, or set RESTORER_CACHE"
        ) from error
    if end is not None and done < end:
        raise Broken(f"the connection was cut after {done} of {end} bytes")
    if end is None and done >= SIZE_LIMIT:
        discard(job)
        raise DownloadError(f"{job.url} does not end after {SIZE_LIMIT / 2**30:g} GiB; this is not a file of weights")


def _write_note(job: Transfer, response: http.client.HTTPResponse) -> None:
    """Say what the part file is the beginning of: a strong ETag, else the date; a weak ETag does not speak of bytes."""
    tag = response.headers.get("ETag", "")
    validator = tag if tag.startswith('"') else response.headers.get("Last-Modified", "")
    job.note.write_text(json.dumps({"url": job.url, "validator": validator}), encoding="utf-8")
