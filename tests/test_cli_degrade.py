"""restorer degrade: small pictures to train with, sheets to judge numbers by, and mistakes in one line."""

import numpy as np
import pytest
from tiny import pixels

from restorer.apps.cli import main
from restorer.pipeline.picture import Picture, write_picture


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    write_picture(Picture(pixels=noise), tmp_path / "a.png")
    write_picture(Picture(pixels=noise[:3, :3].copy()), tmp_path / "small.png")
    return tmp_path


def run(capsys, *words):
    """(status, lines of stdout, lines of stderr)"""
    status = main(["degrade", *words])
    told = capsys.readouterr()
    return status, told.out.splitlines(), told.err.splitlines()


def test_a_picture_becomes_a_small_bad_one_and_the_same_one_again(capsys, folder):
    assert run(capsys, "a.png", "-o", "one") == (0, ["one/a.png"], [])
    assert run(capsys, "a.png", "-o", "two")[0] == run(capsys, "a.png", "-o", "three", "--seed", "1")[0] == 0
    assert run(capsys, "a.png", "-o", "named.png")[0] == 0
    one, two, three = (pixels(folder / name / "a.png") for name in ("one", "two", "three"))
    assert np.array_equal(one, pixels(folder / "named.png"))
    assert one.shape == (12, 17, 3)
    assert np.array_equal(one, two)
    assert not np.array_equal(one, three)


def test_a_sheet_shows_twelve_cells_and_tells_what_was_drawn(capsys, folder):
    status, out, err = run(capsys, "a.png", "-o", "sheet.png", "--preview", "--recipe", "realesrgan_x2")
    assert (status, err) == (0, [])
    assert len(out) == 12
    assert out[1].startswith(" 1  first: blur ")
    assert pixels(folder / "sheet.png").shape == (3 * 50 + 2 * 4, 4 * 70 + 3 * 4, 3)


def test_numbers_are_set_by_name(capsys):
    quiet = ["--set", "degradation.first.jpeg=[100, 100]", "--set", "degradation.second.jpeg=[100, 100]"]
    status, out, _ = run(capsys, "a.png", "-o", "sheet.png", "--preview", *quiet)
    assert (status, len(out)) == (0, 12)
    assert all(line.count("jpeg 100") == 2 for line in out[1:])


def test_what_cannot_be_done_is_told_and_the_rest_is_done(capsys, folder):
    status, out, err = run(capsys, "small.png", "a.png", "-o", "out")
    assert (status, out) == (1, ["out/a.png"])
    assert err == ["restorer: small.png: is smaller than the scale, 4"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a.png", "-o", "x", "--recipe", "srgan_x4"], "srgan_x4 degrades nothing"),
        (["a.png", "-o", "x", "--set", "degradation.first.nois=1"], "did you mean 'noise'"),
        (["a.png", "-o", "a.png"], "is the input itself"),
        (["a.png", "-o", "there"], "there/a.png: exists; give --overwrite"),
        (["-", "-o", "x.png"], "reads and writes files"),
        (["a.png", "-o", "x.jpg"], "are written as PNG"),
        (["a.png", "-o", "x", "--set", "degradation.kind=face"], "for networks of scale 1"),
        (["a.png", "-o", "x", "--set", "degradation.first.directions=[0.333333, 0.333333, 0.333333]"], "add up to 1"),
    ],
)
def test_mistakes_are_one_line(capsys, folder, words, message):
    (folder / "there").mkdir()
    (folder / "there" / "a.png").touch()
    status, out, err = run(capsys, *words)
    assert (status, out, len(err)) == (2, [], 1)
    assert message in err[0]
