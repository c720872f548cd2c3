"""The names that others may rely on: exactly these, documented, and loaded on first use."""

import ast
import importlib.metadata
import inspect
import re
import subprocess
import sys
import tomllib
from importlib import import_module

import pytest
from house import HOME, PACKAGE, tree

import restorer
from restorer import errors
from restorer.errors import RestorerError

PROMISE = [
    "FaceResult", "FaceSettings", "Faces", "Picture", "Restorer", "RestorerError", "TranslateSettings", "Translator",
    "UpscaleSettings", "enhance", "read_frames", "read_picture", "restore_faces", "translate", "write_picture",
]  # fmt: skip
METADATA = tomllib.loads((HOME / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_promise_is_kept():
    assert sorted(restorer.__all__) == PROMISE


@pytest.mark.parametrize("name", PROMISE)
def test_every_name_is_there_and_documented(name):
    thing = getattr(restorer, name)
    assert thing.__name__ == name
    assert thing.__doc__, name
    assert not thing.__doc__.startswith(f"{name}("), "a dataclass wrote its own docstring"
    assert name in dir(restorer)


def test_type_checkers_see_the_same_names_in_the_same_places():
    module = tree(PACKAGE / "__init__.py")
    guarded = next(node for node in module.body if isinstance(node, ast.If))
    told = {
        alias.name: node.module
        for node in guarded.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }  # fmt: skip
    assert told == restorer._HOMES
    assert sorted(told) == sorted(restorer.__all__)


def test_names_load_on_first_use():
    words = (
        "import sys, restorer\n"
        "assert not {'torch', 'numpy', 'PIL'} & set(sys.modules), 'too early'\n"
        "restorer.RestorerError, restorer.UpscaleSettings, restorer.read_picture\n"
        "assert 'torch' not in sys.modules, 'no network is needed to read a picture'\n"
        "restorer.enhance\n"
        "assert 'torch' in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", words], cwd=HOME, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'restorer' has no attribute 'enhanse'"):
        restorer.enhanse  # noqa: B018


def test_every_error_is_a_restorer_error_and_is_drawn_in_the_tree():
    classes = [thing for thing in vars(errors).values() if inspect.isclass(thing) and issubclass(thing, BaseException)]
    assert all(issubclass(thing, RestorerError) for thing in classes)
    drawn = re.findall(r"^[│├└─ ]*(\w+Error)\b", errors.__doc__ or "", flags=re.MULTILINE)
    assert sorted(drawn) == sorted(thing.__name__ for thing in classes)


def test_the_version_is_that_of_the_project():
    assert restorer.__version__ == METADATA["version"]


def test_the_installed_metadata_is_that_of_the_project():
    try:
        installed = importlib.metadata.version("restorer")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("this is a checkout that was not installed")
    assert installed == restorer.__version__


def test_the_console_script_is_the_command_line():
    module, _, name = METADATA["scripts"]["restorer"].partition(":")
    assert callable(getattr(import_module(module), name))
