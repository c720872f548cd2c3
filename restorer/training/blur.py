"""The blur kernels of Real-ESRGAN (arXiv:2107.10833): Gaussians, flatter and steeper ones, plateaus, the ringing sinc.

Letters: k side of a kernel, odd; s its deviations along its own axes, in pixels; b its shape.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

Kernel = NDArray[np.float64]
Range = tuple[float, float]
KINDS = ("iso", "aniso", "generalised_iso", "generalised_aniso", "plateau_iso", "plateau_aniso")
SIDES = (7, 9, 11, 13, 15, 17, 19, 21)
_WIDE = 13
"""From this side on a sinc filter may cut at lower frequencies."""


@dataclass(frozen=True, kw_only=True)
class BlurConfig:
    """Which kernel is drawn, if any."""

    chance: float = 1.0
    """Of any blur at all."""
    kinds: tuple[float, ...] = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
    """Chances of `KINDS`: each shape with one deviation, and with two along turned axes."""
    sides: tuple[int, ...] = SIDES
    """Of which the kernel's side is drawn."""
    sigma: Range = (0.2, 3.0)
    """Deviation, in pixels."""
    generalised: Range = (0.5, 4.0)
    """Shape of generalised Gaussians; 1 is the Gaussian, larger is flatter with a steeper edge."""
    plateau: Range = (1.0, 2.0)
    """Shape of plateaus."""
    sinc: float = 0.1
    """Chance of a sinc filter instead."""

    def __post_init__(self) -> None:
        check_chances(chance=self.chance, sinc=self.sinc)
        check_ranges(sigma=self.sigma, generalised=self.generalised, plateau=self.plateau)
        if len(self.kinds) != len(KINDS) or min(self.kinds) < 0 or not math.isclose(sum(self.kinds), 1):
            raise ValueError(f"kinds must be {len(KINDS)} chances that add up to 1, got {self.kinds}")
        if not self.sides or any(side < 1 or side % 2 == 0 for side in self.sides):
            raise ValueError(f"sides must be odd, got {self.sides}")
        if self.sigma[0] <= 0:
            raise ValueError(f"sigma must be above 0, got {self.sigma}")


def draw_kernel(config: BlurConfig, rng: np.random.Generator) -> tuple[str, Kernel] | None:
    """-> (what it is, (k, k), adding up to 1), or None for no blur."""
    if rng.random() >= config.chance:
        return None
    side = int(rng.choice(config.sides))
    if rng.random() < config.sinc:
        return draw_sinc(rng, side, lowest=math.pi / (3 if side < _WIDE else 5))
    kind = KINDS[int(rng.choice(len(KINDS), p=config.kinds))]
    across = float(rng.uniform(*config.sigma))
    down, angle = across, 0.0
    if kind.endswith("aniso"):
        down, angle = float(rng.uniform(*config.sigma)), float(rng.uniform(-math.pi, math.pi))
    shape = 1.0
    if kind.startswith(("generalised", "plateau")):
        shape = _around_one(config.generalised if kind.startswith("generalised") else config.plateau, rng)
    name = f"{kind} {across:.1f}" + (f"x{down:.1f}" if down != across else "")
    return name, bell(side, (across, down), angle, shape=shape, plateau=kind.startswith("plateau"))


def draw_sinc(rng: np.random.Generator, side: int, *, lowest: float = math.pi / 3) -> tuple[str, Kernel]:
    """A sinc filter that cuts somewhere from `lowest` to the highest frequency there is, pi."""
    cutoff = float(rng.uniform(lowest, math.pi))
    return f"sinc {cutoff:.1f}", sinc(side, cutoff)


def bell(side: int, sigma: Range, angle: float, *, shape: float = 1.0, plateau: bool = False) -> Kernel:
    """(k, k) adding up to 1: exp(-q^b / 2), or 1 / (1 + q^b) for a plateau; q is the squared distance in deviations.

    `sigma` along the kernel's own axes; `angle` in radians turns them.
    """
    offset = np.arange(side) - side // 2
    x, y = np.meshgrid(offset, offset)
    along = (x * math.cos(angle) + y * math.sin(angle)) / sigma[0]
    across = (y * math.cos(angle) - x * math.sin(angle)) / sigma[1]
    distance = (along**2 + across**2) ** shape
    kernel = 1 / (1 + distance) if plateau else np.exp(-distance / 2)
    return kernel / kernel.sum()


def sinc(side: int, cutoff: float) -> Kernel:
    """(k, k) adding up to 1: the circular low-pass that cuts at `cutoff` radians a pixel, c J1(c r) / (2 pi r)."""
    offset = torch.arange(side, dtype=torch.float64) - side // 2
    radius = torch.hypot(offset[:, None], offset[None, :])
    kernel = cutoff * torch.special.bessel_j1(cutoff * radius) / (2 * math.pi * radius)
    kernel[side // 2, side // 2] = cutoff**2 / (4 * math.pi)
    return (kernel / kernel.sum()).numpy()


def _around_one(limits: Range, rng: np.random.Generator) -> float:
    """As often up to one as above it, where the limits have one inside, so that neither side is rare."""
    low, high = limits
    if not low <= 1 <= high:
        return float(rng.uniform(low, high))
    return float(rng.uniform(low, 1) if rng.random() < 1 / 2 else rng.uniform(1, high))


def check_chances(**chances: float) -> None:
    """ValueError for one that is none."""
    for name, value in chances.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must be in [0, 1], got {value}")


def check_ranges(**ranges: Range) -> None:
    """ValueError for one whose ends are in the wrong order, or below 0."""
    for name, (low, high) in ranges.items():
        if not 0 <= low <= high:
            raise ValueError(f"{name} must be [low, high], not below 0, got [{low}, {high}]")
