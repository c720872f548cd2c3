"""StyleGAN2: noise becomes a style, and styles paint a picture from a constant (arXiv:1912.04958).

Letters: N batch, S length of a style, L styles of one picture.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from restorer.errors import WeightsError
from restorer.networks.layers import conv_shape, count_blocks, keys_like, leaky, linear_shape
from restorer.networks.spec import Facts, NetworkSpec, StateDict, Traits, at_least_one
from restorer.networks.style_dialects import (
    MAPPING_RATE,
    Renaming,
    from_basicsr,
    from_nvidia,
    from_rosinality,
    marked,
    read_mark,
    told_resampling,
    translated,
)
from restorer.networks.style_layers import (
    EPSILON,
    GAIN,
    RESAMPLINGS,
    WIDTHS_512,
    Resampling,
    Synthesis,
    check_widths,
    operations_of,
)
from restorer.networks.style_rates import mapping_rates, rates_of, synthesis_rates

AVERAGED = 10_000
"""Styles whose mean stands for an average that a file lacks."""


@dataclass(frozen=True, kw_only=True)
class StyleGAN2Config:
    """Numbers of the paper's configuration F."""

    widths: tuple[int, ...] = (*WIDTHS_512, 32)
    """Channels at 4, 8, ... pixels. Their number says the side."""
    style: int = 512
    mapping: int = 8
    """Layers that make a style of noise."""
    resampling: Resampling = "fir"

    def __post_init__(self) -> None:
        check_widths(self.widths)
        at_least_one(style=self.style, mapping=self.mapping)
        if self.resampling not in RESAMPLINGS:
            raise ValueError(f"resampling must be one of {', '.join(RESAMPLINGS)}, got {self.resampling}")

    @property
    def side(self) -> int:
        """Of the pictures."""
        return 2 ** (len(self.widths) + 1)


class Mapping(nn.ModuleList):
    """(N, S) noise of variance 1 -> (N, S) styles."""

    def __init__(self, style: int, layers: int) -> None:
        super().__init__(nn.Linear(style, style) for _ in range(layers))
        for linear in self:
            assert isinstance(linear, nn.Linear)
            nn.init.normal_(linear.weight, std=GAIN / math.sqrt(style))
            nn.init.zeros_(linear.bias)

    def forward(self, z: Tensor) -> Tensor:
        w = z * torch.rsqrt(z.square().mean(1, keepdim=True) + EPSILON)
        for linear in self:
            w = leaky(linear(w))
        return w


class StyleGAN2(nn.Module):
    """(N, S) noise of variance 1 -> (N, 3, side, side) in [-1, 1]; in training each layer is given new noise, too."""

    def __init__(self, config: StyleGAN2Config) -> None:
        super().__init__()
        self.config = config
        self.mapping = Mapping(config.style, config.mapping)
        self.synthesis = Synthesis(config.widths, config.style, config.resampling)
        self.register_buffer("w_average", torch.zeros(config.style))
        self.register_buffer("fir", marked(config.resampling))

    def forward(self, z: Tensor) -> Tensor:
        return self.painted(self.styles(z))

    def styles(self, z: Tensor, *, truncation: float = 1.0, cutoff: int | None = None) -> Tensor:
        """(N, S) noise -> (N, L, S): one style for all layers, w+ to begin from.

        Below 1, `truncation` draws the first `cutoff` of them, or all, towards the average: less variety, fewer faults.
        """
        w = self.mapping(z)[:, None].expand(-1, self.synthesis.styles, -1)
        if truncation == 1:
            return w
        drawn = torch.lerp(self.get_buffer("w_average"), w, truncation)
        return drawn if cutoff is None else torch.cat([drawn[:, :cutoff], w[:, cutoff:]], dim=1)

    def painted(self, styles: Tensor, noise: list[Tensor] | None = None) -> Tensor:
        """(N, L, S) -> (N, 3, side, side); `noise` None is the stored one, in training new."""
        if noise is None and self.training:
            noise = self.synthesis.fresh_noise(len(styles))
        return self.synthesis(styles, noise=noise)

    def no_noise(self) -> list[Tensor]:
        """-> zeros (1, 1, h, w) for each layer."""
        return [torch.zeros_like(each) for each in self.synthesis.stored_noise()]

    def rates(self) -> dict[str, float]:
        """Name of each parameter -> factor of its learning rate, as published equalised ones learn."""
        return rates_of(self, (*mapping_rates(r"mapping\."), *synthesis_rates(r"synthesis\.")))


def traits(config: StyleGAN2Config) -> Traits:
    """Starts from numbers, not from a picture."""
    return Traits(
        latent=config.style,
        fixed_size=(config.side, config.side),
        radius=None,
        overlap=0,
        values_per_pixel=5 * config.widths[-1],
        operations=operations_of(config.widths, config.resampling) / config.side**2,
        precisions=frozenset({"fp32", "fp16", "bf16"}),
        value_range=(-1.0, 1.0),
    )


