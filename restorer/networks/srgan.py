"""SRGAN and SRResNet: residual blocks at low resolution, then pixel shuffle (arXiv:1609.04802), in its published forms.

Letters: N batch, C channels, H W sides of the input, F features.
"""

import math
import re
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restorer.networks.layers import (
    ActivationName,
    Conv,
    Rule,
    ShuffleConv,
    activation,
    conv_shape,
    count_blocks,
    keys_like,
    rename_keys,
    shuffle_factor,
    start_small,
)
from restorer.networks.spec import Facts, NetworkSpec, StateDict, Traits, at_least_one
from restorer.networks.stages import Around, Both, Convolved, Each, Skip, Stage


@dataclass(frozen=True, kw_only=True)
class Form:
    """What tells the published forms of the network apart."""

    ends: int
    """Kernel side of the first and the last convolution."""
    norm: bool
    """Batch norm inside the blocks."""
    bias: bool
    """The convolutions of the body have a bias."""
    outer: ActivationName
    """The activation outside the blocks."""
    inner: ActivationName
    """The activation inside the blocks."""
    body_end: Literal["norm", "act", "none"]
    """What follows the convolution that ends the body; "none": there is no such convolution, and no long skip."""
    shuffle_act: bool
    """An activation follows each pixel shuffle."""
    output: Literal["clamp", "tanh", "base"]
    """Cut to [0, 1]; (tanh + 1) / 2; or one more convolution, and the result added to the bilinear picture."""


_PAPER = Form(
    ends=9, norm=True, bias=False, outer="prelu", inner="prelu", body_end="norm", shuffle_act=True, output="clamp"
)
_PLAIN = Form(
    ends=3, norm=False, bias=True, outer="leakyrelu", inner="relu", body_end="none", shuffle_act=True, output="base"
)
FORMS = {
    "paper": _PAPER,  # Lornatang/SRGAN-PyTorch
    "tanh": replace(_PAPER, bias=True, body_end="act", output="tanh"),  # leftthomas/SRGAN, the published weights
    "tanh_norm": replace(_PAPER, bias=True, output="tanh"),  # leftthomas/SRGAN, the later code
    "plain": _PLAIN,  # BasicSR's MSRResNet
    "plain_linear": replace(_PLAIN, shuffle_act=False),  # mmagic's MSRResNet
}


@dataclass(frozen=True, kw_only=True)
class SRGANConfig:
    """Numbers of the paper."""

    scale: int = 4
    """3, or a power of two."""
    channels: int = 3
    features: int = 64
    blocks: int = 16
    form: str = "paper"
    """A name of `FORMS`."""

    def __post_init__(self) -> None:
        at_least_one(channels=self.channels, features=self.features, blocks=self.blocks)
        if self.scale not in (2, 3, 4, 8, 16):
            raise ValueError(f"scale must be 2, 3, 4, 8 or 16, got {self.scale}")
        if self.form not in FORMS:
            raise ValueError(f"form must be one of {', '.join(FORMS)}, got {self.form}")

    @property
    def shuffles(self) -> tuple[int, ...]:
        """The factors of the pixel shuffles, in order."""
        return (3,) if self.scale == 3 else (2,) * (self.scale.bit_length() - 1)


class ResidualBlock(nn.Module):
    """(N, F, H, W) -> same."""

    def __init__(self, features: int, form: Form) -> None:
        super().__init__()
        self.conv1 = Conv(features, features, bias=form.bias)
        self.norm1 = nn.BatchNorm2d(features) if form.norm else nn.Identity()
        self.act = activation(form.inner)
        self.conv2 = Conv(features, features, bias=form.bias)
        self.norm2 = nn.BatchNorm2d(features) if form.norm else nn.Identity()
        if not form.norm:
            start_small(self)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.norm1(self.conv1(x)))
        return x + self.norm2(self.conv2(y))


