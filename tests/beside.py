"""basicsr, where it is installed: 1.4.2 imports a module of torchvision that is gone, so that name is lent to it."""

import importlib
import importlib.util
import sys
import warnings
from types import ModuleType

import pytest


def basicsr(monkeypatch: pytest.MonkeyPatch, name: str) -> ModuleType:
    """One of its modules; the test is skipped without it."""
    torchvision = pytest.importorskip("torchvision", reason="torchvision is not installed")
    gone = ModuleType("torchvision.transforms.functional_tensor")
    gone.rgb_to_grayscale = torchvision.transforms.functional.rgb_to_grayscale
    monkeypatch.setitem(sys.modules, gone.__name__, gone)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if importlib.util.find_spec("basicsr") is None:
            pytest.skip("basicsr is not installed; see the second environment in .ci/run")
        return importlib.import_module(f"basicsr.{name}")
