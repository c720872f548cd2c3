"""Every adversarial loss, one table: what a discriminator wants of its logits, and what a generator wants of them.

V(x) is a logit: high for real, of any shape; a mean is over everything. Several logits at once (scales) are averaged.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from restorer.errors import unknown_name
from restorer.losses.gather import batch_mean

Logits = Tensor | Sequence[Tensor]
"""One judgement, or one for each scale or each discriminator."""
Each = Callable[[Tensor], Tensor]
"""Logits -> the loss of each."""


class LogitLoss(NamedTuple):
    """A loss before it is averaged: what each logit costs its player."""

    real: Each
    """The discriminator, on real."""
    fake: Each
    """The discriminator, on fake."""
    wish: Each
    """The generator, on fake."""


class GanLoss(NamedTuple):
    """Discriminator's and generator's wish: (real logits, fake logits) -> ()."""

    d: Callable[[Logits, Logits], Tensor]
    g: Callable[[Logits | None, Logits], Tensor]
    """Takes None for real where the generator does not need them."""
    paired: bool
    """The generator's wish needs real logits."""


F_DIVERGENCES: dict[str, tuple[Each, Each]] = {
    "total_variation": (lambda v: torch.tanh(v) / 2, lambda v: torch.tanh(v) / 2),
    "kl": (lambda v: v, lambda v: torch.exp(v - 1)),
    "reverse_kl": (lambda v: -torch.exp(-v), lambda v: v - 1),
    "pearson": (lambda v: v, lambda v: v.square() / 4 + v),
    "neyman": (lambda v: 1 - torch.exp(-v), lambda v: 2 - 2 * torch.exp(-v / 2)),
    "squared_hellinger": (lambda v: 1 - torch.exp(-v), torch.expm1),
    "jensen_shannon": (lambda v: math.log(2) - F.softplus(-v), lambda v: F.softplus(v) - math.log(2)),
    "gan": (lambda v: -F.softplus(-v), F.softplus),
}
"""Name -> (output activation g_f(v), its conjugate f*(g_f(v)) in closed form); f-GAN, arXiv:1606.00709, table 6."""


def _minus(each: Each, v: Tensor) -> Tensor:
    return -each(v)


GAN_LOSSES: dict[str, LogitLoss] = {
    "minimax": LogitLoss(lambda v: F.softplus(-v), F.softplus, lambda v: -F.softplus(v)),  # arXiv:1406.2661, equation 1
    "non_saturating": LogitLoss(lambda v: F.softplus(-v), F.softplus, lambda v: F.softplus(-v)),  # same, section 3
    "least_squares": LogitLoss(  # arXiv:1611.04076, a = 0, b = c = 1
        lambda v: (v - 1).square() / 2, lambda v: v.square() / 2, lambda v: (v - 1).square() / 2
    ),
    "least_squares_pearson": LogitLoss(  # same, a = -1, b = 1, c = 0
        lambda v: (v - 1).square() / 2, lambda v: (v + 1).square() / 2, lambda v: v.square() / 2
    ),
    "hinge": LogitLoss(lambda v: F.relu(1 - v), lambda v: F.relu(1 + v), lambda v: -v),  # arXiv:1705.02894
    "wasserstein": LogitLoss(lambda v: -v, lambda v: v, lambda v: -v),  # arXiv:1701.07875; clip or penalise the critic
    **{  # the generator minimises -g_f on fake, as the paper trains
        f"f_{name}": LogitLoss(
            partial(_minus, F_DIVERGENCES[name][0]), F_DIVERGENCES[name][1], partial(_minus, F_DIVERGENCES[name][0])
        )
        for name in F_DIVERGENCES
    },
    **{  # or -f*, as the paper derives
        f"f_{name}_saturating": LogitLoss(
            partial(_minus, F_DIVERGENCES[name][0]), F_DIVERGENCES[name][1], partial(_minus, F_DIVERGENCES[name][1])
        )
        for name in F_DIVERGENCES
    },
}
"""Name -> game. `gan_loss` turns one into a loss, relativistic or smoothed where asked for."""


def gan_loss(name: str, *, relativistic: bool = False, smoothing: float = 0.0) -> GanLoss:
    """Choose an adversarial loss by its name in `GAN_LOSSES`.

    `relativistic` judges each picture against the mean of the other side (arXiv:1807.00734, and ESRGAN's form, halved).
    `smoothing` s counts a share s of every real picture as fake in the discriminator's turn, one-sidedly: with binary
    cross-entropy or least squares the target of real becomes 1 - s (arXiv:1606.03498).
    """
    if name not in GAN_LOSSES:
        raise unknown_name("adversarial loss", name, GAN_LOSSES)
    if not 0 <= smoothing < 1:
        raise ValueError(f"smoothing must be in [0, 1), got {smoothing}")
    game = GAN_LOSSES[name]
    for_d = _smoothed(game, smoothing) if smoothing else game
    return _relativistic(for_d, game) if relativistic else _absolute(for_d)


def _smoothed(game: LogitLoss, share: float) -> LogitLoss:
    return game._replace(real=lambda v: (1 - share) * game.real(v) + share * game.fake(v))


def _absolute(game: LogitLoss) -> GanLoss:
    def d(real: Logits, fake: Logits) -> Tensor:
        return _mean([game.real(r).mean() + game.fake(f).mean() for r, f in _both(real, fake)])

    def g(real: Logits | None, fake: Logits) -> Tensor:
        return _mean([game.wish(f).mean() for f in _several(fake)])

    return GanLoss(d=d, g=g, paired=False)


def _relativistic(for_d: LogitLoss, for_g: LogitLoss) -> GanLoss:
    """On V_real - mean V_fake and V_fake - mean V_real; the generator plays with the two sides swapped."""

    def halves(game: LogitLoss, high: Tensor, low: Tensor) -> Tensor:
        return (game.real(high - batch_mean(low)).mean() + game.fake(low - batch_mean(high)).mean()) / 2

    def d(real: Logits, fake: Logits) -> Tensor:
        return _mean([halves(for_d, r, f) for r, f in _both(real, fake)])

    def g(real: Logits | None, fake: Logits) -> Tensor:
        assert real is not None, "a relativistic wish needs real logits"
        return _mean([halves(for_g, f, r) for r, f in _both(real, fake)])

    return GanLoss(d=d, g=g, paired=True)


def feature_matching(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """[(N, ...), ...] twice -> (): mean over layers of the mean absolute difference; real is held still.

    The layers are those of a discriminator (pix2pixHD, arXiv:1711.11585).
    """
    return _mean([F.l1_loss(f, r.detach()) for r, f in zip(real, fake, strict=True)])


def mean_feature_matching(real: Tensor, fake: Tensor) -> Tensor:
    """(N, ...), (N, ...) -> (): mean absolute difference of the batch's mean features; real is held still.

    The form of improved-gan's code; its paper writes the squared norm (arXiv:1606.03498, section 3.1).
    """
    return F.l1_loss(fake.mean(dim=0), real.detach().mean(dim=0))


def _several(logits: Logits) -> Sequence[Tensor]:
    """In float32 at least: a mean of many in half precision has three digits."""
    several = [logits] if isinstance(logits, Tensor) else logits
    return [each.float() if each.dtype in (torch.float16, torch.bfloat16) else each for each in several]


def _both(real: Logits, fake: Logits) -> list[tuple[Tensor, Tensor]]:
    return list(zip(_several(real), _several(fake), strict=True))


def _mean(losses: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(losses)).mean()
