"""What a discriminator is shown in place of pictures, so that few pictures last longer. All keep gradients.

DiffAugment changes every picture; ADA changes each with a probability that rises while the discriminator overfits.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from restorer.errors import unknown_name
from restorer.losses.gather import batch_mean, processes

Change = Callable[[Tensor, torch.Generator], Tensor]


def _draw(x: Tensor, rng: torch.Generator, channels: int = 1) -> Tensor:
    """(N, channels, 1, 1) in [0, 1)."""
    return torch.rand(len(x), channels, 1, 1, generator=rng, device=x.device).to(x.dtype)


def brightness(x: Tensor, rng: torch.Generator) -> Tensor:
    """(N, C, H, W) in [0, 1] -> same shape: plus an even draw of [-0.25, 0.25], a quarter of the range.

    DiffAugment's half, since its range is [-1, 1]: the change is the same.
    """
    return x + (_draw(x, rng) - 0.5) / 2


def saturation(x: Tensor, rng: torch.Generator) -> Tensor:
    """(N, C, H, W) -> same: distance of the channels to their mean times an even draw of [0, 2]."""
    mean = x.mean(dim=1, keepdim=True)
    return (x - mean) * (_draw(x, rng) * 2) + mean


def contrast(x: Tensor, rng: torch.Generator) -> Tensor:
    """(N, C, H, W) -> same: distance to the picture's mean times an even draw of [0.5, 1.5]."""
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return (x - mean) * (_draw(x, rng) + 0.5) + mean


def translation(x: Tensor, rng: torch.Generator, *, ratio: float = 0.125) -> Tensor:
    """(N, C, H, W) -> same: moved by whole pixels, up to `ratio` of each side; what comes in is grey (0.5)."""
    n, _, height, width = x.shape
    reach = [int(side * ratio + 0.5) for side in (height, width)]
    padded = F.pad(x - 0.5, (reach[1], reach[1], reach[0], reach[0])) + 0.5
    starts = [torch.randint(0, 2 * r + 1, (n,), generator=rng, device=x.device) for r in reach]
    rows = starts[0][:, None] + torch.arange(height, device=x.device)  # (N, H)
    columns = starts[1][:, None] + torch.arange(width, device=x.device)  # (N, W)
    number = torch.arange(n, device=x.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[number, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def cutout(x: Tensor, rng: torch.Generator, *, ratio: float = 0.5) -> Tensor:
    """(N, C, H, W) -> same: a box of `ratio` of each side becomes grey (0.5); its centre is anywhere."""
    sides = x.shape[-2:]
    keep = torch.ones(len(x), 1, *sides, dtype=x.dtype, device=x.device)
    inside = torch.ones_like(keep, dtype=torch.bool)
    for axis, side in zip((2, 3), sides, strict=True):
        box = int(side * ratio + 0.5)
        centre = torch.randint(0, side + (1 - box % 2), (len(x),), generator=rng, device=x.device)
        place = torch.arange(side, device=x.device) - (centre - box // 2)[:, None]
        within = (place >= 0) & (place < box)  # (N, side)
        inside = inside & (within[:, None, :, None] if axis == 2 else within[:, None, None, :])
    return torch.where(inside, torch.full_like(x, 0.5), x)


def flip(x: Tensor, rng: torch.Generator) -> Tensor:
    """(N, C, H, W) -> same: mirrored left to right, every second one by chance."""
    return torch.where(_draw(x, rng) < 0.5, x.flip(-1), x)


def quarter_turn(x: Tensor, rng: torch.Generator) -> Tensor:
    """(N, C, H, W) with H = W -> same: turned by 0, 90, 180 or 270 degrees, evenly."""
    turns = (_draw(x, rng) * 4).floor()
    for number in (1, 2, 3):
        x = torch.where(turns == number, x.rot90(number, dims=(-2, -1)), x)
    return x


DIFF_AUGMENT: dict[str, tuple[Change, ...]] = {
    "color": (brightness, saturation, contrast),
    "translation": (translation,),
    "cutout": (cutout,),
}
"""arXiv:2006.10738; a policy is some of these names, joined by commas."""
ADA_CHANGES: tuple[Change, ...] = (flip, quarter_turn, translation, brightness, contrast, saturation)
"""Each is applied with probability p, on its own: what keeps whole pixels of the changes of arXiv:2006.06676."""


def diff_augment(x: Tensor, policy: str, rng: torch.Generator) -> Tensor:
    """(N, C, H, W) in [0, 1] -> same shape: every change of the policy, such as "color,translation,cutout"."""
    for name in filter(None, policy.split(",")):
        if name not in DIFF_AUGMENT:
            raise unknown_name("augmentation", name, DIFF_AUGMENT)
        for change in DIFF_AUGMENT[name]:
            x = change(x, rng)
    return x


def adaptive_augment(x: Tensor, probability: Tensor, rng: torch.Generator) -> Tensor:
    """(N, C, H, W) in [0, 1], () -> same shape: each of `ADA_CHANGES` for each picture with this probability."""
    for change in ADA_CHANGES:
        chosen = _draw(x, rng) < probability
        x = torch.where(chosen, change(x, rng), x)
    return x


@dataclass(frozen=True, kw_only=True)
class AdaptiveConfig:
    """How ADA finds its probability."""

    target: float = 0.6
    """The mean sign of the logits on real that is aimed at: higher means that the discriminator overfits."""
    pictures: float = 500_000
    """So many pictures of steady overfitting take the probability from 0 to 1."""


def adapted(probability: Tensor, real_logits: Tensor, config: AdaptiveConfig) -> Tensor:
    """(), (N, ...) -> (): the probability after this batch of real pictures, in [0, 1]."""
    step = len(real_logits) * processes() / config.pictures
    direction = (batch_mean(real_logits.sign()) - config.target).sign()
    return (probability + direction * step).clamp(0, 1)
