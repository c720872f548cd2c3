"""Many files: what is done, skipped, refused and kept; with engines that need no weights."""

import errno
import os
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from engines import FakeEngine
from folder_run import Run, Sheets, enlarged, three_pictures
from tiny import files_in, pixels, save_picture

from restorer.errors import UnsupportedError, WriteError
from restorer.pipeline import folder as room
from restorer.pipeline.codecs.atomic import AtomicFile
from restorer.pipeline.journal import Journal, sha256
from restorer.pipeline.restore import Upscale
from restorer.pipeline.settings import UpscaleSettings


@pytest.fixture
def three(tmp_path):
    return three_pictures(tmp_path / "in")


def identity(folder):
    """What a file is to the system: a file made anew differs."""
    return {name: ((folder / name).stat().st_ino, (folder / name).stat().st_mtime_ns) for name in files_in(folder)}


def test_a_tree_is_mirrored_and_every_picture_is_whole(three, tmp_path):
    save_picture(three / "deep" / "er" / "d.jpg", channels=1)
    run = Run([three], tmp_path / "out", recursive=True)
    assert run.done() == (4, 0, 0)
    assert files_in(tmp_path / "out") == ["a.png", "b.png", "c.png", "deep/er/d.jpg"]
    for name in "abc":
        assert np.array_equal(pixels(tmp_path / "out" / f"{name}.png"), enlarged(three / f"{name}.png"))
    assert pixels(tmp_path / "out" / "deep/er/d.jpg").shape == (96, 128)


def test_clashing_names_get_outputs_of_their_own(tmp_path):
    for seed, name in enumerate(("a.bmp", "a.gif", "a.png", "A.png")):
        save_picture(tmp_path / "in" / name, seed=seed)
    run = Run([tmp_path / "in"], tmp_path / "out")
    assert run.done() == (4, 0, 0)
    made = {event["input"]: event["output"] for event in run.events if event["event"] == "result"}
    assert len({output.casefold() for output in made.values()}) == 4
    assert all(np.array_equal(pixels(output), enlarged(source)) for source, output in made.items())


def test_a_bad_file_is_told_and_the_rest_is_done(three, tmp_path):
    (three / "b.png").write_bytes((three / "b.png").read_bytes()[:300])
    run = Run([three], tmp_path / "out")
    assert run.done() == (2, 0, 1)
    assert run.named("error") == ["b.png"]
    assert files_in(tmp_path / "out") == ["a.png", "c.png"]
    again = Run([three], tmp_path / "out")
    assert again.done() == (0, 2, 1)


def test_a_second_run_does_nothing_and_opens_nothing(three, tmp_path):
    assert Run([three], tmp_path / "out").done() == (3, 0, 0)
    before = identity(tmp_path / "out")
    again = Run([three], tmp_path / "out")
    assert again.done() == (0, 3, 0)
    assert (again.opened, again.named("result"), again.named("skipped")) == (0, [], ["a.png", "b.png", "c.png"])
    assert identity(tmp_path / "out") == before


def test_results_beside_their_inputs_are_not_taken_for_inputs(three):
    assert Run([three], three, suffix="-x4").done() == (3, 0, 0)
    assert Run([three], three, suffix="-x4").done() == (0, 3, 0)
    assert files_in(three) == ["a-x4.png", "a.png", "b-x4.png", "b.png", "c-x4.png", "c.png"]


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("out", ["", "out"])
@pytest.mark.parametrize("folder", ["sheets", None])
def test_what_was_kept_beside_is_not_taken_for_an_input(three, folder, out, fails):
    where = three / folder if folder else None
    first = Run([three], three / out, suffix="-x4", recursive=True, keeper=Sheets(where, fails=fails))
    assert first.done() == ((0, 0, 3) if fails else (3, 0, 0))
    assert ((where or three / out) / "a-x4.png.faces.png").is_file() == (not fails)
    again = Run([three], three / out, suffix="-x4", recursive=True, keeper=Sheets(where))
    assert again.done() == ((3, 0, 0) if fails else (0, 3, 0))


def test_results_are_the_next_runs_inputs_and_what_was_kept_beside_is_not(three, tmp_path):
    Run([three], tmp_path / "out", keeper=Sheets()).done()
    Run([three], tmp_path / "out", overwrite=True, keeper=Sheets(tmp_path / "out" / "sheets")).done()
    next_run = Run([tmp_path / "out"], tmp_path / "next", recursive=True)
    assert next_run.done() == (3, 0, 0)
    assert files_in(tmp_path / "next") == ["a.png", "b.png", "c.png"]
    assert Run([tmp_path / "out" / "sheets"], tmp_path / "asked").done() == (3, 0, 0), "by its name it is taken"


class Wants(Upscale):
    """Work of which a setting names what some pictures lack."""

    lacking = ("no second", "no third")


