"""Downloads end with the right file or with none; `loopback.py` is the server that misbehaves."""

import hashlib
import json
import logging
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import loopback
import pytest
from loopback import CONTENT, Loopback, get, left_in, record_of, refusal

from restorer.weights import fetch as fetch_module


@pytest.fixture
def server() -> Iterator[Loopback]:
    with loopback.serve(CONTENT) as running:
        yield running


@pytest.fixture(autouse=True)
def _online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RESTORER_OFFLINE", raising=False)


def test_a_good_server_gives_the_file_in_one_request(server: Loopback, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    path = get(record_of(server.url), tmp_path / "new" / "cache", progress=lambda *step: seen.append(step))
    assert path == tmp_path / "new" / "cache" / "toy.pth"
    assert path.read_bytes() == CONTENT
    assert left_in(path.parent) == {"toy.pth"}
    assert len(server.requests) == 1
    assert seen[-1] == (300_000, 300_000)
    assert seen == sorted(seen)


def test_a_file_that_is_there_and_right_is_not_fetched_again(server: Loopback, tmp_path: Path) -> None:
    (tmp_path / "toy.pth").write_bytes(CONTENT)
    assert get(record_of(server.url), tmp_path) == tmp_path / "toy.pth"
    assert server.requests == []


def test_a_file_that_is_there_and_damaged_is_fetched_again(server: Loopback, tmp_path: Path) -> None:
    (tmp_path / "toy.pth").write_bytes(CONTENT[:-1] + b"?")
    assert get(record_of(server.url), tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("until", [0.0, 0.01, 0.5, 0.99])
def test_a_cut_download_goes_on_where_it_was_cut(server: Loopback, tmp_path: Path, until: float) -> None:
    server.answers = [loopback.good(until=until)]
    assert get(record_of(server.url), tmp_path).read_bytes() == CONTENT
    ranges = [request.get("range") for request in server.requests]
    assert ranges == [None, f"bytes={int(300_000 * until)}-" if until else None]
    assert server.sent == 300_000
    assert left_in(tmp_path) == {"toy.pth"}


def test_a_connection_closed_without_a_word_is_tried_again(server: Loopback, tmp_path: Path) -> None:
    server.answers = [loopback.hang_up(), loopback.hang_up()]
    assert get(record_of(server.url), tmp_path).read_bytes() == CONTENT
    assert len(server.requests) == 3


def test_many_cuts_ask_for_every_byte_once(server: Loopback, tmp_path: Path) -> None:
    server.answers = [loopback.good(until=until) for until in (0.1, 0.11, 0.4, 0.4, 0.8, 0.999)]
    assert get(record_of(server.url), tmp_path, tries=7).read_bytes() == CONTENT
    assert server.sent == 300_000


def test_when_all_tries_are_cut_the_next_command_goes_on(server: Loopback, tmp_path: Path) -> None:
    server.answers = [loopback.good(until=until) for until in (0.1, 0.2, 0.3)]
    line = refusal(lambda: get(record_of(server.url), tmp_path))
    assert "'toy-x4'" in line
    assert server.url in line
    assert "3 tries" in line
    assert left_in(tmp_path) == {"toy.pth.part", "toy.pth.part.json"}
    assert get(record_of(server.url), tmp_path).read_bytes() == CONTENT
    assert server.requests[-1]["range"] == "bytes=90000-"
    assert server.requests[-1]["if-range"] == server.tag


def test_pauses_grow_between_tries(server: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(fetch_module, "time", types.SimpleNamespace(sleep=slept.append))
    server.answers = [loopback.status(503)] * 3
    assert get(record_of(server.url), tmp_path, tries=4, pause=0.5).read_bytes() == CONTENT
    assert slept == [0.5, 1.0, 2.0]


@pytest.mark.parametrize("wrong", [CONTENT[:-1] + b"?", bytes(300_000)], ids=["one byte", "all bytes"])
def test_bytes_of_the_right_size_but_wrong_hash_are_thrown_away(server: Loopback, tmp_path: Path, wrong: bytes) -> None:
    server.answers = [loopback.other(wrong)] * 3
    line = refusal(lambda: get(record_of(server.url), tmp_path))
    assert hashlib.sha256(wrong).hexdigest() in line
    assert left_in(tmp_path) == set()
    assert len(server.requests) == 1


@pytest.mark.parametrize("wrong", [b"", b"short", CONTENT + b"!"], ids=["empty", "short", "long"])
def test_a_file_of_another_size_is_refused_before_it_is_read(server: Loopback, tmp_path: Path, wrong: bytes) -> None:
    server.answers = [loopback.other(wrong)] * 3
    assert f"{len(wrong)} bytes instead of 300000" in refusal(lambda: get(record_of(server.url), tmp_path))
    assert left_in(tmp_path) == set()


@pytest.mark.parametrize("size", [300_000, None])
def test_a_server_that_tells_no_length_will_do(server: Loopback, tmp_path: Path, size: int | None) -> None:
    server.answers = [loopback.good(length=False)]
    assert get(record_of(server.url, size=size), tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("size", [300_000, None])
def test_a_cut_without_a_length_is_mended(server: Loopback, tmp_path: Path, size: int | None) -> None:
    server.answers = [loopback.good(length=False, until=0.5)]
    assert get(record_of(server.url, size=size), tmp_path).read_bytes() == CONTENT
    assert len(server.requests) == 2


@pytest.mark.parametrize("until", [0.5, 1.0])
def test_chunks_are_understood_whole_and_cut(server: Loopback, tmp_path: Path, until: float) -> None:
    server.answers = [loopback.chunked(until=until)]
    assert get(record_of(server.url, size=None), tmp_path).read_bytes() == CONTENT


def test_a_silent_server_is_left_after_the_deadline(server: Loopback, tmp_path: Path) -> None:
    server.answers = [loopback.stall(after=100_000)]
    begin = time.monotonic()
    assert get(record_of(server.url), tmp_path, timeout=0.3).read_bytes() == CONTENT
    assert 0.3 <= time.monotonic() - begin < 4
    assert server.requests[-1]["range"] == "bytes=100000-"


def test_a_trickling_server_is_left_too(server: Loopback, tmp_path: Path) -> None:
    server.answers = [loopback.trickle()]
    assert "fewer than 1024 bytes a second" in refusal(
        lambda: get(record_of(server.url), tmp_path, timeout=0.3, tries=1)
    )


def test_a_server_that_ignores_ranges_sends_everything_again(server: Loopback, tmp_path: Path) -> None:
    server.answers = [loopback.good(until=0.5), loopback.good(ranges=False)]
    assert get(record_of(server.url), tmp_path).read_bytes() == CONTENT
    assert server.requests[1]["range"] == "bytes=150000-"
    assert server.sent == 450_000


def test_a_part_that_was_not_asked_for_is_not_appended(server: Loopback, tmp_path: Path) -> None:
    server.answers = [loopback.good(until=0.5), loopback.wrong_part()]
    assert get(record_of(server.url), tmp_path).read_bytes() == CONTENT
    assert "range" not in server.requests[2]


def test_a_beginning_of_something_else_is_found_out(server: Loopback, tmp_path: Path) -> None:
    (tmp_path / "toy.pth.part").write_bytes(b"x" * 1000)
    (tmp_path / "toy.pth.part.json").write_text(json.dumps({"url": server.url, "validator": server.tag}))
    assert get(record_of(server.url), tmp_path).read_bytes() == CONTENT
    assert [request.get("range") for request in server.requests] == ["bytes=1000-", None]


@pytest.mark.parametrize("note", ["", "{", "[]", "{}", '{"url": "https://example.org/", "validator": ""}'])
def test_a_part_of_unknown_origin_is_not_used(server: Loopback, tmp_path: Path, note: str) -> None:
    (tmp_path / "toy.pth.part").write_bytes(CONTENT[:1000])
    (tmp_path / "toy.pth.part.json").write_text(note)
    assert get(record_of(server.url), tmp_path).read_bytes() == CONTENT
    assert "range" not in server.requests[0]


def test_a_part_longer_than_the_file_is_not_used(server: Loopback, tmp_path: Path) -> None:
    (tmp_path / "toy.pth.part").write_bytes(CONTENT + b"!")
    (tmp_path / "toy.pth.part.json").write_text(json.dumps({"url": server.url, "validator": server.tag}))
    record = record_of(server.url, size=None)
    assert get(record, tmp_path).read_bytes() == CONTENT  # by way of 416
    assert len(server.requests) == 2


def test_a_part_that_was_complete_needs_no_request(server: Loopback, tmp_path: Path) -> None:
    (tmp_path / "toy.pth.part").write_bytes(CONTENT)
    (tmp_path / "toy.pth.part.json").write_text(json.dumps({"url": server.url, "validator": ""}))
    assert get(record_of(server.url), tmp_path).read_bytes() == CONTENT
    assert server.requests == []


def test_a_file_that_changed_at_the_server_is_not_mixed(server: Loopback, tmp_path: Path) -> None:
    server.answers = [loopback.good(until=0.5)]
    record = record_of(server.url, sha256=None)
    refusal(lambda: get(record, tmp_path, tries=1, trust_first_use=True))
    server.content = CONTENT[::-1]
    assert get(record, tmp_path, trust_first_use=True).read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("code", [500, 502, 503, 429])
def test_a_server_in_trouble_is_asked_again(server: Loopback, tmp_path: Path, code: int) -> None:
    server.answers = [loopback.status(code), loopback.status(code)]
    assert get(record_of(server.url), tmp_path).read_bytes() == CONTENT


def test_trouble_that_stays_is_named(server: Loopback, tmp_path: Path) -> None:
    server.answers = [loopback.status(503)] * 3
    assert "503 Service Unavailable (3 tries)" in refusal(lambda: get(record_of(server.url), tmp_path))
    assert left_in(tmp_path) == set()


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_a_clear_no_is_not_argued_with(server: Loopback, tmp_path: Path, code: int) -> None:
    server.answers = [loopback.status(code)] * 3
    assert f"answered {code} " in refusal(lambda: get(record_of(server.url), tmp_path))
    assert len(server.requests) == 1


def test_nobody_listening_is_said_in_one_line(tmp_path: Path) -> None:
    with loopback.serve(b"") as gone:
        url = gone.url
    assert "refused" in refusal(lambda: get(record_of(url), tmp_path))


def test_five_redirects_are_followed(server: Loopback, tmp_path: Path) -> None:
    server.answers = [loopback.redirect(f"/step-{n}") for n in range(5)]
    assert get(record_of(server.url), tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("to", ["/file.pth", "/a", "{n}"])
def test_a_circle_of_redirects_is_left(server: Loopback, tmp_path: Path, to: str) -> None:
    server.answers = [loopback.redirect(to.format(n=n)) for n in range(50)]
    assert "redirects in circles" in refusal(lambda: get(record_of(server.url), tmp_path))
    assert len(server.requests) <= 6


@pytest.mark.parametrize(
    "to", ["http://example.org/x", "ftp://example.org/x", "file:///etc/hostname", "https://", "http://["]
)
def test_redirects_lead_to_https_only(server: Loopback, tmp_path: Path, to: str) -> None:
    server.answers = [loopback.redirect(to)]
    assert "refused" in refusal(lambda: get(record_of(server.url), tmp_path))
    assert left_in(tmp_path) == set()


@pytest.mark.parametrize("page", [b"<!DOCTYPE html><p>Log in", b"\n <html><body>"])
def test_a_web_page_is_not_taken_for_weights(server: Loopback, tmp_path: Path, page: bytes) -> None:
    server.answers = [loopback.other(page.ljust(300_000), kind="text/html")]
    assert "web page instead of weights" in refusal(lambda: get(record_of(server.url), tmp_path))
    assert left_in(tmp_path) == set()


def test_waiting_for_another_process_is_logged(
    server: Loopback, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([False, False, True])
    monkeypatch.setattr(fetch_module, "_try_lock", lambda handle: next(answers))
    with caplog.at_level(logging.INFO, logger="restorer"):
        get(record_of(server.url), tmp_path)
    assert sum("waiting" in message for message in caplog.messages) == 1


# Other processes. What they run is the text below; they tell when they begin by a line.

CHILD = """
import sys
from pathlib import Path
from restorer.weights.fetch import fetch
from restorer.weights.record import Record
record = Record(name="toy-x4", network="esrgan", scale=4, file="toy.pth", url=sys.argv[1], sha256=sys.argv[2],
    size=300_000, licence="CC0-1.0", source="here", summary="random bytes")
print("begun", flush=True)
fetch(record, folder=Path(sys.argv[3]), pause=0.0, timeout=20.0)
"""


def start_child(server: Loopback, folder: Path) -> "subprocess.Popen[bytes]":
    top = str(Path(__file__).resolve().parents[1])
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    command = [sys.executable, "-c", CHILD, server.url, sha256, str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=top)


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline, "waited 20 s"
        time.sleep(0.005)


def test_of_two_processes_at_once_one_downloads_and_both_succeed(server: Loopback, tmp_path: Path) -> None:
    server.answers = [loopback.good(pause=0.005)]
    children = [start_child(server, tmp_path) for _ in range(2)]
    for child in children:
        _, errors = child.communicate(timeout=30)
        assert (child.returncode, errors) == (0, b"")
    assert len(server.requests) == 1
    assert (tmp_path / "toy.pth").read_bytes() == CONTENT


def test_a_killed_download_goes_on_ten_times_over(server: Loopback, tmp_path: Path) -> None:
    part = tmp_path / "toy.pth.part"
    for turn in range(1, 11):
        server.answers = [loopback.good(pause=0.004)]
        child = start_child(server, tmp_path)
        wait_until(lambda goal=turn * 20_000: part.exists() and part.stat().st_size >= goal)
        child.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
        child.communicate()
        assert not (tmp_path / "toy.pth").exists()
    assert get(record_of(server.url), tmp_path).read_bytes() == CONTENT
    starts = [int(request.get("range", "bytes=0-")[6:-1]) for request in server.requests]
    assert len(starts) == 11
    assert all(start >= 20_000 * turn for turn, start in enumerate(starts))
    assert left_in(tmp_path) == {"toy.pth"}
