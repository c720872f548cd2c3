"""The game of StyleGAN2: pictures from noise, taken for real, and moving evenly with their styles (arXiv:1912.04958).

Letters: N batch, L styles of one picture, S length of one.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from restorer.losses.adversarial import Logits
from restorer.losses.gather import batch_mean
from restorer.networks.spec import Traits
from restorer.networks.style_layers import in_full
from restorer.networks.stylegan2 import StyleGAN2
from restorer.training.adversary import Adversary
from restorer.training.data import DataConfig
from restorer.training.game import Game
from restorer.training.objective import Batch, Now, Objective, Penalty, Player, Terms

if TYPE_CHECKING:
    from restorer.training.recipe import Recipe

DRAWS = 32
"""Pictures in a grid, four in each column."""


@dataclass(frozen=True, kw_only=True)
class GenerationWeights:
    """Numbers of StyleGAN2's configuration F; zero leaves a thing out."""

    kind: Literal["generation"] = "generation"
    adversarial: float = 1.0
    path_length: float = 2.0
    """Weight of the squared distance of each path's length to their running mean."""
    path_every: int = 4
    """Steps from one payment to the next."""
    path_shrink: int = 2
    """It is paid for one in so many pictures of a batch."""
    path_decay: float = 0.01
    """Share of a batch in the running mean of lengths."""
    mixing: float = 0.9
    """Chance that a picture's finer layers take another style than its coarser ones."""
    average_decay: float = 0.995
    """Share of itself that the mean of all styles keeps at every batch: what truncation draws to."""

    def __post_init__(self) -> None:
        if not 0 <= self.mixing <= 1 or not 0 < self.path_decay <= 1 or not 0 <= self.average_decay < 1:
            raise ValueError("mixing must be in [0, 1], path_decay in (0, 1], average_decay in [0, 1)")
        if self.path_every < 1 or self.path_shrink < 1:
            raise ValueError("path_every and path_shrink must be at least 1")

    @property
    def is_idle(self) -> bool:
        """Nothing is wanted of the generator."""
        return not self.adversarial


