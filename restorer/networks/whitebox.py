"""White-box Cartoonization's generator: a small U-Net whose drawing keeps to the edges of the photo (CVPR 2020).

Wang and Yu, "Learning to Cartoonize Using White-box Cartoon Representations". It was trained in TensorFlow 1, so it
pads and doubles as that did, and on pictures read as BGR.

Letters: N batch, C channels, H W sides, F features.
"""

import re
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restorer.errors import WeightsError
from restorer.networks.layers import Conv, Rule, conv_shape, count_blocks, keys_like, leaky, rename_keys
from restorer.networks.spec import Facts, NetworkSpec, StateDict, Traits, at_least_one

EPSILON = 5e-3
"""How much a guide must vary, in squares of its own range, to be an edge: that of the published program."""


@dataclass(frozen=True, kw_only=True)
class WhiteboxConfig:
    """Numbers of the published weights."""

    channels: int = 3
    features: int = 32
    """Channels at full size; twice as many at each halving."""
    blocks: int = 4

    def __post_init__(self) -> None:
        at_least_one(channels=self.channels, features=self.features, blocks=self.blocks)


class HalvingConv(Conv):
    """(N, C, H, W) -> (N, C, H/2, W/2): at every even place; zeros stand after the last row and column only."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels)
        self.stride, self.padding = (2, 2), (0, 0)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (0, 1, 0, 1)))


class Down(nn.Module):
    """(N, C, H, W) -> (N, 2C, H/2, W/2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.halve = HalvingConv(channels)
        self.widen = Conv(channels, 2 * channels)

    def forward(self, x: Tensor) -> Tensor:
        return leaky(self.widen(leaky(self.halve(x))))


class ResidualBlock(nn.Module):
    """(N, C, H, W) -> same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = Conv(channels, channels)
        self.conv2 = Conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(leaky(self.conv1(x)))


class Up(nn.Module):
    """(N, 2C, H, W), (N, C, 2H, 2W) -> (N, C, 2H, 2W): doubled, and what was seen on the way down added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.narrow = Conv(2 * channels, channels)
        self.mix = Conv(channels, channels)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        return leaky(self.mix(doubled(leaky(self.narrow(x))) + seen))


class Whitebox(nn.Module):
    """(N, C, H, W) in [-1, 1] -> same; sides are multiples of 4."""

    def __init__(self, config: WhiteboxConfig) -> None:
        super().__init__()
        f = config.features
        self.first = Conv(config.channels, f, 7)
        self.down = nn.ModuleList([Down(f), Down(2 * f)])
        self.blocks = nn.Sequential(*(ResidualBlock(4 * f) for _ in range(config.blocks)))
        self.up = nn.ModuleList([Up(2 * f), Up(f)])
        self.last = Conv(f, config.channels, 7)

    def forward(self, x: Tensor) -> Tensor:
        y, seen = leaky(self.first(x)), []
        for step in self.down:
            seen.append(y)
            y = step(y)
        y = self.blocks(y)
        for step in self.up:
            y = step(y, seen.pop())
        return guided(x, self.last(y))


def doubled(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, 2H, 2W): bilinear, as TensorFlow 1 did it: every pixel stays at twice its place.

    Half-way pixels are means of two or four; the last row and column stand twice.
    """
    height, width = x.shape[2:]
    edged = F.pad(x, (0, 1, 0, 1), mode="replicate")
    y = F.interpolate(edged, size=(2 * height + 1, 2 * width + 1), mode="bilinear", align_corners=True)
    return y[:, :, :-1, :-1]


def guided(guide: Tensor, x: Tensor) -> Tensor:
    """(N, C, H, W), (N, C, H, W) -> same: `x` with the edges of `guide`; the guided filter of radius 1.

    Around each pixel `x` is fitted as a line of `guide`, channel by channel (He, Sun and Tang, ECCV 2010); always in
    float32 or finer, since variances are small differences.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    p, y = guide.to(wide), x.to(wide)
    mean, mean_y = _mean(p), _mean(y)
    slope = (_mean(p * y) - mean * mean_y) / (_mean(p * p) - mean * mean + EPSILON)
    shift = mean_y - slope * mean
    return (_mean(slope) * p + _mean(shift)).to(x.dtype)


def _mean(x: Tensor) -> Tensor:
    """(N, C, H, W) -> same: means of three by three pixels, at the edges of those that there are."""
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def traits(config: WhiteboxConfig) -> Traits:
    """Convolutions alone see not far, so that tiles are exact."""
    f, radius = config.features, _radius(config.blocks)
    return Traits(
        in_channels=config.channels,
        out_channels=config.channels,
        multiple_of=4,
        min_side=4,
        radius=radius,
        overlap=radius,
        values_per_pixel=max(4 * f, f + 8 * config.channels),
        operations=98 * config.channels * f + 9 * f**2 * (4.5 + 2 * config.blocks),
        precisions=frozenset({"fp32", "fp16", "bf16"}),
        value_range=(-1.0, 1.0),
        channel_order="bgr",
    )


def _radius(blocks: int) -> int:
    """From each output through filter, ways and blocks to the input; the places of four pixels differ."""
    farthest = 0
    for pixel in range(4):
        first, last = pixel - 6, pixel + 6  # the filter 2, the last convolution 3, `mix` 1
        for around in (2, 1 + 2 * blocks + 1):  # `narrow` and `mix`; `narrow`, the blocks and `widen`
            first, last = first // 2 - around, (last + 1) // 2 + around
        first, last = 2 * first - 1, 2 * last + 2 + 1  # halving sees what follows; then `widen`
        first, last = 2 * first - 3, 2 * last + 2 + 3  # and the first convolution
        farthest = max(farthest, pixel - first, last - pixel)
    return farthest


def read_config(weights: StateDict, facts: Facts) -> WhiteboxConfig:
    """Recover the config from keys and shapes."""
    if facts.get("noise") is not None:
        raise WeightsError("noise is for networks that drop activations, and this one drops none; leave it out")
    features, channels, _ = conv_shape(weights, "first.weight")
    return WhiteboxConfig(channels=channels, features=features, blocks=count_blocks(weights, "blocks."))


_NUMBERED = (
    "first", "down.0.halve", "down.0.widen", "down.1.halve", "down.1.widen",
    "up.0.narrow", "up.0.mix", "up.1.narrow", "up.1.mix", "last",
)  # fmt: skip
"""What the convolutions outside the blocks are, in the order in which they compute."""


def rename(weights: StateDict, facts: Facts) -> StateDict:
    """Bring numbered names, `conv0` to `conv9` and `block0` on, to the ones above."""
    if not all(any(key.startswith(first) for key in weights) for first in ("conv0.", "block0.conv", "conv9.")):
        return weights
    rules: list[Rule] = [(rf"conv{place}\.(\w+)", rf"{name}.\1") for place, name in enumerate(_NUMBERED)]
    rules.append((r"block(\d{1,4})\.conv([12])\.(\w+)", _in_block))
    return rename_keys(weights, rules)


def _in_block(match: re.Match[str]) -> str:
    return f"blocks.{int(match[1])}.conv{match[2]}.{match[3]}"


SPEC = NetworkSpec(
    name="whitebox",
    task="translate",
    config=WhiteboxConfig,
    build=Whitebox,
    traits=traits,
    detect=keys_like(
        r"(first|last|down\.[01]\.(halve|widen)|up\.[01]\.(narrow|mix)|blocks\.\d+\.conv[12])\.(weight|bias)",
        anchors=("down.0.", "up.0.", "blocks.0."),
    ),
    read_config=read_config,
    rename=rename,
    float_parts=lambda config: ("first", "last"),
)
