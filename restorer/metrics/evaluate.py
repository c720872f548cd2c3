"""A model over a folder of pictures: shrink each, enlarge it again, and compare with what it was."""

import logging
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from restorer.api import Restorer
from restorer.errors import DataError, PictureError, unknown_name
from restorer.metrics.features import FeatureDistance, open_lite0, open_lpips
from restorer.metrics.fidelity import Bytes, need_torchmetrics, psnr, ssim
from restorer.metrics.niqe import niqe, open_pristine
from restorer.pipeline.files import READABLE
from restorer.pipeline.picture import Picture, read_picture
from restorer.resample import resize

log = logging.getLogger(__name__)
Judge = Callable[[Bytes, Bytes, int, bool], float]
"""(made, truth, border, luma) -> number."""


class Metric(NamedTuple):
    """A number about what was made."""

    open: Callable[["EvaluateConfig"], Judge]
    better: Literal["higher", "lower"]


def _fidelity(score: Callable[..., float]) -> Judge:
    need_torchmetrics()
    return lambda made, truth, border, luma: score(made, truth, border=border, luma=luma)


def _blind(config: "EvaluateConfig") -> Judge:
    pristine = open_pristine(config.niqe)
    return lambda made, truth, border, luma: niqe(made, pristine, border=border)


def _distance(open_distance: Callable[[], FeatureDistance]) -> Judge:
    distance = open_distance()
    return lambda made, truth, border, luma: distance(made, truth, border=border)


def _lpips(network: str, config: "EvaluateConfig") -> Judge:
    return _distance(partial(open_lpips, network, trust_first_use=config.trust_first_use))


METRICS = {
    "psnr": Metric(lambda config: _fidelity(psnr), "higher"),
    "ssim": Metric(lambda config: _fidelity(ssim), "higher"),
    "niqe": Metric(_blind, "lower"),
    "lite0": Metric(lambda config: _distance(open_lite0), "lower"),
    "lpips_alex": Metric(lambda config: _lpips("alexnet", config), "lower"),
    "lpips_vgg": Metric(lambda config: _lpips("vgg16", config), "lower"),
    "lpips_squeeze": Metric(lambda config: _lpips("squeezenet1_1", config), "lower"),
}
"""By name. niqe sees what was made alone; lite0 is a distance of features of EfficientNet-Lite0, and not LPIPS."""


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """What is compared, and how."""

    metrics: tuple[str, ...] = ("psnr", "ssim")
    luma: bool = True
    """Compare Y alone; else RGB."""
    border: int | None = None
    """Pixels left out at every edge; None leaves out as many as the scale."""
    niqe: Path | None = None
    """The statistics of good photos that NIQE compares with; None looks for basicsr's."""
    trust_first_use: bool = False
    """Accept weights of LPIPS's networks, whose full hash was not published."""

    def __post_init__(self) -> None:
        for name in self.metrics:
            if name not in METRICS:
                raise unknown_name("metric", name, METRICS)
        if self.border is not None and self.border < 0:
            raise ValueError(f"border must not be negative, got {self.border}")


@dataclass(frozen=True, kw_only=True)
class Score:
    """One picture's numbers: the model's, and those of plain bicubic enlargement."""

    name: str
    model: Mapping[str, float]
    bicubic: Mapping[str, float]


def evaluate(
    opened: Restorer, folder: Path, *, low: Path | None = None, config: EvaluateConfig | None = None,
    tell: Callable[[str], None] = log.warning,
) -> Iterator[Score]:  # fmt: skip
    """Score every picture of `folder`; its small partner is in `low` under the same name, or made as MATLAB would.

    Sides are cut to multiples of the scale first. A picture that cannot be scored is told and left out, a number that
    cannot be had of it is NaN. DataError where `folder` has no pictures.
    """
    config = config or EvaluateConfig()
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in READABLE)
    if not files:
        raise DataError(f"no pictures in '{folder}'")
    judges = {name: METRICS[name].open(config) for name in config.metrics}
    for path in files:
        try:
            yield _scored(opened, path, low=low, config=config, judges=judges, tell=tell)
        except (PictureError, DataError) as error:
            tell(f"left out: {error}")


def _scored(
    opened: Restorer, path: Path, *, low: Path | None, config: EvaluateConfig, judges: Mapping[str, Judge],
    tell: Callable[[str], None],
) -> Score:  # fmt: skip
    scale = opened.engine.traits.scale
    border = scale if config.border is None else config.border
    truth = _eight_bits(path)
    truth = truth[: len(truth) // scale * scale, : truth.shape[1] // scale * scale]
    size = truth.shape[0] // scale, truth.shape[1] // scale
    if 0 in size:
        raise PictureError(f"{path.name}: is smaller than the scale, {scale}")
    small = _rounded(resize(truth, size)) if low is None else _eight_bits(_partner(low, path, scale))
    if small.shape[:2] != size:
        raise PictureError(f"{path.name}: its partner is {small.shape[1]}x{small.shape[0]}, not {size[1]}x{size[0]}")
    made = _rounded(opened.restore(Picture(pixels=small)).pixels)
    plain = _rounded(resize(small, (truth.shape[0], truth.shape[1])))
    numbers: dict[str, tuple[float, float]] = {}
    for name, judge in judges.items():
        try:
            numbers[name] = judge(made, truth, border, config.luma), judge(plain, truth, border, config.luma)
        except PictureError as error:
            tell(f"{path.name}: no {name}: {error}")
            numbers[name] = math.nan, math.nan
    return Score(
        name=path.stem,
        model={name: pair[0] for name, pair in numbers.items()},
        bicubic={name: pair[1] for name, pair in numbers.items()},
    )


def means(scores: Sequence[Score]) -> Score:
    """The mean of each number over the pictures that have it."""
    names = scores[0].model
    return Score(
        name="mean",
        model={name: _mean([score.model[name] for score in scores]) for name in names},
        bicubic={name: _mean([score.bicubic[name] for score in scores]) for name in names},
    )


def _mean(numbers: Sequence[float]) -> float:
    there = [number for number in numbers if not math.isnan(number)]
    return statistics.fmean(there) if there else math.nan


def _partner(folder: Path, path: Path, scale: int) -> Path:
    """Under the same name, or under DIV2K's: 0001x4 for 0001."""
    names = (path.stem, f"{path.stem}x{scale}")
    found = [each for each in folder.iterdir() if each.stem in names and each.suffix.lower() in READABLE]
    if len(found) != 1:
        raise DataError(f"'{folder}' holds {len(found)} pictures named {path.stem}; partners share their names")
    return found[0]


def _eight_bits(path: Path) -> Bytes:
    pixels = read_picture(path).pixels
    if pixels.dtype != np.uint8:
        raise PictureError(f"{path.name}: has {pixels.dtype} values; scores are of 8-bit pictures")
    return pixels


def _rounded(x: np.ndarray) -> Bytes:
    return x if x.dtype == np.uint8 else np.rint(x).clip(0, 255).astype(np.uint8)
