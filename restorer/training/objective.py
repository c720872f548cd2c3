"""The game: what two players want, and the one function in which they take turns.

A player is a network, or several in a ModuleDict. An objective says what each wants of a batch; it knows no optimiser,
device, file or schedule. A step is a turn of the generator and one or more of the discriminator, in either order.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, distributed, nn

from restorer.losses.adversarial import Logits
from restorer.losses.gather import processes

Batch = dict[str, Tensor]
Terms = dict[str, Tensor]
"""`player/term` -> weighted scalar: what is logged is what is minimised."""
Player = Literal["g", "d"]
Order = Literal["gd", "dg"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Now:
    """Time and chance, for whoever needs them."""

    step: int
    rng: torch.Generator
    """On the batch's device; the same numbers whenever this turn is played."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Penalty:
    """A term that is paid only in every so many steps, and then that many times, in each turn of its player."""

    player: Player
    every: int
    fn: Callable[[Batch, Now], Tensor]
    """(batch with what was imagined, now) -> weighted scalar."""

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"every must be at least 1, got {self.every}")


class Objective(nn.Module, ABC):
    """What two players want. What a method must remember between steps is a buffer, and so is saved with the rest."""

    g: nn.Module
    d: nn.Module
    """An empty module where there is no adversary."""

    @abstractmethod
    def imagine(self, batch: Batch, now: Now) -> Batch:
        """(N, ...) of each entry -> what the generator makes of it, under new names."""

    @abstractmethod
    def g_terms(self, batch: Batch, now: Now) -> Terms:
        """(N, ...) of each entry, with what was imagined -> what the generator makes small."""

    @abstractmethod
    def d_terms(self, batch: Batch, now: Now) -> Terms:
        """As `g_terms`, for the discriminator, with what was imagined held still; {} where there is none."""

    def penalties(self) -> Mapping[str, Penalty]:
        """Term -> penalty."""
        return {}

    def after(self, player: Player, now: Now) -> None:
        """Called when a player has learned: clipping, clamping of singular values, and the like."""

    def logits(self, batch: Batch, now: Now) -> tuple[Logits, Logits] | None:
        """(N, ...) of each entry -> what the discriminator says of real and fake, for the watch; None without one."""
        return None


@dataclass(frozen=True, kw_only=True, eq=False)
class Turns:
    """The batches of one step. A turn has one, or several whose gradients are added up before the player learns."""

    d: Sequence[Sequence[Batch]]
    """Each turn of the discriminator; none where it does not learn."""
    g: Sequence[Batch] | None
    """The generator's turn; the same object as one of `d` shares what is imagined with it. None: it does not learn."""


@dataclass(frozen=True, kw_only=True)
class Clock:
    """Where in a run we are. Chance in a turn follows from all of this and from nothing else."""

    seed: int
    step: int
    rank: int = 0
    """Number of this process among those that share the batch."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @contextmanager
    def turn(self, player: Player, turn: int, part: int) -> Iterator[Now]:
        """Play one part of a turn under its own random state; the one before is put back."""
        number = derived_seed(self.seed, self.step, self.rank, player, turn, part)
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(number)
            yield Now(step=self.step, rng=torch.Generator(self.device).manual_seed(number))


def derived_seed(*facts: int | str) -> int:
    """A number for these facts, far from those of other facts.

    >>> derived_seed(0, 1) == derived_seed(0, 1), derived_seed(0, 1) == derived_seed(1, 0)
    (True, False)
    """
    return int.from_bytes(hashlib.blake2b(repr(facts).encode(), digest_size=8).digest()) >> 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Rules:
    """How a step is played, apart from what the players want."""

    optimisers: Mapping[Player, torch.optim.Optimizer]
    order: Order = "gd"
    clip: float = 0.0
    """Longest gradient of a player; 0 for any."""
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext
    """The precision that networks compute in."""


def gan_step(objective: Objective, turns: Turns, *, rules: Rules, clock: Clock) -> Terms:
    """(N, ...) batches -> terms: play one step.

    The generator imagines once for the turn that it shares with the discriminator, which sees that picture as it was
    before either learned; in its other turns it is shown new ones. With order "dg" and several parts to the shared
    turn the generator imagines again, so that no more than one part's gradients are held at a time.
    """
    before = [(buffer, buffer.clone()) for buffer in objective.buffers()]
    played: list[Terms] = []
    made: Sequence[Batch] | None = None
    if rules.order == "gd" and turns.g is not None:
        terms, made = _turn("g", 0, turns.g, objective=objective, rules=rules, clock=clock)
        played.append(terms)
    for number, batches in enumerate(turns.d):
        shared = batches is turns.g
        if shared and rules.order == "dg" and len(batches) == 1:
            with clock.turn("g", 0, 0) as now, rules.autocast():
                made = [objective.imagine(batches[0], now)]
        terms, _ = _turn("d", number, batches, made if shared else None, objective=objective, rules=rules, clock=clock)
        played.append(terms)
    if rules.order == "dg" and turns.g is not None:
        terms, _ = _turn("g", 0, turns.g, made, objective=objective, rules=rules, clock=clock)
        played.append(terms)
    if any(name.endswith("/skipped") for terms in played for name in terms):
        _put_back(before)
    return _means(played)


@torch.no_grad()
def _put_back(before: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Statistics of batch norm and the like must not keep what was not finite."""
    for buffer, value in before:
        buffer.copy_(value)


