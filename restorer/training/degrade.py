"""Real-ESRGAN's degradation: blur, resize, noise and JPEG, twice, and a sinc filter at the end (arXiv:2107.10833, 3).

What happens to a sample is drawn first (`draw`, from numbers alone) and then done (`degrade`, on any device). Samples
of a batch differ in everything, so that no queue of older pairs is needed to mix them.
Letters: C channels, H W sides of the truth, h w sides of what is made of it, k side of a kernel.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from restorer.pipeline.finish import LUMA
from restorer.training.blur import BlurConfig, Kernel, Range, check_chances, check_ranges, draw_kernel, draw_sinc
from restorer.training.jpeg import model_jpeg, real_jpeg

Filter = Literal["area", "bilinear", "bicubic"]
Encoder = Literal["model", "real"]
FILTERS: tuple[Filter, ...] = ("area", "bilinear", "bicubic")
LEVELS = 255.0


@dataclass(frozen=True, kw_only=True)
class RoundConfig:
    """What one of the two rounds may do."""

    blur: BlurConfig = field(default_factory=BlurConfig)
    directions: tuple[float, float, float] = (0.2, 0.7, 0.1)
    """Chances that the picture is enlarged, shrunk, kept."""
    resize: Range = (0.15, 1.5)
    """Smallest and largest factor."""
    gaussian: float = 0.5
    """Chance of Gaussian noise; else it is that of counted light (Poisson)."""
    noise: Range = (1.0, 30.0)
    """Deviation of Gaussian noise, in levels of 255."""
    poisson: Range = (0.05, 3.0)
    """How many times too strong the noise of counted light is."""
    grey: float = 0.4
    """Chance that all channels have the same noise."""
    jpeg: tuple[int, int] = (30, 95)
    """Quality."""

    def __post_init__(self) -> None:
        check_chances(gaussian=self.gaussian, grey=self.grey)
        check_ranges(resize=self.resize, noise=self.noise, poisson=self.poisson, jpeg=self.jpeg)
        if min(self.directions) < 0 or not math.isclose(sum(self.directions), 1):
            raise ValueError(f"directions must be chances that add up to 1, got {self.directions}")
        if not 0 < self.resize[0] <= 1 <= self.resize[1]:
            raise ValueError(f"resize must go from at most 1 to at least 1, got {self.resize}")
        if not 1 <= self.jpeg[0] <= self.jpeg[1] <= 100:
            raise ValueError(f"jpeg must be qualities in 1..100, got {self.jpeg}")


@dataclass(frozen=True, kw_only=True)
class DegradationConfig:
    """Numbers of Real-ESRGAN x4plus and x2plus."""

    kind: Literal["real"] = "real"
    first: RoundConfig = field(default_factory=RoundConfig)
    second: RoundConfig = field(
        default_factory=lambda: RoundConfig(
            blur=BlurConfig(chance=0.8, sigma=(0.2, 1.5)),
            directions=(0.3, 0.4, 0.3),
            resize=(0.3, 1.2),
            noise=(1.0, 25.0),
            poisson=(0.05, 2.5),
        )
    )
    final_sinc: float = 0.8
    """Chance of a sinc filter at the end."""
    margin: int = 72
    """Pixels of the truth around each crop that are degraded with it and cut off then, so that no border is seen."""
    sharpen: bool = True
    """Sharpen the truth: that is degraded, and pixels and features are held against it."""
    linear_light: bool = False
    """Blur and resize light, as lenses and sensors do, not the code values of files."""
    encoder: Encoder = "model"
    """JPEG by a differentiable model on the device, or by libjpeg on the processor."""

    def __post_init__(self) -> None:
        check_chances(final_sinc=self.final_sinc)
        if self.margin < 0:
            raise ValueError(f"margin must not be negative, got {self.margin}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Round:
    """What was drawn for one round."""

    blur: tuple[str, Kernel] | None
    resize: float
    filter: Filter
    noise: Literal["gaussian", "poisson"]
    strength: float
    """Deviation in levels, or times too strong."""
    grey: bool
    quality: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Draw:
    """What was drawn for one sample."""

    first: Round
    second: Round
    sinc: tuple[str, Kernel] | None
    filter: Filter
    """Of the last resize."""
    jpeg_last: bool
    """JPEG after the last resize and the sinc filter; else before both."""
    seed: int
    """Of the noise."""


def draw(config: DegradationConfig, rng: np.random.Generator) -> Draw:
    """Draw every number of one sample."""
    rounds = [_draw_round(each, rng) for each in (config.first, config.second)]
    side = int(rng.choice(config.first.blur.sides))
    return Draw(
        first=rounds[0],
        second=rounds[1],
        sinc=draw_sinc(rng, side) if rng.random() < config.final_sinc else None,
        filter=_draw_filter(rng),
        jpeg_last=bool(rng.random() < 1 / 2),
        seed=int(rng.integers(2**62)),
    )


def degrade(x: Tensor, size: tuple[int, int], drawn: Draw, config: DegradationConfig) -> Tensor:
    """(1, 3 or 1, H, W) in [0, 1] -> (1, C, *size), such as the sides over the scale, as 8 bits hold it."""
    chance = torch.Generator(x.device).manual_seed(drawn.seed)
    y = _played(x, drawn.first, x.shape[-2:], chance, config)
    y = jpeg_by(config.encoder, y, drawn.first.quality)
    y = _played(y, drawn.second, size, chance, config)
    if drawn.jpeg_last:
        y = jpeg_by(config.encoder, _finished(y, size, drawn, config).clamp(0, 1), drawn.second.quality)
    else:
        y = _finished(jpeg_by(config.encoder, y, drawn.second.quality), size, drawn, config)
    return (y.clamp(0, 1) * LEVELS).round() / LEVELS


def degrade_batch(high: Tensor, seeds: Sequence[int], scale: int, config: DegradationConfig) -> Tensor:
    """(N, C, H, W) in [0, 1], N seeds -> (N, C, H/scale, W/scale): a sample follows from its seed alone."""
    size = high.shape[-2] // scale, high.shape[-1] // scale
    rngs = (np.random.default_rng(seed) for seed in seeds)
    there = high.cpu() if high.device.type == "mps" else high  # it lacks Poisson noise and some area filters
    made = [degrade(x[None], size, draw(config, rng), config) for x, rng in zip(there, rngs, strict=True)]
    return torch.cat(made).to(high.device)


def told(drawn: Draw) -> dict[str, str]:
    """What was drawn, in words."""
    rounds = {"first": drawn.first, "second": drawn.second}
    lines = {
        name: f"blur {each.blur[0] if each.blur else 'none'}, {each.filter} x{each.resize:.2f}, {each.noise} "
        f"{'grey ' if each.grey else ''}noise {each.strength:.1f}, jpeg {each.quality}"
        for name, each in rounds.items()
    }
    last = f"{drawn.sinc[0] if drawn.sinc else 'no sinc'}, {drawn.filter}"
    return {**lines, "last": f"{last}, jpeg {'last' if drawn.jpeg_last else 'first'}"}


def sharpened(x: Tensor, *, amount: float = 0.5, threshold: float = 10.0) -> Tensor:
    """(N, C, H, W) in [0, 1] -> same: unsharp mask of deviation 8, where it changes more than `threshold` levels.

    The mask of where is blurred by the same bell (51x51). Real-ESRGAN's target for pixels and features.
    """
    missing = x - _softened(x)
    where = _softened((missing.abs() * LEVELS > threshold).to(x.dtype))
    return where * (x + amount * missing).clamp(0, 1) + (1 - where) * x


def filtered(x: Tensor, kernel: Kernel) -> Tensor:
    """(N, C, H, W) any range -> same, correlated with (k, k); mirrored at borders, the edge itself not repeated."""
    reach = kernel.shape[0] // 2
    weight = torch.from_numpy(kernel).to(x).expand(x.shape[1], 1, -1, -1)
    return F.conv2d(_mirrored(x, reach, reach), weight, groups=x.shape[1])


def to_linear(x: Tensor) -> Tensor:
    """sRGB's code values in [0, 1] -> light, same shape (IEC 61966-2-1)."""
    return torch.where(x <= 0.04045, x / 12.92, ((x.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4)


def to_gamma(x: Tensor) -> Tensor:
    """Light -> sRGB's code values in [0, 1], same shape."""
    return torch.where(x <= 0.0031308, x * 12.92, 1.055 * x.clamp(min=0.0031308) ** (1 / 2.4) - 0.055)


def mixed_to_grey(x: Tensor) -> Tensor:
    """(N, 3, H, W) any range -> (N, 1, H, W): luma of BT.601."""
    return (x * torch.tensor(LUMA, device=x.device, dtype=x.dtype)[:, None, None]).sum(1, keepdim=True)


def jpeg_by(encoder: Encoder, x: Tensor, quality: int) -> Tensor:
    """(1, 3 or 1, H, W) in [0, 1] -> same, through JPEG."""
    return real_jpeg(x, quality) if encoder == "real" else model_jpeg(x, quality)


def _draw_round(config: RoundConfig, rng: np.random.Generator) -> Round:
    low, high = config.resize
    limits = ((1.0, high), (low, 1.0), (1.0, 1.0))[int(rng.choice(3, p=config.directions))]
    is_gaussian = rng.random() < config.gaussian
    return Round(
        blur=draw_kernel(config.blur, rng),
        resize=float(rng.uniform(*limits)),
        filter=_draw_filter(rng),
        noise="gaussian" if is_gaussian else "poisson",
        strength=float(rng.uniform(*(config.noise if is_gaussian else config.poisson))),
        grey=bool(rng.random() < config.grey),
        quality=int(rng.integers(config.jpeg[0], config.jpeg[1] + 1)),
    )


def _draw_filter(rng: np.random.Generator) -> Filter:
    return FILTERS[int(rng.integers(len(FILTERS)))]


def _played(x: Tensor, drawn: Round, base: Sequence[int], chance: torch.Generator, config: DegradationConfig) -> Tensor:
    """Blur, resize to `base` times the factor, add noise."""
    y = to_linear(x) if config.linear_light else x
    if drawn.blur is not None:
        y = filtered(y, drawn.blur[1])
    y = _resized(y, (max(1, int(base[0] * drawn.resize)), max(1, int(base[1] * drawn.resize))), drawn.filter)
    y = to_gamma(y) if config.linear_light else y
    noise = _gaussian if drawn.noise == "gaussian" else _poisson
    return (y + noise(y, drawn.strength, drawn.grey, chance)).clamp(0, 1)


def _finished(x: Tensor, size: tuple[int, int], drawn: Draw, config: DegradationConfig) -> Tensor:
    """To its last size, and through the sinc filter."""
    y = _resized(to_linear(x) if config.linear_light else x, size, drawn.filter)
    if drawn.sinc is not None:
        y = filtered(y, drawn.sinc[1])
    return to_gamma(y.clamp(0, 1)) if config.linear_light else y


def _resized(x: Tensor, size: tuple[int, int], by: Filter) -> Tensor:
    """As careless programs do it: bilinear and bicubic without anti-aliasing."""
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x, size, mode=by, align_corners=None if by == "area" else False)


def _gaussian(x: Tensor, deviation: float, grey: bool, chance: torch.Generator) -> Tensor:
    shape = (1, 1 if grey else x.shape[1], *x.shape[-2:])
    return torch.randn(shape, generator=chance, device=x.device, dtype=x.dtype) * (deviation / LEVELS)


def _poisson(x: Tensor, strength: float, grey: bool, chance: torch.Generator) -> Tensor:
    """As if white were as many counts as the picture has levels, rounded up to a power of two."""
    seen = mixed_to_grey(x) if grey and x.shape[1] == 3 else x
    levels = (seen.detach().clamp(0, 1) * LEVELS).round()
    counts = 2.0 ** int(np.ceil(np.log2(len(levels.unique()))))
    light = levels / LEVELS
    return (torch.poisson(light * counts, generator=chance) / counts - light) * strength


def _softened(x: Tensor) -> Tensor:
    """By a Gaussian of deviation 8 over 51 pixels, one axis after the other."""
    offset = torch.arange(-25, 26, device=x.device, dtype=x.dtype)
    bell = torch.exp(-(offset**2) / (2 * 8.0**2))
    weight = (bell / bell.sum()).expand(x.shape[1], 1, 1, -1)
    across = F.conv2d(_mirrored(x, 0, 25), weight, groups=x.shape[1])
    return F.conv2d(_mirrored(across, 25, 0), weight.transpose(2, 3), groups=x.shape[1])


def _mirrored(x: Tensor, down: int, across: int) -> Tensor:
    """Padded by mirroring, as often as it takes: `F.pad` refuses pictures smaller than the padding."""
    for axis, reach in ((-2, down), (-1, across)):
        side = x.shape[axis]
        place = torch.arange(-reach, side + reach, device=x.device)
        period = max(1, 2 * (side - 1))
        place = place.remainder(period)
        x = x.index_select(axis, torch.minimum(place, period - place)) if reach else x
    return x
