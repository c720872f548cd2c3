"""Nothing half-written is ever seen under a final name, whatever happens meanwhile."""

import errno
import io
import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from some_pictures import picture_of

from restorer.errors import WriteError
from restorer.pipeline.codecs import atomic, png, tiff
from restorer.pipeline.picture import open_writer, read_picture, write_picture


def test_a_name_appears_only_when_the_file_is_whole(tmp_path):
    picture = picture_of(37, 53)
    writer = open_writer(tmp_path / "a.png", like=picture)
    writer.write_rows(picture.pixels)
    assert not (tmp_path / "a.png").exists()
    writer.close()
    writer.close()
    writer.abort()
    with pytest.raises(ValueError, match="closed"):
        writer.write_rows(picture.pixels[:0])
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    assert np.array_equal(read_picture(tmp_path / "a.png").pixels, picture.pixels)


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
def test_an_exception_leaves_nothing_behind_and_keeps_what_was_there(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(b"before")
    with pytest.raises(KeyboardInterrupt), open_writer(path, like=picture_of(37, 53)) as writer:
        writer.write_rows(picture_of(20, 53).pixels)
        raise KeyboardInterrupt
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == b"before"


def test_too_few_too_many_or_other_rows_are_refused_and_leave_nothing(tmp_path):
    picture = picture_of(4, 5)
    for rows, reason in (
        (picture.pixels[:3], "1 of 4 rows are missing"),
        (picture_of(5, 5).pixels, "expected at most 4 rows"),
        (picture.pixels[:, :, :1], "expected at most 4 rows"),
        (picture.pixels.astype(np.uint16), "expected at most 4 rows"),
    ):
        with pytest.raises(ValueError, match=reason), open_writer(tmp_path / "a.png", like=picture) as writer:
            writer.write_rows(rows)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg", "webp", "avif"])
@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_full_disk_at_any_moment_is_one_line_and_leaves_nothing(tmp_path, monkeypatch, suffix, call):
    monkeypatch.setattr(png, "BLOCK_BYTES", 1500)
    monkeypatch.setattr(tiff, "STRIP_BYTES", 1500)
    picture = picture_of(90, 53)
    real = getattr(os, call)
    failures = 0
    for fail_at in range(1, 13):
        calls = itertools.count(1)

        def full(*arguments, calls=calls, fail_at=fail_at):
            if next(calls) == fail_at:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*arguments)

        monkeypatch.setattr(os, call, full)
        try:
            write_picture(picture, tmp_path / f"out.{suffix}")
        except WriteError as error:
            failures += 1
            assert str(error) == f"{tmp_path}/out.{suffix}: cannot be written: the disk is full; free some space"
            assert error.__cause__.errno == errno.ENOSPC
            assert list(tmp_path.iterdir()) == []
        else:
            assert read_picture(tmp_path / f"out.{suffix}").size == (90, 53)
            (tmp_path / f"out.{suffix}").unlink()
    assert failures >= (12 if call == "write" and suffix in ("png", "tif") else 1)


def test_short_writes_are_continued(tmp_path, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda file, data: real(file, data[: max(1, len(data) // 2)]))
    picture = picture_of(37, 53)
    write_picture(picture, tmp_path / "a.png")
    assert np.array_equal(imagecodecs.imread(str(tmp_path / "a.png")), picture.pixels)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_device_is_named():
    with (
        Path("/dev/full").open("wb", buffering=0) as device,
        pytest.raises(WriteError, match="output: cannot be written: the disk is full"),
    ):
        write_picture(picture_of(37, 53), device, format="png")
    with pytest.raises(WriteError, match="not a regular file"):
        write_picture(picture_of(37, 53), "/dev/full", format="png")


def test_a_pipe_gets_everything_or_nothing(tmp_path):
    read_end, write_end = os.pipe()
    picture = picture_of(4, 5)
    with os.fdopen(write_end, "wb") as pipe:
        with pytest.raises(RuntimeError), open_writer(pipe, like=picture, format="tiff") as writer:
            writer.write_rows(picture.pixels[:2])
            raise RuntimeError
        write_picture(picture, pipe, format="tiff")
    with os.fdopen(read_end, "rb") as pipe:
        assert np.array_equal(tifffile.imread(io.BytesIO(pipe.read())), picture.pixels)


def test_a_pipe_whose_reader_is_gone_is_named():
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "wb", buffering=0) as pipe, pytest.raises(WriteError, match="the reader has gone away"):
        write_picture(picture_of(4, 5), pipe, format="png")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nowhere/a.png", "the folder does not exist; create it first"),
        ("folder.png", "is a folder; name a file in it"),
        ("file/a.png", "not a folder"),
        ("x" * 252 + ".png", "the name is too long"),
        ("a\0.png", "null"),
    ],
)
def test_places_that_cannot_be_written_are_named_with_the_cure(tmp_path, name, reason):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match=reason) as caught:
        write_picture(picture_of(4, 5), f"{tmp_path}/{name}")
    assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.png"]


