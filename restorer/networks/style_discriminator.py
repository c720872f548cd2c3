"""StyleGAN2's discriminator: residual blocks that halve, and a look at how alike the pictures are (arXiv:1912.04958).

Letters: N batch, C channels, h w sides of a layer, G pictures of a group, F statistics.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from restorer.networks.layers import Conv, leaky
from restorer.networks.spec import NO_FACTS, Facts, StateDict, at_least_one
from restorer.networks.style_dialects import Renaming, translated
from restorer.networks.style_layers import EPSILON, GAIN, RESAMPLINGS, WIDTHS_512, DownBlock, Resampling, check_widths
from restorer.networks.style_rates import layer_rates, rates_of, start_equalised

_GAINS = {
    "from_rgb": GAIN,
    "conv1": GAIN,
    "conv2": 1.0,
    "skip": 1 / GAIN,
    "final_conv": GAIN,
    "linear1": GAIN,
    "linear2": 1.0,
}
"""What a layer's weights hold besides the equalised rate: GAIN before an activation, 1 / GAIN where a block ends."""
_IN_BLOCKS = ("conv1", "conv2", "skip")


@dataclass(frozen=True, kw_only=True)
class StyleDiscriminatorConfig:
    """Numbers of the paper's configuration F, at 256 pixels."""

    kind: Literal["style"] = "style"
    widths: tuple[int, ...] = WIDTHS_512[:7]
    """Channels at 4, 8, ... pixels, as a generator has them. Their number says the side."""
    channels: int = 3
    resampling: Resampling = "fir"
    group: int = 4
    """At most so many pictures are compared with each other."""
    statistics: int = 1
    """Channels that say how alike they are."""

    def __post_init__(self) -> None:
        check_widths(self.widths)
        at_least_one(channels=self.channels, group=self.group, statistics=self.statistics)
        if self.widths[0] % self.statistics:
            raise ValueError(f"statistics must divide widths[0], {self.widths[0]}, got {self.statistics}")
        if self.resampling not in RESAMPLINGS:
            raise ValueError(f"resampling must be one of {', '.join(RESAMPLINGS)}, got {self.resampling}")

    @property
    def side(self) -> int:
        """The only side of a picture that it takes."""
        return 2 ** (len(self.widths) + 1)


