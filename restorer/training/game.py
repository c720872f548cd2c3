"""What a kind of game tells the loop: who may play, what is played on, and what its pictures show."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from restorer.networks.discriminators import build_discriminator
from restorer.networks.spec import Traits
from restorer.training.objective import Batch, Objective

if TYPE_CHECKING:
    from restorer.training.recipe import Recipe


@dataclass(frozen=True, kw_only=True, eq=False)
class Game:
    """All that is known of a kind of game. Each file with an objective of its own ends with one."""

    refusal: "Callable[[Recipe, Traits], str | None]"
    """(recipe, traits of its generator) -> why they do not fit this game, with a cure; None where they do."""
    objective: "Callable[[Recipe, nn.Module, nn.Module | None, bool], Objective]"
    """(recipe, generator, discriminator, whether hashes may be trusted at first use) -> the players' wishes."""
    pair: "Callable[[Batch, Recipe, Traits], Batch]"
    """(`high` and `chance` as read, ...) -> the batch that is played on."""
    columns: Callable[[nn.Module, Batch], list[Tensor]]
    """(averaged generator, batch) -> the columns of a grid of pictures, each (N, C, H, W) in [0, 1]."""
    caption: str
    """What the columns are."""
    whole: bool = False
    """Pictures must have the side `data.crop`: what is played on is no part of anything larger."""
    discriminator: "Callable[[Recipe], nn.Module | None]" = lambda recipe: (
        None if recipe.discriminator is None else build_discriminator(recipe.discriminator)
    )
    """recipe -> the discriminator with random weights."""