@pytest.mark.parametrize("name", [b"x" * 251 + b".png", b"caf\xe9.png", "猫".encode() * 83 + b".png", b"-.png"])
def test_odd_names_can_be_written(tmp_path, name):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    write_picture(picture_of(4, 5), path)
    assert [os.fsencode(found.name) for found in tmp_path.iterdir()] == [name]
    assert read_picture(path).size == (4, 5)


def test_a_link_goes_on_pointing_at_the_file(tmp_path):
    (tmp_path / "link.png").symlink_to("real.png")
    write_picture(picture_of(4, 5), tmp_path / "link.png")
    assert (tmp_path / "link.png").is_symlink()
    assert read_picture(tmp_path / "real.png").size == (4, 5)


def test_files_get_the_usual_permissions(tmp_path):
    (tmp_path / "usual").touch()
    write_picture(picture_of(4, 5), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_mode == (tmp_path / "usual").stat().st_mode


def run_python(code, *arguments):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])


def test_a_killed_writer_leaves_no_name_and_its_temporary_file_is_swept(tmp_path):
    code = """if True:
        import sys, time
        from restorer.pipeline.codecs.atomic import AtomicFile
        output = AtomicFile(sys.argv[1])
        output.write(b"half")
        print("ready", flush=True)
        time.sleep(60)
    """
    process = run_python(code, tmp_path / "a.png")
    with process.stdout:
        assert process.stdout.readline() == "ready\n"
        assert atomic.sweep(tmp_path) == 0  # alive
        process.send_signal(signal.SIGKILL)
        process.wait()
    with atomic.AtomicFile(tmp_path / "mine.txt") as mine:
        mine.write(b"whole")
        (tmp_path / ".other.part").touch()
        assert len(list(tmp_path.iterdir())) == 3
        assert atomic.sweep(tmp_path) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == [".other.part", "mine.txt"]
    assert (tmp_path / "mine.txt").read_bytes() == b"whole"


def test_a_temporary_file_swept_at_its_birth_is_made_again(tmp_path, monkeypatch):
    lock = atomic._lock
    swept = []

    def late_lock(file):
        if not swept:
            swept.append(next(tmp_path.iterdir()))
            swept[0].unlink()
        return lock(file)

    monkeypatch.setattr(atomic, "_lock", late_lock)
    write_picture(picture_of(4, 5), tmp_path / "a.png")
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_a_limit_on_file_size_is_one_line_and_leaves_nothing(tmp_path):
    code = """if True:
        import resource, sys
        import numpy as np
        from restorer.errors import WriteError
        from restorer.pipeline.picture import Picture, write_picture
        resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512))
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        try:
            write_picture(Picture(pixels=noise), sys.argv[1])
        except WriteError as error:
            print(error)
    """
    process = run_python(code, tmp_path / "a.png")
    out, _ = process.communicate()
    reason = "the file would be larger than this system allows; choose a smaller size"
    assert out == f"{tmp_path}/a.png: cannot be written: {reason}\n"
    assert list(tmp_path.iterdir()) == []
