"""Which files a run reads and writes."""

import pytest

from restorer.errors import PictureError, UsageError
from restorer.pipeline.files import FileSettings, output_format, plan_jobs


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return folder


def outputs(jobs):
    return {job.source.name if job.source else "-": job.name for job in jobs.jobs}


def test_a_folder_is_mirrored_and_other_files_are_passed_over(tmp_path):
    touch(tmp_path / "in", "a.png", "b.JPG", "notes.txt", "Thumbs.db", ".hidden.png", "deep/c.tif")
    jobs = plan_jobs([str(tmp_path / "in")], str(tmp_path / "out"), FileSettings())
    assert outputs(jobs) == {"a.png": "a.png", "b.JPG": "b.JPG"}
    jobs = plan_jobs([str(tmp_path / "in")], str(tmp_path / "out"), FileSettings(recursive=True))
    assert outputs(jobs)["c.tif"] == "deep/c.tif"


def test_formats_that_are_not_written_become_png(tmp_path):
    touch(tmp_path, "a.gif", "b.bmp", "c.webp")
    jobs = plan_jobs([str(tmp_path / n) for n in ("a.gif", "b.bmp", "c.webp")], str(tmp_path / "out"), FileSettings())
    assert outputs(jobs) == {"a.gif": "a.png", "b.bmp": "b.png", "c.webp": "c.webp"}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("a.png", "a.jpg"), {"a.png": "a.png", "a.jpg": "a.jpg"}),
        (("a.bmp", "a.gif"), {"a.bmp": "a.bmp.png", "a.gif": "a.gif.png"}),
        (("a.png", "a.bmp"), {"a.png": "a.png.png", "a.bmp": "a.bmp.png"}),
        (("A.png", "a.png"), {"A.png": "A.png.png", "a.png": "a.png~2.png"}),
    ],
)
def test_two_inputs_never_share_an_output(tmp_path, names, expected):
    touch(tmp_path / "in", *names)
    assert outputs(plan_jobs([str(tmp_path / "in")], str(tmp_path / "out"), FileSettings())) == expected


def test_several_folders_are_kept_apart_by_their_names(tmp_path):
    touch(tmp_path, "x/a.png", "y/a.png")
    jobs = plan_jobs([str(tmp_path / "x"), str(tmp_path / "y")], str(tmp_path / "out"), FileSettings())
    assert [job.name for job in jobs.jobs] == ["x/a.png", "y/a.png"]


def test_suffix_and_format_make_the_name(tmp_path):
    touch(tmp_path / "in", "a.jpg")
    jobs = plan_jobs([str(tmp_path / "in")], str(tmp_path / "out"), FileSettings(suffix="-x4", format="webp"))
    assert outputs(jobs) == {"a.jpg": "a-x4.webp"}


def test_out_inside_the_input_folder_is_not_walked(tmp_path):
    touch(tmp_path, "a.png", "out/old.png")
    jobs = plan_jobs([str(tmp_path)], str(tmp_path / "out"), FileSettings(recursive=True))
    assert outputs(jobs) == {"a.png": "a.png"}


def test_an_output_beside_its_input_needs_a_suffix(tmp_path):
    touch(tmp_path, "a.png")
    with pytest.raises(UsageError, match="--suffix"):
        plan_jobs([str(tmp_path)], str(tmp_path), FileSettings())
    assert outputs(plan_jobs([str(tmp_path)], str(tmp_path), FileSettings(suffix="-big"))) == {"a.png": "a-big.png"}


def test_an_output_never_takes_the_name_of_an_input(tmp_path):
    touch(tmp_path, "a.png", "a-big.png")
    with pytest.raises(UsageError, match="is an input too"):
        plan_jobs([str(tmp_path)], str(tmp_path), FileSettings(suffix="-big"))


@pytest.mark.parametrize(
    ("inputs", "out", "files", "words"),
    [
        ([], "out", {}, "no input"),
        (["a.png", "b.png"], "x.png", {}, "several pictures"),
        (["."], "x.png", {}, "several pictures"),
        (["a.png"], "x.gif", {}, "not written"),
        (["a.png"], "a.png", {}, "input itself"),
        (["a.png"], "b.png", {}, "exists; give --overwrite"),
        (["a.png"], "x.png", {"format": "jpeg"}, "suffix says otherwise"),
        (["."], "notes", {}, "is a file"),
    ],
)
def test_wrong_usage_is_refused_with_the_cure(tmp_path, monkeypatch, *, inputs, out, files, words):
    touch(tmp_path, "a.png", "b.png", "notes")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=words):
        plan_jobs(inputs, out, FileSettings(**files))


def test_an_existing_output_may_be_replaced_on_request(tmp_path):
    touch(tmp_path, "a.png", "b.png")
    jobs = plan_jobs([str(tmp_path / "a.png")], str(tmp_path / "b.png"), FileSettings(overwrite=True))
    assert jobs.folder is None
    assert jobs.jobs[0].output == tmp_path / "b.png"


def test_a_folder_without_pictures_is_an_error_that_names_the_cure(tmp_path):
    touch(tmp_path / "in", "notes.txt", "deep/a.png")
    with pytest.raises(PictureError, match="--recursive"):
        plan_jobs([str(tmp_path / "in")], str(tmp_path / "out"), FileSettings())


def test_standard_input_and_output_are_named_by_a_dash(tmp_path):
    jobs = plan_jobs(["-"], "-", FileSettings())
    assert (jobs.jobs[0].source, jobs.jobs[0].output) == (None, None)
    assert output_format(jobs.jobs[0], FileSettings()) == "PNG"
    assert output_format(jobs.jobs[0], FileSettings(format="jpg")) == "JPEG"


@pytest.mark.parametrize("bad", [{"format": "gif"}, {"quality": 0}, {"quality": 101}, {"suffix": "a/b"}])
def test_file_settings_refuse_by_name(bad):
    with pytest.raises(UsageError, match=next(iter(bad))):
        FileSettings(**bad)
