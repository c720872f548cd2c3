"""What a folder run remembers: whole lines, in order, and whether a file is still what it was."""

import json
import os
import threading

import pytest

from restorer.errors import WriteError
from restorer.pipeline.journal import NAME, Entry, Journal, sha256, stamp


def entry(output, source=None, made=None, **rest):
    """A line about files as they are now."""
    facts = {
        "input": str(source or "in.png"),
        "input_sha256": sha256(source) if source else "",
        "input_stamp": stamp(source) if source else (0, 0),
        "output_sha256": sha256(made) if made else "",
        "output_stamp": stamp(made) if made else (0, 0),
        "settings": "s1",
        "weights": "w1",
    }
    return Entry(output=output, **facts | rest)


@pytest.fixture
def done(tmp_path):
    """A journal that knows one finished picture, and how to ask for it."""
    source, output = tmp_path / "in.png", tmp_path / "out" / "in.png"
    output.parent.mkdir()
    source.write_bytes(b"input")
    output.write_bytes(b"output")
    Journal(output.parent).add(entry("in.png", source, output))
    return {"source": source, "output": output, "name": "in.png", "settings": "s1", "weights": "w1"}


def is_done(asked, **changed):
    return Journal(asked["output"].parent).done(**asked | changed)


def later(path):
    """Give a file another modification time."""
    os.utime(path, ns=(1, 1))


def test_a_finished_picture_is_known(done):
    assert is_done(done)


@pytest.mark.parametrize("changed", [{"settings": "s2"}, {"weights": "w2"}, {"name": "other.png"}])
def test_other_settings_weights_or_names_are_not_known(done, changed):
    assert not is_done(done, **changed)


@pytest.mark.parametrize("which", ["source", "output"])
def test_a_file_of_another_time_but_the_same_bytes_is_the_same(done, which):
    later(done[which])
    assert is_done(done)


@pytest.mark.parametrize("which", ["source", "output"])
@pytest.mark.parametrize("content", [b"INPUT", b"OUTPUT", b"longer than either", b""])
def test_a_file_of_other_bytes_is_another(done, which, content):
    done[which].write_bytes(content)
    later(done[which])
    assert not is_done(done)


@pytest.mark.parametrize("which", ["source", "output"])
def test_a_file_that_is_gone_is_not_done(done, which):
    done[which].unlink()
    assert not is_done(done)


def test_an_input_that_changed_while_it_was_read_is_never_done(done):
    journal = Journal(done["output"].parent)
    journal.add(entry("in.png", done["source"], done["output"], input_sha256=""))
    later(done["source"])
    assert not is_done(done)


def test_the_last_line_of_an_output_wins(done):
    journal = Journal(done["output"].parent)
    journal.add(entry("in.png", done["source"], done["output"], settings="s2"))
    assert is_done(done, settings="s2")
    assert not is_done(done)
    journal.add(entry("in.png", done["source"], state="failed", reason="no room"))
    assert not is_done(done, settings="s2")


def test_a_file_that_any_run_made_is_ours(done):
    """Between a new line and the new file's name the old file is still there, and still ours."""
    journal, output = Journal(done["output"].parent), done["output"]
    journal.add(entry("in.png", done["source"], output, settings="s2", output_sha256="0" * 64, output_stamp=(9, 9)))
    assert journal.made(output=output, name="in.png")
    output.write_bytes(b"by hand")
    assert not journal.made(output=output, name="in.png")
    assert not journal.made(output=output, name="other.png")


def test_a_failed_attempt_makes_no_file_ours(tmp_path):
    (tmp_path / "a.png").write_bytes(b"by hand")
    journal = Journal(tmp_path)
    journal.add(entry("a.png", made=tmp_path / "a.png", state="failed"))
    assert not journal.made(output=tmp_path / "a.png", name="a.png")
    assert journal.outputs == {"a.png"}


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.99])
def test_a_torn_last_line_costs_that_line_only(done, kept, caplog):
    path = done["output"].parent / NAME
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: int(len(whole) * kept)].rstrip(b"\n"))
    assert is_done(done)
    assert ("1 lines that are not whole" in caplog.text) == (kept > 0)
    Journal(path.parent).add(entry("after.png"))
    assert Journal(path.parent).outputs == {"in.png", "after.png"}
    assert path.read_bytes().endswith(b"}\n")


@pytest.mark.parametrize(
    "line",
    [
        b"\xff\xfe\x00", b"[]", b"7", b"null", b'"text"', b"{}", b'{"output": "x"}', b"{" * 5000,
        b'{"input_stamp": 3, "output_stamp": [1, 2]}', b"\x00" * 100,
    ],
)  # fmt: skip
def test_foreign_lines_are_passed_over(done, line, caplog):
    path = done["output"].parent / NAME
    path.write_bytes(line + b"\n" + path.read_bytes())
    assert is_done(done)
    assert "not whole" in caplog.text


def test_lines_with_fields_of_another_version_are_passed_over(done, caplog):
    path = done["output"].parent / NAME
    fields = json.loads(path.read_bytes())
    for strange in ({"extra": 1}, {"output": ["in.png"]}, {"input_stamp": [1, 2, 3]}, {"beside": [1]}, {"beside": 7}):
        path.write_text(json.dumps(fields | strange) + "\n")
        assert not is_done(done)
    assert caplog.text.count("not whole") == 5


