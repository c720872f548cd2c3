"""GFPGAN: a U-Net reads a damaged face, and StyleGAN2 paints it anew from what it read (arXiv:2101.04061).

Letters: N batch, C channels, h w sides of a level, L styles, S length of one.
"""

import re
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

from restorer.networks.layers import Conv, conv_shape, count_blocks, keys_like, leaky, linear_shape
from restorer.networks.spec import Facts, NetworkSpec, StateDict, Traits, at_least_one
from restorer.networks.style_dialects import Renaming, from_basicsr, marked, read_mark, told_resampling, translated
from restorer.networks.style_layers import (
    GAIN,
    RESAMPLINGS,
    WIDTHS_512,
    DownBlock,
    Resampling,
    Synthesis,
    check_widths,
    doubled,
    operations_of,
)
from restorer.networks.style_rates import layer_rates, rates_of, start_equalised, synthesis_rates


@dataclass(frozen=True, kw_only=True)
class GFPGANConfig:
    """Numbers of versions 1.2 to 1.4; version 1 has half the widths from 64 pixels on, and the resampling "fir"."""

    widths: tuple[int, ...] = WIDTHS_512
    """Channels of the painter at 4, 8, ... pixels; those of the U-Net are half. Their number says the side."""
    style: int = 512
    half: bool = True
    """Conditions change half of the channels."""
    one_style: bool = False
    """One style for all layers instead of one for each."""
    resampling: Resampling = "bilinear"
    """Of the painter, and of the U-Net's way down; its way up is always bilinear."""

    def __post_init__(self) -> None:
        check_widths(self.widths)
        at_least_one(style=self.style)
        if any(width % 2 for width in self.widths):
            raise ValueError(f"widths must be even, got {self.widths}")
        if self.resampling not in RESAMPLINGS:
            raise ValueError(f"resampling must be one of {', '.join(RESAMPLINGS)}, got {self.resampling}")

    @property
    def side(self) -> int:
        """The only side of a face that it takes."""
        return 2 ** (len(self.widths) + 1)


class UpBlock(nn.Module):
    """(N, Cin, h, w) -> (N, Cout, 2h, 2w)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = Conv(in_channels, in_channels)
        self.conv2 = Conv(in_channels, out_channels)
        self.skip = Conv(in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = leaky(self.conv2(doubled(leaky(self.conv1(x)), "bilinear")))
        return y + doubled(self.skip(x), "bilinear")  # a convolution of side 1 may go first, where it costs a quarter


class Condition(nn.Sequential):
    """(N, C, h, w) -> (N, Cout, h, w): what a painter's channels are multiplied with, or what is added."""

    def __init__(self, channels: int, out_channels: int, *, start: float) -> None:
        super().__init__(Conv(channels, channels), nn.LeakyReLU(0.2, inplace=True), Conv(channels, out_channels))
        bias = self[2].bias
        assert isinstance(bias, Tensor)
        nn.init.constant_(bias, start)


