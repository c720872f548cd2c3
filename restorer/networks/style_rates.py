"""How fast the plain weights of style-based networks learn where published ones are equalised, and how they begin.

Published files hold w of N(0, 1) and multiply it with a factor c at run time; here W = c w is the weight. Adam's steps
do not depend on a gradient's size, so steps of size r in w are steps of size c r in W: the learning rate of W is
multiplied with c. Only Adam's epsilon sees the difference, and where epsilon / c takes its place, nothing does. A layer
that learns m times as fast (the mapping's 0.01) begins with w of N(0, 1 / m^2): its W is as without m.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import nn

from restorer.networks.style_dialects import MAPPING_RATE
from restorer.networks.style_layers import GAIN


class Rate(NamedTuple):
    """What the learning rates of all parameters are multiplied with whose names match a pattern in full."""

    pattern: str
    gain: float = 1.0
    equalised: bool = False
    """Multiply by 1 / sqrt(numbers that each output sums up), too."""


def rates_of(network: nn.Module, rules: Sequence[Rate]) -> dict[str, float]:
    """Name of each parameter -> factor of its learning rate, by the first rule that matches; one must.

    >>> rates_of(nn.Linear(4, 2), layer_rates("", gain=3.0))
    {'weight': 1.5, 'bias': 3.0}
    """
    found = {}
    for name, parameter in network.named_parameters():
        rule = next((rule for rule in rules if re.fullmatch(rule.pattern, name)), None)
        assert rule is not None, f"no rule tells how fast {name} learns"
        summed = math.prod(parameter.shape[1:]) if rule.equalised else 1
        found[name] = rule.gain / math.sqrt(summed)
    return found


def start_equalised(network: nn.Module, rates: Mapping[str, float]) -> None:
    """Draw the weights named in `rates`, none of which is a mapping's, as published ones begin; biases begin as 0."""
    for name, rate in rates.items():
        parameter = network.get_parameter(name)
        if parameter.is_meta:  # torch would load seconds of modules to draw nothing
            continue
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=rate)
        else:
            nn.init.zeros_(parameter)


def layer_rates(pattern: str, *, gain: float = 1.0) -> tuple[Rate, ...]:
    """Rules for weight and bias of a layer with an equalised rate; `gain` is what its weights hold, such as GAIN."""
    return Rate(rf"{pattern}weight", gain, True), Rate(rf"{pattern}bias", gain)


def mapping_rates(pattern: str) -> tuple[Rate, ...]:
    """Rules for a `Mapping`, which learns at a hundredth of the rate."""
    return layer_rates(rf"{pattern}\d+\.", gain=MAPPING_RATE * GAIN)


def synthesis_rates(pattern: str) -> tuple[Rate, ...]:
    """Rules for a `Synthesis`: demodulation takes the gain of its convolutions, what is added after it has one."""
    return (
        Rate(rf"{pattern}constant"),
        Rate(rf"{pattern}layers\.\d+\.(noise_strength|bias)", GAIN),
        *layer_rates(rf"{pattern}(layers|to_rgb)\.\d+\.modulation\."),
        Rate(rf"{pattern}(layers|to_rgb)\.\d+\.conv\.weight", 1.0, True),
        Rate(rf"{pattern}to_rgb\.\d+\.bias"),
    )
