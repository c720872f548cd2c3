"""Which bytes are accepted, from where, and what a full disk leaves behind: nothing."""

import errno
import hashlib
import json
import os
import pathlib
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import loopback
import pytest
from loopback import CONTENT, Loopback, get, left_in, record_of, refusal

from restorer.errors import WeightsError
from restorer.weights import transfer
from restorer.weights.fetch import PINS, fetch


@pytest.fixture
def server() -> Iterator[Loopback]:
    with loopback.serve(CONTENT) as running:
        yield running


@pytest.fixture(autouse=True)
def _online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RESTORER_OFFLINE", raising=False)


@pytest.mark.parametrize("url", ["http://example.org/x.pth", "ftp://example.org/x.pth", "file:///x.pth", "https://"])
def test_only_https_is_asked(tmp_path: Path, url: str) -> None:
    assert "is not https" in refusal(lambda: get(record_of(url), tmp_path))


def test_a_record_without_an_address_says_where_to_look(tmp_path: Path) -> None:
    line = refusal(lambda: get(record_of(None), tmp_path))
    assert "toy.pth" in line
    assert "https://example.org/about" in line
    assert "RESTORER_WEIGHTS" in line


def test_offline_sends_nothing(server: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESTORER_OFFLINE", "1")
    assert "RESTORER_OFFLINE" in refusal(lambda: get(record_of(server.url), tmp_path))
    assert server.requests == []
    monkeypatch.setenv("RESTORER_OFFLINE", "0")
    assert get(record_of(server.url), tmp_path).read_bytes() == CONTENT


def test_without_a_hash_nothing_is_asked(server: Loopback, tmp_path: Path) -> None:
    line = refusal(lambda: get(record_of(server.url, sha256=None), tmp_path))
    assert "--trust-first-use" in line
    assert server.requests == []


def test_the_first_use_is_trusted_and_the_next_is_held_to_it(server: Loopback, tmp_path: Path) -> None:
    record = record_of(server.url, sha256=None, size=None)
    path = get(record, tmp_path, trust_first_use=True)
    assert json.loads((tmp_path / PINS).read_text()) == {"toy-x4": hashlib.sha256(CONTENT).hexdigest()}
    path.unlink()
    assert get(record, tmp_path).read_bytes() == CONTENT

    path.unlink()
    server.content = CONTENT[::-1]
    line = refusal(lambda: get(record, tmp_path, trust_first_use=True))
    assert "changed since it was first trusted" in line
    assert left_in(tmp_path) == {PINS}


def test_a_file_laid_into_the_cache_needs_trust(tmp_path: Path) -> None:
    (tmp_path / "toy.pth").write_bytes(CONTENT)
    record = record_of("https://127.0.0.1:9/x", sha256=None)
    assert "--trust-first-use" in refusal(lambda: get(record, tmp_path))
    assert get(record, tmp_path, trust_first_use=True).read_bytes() == CONTENT
    assert get(record, tmp_path).read_bytes() == CONTENT


def test_a_published_beginning_of_the_hash_is_checked(server: Loopback, tmp_path: Path) -> None:
    prefix = hashlib.sha256(CONTENT).hexdigest()[:8]
    right = record_of(server.url, sha256=None, sha256_prefix=prefix)
    wrong = record_of(server.url, sha256=None, sha256_prefix="00000000")
    assert "--trust-first-use" in refusal(lambda: get(right, tmp_path))
    assert "00000000..." in refusal(lambda: get(wrong, tmp_path, trust_first_use=True))
    assert left_in(tmp_path) == set()
    assert get(right, tmp_path, trust_first_use=True).read_bytes() == CONTENT


def test_trust_needs_a_length_or_a_cut_would_be_pinned(server: Loopback, tmp_path: Path) -> None:
    server.answers = [loopback.good(length=False, until=0.5)]
    record = record_of(server.url, sha256=None, size=None)
    assert "does not say how long" in refusal(lambda: get(record, tmp_path, trust_first_use=True))
    assert left_in(tmp_path) == set()


def test_without_hash_and_version_a_cut_begins_anew(server: Loopback, tmp_path: Path) -> None:
    server.tagged = False
    server.answers = [loopback.good(until=0.5)]
    record = record_of(server.url, sha256=None)
    assert get(record, tmp_path, trust_first_use=True).read_bytes() == CONTENT
    assert "range" not in server.requests[1]


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_damaged_list_of_trust_is_not_passed_over(tmp_path: Path, text: str) -> None:
    (tmp_path / PINS).write_text(text)
    record = record_of("https://127.0.0.1:9/x", sha256=None)
    assert PINS in refusal(lambda: get(record, tmp_path, trust_first_use=True), WeightsError)


def test_too_little_room_is_seen_before_anything_is_written(
    server: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=transfer.SPARE + 299_999)
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda path: usage)
    line = refusal(lambda: get(record_of(server.url), tmp_path))
    assert str(tmp_path) in line
    assert "make room" in line
    assert left_in(tmp_path) == set()
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda path: usage._replace(free=transfer.SPARE + 300_000))
    assert get(record_of(server.url), tmp_path).read_bytes() == CONTENT


class FullDisk:
    """A file whose disk is full at the k-th write."""

    def __init__(self, file: Any, writes: int) -> None:
        self.file, self.left = file, writes

    def __enter__(self) -> "FullDisk":
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def write(self, data: bytes) -> int:
        self.left -= 1
        if not self.left:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.file.write(data)


@pytest.mark.parametrize("writes", [1, 2, 5])
def test_a_disk_that_fills_up_leaves_nothing(
    server: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    really_open = pathlib.Path.open

    def open_full(path: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        file = really_open(path, mode, *args, **kwargs)
        return FullDisk(file, writes) if path.suffix == ".part" else file

    monkeypatch.setattr(pathlib.Path, "open", open_full)
    monkeypatch.setattr(transfer, "CHUNK", 4096)
    line = refusal(lambda: get(record_of(server.url), tmp_path))
    assert "toy.pth.part" in line
    assert "No space left on device" in line
    assert left_in(tmp_path) == set()
    assert len(server.requests) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_really_full_device_is_one_line(server: Loopback, tmp_path: Path) -> None:
    (tmp_path / "toy.pth.part").symlink_to("/dev/full")
    assert "No space left on device" in refusal(lambda: get(record_of(server.url), tmp_path))
    assert left_in(tmp_path) == set()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    line = refusal(lambda: get(record_of("https://127.0.0.1:9/x"), tmp_path / "file" / "cache"))
    assert "RESTORER_CACHE" in line


def test_a_server_without_end_is_left(server: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "SIZE_LIMIT", 10_000)
    server.answers = [loopback.chunked()]
    record = record_of(server.url, sha256=None, size=None)
    assert "does not end" in refusal(lambda: get(record, tmp_path, trust_first_use=True))
    assert left_in(tmp_path) == set()


def test_no_try_at_all_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="tries"):
        fetch(record_of(None), folder=tmp_path, tries=0)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl command to make a certificate with")
def test_a_certificate_is_verified(server: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    kind = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command = ["openssl", "req", *kind, *subject, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    record = record_of(server.url.replace("http:", "https:"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    line = refusal(lambda: get(record, tmp_path / "cache"))
    assert "certificate" in line
    assert left_in(tmp_path / "cache") == set()
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    server.answers = [loopback.redirect(f"http://127.0.0.1:{server.server_port}/down")]
    assert "which is not https" in refusal(lambda: get(record, tmp_path / "cache"))
    assert get(record, tmp_path / "cache").read_bytes() == CONTENT
