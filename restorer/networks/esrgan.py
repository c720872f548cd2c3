"""ESRGAN and Real-ESRGAN: residual-in-residual dense blocks, no normalisation (arXiv:1809.00219, arXiv:2107.10833).

Letters: N batch, C channels, H W sides of the input, h w sides inside (H / unshuffle), F features, G growth.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restorer.networks.dense import DenseBlock, DenseRows, pays
from restorer.networks.layers import (
    Conv,
    Rule,
    check_slope,
    conv_shape,
    count_blocks,
    in_blocks,
    keys_like,
    leaky,
    ncnn_layers,
    rename_keys,
    rename_ncnn,
)
from restorer.networks.spec import Facts, NetworkSpec, StateDict, Traits, at_least_one
from restorer.networks.stages import Convolved, Each, Skip, Stage

BODY_BLOCK, TAIL_BLOCK = 192, 48
"""Sides of the blocks a processor works on at a time, in pixels inside: the measured best of 32 to 512."""

FEW_BLOCKS = 12
"""Networks of fewer blocks lose more in bf16: with 6, 46.7 dB on the worst photo, and 47.5 with more in float32."""


@dataclass(frozen=True, kw_only=True)
class ESRGANConfig:
    """Numbers of the paper; Real-ESRGAN's small anime network has 6 blocks."""

    scale: int = 4
    in_channels: int = 3
    out_channels: int = 3
    features: int = 64
    grow: int = 32
    """Channels that each convolution of a dense block adds."""
    blocks: int = 23
    upsamples: int = 2
    """How often the end doubles the sides. A scale below 2 ** upsamples begins by folding pixels into channels."""
    conv1x1: bool = False
    """The extra paths inside dense blocks of ESRGAN+ (arXiv:2001.08073)."""

    def __post_init__(self) -> None:
        at_least_one(
            scale=self.scale,
            in_channels=self.in_channels,
            out_channels=self.out_channels,
            features=self.features,
            grow=self.grow,
            blocks=self.blocks,
        )
        if not 0 <= self.upsamples <= 5:
            raise ValueError(f"upsamples must be 0 to 5, got {self.upsamples}")
        if self.unshuffle * self.scale != 2**self.upsamples or self.unshuffle not in (1, 2, 4):
            raise ValueError(f"scale must be 1, 1/2 or 1/4 of {2**self.upsamples} (2 ** upsamples), got {self.scale}")

    @property
    def unshuffle(self) -> int:
        """The side of the square of pixels that becomes channels at the start."""
        return 2**self.upsamples // self.scale


class RRDB(nn.Module):
    """(N, F, h, w) -> same: three dense blocks inside one more residual."""

    def __init__(self, config: ESRGANConfig) -> None:
        super().__init__()
        self.rdb1 = DenseBlock(config.features, config.grow, conv1x1=config.conv1x1)
        self.rdb2 = DenseBlock(config.features, config.grow, conv1x1=config.conv1x1)
        self.rdb3 = DenseBlock(config.features, config.grow, conv1x1=config.conv1x1)

    def forward(self, x: Tensor) -> Tensor:
        if pays(x, self.rdb1.conv1):
            return self.rdb3.in_one_buffer(self.rdb2(self.rdb1(x)), outer=x)
        y = x
        for block in (self.rdb1, self.rdb2, self.rdb3):
            y = in_blocks(block, y, radius=5, side=BODY_BLOCK)
        return torch.add(x, y, alpha=0.2)


