"""The game of pix2pix: near the truth pixel by pixel, and real beside what it was made from (arXiv:1611.07004).

Letters: N batch, C C' channels of what is given and of what is made, H W sides.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from restorer.errors import unknown_name
from restorer.losses.adversarial import Logits
from restorer.losses.pixel import PIXEL_LOSSES, pixel_loss
from restorer.networks.spec import Traits
from restorer.training.adversary import Adversary
from restorer.training.feature_losses import looking_through
from restorer.training.game import Game
from restorer.training.objective import Batch, Now, Objective, Penalty, Player, Terms
from restorer.training.super_resolution import RESTORATION
from restorer.training.translation import (
    PicturePool,
    pool_of,
    published_factors,
    refusal_of_translation,
    side_by_side,
    spread,
    translated,
)

if TYPE_CHECKING:
    from restorer.training.recipe import Recipe

COLOURS = 3


@dataclass(frozen=True, kw_only=True)
class PairedWeights:
    """Numbers of pix2pix, with their published meaning whatever `adversary.loss` is; zero leaves a thing out."""

    kind: Literal["paired"] = "paired"
    pixel: float = 100.0
    """Over [-1, 1], as published."""
    pixel_kind: str = "l1"
    """A name of `PIXEL_LOSSES`."""
    perceptual: float = 0.0
    style: float = 0.0
    adversarial: float = 1.0
    pool: int = 0
    """Pairs that were made and are kept, to be shown to the discriminator again; 0 shows new ones only."""

    def __post_init__(self) -> None:
        if self.pixel_kind not in PIXEL_LOSSES:
            raise unknown_name("pixel loss", self.pixel_kind, PIXEL_LOSSES)
        if self.pool < 0:
            raise ValueError(f"pool must not be negative, got {self.pool}")

    @property
    def is_idle(self) -> bool:
        """Nothing is wanted of the generator."""
        return not (self.pixel or self.perceptual or self.style or self.adversarial)


class PairedTranslation(Objective):
    """Batch: `low` (N, C, H, W), which the generator is given, and `high` (N, C', H, W), the truth; both in [0, 1].

    The discriminator judges pairs: the picture that was given, and behind it the truth or what was made of it. Pixels
    are compared in [-1, 1], where an L1 is twice that in [0, 1]; features in [0, 1], and so are penalties taken.
    """

    def __init__(
        self,
        g: nn.Module,
        d: nn.Module | None,
        *,
        weights: PairedWeights,
        adversary: Adversary | None = None,
        compared: Mapping[str, nn.Module] | None = None,
        pool: PicturePool | None = None,
    ) -> None:
        """`compared` are the losses that have networks of their own: name -> (fake, truth) -> (), weighted inside."""
        super().__init__()
        assert (d is None) == (adversary is None), "a discriminator needs a teacher"
        self.g, self.d = g, nn.Module() if d is None else d
        self.weights, self.adversary, self.pool = weights, adversary, pool
        self.compared = nn.ModuleDict(compared or {})

    def imagine(self, batch: Batch, now: Now) -> Batch:
        """`fake` (N, C', H, W), and the pairs that are judged, `real_pair` and `fake_pair` (N, C + C', H, W)."""
        given, fake = batch["low"], translated(self.g, batch["low"])
        if self.adversary is None:
            return {"fake": fake}
        pairs = {name: torch.cat([given, x], 1) for name, x in (("real_pair", batch["high"]), ("fake_pair", fake))}
        return {"fake": fake, **pairs}

    def g_terms(self, batch: Batch, now: Now) -> Terms:
        """Pixel, features, adversary."""
        fake, truth, weights = batch["fake"], batch["high"], self.weights
        terms: Terms = {}
        if weights.pixel:
            terms["g/pixel"] = weights.pixel * pixel_loss(weights.pixel_kind, spread(fake), spread(truth))
        for name, loss in self.compared.items():
            terms[f"g/{name}"] = loss(fake, truth)
        if self.adversary is not None and weights.adversarial:
            factor, _ = published_factors(self.adversary.config.loss)
            wish = self.adversary.g_term(self.d, batch["real_pair"], batch["fake_pair"], now)
            terms["g/adversarial"] = weights.adversarial * factor * wish
        return terms

    def d_terms(self, batch: Batch, now: Now) -> Terms:
        """The adversary's; the pool is asked for what was made."""
        if self.adversary is None:
            return {}
        made = batch["fake_pair"] if self.pool is None else self.pool.asked(batch["fake_pair"], now)
        _, factor = published_factors(self.adversary.config.loss)
        return {"d/adversarial": factor * self.adversary.d_term(self.d, batch["real_pair"], made, now)}

    def penalties(self) -> Mapping[str, Penalty]:
        """The adversary's, at new pairs."""
        return {} if self.adversary is None else self.adversary.penalties(self.d, ("real_pair", "fake_pair"))

    def after(self, player: Player, now: Now) -> None:
        """Clip the discriminator where that was asked for."""
        if player == "d" and self.adversary is not None:
            self.adversary.after(self.d)

    def logits(self, batch: Batch, now: Now) -> tuple[Logits, Logits] | None:
        """Of `real_pair` and `fake_pair`, as they are."""
        return None if self.adversary is None else (self.d(batch["real_pair"]), self.d(batch["fake_pair"]))


def _refusal(recipe: "Recipe", traits: Traits) -> str | None:
    weights = recipe.weights
    assert isinstance(weights, PairedWeights)
    if reason := refusal_of_translation(recipe, traits, pool=weights.pool):
        return reason
    given, made = traits.in_channels, traits.out_channels
    if recipe.discriminator is not None and recipe.discriminator.channels != given + made:
        return (
            f"the discriminator judges pictures of {given} channels with {made} behind them, and "
            f"discriminator.channels is {recipe.discriminator.channels}; set it to {given + made}"
        )
    if made != COLOURS and (weights.perceptual or weights.style):
        return "features are those of pictures in colour: set weights.perceptual=0 and weights.style=0"
    return None


def _objective(recipe: "Recipe", g: nn.Module, d: nn.Module | None, trust_first_use: bool) -> Objective:
    weights = recipe.weights
    assert isinstance(weights, PairedWeights)
    compared = looking_through(
        recipe.features, perceptual=weights.perceptual, style=weights.style, trust_first_use=trust_first_use
    )
    if d is None or recipe.discriminator is None:
        return PairedTranslation(g, None, weights=weights, compared=compared)
    pool = pool_of(weights.pool, recipe.discriminator.channels, recipe.data.crop)
    return PairedTranslation(g, d, weights=weights, adversary=Adversary(recipe.adversary), compared=compared, pool=pool)


def _rehearsed(recipe: "Recipe", g: nn.Module, d: nn.Module | None, given: Tensor) -> Tensor:
    made = translated(g, given)
    if d is not None:
        d(torch.cat([given, made], 1))
    return made


@torch.no_grad()
def _columns(average: nn.Module, batch: Batch) -> list[Tensor]:
    return side_by_side([batch["low"], translated(average, batch["low"]), batch["high"]])


PAIRED = Game(
    refusal=_refusal,
    objective=_objective,
    pair=lambda batch, recipe, traits: batch,
    columns=_columns,
    caption=RESTORATION.caption,
    data="translation",
    rehearsed=_rehearsed,
)