def test_what_no_picture_of_a_run_has_is_said_once_and_what_one_has_is_not(three, tmp_path):
    run = Run([three], tmp_path / "out")
    works = [Wants, type("Has", (Wants,), {"lacking": ("no third",)}), Wants]

    def opened():
        return SimpleNamespace(engine=run.engine, plan=lambda picture: works.pop()(picture, run.engine, run.settings))

    run.run._open_restorer = opened
    assert run.done() == (3, 0, 0)
    assert [event for event in run.events if event["event"] == "notice"] == [
        {"event": "notice", "input": None, "reason": "no third"}
    ]


def changed_input(three, out):
    save_picture(three / "a.png", seed=9)
    return Run([three], out)


def touched_input(three, out):
    os.utime(three / "a.png", ns=(1, 1))
    return Run([three], out)


def deleted_output(three, out):
    (out / "a.png").unlink()
    return Run([three], out)


@pytest.mark.parametrize(
    ("change", "redone"),
    [
        (changed_input, ["a.png"]),
        (touched_input, []),
        (deleted_output, ["a.png"]),
        (lambda three, out: Run([three], out, settings=UpscaleSettings(scale=2)), ["a.png", "b.png", "c.png"]),
        (lambda three, out: Run([three], out, settings=UpscaleSettings(strength=0.5)), ["a.png", "b.png", "c.png"]),
        (lambda three, out: Run([three], out, weights="w2"), ["a.png", "b.png", "c.png"]),
        (lambda three, out: Run([three], out, quality=50), ["a.png", "b.png", "c.png"]),
        (lambda three, out: Run([three], out, overwrite=True), ["a.png", "b.png", "c.png"]),
        (lambda three, out: Run([three], out, settings=UpscaleSettings(max_megapixels_in=50)), []),
    ],
    ids=["input", "touched", "deleted", "scale", "strength", "weights", "quality", "overwrite", "limit"],
)
def test_what_changed_is_done_again_and_nothing_else(three, tmp_path, change, redone):
    Run([three], tmp_path / "out").done()
    run = change(three, tmp_path / "out")
    assert run.done() == (len(redone), 3 - len(redone), 0)
    assert run.named("result") == redone
    for event in (event for event in run.events if event["event"] == "result"):
        assert pixels(event["output"]).shape == (event["size_out"][1], event["size_out"][0], 3)


@pytest.mark.parametrize("by_hand", [b"", b"by hand"])
@pytest.mark.parametrize("after_a_run", [False, True])
def test_a_file_that_no_run_made_is_replaced_only_on_request(three, tmp_path, after_a_run, by_hand):
    out = tmp_path / "out"
    if after_a_run:
        Run([three], out).done()
    out.mkdir(exist_ok=True)
    (out / "b.png").write_bytes(by_hand)
    run = Run([three], out)
    assert run.done()[2] == 1
    assert "give --overwrite" in run.reasons()[0]
    assert (out / "b.png").read_bytes() == by_hand
    assert Run([three], out, overwrite=True).done() == (3, 0, 0)
    assert np.array_equal(pixels(out / "b.png"), enlarged(three / "b.png"))


def test_the_journal_knows_a_picture_before_it_has_its_name(three, tmp_path, monkeypatch):
    seen = []
    rename = Path.replace

    def spy(self, target):
        entries = {line.output: line for line in Journal(tmp_path / "out")._entries.get("a.png", ())}
        seen.append((Path(target).exists(), entries["a.png"].output_sha256 == sha256(self)))
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", spy)
    Run([three / "a.png"], tmp_path / "out").done()
    assert seen == [(False, True)]


def test_a_picture_that_never_got_its_name_is_made_again(three, tmp_path, monkeypatch):
    def dies(self, target):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "replace", dies)
        Run([three / "a.png"], tmp_path / "out").done()
    assert Journal(tmp_path / "out").outputs == {"a.png"}
    assert files_in(tmp_path / "out") == []
    assert Run([three / "a.png"], tmp_path / "out").done() == (1, 0, 0)


