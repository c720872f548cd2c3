"""pix2pix's generator: a U-Net that goes down to one pixel and back up (arXiv:1611.07004).

Letters: N batch, C channels, H W sides, h w sides of a level.
"""

import re
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restorer.networks.bands import DOUBLED, HALVED, Bands, Each, Placed, Rows, Through
from restorer.networks.layers import Rule, conv_shape, count_blocks, keys_like, leaky, rename_keys, without_wrapper
from restorer.networks.spec import Facts, NetworkSpec, StateDict, Traits, at_least_one
from restorer.networks.translation_layers import (
    DownConv,
    NormedConv,
    NormName,
    Order,
    UpConv,
    as_shuffle,
    check_noise,
    check_norm,
    check_order,
    drop,
    read_dropout,
    read_noise,
    read_norm,
    read_order,
    start_normal,
    without_old_statistics,
)

_DROPPED_FROM = 4
"""The first level whose way up is dropped from; the innermost never is."""


@dataclass(frozen=True, kw_only=True)
class Pix2PixConfig:
    """Numbers of the paper for pictures of 256 pixels."""

    in_channels: int = 3
    out_channels: int = 3
    features: int = 64
    """Channels of the first level; each has twice as many, up to eight times."""
    levels: int = 8
    """Halvings: 7 for pictures of 128 pixels, 9 for those of 512."""
    norm: NormName = "batch"
    dropout: bool = True
    """Half of the activations on the way up are dropped in training."""
    noise: int | None = None
    """The seed of what is dropped at rest; None drops nothing."""
    channel_order: Order = "rgb"

    def __post_init__(self) -> None:
        at_least_one(in_channels=self.in_channels, out_channels=self.out_channels, features=self.features)
        if not 2 <= self.levels <= 12:
            raise ValueError(f"levels must be from 2 to 12, got {self.levels}")
        check_norm(self.norm)
        check_order(self.channel_order)
        check_noise(self.noise, drops=any(map(self.drops, range(self.levels))))

    def drops(self, level: int) -> bool:
        """Whether activations are dropped on the way up through this level."""
        return self.dropout and _DROPPED_FROM <= level < self.levels - 1

    @property
    def widths(self) -> list[int]:
        """Channels of each level on the way down."""
        return [self.features * min(2**level, 8) for level in range(self.levels)]


class Pix2Pix(nn.Module):
    """(N, C, H, W) in [-1, 1] -> same; sides are multiples of 2**levels."""

    def __init__(self, config: Pix2PixConfig) -> None:
        super().__init__()
        self.config = config
        widths, last, bias = config.widths, config.levels - 1, config.norm == "instance"
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for level, width in enumerate(widths):
            into = config.in_channels if level == 0 else widths[level - 1]
            self.down.append(
                NormedConv(DownConv(into, width, 4, bias=bias), config.norm if 0 < level < last else "none", width)
            )
            out = config.out_channels if level == 0 else widths[level - 1]
            seen = width if level == last else 2 * width
            self.up.append(
                NormedConv(UpConv(seen, out, bias=bias or level == 0), config.norm if level > 0 else "none", out)
            )
        start_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        seen = [self.down[0](x)]
        for step in self.down[1:]:
            seen.append(step(leaky(seen[-1])))
        y = F.relu_(seen.pop())
        for level in reversed(range(1, self.config.levels)):
            y = self.dropped(self.up[level](y), level=level)
            y = F.relu_(torch.cat([seen.pop(), y], 1))
        return torch.tanh(self.up[0](y))

    def dropped(self, y: Tensor, top: int = 0, *, level: int) -> Tensor:
        """(N, C, h, w) -> same: what `drop` leaves of these rows on the way up, where the level drops."""
        if not self.config.drops(level):
            return y
        return drop(y, training=self.training, noise=self.config.noise, layer=level, top=top)


def walk(network: Pix2Pix, picture: Rows, bands: Bands) -> Rows:
    """As `forward`, in bands of rows. All maps are held but the three of half the side, which are made again."""
    down, up = ([_parts(each) for each in side] for side in (network.down, network.up))
    x: Rows = Through(picture, down[0][0], radius=2, scale=HALVED)
    seen = [x]
    for conv, norm in down[1:]:
        x = bands.held(Through(Each(leaky, x), conv, radius=2, scale=HALVED))
        x = bands.normed(x, norm)
        seen.append(x)
    y: Rows = Each(F.relu_, seen.pop())
    for level in reversed(range(1, network.config.levels)):
        conv, norm = up[level]
        y = Through(y, conv, radius=1, scale=DOUBLED)
        y = bands.normed(y if level == 1 else bands.held(y), norm)
        y = Placed(partial(network.dropped, level=level), y)
        y = Each(lambda skip, made: F.relu_(torch.cat([skip, made], 1)), seen.pop(), y)
    return Each(torch.tanh, Through(y, up[0][0], radius=1, scale=DOUBLED))