class GFPGAN(nn.Module):
    """(N, 3, side, side) in [-1, 1] -> same; faces aligned to the template."""

    def __init__(self, config: GFPGANConfig) -> None:
        super().__init__()
        self.config = config
        narrow = [width // 2 for width in config.widths]
        self.conv_first = Conv(3, narrow[-1], 1)
        falling = narrow[::-1]
        self.down = nn.ModuleList(DownBlock(into, out, config.resampling) for into, out in pairwise(falling))
        self.conv_middle = Conv(narrow[0], narrow[0])
        self.up = nn.ModuleList(UpBlock(into, out) for into, out in pairwise(narrow))
        self.to_rgb = nn.ModuleList(Conv(width, 3, 1) for width in narrow[1:])
        conditioned = [width if config.half else 2 * width for width in narrow[1:]]
        self.scale = nn.ModuleList(Condition(w, out, start=1) for w, out in zip(narrow[1:], conditioned, strict=True))
        self.shift = nn.ModuleList(Condition(w, out, start=0) for w, out in zip(narrow[1:], conditioned, strict=True))
        self.painter = Synthesis(config.widths, config.style, config.resampling)
        styles = 1 if config.one_style else self.painter.styles
        self.to_styles = nn.Linear(16 * narrow[0], styles * config.style)
        self.register_buffer("fir", marked(config.resampling))
        begun = re.compile(r"painter\..*|scale\.\d+\.2\.bias")
        start_equalised(self, {name: rate for name, rate in self.rates().items() if not begun.fullmatch(name)})

    def forward(self, x: Tensor) -> Tensor:
        return self.painted(x)[0]

    def painted(self, x: Tensor, noise: list[Tensor] | None = None) -> tuple[Tensor, list[Tensor]]:
        """(N, 3, side, side) -> the face, and the features (N, C, h, w) at 8, 16, ... pixels on the U-Net's way up.

        `noise` None is what is stored with the weights.
        """
        y, seen = leaky(self.conv_first(x)), []
        for block in self.down:
            y = block(y)
            seen.append(y)
        y = leaky(self.conv_middle(y))
        styles = self.to_styles(y.flatten(1).to(self.to_styles.weight.dtype))
        styles = styles.view(x.shape[0], -1, self.config.style).expand(-1, self.painter.styles, -1)
        conditions, features = [], []
        for block, scale, shift in zip(self.up, self.scale, self.shift, strict=True):
            y = block(y + seen.pop())
            features.append(y)
            conditions.append((scale(y), shift(y)))
        return self.painter(styles, conditions, noise), features

    def pyramid(self, features: list[Tensor]) -> list[Tensor]:
        """What `painted` gave -> (N, 3, h, w) at 8, 16, ... pixels: what the U-Net alone makes of the face."""
        return [conv(y) for conv, y in zip(self.to_rgb, features, strict=True)]

    def rates(self) -> dict[str, float]:
        """Name of each parameter -> factor of its learning rate, as published equalised ones learn, not the "clean"."""
        rules = (
            *layer_rates(r"conv_(first|middle)\.", gain=GAIN),
            *layer_rates(r"(down|up)\.\d+\.conv1\.", gain=GAIN),
            *layer_rates(r"(down|up)\.\d+\.conv2\."),
            *layer_rates(r"(down|up)\.\d+\.skip\.", gain=1 / GAIN),
            *layer_rates(r"(scale|shift)\.\d+\.0\.", gain=GAIN),
            *layer_rates(r"(scale|shift)\.\d+\.2\."),
            *layer_rates(r"to_rgb\.\d+\."),
            *layer_rates(r"to_styles\."),
            *synthesis_rates(r"painter\."),
        )
        return rates_of(self, rules)


def traits(config: GFPGANConfig) -> Traits:
    """A face as a whole, at one size."""
    return Traits(
        fixed_size=(config.side, config.side),
        min_side=config.side,
        radius=None,
        overlap=0,
        values_per_pixel=(7 if config.half else 9) * config.widths[-1],
        operations=_operations(config),
        precisions=frozenset({"fp32", "fp16", "bf16"}),
        value_range=(-1.0, 1.0),
    )


def _operations(config: GFPGANConfig) -> float:
    """Multiplications of the convolutions per pixel of the face."""
    narrow = [width // 2 for width in config.widths]
    total = operations_of(config.widths, config.resampling) + 3 * narrow[-1] * config.side**2 + 16 * 9 * narrow[0] ** 2
    for level, (small, large) in enumerate(pairwise(narrow), start=1):
        low, high = (2 * 2**level) ** 2, (4 * 2**level) ** 2
        down = 9 * large**2 * high + 10 * large * small * low
        up = (9 * small**2 + small * large) * low + 9 * small * large * high
        out = large if config.half else 2 * large
        total += down + up + 2 * 9 * large * (large + out) * high
    return total / config.side**2


def read_config(weights: StateDict, facts: Facts) -> GFPGANConfig:
    """Recover the config from shapes; the weight `fir` tells the resampling."""
    blocks = count_blocks(weights, "up.")
    widths = [2 * conv_shape(weights, f"up.{index}.conv1.weight")[0] for index in range(blocks)]
    last = conv_shape(weights, "conv_first.weight")[0]
    style = linear_shape(weights, "painter.layers.0.modulation.weight")[1]
    styles = linear_shape(weights, "to_styles.weight")[0]
    shifted = conv_shape(weights, f"scale.{blocks - 1}.2.weight")[0]
    return GFPGANConfig(
        widths=(*widths, 2 * last),
        style=style,
        half=shifted == last,
        one_style=styles == style,
        resampling=read_mark(weights),
    )


_BLOCKS = (("conv_body_down", "down"), ("conv_body_up", "up"))
_UNUSED = Renaming(r"stylegan_decoder\.style_mlp\..*", None)
"""The network that makes styles of noise is in the files, and no face passes it."""


def _clean() -> tuple[Renaming, ...]:
    return (
        _UNUSED,
        Renaming(r"conv_body_first\.(\w+)", r"conv_first.\1"),
        *(Renaming(rf"{old}\.(\d+)\.(\w+)\.(\w+)", rf"{new}.\1.\2.\3") for old, new in _BLOCKS),
        Renaming(r"final_conv\.(\w+)", r"conv_middle.\1"),
        Renaming(r"final_linear\.(\w+)", r"to_styles.\1"),
        Renaming(r"toRGB\.(\d+)\.(\w+)", r"to_rgb.\1.\2"),
        Renaming(r"condition_(scale|shift)\.(\d+)\.(\d)\.(\w+)", r"\1.\2.\3.\4"),
        *from_basicsr(r"stylegan_decoder\.", "painter.", clean=True),
    )


def _equalised() -> tuple[Renaming, ...]:
    return (
        _UNUSED,
        Renaming(r"conv_body_first\.0\.weight", "conv_first.weight", GAIN, True),
        Renaming(r"conv_body_first\.1\.bias", "conv_first.bias", GAIN),
        *(Renaming(rf"{old}\.(\d+)\.conv1\.0\.weight", rf"{new}.\1.conv1.weight", GAIN, True) for old, new in _BLOCKS),
        *(Renaming(rf"{old}\.(\d+)\.conv1\.1\.bias", rf"{new}.\1.conv1.bias", GAIN) for old, new in _BLOCKS),
        *(
            Renaming(rf"{old}\.(\d+)\.conv2\.(?:1\.)?weight", rf"{new}.\1.conv2.weight", 1.0, True)
            for old, new in _BLOCKS
        ),
        *(Renaming(rf"{old}\.(\d+)\.conv2\.(?:2|activation)\.bias", rf"{new}.\1.conv2.bias") for old, new in _BLOCKS),
        *(
            Renaming(rf"{old}\.(\d+)\.skip\.(?:1\.)?weight", rf"{new}.\1.skip.weight", 1 / GAIN, True)
            for old, new in _BLOCKS
        ),
        Renaming(r"final_conv\.0\.weight", "conv_middle.weight", GAIN, True),
        Renaming(r"final_conv\.1\.bias", "conv_middle.bias", GAIN),
        Renaming(r"final_linear\.weight", "to_styles.weight", 1.0, True),
        Renaming(r"final_linear\.bias", "to_styles.bias"),
        Renaming(r"toRGB\.(\d+)\.weight", r"to_rgb.\1.weight", 1.0, True),
        Renaming(r"toRGB\.(\d+)\.bias", r"to_rgb.\1.bias"),
        Renaming(r"condition_(scale|shift)\.(\d+)\.0\.weight", r"\1.\2.0.weight", GAIN, True),
        Renaming(r"condition_(scale|shift)\.(\d+)\.0\.bias", r"\1.\2.0.bias", GAIN),
        Renaming(r"condition_(scale|shift)\.(\d+)\.2\.weight", r"\1.\2.2.weight", 1.0, True),
        Renaming(r"condition_(scale|shift)\.(\d+)\.2\.bias", r"\1.\2.2.bias"),
        *from_basicsr(r"stylegan_decoder\.", "painter.", clean=False),
    )


def rename(weights: StateDict, facts: Facts) -> StateDict:
    """Bring GFPGAN's files, "clean" or of the first kind, to plain weights under the names above.

    Those of the first kind were trained with filters or with bilinear resampling, which is a fact.
    """
    if "conv_body_first.weight" in weights:
        return {**translated(weights, _clean()), "fir": marked("bilinear")}
    if "conv_body_first.0.weight" in weights:
        return {**translated(weights, _equalised()), "fir": marked(told_resampling(facts, "gfpgan"))}
    return weights


SPEC = NetworkSpec(
    name="gfpgan",
    task="face",
    config=GFPGANConfig,
    build=GFPGAN,
    traits=traits,
    detect=keys_like(
        r"conv_(first|middle)\.(weight|bias)|(down|up)\.\d+\.(conv[12]|skip)\.(weight|bias)|to_styles\.(weight|bias)"
        r"|to_rgb\.\d+\.(weight|bias)|(scale|shift)\.\d+\.[02]\.(weight|bias)|painter\..*|fir",
        anchors=("conv_first.", "down.0.", "up.0.", "to_styles.", "painter.layers.0.", "scale.0."),
    ),
    read_config=read_config,
    rename=rename,
    float_parts=lambda config: ("conv_first", "to_rgb", "painter.to_rgb"),
)
