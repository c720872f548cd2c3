"""The README is true: its code runs, its commands parse and run, its tables and its tree are those of the package."""

import re
import shlex
import shutil
import tomllib
from pathlib import Path

import pytest
import torch
import typer
from cases import CASES, random_network
from house import HOME, package_files
from PIL import Image

import restorer
from restorer.apps.cli import app
from restorer.training.recipes import get_recipe
from restorer.weights.read import write_safetensors
from restorer.weights.record import Record
from restorer.weights.records import CHECKPOINTS

README = (HOME / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)
PYTHON = [words for kind, words in BLOCKS if kind == "python"]
SHELL = [line for kind, words in BLOCKS if kind == "sh" for line in words.splitlines()]
COMMANDS = [
    found[1].strip()
    for line in SHELL
    for part in line.split("&&")
    if (found := re.match(r" *(?:\S*/)?restorer (.*)", part))
]
STAND_INS = {
    "realesrgan-x4plus": "esrgan",
    "realesr-general-x4v3": "compact",
    "realesr-general-wdn-x4v3": "compact",
    "gfpgan-1.4": "gfpgan",
    "cyclegan-horse2zebra": "cyclegan",
    "pix2pix-facades-label2photo": "pix2pix",
}


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """A reader's folder with pictures in it; tiny weights stand in for the models that the README names."""
    weights = tmp_path / "weights"
    weights.mkdir()
    for name, network in STAND_INS.items():
        case = next(case for case in CASES if case.name == network)
        write_safetensors(weights / f"{name}.safetensors", dict(random_network(case).state_dict()), {})
    shutil.copytree(HOME / "tests" / "pictures", tmp_path / "tests" / "pictures")
    with Image.open(HOME / "tests" / "pictures" / "rocket.jpg") as whole:
        photo = whole.resize((64, 43))
    for place in (tmp_path, tmp_path / "photos", tmp_path / "photos" / "summer", tmp_path / "horses"):
        place.mkdir(exist_ok=True)
        photo.save(place / "photo.jpg")
    photo.save(tmp_path / "print.jpg")
    photo.convert("L").point(lambda value: value // 128).save(tmp_path / "facade.png")
    (tmp_path / "palette.txt").write_text("0 0 170 facade\n0 85 255 window\n", encoding="utf-8")
    monkeypatch.setenv("RESTORER_WEIGHTS", str(weights))
    monkeypatch.setenv("RESTORER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RESTORER_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Images:
    """What a diffusion pipeline gives."""

    def __init__(self, images: object) -> None:
        self.images = images


def pipeline(prompt: str, *, num_images_per_prompt: int = 1, output_type: str = "pil") -> Images:
    """Stands in for a text-to-image pipeline, with the words of diffusers."""
    if output_type == "pt":
        return Images(torch.rand(num_images_per_prompt, 3, 24, 32, generator=torch.Generator().manual_seed(0)))
    return Images([Image.effect_mandelbrot((32, 24), (-2, -1, 1, 1), 40).convert("RGB")] * num_images_per_prompt)


@pytest.mark.parametrize("number", range(len(PYTHON)))
def test_python_blocks_run(reader, number):
    names = {"pipeline": pipeline}
    exec(compile(PYTHON[number], f"README.md, Python block {number + 1}", "exec"), names)
    if number == 0:
        assert size_of(reader / "coffee-x4.png") == (2400, 1600)
    if number == 1:
        assert size_of(reader / "photos" / "photo.png") == (128, 86)
    if number == 2:
        assert [image.size for image in names["larger"]] == [(64, 48)] * 2
        assert names["larger_batch"].shape == (1, 3, 48, 64)
    if number == 3:
        assert size_of(reader / "photo-restored.png") == (128, 86)
    if number == 4:
        assert size_of(reader / "print-restored.png") == (64, 43)


def size_of(path: Path) -> tuple[int, int]:
    """(width, height)"""
    with Image.open(path) as image:
        return image.size


def test_there_are_as_many_python_blocks_as_are_checked():
    assert len(PYTHON) == 5


def test_the_file_of_changes_is_a_recipe(tmp_path):
    (words,) = [words for kind, words in BLOCKS if kind == "toml"]
    path = tmp_path / "mine.toml"
    path.write_text(words, encoding="utf-8")
    recipe = get_recipe(str(path))
    assert (recipe.train.steps, recipe.adversary.loss) == (1000, "hinge")


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_parse(command):
    found, words = typer.main.get_command(app), shlex.split(command)
    while hasattr(found, "commands"):
        found, words = found.commands[words[0]], words[1:]
    found.make_context(found.name, words).close()


GRAPHS = [words for words in COMMANDS if "--tune" in words or ".onnx" in words or "--engine" in words]
"""Commands that take seconds, and build on each other."""
RUNS = [words for words in COMMANDS if words.startswith("train ") or "run/step-" in words]
"""Commands about a run of training, in their order."""


@pytest.mark.parametrize(
    "command", [words for words in COMMANDS if words not in [*GRAPHS, *RUNS] and not words.startswith("models fetch")]
)
def test_commands_run(reader, command):
    assert app(args=shlex.split(command), standalone_mode=False) == 0
    made = re.search(r"-o (\S+)", command)
    assert made is None or (reader / made[1]).exists()


@pytest.mark.proof
def test_commands_about_graphs_run_in_their_order(reader):
    for command in GRAPHS:
        made = re.search(r"-o (\S+)", command)
        assert app(args=shlex.split(command), standalone_mode=False) == 0, command
        assert made is None or (reader / made[1]).exists(), command
    assert sum(words.startswith("export") for words in GRAPHS) == 3


@pytest.mark.slow
def test_commands_about_a_run_go_in_their_order(reader):
    """With fewer steps and smaller crops than the README's; the checkpoint gets the name that it would have."""
    pytest.importorskip("lightning")
    settings = ["train.steps=1", "train.batch=2", "data.crop=32", "config.features=4"]
    few = [word for setting in settings for word in ("--set", setting)]
    (reader / "photos" / "summer" / "photo.jpg").unlink()
    for command in RUNS:
        training = command.startswith("train ") and "--resume" not in command
        assert app(args=[*shlex.split(command), *(few if training else [])], standalone_mode=False) == 0, command
        if training:
            (reader / "run" / "step-0000001.safetensors").rename(reader / "run" / "step-0002000.safetensors")
    assert len(RUNS) == 3
    assert size_of(reader / "photo-by-mine.png") == (256, 172)


def test_the_readme_has_the_commands_that_it_promises():
    assert len([words for words in COMMANDS if words.startswith("upscale")]) >= 3
    assert len([line for line in SHELL if "python3 -m venv" in line]) == 2


def test_set_up_commands_name_what_there_is():
    project = tomllib.loads((HOME / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for line in (line for line in SHELL if "python3 -m venv" in line):
        (extra,) = re.findall(r'pip install (?:-e )?"\.\[(\w+)\]"', line)
        assert extra in project["optional-dependencies"]
        assert all((HOME / path).is_file() for path in re.findall(r"tests/\S+", line))
    assert project["requires-python"] == ">=3.11"
    assert "Python 3.11 or later" in README


def test_every_option_in_the_text_exists():
    group = typer.main.get_command(app)
    known = {"--slow", "--json", "--dataroot"}
    for command in (group, *group.commands.values(), *group.commands["models"].commands.values()):
        known |= {option for parameter in command.params for option in parameter.opts}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README)) <= known


def row(record: Record) -> str:
    """A record's line in the table of models."""
    ways = ["package"] if record.provider else []
    ways += (
        ["here"]
        if record.is_own
        else ["hand"]
        if record.url is None
        else ["fetch" if record.sha256 else "fetch, trust"]
    )
    cells = [f"[{record.name}]({record.source})", record.network, f"x{record.scale}", ", ".join(ways)]
    return f"| {' | '.join([*cells, record.licence, record.summary])} |"


def test_the_table_of_models_is_that_of_the_records():
    """To write it anew: print(*map(row, CHECKPOINTS.values()), sep="\\n")."""
    rows = re.findall(r"^\| \[[\w.-]+\]\(.*\|$", README, flags=re.MULTILINE)
    assert rows == [row(record) for record in CHECKPOINTS.values()]


def test_the_tree_names_every_file_and_nothing_more():
    drawing = next(words for _, words in BLOCKS if words.startswith("restorer/\n"))
    folders, files = [], []
    for line in drawing.splitlines():
        name, depth = line.split()[0], (len(line) - len(line.lstrip())) // 2
        folders = [*folders[:depth], name.removesuffix("/")]
        if not name.endswith("/"):
            assert len(line.split()) > 1, f"{name} has no words beside it"
            files.append("/".join(folders))
    assert sorted(files) == sorted(path.relative_to(HOME).as_posix() for path in package_files())


def test_every_event_is_described_and_no_other():
    table = README.partition("| event | says |")[2].partition("\n\n")[0]
    described = set(re.findall(r"^\| `(\w+)`", table, flags=re.MULTILINE))
    sources = "".join(path.read_text(encoding="utf-8") for path in package_files())
    assert described == set(re.findall(r'"event": "(\w+)"', sources))


def test_every_environment_variable_is_described_and_no_other():
    sources = "".join(path.read_text(encoding="utf-8") for path in package_files())
    name = r"\bRESTORER_[A-Z_]+\b"
    table = README.partition("| variable | means |")[2].partition("\n\n")[0]
    assert set(re.findall(name, table)) == set(re.findall(name, sources))


def test_links_inside_the_project_lead_somewhere():
    targets = [target for target in re.findall(r"\]\(([^)\s]+)\)", README) if not target.startswith("https://")]
    headings = {
        re.sub(r"[^\w -]", "", words).strip().lower().replace(" ", "-")
        for words in re.findall(r"^#+ (.*)", README, re.MULTILINE)
    }
    for target in targets:
        found = target[1:] in headings if target.startswith("#") else (HOME / target).is_file()
        assert found, target


def test_nothing_is_shown_that_is_not_exported():
    used = {name for words in PYTHON for name in re.findall(r"\brestorer\.(\w+)", words)}
    assert used <= set(restorer.__all__)
