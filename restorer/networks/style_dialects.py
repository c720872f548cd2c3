"""How others name and scale the weights of style-based networks, and how they become the plain ones here.

Published files hold N(0, 1) weights that are scaled at run time ("equalised"), and activations have a gain; here both
are in the weights, which gives the same pictures with less to do.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from restorer.errors import AmbiguousWeightsError, WeightsError
from restorer.networks.spec import Facts, StateDict, listed
from restorer.networks.style_layers import GAIN, RESAMPLINGS, TAPS, Resampling

MAPPING_RATE = 0.01
"""What published files multiply the weights of the mapping network with, at run time."""


class Renaming(NamedTuple):
    """What becomes of the keys that match a pattern."""

    pattern: str
    name: str | Callable[[re.Match[str]], str] | None
    """A template, or a function of the match; None: the key is left out."""
    gain: float = 1.0
    equalised: bool = False
    """Multiply by 1 / sqrt(numbers that each output sums up), too."""
    taps: bool = False
    """What is left out is the filter [1, 3, 3, 1], and must be."""


def translated(weights: StateDict, rules: Sequence[Renaming]) -> dict[str, Tensor]:
    """Apply to each key the first rule that matches all of it; keys that match none stay as they are."""
    found: dict[str, Tensor] = {}
    for key, tensor in weights.items():
        rule, match = _first(key, rules)
        if rule is None or match is None:
            name, value = key, tensor
        elif rule.name is None:
            if rule.taps and not _is_usual(tensor):
                raise WeightsError(f"{listed([key])} of these weights is another filter than [1, 3, 3, 1]; use others")
            continue
        else:
            name = match.expand(rule.name) if isinstance(rule.name, str) else rule.name(match)
            value = _shaped(name, tensor)
            scaled = (rule.gain, rule.equalised) != (1.0, False) and value.is_floating_point()
            value = value.float() * _factor(rule, value) if scaled else value
        if name in found:
            raise WeightsError(f"these weights hold {listed([name])} under two names; use a checkpoint in one dialect")
        found[name] = value
    return found


def _first(key: str, rules: Sequence[Renaming]) -> tuple[Renaming | None, re.Match[str] | None]:
    for rule in rules:
        if match := re.fullmatch(rule.pattern, key):
            return rule, match
    return None, None


def _is_usual(kernel: Tensor) -> bool:
    """Whether a filter is [1, 3, 3, 1] both ways, or one way, up to its sum."""
    taps = torch.tensor(TAPS)
    usual = taps[:, None] * taps if kernel.ndim == 2 else taps
    total = float(kernel.sum()) if kernel.shape == usual.shape else 0.0
    return total != 0 and bool(torch.allclose(kernel.float() / total, usual / usual.sum(), atol=1e-3))


def _factor(rule: Renaming, tensor: Tensor) -> float:
    if not rule.equalised:
        return rule.gain
    if tensor.ndim < 2 or tensor.numel() == 0:
        raise WeightsError(f"a weight of shape {tuple(tensor.shape)} is no kernel; the file is damaged")
    return rule.gain / math.sqrt(math.prod(tensor.shape[1:]))


def _shaped(name: str, tensor: Tensor) -> Tensor:
    """Others keep batch dimensions in some weights, or none where there is one here."""
    last = name.rsplit(".", 1)[-1]
    if name.endswith("conv.weight") and tensor.ndim == 5 and len(tensor) == 1:
        return tensor[0]
    if last == "bias" and tensor.ndim == 4 and tensor.numel() == tensor.shape[1]:
        return tensor.flatten()
    if last == "constant" and tensor.ndim == 3:
        return tensor[None]
    if last.startswith("noise_") and last != "noise_strength" and tensor.ndim == 2:
        return tensor[None, None]
    return tensor.reshape(1) if last == "noise_strength" and tensor.ndim == 0 else tensor


def told_resampling(facts: Facts, network: str) -> Resampling:
    """Read the fact that the keys of BasicSR's files do not tell."""
    told = facts.get("resampling")
    for each in RESAMPLINGS:
        if told == each:
            return each
    wish = "give --fact resampling=fir or --fact resampling=bilinear"
    if told is None:
        raise AmbiguousWeightsError(f"these {network} weights do not say how they were resampled in training; {wish}")
    raise WeightsError(f"resampling={told} does not fit {network} weights; {wish}")


def marked(resampling: Resampling) -> Tensor:
    """(): a weight `fir` that is 1 for "fir" and 0 for "bilinear", so that weights tell."""
    return torch.tensor(float(resampling == "fir"))


def read_mark(weights: StateDict) -> Resampling:
    """Read the weight `fir`."""
    if "fir" not in weights:
        raise WeightsError("these weights lack fir; use a whole checkpoint")
    mark = weights["fir"]
    if mark.numel() != 1 or float(mark) not in (0.0, 1.0):
        raise WeightsError("fir of these weights is neither 0 nor 1; the file is damaged")
    return "fir" if float(mark) else "bilinear"


