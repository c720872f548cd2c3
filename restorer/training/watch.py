"""Watch the game: what is logged, and one clear line when it goes wrong, with what to do about it."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from restorer.training.objective import Batch, Now, Objective, Terms

Readings = dict[str, float]
PATIENCE = 10
"""Logs in a row that a reading must look bad in before it is a trouble."""
ENOUGH = 8
"""Logits of each side under which their order says nothing."""
SURE = 0.99
"""Accuracy on both sides above which the discriminator runs away."""
FLAT = 1e-7
"""Gradient of the generator under which it learns nothing."""
ALIKE = 0.05
"""Diversity, as a share of the truth's, under which outputs have collapsed."""
GIVE_UP = 100
"""Steps in a row without a finite gradient after which no run goes on."""


RUNAWAY = (
    "the discriminator runs away: it is right about nearly everything, and the generator learns little from it; try "
    "a higher adversary.r1, adversary.instance_noise=0.1, a lower train.d_rate or adversary.augment=ada"
)
VANISHED = (
    "the generator's gradient has vanished; try adversary.loss=non_saturating or least_squares, or a higher "
    "train.g_rate"
)
COLLAPSED = (
    "the generator has collapsed: its outputs hardly differ from each other; go back to an earlier checkpoint with a "
    "lower train.g_rate"
)


class Window:
    """Terms of the steps since the last log, summed where they are, so that no step waits for a device."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, terms: Terms) -> None:
        """(...) scalars of one step."""
        for name, term in terms.items():
            self._sums[name] = self._sums[name] + term if name in self._sums else term.clone()
            self._counts[name] = self._counts.get(name, 0) + 1

    def take(self) -> Readings:
        """Means over the steps that had each term; the window is empty afterwards. Counts of skips are summed."""
        totals = {name: float(total) for name, total in self._sums.items()}
        counts, self._sums, self._counts = self._counts, {}, {}
        return {name: total / (1 if name.endswith("/skipped") else counts[name]) for name, total in totals.items()}


@torch.no_grad()
def looked_at(objective: Objective, batch: Batch, now: Now) -> Readings:
    """(N, ...) of each entry -> how the discriminator judges, and how much outputs differ among themselves.

    Accuracy is the share of real logits above the middle, and of fake ones below it: 0, or half-way between the two
    sides' means where that separates them better, as for relativistic and Wasserstein games. Of several scales the
    first is looked at.
    """
    with undisturbed(objective):
        made = objective.imagine(batch, now)
        judged = objective.logits(batch | made, now)
    readings: Readings = {}
    sides = () if judged is None else tuple(each if isinstance(each, Tensor) else each[0] for each in judged)
    if sides and min(each.numel() for each in sides) >= ENOUGH:
        real, fake = sides
        middles = (0.0, float(real.mean() + fake.mean()) / 2)
        shares = [(float((real > m).float().mean()), float((fake < m).float().mean())) for m in middles]
        readings["d/accuracy_real"], readings["d/accuracy_fake"] = max(shares, key=sum)
    if "fake" in made and "high" in batch and len(made["fake"]) > 1:
        truth = diversity(batch["high"])
        readings["g/diversity"] = float(diversity(made["fake"]) / truth) if truth > 0 else math.nan
    return readings


def diversity(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (): mean over pairs of the root mean square difference."""
    flat = x.flatten(1).float().cpu()
    return torch.pdist(flat).mean() / math.sqrt(flat.shape[1])


@contextmanager
def undisturbed(network: nn.Module) -> Iterator[None]:
    """Let a network run as in training for a while, and put back what it remembers, such as statistics of batch norm.

    In evaluation mode batch norm would use statistics mixed from real and fake, and accuracies would mean nothing.
    """
    kept = [(buffer, buffer.clone()) for buffer in network.buffers()]
    try:
        yield
    finally:
        for buffer, before in kept:
            buffer.copy_(before)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode for a while; each part goes back to the mode that it was in."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@dataclass
class Watch:
    """Counts how long each reading has looked bad."""

    bad: dict[str, int] = field(default_factory=dict)

    def troubles(self, readings: Mapping[str, float]) -> list[str]:
        """One line, with advice, for each trouble that has lasted."""
        sure = min(readings.get("d/accuracy_real", 0), readings.get("d/accuracy_fake", 0))
        seen = {
            RUNAWAY: sure > SURE,
            VANISHED: readings.get("g/gradient", 1) < FLAT,
            COLLAPSED: readings.get("g/diversity", 1) < ALIKE,
        }
        self.bad = {line: self.bad.get(line, 0) + 1 for line, is_bad in seen.items() if is_bad}
        lines = [line for line, count in self.bad.items() if count % PATIENCE == 0]
        for player in ("g", "d"):
            if count := readings.get(f"{player}/skipped", 0):
                lines.append(
                    f"{count:.0f} gradients of {player} were not finite and were left out; try train.clip=1, a lower "
                    "train.g_rate and train.d_rate, or train.precision=fp32"
                )
        return lines
