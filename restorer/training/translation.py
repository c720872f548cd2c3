"""What the games of translation share: the range of their networks, published weights, a pool of what was made.

Letters: N batch, C channels, H W sides, S pictures in the pool.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from restorer.networks.spec import Traits, get_spec
from restorer.training.objective import Now
from restorer.training.translation_data import TranslationDataConfig

if TYPE_CHECKING:
    from restorer.training.recipe import Recipe

_HALVED = ("least_squares", "least_squares_pearson")
"""Losses of `GAN_LOSSES` that have a half inside, as in their paper."""


def translated(network: nn.Module, x: Tensor) -> Tensor:
    """(N, C, H, W) in [0, 1] -> (N, C', H, W) in [0, 1], in float32 at least: by a network that works in [-1, 1].

    The only place where a game of translation leaves [0, 1].
    """
    y = network(spread(x))
    return (y.to(torch.promote_types(y.dtype, torch.float32)) + 1) / 2


def spread(x: Tensor) -> Tensor:
    """(N, C, H, W) in [0, 1] -> same in [-1, 1]: where an L1 is twice as large, and published weights mean theirs."""
    return 2 * x - 1


def published_factors(loss: str) -> tuple[float, float]:
    """Factors of the generator's and of the discriminator's wish that make an adversarial loss what pix2pix's code has.

    That code halves whatever the discriminator wants, and its least squares have no half inside. So with binary
    cross-entropy, or Wasserstein's, the discriminator's wish counts half; and with least squares, which are halved for
    both players here, the generator's counts twice. Then a weight of 1 means what it means there.

    >>> published_factors("non_saturating"), published_factors("least_squares")
    ((1.0, 0.5), (2.0, 1.0))
    """
    return (2.0, 1.0) if loss in _HALVED else (1.0, 0.5)


class PicturePool(nn.Module):
    """Keeps pictures that were made, and shows the discriminator some of them in place of new ones (arXiv:1612.07828).

    Until it is full it keeps every new picture, and gives it back. Then, for each new one by a chance of one half, it
    gives one that it has kept, any, and keeps the new one in its place. In a run of several processes each has its own.
    """

    pictures: Tensor
    count: Tensor

    def __init__(self, size: int, channels: int, side: int) -> None:
        super().__init__()
        self.register_buffer("pictures", torch.zeros(size, channels, side, side))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def asked(self, made: Tensor, now: Now) -> Tensor:
        """(N, C, H, W) just made -> same, some of them from before."""
        given = [self._given(new, now.rng) for new in made.split(1)]
        return given[0] if len(given) == 1 else torch.cat(given)

    def _given(self, new: Tensor, rng: torch.Generator) -> Tensor:
        """(1, C, H, W) -> same. Both numbers are drawn every time, and no device is waited for."""
        size = len(self.pictures)
        chance = torch.rand(1, generator=rng, device=rng.device)
        place = torch.randint(size, (1,), generator=rng, device=rng.device)
        is_full = self.count >= size
        swaps = is_full & (chance > 0.5)
        place = torch.where(is_full, place, self.count)
        old = self.pictures.index_select(0, place)
        self.pictures.index_copy_(0, place, torch.where(is_full & ~swaps, old, new.to(old.dtype)))
        self.count.add_(~is_full)
        return torch.where(swaps, old.to(new.dtype), new)


def pool_of(size: int, channels: int, side: int) -> PicturePool | None:
    """A pool of `size` pictures; None for 0."""
    return PicturePool(size, channels, side) if size else None


def refusal_of_translation(recipe: "Recipe", traits: Traits, *, pool: int) -> str | None:
    """Why a recipe cannot translate pictures, with a cure; None where it can."""
    if get_spec(recipe.network).task != "translate":
        return f"{recipe.network} does not translate; choose network=pix2pix or cyclegan, or another weights.kind"
    if traits.channel_order != "rgb":
        return f"pictures are learned from as RGB: set config.channel_order=rgb, not {traits.channel_order}"
    assert isinstance(recipe.data, TranslationDataConfig), "checked before"
    if pool and not recipe.data.crops:
        return (
            f"a pool keeps pictures of one size, which data.preprocess={recipe.data.preprocess} does not make; set "
            "weights.pool=0, or data.preprocess=resize_and_crop"
        )
    return None


def side_by_side(columns: Sequence[Tensor]) -> list[Tensor]:
    """[(N, C, H, W), ...] -> same; all with 3 channels where some have, since grey ones may stand beside them."""
    most = max(column.shape[1] for column in columns)
    return [column.expand(-1, most, -1, -1) for column in columns]
