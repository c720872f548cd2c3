"""CycleGAN's generator: residual blocks at a quarter of the side, between mirrored edges (arXiv:1703.10593).

Letters: N batch, C channels, H W sides, F features.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restorer.networks.bands import DOUBLED, FULL, HALVED, Bands, Each, Placed, Rows, Through
from restorer.networks.layers import Rule, conv_shape, count_blocks, keys_like, rename_keys, without_wrapper
from restorer.networks.spec import Facts, NetworkSpec, StateDict, Traits, at_least_one
from restorer.networks.translation_layers import (
    DownConv,
    MirrorConv,
    NormedConv,
    NormName,
    Order,
    UpConv3,
    check_noise,
    check_order,
    drop,
    norm,
    read_dropout,
    read_noise,
    read_norm,
    read_order,
    start_normal,
    without_old_statistics,
)


@dataclass(frozen=True, kw_only=True)
class CycleGANConfig:
    """Numbers of the paper for pictures of 256 pixels; for 128 it has 6 blocks."""

    in_channels: int = 3
    out_channels: int = 3
    features: int = 64
    """Channels at full size; four times as many in the blocks."""
    blocks: int = 9
    norm: NormName = "instance"
    """What "batch" does at rest is "instance" with weights; "none" is not offered."""
    dropout: bool = False
    """Half of the activations inside each block are dropped in training."""
    noise: int | None = None
    """The seed of what is dropped at rest; None drops nothing."""
    channel_order: Order = "rgb"

    def __post_init__(self) -> None:
        at_least_one(
            in_channels=self.in_channels,
            out_channels=self.out_channels,
            features=self.features,
            blocks=self.blocks,
        )
        if self.norm not in ("instance", "batch"):
            raise ValueError(f"norm must be instance or batch, got {self.norm}")
        check_order(self.channel_order)
        check_noise(self.noise, drops=self.dropout)


class Layer(NormedConv):
    """(N, Cin, H, W) -> (N, Cout, H', W'): a convolution, a norm, ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu_(super().forward(x))


class ResidualBlock(nn.Module):
    """(N, C, H, W) -> same."""

    def __init__(self, channels: int, config: CycleGANConfig, place: int) -> None:
        super().__init__()
        bias = config.norm == "instance"
        self.dropout, self.noise, self.place = config.dropout, config.noise, place
        self.conv1 = MirrorConv(channels, channels, bias=bias)
        self.norm1 = norm(config.norm, channels)
        self.conv2 = MirrorConv(channels, channels, bias=bias)
        self.norm2 = norm(config.norm, channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.dropped(F.relu_(self.norm1(self.conv1(x))))
        return x + self.norm2(self.conv2(y))

    def dropped(self, y: Tensor, top: int = 0) -> Tensor:
        """(N, C, h, w) -> same: what `drop` leaves of these rows, where the network drops."""
        if not self.dropout:
            return y
        return drop(y, training=self.training, noise=self.noise, layer=self.place, top=top)


class CycleGAN(nn.Module):
    """(N, C, H, W) in [-1, 1] -> same; sides are multiples of 4, from 8."""

    def __init__(self, config: CycleGANConfig) -> None:
        super().__init__()
        f, kind, bias = config.features, config.norm, config.norm == "instance"
        self.first = Layer(MirrorConv(config.in_channels, f, 7, bias=bias), kind, f)
        self.down = nn.Sequential(
            Layer(DownConv(f, 2 * f, 3, bias=bias), kind, 2 * f),
            Layer(DownConv(2 * f, 4 * f, 3, bias=bias), kind, 4 * f),
        )
        self.blocks = nn.Sequential(*(ResidualBlock(4 * f, config, place) for place in range(config.blocks)))
        self.up = nn.Sequential(
            Layer(UpConv3(4 * f, 2 * f, bias=bias), kind, 2 * f),
            Layer(UpConv3(2 * f, f, bias=bias), kind, f),
        )
        self.last = MirrorConv(f, config.out_channels, 7)
        start_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.last(self.up(self.blocks(self.down(self.first(x))))))