def from_basicsr(old: str, new: str, *, clean: bool) -> list[Renaming]:
    """Rules for BasicSR's and GFPGAN's files, `clean` or equalised: a `Synthesis` is `old` there and `new` here."""
    gain = 1.0 if clean else GAIN
    conv, rgb = (_numbered(old, new, *names) for names in (("style_conv", "layers"), ("to_rgb", "to_rgb")))
    return [
        Renaming(rf"{old}constant_input\.weight", f"{new}constant"),
        *(
            Renaming(rf"{where}modulated_conv\.weight", to("conv.weight"), 1.0, not clean)
            for where, to in (*conv, *rgb)
        ),
        *_modulations((*conv, *rgb), r"modulated_conv\.modulation", equalised=not clean),
        *(Renaming(rf"{where}weight", to("noise_strength"), gain) for where, to in conv),
        *(Renaming(rf"{where}{'' if clean else 'activate.'}bias", to("bias"), gain) for where, to in conv),
        *(Renaming(rf"{where}bias", to("bias")) for where, to in rgb),
        Renaming(rf"{old}noises\.noise(\d+)", rf"{new}noise_\1"),
    ]


def from_rosinality(old: str, new: str) -> list[Renaming]:
    """Rules for rosinality's files; the filters among their buffers are left out."""
    conv, rgb = (_numbered(old, new, *names) for names in (("conv", "layers"), ("to_rgb", "to_rgb")))
    return [
        Renaming(rf"{old}.*\.(blur|upsample)\.kernel", None, taps=True),
        Renaming(rf"{old}input\.input", f"{new}constant"),
        *(Renaming(rf"{where}conv\.weight", to("conv.weight"), 1.0, True) for where, to in (*conv, *rgb)),
        *_modulations((*conv, *rgb), r"conv\.modulation", equalised=True),
        *(Renaming(rf"{where}noise\.weight", to("noise_strength"), GAIN) for where, to in conv),
        *(Renaming(rf"{where}activate\.bias", to("bias"), GAIN) for where, to in conv),
        *(Renaming(rf"{where}bias", to("bias")) for where, to in rgb),
        Renaming(rf"{old}noises\.noise_(\d+)", rf"{new}noise_\1"),
    ]


def from_nvidia(old: str, new: str) -> list[Renaming]:
    """Rules for NVIDIA's PyTorch files: layers are named by the side of their pictures."""
    conv, rgb = rf"{old}b(\d+)\.conv([01])\.", rf"{old}b(\d+)\.torgb\."

    def layer(part: str) -> Callable[[re.Match[str]], str]:
        return lambda match: f"{new}layers.{2 * _power(match[1]) - 5 + int(match[2])}.{part}"

    def picture(part: str) -> Callable[[re.Match[str]], str]:
        return lambda match: f"{new}to_rgb.{_power(match[1]) - 2}.{part}"

    return [
        Renaming(rf"{old}.*resample_filter", None, taps=True),
        Renaming(rf"{old}b4\.const", f"{new}constant"),
        Renaming(rf"{conv}weight", layer("conv.weight"), 1.0, True),
        Renaming(rf"{conv}noise_strength", layer("noise_strength"), GAIN),
        Renaming(rf"{conv}bias", layer("bias"), GAIN),
        Renaming(rf"{conv}noise_const", lambda m: f"{new}noise_{2 * _power(m[1]) - 5 + int(m[2])}"),
        Renaming(rf"{rgb}weight", picture("conv.weight"), 1.0, True),
        Renaming(rf"{rgb}bias", picture("bias")),
        *_modulations(((conv, layer), (rgb, picture)), "affine", equalised=True),
    ]


def _power(side: str) -> int:
    """
    >>> _power("8")
    3
    """
    power = int(side[:9]).bit_length() - 1
    if 2**power != int(side[:9]) or power < 2:
        raise WeightsError(f"these weights have a layer for pictures of side {side}, which is no power of two")
    return power


Place = tuple[str, Callable[[str], str | Callable[[re.Match[str]], str]]]
"""Beginning of a pattern, and what names a part of what it matches."""


def _numbered(old: str, new: str, name: str, here: str) -> list[Place]:
    """The first layer is called NAME1, the others NAMEs.0, NAMEs.1, ...; here they are numbered through."""

    def first(part: str) -> str:
        return f"{new}{here}.0.{part}"

    def later(part: str) -> Callable[[re.Match[str]], str]:
        return lambda match: f"{new}{here}.{int(match[1]) + 1}.{part}"

    return [(rf"{old}{name}1\.", first), (rf"{old}{name}s\.(\d{{1,4}})\.", later)]


def _modulations(places: Sequence[Place], old: str, *, equalised: bool) -> list[Renaming]:
    weights = [Renaming(rf"{where}{old}\.weight", to("modulation.weight"), 1.0, equalised) for where, to in places]
    return weights + [Renaming(rf"{where}{old}\.bias", to("modulation.bias")) for where, to in places]
