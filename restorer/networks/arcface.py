"""ArcFace's ResNet-18: whose face it is, as a direction in space (arXiv:1801.07698); what GFPGAN learns identity from.

Letters: N batch, C channels, h w sides of a level, D numbers of an embedding.
"""

import math
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from restorer.networks.layers import PReLU, conv_shape, count_blocks, keys_like, linear_shape, without_wrapper
from restorer.networks.spec import Facts, NetworkSpec, StateDict, Traits, at_least_one

LUMA = (0.2989, 0.5870, 0.1140)
"""Parts of red, green and blue in the grey that it was trained on."""
SHRINK = 16
"""Input side over the side of the last level."""


@dataclass(frozen=True, kw_only=True)
class ArcFaceConfig:
    """Numbers of the published network."""

    side: int = 128
    """The only side of a face that it takes."""
    features: int = 64
    """Channels of the first stage; each later one has twice as many."""
    blocks: tuple[int, int, int, int] = (2, 2, 2, 2)
    """Residual blocks of each stage."""
    embedding: int = 512

    def __post_init__(self) -> None:
        at_least_one(features=self.features, blocks=min(self.blocks), embedding=self.embedding)
        if self.side < SHRINK or self.side % SHRINK:
            raise ValueError(f"side must be a multiple of {SHRINK}, got {self.side}")


class ResidualBlock(nn.Module):
    """(N, Cin, h, w) -> (N, Cout, h/stride, w/stride): "IR", with a norm before the first convolution."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.bn0 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, in_channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.prelu = PReLU()  # of both places
        self.conv2 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        straight = stride == 1 and in_channels == out_channels
        self.downsample = None if straight else _shortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.prelu(self.bn1(self.conv1(self.bn0(x))))
        y = self.bn2(self.conv2(y))
        return self.prelu(y + (x if self.downsample is None else self.downsample(x)))


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels))


class ArcFace(nn.Module):
    """(N, 1, side, side) grey in [-1, 1] -> (N, D); without the dropout of its own training."""

    def __init__(self, config: ArcFaceConfig) -> None:
        super().__init__()
        features, last = config.features, 8 * config.features
        self.conv1 = nn.Conv2d(1, features, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(features)
        self.prelu = PReLU()
        self.layer1 = _stage(features, features, config.blocks[0], stride=1)
        self.layer2 = _stage(features, 2 * features, config.blocks[1], stride=2)
        self.layer3 = _stage(2 * features, 4 * features, config.blocks[2], stride=2)
        self.layer4 = _stage(4 * features, last, config.blocks[3], stride=2)
        self.bn4 = nn.BatchNorm2d(last)
        self.fc5 = nn.Linear(last * (config.side // SHRINK) ** 2, config.embedding)
        self.bn5 = nn.BatchNorm1d(config.embedding)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.prelu(self.bn1(self.conv1(x))), 2)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))  # (N, 8*features, side/16, side/16)
        return self.bn5(self.fc5(self.bn4(x).flatten(1)))


def _stage(in_channels: int, out_channels: int, blocks: int, *, stride: int) -> nn.Sequential:
    rest = (ResidualBlock(out_channels, out_channels, 1) for _ in range(blocks - 1))
    return nn.Sequential(ResidualBlock(in_channels, out_channels, stride), *rest)


def as_grey(x: Tensor, side: int = 128) -> Tensor:
    """(N, 3, H, W) RGB in any range -> (N, 1, side, side) in the same: aligned faces as GFPGAN shows them to it."""
    red, green, blue = x.split(1, dim=1)
    grey = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
    return F.interpolate(grey, size=(side, side), mode="bilinear", align_corners=False)


def likeness(a: Tensor, b: Tensor) -> Tensor:
    """(N, D), (N, D) -> (N,) in [-1, 1]: the cosine between embeddings; 1 is the same person.

    >>> likeness(Tensor([[3, 4]]), Tensor([[4, 3]]))
    tensor([0.9600])
    """
    return F.cosine_similarity(a, b, dim=1)


def traits(config: ArcFaceConfig) -> Traits:
    """A face as a whole, at one size."""
    return Traits(
        in_channels=1,
        fixed_size=(config.side, config.side),
        min_side=config.side,
        radius=None,
        makes_pictures=False,
        overlap=0,
        values_per_pixel=2 * config.features + 4,
        operations=_operations(config),
        precisions=frozenset({"fp32"}),
        value_range=(-1.0, 1.0),
    )


def _operations(config: ArcFaceConfig) -> float:
    """Multiplications per input pixel."""
    total, before = 9.0 * config.features, config.features
    for stage, blocks in enumerate(config.blocks):
        after, fine, coarse = config.features * 2**stage, 4 ** max(stage, 1), 4 ** (stage + 1)
        shortcut = 0 if stage == 0 else before * after
        total += 9 * before**2 / fine + (9 * before * after + shortcut + 18 * (blocks - 1) * after**2) / coarse
        before = after
    return total + 8 * config.features * config.embedding / SHRINK**2


def read_config(weights: StateDict, facts: Facts) -> ArcFaceConfig:
    """Recover the config from shapes; the matrix at the end says the side."""
    features = conv_shape(weights, "conv1.weight")[0]
    embedding, flat = linear_shape(weights, "fc5.weight")
    stages = [count_blocks(weights, f"layer{stage}.") for stage in (1, 2, 3, 4)]
    return ArcFaceConfig(
        side=SHRINK * math.isqrt(flat // (8 * features)),
        features=features,
        blocks=(stages[0], stages[1], stages[2], stages[3]),
        embedding=embedding,
    )


def rename(weights: StateDict, facts: Facts) -> StateDict:
    """Take off what a wrapper for several devices put before every key."""
    return without_wrapper(weights)


SPEC = NetworkSpec(
    name="arcface",
    task="identity",
    config=ArcFaceConfig,
    build=ArcFace,
    traits=traits,
    detect=keys_like(
        r"(conv1|bn[145]|prelu|fc5)\.\w+|layer[1-4]\.\d+\.(bn[012]|conv[12]|prelu|downsample\.[01])\.\w+",
        anchors=("bn1.", "layer1.0.bn0.", "layer4.0.", "bn4.", "fc5.", "bn5."),
    ),
    read_config=read_config,
    rename=rename,
)
