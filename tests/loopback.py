"""A web server on this machine that serves one file, and fails exactly as it is told.

Every request takes the next answer of the list; when the list is empty the file is served as a good server does it.
"""

import contextlib
import hashlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from restorer.errors import DownloadError, RestorerError
from restorer.weights.fetch import fetch
from restorer.weights.record import Record

CONTENT = random.Random(0).randbytes(300_000)
"""What most tests download."""

Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """One request; the answers below are written in terms of `head` and `wfile`."""

    protocol_version = "HTTP/1.1"
    server: "Loopback"

    def do_GET(self) -> None:
        self.close_connection = True
        with self.server.lock:
            self.server.requests.append({"path": self.path, **{k.lower(): v for k, v in self.headers.items()}})
            answer = self.server.answers.pop(0) if self.server.answers else good()
        answer(self)

    def head(self, code: int, headers: dict[str, object]) -> None:
        """Send the status line and the headers."""
        self.send_response(code)
        for name, value in {"Connection": "close", **headers}.items():
            self.send_header(name, str(value))
        self.end_headers()

    def body(self, data: bytes) -> None:
        """Send bytes of the body, and count them."""
        self.wfile.write(data)
        self.server.sent += len(data)

    def start(self) -> int:
        """The first byte that the client asked for, 0 when its version is not the one here."""
        condition = self.headers.get("If-Range")
        if condition is not None and condition != self.server.tag:
            return 0
        wanted = self.headers.get("Range")
        return int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class Loopback(ThreadingHTTPServer):
    """The server: `content` is the file, `answers` what comes next, `requests` what was asked, `sent` body bytes."""

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.answers: list[Answer] = []
        self.requests: list[dict[str, str]] = []
        self.sent = 0
        self.tagged = True
        self.lock = threading.Lock()
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        """The address of the file."""
        return f"http://127.0.0.1:{self.server_port}/file.pth"

    @property
    def tag(self) -> str:
        """The ETag of the file as it is now."""
        return f'"{hashlib.sha256(self.content).hexdigest()[:16]}"'

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is what many tests are about."""


@contextlib.contextmanager
def serve(content: bytes) -> Iterator[Loopback]:
    """Run a server for as long as the block lasts."""
    with Loopback(content) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.closing.set()
            server.shutdown()
            thread.join()


def good(*, until: float = 1.0, pause: float = 0.0, ranges: bool = True, length: bool = True) -> Answer:
    """The file, or what is asked of it; cut at the share `until` of the whole, with a pause after every 4 KiB."""

    def answer(handler: Handler) -> None:
        server = handler.server
        content = server.content
        start = handler.start() if ranges else 0
        if start >= len(content):
            return handler.head(416, {"Content-Range": f"bytes */{len(content)}", "Content-Length": 0})
        headers: dict[str, object] = {"ETag": server.tag} if server.tagged else {}
        if length:
            headers["Content-Length"] = len(content) - start
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        handler.head(206 if start else 200, headers)
        for at in range(start, max(start, int(len(content) * until)), 4096):
            handler.body(content[at : min(at + 4096, int(len(content) * until))])
            time.sleep(pause)

    return answer


def hang_up() -> Answer:
    """Nothing at all: the connection is closed without a word."""
    return lambda handler: None


def stall(*, after: int) -> Answer:
    """`after` bytes, then silence."""

    def answer(handler: Handler) -> None:
        handler.head(200, {"Content-Length": len(handler.server.content), "ETag": handler.server.tag})
        handler.body(handler.server.content[:after])
        handler.server.closing.wait(20)

    return answer


def trickle() -> Answer:
    """One byte every 20 ms: never silent, never done."""

    def answer(handler: Handler) -> None:
        handler.head(200, {"Content-Length": len(handler.server.content)})
        for byte in handler.server.content:
            handler.body(bytes([byte]))
            if handler.server.closing.wait(0.02):
                return

    return answer


def status(code: int) -> Answer:
    """An error and a short text."""

    def answer(handler: Handler) -> None:
        handler.head(code, {"Content-Length": 4})
        handler.wfile.write(b"sad\n")

    return answer


def other(data: bytes, *, kind: str = "application/octet-stream") -> Answer:
    """Other bytes than the file's, honestly counted."""

    def answer(handler: Handler) -> None:
        handler.head(200, {"Content-Length": len(data), "Content-Type": kind})
        handler.body(data)

    return answer


def chunked(*, until: float = 1.0) -> Answer:
    """The file in HTTP chunks, without its length; the end mark is missing when it is cut."""

    def answer(handler: Handler) -> None:
        content = handler.server.content
        handler.head(200, {"Transfer-Encoding": "chunked"})
        for at in range(0, int(len(content) * until), 5000):
            piece = content[at : at + 5000]
            handler.wfile.write(b"%x\r\n" % len(piece))
            handler.body(piece)
            handler.wfile.write(b"\r\n")
        if until == 1.0:
            handler.wfile.write(b"0\r\n\r\n")

    return answer


def redirect(to: str) -> Answer:
    """Elsewhere."""
    return lambda handler: handler.head(302, {"Location": to, "Content-Length": 0})


def wrong_part() -> Answer:
    """206, but from another byte than the one asked for."""

    def answer(handler: Handler) -> None:
        content = handler.server.content
        start = handler.start() + 7
        span = f"bytes {start}-{len(content) - 1}/{len(content)}"
        handler.head(206, {"Content-Length": len(content) - start, "Content-Range": span})
        handler.body(content[start:])

    return answer


def record_of(url: str | None, **changes: Any) -> Record:
    """A record of CONTENT at `url`."""
    plain = Record(
        name="toy-x4",
        network="esrgan",
        scale=4,
        file="toy.pth",
        url=url,
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        size=len(CONTENT),
        licence="CC0-1.0",
        source="https://example.org/about",
        summary="random bytes",
    )
    return replace(plain, **changes)


def get(record: Record, folder: Path, **changes: Any) -> Path:
    """Call `fetch` without the waiting."""
    return fetch(record, folder=folder, **({"timeout": 5.0, "pause": 0.0} | changes))


def left_in(folder: Path) -> set[str]:
    """What is in the cache besides locks."""
    return {path.name for path in folder.iterdir() if not path.name.endswith(".lock")}


def refusal(call: Callable[[], object], kind: type[RestorerError] = DownloadError) -> str:
    """The one line with which `call` is refused."""
    with pytest.raises(kind) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)