def _turn(
    player: Player,
    number: int,
    batches: Sequence[Batch],
    made: Sequence[Batch] | None = None,
    *,
    objective: Objective,
    rules: Rules,
    clock: Clock,
) -> tuple[Terms, Sequence[Batch]]:
    """One player learns from every part of a turn. -> (its terms, what was imagined, held still)."""
    network = objective.g if player == "g" else objective.d
    optimiser = rules.optimisers[player]
    optimiser.zero_grad(set_to_none=True)
    played, held = [], []
    with frozen(objective.d if player == "g" else objective.g):
        for part, batch in enumerate(batches):
            with clock.turn(player, number, part) as now:
                with rules.autocast():
                    fakes = made[part] if made is not None else _imagined(objective, player, batch, now)
                    held.append({name: tensor.detach() for name, tensor in fakes.items()})
                    terms = _wanted(objective, player, batch | (fakes if player == "g" else held[part]), now)
                if terms:
                    (torch.stack(list(terms.values())).sum() / len(batches)).backward()
                played.append({name: term.detach() for name, term in terms.items()})
        terms = _means(played)
        if terms:
            terms |= _descend(player, network, optimiser, terms, clip=rules.clip)
            objective.after(player, now)
    return terms, held


def _imagined(objective: Objective, player: Player, batch: Batch, now: Now) -> Batch:
    with torch.set_grad_enabled(player == "g"):
        return objective.imagine(batch, now)


def _wanted(objective: Objective, player: Player, batch: Batch, now: Now) -> Terms:
    """The player's terms, and the penalties that are due in this step."""
    terms = objective.g_terms(batch, now) if player == "g" else objective.d_terms(batch, now)
    for name, penalty in objective.penalties().items():
        if penalty.player == player and now.step % penalty.every == 0:
            terms[name] = penalty.fn(batch, now) * penalty.every
    return terms


def _descend(
    player: Player, network: nn.Module, optimiser: torch.optim.Optimizer, terms: Terms, *, clip: float
) -> Terms:
    """Average gradients over processes, cut them to `clip`, and step; what is not finite is left out.

    Both the loss and its gradient are looked at: L1 of NaN is NaN, and has the gradient 0.
    """
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    total = _average(parameters, torch.stack(list(terms.values())).sum())
    length = nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
    if clip:
        nn.utils.clip_grads_with_norm_(parameters, clip, length)
    told = {f"{player}/gradient": length.detach()}
    if torch.isfinite(length) and torch.isfinite(total):
        optimiser.step()
    else:
        told[f"{player}/skipped"] = torch.ones_like(length)
    return told


def _average(parameters: Sequence[nn.Parameter], total: Tensor) -> Tensor:
    """Make every process's gradients their mean: the only place where processes exchange what they learned.

    -> the mean of their losses, so that all of them know when one is not finite.
    """
    if processes() == 1:
        return total
    gradients = [each.grad for each in parameters if each.grad is not None]  # those of the same ones in every process
    flat = torch.cat([*(gradient.flatten() for gradient in gradients), total.reshape(1).to(gradients[0])])
    distributed.all_reduce(flat)
    flat /= processes()
    for gradient, part in zip(gradients, flat[:-1].split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))
    return flat[-1]


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Take no gradients of what `network` learns, for a while; what was frozen before stays so after."""
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


def _means(several: Sequence[Terms]) -> Terms:
    """Each term's mean over those that have it."""
    names = dict.fromkeys(name for terms in several for name in terms)
    return {name: torch.stack([terms[name] for terms in several if name in terms]).mean() for name in names}