class ESRGAN(nn.Module):
    """(N, C, H, W) in [0, 1] -> (N, Cout, scale*H, scale*W); sides must be multiples of `config.unshuffle`."""

    def __init__(self, config: ESRGANConfig) -> None:
        super().__init__()
        self.config = config
        features = config.features
        self.conv_first = Conv(config.in_channels * config.unshuffle**2, features)
        self.body = nn.Sequential(*(RRDB(config) for _ in range(config.blocks)))
        self.conv_body = Conv(features, features)
        for index in range(1, config.upsamples + 1):
            self.add_module(f"conv_up{index}", Conv(features, features))
        self.conv_hr = Conv(features, features)
        self.conv_last = Conv(features, config.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        if self.config.unshuffle > 1:
            x = F.pixel_unshuffle(x, self.config.unshuffle)
        x = self.conv_first(x)  # (N, F, h, w)
        x = x + self.conv_body(self.body(x))
        return in_blocks(self._enlarge, x, radius=2, side=TAIL_BLOCK, scale=2**self.config.upsamples)

    def _enlarge(self, x: Tensor) -> Tensor:
        """(N, F, h, w) -> (N, Cout, H, W): double the sides as often as asked, then paint."""
        for index in range(1, self.config.upsamples + 1):
            conv = self.get_submodule(f"conv_up{index}")
            x = leaky(conv(F.interpolate(x, scale_factor=2, mode="nearest")))
        return self.conv_last(leaky(self.conv_hr(x)))


def stages(network: ESRGAN) -> list[Stage]:
    """What `forward` does, rows after rows."""
    config = network.config
    trunk: list[Stage] = []
    for block in network.body:
        assert isinstance(block, RRDB)
        dense = [DenseRows(each) for each in (block.rdb1, block.rdb2, block.rdb3)]
        trunk.append(Skip(dense, lambda x, y: torch.add(x, y, alpha=0.2)))
    ups: list[Stage] = []
    for index in range(1, config.upsamples + 1):
        conv = network.get_submodule(f"conv_up{index}")
        assert isinstance(conv, Conv)
        ups += [Each(lambda x: F.interpolate(x, scale_factor=2, mode="nearest")), Convolved(conv, leaky)]
    unshuffle = config.unshuffle
    return [
        Each(lambda x: F.pixel_unshuffle(x, unshuffle), multiple=unshuffle),
        Convolved(network.conv_first),
        Skip([*trunk, Convolved(network.conv_body)]),
        *ups,
        Convolved(network.conv_hr, leaky),
        Convolved(network.conv_last),
    ]


def traits(config: ESRGANConfig) -> Traits:
    """Each dense block reaches 5 pixels, the first and the body's last convolution 1 each, the end 2."""
    radius = config.unshuffle * (15 * config.blocks + 4)
    features = config.features
    grown, drawn = features * 4**config.upsamples, config.out_channels * 4**config.upsamples
    return Traits(
        scale=config.scale,
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        multiple_of=config.unshuffle,
        radius=radius,
        overlap=min(32, radius),
        values_per_pixel=math.ceil(max(3 * grown + features, 5 * features + 8 * config.grow) / config.unshuffle**2),
        values_in_blocks=math.ceil((5 * features + drawn) / config.unshuffle**2),
        values_kept=math.ceil(_kept(config) / config.unshuffle),
        operations=_operations(config),
        precisions=frozenset({"fp32", "fp16", "bf16", "int8"}),
    )


def _kept(config: ESRGANConfig) -> int:
    """Numbers for each column inside: rows that `stages` needs again, and those that wait for a residual."""
    features, rows = config.features, 15 * config.blocks + 1
    dense = 6 * features + (5 + 4 + 3 + 2) * config.grow
    body = config.blocks * (3 * dense + 15 * features) + rows * features
    first = 2 * config.in_channels * config.unshuffle**2
    ups = sum(2 * features * 2**index for index in range(1, config.upsamples + 1))
    return first + body + 2 * features + ups + 2 * 2 * features * 2**config.upsamples


def _operations(config: ESRGANConfig) -> float:
    """Multiplications per input pixel: those per pixel inside, over the input pixels that it stands for."""
    features, grow = config.features, config.grow
    dense = 9 * sum((features + i * grow) * grow for i in range(4)) + 9 * (features + 4 * grow) * features
    dense += features * grow if config.conv1x1 else 0
    same = 9 * features**2
    first = 9 * config.in_channels * config.unshuffle**2 * features
    ups = sum(same * 4**index for index in range(1, config.upsamples + 1))
    end = 4**config.upsamples * (same + 9 * features * config.out_channels)
    return (first + 3 * config.blocks * dense + same + ups + end) / config.unshuffle**2


def read_config(weights: StateDict, facts: Facts) -> ESRGANConfig:
    """Recover the config from keys and shapes. 4 or 16 times the output's channels at the start are folded pixels."""
    check_slope(facts, 0.2)
    features, first, _ = conv_shape(weights, "conv_first.weight")
    out_channels, _, _ = conv_shape(weights, "conv_last.weight")
    grow, _, _ = conv_shape(weights, "body.0.rdb1.conv1.weight")
    ups = [int(match[1]) for key in weights if (match := re.match(r"conv_up(\d)\.", key))]
    upsamples = max(ups, default=0)
    unshuffle = {4 * out_channels: 2, 16 * out_channels: 4}.get(first, 1)
    return ESRGANConfig(
        scale=2**upsamples // unshuffle,
        in_channels=first // unshuffle**2,
        out_channels=out_channels,
        features=features,
        grow=grow,
        blocks=count_blocks(weights, "body."),
        upsamples=upsamples,
        conv1x1=any(".conv1x1." in key for key in weights),
    )


def float_parts(config: ESRGANConfig) -> tuple[str, ...]:
    """Both ends; where few blocks share the work, each counts for more, and a twentieth of the work stays exact too."""
    ends = ("conv_first", "conv_last")
    return ends if config.blocks >= FEW_BLOCKS else (*ends, "conv_body", f"body.{config.blocks - 1}.rdb2")


def int8_parts(config: ESRGANConfig) -> tuple[tuple[str, ...], ...]:
    """All of the dense blocks; or without their last convolutions, whose errors go into the sum, but in calm blocks.

    Those are 5 to 12 of 23. The last convolutions are nearly half of all the work.
    """
    calm = range(config.blocks // 6 + 1, config.blocks // 2 + 1)

    def parts(last: Callable[[int], int]) -> tuple[str, ...]:
        dense = [(f"body.{i}.rdb{j}", last(i)) for i in range(config.blocks) for j in (1, 2, 3)]
        return tuple(f"{name}.conv{place}" for name, end in dense for place in range(1, end + 1))

    return parts(lambda block: 5), parts(lambda block: 5 if block in calm else 4)


_BLOCK = r"RDB(\d)\.(conv\w+?)(?:\.0)?\.(weight|bias)"
_FROM_MID = (  # xinntao/ESRGAN, KAIR
    (rf"RRDB_trunk\.(\d+)\.{_BLOCK}", r"body.\1.rdb\2.\3.\4"),
    (r"trunk_conv\.(\w+)", r"conv_body.\1"),
    (r"upconv(\d)\.(\w+)", r"conv_up\1.\2"),
    (r"HRconv\.(\w+)", r"conv_hr.\1"),
)


def rename(weights: StateDict, facts: Facts) -> StateDict:
    """Bring the four other dialects to BasicSR's names."""
    if any(key.startswith("RRDB_trunk.0.RDB") for key in weights):
        return rename_keys(weights, _FROM_MID)
    if any(key.startswith("model.1.sub.0.RDB") for key in weights):
        return rename_keys(weights, _rules_from_oldest(weights))
    return _from_ncnn(weights)


def _rules_from_oldest(weights: StateDict) -> list[Rule]:
    """One sequence is numbered: first, body, three places for each doubling, then hr, its activation and last."""
    last = max(int(match[1]) for key in weights if (match := re.match(r"model\.(\d{1,3})\.", key)))
    names = {3 * index: f"conv_up{index}" for index in range(1, (last - 4) // 3 + 1)}
    names |= {0: "conv_first", last - 2: "conv_hr", last: "conv_last"}
    return [
        (rf"model\.1\.sub\.(\d+)\.{_BLOCK}", r"body.\1.rdb\2.\3.\4"),
        (r"model\.1\.sub\.\d+\.(weight|bias)", r"conv_body.\1"),
        (r"model\.(\d{1,3})\.(\w+)", lambda match: f"{names.get(int(match[1]), f'model.{match[1]}')}.{match[2]}"),
    ]


def _from_ncnn(weights: StateDict) -> StateDict:
    """An ncnn file has no names: 15 convolutions a block, 4 at the ends, and what is left over doubles the sides."""
    layers = ncnn_layers(weights)
    blocks, upsamples = divmod(len(layers) - 4, 15)
    if blocks < 1 or not _grows(weights, layers):
        return weights
    dense = [f"body.{i}.rdb{j}.conv{k}" for i in range(blocks) for j in (1, 2, 3) for k in (1, 2, 3, 4, 5)]
    ups = [f"conv_up{i + 1}" for i in range(upsamples)]
    return rename_ncnn(weights, ["conv_first", *dense, "conv_body", *ups, "conv_hr", "conv_last"])


def _grows(weights: StateDict, layers: list[str]) -> bool:
    """Whether the second and third convolution are those of a dense block."""
    if not all(layer.endswith(".Convolution") for layer in layers):
        return False
    grow, features, _ = conv_shape(weights, f"ncnn.{layers[1]}.weight")
    return conv_shape(weights, f"ncnn.{layers[2]}.weight")[1] == features + grow


SPEC = NetworkSpec(
    name="esrgan",
    task="upscale",
    config=ESRGANConfig,
    build=ESRGAN,
    traits=traits,
    detect=keys_like(
        r"body\.\d+\.rdb[123]\.conv(\d|1x1)\.(weight|bias)|conv_(first|body|up\d|hr|last)\.(weight|bias)",
        anchors=("conv_first.", "body.0.rdb", "conv_body.", "conv_last."),
    ),
    read_config=read_config,
    rename=rename,
    float_parts=float_parts,
    int8_parts=int8_parts,
    stages=stages,
)