def read_config(weights: StateDict, facts: Facts) -> StyleGAN2Config:
    """Recover the config from shapes; the weight `fir` tells the resampling."""
    layers = count_blocks(weights, "synthesis.layers.")
    widths = [conv_shape(weights, f"synthesis.layers.{index}.conv.weight")[0] for index in range(0, layers, 2)]
    return StyleGAN2Config(
        widths=tuple(widths),
        style=linear_shape(weights, "synthesis.layers.0.modulation.weight")[1],
        mapping=count_blocks(weights, "mapping."),
        resampling=read_mark(weights),
    )


def _mapping(pattern: str, *, first: int, step: int = 1, gain: float = MAPPING_RATE * GAIN) -> tuple[Renaming, ...]:
    """`pattern` has a group for the number: layers are `first`, `first` + `step`, ..."""

    def called(part: str) -> Callable[[re.Match[str]], str]:
        return lambda match: f"mapping.{(int(match[1]) - first) // step}.{part}"

    equalised = gain != 1
    return (
        Renaming(pattern + r"\.weight", called("weight"), gain, equalised),
        Renaming(pattern + r"\.bias", called("bias"), gain),
    )


_AVERAGE = Renaming("latent_avg", "w_average")


def _nvidia() -> tuple[Renaming, ...]:
    average = Renaming(r"mapping\.w_avg", "w_average")
    return (*_mapping(r"mapping\.fc(\d{1,3})", first=0), average, *from_nvidia(r"synthesis\.", "synthesis."))


def _rosinality() -> tuple[Renaming, ...]:
    return (*_mapping(r"style\.(\d{1,3})", first=1), _AVERAGE, *from_rosinality("", "synthesis."))


def _basicsr() -> tuple[Renaming, ...]:
    synthesis = from_basicsr("", "synthesis.", clean=False)
    return (*_mapping(r"style_mlp\.(\d{1,3})", first=1), _AVERAGE, *synthesis)


def _clean() -> tuple[Renaming, ...]:
    synthesis = from_basicsr("", "synthesis.", clean=True)
    return (*_mapping(r"style_mlp\.(\d{1,3})", first=1, step=2, gain=1), _AVERAGE, *synthesis)


def rename(weights: StateDict, facts: Facts) -> StateDict:
    """Bring the dialects of NVIDIA, rosinality, BasicSR and GFPGAN ("clean") to plain weights under the names above.

    BasicSR's may have been trained with filters or bilinear resampling, which is a fact. A style's average that a file
    lacks is taken over many styles, as the authors did.
    """
    if "synthesis.b4.const" in weights:
        return _completed(translated(weights, _nvidia()), "fir")
    if "input.input" in weights and "conv1.conv.weight" in weights:
        return _completed(translated(weights, _rosinality()), "fir")
    if "style_conv1.activate.bias" in weights:
        return _completed(translated(weights, _basicsr()), told_resampling(facts, "stylegan2"))
    if "style_conv1.modulated_conv.weight" in weights:
        return _completed(translated(weights, _clean()), "bilinear")
    return weights


def _completed(weights: dict[str, Tensor], resampling: Resampling) -> StateDict:
    weights["fir"] = marked(resampling)
    if "w_average" not in weights:
        style = linear_shape(weights, "mapping.0.weight")[1]
        layers = [f"mapping.{index}" for index in range(count_blocks(weights, "mapping."))]
        for layer in layers:  # before a network of this size is made
            bias = weights.get(f"{layer}.bias")
            if linear_shape(weights, f"{layer}.weight") != (style, style) or bias is None or bias.shape != (style,):
                raise WeightsError(f"{layer} of these stylegan2 weights is no layer of {style}; the file is damaged")
        mapping = Mapping(style, len(layers))
        own = {f"{layer}.{part}" for layer in layers for part in ("weight", "bias")}
        mapping.load_state_dict({key.removeprefix("mapping."): weights[key].float() for key in own})
        with torch.no_grad():
            z = torch.randn(AVERAGED, style, generator=torch.Generator().manual_seed(0))
            weights["w_average"] = mapping(z).mean(0)
    return weights


SPEC = NetworkSpec(
    name="stylegan2",
    task="generate",
    config=StyleGAN2Config,
    build=StyleGAN2,
    traits=traits,
    detect=keys_like(
        r"mapping\.\d+\.(weight|bias)|synthesis\..*|w_average|fir",
        anchors=("mapping.0.", "synthesis.layers.0.", "synthesis.to_rgb.0."),
    ),
    read_config=read_config,
    rename=rename,
    float_parts=lambda config: ("synthesis.to_rgb",),
)