def _parts(layer: nn.Module) -> tuple[nn.Module, nn.Module]:
    """(convolution, norm)."""
    assert isinstance(layer, NormedConv)
    return layer.conv, layer.norm


def traits(config: Pix2PixConfig) -> Traits:
    """Every output depends on the whole picture through the norms; without them, on what the levels reach.

    What noise drops depends on the place in the whole picture too, which a tile does not know.
    """
    radius = _radius(config.levels) if config.norm == "none" and config.noise is None else None
    return Traits(
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        multiple_of=2**config.levels,
        min_side=2**config.levels,
        radius=radius,
        overlap=radius or 0,
        values_per_pixel=3 * config.features // 2 + 2 * config.out_channels,
        values_held=max(1, 3 * config.features // 8),
        operations=_operations(config),
        precisions=frozenset({"fp32", "fp16", "bf16"}),
        value_range=(-1.0, 1.0),
        channel_order=config.channel_order,
        learns_channels_last=False,
    )


def _radius(levels: int) -> int:
    """From each output down all levels, where a transposed convolution reaches one pixel far, and back to the input."""
    farthest = 0
    for pixel in range(2**levels):
        first = last = pixel
        for _ in range(levels):
            first, last = (first - 1) // 2, (last + 1) // 2
        for _ in range(levels):
            first, last = 2 * first - 1, 2 * last + 2
        farthest = max(farthest, pixel - first, last - pixel)
    return farthest


def _operations(config: Pix2PixConfig) -> float:
    """Multiplications per input pixel."""
    widths, total = config.widths, 0.0
    for level, width in enumerate(widths):
        into, out = (config.in_channels, config.out_channels) if level == 0 else (widths[level - 1],) * 2
        seen = width if level == config.levels - 1 else 2 * width
        total += 16 * (into * width + seen * out) / 4 ** (level + 1)
    return total


def read_config(weights: StateDict, facts: Facts) -> Pix2PixConfig:
    """Recover the config from keys and shapes."""
    features, in_channels, _ = conv_shape(weights, "down.0.conv.weight")
    both = {re.sub(r"^(down|up)\.", "level.", key): tensor for key, tensor in weights.items()}
    return Pix2PixConfig(
        in_channels=in_channels,
        out_channels=conv_shape(weights, "up.0.conv.weight")[0] // 4,
        features=features,
        levels=count_blocks(both, "level."),
        norm=read_norm(weights),
        dropout=read_dropout(facts, True),
        noise=read_noise(facts),
        channel_order=read_order(facts),
    )


_NESTED = re.compile(r"model\.model\.(?:1\.model\.((?:3\.model\.){0,16}))?(\d)\.(\w+)")


def rename(weights: StateDict, facts: Facts) -> StateDict:
    """Bring the published names, each level inside the one before, to the ones above."""
    bare = without_wrapper(weights)
    last = max((_level(match) for key in bare if (match := _NESTED.fullmatch(key))), default=0)
    if last == 0:
        return weights
    bare = without_old_statistics(bare)
    renamed = rename_keys(bare, [_rule(last)])
    return {
        key: as_shuffle(tensor) if re.fullmatch(r"up\.\d+\.conv\.weight", key) and _is_kernel(tensor) else tensor
        for key, tensor in renamed.items()
    }


def _is_kernel(tensor: Tensor) -> bool:
    return tensor.ndim == 4 and tensor.shape[2:] == (4, 4)


def _level(match: re.Match[str]) -> int:
    return 0 if match[1] is None else 1 + len(match[1]) // len("3.model.")


def _rule(last: int) -> Rule:
    """Places in the outermost level, in the innermost and in those between."""
    outer, inner = {"0": "down.{}.conv", "3": "up.{}.conv"}, {"1": "down.{}.conv", "3": "up.{}.conv", "4": "up.{}.norm"}
    between = {"1": "down.{}.conv", "2": "down.{}.norm", "5": "up.{}.conv", "6": "up.{}.norm"}

    def name(match: re.Match[str]) -> str:
        level = _level(match)
        places = outer if level == 0 else inner if level == last else between
        return f"{places[match[2]].format(level)}.{match[3]}" if match[2] in places else match[0]

    return _NESTED.pattern, name


SPEC = NetworkSpec(
    name="pix2pix",
    task="translate",
    config=Pix2PixConfig,
    build=Pix2Pix,
    traits=traits,
    detect=keys_like(
        r"(down|up)\.\d+\.(conv|norm)\.\w+",
        anchors=(("down.0.conv.", "down.1.conv."), ("up.0.conv.", "up.1.conv.")),
    ),
    read_config=read_config,
    rename=rename,
    float_parts=lambda config: ("down.0", "up.0"),
    walk=walk,
)
