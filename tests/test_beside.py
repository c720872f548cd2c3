"""What is kept beside pictures: whose it is, when it gets its name, and what a kill at any moment leaves."""

import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from folder_run import Run, Sheets, enlarged, three_pictures
from PIL import Image
from tiny import files_in, noise, pixels, save_picture

from restorer.errors import UsageError
from restorer.pipeline.beside import Aside, check_names
from restorer.pipeline.codecs.atomic import AtomicFile, HiddenFolder, sweep
from restorer.pipeline.faces.beside import FaceKeeper
from restorer.pipeline.files import FileSettings, plan_jobs
from restorer.pipeline.journal import NAME, Journal

NAMES = ["a-x.png", "b-x.png", "c-x.png"]
SHEETS = [f"{name}.faces.png" for name in NAMES]
INPUTS = ["a.png", "b.png", "c.png"]


@pytest.fixture
def three(tmp_path):
    return three_pictures(tmp_path / "in")


def within(three, **files):
    """A run whose OUT is the folder of its inputs."""
    return Run([three], three, suffix="-x", recursive=True, **files)


def inputs_of(*inputs, out, **files):
    """What a run would read."""
    jobs = plan_jobs([str(path) for path in inputs], str(out), FileSettings(**files)).jobs
    return [job.source.relative_to(inputs[0]).as_posix() for job in jobs]


def is_sheet(path, seed=7):
    return np.array_equal(pixels(path), noise(seed=seed))


# A kill at any moment


class Killed(BaseException):
    """As kill -9."""


def dies_after(monkeypatch, count):
    """What brings something to the disk, or gives a name, goes well so often; then nobody does more, or cleans up."""
    done = []

    def counted(room, name):
        call = getattr(room, name)

        def step(*args, **options):
            if len(done) == count:
                raise Killed
            done.append(name)
            return call(*args, **options)

        monkeypatch.setattr(room, name, step)

    def only_closed(room, name, close):
        call = getattr(room, name)
        monkeypatch.setattr(room, name, lambda self: close(self) if len(done) == count else call(self))

    for room, name in ((HiddenFolder, "write"), (Journal, "add"), (Path, "replace")):
        counted(room, name)
    only_closed(AtomicFile, "abort", lambda file: file._open and file._close())
    only_closed(HiddenFolder, "remove", unlocked)


def unlocked(hidden):
    """As the system leaves a hidden folder whose writer was killed."""
    if hidden._open:
        hidden._open = False
        os.close(hidden._file)


@pytest.mark.parametrize("steps", range(12))
def test_a_kill_at_any_step_leaves_whole_files_and_the_next_run_goes_on(three, monkeypatch, steps):
    """Of each picture: its sheet to the disk, the journal's lines, the picture's name, the sheet's name."""
    with monkeypatch.context() as patch, pytest.raises(Killed):
        dies_after(patch, steps)
        within(three, keeper=Sheets()).done()
    there = [name for name in files_in(three) if not name.startswith(".")]
    sheets = [name for name in there if name in SHEETS]
    assert all(is_sheet(three / name) and name.removesuffix(".faces.png") in there for name in sheets)
    assert inputs_of(three, out=three, suffix="-x", recursive=True) == INPUTS
    again = within(three, keeper=Sheets())
    assert again.done() == (3 - len(sheets), len(sheets), 0)
    assert files_in(three) == sorted([*INPUTS, *NAMES, *SHEETS]), "and nothing hidden is left"
    assert all(is_sheet(three / name) for name in SHEETS)
    assert all(np.array_equal(pixels(three / f"{n}-x.png"), enlarged(three / f"{n}.png")) for n in "abc")
    assert within(three, keeper=Sheets()).done() == (0, 3, 0)


@pytest.mark.parametrize("steps", range(12))
def test_a_kill_while_older_files_are_replaced_leaves_them_ours(three, monkeypatch, steps):
    within(three, keeper=Sheets(seed=1)).done()
    with monkeypatch.context() as patch, pytest.raises(Killed):
        dies_after(patch, steps)
        within(three, keeper=Sheets(seed=2), quality=50).done()
    assert inputs_of(three, out=three, suffix="-x", recursive=True) == INPUTS
    assert within(three, keeper=Sheets(seed=3), weights="w2").done() == (3, 0, 0)
    assert all(is_sheet(three / name, seed=3) for name in SHEETS)