def test_leavings_of_dead_writers_are_swept_and_those_of_live_ones_kept(three, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    dead = out / ".a.png.123-0123abcd.part"
    dead.write_bytes(b"half")
    with AtomicFile(out / "live.png") as live:
        Run([three], out).done()
        assert not dead.exists()
        assert [name for name in files_in(out) if name.endswith(".part")]
        live.write(b"whole")
    assert files_in(out) == ["a.png", "b.png", "c.png", "live.png"]


def test_a_full_disk_ends_the_run_after_the_first(three, tmp_path, monkeypatch):
    for name in "defgh":
        save_picture(three / f"{name}.png")
    write = os.write

    def full(file, data):
        if Path(f"/proc/self/fd/{file}").readlink().suffix == ".part":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(file, data)

    monkeypatch.setattr(os, "write", full)
    run = Run([three], tmp_path / "out")
    summary = run.run.run()
    assert (summary.done, summary.failed + summary.left) == (0, 8)
    assert 1 <= summary.failed <= 2  # the next one may be under way when the first fails
    assert "the disk is full" in run.reasons()[0]
    assert files_in(tmp_path / "out") == []
    monkeypatch.undo()
    assert Run([three], tmp_path / "out").done() == (8, 0, 0)


def test_what_is_no_file_is_told_or_passed_over_and_never_waited_for(three, tmp_path):
    os.mkfifo(three / "fifo.png")
    (three / "dead.png").symlink_to("nowhere.png")
    (three / "zero.png").symlink_to("/dev/zero")
    (three / "loop.png").symlink_to("loop.png")
    (three / "folder.png").mkdir()
    (three / "linked.png").symlink_to("a.png")
    start = time.monotonic()
    run = Run([three], tmp_path / "out")
    assert run.done() == (4, 0, 4)
    assert run.named("error") == ["dead.png", "fifo.png", "loop.png", "zero.png"]
    assert time.monotonic() - start < 5
    assert files_in(tmp_path / "out") == ["a.png", "b.png", "c.png", "linked.png"]


def test_an_input_that_goes_away_meanwhile_does_not_spoil_its_output(three, tmp_path):
    class Remover(FakeEngine):
        def compute(self, x):
            (three / "a.png").unlink(missing_ok=True)
            return super().compute(x)

    expected = enlarged(three / "a.png")
    assert Run([three / "a.png"], tmp_path / "out", engine=Remover()).done() == (1, 0, 0)
    assert np.array_equal(pixels(tmp_path / "out" / "a.png"), expected)


def test_reading_computing_and_writing_overlap(three, tmp_path, monkeypatch):
    spans = {"read": [], "compute": [], "write": []}

    def slow(kind, call):
        def timed(*args, **kwargs):
            start = time.monotonic()
            time.sleep(0.15)
            try:
                return call(*args, **kwargs)
            finally:
                spans[kind].append((start, time.monotonic()))

        return timed

    class Slow(FakeEngine):
        compute = slow("compute", FakeEngine.compute)

    monkeypatch.setattr(room, "read_picture", slow("read", room.read_picture))
    monkeypatch.setattr(AtomicFile, "commit", slow("write", AtomicFile.commit))
    assert Run([three], tmp_path / "out", engine=Slow()).done() == (3, 0, 0)
    for earlier, later in (("compute", "read"), ("write", "compute")):
        for before, after in zip(spans[earlier], spans[later][1:], strict=False):
            assert after[0] < before[1], f"the next {later} waited for this {earlier}"


def test_a_model_that_cannot_be_opened_ends_the_run_at_once(three, tmp_path):
    run = Run([three], tmp_path / "out")
    opened = []

    def refuses():
        opened.append(1)
        raise UnsupportedError("no such device")

    run.run._open_restorer = refuses
    with pytest.raises(UnsupportedError):
        run.done()
    assert (len(opened), run.events) == (1, [])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("where", ["compute", "write"])
def test_a_picture_without_room_in_memory_is_told_and_the_rest_is_done(three, tmp_path, monkeypatch, where):
    class Small(FakeEngine):
        def compute(self, x):
            if where == "compute" and len(self.calls) == 2:
                raise MemoryError
            return super().compute(x)

    opener = room.open_writer

    def small(target, **rest):
        if target.name == "b.png":
            raise MemoryError
        return opener(target, **rest)

    if where == "write":
        monkeypatch.setattr(room, "open_writer", small)
    run = Run([three], tmp_path / "out", engine=Small())
    assert run.done() == (2, 0, 1)
    assert "not enough memory" in run.reasons()[0]
    assert files_in(tmp_path / "out") == ["a.png", "c.png"]


@pytest.mark.parametrize("at", [1, 2, 3])
def test_an_interruption_keeps_what_is_finished_and_leaves_nothing_else(three, tmp_path, at):
    class Interrupted(FakeEngine):
        def compute(self, x):
            if len(self.calls) == at:
                raise KeyboardInterrupt
            return super().compute(x)

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        Run([three], tmp_path / "out", engine=Interrupted()).done()
    assert time.monotonic() - start < 3
    assert files_in(tmp_path / "out") == ["a.png", "b.png", "c.png"][: at - 1]
    assert Run([three], tmp_path / "out").done() == (4 - at, at - 1, 0)


def test_a_band_that_cannot_be_written_ends_that_picture_only(three, tmp_path, monkeypatch):
    opener = room.open_writer

    def broken(target, **rest):
        if target.name == "a.png":
            raise WriteError("a.png: cannot be written")
        return opener(target, **rest)

    monkeypatch.setattr(room, "open_writer", broken)
    run = Run([three], tmp_path / "out", settings=UpscaleSettings(tile=32))
    assert run.done() == (2, 0, 1)


def test_an_output_that_cannot_be_is_refused_before_anything_is_read(three, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    run = Run([three], tmp_path / "file" / "out")
    with pytest.raises(WriteError, match="not a folder"):
        run.done()
    assert (run.opened, run.events) == (0, [])


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_without_the_right_to_write_is_refused_before_anything_is_read(three, tmp_path):
    (tmp_path / "out").mkdir(mode=0o500)
    run = Run([three], tmp_path / "out")
    with pytest.raises(WriteError, match="no permission"):
        run.done()
    assert run.opened == 0
