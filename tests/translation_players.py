"""Small games of translation: recipes that take milliseconds a step, batches, and folders of pictures for them."""

from dataclasses import replace
from pathlib import Path

import torch
from runs import pictures

from restorer.networks.cyclegan import CycleGANConfig
from restorer.networks.patch_discriminators import PatchDiscriminatorConfig
from restorer.networks.pix2pix import Pix2PixConfig
from restorer.training.build import build_parts
from restorer.training.games import game_of
from restorer.training.objective import Batch, Clock, Now, Objective, Rules, Terms, Turns, gan_step
from restorer.training.recipe import Recipe
from restorer.training.recipes import get_recipe
from restorer.training.translation_data import TranslationDataConfig

SIDE = 16


def paired(root: Path | str = "", *, dropout: bool = False, **changed: object) -> Recipe:
    """pix2pix's game; `changed` are numbers of the training."""
    return replace(
        get_recipe("pix2pix_256"),
        config=Pix2PixConfig(features=4, levels=3, dropout=dropout),
        discriminator=PatchDiscriminatorConfig(channels=6, features=4, layers=1),
        **_common(get_recipe("pix2pix_256"), root, changed),
    )


def unpaired(root: Path | str = "", *, pool: int = 2, **changed: object) -> Recipe:
    """CycleGAN's game with pools that are soon full."""
    recipe = get_recipe("cyclegan_256")
    return replace(
        recipe,
        config=CycleGANConfig(features=4, blocks=1),
        weights=replace(recipe.weights, pool=pool),
        discriminator=PatchDiscriminatorConfig(features=4, layers=1, norm="instance"),
        **_common(recipe, root, changed),
    )


def _common(recipe: Recipe, root: Path | str, changed: dict[str, object]) -> dict[str, object]:
    train = replace(recipe.train, steps=6, precision="fp32", log_every=2, picture_every=6, save_every=2, keep=9)
    data = TranslationDataConfig(root=str(root), load_size=SIDE + 2, crop=SIDE)
    return {"data": data, "train": replace(train, **changed)}


def side_by_side(folder: Path) -> Path:
    """A folder of pairs."""
    pictures(folder)
    pictures(folder / "train", size=(20, 40))
    return folder


def two_folders(folder: Path) -> Path:
    """A folder of two domains, three pictures of a and four of b."""
    folder.mkdir(exist_ok=True)
    pictures(folder / "trainA", size=(20, 20))
    pictures(folder / "trainB", count=4, size=(24, 20))
    return folder


def game(recipe: Recipe, *, double: bool = True) -> Objective:
    """Its players as a run has them, channels last; in float64, where equal means equal."""
    objective = build_parts(recipe, torch.device("cpu")).objective
    return objective.double() if double else objective


def batch(recipe: Recipe, *, count: int = 1, seed: int = 0, dtype: torch.dtype = torch.float64) -> Batch:
    """As a source gives it, and as the game turns it."""
    rng, config = torch.Generator().manual_seed(seed), recipe.config
    channels = {"low": config.in_channels, "high": config.out_channels}
    read = {name: torch.rand(count, each, SIDE, SIDE, generator=rng, dtype=dtype) for name, each in channels.items()}
    return game_of(recipe.weights).pair(read, recipe, None)


def now(step: int = 0, seed: int = 1) -> Now:
    """A moment."""
    return Now(step=step, rng=torch.Generator().manual_seed(seed))


def adams(objective: Objective) -> dict[str, torch.optim.Optimizer]:
    """The published optimisers."""
    players = {"g": objective.g, "d": objective.d}
    return {name: torch.optim.Adam(each.parameters(), 2e-4, betas=(0.5, 0.999)) for name, each in players.items()}


def played(objective: Objective, recipe: Recipe, shown: Batch, *, step: int = 0, **changed: object) -> Terms:
    """One step of ours."""
    rules = Rules(optimisers=changed.pop("optimisers", None) or adams(objective), order=recipe.train.order, **changed)
    shared = [shown]
    return gan_step(objective, Turns(d=[shared], g=shared), rules=rules, clock=Clock(seed=0, step=step))