@pytest.mark.parametrize("steps", range(3))
def test_a_kill_in_a_run_of_one_file_is_no_reason_to_refuse_the_next(three, tmp_path, monkeypatch, steps):
    """Where no journal says whose a file is, a side file is there only if the picture is."""
    one, out = three / "a.png", tmp_path / "out" / "a.png"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        dies_after(patch, steps)
        Run([one], out, keeper=Sheets()).done()
    left = [path.name for path in out.parent.iterdir() if not path.name.startswith(".")]
    assert left == (["a.png"] if steps == 2 else [])
    assert Run([one], out, keeper=Sheets(), overwrite=steps == 2).done() == (1, 0, 0)
    assert is_sheet(tmp_path / "out" / "a.png.faces.png")


def test_an_interruption_leaves_nothing_under_any_name(three, monkeypatch):
    class Interrupted(Sheets):
        def keep(self, job, work, aside):
            super().keep(job, work, aside)
            if job.source.name == "b.png":
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        within(three, keeper=Interrupted()).done()
    assert files_in(three) == sorted([*INPUTS, NAMES[0], SHEETS[0]])
    assert within(three, keeper=Sheets()).done() == (2, 1, 0)


def test_a_disk_that_is_full_for_a_side_file_ends_the_run_and_leaves_nothing(three, monkeypatch):
    real = os.fsync

    def full(file):
        if ".beside." in str(Path(f"/proc/self/fd/{file}").readlink()):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(file)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        run = within(three, keeper=Sheets())
        summary = run.run.run()
    assert (summary.done, summary.failed, summary.left) == (0, 1, 2)
    assert "a-x.png.faces.png: cannot be written: the disk is full" in run.reasons()[0]
    assert files_in(three) == INPUTS
    assert within(three, keeper=Sheets()).done() == (3, 0, 0)


def test_hidden_folders_of_dead_writers_are_swept_and_those_of_live_ones_kept(tmp_path):
    live, dead = HiddenFolder(tmp_path), HiddenFolder(tmp_path)
    for hidden in (live, dead):
        hidden.write("a.png", b"whole")
    os.close(dead._file)
    (tmp_path / ".beside.1-0123abcd.part").mkdir()
    (tmp_path / ".beside.1-0123abcd.part" / "mine.png").write_bytes(b"by hand")
    (tmp_path / ".beside.2-0123abcd.part").mkdir()
    assert sweep(tmp_path) == 2
    live.hand_over()
    live.remove()
    assert files_in(tmp_path) == [".beside.1-0123abcd.part/mine.png", "a.png"]


def test_a_hidden_folder_swept_at_its_birth_is_made_again(tmp_path, monkeypatch):
    real, swept = os.open, []

    def late(path, *rest):
        if not swept:
            swept.append(sweep(tmp_path))
        return real(path, *rest)

    monkeypatch.setattr(os, "open", late)
    hidden = HiddenFolder(tmp_path)
    hidden.write("a.png", b"whole")
    hidden.hand_over()
    assert (swept, files_in(tmp_path)) == ([1], ["a.png"])


def test_many_files_wait_together(tmp_path):
    """More than a process may have open at once."""
    resource = pytest.importorskip("resource")
    aside, names = Aside(), [f"{number}.png" for number in range(100)]
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (len([*Path("/proc/self/fd").iterdir()]) + 20, limits[1]))
        for name in names:
            aside.add(tmp_path / name, name.encode())
        aside.end(whole=True)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert files_in(tmp_path) == sorted(names)
    assert (tmp_path / "7.png").read_bytes() == b"7.png"


# Whose a file is


@pytest.mark.parametrize("overwrite", [False, True])
def test_two_runs_into_one_folder_of_sheets_replace_nothing_unless_asked_to(three, tmp_path, overwrite):
    sheets = tmp_path / "sheets"
    assert Run([three], tmp_path / "one", keeper=Sheets(sheets, seed=1)).done() == (3, 0, 0)
    other = Run([three], tmp_path / "two", keeper=Sheets(sheets, seed=2), overwrite=overwrite)
    assert other.done() == ((3, 0, 0) if overwrite else (0, 0, 3))
    assert all(is_sheet(sheets / f"{name}.png.faces.png", seed=2 if overwrite else 1) for name in "abc")
    if not overwrite:
        assert "a.png.faces.png: exists, and is not as an earlier run made it; give --overwrite" in other.reasons()[0]
        assert not (tmp_path / "two" / "a.png").exists()
    assert Run([three], tmp_path / "one", keeper=Sheets(sheets)).done() == ((0, 0, 3) if overwrite else (0, 3, 0))


def test_a_dry_run_says_what_would_be_refused(three, tmp_path):
    save_picture(tmp_path / "out" / "b.png.faces.png")
    run = Run([three], tmp_path / "out", keeper=Sheets())
    assert (run.run.preview().planned, run.named("error")) == (2, ["b.png"])


