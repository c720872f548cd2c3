"""The command line: every mistake is one line and a status; what is asked for is there whole, or nothing is."""

import json
import os
import signal
import sys
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from tiny import files_in, noise, pixels, save_picture, save_tiny

from restorer import machine
from restorer.api import enhance
from restorer.apps.cli import main, screen
from restorer.pipeline.settings import UpscaleSettings


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """In a folder of its own, without network, and without the setting that holds for a whole process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RESTORER_OFFLINE", "1")
    monkeypatch.setenv("RESTORER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(machine, "keep_freed_memory", lambda: True)


@pytest.fixture
def cli(capsys, weights):
    """Run `restorer upscale` with the tiny model on the processor: (status, lines of stdout, lines of stderr)."""

    def run(*words):
        status = main(["upscale", "--model", weights, "--device", "cpu", *map(str, words)])
        told = capsys.readouterr()
        return status, told.out.splitlines(), told.err.splitlines()

    return run


def broken(name, content):
    return lambda: Path(name).write_bytes(content)


def half_a_picture():
    content = save_picture(Path("bad.png"), height=60, width=60).read_bytes()
    Path("bad.png").write_bytes(content[: len(content) // 2])


def unknown_weights():
    torch.save({"enc.0.w": torch.zeros(3), "enc.1.w": torch.zeros(3)}, "other.pth")


def not_finite():
    tifffile.imwrite("bad.tif", np.full((8, 8), np.nan, np.float32), photometric="minisblack")


def nothing():
    """No file is needed."""


MISTAKES = {
    # what is made first, the words after `upscale`, the status, and what the one line must hold
    "unknown model": (nothing, "a.png -o out.png --model realesrgan-x4plu", 1, "did you mean 'realesrgan-x4plus'?"),
    "missing model": (nothing, "a.png -o out.png --model gone.pth", 1, "no file 'gone.pth'"),
    "unknown weights": (
        unknown_weights,
        "a.png -o out.png --model other.pth",
        1,
        "other.pth: no network recognises these weights (first keys: enc.0.w, enc.1.w)",
    ),
    "weights that are no weights": (broken("b.pth", b"hello"), "a.png -o out.png --model b.pth", 1, "b.pth"),
    "truncated": (half_a_picture, "bad.png -o out.png", 1, "bad.png: cannot be decoded"),
    "no picture": (broken("bad.png", b"hello"), "bad.png -o out.png", 1, "bad.png: not a picture"),
    "empty": (broken("bad.png", b""), "bad.png -o out.png", 1, "bad.png: the file is empty"),
    "not finite": (not_finite, "bad.tif -o out.tif", 1, "bad.tif: has samples that are not finite"),
    "missing": (nothing, "gone.png -o out.png", 1, "gone.png: no such file"),
    "a name too long": (nothing, f"{'n' * 300}.png -o out.png", 2, "too long"),
    "folder for a file": (nothing, "folder -o out.png", 2, "out.png: is one file"),
    "two for one file": (nothing, "a.png b.png -o out.png", 2, "out.png: is one file"),
    "folder without pictures": (nothing, "folder -o out", 1, "folder: holds no pictures"),
    "the input itself": (nothing, "a.png -o a.png", 2, "a.png: is the input itself"),
    "the input's folder": (nothing, "a.png -o .", 2, "give --suffix"),
    "below a file": (nothing, "a.png -o a.png/x/out.png", 1, "a.png is not a folder"),
    "output is a file": (broken("notes", b""), "a.png -o notes", 2, "notes: is a file"),
    "output is there": (broken("there.png", b"mine"), "a.png -o there.png", 2, "there.png: exists; give --overwrite"),
    "not written": (nothing, "a.png -o out.gif", 2, "'.gif' files are not written"),
    "two formats": (nothing, "a.png -o out.png --format jpeg", 2, "suffix says otherwise"),
    "unknown format": (nothing, "a.png -o out --format gif", 2, "no format named 'gif'"),
    "alpha in JPEG": (nothing, "alpha.png -o out.jpg", 1, "alpha.png: JPEG holds no transparency"),
    "scale 0": (nothing, "a.png -o out.png --scale 0", 2, "scale must be a positive number, got 0"),
    "scale below 0": (nothing, "a.png -o out.png --scale -2", 2, "scale must be a positive number, got -2"),
    "scale in words": (nothing, "a.png -o out.png --scale big", 2, "'--scale'"),
    "scale nan": (nothing, "a.png -o out.png --scale nan", 2, "scale must be a positive number"),
    "absurd": (nothing, "a.png -o out.png --scale 10000", 1, "a.png: the output would be 320000x240000"),
    "absurd, the limit": (nothing, "a.png -o out.png --width 90000", 1, "(6075 megapixels), the limit is 1000"),
    "input too large": (nothing, "a.png -o out.png --max-megapixels-in 0.0001", 1, "a.png: "),
    "two size rules": (nothing, "a.png -o out.png --scale 2 --width 9", 2, "scale and width/height"),
    "small tile": (nothing, "a.png -o out.png --tile 5", 2, "tile must be 0 (the whole picture) or at least 32, got 5"),
    "tile in words": (nothing, "a.png -o out.png --tile big", 2, "tile takes auto, 0 or a number of pixels, got 'big'"),
    "strength": (nothing, "a.png -o out.png --strength 2", 2, "strength must be between 0 and 1, got 2"),
    "no pair": (nothing, "a.png -o out.png --denoise 0.5", 2, "--denoise needs a model that comes as a pair"),
    "no CUDA": (nothing, "a.png b.png -o out --device cuda:7", 1, "no CUDA device is here; use --device cpu"),
    "unknown device": (nothing, "a.png -o out.png --device tpu", 2, "no device named 'tpu'"),
    "fp16 on a processor": (nothing, "a.png -o out.png --precision fp16", 1, "use --precision auto, bf16 or fp32"),
    "unknown precision": (nothing, "a.png -o out.png --precision fp8", 2, "no precision named 'fp8'"),
    "a fact without a value": (nothing, "a.png -o out.png --fact activation", 2, "--fact takes key=value"),
    "unknown option": (nothing, "a.png -o out.png --scal 2", 2, "--scal"),
    "no output": (nothing, "a.png", 2, "--out"),
    "stdout twice": (nothing, "a.png -o - --json", 2, "both want standard output"),
    "stdin twice": (nothing, "- - -o out", 2, "name - once"),
    "weights elsewhere": (nothing, "a.png -o out.png --model bsrgan-x4", 1, "restorer models fetch bsrgan-x4"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_a_status_and_nothing_else(tmp_path, cli, mistake):
    if mistake == "no CUDA" and torch.cuda.is_available():
        pytest.skip("CUDA is here")
    make, words, status, told = MISTAKES[mistake]
    save_picture(tmp_path / "a.png")
    save_picture(tmp_path / "b.png")
    save_picture(tmp_path / "alpha.png", channels=4)
    (tmp_path / "folder").mkdir()
    make()
    before = {name: (tmp_path / name).read_bytes() for name in files_in(tmp_path)}
    got, out, err = cli(*words.split())
    assert (got, out, len(err)) == (status, [], 1)
    assert err[0].startswith("restorer: ")
    assert told in err[0]
    assert {name: (tmp_path / name).read_bytes() for name in files_in(tmp_path)} == before
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("words", [["nosuch"], ["models", "nosuch"], ["models", "info", "nosuch"], ["doctor", "x"]])
def test_wrong_words_are_one_line(capsys, words):
    assert main(words) in (1, 2)
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("restorer: ")
    assert told.err.count("\n") == 1


# ---- what is asked for


def test_a_picture_is_what_the_python_door_gives(tmp_path, cli, weights):
    save_picture(tmp_path / "a.png")
    status, out, err = cli("a.png", "-o", "new/big.png", "--precision", "fp32")
    assert (status, out, len(err)) == (0, [], 1)
    assert err[0].startswith("restorer: a.png -> new/big.png: 128x96 by ")
    same = enhance(noise(), model=weights, settings=UpscaleSettings(precision="fp32", device="cpu"))
    assert np.array_equal(pixels("new/big.png"), same)


def test_every_look_option_reaches_the_picture(tmp_path, cli):
    save_picture(tmp_path / "a.png")
    seen = set()
    for words in ("", "--strength 0.5", "--keep-colour", "--wrap", "--scale 3", "--long-side 100", "--megapixels 0.01"):
        assert cli("a.png", "-o", "b.png", "--overwrite", "--precision", "fp32", *words.split())[0] == 0
        seen.add(pixels("b.png").tobytes())
    assert len(seen) == 7


def test_a_folder_with_a_bad_file_ends_with_one_and_says_how_it_went(tmp_path, cli):
    for seed, name in enumerate("ab"):
        save_picture(tmp_path / "in" / f"{name}.png", seed=seed)
    (tmp_path / "in" / "bad.png").write_bytes(b"hello")
    status, _, err = cli("in", "-o", "out")
    assert status == 1
    assert [line for line in err if "bad.png" in line] == [line for line in err if "not a picture" in line]
    assert err[-1] == "restorer: 2 done, 1 failed, 0 skipped"
    (tmp_path / "in" / "bad.png").unlink()
    assert cli("in", "-o", "out") == (0, [], ["restorer: 0 done, 0 failed, 2 skipped"])


def test_quiet_says_errors_only(tmp_path, cli):
    save_picture(tmp_path / "a.png")
    assert cli("a.png", "-o", "b.jpg", "--quiet") == (0, [], [])
    status, out, err = cli("a.png", "gone.png", "-o", "out", "-q")
    assert (status, out, len(err)) == (1, [], 1)


def test_json_lines_say_everything(tmp_path, cli, weights):
    save_picture(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "bad\n.png").write_bytes(b"hello")
    status, out, err = cli("in", "-o", "out", "--json", "--precision", "fp32")
    events = [json.loads(line) for line in out]
    assert (status, len(err)) == (1, 1)
    kinds = [event["event"] for event in events]
    assert set(kinds) == {"model", "plan", "progress", "result", "error", "summary"}
    result = events[kinds.index("result")]
    assert result | {
        "input": "in/a.png", "output": "out/a.png", "model": weights, "engine": "eager", "precision": "fp32",
        "device": "cpu", "size_in": [32, 24], "size_out": [128, 96], "tile": [32, 24], "tiles": 1, "passes": 1,
    } == result  # fmt: skip
    assert result["megapixels_per_second"] * result["seconds"] == pytest.approx(0.012288, abs=0.006)
    progress = events[kinds.index("progress")]
    assert (progress["done"], progress["total"], progress["megapixels"]) == (768, 768, 0.012288)
    error = events[kinds.index("error")]
    assert error["input"] == "in/bad\\n.png"
    assert error["reason"].startswith("in/bad\\n.png: not a picture")
    assert events[-1] == {"event": "summary", "done": 1, "failed": 1, "skipped": 0, "left": 0, "planned": 0}
    _, out, _ = cli("in/a.png", "-o", "out", "--json")
    assert [json.loads(line)["event"] for line in out] == ["model", "plan", "progress", "result", "summary"]


def test_json_says_too_why_a_whole_run_failed(cli):
    status, out, err = cli("gone.png", "-o", "out.png", "--json", "--model", "nosuch")
    assert (status, len(err)) == (1, 1)
    assert json.loads(out[0]) == {"event": "error", "input": None, "reason": err[0].removeprefix("restorer: ")}


def test_a_dry_run_says_the_plan_and_writes_nothing(tmp_path, cli):
    save_picture(tmp_path / "in" / "a.png", height=300, width=200)
    save_picture(tmp_path / "in" / "b.png")
    status, out, err = cli("in", "-o", "out", "--dry-run", "--tile", "100", "--scale", "5", "--precision", "fp32")
    assert (status, out) == (0, [])
    assert err[0].startswith("restorer: in/a.png -> out/a.png: 200x300 to 1000x1500 by ")
    # the second pass takes 800x1200 to 3200x4800
    assert " in fp32 on cpu, 96 tiles of 100x100, 2 passes, about " in err[0]
    assert err[1].startswith("restorer: in/b.png -> out/b.png: 32x24 to 160x120 by ")
    assert err[2].startswith("restorer: takes about ")
    assert err[3] == "restorer: 2 to do, 0 would fail, 0 done before"
    _, out, err = cli("in", "-o", "out", "--dry-run", "--json")
    assert [json.loads(line)["event"] for line in out] == ["model", "plan", "plan", "estimate", "summary"]
    assert err == []
    assert files_in(tmp_path) == ["in/a.png", "in/b.png"]
    assert not (tmp_path / "out").exists()


def test_a_dry_run_downloads_nothing(tmp_path, cli, monkeypatch):
    monkeypatch.delenv("RESTORER_OFFLINE")
    save_picture(tmp_path / "a.png")
    status, _, err = cli("a.png", "-o", "b.png", "--dry-run", "--model", "bsrgan-x4")
    assert status == 1
    assert "restorer models fetch bsrgan-x4" in err[0]
    assert not (tmp_path / "cache").exists()


def test_the_bar_counts_megapixels_of_the_output(tmp_path, cli, monkeypatch):
    class Terminal(StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "150")
    monkeypatch.setattr(sys, "stderr", Terminal())
    save_picture(tmp_path / "in" / "a.png", height=100, width=250)
    save_picture(tmp_path / "in" / "b.png", height=100, width=250)
    assert cli("in", "-o", "out", "--tile", "50")[0] == 0
    told = sys.stderr.getvalue()
    assert "of 0.40 MP" in told  # 1000 x 400
    assert "MP/s" in told
    assert "restorer: 2 done, 0 failed, 0 skipped" in told


def test_one_command_changes_nothing_for_the_next(cli):
    def seen():
        handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        return handlers, os.fstat(2).st_ino, sys.stderr, screen.logging.getLogger("restorer").handlers

    before = seen()
    cli("gone.png", "-o", "out.png")
    assert seen() == before


def test_warnings_of_the_library_are_told_once_and_as_ours(tmp_path, cli, monkeypatch, weights):
    monkeypatch.setenv("RESTORER_WEIGHTS", "nowhere")
    save_picture(tmp_path / "a.png")
    for _ in range(2):
        _, _, err = cli("a.png", "-o", "out.png", "--model", "bsrgan-x4")
        assert err[0] == "restorer: RESTORER_WEIGHTS names nowhere, which is not a folder"
        assert len(err) == 2
