"""When players learn, and how fast: pure functions of the step, so that a resumed run needs no memory of them."""

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Cadence:
    """How often each player learns. A step of the run is one turn of the generator with all that belongs to it."""

    d_turns: int = 1
    """Turns of the discriminator in a step (WGAN: 5)."""
    warm_steps: int = 0
    """Steps at the start in which only the discriminator learns (BasicSR's net_d_init_iters)."""
    burst: int = 0
    """Turns of the discriminator in the first `burst_first` steps and in every `burst_every`th (WGAN: 100, 25, 500)."""
    burst_first: int = 25
    burst_every: int = 500

    def __post_init__(self) -> None:
        if self.d_turns < 1 or self.burst_every < 1:
            raise ValueError("d_turns and burst_every must be at least 1")
        if self.warm_steps < 0 or self.burst < 0 or self.burst_first < 0:
            raise ValueError("warm_steps, burst and burst_first must not be negative")


def d_turns_at(cadence: Cadence, step: int) -> int:
    """How often the discriminator learns in this step.

    >>> [d_turns_at(Cadence(d_turns=5, burst=100, burst_first=2, burst_every=4), step) for step in range(6)]
    [100, 100, 5, 5, 100, 5]
    """
    if cadence.burst and (step < cadence.burst_first or step % cadence.burst_every == 0):
        return cadence.burst
    return cadence.d_turns


def g_updates_before(cadence: Cadence, step: int) -> int:
    """How often the generator has learned before this step: what its schedule and its average count."""
    return max(0, step - cadence.warm_steps)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How the learning rate falls, for both players."""

    kind: Literal["constant", "steps", "cosine", "linear"] = "constant"
    """steps: times `factor` at each milestone. cosine: from 1 to `floor` in each period, then anew. linear: flat until
    the first milestone, then a little lower with every step, to 0 at the end of the run."""
    milestones: tuple[int, ...] = ()
    flat: float = 0.0
    """Share of the run in which linear is flat, where it has no milestone."""
    factor: float = 0.5
    periods: tuple[int, ...] = ()
    floor: float = 1e-7
    """The lowest rate of cosine."""

    def __post_init__(self) -> None:
        if self.kind == "cosine" and not self.periods:
            raise ValueError("a cosine schedule needs periods")
        if any(number < 1 for number in (*self.milestones, *self.periods)):
            raise ValueError("milestones and periods must be at least 1")
        if not 0 <= self.flat <= 1:
            raise ValueError(f"flat must be in [0, 1], got {self.flat}")


def rate_at(schedule: Schedule, rate: float, update: int, steps: int) -> float:
    """The learning rate of this update, in a run of `steps`.

    >>> rate_at(Schedule(kind="steps", milestones=(10, 20)), 1.0, 20, 100)
    0.25
    """
    if schedule.kind == "steps":
        return rate * schedule.factor ** sum(update >= milestone for milestone in schedule.milestones)
    if schedule.kind == "cosine":
        done = update
        for period in schedule.periods:
            if done < period:
                return schedule.floor + (rate - schedule.floor) * (1 + math.cos(math.pi * done / period)) / 2
            done -= period
        return schedule.floor
    if schedule.kind == "linear":
        flat = schedule.milestones[0] if schedule.milestones else int(schedule.flat * steps)
        return rate * min(1.0, max(0.0, (steps - update) / max(1, steps - flat)))
    return rate