def test_what_is_kept_beside_is_known_and_older_lines_know_of_none(done, tmp_path):
    out = done["output"].parent
    journal = Journal(out)
    assert journal.beside == frozenset()
    names = tuple(
        journal.named(path) for path in (out / "in.png.faces.png", out / "x" / ".." / "c.png", tmp_path / "d")
    )
    assert names == ("in.png.faces.png", "c.png", str(tmp_path / "d"))
    journal.add(entry("in.png", beside=names, state="failed"))
    journal.add(entry("in.png", done["source"], done["output"]))
    assert Journal(out).beside == set(names)
    assert Journal(out).outputs == {"in.png"}
    fields = json.loads((out / NAME).read_text().splitlines()[0])
    del fields["beside"]
    (out / NAME).write_text(json.dumps(fields) + "\n")
    assert is_done(done)


def test_a_side_file_is_known_by_its_line_and_without_one_by_its_name(done):
    out = done["output"].parent
    sheet = out / "in.png.faces.png"
    sheet.write_bytes(b"sheet")
    picture = entry("in.png", done["source"], done["output"], beside=(sheet.name,))
    journal = Journal(out)
    journal.add(picture)
    assert Journal(out).keeps(sheet.name) and is_done(done)
    journal.add(entry(sheet.name, done["source"], sheet, settings=""), picture)
    later(sheet)
    assert Journal(out).keeps(sheet.name) and is_done(done)
    sheet.write_bytes(b"SHEET")
    assert not Journal(out).keeps(sheet.name)
    assert not is_done(done)
    assert not Journal(out).keeps("other.png")


@pytest.mark.parametrize("told", [False, True])
def test_a_picture_whose_side_file_is_gone_is_not_done(done, told):
    out = done["output"].parent
    sheet = out / "in.png.faces.png"
    sheet.write_bytes(b"sheet")
    lines = [entry(sheet.name, done["source"], sheet, settings="")] if told else []
    Journal(out).add(*lines, entry("in.png", done["source"], done["output"], beside=(sheet.name,)))
    assert is_done(done)
    sheet.unlink()
    assert not is_done(done)


def test_a_side_file_is_no_result(done):
    out = done["output"].parent
    sheet = out / "in.png.faces.png"
    sheet.write_bytes(b"sheet")
    Journal(out).add(entry(sheet.name, done["source"], sheet, settings=""))
    assert (Journal(out).outputs, Journal(out).beside) == ({"in.png"}, {sheet.name})
    assert not Journal(out).made(output=sheet, name=sheet.name)


def test_lines_of_side_files_have_the_fields_that_programs_know(done):
    """Whoever read a journal before there were such lines takes no line with a field more or less."""
    out = done["output"].parent
    Journal(out).add(entry("a.png.faces.png", settings=""), entry("a.png", beside=("a.png.faces.png",)))
    known = {
        "input", "output", "input_sha256", "input_stamp", "settings", "weights", "engine", "precision",
        "output_sha256", "output_stamp", "beside", "seconds", "state", "reason",
    }  # fmt: skip
    lines = [json.loads(line) for line in (out / NAME).read_text().splitlines()]
    assert [set(line) for line in lines] == [known] * 3


def test_a_line_is_one_json_object_with_hashes_seconds_and_state(done):
    fields = json.loads((done["output"].parent / NAME).read_text())
    assert fields["input"].endswith("in.png")
    # as sha256sum says
    assert fields["input_sha256"] == "c96c6d5be8d08a12e7b5cdc1b207fa6b2430974c86803d8891675e76fd992c20"
    assert fields["output_sha256"] == "e0ee8bb50685e05fa0f47ed04203ae953fdfd055f5bd2892ea186504254f8c3a"
    assert (fields["state"], fields["settings"], fields["weights"]) == ("done", "s1", "w1")
    assert {"seconds", "reason", "input_stamp", "output_stamp"} <= set(fields)


def test_names_of_any_bytes_survive(tmp_path):
    name = os.fsdecode(b"caf\xe9 \n \xf0\x9f\x8c\xb3.png")
    Journal(tmp_path).add(entry(name))
    assert Journal(tmp_path).outputs == {name}
    assert (tmp_path / NAME).read_bytes().count(b"\n") == 1


def test_the_folder_is_made_with_the_first_line_and_not_before(tmp_path):
    journal = Journal(tmp_path / "new" / "deep")
    assert not (tmp_path / "new").exists()
    journal.add(entry("a.png"))
    assert (tmp_path / "new" / "deep" / NAME).is_file()


def test_lines_from_many_threads_stay_whole(tmp_path):
    journals = [Journal(tmp_path) for _ in range(4)]
    threads = [
        threading.Thread(target=lambda k=k: [journals[k].add(entry(f"{k}-{i}.png")) for i in range(10)])
        for k in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(Journal(tmp_path).outputs) == 40


def test_a_journal_that_cannot_be_written_or_read_is_refused_in_one_line(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(WriteError, match="cannot be written"):
        Journal(tmp_path / "file").add(entry("a.png"))
    (tmp_path / NAME).mkdir()
    with pytest.raises(WriteError, match="cannot be read"):
        Journal(tmp_path)
