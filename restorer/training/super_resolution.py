"""The game of SRGAN, ESRGAN and Real-ESRGAN: near the truth pixel by pixel, near it in features, and taken for real."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restorer.errors import unknown_name
from restorer.losses.adversarial import Logits
from restorer.losses.pixel import PIXEL_LOSSES, frequency, pixel_loss, total_variation
from restorer.networks.spec import Traits
from restorer.training.adversary import Adversary
from restorer.training.feature_losses import looking_through
from restorer.training.game import Game
from restorer.training.objective import Batch, Now, Objective, Penalty, Player, Terms
from restorer.training.pairing import margin_of, paired_up

if TYPE_CHECKING:
    from restorer.training.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class RestorationWeights:
    """How much each wish of the generator counts; zero leaves it out."""

    kind: Literal["restoration"] = "restoration"
    pixel: float = 1.0
    pixel_kind: str = "l1"
    """A name of `PIXEL_LOSSES`."""
    frequency: float = 0.0
    total_variation: float = 0.0
    perceptual: float = 0.0
    style: float = 0.0
    adversarial: float = 0.0

    def __post_init__(self) -> None:
        if self.pixel_kind not in PIXEL_LOSSES:
            raise unknown_name("pixel loss", self.pixel_kind, PIXEL_LOSSES)

    @property
    def is_idle(self) -> bool:
        """Nothing is wanted of the generator."""
        wishes = (self.pixel, self.frequency, self.total_variation, self.perceptual, self.style, self.adversarial)
        return not any(wishes)


class SuperResolution(Objective):
    """Batch: `low` (N, C, h, w), `high` (N, C, s*h, s*w), and `sharp` like `high` where the truth is sharpened.

    Pixels and features are held against `sharp`, the discriminator's eye against `high`, as in Real-ESRGAN.
    """

    def __init__(
        self,
        g: nn.Module,
        d: nn.Module | None,
        *,
        weights: RestorationWeights,
        adversary: Adversary | None = None,
        compared: Mapping[str, nn.Module] | None = None,
    ) -> None:
        """`compared` are the losses that have networks of their own: name -> (fake, truth) -> (), weighted inside."""
        super().__init__()
        assert (d is None) == (adversary is None), "a discriminator needs a teacher"
        self.g, self.d = g, nn.Module() if d is None else d
        self.weights, self.adversary = weights, adversary
        self.compared = nn.ModuleDict(compared or {})

    def imagine(self, batch: Batch, now: Now) -> Batch:
        """`fake` (N, C, s*h, s*w)."""
        return {"fake": self.g(batch["low"])}

    def g_terms(self, batch: Batch, now: Now) -> Terms:
        """Pixel, features, adversary."""
        fake, truth, weights = batch["fake"], batch.get("sharp", batch["high"]), self.weights
        terms: Terms = {}
        if weights.pixel:
            terms["g/pixel"] = weights.pixel * pixel_loss(weights.pixel_kind, fake, truth)
        if weights.frequency:
            terms["g/frequency"] = weights.frequency * frequency(fake, truth)
        if weights.total_variation:
            terms["g/total_variation"] = weights.total_variation * total_variation(fake)
        for name, loss in self.compared.items():
            terms[f"g/{name}"] = loss(fake, truth)
        if self.adversary is not None:
            terms["g/adversarial"] = weights.adversarial * self.adversary.g_term(self.d, batch["high"], fake, now)
        return terms

    def d_terms(self, batch: Batch, now: Now) -> Terms:
        """The adversary's."""
        if self.adversary is None:
            return {}
        return {"d/adversarial": self.adversary.d_term(self.d, batch["high"], batch["fake"], now)}

    def penalties(self) -> Mapping[str, Penalty]:
        """The adversary's."""
        return {} if self.adversary is None else self.adversary.penalties(self.d, ("high", "fake"))

    def after(self, player: Player, now: Now) -> None:
        """Clip the discriminator where that was asked for."""
        if player == "d" and self.adversary is not None:
            self.adversary.after(self.d)

    def logits(self, batch: Batch, now: Now) -> tuple[Logits, Logits] | None:
        """Of `high` and `fake`, as they are."""
        return None if self.adversary is None else (self.d(batch["high"]), self.d(batch["fake"]))


def refusal_of_pairs(recipe: "Recipe", traits: Traits) -> str | None:
    """Why a generator cannot learn from pairs of pictures, with a cure; None where it can."""
    channels = [traits.in_channels, traits.out_channels]
    if recipe.discriminator is not None:
        channels.append(recipe.discriminator.channels)
    if set(channels) not in ({1}, {3}):
        return (
            "pictures have 1 or 3 channels, the same for all players; generator's input, its output and discriminator "
            f"have {', '.join(map(str, channels))} here: set config.* and discriminator.channels to fit"
        )
    if getattr(recipe.degradation, "kind", "") == "face" and (traits.scale, set(channels)) != (1, {3}):
        return "degradation.kind=face keeps the size of its pictures: for networks of scale 1, in colour"
    if margin_of(recipe.degradation) % traits.scale:
        return (
            f"degradation.margin must be a multiple of the scale, {traits.scale}; got {margin_of(recipe.degradation)}"
        )
    return None


def _refusal(recipe: "Recipe", traits: Traits) -> str | None:
    if traits.latent or not traits.makes_pictures or traits.fixed_size or traits.value_range != (0.0, 1.0):
        return f"{recipe.network} cannot be trained to enlarge pictures; choose another network or weights.kind"
    return refusal_of_pairs(recipe, traits)


def _objective(recipe: "Recipe", g: nn.Module, d: nn.Module | None, trust_first_use: bool) -> Objective:
    weights = recipe.weights
    assert isinstance(weights, RestorationWeights)
    compared = looking_through(
        recipe.features, perceptual=weights.perceptual, style=weights.style, trust_first_use=trust_first_use
    )
    adversary = None if d is None else Adversary(recipe.adversary)
    return SuperResolution(g, d, weights=weights, adversary=adversary, compared=compared)


def pairs_of(batch: Batch, recipe: "Recipe", traits: Traits) -> Batch:
    """`high` and `chance` -> with `low`, and `sharp` where the truth is sharpened."""
    return paired_up(batch, recipe.degradation, scale=traits.scale)


@torch.no_grad()
def _columns(average: nn.Module, batch: Batch) -> list[Tensor]:
    made = average(batch["low"]).clamp(0, 1)
    return [F.interpolate(batch["low"], made.shape[-2:], mode="nearest"), made, batch["high"]]


RESTORATION = Game(
    refusal=_refusal,
    objective=_objective,
    pair=pairs_of,
    columns=_columns,
    caption="What the network is given, what its average makes of it, the truth.",
)