def walk(network: CycleGAN, picture: Rows, bands: Bands) -> Rows:
    """As `forward`, in bands of rows. The maps between the halvings and the doublings are held, two at a time."""
    x = picture
    for layer, radius, scale in ((network.first, 3, FULL), (network.down[0], 2, HALVED)):
        assert isinstance(layer, Layer)
        x = Each(F.relu_, bands.normed(Through(x, layer.conv, radius=radius, scale=scale), layer.norm))
    last = network.down[1]
    assert isinstance(last, Layer)
    raw = bands.held(Through(x, last.conv, radius=2, scale=HALVED))
    x = bands.held(Each(F.relu_, bands.normed(raw, last.norm)), over=raw)
    for block in network.blocks:
        assert isinstance(block, ResidualBlock)
        raw = bands.held(Through(x, block.conv1, radius=1))
        y = Placed(block.dropped, Each(F.relu_, bands.normed(raw, block.norm1)))
        raw = bands.held(Through(y, block.conv2, radius=1), over=raw)
        x = bands.held(Each(torch.add, x, bands.normed(raw, block.norm2)), over=x)
    for layer in network.up:
        assert isinstance(layer, Layer)
        x = Each(F.relu_, bands.normed(Through(x, layer.conv, radius=1, scale=DOUBLED), layer.norm))
    return Each(torch.tanh, Through(x, network.last, radius=3))


def traits(config: CycleGANConfig) -> Traits:
    """Every output depends on the whole picture, through the norms."""
    f = config.features
    return Traits(
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        multiple_of=4,
        min_side=8,
        radius=None,
        overlap=0,
        values_per_pixel=3 * f + 2 * config.in_channels,
        values_held=max(1, f // 2),
        operations=49 * f * (config.in_channels + config.out_channels) + 18 * f**2 * (1 + config.blocks),
        precisions=frozenset({"fp32", "fp16", "bf16"}),
        value_range=(-1.0, 1.0),
        channel_order=config.channel_order,
    )


def read_config(weights: StateDict, facts: Facts) -> CycleGANConfig:
    """Recover the config from keys and shapes."""
    features, in_channels, _ = conv_shape(weights, "first.conv.weight")
    return CycleGANConfig(
        in_channels=in_channels,
        out_channels=conv_shape(weights, "last.weight")[0],
        features=features,
        blocks=count_blocks(weights, "blocks."),
        norm=read_norm(weights),
        dropout=read_dropout(facts, False),
        noise=read_noise(facts),
        channel_order=read_order(facts),
    )


def rename(weights: StateDict, facts: Facts) -> StateDict:
    """Bring the published names, those of one chain `model`, to the ones above."""
    bare = without_wrapper(weights)
    if not any(re.match(r"model\.10\.conv_block\.1\.", key) for key in bare):
        return weights
    bare = without_old_statistics(bare)
    return rename_keys(bare, _rules(bare))


def told_by_keys(weights: StateDict) -> Facts:
    """In published names, the second convolution of a block stands one place later where the first one is dropped from.

    Training left its mark there, which the names above do not keep.
    """
    return {"dropout": True} if _second_conv(without_wrapper(weights)) == 6 else {}


def _second_conv(weights: StateDict) -> int:
    """Its place in a block of the published layout."""
    second = weights.get("model.10.conv_block.6.weight")
    return 6 if second is not None and second.ndim == 4 else 5


def _rules(weights: StateDict) -> list[Rule]:
    """With dropout, what follows it in a block stands one place later."""
    found = {int(match[1]) for key in weights if (match := re.match(r"model\.(\d{1,4})\.conv_block\.", key))}
    after = 10 + len(found)
    conv2 = _second_conv(weights)
    rules: list[Rule] = []
    for place, name in ((1, "first"), (4, "down.0"), (7, "down.1"), (after, "up.0"), (after + 3, "up.1")):
        rules += [(rf"model\.{place}\.(\w+)", rf"{name}.conv.\1"), (rf"model\.{place + 1}\.(\w+)", rf"{name}.norm.\1")]
    rules.append((rf"model\.{after + 7}\.(\w+)", r"last.\1"))
    for place, name in ((1, "conv1"), (2, "norm1"), (conv2, "conv2"), (conv2 + 1, "norm2")):
        rules.append((rf"model\.(\d{{1,4}})\.conv_block\.{place}\.(\w+)", _in_block(name)))
    return rules


def _in_block(name: str) -> Callable[[re.Match[str]], str]:
    return lambda match: f"blocks.{int(match[1]) - 10}.{name}.{match[2]}"


SPEC = NetworkSpec(
    name="cyclegan",
    task="translate",
    config=CycleGANConfig,
    build=CycleGAN,
    traits=traits,
    detect=keys_like(
        r"(first|down\.[01]|up\.[01])\.(conv|norm)\.\w+|blocks\.\d+\.(conv|norm)[12]\.\w+|last\.(weight|bias)",
        anchors=(("first.conv.", "down.0.conv."), "blocks.0.", ("up.0.conv.", "up.1.conv."), "last."),
    ),
    read_config=read_config,
    rename=rename,
    told_by_keys=told_by_keys,
    float_parts=lambda config: ("first", "down", "last"),
    walk=walk,
)
