"""SRVGGNetCompact of Real-ESRGAN: a plain chain of convolutions, all at low resolution (arXiv:2107.10833)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restorer.errors import AmbiguousWeightsError, WeightsError
from restorer.networks.layers import (
    ActivationName,
    Conv,
    activation,
    check_slope,
    conv_shape,
    keys_like,
    ncnn_layers,
    rename_ncnn,
    shuffle_factor,
)
from restorer.networks.spec import Facts, NetworkSpec, StateDict, Traits, at_least_one
from restorer.networks.stages import Convolved, Each, Skip, Stage


@dataclass(frozen=True, kw_only=True)
class CompactConfig:
    """Numbers of realesr-animevideov3; realesr-general-x4v3 has 32 convolutions."""

    scale: int = 4
    channels: int = 3
    features: int = 64
    convs: int = 16
    """Convolutions between the first and the last."""
    activation: ActivationName = "prelu"

    def __post_init__(self) -> None:
        at_least_one(scale=self.scale, channels=self.channels, features=self.features, convs=self.convs)


class Compact(nn.Module):
    """(N, C, H, W) in [0, 1] -> (N, C, scale*H, scale*W): the nearest-neighbour picture plus what it lacks."""

    def __init__(self, config: CompactConfig) -> None:
        super().__init__()
        self.scale = config.scale
        layers: list[nn.Module] = []
        for index in range(config.convs + 1):
            layers.append(Conv(config.features if index else config.channels, config.features))
            layers.append(activation(config.activation, slopes=config.features))
        layers.append(Conv(config.features, config.channels * config.scale**2))
        self.body = nn.Sequential(*layers)
        _start_straight([layer for layer in layers if isinstance(layer, nn.Conv2d)])

    @property
    def first(self) -> nn.Module:
        """The first convolution."""
        return self.body[0]

    def forward(self, x: Tensor) -> Tensor:
        # s*s equal channels, shuffled, are the nearest-neighbour picture; to add them before the shuffle costs less
        y = self.body(x) + x.repeat_interleave(self.scale**2, dim=1)
        return F.pixel_shuffle(y, self.scale)


def _start_straight(convs: Sequence[nn.Conv2d]) -> None:
    """Draw the chain so that signal and gradient pass all of it: turned channels at the centre, little around.

    Delta-orthogonal (arXiv:1806.05393), for PReLU's first slope of a quarter. As PyTorch draws convolutions, gradients
    reach the first of 18 a millionfold weaker, and nothing is learned for thousands of steps.
    """
    if convs[0].weight.is_meta:  # no numbers are drawn where weights will be read
        return
    gain = nn.init.calculate_gain("leaky_relu", 0.25)
    for conv in convs:
        assert conv.bias is not None
        nn.init.zeros_(conv.bias)
        nn.init.kaiming_normal_(conv.weight, a=0.25)
    for conv in convs[1:-1]:
        turned = nn.init.orthogonal_(torch.empty(conv.weight.shape[:2]), gain)
        with torch.no_grad():
            conv.weight.mul_(0.1)
            conv.weight[:, :, 1, 1] += turned
    convs[-1].weight.data.mul_(0.1)


def stages(network: Compact) -> list[Stage]:
    """What `forward` does, rows after rows."""
    layers, factor = list(network.body), network.scale
    chain: list[Stage] = []
    for conv, act in zip(layers[::2], [*layers[1::2], None], strict=True):
        assert isinstance(conv, Conv)
        chain.append(Convolved(conv, act))
    return [
        Skip(chain, lambda x, y: y + x.repeat_interleave(factor**2, dim=1)),
        Each(lambda y: F.pixel_shuffle(y, factor)),
    ]


def traits(config: CompactConfig) -> Traits:
    """Every convolution reaches one pixel further, and few enough do that tiles can be exact."""
    radius = config.convs + 2
    return Traits(
        scale=config.scale,
        in_channels=config.channels,
        out_channels=config.channels,
        radius=radius,
        overlap=radius,
        values_per_pixel=max(2 * config.features, 3 * config.channels * config.scale**2),
        values_kept=2 * config.channels + 2 * config.features * (config.convs + 1) + radius * config.channels,
        operations=9 * config.features * (config.channels * (1 + config.scale**2) + config.convs * config.features),
        precisions=frozenset({"fp32", "fp16", "bf16"}),
    )


def read_config(weights: StateDict, facts: Facts) -> CompactConfig:
    """Recover the config: convolutions have even places in the chain, activations with slopes odd ones."""
    places = {int(match[1]) for key in weights if (match := re.fullmatch(r"body\.(\d{1,6})\.(weight|bias)", key))}
    last = max(places) + max(places) % 2
    for place in range(0, last, 2):
        conv_shape(weights, f"body.{place}.weight")
    features, channels, _ = conv_shape(weights, "body.0.weight")
    return CompactConfig(
        scale=shuffle_factor(conv_shape(weights, f"body.{last}.weight")[0], onto=channels),
        channels=channels,
        features=features,
        convs=last // 2 - 1,
        activation="prelu" if any(place % 2 for place in places) else _told_activation(facts),
    )


def _told_activation(facts: Facts) -> ActivationName:
    told = facts.get("activation")
    if told == "relu":
        return "relu"
    if told == "leakyrelu":
        check_slope(facts, 0.1)
        return "leakyrelu"
    if told is None:
        raise AmbiguousWeightsError(
            "these compact weights do not say which activation they were trained with; "
            "give --fact activation=relu or --fact activation=leakyrelu"
        )
    raise WeightsError(
        f"activation={told} does not fit compact weights without slopes; "
        "give --fact activation=relu or --fact activation=leakyrelu"
    )


def rename(weights: StateDict, facts: Facts) -> StateDict:
    """Number the layers of an ncnn file: convolutions alternate with PReLU, or follow each other without it."""
    layers = ncnn_layers(weights)
    kinds = [layer.split(".")[1] for layer in layers]
    if len(kinds) % 2 and kinds == ["Convolution", "PReLU"] * (len(kinds) // 2) + ["Convolution"]:
        return rename_ncnn(weights, [f"body.{place}" for place in range(len(layers))])
    if len(kinds) >= 3 and set(kinds) == {"Convolution"}:
        return rename_ncnn(weights, [f"body.{2 * place}" for place in range(len(layers))])
    return weights


SPEC = NetworkSpec(
    name="compact",
    task="upscale",
    config=CompactConfig,
    build=Compact,
    traits=traits,
    detect=keys_like(r"body\.\d+\.(weight|bias)", anchors=("body.0.", "body.2.")),
    read_config=read_config,
    rename=rename,
    stages=stages,
    float_parts=lambda config: ("first",),  # with the last one too: a sixth slower, and no closer to float32
)