def test_a_sheet_is_never_written_over_an_input_or_a_result(three, tmp_path):
    mine = save_picture(three / "a.png.faces.png", seed=5)
    beside = Run([three], tmp_path / "next", keeper=Sheets(), overwrite=True)
    assert beside.done() == (3, 0, 1)
    assert f"is the result of {mine}; give --suffix or another folder" in beside.reasons()[0]
    assert np.array_equal(pixels(tmp_path / "next" / "a.png.faces.png"), enlarged(mine))
    run = Run([three], tmp_path / "out", keeper=Sheets(three), overwrite=True)
    assert run.done() == (3, 0, 1)
    assert "is an input; give --suffix or another folder" in run.reasons()[0]
    assert is_sheet(mine, seed=5)


def named(*inputs, out, keeper, **files):
    settings = FileSettings(**files)
    check_names(plan_jobs([str(path) for path in inputs], str(out), settings), keeper, overwrite=settings.overwrite)


@pytest.mark.parametrize(("keeper", "suffix"), [(FaceKeeper(compare=True), "png"), (FaceKeeper(sidecar=True), "json")])
def test_names_that_meet_are_refused_before_any_work(three, tmp_path, monkeypatch, keeper, suffix):
    named(three, out=tmp_path / "out", keeper=keeper)
    monkeypatch.chdir(three)
    shutil.copy("b.png", f"a.png.faces.{suffix}")  # a file that is named is taken whatever it is called
    both = ("a.png", f"a.png.faces.{suffix}")
    if suffix == "png":
        with pytest.raises(UsageError, match=r"is the result of a\.png\.faces\.png; give --suffix or another folder"):
            named(*both, out="../out", keeper=keeper, overwrite=True)
        named(*both, out="../out", keeper=keeper, suffix="-x")
    with pytest.raises(UsageError, match="is an input"):
        shutil.copy("a.png", "../a.png")
        named("../a.png", f"a.png.faces.{suffix}", out=".", keeper=keeper, overwrite=True, suffix="-x")
        named("../a.png", f"a-x.png.faces.{suffix}", out=".", keeper=keeper, overwrite=True, suffix="-x")


def test_a_run_of_one_file_replaces_no_sheet_unless_asked_to(three, tmp_path):
    (tmp_path / "done.png.faces.json").write_text("mine")
    keeper = FaceKeeper(sidecar=True)
    with pytest.raises(UsageError, match=r"done\.png\.faces\.json: exists; give --overwrite"):
        named(three / "a.png", out=tmp_path / "done.png", keeper=keeper)
    named(three / "a.png", out=tmp_path / "done.png", keeper=keeper, overwrite=True)
    named(three / "a.png", out=tmp_path / "done.png", keeper=FaceKeeper(compare=True))


@pytest.mark.parametrize("out", [".", "./out", "out"])
def test_sub_folders_are_kept_apart_among_crops_wherever_out_is(three, tmp_path, monkeypatch, out):
    shutil.copytree(three, three / "deep" / "er")
    monkeypatch.chdir(tmp_path)
    keeper = FaceKeeper(crops="crops")
    jobs = plan_jobs(["in"], out, FileSettings(recursive=True, suffix="-x")).jobs
    crops = [keeper.crop_of(job, 1, "after").as_posix() for job in jobs]
    assert crops[0] == "crops/a-x.png-1-after.png"
    assert crops[3] == "crops/deep/er/a-x.png-1-after.png"
    assert {folder.as_posix() for job in jobs for folder in keeper.folders(job)} == {"crops", "crops/deep/er"}
    (one,) = plan_jobs(["in/a.png"], "out/b.png", FileSettings()).jobs
    (piped,) = plan_jobs(["in/a.png"], "-", FileSettings()).jobs
    assert keeper.crop_of(one, 2, "before").as_posix() == "crops/b.png-2-before.png"
    assert keeper.crop_of(piped, 2, "before").as_posix() == "crops/a.png-2-before.png"


# What counts as done


def test_a_picture_whose_sheet_is_gone_is_made_again(three):
    within(three, keeper=Sheets()).done()
    (three / SHEETS[1]).unlink()
    assert within(three).done()[1] == 0, "settings that want no sheet are others"
    shutil.rmtree(three)
    three_pictures(three)
    within(three, keeper=Sheets()).done()
    (three / SHEETS[1]).unlink()
    again = within(three, keeper=Sheets())
    assert (again.done(), again.named("result")) == ((1, 2, 0), ["b.png"])
    assert is_sheet(three / SHEETS[1])