class Generation(Objective):
    """Batch: `high` (N, 3, side, side). All pictures are in [0, 1]; R1 is therefore 4 times that over [-1, 1].

    Unlike in the paper, both players see the same fakes, the generator first (train.order="dg": last);
    each picture draws for itself whether and where two styles meet; and penalties are paid in the turn they fall into,
    not in a step of their own, so no rate or beta is corrected for such steps.
    """

    path_mean: Tensor

    def __init__(self, g: StyleGAN2, d: nn.Module, *, weights: GenerationWeights, adversary: Adversary) -> None:
        super().__init__()
        self.g, self.d = g, d
        self.weights, self.adversary = weights, adversary
        self.register_buffer("path_mean", torch.zeros(()))

    def imagine(self, batch: Batch, now: Now) -> Batch:
        """`fake` (N, 3, side, side)."""
        styles = self._styles(len(batch["high"]), now)
        return {"fake": (self._painted(styles, now) + 1) / 2}

    def g_terms(self, batch: Batch, now: Now) -> Terms:
        """The adversary's."""
        term = self.adversary.g_term(self.d, batch["high"], batch["fake"], now)
        return {"g/adversarial": self.weights.adversarial * term}

    def d_terms(self, batch: Batch, now: Now) -> Terms:
        """The adversary's."""
        return {"d/adversarial": self.adversary.d_term(self.d, batch["high"], batch["fake"], now)}

    def penalties(self) -> Mapping[str, Penalty]:
        """The adversary's, and path length."""
        due = dict(self.adversary.penalties(self.d, ("high", "fake")))
        if self.weights.path_length:
            due["g/path_length"] = Penalty(player="g", every=self.weights.path_every, fn=self._path_length)
        return due

    def after(self, player: Player, now: Now) -> None:
        """Clip the discriminator where that was asked for."""
        if player == "d":
            self.adversary.after(self.d)

    def logits(self, batch: Batch, now: Now) -> tuple[Logits, Logits] | None:
        """Of `high` and `fake`, as they are."""
        return self.d(batch["high"]), self.d(batch["fake"])

    def _styles(self, count: int, now: Now) -> Tensor:
        """-> (count, L, S); the mean of all styles follows where the generator learns or shows."""
        config, synthesis = self._generator.config, self._generator.synthesis
        z = torch.randn(2 * count, config.style, generator=now.rng, device=now.rng.device)
        with in_full(z):  # path length looks closely at styles
            w = self._generator.mapping(z if self.weights.mixing else z[:count])
        with torch.no_grad():
            self._generator.get_buffer("w_average").lerp_(batch_mean(w[:count], 0), 1 - self.weights.average_decay)
        one = w[:count, None]
        if not self.weights.mixing:
            return one.expand(-1, synthesis.styles, -1)
        other = w[count:, None]
        mixes = torch.rand(count, 1, 1, generator=now.rng, device=z.device) < self.weights.mixing
        meets = torch.randint(1, synthesis.styles, (count, 1, 1), generator=now.rng, device=z.device)
        fine = torch.arange(synthesis.styles, device=z.device)[None, :, None] >= meets
        return torch.where(mixes & fine, other, one)

    def _painted(self, styles: Tensor, now: Now) -> Tensor:
        return self._generator.painted(styles, self._generator.synthesis.fresh_noise(len(styles), now.rng))

    def _path_length(self, batch: Batch, now: Now) -> Tensor:
        """How unevenly pictures move with their styles, for a part of the batch, which is drawn anew."""
        count = max(1, len(batch["high"]) // self.weights.path_shrink)
        styles = self._styles(count, now)
        lengths = path_lengths(self._painted(styles, now), styles, now.rng)
        mean = torch.lerp(self.path_mean, batch_mean(lengths), self.weights.path_decay)
        self.path_mean.copy_(mean.detach())
        return self.weights.path_length * (lengths - mean).square().mean()

    @property
    def _generator(self) -> StyleGAN2:
        assert isinstance(self.g, StyleGAN2)
        return self.g


def path_lengths(pictures: Tensor, styles: Tensor, rng: torch.Generator) -> Tensor:
    """(N, C, H, W), (N, L, S) that made them -> (N,): how far a random picture moves with its styles; differentiable.

    The root of the mean over L of || d(pictures . noise / sqrt(H W)) / d style ||^2, with the network's own range.
    """
    pictures = pictures.float()
    noise = torch.randn(pictures.shape, generator=rng, device=rng.device) / math.sqrt(math.prod(pictures.shape[-2:]))
    (gradient,) = torch.autograd.grad((pictures * noise).sum(), styles, create_graph=True)
    return gradient.float().square().sum(2).mean(1).sqrt()


def _refusal(recipe: "Recipe", traits: Traits) -> str | None:
    if recipe.network != "stylegan2":
        return f"{recipe.network} makes no pictures from noise; choose network=stylegan2, or another weights.kind"
    assert recipe.discriminator is not None, "a recipe with an adversary has one"
    side = recipe.config.side
    if recipe.data.crop != side:
        return f"this generator makes pictures of side {side}, data.crop is {recipe.data.crop}; set one to fit"
    if recipe.discriminator.channels != 3:
        return f"this generator makes pictures in colour, discriminator.channels is {recipe.discriminator.channels}"
    assert isinstance(recipe.data, DataConfig), "checked before"
    if recipe.degradation is not None or recipe.data.low:
        return "pictures from noise are not degraded and have no partners; set degradation=none and no data.low"
    return None


def _objective(recipe: "Recipe", g: nn.Module, d: nn.Module | None, trust_first_use: bool) -> Objective:
    assert d is not None and isinstance(g, StyleGAN2) and isinstance(recipe.weights, GenerationWeights)
    return Generation(g, d, weights=recipe.weights, adversary=Adversary(recipe.adversary))


@torch.no_grad()
def _columns(average: nn.Module, batch: Batch) -> list[Tensor]:
    """The same noise at every time, with the noise that is stored in the weights."""
    assert isinstance(average, StyleGAN2)
    rng = torch.Generator().manual_seed(0)
    z = torch.randn(DRAWS, average.config.style, generator=rng).to(batch["high"].device)
    return [(average(part) + 1) / 2 for part in z.split(4)]


GENERATION = Game(
    refusal=_refusal,
    objective=_objective,
    pair=lambda batch, recipe, traits: batch,
    columns=_columns,
    whole=True,
    caption=f"What the average makes of the same {DRAWS} draws of noise.",
)
