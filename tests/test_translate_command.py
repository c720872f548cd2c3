"""The command restorer translate: what it says ran, what it is not for, and what files keep of their colours."""

import json

import numpy as np
import pytest
from cases import Case, random_network
from PIL import Image
from test_translate import CASES as COMMON
from test_translate import SHAPE, photo
from tiny import pixels

from restorer import Faces, FaceSettings, Restorer, Translator, UpscaleSettings, read_picture
from restorer.apps.cli import main
from restorer.errors import UsageError
from restorer.networks import NETWORKS
from restorer.networks.cyclegan import CycleGANConfig
from restorer.networks.spec import get_spec
from restorer.pipeline.settings import TranslateSettings
from restorer.weights.records import CHECKPOINTS, check_command
from restorer.weights.safe import write_safetensors

THERE, BACK = "cyclegan-horse2zebra", "cyclegan-zebra2horse"
GREY = Case("cyclegan", CycleGANConfig(features=8, blocks=1, out_channels=1), SHAPE, SHAPE)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a picture, and with weights under the names of published ones."""
    weights = tmp_path / "weights"
    weights.mkdir()
    there = dict(random_network(COMMON["cyclegan"]).state_dict())
    back = {**there, "last.bias": there["last.bias"] + 0.5}
    for name, tensors in ((THERE, there), (BACK, back), ("generator-a2b", there), ("generator-b2a", back)):
        write_safetensors(weights / f"{name}.safetensors", tensors, {})
    write_safetensors(weights / "grey.safetensors", dict(random_network(GREY).state_dict()), {})
    monkeypatch.setenv("RESTORER_WEIGHTS", str(weights))
    monkeypatch.setenv("RESTORER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RESTORER_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    Image.fromarray(photo(24, 28)).save(tmp_path / "a.png")
    return tmp_path


# What ran


@pytest.mark.parametrize(
    ("asked", "ran"),
    [
        (THERE, BACK),
        ("zebra2horse", THERE),
        ("weights/generator-a2b.safetensors", "weights/generator-b2a.safetensors"),
    ],
)
def test_the_way_back_is_told_under_the_name_of_the_model_that_ran(here, capsys, asked, ran):
    assert main(["translate", "a.png", "-o", "b.png", "--model", asked, "--direction", "b2a", "--json"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    named = {event["event"]: event["model"] for event in events if "model" in event}
    assert {"model", "plan", "result"} <= named.keys()
    assert set(named.values()) == {ran}
    assert asked not in json.dumps(events)
    assert main(["translate", "a.png", "-o", "plain.png", "--model", ran, "--quiet"]) == 0
    assert np.array_equal(pixels("b.png"), pixels("plain.png"))
    assert main(["translate", "a.png", "-o", "other.png", "--model", asked, "--quiet"]) == 0
    assert not np.array_equal(pixels("b.png"), pixels("other.png"))


def test_the_way_back_and_its_own_name_are_one_to_the_journal(here, capsys):
    (here / "in").mkdir()
    (here / "a.png").rename(here / "in" / "a.png")
    assert main(["translate", "in", "-o", "out", "--model", THERE, "--direction", "b2a", "--json"]) == 0
    assert '"done": 1' in capsys.readouterr().out
    assert main(["translate", "in", "-o", "out", "--model", BACK, "--json"]) == 0
    assert '"skipped": 1' in capsys.readouterr().out


def test_of_pairs_the_direction_still_chooses_the_half_and_the_model_stays(here, capsys):
    words = ["translate", "a.png", "--model", THERE, "--pair", "--json"]
    for direction in ("a2b", "b2a"):
        assert main([*words, "-o", f"{direction}.png", "--direction", direction]) == 0
        events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert {event["model"] for event in events if "model" in event} == {THERE}
    made = [pixels(f"{direction}.png") for direction in ("a2b", "b2a")]
    assert made[0].shape == made[1].shape == (24, 14, 3)
    assert not np.array_equal(*made)


@pytest.mark.parametrize("model", [".", "..", "/", "./"])
def test_the_way_back_of_no_file_is_one_line(here, capsys, model):
    assert main(["translate", "a.png", "-o", "b.png", "--model", model, "--direction", "b2a"]) == 2
    said = capsys.readouterr().err.strip()
    assert f"no opposite of {model} is known" in said
    assert "\n" not in said


# Models of other commands


OTHERS = {
    "translate --model realesrgan-x4plus": "realesrgan-x4plus is a 'upscale' network; use it with: restorer upscale",
    "translate --model RealESRGAN_x4plus": "use it with: restorer upscale",
    "translate --model realesrgan-x4plus --direction b2a": "use it with: restorer upscale",
    "translate --model srgan-photo-x4": "use it with: restorer upscale",
    "translate --model gfpgan-1.4": "gfpgan-1.4 is a 'face' network; use it with: restorer faces",
    "translate --model retinaface-resnet50": "is a 'detect' network; no command takes it by itself",
    "upscale --model cyclegan-horse2zebra": "is a 'translate' network; use it with: restorer translate",
    "upscale --model gfpgan-1.4": "use it with: restorer faces",
    "upscale --faces pix2pix-unfade": "use it with: restorer translate",
    "upscale --faces gfpgan-1.4 --model style_monet": "style_monet is a 'translate' network",
    "faces --model cyclegan-horse2zebra": "use it with: restorer translate",
    "faces --model parsing-bisenet": "is a 'parse' network; no command takes it by itself",
    "faces --background pix2pix-edges2shoes": "use it with: restorer translate",
    "faces --background restoreformer": "use it with: restorer faces",
}


@pytest.fixture
def unsought(monkeypatch):
    """No file of weights may be looked for."""

    def found(*names, **options):
        raise AssertionError(f"{names} were looked for")

    for place in ("weights.find", "api", "pipeline.faces.at_hand"):
        monkeypatch.setattr(f"restorer.{place}.find_weights", found)


@pytest.mark.parametrize("words", OTHERS)
def test_a_model_of_another_command_is_sent_there_before_its_file_is_looked_for(here, unsought, capsys, words):
    command, *options = words.split()
    assert main([command, "a.png", "-o", "b.png", *options]) == 2
    said = capsys.readouterr().err.strip()
    assert OTHERS[words] in said
    assert "\n" not in said
    assert not (here / "b.png").exists()


@pytest.mark.parametrize(
    ("open_model", "command"),
    [
        (lambda: Restorer.open(BACK), "translate"),
        (lambda: Restorer.open("gfpgan-1.4"), "faces"),
        (lambda: Translator.open("bsrgan-x4", settings=TranslateSettings(model="x")), "upscale"),
        (lambda: Translator.open(settings=TranslateSettings(model="gfpgan-1.3", direction="b2a")), "faces"),
        (lambda: Faces.open(THERE), "translate"),
        (lambda: Faces.open(settings=FaceSettings(background=UpscaleSettings(model=BACK))), "translate"),
    ],
)
def test_so_it_is_in_python(unsought, open_model, command):
    with pytest.raises(UsageError, match=f"use it with: restorer {command}$"):
        open_model()


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("realesrgan-x4plus", "faces"),  # sharpens faces, too
        ("gfpgan-1.4", "faces"),
        ("restoreformer", "faces"),
        ("bsrgan-x4", "upscale"),
        (THERE, "translate"),
        ("pix2pix-unfade", "translate"),
        ("gfpgan-1.4.pth", "translate"),  # a file is what its weights say
        ("./realesrgan-x4plus", "translate"),
        ("a-model-of-mine", "translate"),
    ],
)
def test_what_a_command_takes_or_a_table_does_not_know_passes(name, command):
    check_command(name, command)


def test_the_task_of_every_record_is_that_of_its_network():
    """RestoreFormer and YuNet are run by other packages, as a network for faces and one that finds them."""
    foreign = {"restoreformer": "face", "yunet": "detect"}
    for record in CHECKPOINTS.values():
        known = foreign.get(record.network) or get_spec(record.network).task
        assert record.task == known, record.name
    assert {name: words.partition(":")[0] for name, words in NETWORKS.items()} == {
        name: get_spec(name).task for name in NETWORKS
    }


# Profiles, through files


def profile(space):
    """The least that counts as a profile of a colour space."""
    return bytes(16) + space + bytes(16) + b"acsp" + bytes(88)


@pytest.mark.parametrize(
    ("space", "model", "stays"),
    [(b"GRAY", THERE, False), (b"RGB ", THERE, True), (b"GRAY", "grey", True), (b"RGB ", "grey", False)],
)
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_a_profile_stays_where_what_it_describes_does(here, suffix, space, model, stays):
    given = Image.fromarray(photo(24, 28, channels=1 if space == b"GRAY" else 3).squeeze())
    given.save(here / f"in.{suffix}", icc_profile=profile(space))
    assert read_picture(here / f"in.{suffix}").icc == profile(space)
    assert main(["translate", f"in.{suffix}", "-o", f"out.{suffix}", "--model", model, "--quiet"]) == 0
    with Image.open(here / f"out.{suffix}") as made:
        assert made.mode == ("L" if model == "grey" else "RGB")
        assert made.info.get("icc_profile") == (profile(space) if stays else None)
