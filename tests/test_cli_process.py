"""The command line as a process: pipes, signals, full disks, and kill -9 in the middle."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from tiny import HOME, files_in, noise, pixels, save_picture, save_tiny, start

from restorer.api import enhance
from restorer.pipeline.picture import read_picture
from restorer.pipeline.settings import UpscaleSettings

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and limits of POSIX")
LIMITED = (
    "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000)); "
    "from restorer.apps.cli import main; sys.exit(main(sys.argv[1:]))"
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A folder of pictures that take some seconds in all, each another."""
    folder = tmp_path_factory.mktemp("many")
    for k in range(30):
        save_picture(folder / f"{k:02}.png", height=300, width=300, seed=k)
    return folder


def until(process, kind):
    """Read events up to the first of this kind."""
    for line in process.stdout:
        if json.loads(line)["event"] == kind:
            return
    raise AssertionError(f"the run ended without a {kind}: {process.stderr.read()}")


def ended(process, **options):
    """(status, stdout, stderr) of a process that must end soon."""
    out, err = process.communicate(timeout=60, **options)
    return process.returncode, out, err


def test_pictures_go_through_pipes_unharmed(weights, tmp_path):
    path = save_picture(tmp_path / "a.png")
    words = ("upscale", "-", "-o", "-", "--model", weights, "--precision", "fp32", "--device", "cpu")
    status, out, err = ended(start(*words), input=path.read_bytes())
    assert status == 0
    assert err.startswith(b"restorer: standard input -> -: 128x96 by ")
    same = enhance(noise(), model=weights, settings=UpscaleSettings(precision="fp32", device="cpu"))
    assert np.array_equal(read_picture(out).pixels, same)


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (b"", b"restorer: standard input: the file is empty; get a new copy\n"),
        (b"hello", b"restorer: standard input: not a picture of a known kind"),
    ],
)
def test_what_comes_through_a_pipe_is_called_standard_input(weights, tmp_path, sent, told):
    status, out, err = ended(start("upscale", "-", "-o", tmp_path / "b.png", "--model", weights), input=sent)
    assert (status, out, err.count(b"\n")) == (1, b"", 1)
    assert err.startswith(told)
    assert files_in(tmp_path) == []


@pytest.mark.parametrize(("number", "how"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")])
def test_a_signal_in_mid_run_ends_it_cleanly(weights, many, tmp_path, number, how):
    process = start("upscale", many, "-o", tmp_path / "out", "--model", weights, "--json")
    until(process, "result")
    process.send_signal(number)
    sent = time.monotonic()
    status, _, err = ended(process)
    assert time.monotonic() - sent < 5
    assert (status, err.decode()) == (128 + number, f"restorer: {how}; what was finished is kept\n")
    finished = files_in(tmp_path / "out")
    assert 1 <= len(finished) < 30
    lines = (tmp_path / "out" / "restorer-journal.jsonl").read_text().splitlines()
    assert finished == sorted(json.loads(line)["output"] for line in lines)
    assert all(pixels(tmp_path / "out" / name).shape == (1200, 1200, 3) for name in finished)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_wait_for_standard_input(weights, tmp_path, number, status):
    process = start("upscale", "-", "-o", tmp_path / "b.png", "--model", weights)
    time.sleep(1)
    assert process.poll() is None
    process.send_signal(number)
    assert process.wait(timeout=5) == status
    process.communicate()


@pytest.mark.slow
def test_a_killed_run_is_taken_up_where_it_was(weights, many, tmp_path):
    def words(out):
        return "upscale", many, "-o", tmp_path / out, "--model", weights, "--json", "--precision", "fp32"

    assert ended(start(*words("whole")))[0] == 0
    for kills in range(3):
        process = start(*words("killed"))
        until(process, "result")
        process.kill()
        ended(process)
        kept = {name: (tmp_path / "killed" / name).stat().st_ino for name in finished(tmp_path / "killed")}
        assert len(kept) >= kills + 1
    assert ended(start(*words("killed")))[0] == 0
    assert files_in(tmp_path / "killed") == files_in(many)
    for name in files_in(many):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert {name: (tmp_path / "killed" / name).stat().st_ino for name in kept} == kept


def finished(folder):
    """What has its final name; a dead writer's leavings are hidden, and swept by the next run."""
    return [name for name in files_in(folder) if not name.startswith(".")]


def test_a_file_that_cannot_grow_is_told_and_leaves_nothing(weights, tmp_path):
    for name in ("a.png", "b.jpg", "c.tif", "d.webp"):
        save_picture(tmp_path / "in" / name)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, "upscale", tmp_path / "in", "-o", tmp_path / "out", "--model", weights, "-q"],
        cwd=HOME, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    lines = done.stderr.splitlines()
    assert (done.returncode, len(lines)) == (1, 4)
    for name, line in zip(("a.png", "b.jpg", "c.tif", "d.webp"), lines, strict=True):
        assert line.startswith(f"restorer: {tmp_path / 'in' / name}: ")
        assert "cannot be written: the file would be larger than this system allows" in line
    assert files_in(tmp_path / "out") == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
def test_a_full_standard_output_is_told_once(weights, tmp_path):
    path = save_picture(tmp_path / "a.png")
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        for words, told in (
            (["models", "list"], "restorer: standard output cannot be written (No space left on device)"),
            (["upscale", path, "-o", "-", "--model", weights, "-q"], f"restorer: {path}: output: cannot be written"),
        ):
            status, _, err = ended(start(*words, stdout=full))
            assert (status, err.count(b"\n")) == (1, 1)
            assert err.decode().startswith(told)


def test_a_reader_that_has_gone_is_no_error():
    with start("models", "list") as process:
        process.stdout.close()
        assert process.wait(timeout=20) == 1
        assert process.stderr.read() == b""


@pytest.mark.skipif(shutil.which("sh") is None, reason="needs a shell to close streams")
@pytest.mark.parametrize(
    ("words", "told"),
    [("- -o b.png <&-", "standard input is closed"), ("a.png -o - >&-", "standard output is closed")],
)
def test_a_closed_stream_is_told(weights, tmp_path, words, told):
    save_picture(tmp_path / "a.png")
    command = f'exec "{sys.executable}" -m restorer upscale --model "{weights}" {words}'
    done = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(HOME)}, capture_output=True,
        text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith(f"restorer: {told}")
    assert files_in(tmp_path) == ["a.png"]


@pytest.mark.skipif(shutil.which("sh") is None, reason="needs a shell to close streams")
@pytest.mark.parametrize("stderr", ["2>&-", "2>/dev/full"])
def test_without_a_stderr_the_status_says_it(stderr):
    for words, status in (("models list", 0), ("models info nosuch", 1)):
        command = f'exec "{sys.executable}" -m restorer {words} {stderr}'
        done = subprocess.run(["sh", "-c", command], cwd=HOME, capture_output=True, timeout=60, check=False)
        assert done.returncode == status
        assert (done.stdout == b"") == (status == 1)


def test_what_libraries_in_c_print_is_kept_off_stderr():
    code = (
        "import os, sys; from restorer.apps.cli.screen import native_noise_off, tell\n"
        "with native_noise_off():\n    os.write(2, b'noise\\n'); tell('ours')\n"
        "os.write(2, b'after\\n')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=HOME, capture_output=True, timeout=20, check=False)
    assert done.stderr == b"restorer: ours\nafter\n"
