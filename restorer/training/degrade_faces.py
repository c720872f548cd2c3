"""GFPGAN's degradation of aligned faces: blur, shrink, noise, JPEG, back to size, colours shifted (arXiv:2101.04061).

Letters: C channels, H W sides of the face.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as colours

from restorer.training.blur import BlurConfig, Range, check_chances, check_ranges, draw_kernel
from restorer.training.degrade import LEVELS, Encoder, filtered, jpeg_by, mixed_to_grey


@dataclass(frozen=True, kw_only=True)
class FaceDegradationConfig:
    """Numbers of GFPGAN v1 (512x512)."""

    kind: Literal["face"] = "face"
    blur: BlurConfig = field(
        default_factory=lambda: BlurConfig(kinds=(0.5, 0.5, 0, 0, 0, 0), sides=(41,), sigma=(0.1, 10.0), sinc=0.0)
    )
    shrink: Range = (0.8, 8.0)
    """Sides are divided by this."""
    noise: Range = (0.0, 20.0)
    """Deviation, in levels of 255."""
    jpeg: tuple[int, int] = (60, 100)
    """Quality."""
    shift_chance: float = 0.3
    shift: float = 20.0
    """Most that each channel is moved by, in levels of 255."""
    jitter_chance: float = 0.3
    brightness: Range = (0.5, 1.5)
    contrast: Range = (0.5, 1.5)
    saturation: Range = (0.0, 1.5)
    hue: tuple[float, float] = (-0.1, 0.1)
    """In turns of the colour circle."""
    grey: float = 0.01
    """Chance that colour is lost."""
    enlarge: Literal["bilinear", "bicubic"] = "bilinear"
    """How the face gets its size back."""
    encoder: Encoder = "model"
    """JPEG by a differentiable model on the device, or by libjpeg on the processor."""

    def __post_init__(self) -> None:
        check_chances(shift_chance=self.shift_chance, jitter_chance=self.jitter_chance, grey=self.grey)
        check_ranges(shrink=self.shrink, noise=self.noise, jpeg=self.jpeg, brightness=self.brightness)
        check_ranges(contrast=self.contrast, saturation=self.saturation)
        if not -0.5 <= self.hue[0] <= self.hue[1] <= 0.5:
            raise ValueError(f"hue must be [low, high] in [-0.5, 0.5], got {self.hue}")
        if not 1 <= self.jpeg[0] <= self.jpeg[1] <= 100:
            raise ValueError(f"jpeg must be qualities in 1..100, got {self.jpeg}")
        if self.shrink[0] <= 0 or self.shift < 0:
            raise ValueError(f"shrink must be above 0 and shift not below, got {self.shrink} and {self.shift}")


def degrade_face(x: Tensor, config: FaceDegradationConfig, rng: np.random.Generator) -> Tensor:
    """(1, 3 or 1, H, W) in [0, 1] -> (1, 3, H, W), as 8 bits hold it. Everything is drawn from `rng`."""
    x, size = x.expand(-1, 3, -1, -1), (x.shape[-2], x.shape[-1])
    drawn = draw_kernel(config.blur, rng)
    y = x if drawn is None else filtered(x, drawn[1])
    by = rng.uniform(*config.shrink)
    y = F.interpolate(y, (max(1, int(size[0] // by)), max(1, int(size[1] // by))), mode="bilinear", align_corners=False)
    chance = torch.Generator(x.device).manual_seed(int(rng.integers(2**62)))
    noise = torch.randn(y.shape, generator=chance, device=y.device, dtype=y.dtype)
    y = (y + noise * (rng.uniform(*config.noise) / LEVELS)).clamp(0, 1)
    y = jpeg_by(config.encoder, y, int(rng.integers(config.jpeg[0], config.jpeg[1] + 1)))
    y = _recoloured(F.interpolate(y, size, mode=config.enlarge, align_corners=False), config, rng)
    return (y.clamp(0, 1) * LEVELS).round() / LEVELS


def degrade_face_batch(high: Tensor, seeds: Sequence[int], config: FaceDegradationConfig) -> Tensor:
    """(N, 3, H, W) in [0, 1], N seeds -> same shape: a sample follows from its seed, whatever the batch."""
    rngs = (np.random.default_rng(seed) for seed in seeds)
    return torch.cat([degrade_face(x[None], config, rng) for x, rng in zip(high, rngs, strict=True)])


def _recoloured(y: Tensor, config: FaceDegradationConfig, rng: np.random.Generator) -> Tensor:
    """Channels moved, colour lost, then brightness, contrast, saturation and hue in any order; each by chance."""
    if rng.random() < config.shift_chance:
        moved = torch.from_numpy(rng.uniform(-config.shift, config.shift, 3) / LEVELS)
        y = (y + moved.to(y)[:, None, None]).clamp(0, 1)
    if rng.random() < config.grey:
        y = mixed_to_grey(y).expand_as(y)
    if rng.random() < config.jitter_chance:
        changes = (
            (colours.adjust_brightness, config.brightness),
            (colours.adjust_contrast, config.contrast),
            (colours.adjust_saturation, config.saturation),
            (colours.adjust_hue, config.hue),
        )
        for number in rng.permutation(len(changes)):
            change, limits = changes[number]
            y = change(y.clamp(0, 1), float(rng.uniform(*limits)))
    return y