def test_a_sheet_that_was_changed_by_hand_is_replaced_only_on_request(three):
    within(three, keeper=Sheets()).done()
    Image.fromarray(noise(seed=9)).save(three / SHEETS[1])
    aside = three.parent / "mine.png"
    shutil.move(three / SHEETS[1], aside)
    shutil.copy(aside, three / SHEETS[1])
    run = Run([three / name for name in INPUTS], three, suffix="-x", keeper=Sheets())
    assert run.done() == (0, 2, 1)
    assert "exists, and is not as an earlier run made it" in run.reasons()[0]
    assert (three / SHEETS[1]).read_bytes() == aside.read_bytes()
    assert Run([three / name for name in INPUTS], three, suffix="-x", keeper=Sheets(), overwrite=True).done()[0] == 3


# What is taken for an input


@pytest.mark.parametrize("sheets", ["a_first", "z_last"])
@pytest.mark.parametrize("out", ["b_out", "y_out"])
def test_sheets_are_passed_over_wherever_the_journal_lies(three, tmp_path, sheets, out):
    Run([three], tmp_path / "all" / out, keeper=Sheets(tmp_path / "all" / sheets)).done()
    found = inputs_of(tmp_path / "all", out=tmp_path / "next", recursive=True)
    assert found == [f"{out}/{name}" for name in INPUTS]


def test_sheets_are_passed_over_where_the_journal_lies_above_or_just_below(three, tmp_path):
    out, deep = tmp_path / "out", three / "deep"
    three_pictures(deep)
    Run([three], out, recursive=True, keeper=Sheets()).done()
    assert "a.png.faces.png" in files_in(out / "deep")
    assert inputs_of(out / "deep", out=tmp_path / "next") == INPUTS
    Run([three], three / "made", keeper=Sheets(three)).done()
    assert "a.png.faces.png" in files_in(three)
    assert inputs_of(three, out=tmp_path / "next") == INPUTS
    save_picture(out / "deep" / "a.png.faces.png", seed=9)
    assert inputs_of(out / "deep", out=tmp_path / "next") == ["a.png", "a.png.faces.png", "b.png", "c.png"]


def test_a_picture_of_one_s_own_under_a_sheet_s_name_is_taken(three):
    within(three, keeper=Sheets()).done()
    os.utime(three / SHEETS[0], ns=(1, 1))
    assert inputs_of(three, out=three, suffix="-x") == INPUTS
    save_picture(three / SHEETS[0], seed=9)
    assert inputs_of(three, out=three, suffix="-x") == [SHEETS[0], *INPUTS]
    run = within(three)
    assert (run.done()[0], pixels(three / "a-x.png.faces-x.png").shape) == (4, (96, 128, 3))


def test_sheets_of_an_older_journal_are_known_by_their_names(three):
    within(three, keeper=Sheets()).done()
    lines = (three / NAME).read_text().splitlines(keepends=True)
    (three / NAME).write_text("".join(line for line in lines if '"settings": ""' not in line))
    assert len(lines) == 6 and within(three, keeper=Sheets()).done() == (0, 3, 0)
    save_picture(three / SHEETS[0], seed=9)
    assert inputs_of(three, out=three, suffix="-x") == INPUTS


def test_what_is_passed_over_is_counted_and_said_once(three, tmp_path):
    Run([three], tmp_path / "out", keeper=Sheets()).done()
    for play in (lambda run: run.run.run(), lambda run: run.run.preview()):
        run = Run([tmp_path / "out"], tmp_path / "next", overwrite=True)
        play(run)
        notices = [event for event in run.events if event["event"] == "notice"]
        assert [(each["input"], each["reason"].split(":")[0]) for each in notices] == [
            (str(tmp_path / "out"), "3 files are passed over")
        ]
    plain = Run([three], tmp_path / "plain")
    plain.done()
    assert [event for event in plain.events if event["event"] == "notice"] == []


def test_a_named_folder_of_sheets_alone_is_taken_and_what_lies_among_pictures_is_not(three, tmp_path):
    Run([three], tmp_path / "out", keeper=Sheets(tmp_path / "out" / "sheets")).done()
    names = [f"{name}.faces.png" for name in INPUTS]
    assert inputs_of(tmp_path / "out" / "sheets", out=tmp_path / "next") == names
    save_picture(tmp_path / "out" / "sheets" / "mine.png")
    assert inputs_of(tmp_path / "out" / "sheets", out=tmp_path / "next") == ["mine.png"]
    (job,) = plan_jobs([str(tmp_path / "out" / "sheets" / names[0])], str(tmp_path / "next"), FileSettings()).jobs
    assert job.source.name == names[0], "a file that is named is taken"
