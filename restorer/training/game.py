"""What a kind of game tells the loop: who may play, what is played on, and what its pictures show."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from torch import Tensor, nn

from restorer.networks.discriminators import build_discriminator
from restorer.networks.spec import Traits, get_spec
from restorer.training.objective import Batch, Objective

if TYPE_CHECKING:
    from restorer.training.recipe import Recipe


def _made_and_judged(recipe: "Recipe", g: nn.Module, d: nn.Module | None, given: Tensor) -> Tensor:
    made: Tensor = g(given)
    if d is not None:
        d(made)
    return made


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
    data: Literal["pictures", "translation"] = "pictures"
    """The kind of `data` that it is played on."""
    resumed: "Callable[[Recipe, nn.Module, nn.Module | None, bool], Objective] | None" = None
    """As `objective`, for a run that goes on: its checkpoint holds what the game began with. None: it opens no more."""
    aligned: bool = True
    """Of two domains: partners must show the same scene."""
    whole: bool = False
    """Pictures must have the side `data.crop`: what is played on is no part of anything larger."""
    generator: "Callable[[Recipe], nn.Module]" = lambda recipe: get_spec(recipe.network).build(recipe.config)
    """recipe -> the generator with random weights, or several; a file of one is loaded into the first."""
    discriminator: "Callable[[Recipe], nn.Module | None]" = lambda recipe: (
        None if recipe.discriminator is None else build_discriminator(recipe.discriminator)
    )
    """recipe -> the discriminator with random weights, or several; a file of one is loaded into the first."""
    rehearsed: "Callable[[Recipe, nn.Module, nn.Module | None, Tensor], Tensor]" = _made_and_judged
    """(recipe, generator, discriminator, what is given, (N, ...)) -> pictures that were made: what the generator's turn
    asks of both players, to see the memory that it takes."""


def generators_of(network: nn.Module) -> dict[str, nn.Module]:
    """A player that makes pictures -> each of its networks, under the name that its file has."""
    if isinstance(network, nn.ModuleDict):
        return {f"generator-{name}": each for name, each in network.items()}
    return {"generator": network}
