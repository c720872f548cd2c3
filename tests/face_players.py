"""Small players of GFPGAN's game, what they are shown, and gfpgan's own modules where they are installed."""

import importlib
import importlib.util
import warnings
from dataclasses import replace
from types import ModuleType

import pytest
import torch
from beside import basicsr
from torch import nn
from torch.nn import functional as F

from restorer.networks.face_discriminators import ComponentDiscriminator, ComponentDiscriminatorConfig
from restorer.networks.gfpgan import GFPGAN, GFPGANConfig
from restorer.networks.style_discriminator import StyleDiscriminatorConfig
from restorer.training.adversary import Adversary, AdversaryConfig
from restorer.training.data import DataConfig
from restorer.training.degrade_faces import FaceDegradationConfig
from restorer.training.face_restoration import WHOLE, FaceRestoration, FaceWeights
from restorer.training.objective import Batch, Now
from restorer.training.recipe import Recipe

TINY = GFPGANConfig(widths=(16, 16, 16, 8, 8), style=16)


def judges(weights: FaceWeights) -> dict[str, nn.Module]:
    """A narrow discriminator for each component."""
    config = ComponentDiscriminatorConfig(features=4)
    return {part: ComponentDiscriminator(config) for part in weights.parts}


def game(*, r1: float = 0.0, compared: dict[str, nn.Module] | None = None, **weights: object) -> FaceRestoration:
    """Faces of 64 pixels."""
    torch.manual_seed(0)
    chosen, adversary = FaceWeights(**weights), Adversary(AdversaryConfig(r1=r1))
    whole = nn.Sequential(nn.Conv2d(3, 1, 8, stride=8), nn.Tanh(), nn.Flatten(), nn.Linear(64, 1))
    d = nn.ModuleDict({WHOLE: whole, **judges(chosen)})
    return FaceRestoration(GFPGAN(TINY), d, weights=chosen, adversary=adversary, compared=compared)


def recipe(**changed: object) -> Recipe:
    """The same game with a discriminator of the published kind; every part of the generator learns."""
    weights = FaceWeights(perceptual=0, style=0, identity=0, component_features=4, train_painter=True)
    usual = Recipe(
        name="faces", network="gfpgan", config=TINY, weights=weights,
        discriminator=StyleDiscriminatorConfig(widths=(4, 4, 4, 4, 4)), data=DataConfig(crop=64, turn=False),
        degradation=FaceDegradationConfig(),
    )  # fmt: skip
    return replace(usual, **changed)


def batch(count: int = 2) -> Batch:
    """Two kinds of noise."""
    rng = torch.Generator().manual_seed(7)
    return {name: torch.rand(count, 3, 64, 64, generator=rng) for name in ("low", "high")}


def now(step: int = 0, seed: int = 5) -> Now:
    """A moment of a run."""
    return Now(step=step, rng=torch.Generator().manual_seed(seed))


def gfpgans(monkeypatch: pytest.MonkeyPatch, name: str) -> ModuleType:
    """One of its modules; basicsr's fused activation exists on CUDA only, so its definition stands in for it."""
    fused = basicsr(monkeypatch, "ops.fused_act.fused_act")
    monkeypatch.setattr(fused, "fused_leaky_relu", lambda x, b, *_: F.leaky_relu(x + b[:, None, None], 0.2) * 2**0.5)
    if importlib.util.find_spec("gfpgan") is None:
        pytest.skip("gfpgan is not installed; see the second environment in .ci/run")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(f"gfpgan.{name}")
