"""A batch of true pictures -> the batch that a game is played on, with small partners and the sharpened truth."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from restorer.resample import resize_tensor
from restorer.training.degrade import DegradationConfig, degrade_batch, sharpened
from restorer.training.degrade_faces import FaceDegradationConfig, degrade_face_batch
from restorer.training.objective import Batch

Degradation = DegradationConfig | FaceDegradationConfig
"""What pictures may be put through; none is MATLAB's bicubic shrinking alone."""
DEGRADATIONS: Mapping[str, type[Degradation]] = {"real": DegradationConfig, "face": FaceDegradationConfig}
"""Kind -> its config."""


def margin_of(degradation: Degradation | None) -> int:
    """Pixels of the truth that are read around a crop, and cut off again here."""
    return degradation.margin if isinstance(degradation, DegradationConfig) else 0


def without_margin(degradation: Degradation) -> Degradation:
    """The same for whole pictures, which have nothing around them."""
    if isinstance(degradation, FaceDegradationConfig):
        return degradation
    return replace(degradation, margin=0)


def paired_up(batch: Batch, degradation: Degradation | None, *, scale: int) -> Batch:
    """`high` (N, C, H, W) in [0, 1], `chance` (N,) seeds -> `high`, `low`, and `sharp` where the truth is sharpened.

    A `low` that was read stays. Margins are cut off; everything stays on its device.
    """
    high = batch["high"]
    if "low" in batch:
        return batch
    with torch.no_grad(), torch.autocast(high.device.type, enabled=False):
        sharpens = isinstance(degradation, DegradationConfig) and degradation.sharpen
        truth = sharpened(high) if sharpens else high  # what is degraded, as in Real-ESRGAN
        made = {
            "high": high,
            "low": _partners(truth, batch, degradation, scale),
            **({"sharp": truth} if sharpens else {}),
        }
    margin = margin_of(degradation)
    return {name: _cut(x, margin // scale if name == "low" else margin) for name, x in made.items()}


def _partners(high: Tensor, batch: Batch, degradation: Degradation | None, scale: int) -> Tensor:
    if degradation is None:
        small = resize_tensor(high, (high.shape[-2] // scale, high.shape[-1] // scale))
        return (small.clamp(0, 1) * 255).round() / 255
    seeds: list[int] = batch["chance"].tolist()
    if isinstance(degradation, FaceDegradationConfig):
        return degrade_face_batch(high, seeds, degradation)
    return degrade_batch(high, seeds, scale, degradation)


def _cut(x: Tensor, margin: int) -> Tensor:
    inside = x[..., margin : x.shape[-2] - margin, margin : x.shape[-1] - margin]
    return inside.contiguous(memory_format=torch.channels_last)
