"""A slow copy of the generator: the average of what it was, which makes steadier pictures than what it is."""

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True, kw_only=True)
class AveragingConfig:
    """How fast the average forgets. The larger of `decay` and what `half_life` says counts, where both are given."""

    decay: float = 0.999
    """Share of itself that the average keeps at every update (BasicSR, BigGAN); 0 copies."""
    half_life: float = 0.0
    """In pictures seen: after so many, half of the average is new (StyleGAN2); 0 is not used."""
    ramp_up: float = 0.0
    """The half-life is at most this share of all pictures seen so far (StyleGAN3); 0 is not used."""
    start: int = 0
    """Updates before which the average is a plain copy (BigGAN: 20000)."""
    buffers: bool = True
    """Copy buffers, such as the statistics of batch norm, at every update; else they stay as they were at the start."""

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {self.decay}")
        if self.half_life < 0 or self.ramp_up < 0 or self.start < 0:
            raise ValueError("half_life, ramp_up and start must not be negative")


def decay_at(config: AveragingConfig, update: int, batch: int) -> float:
    """Share that the average keeps at this update of the generator (counted from 0) with `batch` pictures each.

    >>> decay_at(AveragingConfig(decay=0, half_life=10000), 5, batch=10000)
    0.5
    """
    if update < config.start:
        return 0.0
    if not config.half_life:
        return config.decay
    half_life = config.half_life
    if config.ramp_up:
        half_life = min(half_life, config.ramp_up * (update + 1) * batch)
    return max(config.decay, 0.5 ** (batch / half_life))


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float, *, buffers: bool = True) -> None:
    """average <- decay * average + (1 - decay) * network, for every parameter; buffers are copied if asked for."""
    for old, new in zip(average.parameters(), network.parameters(), strict=True):
        old.lerp_(new, 1 - decay)
    if buffers:
        for held, fresh in zip(average.buffers(), network.buffers(), strict=True):
            held.copy_(fresh)
