"""The game of CycleGAN: taken for real in the other domain, and itself again on the way back (arXiv:1703.10593).

Letters: N batch, C C' channels of a and of b, H W sides; a and b are the domains, a2b and b2a the generators.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restorer.losses.adversarial import Logits
from restorer.networks.discriminators import build_discriminator
from restorer.networks.spec import Traits, get_spec
from restorer.training.adversary import Adversary, AdversaryConfig
from restorer.training.game import Game
from restorer.training.objective import Batch, Now, Objective, Penalty, Player, Terms
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

WAYS = {"b": "a2b", "a": "b2a"}
"""Domain -> the generator that makes its pictures."""


@dataclass(frozen=True, kw_only=True)
class UnpairedWeights:
    """Numbers of CycleGAN, with their published meaning whatever `adversary.loss` is; zero leaves a thing out."""

    kind: Literal["unpaired"] = "unpaired"
    cycle: float = 10.0
    """Of the way from a over b back to a: L1 over [-1, 1], as published."""
    cycle_b: float = 10.0
    """Of the way from b over a back to b."""
    identity: float = 0.5
    """Of what a generator makes of a picture that is in its target's domain already, as a share of that one's cycle."""
    adversarial: float = 1.0
    """In each domain."""
    pool: int = 50
    """Pictures of each domain that were made and are kept, to be shown to its discriminator again; 0: new ones only."""

    def __post_init__(self) -> None:
        if self.pool < 0:
            raise ValueError(f"pool must not be negative, got {self.pool}")

    @property
    def is_idle(self) -> bool:
        """Nothing is wanted of the generators."""
        return not (self.adversarial or self.cycle or self.cycle_b)

    @property
    def cycles(self) -> dict[str, float]:
        """Domain -> weight of the way that begins and ends in it."""
        return {"a": self.cycle, "b": self.cycle_b}


class UnpairedTranslation(Objective):
    """Batch: `a` (N, C, H, W) and `b` (N, C', H, W) in [0, 1], pictures that need not belong together.

    `d["b"]` judges pictures of b and what a2b makes, `d["a"]` those of a and what b2a makes. Pictures are compared in
    [-1, 1], where an L1 is twice that in [0, 1]. Only the generators' turn goes ways back. Penalties are paid in
    [0, 1], and at new pictures, whatever the pools give.
    """

    g: nn.ModuleDict
    d: nn.ModuleDict

    def __init__(
        self,
        g: nn.ModuleDict,
        d: nn.ModuleDict,
        *,
        weights: UnpairedWeights,
        adversary: AdversaryConfig,
        pools: Mapping[str, PicturePool] | None = None,
    ) -> None:
        """`g` has a2b and b2a, `d` and `pools` have b and a; without pools only new pictures are shown."""
        super().__init__()
        assert set(g) == set(WAYS.values()) and set(d) == set(WAYS), "two generators, and a judge of each domain"
        self.g, self.d, self.weights = g, d, weights
        self.adversaries = nn.ModuleDict({domain: Adversary(adversary) for domain in WAYS})
        self.pools = nn.ModuleDict(pools or {})
        self.factors = published_factors(adversary.loss)

    def imagine(self, batch: Batch, now: Now) -> Batch:
        """`fake_b` (N, C', H, W) and `fake_a` (N, C, H, W)."""
        return {"fake_b": translated(self.g["a2b"], batch["a"]), "fake_a": translated(self.g["b2a"], batch["b"])}

    def g_terms(self, batch: Batch, now: Now) -> Terms:
        """For each domain: adversary, the way back, identity."""
        terms: Terms = {}
        for domain, other in (("a", "b"), ("b", "a")):
            real, cycle = batch[domain], self.weights.cycles[domain]
            if self.weights.adversarial:
                wish = self._adversary(domain).g_term(self.d[domain], real, batch[f"fake_{domain}"], now)
                terms[f"g/adversarial_{domain}"] = self.weights.adversarial * self.factors[0] * wish
            if cycle:
                terms[f"g/cycle_{domain}"] = cycle * self._distance(batch[f"fake_{other}"], real, domain)
            if cycle * self.weights.identity:
                terms[f"g/identity_{domain}"] = cycle * self.weights.identity * self._distance(real, real, domain)
        return terms

    def d_terms(self, batch: Batch, now: Now) -> Terms:
        """The adversary's in each domain; its pool is asked for what was made."""
        terms: Terms = {}
        for domain in ("a", "b"):
            made = batch[f"fake_{domain}"]
            if domain in self.pools:
                pool = self.pools[domain]
                assert isinstance(pool, PicturePool)
                made = pool.asked(made, now)
            wish = self._adversary(domain).d_term(self.d[domain], batch[domain], made, now)
            terms[f"d/adversarial_{domain}"] = self.factors[1] * wish
        return terms

    def penalties(self) -> Mapping[str, Penalty]:
        """The adversary's in each domain."""
        return {
            f"{name}_{domain}": penalty
            for domain in WAYS
            for name, penalty in self._adversary(domain).penalties(self.d[domain], (domain, f"fake_{domain}")).items()
        }

    def after(self, player: Player, now: Now) -> None:
        """Clip the discriminators where that was asked for."""
        if player == "d":
            for domain in WAYS:
                self._adversary(domain).after(self.d[domain])

    def logits(self, batch: Batch, now: Now) -> tuple[Logits, Logits] | None:
        """Of both domains' pictures, and of what was made, as they are; all in a row, of several scales the first."""
        return self._in_a_row(batch, ""), self._in_a_row(batch, "fake_")

    def _in_a_row(self, batch: Batch, prefix: str) -> Tensor:
        judged = [self.d[domain](batch[f"{prefix}{domain}"]) for domain in WAYS]
        return torch.cat([(each if isinstance(each, Tensor) else each[0]).flatten() for each in judged])

    def _distance(self, x: Tensor, real: Tensor, domain: str) -> Tensor:
        """(N, ., H, W), (N, ., H, W), its domain -> (): from what the generator into that domain makes of x."""
        return F.l1_loss(spread(translated(self.g[WAYS[domain]], x)), spread(real))

    def _adversary(self, domain: str) -> Adversary:
        adversary = self.adversaries[domain]
        assert isinstance(adversary, Adversary)
        return adversary


def _refusal(recipe: "Recipe", traits: Traits) -> str | None:
    weights = recipe.weights
    assert isinstance(weights, UnpairedWeights)
    if reason := refusal_of_translation(recipe, traits, pool=weights.pool):
        return reason
    a, b = traits.in_channels, traits.out_channels
    if recipe.discriminator is None:
        return "only a discriminator knows what the other domain looks like: set discriminator.kind=patch"
    if recipe.discriminator.channels != b:
        return (
            f"the generator makes {b} channels, and discriminator.channels is {recipe.discriminator.channels}; set it "
            f"to {b}"
        )
    if a != b and weights.identity:
        return (
            f"identity is of pictures that both generators can take, and the domains have {a} and {b} channels: set "
            "weights.identity=0"
        )
    return None


def _configs(recipe: "Recipe") -> dict[str, Any]:
    """Generator -> its config: the recipe's, and the same with input and output changed over."""
    there = recipe.config
    traits = get_spec(recipe.network).traits(there)
    a, b = traits.in_channels, traits.out_channels
    return {"a2b": there, "b2a": there if a == b else replace(there, in_channels=b, out_channels=a)}


def _generator(recipe: "Recipe") -> nn.Module:
    build = get_spec(recipe.network).build
    return nn.ModuleDict({name: build(config) for name, config in _configs(recipe).items()})


def _discriminator(recipe: "Recipe") -> nn.Module | None:
    """The recipe's judges what its generator makes, one like it the pictures that this is given."""
    judge = recipe.discriminator
    if judge is None:
        return None
    back = replace(judge, channels=get_spec(recipe.network).traits(recipe.config).in_channels)
    return nn.ModuleDict({"b": build_discriminator(judge), "a": build_discriminator(back)})


def _objective(recipe: "Recipe", g: nn.Module, d: nn.Module | None, trust_first_use: bool) -> Objective:
    weights = recipe.weights
    assert isinstance(weights, UnpairedWeights) and isinstance(g, nn.ModuleDict) and isinstance(d, nn.ModuleDict)
    traits = get_spec(recipe.network).traits(recipe.config)
    channels = {"b": traits.out_channels, "a": traits.in_channels}
    pools = {domain: pool_of(weights.pool, count, recipe.data.crop) for domain, count in channels.items()}
    kept = {domain: pool for domain, pool in pools.items() if pool is not None}
    return UnpairedTranslation(g, d, weights=weights, adversary=recipe.adversary, pools=kept)


def _rehearsed(recipe: "Recipe", g: nn.Module, d: nn.Module | None, given: Tensor) -> Tensor:
    weights = recipe.weights
    assert isinstance(weights, UnpairedWeights) and isinstance(g, nn.ModuleDict) and isinstance(d, nn.ModuleDict)
    with torch.no_grad():
        real = {"a": given, "b": translated(g["a2b"], given)}
    for domain, other in (("a", "b"), ("b", "a")):
        made = translated(g[WAYS[domain]], real[other])
        d[domain](made)
        if weights.cycles[other]:
            translated(g[WAYS[other]], made)
        if weights.cycles[domain] * weights.identity:
            translated(g[WAYS[domain]], real[domain])
    return made


@torch.no_grad()
def _columns(average: nn.Module, batch: Batch) -> list[Tensor]:
    assert isinstance(average, nn.ModuleDict)
    columns = []
    for domain, there, back in (("a", "a2b", "b2a"), ("b", "b2a", "a2b")):
        made = translated(average[there], batch[domain])
        columns += [batch[domain], made, translated(average[back], made)]
    return side_by_side(columns)


UNPAIRED = Game(
    refusal=_refusal,
    objective=_objective,
    pair=lambda batch, recipe, traits: {"a": batch["low"], "b": batch["high"]},
    columns=_columns,
    caption="A picture of a, what the average makes of it, and what it makes of that on the way back; the same of b.",
    data="translation",
    aligned=False,
    generator=_generator,
    discriminator=_discriminator,
    rehearsed=_rehearsed,
)