class StyleDiscriminator(nn.Module):
    """(N, C, side, side) in [0, 1] -> (N, 1).

    Weights are plain, and those of published files fit: inside, the picture is in [-1, 1] as theirs are. A gradient at
    the picture is therefore twice theirs, and R1 four times: the published weight 10 is 2.5 here. Pictures are compared
    within what one call is given, so where a batch is spread over parts, each part is by itself.
    """

    def __init__(self, config: StyleDiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        last, falling = config.widths[0], config.widths[::-1]
        self.from_rgb = Conv(config.channels, falling[0], 1)
        self.blocks = nn.ModuleList(DownBlock(into, out, config.resampling) for into, out in pairwise(falling))
        self.final_conv = Conv(last + config.statistics, last)
        self.linear1 = nn.Linear(16 * last, last)
        self.linear2 = nn.Linear(last, 1)
        start_equalised(self, self.rates())

    def forward(self, x: Tensor) -> Tensor:
        side = self.config.side
        assert x.shape[-2:] == (side, side), f"takes {side}x{side}, got {tuple(x.shape)}"
        y = leaky(self.from_rgb(2 * x - 1))
        for block in self.blocks:
            y = block(y)
        spread = deviation(y, group=self.config.group, statistics=self.config.statistics)
        y = leaky(self.final_conv(torch.cat([y, spread], dim=1)))
        return self.linear2(leaky(self.linear1(y.flatten(1).to(self.linear1.weight.dtype))))

    def rates(self) -> dict[str, float]:
        """Name of each parameter -> factor of its learning rate, as published equalised ones learn."""
        rules = [rule for layer, gain in _GAINS.items() for rule in layer_rates(rf"(.*\.)?{layer}\.", gain=gain)]
        return rates_of(self, rules)


def deviation(x: Tensor, *, group: int, statistics: int = 1) -> Tensor:
    """(N, C, h, w) -> (N, F, h, w): how far pictures of a group differ, one number for each C / F channels.

    A group has the largest number of pictures up to `group` that divides N: pictures k, k + N/G, k + 2N/G, ...
    Published code takes only N up to `group` and multiples of it, where this is the same; a batch of a prime number
    above `group` has groups of one, which differ by nothing.
    """
    n, c, h, w = x.shape
    largest = max(each for each in range(1, min(group, n) + 1) if n % each == 0)
    y = x.float().view(largest, n // largest, statistics, c // statistics, h, w)  # (G, N/G, F, C/F, h, w)
    spread = torch.sqrt(y.var(0, unbiased=False) + EPSILON).mean((2, 3, 4))  # (N/G, F)
    return spread.to(x.dtype).repeat(largest, 1)[:, :, None, None].expand(-1, -1, h, w)


def rename_style_discriminator(weights: StateDict, facts: Facts = NO_FACTS) -> StateDict:
    """Bring the dialects of BasicSR, rosinality and NVIDIA to plain weights under the names above.

    How sides are halved is the config's to say: BasicSR's keys are the same with filters and bilinear.
    """
    if "conv_body.0.0.weight" in weights:
        return translated(weights, _numbered("conv_body"))
    if "convs.0.0.weight" in weights:
        return translated(weights, _numbered("convs"))
    if "b4.out.weight" in weights:
        sides = [int(match[1]) for key in weights if (match := re.fullmatch(_NVIDIA + r"fromrgb\.weight", key))]
        return translated(weights, _by_side(max(sides, default=4)))
    return weights


_NVIDIA = r"b(\d{1,5})\."


def _numbered(body: str) -> list[Renaming]:
    """BasicSR's and rosinality's: in the body, layer 0 sees the picture and the blocks follow."""
    block = rf"{body}\.(\d{{1,4}})\."
    places = {
        "from_rgb": (rf"{body}\.0\.0\.weight", rf"{body}\.0\.1\.bias"),
        "conv1": (block + r"conv1\.0\.weight", block + r"conv1\.1\.bias"),
        "conv2": (block + r"conv2\.1\.weight", block + r"conv2\.2\.bias"),
        "skip": (block + r"skip\.1\.weight", None),
        "final_conv": (r"final_conv\.0\.weight", r"final_conv\.1\.bias"),
        "linear1": (r"final_linear\.0\.weight", r"final_linear\.0\.bias"),
        "linear2": (r"final_linear\.1\.weight", r"final_linear\.1\.bias"),
    }
    return [Renaming(block + r".*\.kernel", None, taps=True), *_rules(places, lambda number: int(number) - 1)]


def _by_side(top: int) -> list[Renaming]:
    """NVIDIA's: a block is named by the side of what it sees, `top` the first."""
    beginnings = {
        "from_rgb": _NVIDIA + "fromrgb",
        "conv1": _NVIDIA + "conv0",
        "conv2": _NVIDIA + "conv1",
        "skip": _NVIDIA + "skip",
        "final_conv": r"b4\.conv",
        "linear1": r"b4\.fc",
        "linear2": r"b4\.out",
    }
    places = {layer: (rf"{where}\.weight", rf"{where}\.bias") for layer, where in beginnings.items()}
    filters = Renaming(_NVIDIA + r"(.*\.)?resample_filter", None, taps=True)
    return [filters, *_rules(places, lambda side: top.bit_length() - int(side).bit_length())]


def _rules(places: Mapping[str, tuple[str, str | None]], number: Callable[[str], int]) -> list[Renaming]:
    """`places` are the patterns of a layer's weight and bias; in blocks, their group tells `number` which."""

    def called(layer: str, part: str) -> Callable[[re.Match[str]], str]:
        if layer in _IN_BLOCKS:
            return lambda match: f"blocks.{number(match[1])}.{layer}.{part}"
        return lambda match: f"{layer}.{part}"

    rules = []
    for layer, (weight, bias) in places.items():
        rules.append(Renaming(weight, called(layer, "weight"), _GAINS[layer], True))
        if bias is not None:
            rules.append(Renaming(bias, called(layer, "bias"), _GAINS[layer]))
    return rules