class SRGAN(nn.Module):
    """(N, C, H, W) in [0, 1] -> (N, C, scale*H, scale*W)."""

    def __init__(self, config: SRGANConfig) -> None:
        super().__init__()
        self.scale, self.form = config.scale, FORMS[config.form]
        features, form = config.features, self.form
        self.conv_first = Conv(config.channels, features, form.ends)
        self.act_first = activation(form.outer)
        self.body = nn.Sequential(*(ResidualBlock(features, form) for _ in range(config.blocks)))
        self.body_end = None if form.body_end == "none" else _body_end(features, form)
        self.upsample = nn.Sequential(*(_upsample(features, factor, form) for factor in config.shuffles))
        self.conv_hr = Conv(features, features) if form.output == "base" else nn.Identity()
        self.act_hr = activation(form.outer) if form.output == "base" else nn.Identity()
        self.conv_last = Conv(features, config.channels, form.ends)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act_first(self.conv_first(x))  # (N, F, H, W)
        y = self.body(y) if self.body_end is None else y + self.body_end(self.body(y))
        y = self.act_hr(self.conv_hr(self.upsample(y)))  # (N, F, scale*H, scale*W)
        y = self.conv_last(y)
        return y + self.base(x) if self.form.output == "base" else self.ended(y)

    def base(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, scale*H, scale*W): what the form "base" adds to."""
        return F.interpolate(x, scale_factor=self.scale, mode="bilinear", align_corners=False)

    def ended(self, y: Tensor) -> Tensor:
        """(N, C, H, W) -> same, in [0, 1]."""
        if self.form.output == "tanh":
            return (torch.tanh(y) + 1) / 2
        return y if self.training else y.clamp(0, 1)  # what is cut off has no gradient to learn from


def _body_end(features: int, form: Form) -> nn.Module:
    layers = OrderedDict[str, nn.Module](conv=Conv(features, features, bias=form.bias))
    if form.body_end == "norm":
        layers["norm"] = nn.BatchNorm2d(features)
    else:
        layers["act"] = activation(form.outer)
    return nn.Sequential(layers)


def _upsample(features: int, factor: int, form: Form) -> nn.Module:
    """Shuffle with or without an activation. Their keys differ (`0.conv.weight`, `0.weight`): so weights tell which."""
    conv = ShuffleConv(features, features, factor)
    if not form.shuffle_act:
        return conv
    return nn.Sequential(OrderedDict[str, nn.Module](conv=conv, act=activation(form.outer)))


def stages(network: SRGAN) -> list[Stage]:
    """What `forward` does, rows after rows."""
    body: list[Stage] = []
    for block in network.body:
        assert isinstance(block, ResidualBlock)
        inner = nn.Sequential(block.norm1, block.act)
        body.append(Skip([Convolved(block.conv1, inner), Convolved(block.conv2, block.norm2)]))
    if network.body_end is not None:
        body = [Skip([*body, _convolved(network.body_end)])]
    chain: list[Stage] = [Convolved(network.conv_first, network.act_first), *body]
    chain += [_convolved(upsample) for upsample in network.upsample]
    if isinstance(network.conv_hr, Conv):
        chain.append(Convolved(network.conv_hr, network.act_hr))
    chain.append(Convolved(network.conv_last))
    if network.form.output == "base":
        return [Both([Around(network.base, radius=1, scale=network.scale)], chain, torch.add)]
    return [*chain, Each(network.ended)]


def _convolved(part: nn.Module) -> Stage:
    """A convolution, or one with something behind it, that may be a shuffle."""
    conv, *after = part if isinstance(part, nn.Sequential) else (part,)
    assert isinstance(conv, Conv)
    if not isinstance(conv, ShuffleConv):
        return Convolved(conv, nn.Sequential(*after))
    factor = conv.factor
    return Convolved(conv, lambda y: nn.Sequential(*after)(F.pixel_shuffle(y, factor)))


def traits(config: SRGANConfig) -> Traits:
    """From the output back to the input: every shuffle shortens the reach, every convolution lengthens it."""
    form = FORMS[config.form]
    reach = form.ends // 2 + (1 if form.output == "base" else 0)
    for factor in reversed(config.shuffles):
        reach = 1 + math.ceil(reach / factor)
    radius = form.ends // 2 + 2 * config.blocks + (0 if form.body_end == "none" else 1) + reach
    return Traits(
        scale=config.scale,
        in_channels=config.channels,
        out_channels=config.channels,
        radius=radius,
        overlap=min(32, radius),
        values_per_pixel=3 * config.features * config.scale**2,
        values_kept=_kept(config, form, radius),
        operations=_operations(config, form),
        precisions=frozenset({"fp32", "fp16", "bf16"}),
    )


def _kept(config: SRGANConfig, form: Form, radius: int) -> int:
    """Numbers for each column: rows that `stages` needs again, and those that wait for a residual."""
    features, channels, scale = config.features, config.channels, config.scale
    total = (form.ends - 1) * (channels + scale * features) + config.blocks * 6 * features
    if form.body_end != "none":
        total += 2 * features + (2 * config.blocks + 1) * features
    side = 1
    for factor in config.shuffles:
        total += 2 * features * side
        side *= factor
    if form.output == "base":
        total += 2 * features * scale + 2 * channels + radius * scale**2 * channels
    return total


def _operations(config: SRGANConfig, form: Form) -> int:
    """Multiplications per input pixel."""
    same, end, area = 9 * config.features**2, form.ends**2 * config.channels * config.features, 1
    total = end + same * (2 * config.blocks + (0 if form.body_end == "none" else 1))
    for factor in config.shuffles:
        total += area * same * factor**2
        area *= factor**2
    return total + area * (end + (same if form.output == "base" else 0))


def read_config(weights: StateDict, facts: Facts) -> SRGANConfig:
    """Recover the config from keys and shapes."""
    features, channels, _ = conv_shape(weights, "conv_first.weight")
    form = _read_form(weights)
    conv = "conv.weight" if FORMS[form].shuffle_act else "weight"
    shuffles = count_blocks(weights, "upsample.")
    factors = [
        shuffle_factor(conv_shape(weights, f"upsample.{index}.{conv}")[0], onto=features) for index in range(shuffles)
    ]
    if factors not in ([3], [2] * shuffles):
        raise ValueError(f"their pixel shuffles by {factors} are not the known [3] or [2, 2, ...]")
    return SRGANConfig(
        scale=math.prod(factors),
        channels=channels,
        features=features,
        blocks=count_blocks(weights, "body."),
        form=form,
    )


def _read_form(weights: StateDict) -> str:
    if not any(re.match(r"body\.0\.norm[12]\.", key) for key in weights):
        return "plain" if any(key.startswith("upsample.0.conv.") for key in weights) else "plain_linear"
    if not any(re.fullmatch(r"body\.0\.conv[12]\.bias", key) for key in weights):
        return "paper"
    return "tanh_norm" if any(key.startswith("body_end.norm.") for key in weights) else "tanh"


_FROM_LORNATANG = (
    (r"conv(?:_block)?1\.0\.(\w+)", r"conv_first.\1"),
    (r"conv(?:_block)?1\.1\.(\w+)", r"act_first.\1"),
    (r"trunk\.(\d+)\.rcb\.0\.(\w+)", r"body.\1.conv1.\2"),
    (r"trunk\.(\d+)\.rcb\.1\.(\w+)", r"body.\1.norm1.\2"),
    (r"trunk\.(\d+)\.rcb\.2\.(\w+)", r"body.\1.act.\2"),
    (r"trunk\.(\d+)\.rcb\.3\.(\w+)", r"body.\1.conv2.\2"),
    (r"trunk\.(\d+)\.rcb\.4\.(\w+)", r"body.\1.norm2.\2"),
    (r"conv(?:_block)?2\.0\.(\w+)", r"body_end.conv.\1"),
    (r"conv(?:_block)?2\.1\.(\w+)", r"body_end.norm.\1"),
    (r"upsampling\.(\d+)\.upsample_block\.0\.(\w+)", r"upsample.\1.conv.\2"),
    (r"upsampling\.(\d+)\.upsample_block\.2\.(\w+)", r"upsample.\1.act.\2"),
    (r"conv(?:_block)?3\.(\w+)", r"conv_last.\1"),
)
_FROM_BASICSR = (
    (r"upconv1\.(\w+)", r"upsample.0.conv.\1"),
    (r"upconv2\.(\w+)", r"upsample.1.conv.\1"),
)
_FROM_MMAGIC = (
    (r"trunk_net\.(\d+)\.(\w+)\.(\w+)", r"body.\1.\2.\3"),
    (r"upsample1\.upsample_conv\.(\w+)", r"upsample.0.\1"),
    (r"upsample2\.upsample_conv\.(\w+)", r"upsample.1.\1"),
)


def rename(weights: StateDict, facts: Facts) -> StateDict:
    """Bring the four published dialects to the names above."""
    if any(key.startswith("trunk.0.rcb.") for key in weights):
        return rename_keys(weights, _FROM_LORNATANG)
    if any(key.startswith("block2.conv1.") for key in weights):
        return rename_keys(weights, _rules_from_leftthomas(weights))
    if any(key.startswith("trunk_net.0.conv1.") for key in weights):
        return rename_keys(weights, _FROM_MMAGIC)
    if any(key.startswith("body.0.conv1.") for key in weights):
        return rename_keys(weights, _FROM_BASICSR)
    return weights


def _rules_from_leftthomas(weights: StateDict) -> list[Rule]:
    """Blocks are counted from 1: the first convolution, the residual blocks, the body's end, the tail."""
    blocks = {int(match[1]) for key in weights if (match := re.match(r"block(\d{1,4})\.(?:conv|bn)", key))}
    last = max(blocks)
    tail = last + 2
    end = "norm" if f"block{last + 1}.1.running_mean" in weights else "act"
    ups = {int(match[1]) for key in weights if (match := re.match(rf"block{tail}\.(\d{{1,2}})\.conv\.", key))}
    parts = {"conv": "conv", "bn": "norm", "prelu": "act"}
    return [
        (r"block1\.0\.(\w+)", r"conv_first.\1"),
        (r"block1\.1\.(\w+)", r"act_first.\1"),
        (r"block(\d{1,4})\.(conv|bn|prelu)(.*)", lambda m: f"body.{int(m[1]) - 2}.{parts[m[2]]}{m[3]}"),
        (rf"block{last + 1}\.0\.(\w+)", r"body_end.conv.\1"),
        (rf"block{last + 1}\.1\.(\w+)", rf"body_end.{end}.\1"),
        (rf"block{tail}\.(\d+)\.conv\.(\w+)", r"upsample.\1.conv.\2"),
        (rf"block{tail}\.(\d+)\.prelu\.(\w+)", r"upsample.\1.act.\2"),
        (rf"block{tail}\.{len(ups)}\.(\w+)", r"conv_last.\1"),
    ]


SPEC = NetworkSpec(
    name="srgan",
    task="upscale",
    config=SRGANConfig,
    build=SRGAN,
    traits=traits,
    detect=keys_like(
        r"body\.\d+\.(conv[12]|norm[12]|act)\.\w+|conv_(first|hr|last)\.(weight|bias)|act_first\.weight"
        r"|body_end\.(conv|norm|act)\.\w+|upsample\.\d+\.((conv|act)\.)?(weight|bias)",
        anchors=("conv_first.", "body.0.conv", ("body.0.norm", "conv_hr."), "upsample.0.", "conv_last."),
    ),
    read_config=read_config,
    rename=rename,
    stages=stages,
    float_parts=lambda config: ("conv_first", "conv_last"),
)
