"""BiSeNet for faces: what each pixel belongs to, over ResNet-18 and the picture as a whole (arXiv:1808.00897).

Letters: N batch, C channels, H W sides of the picture, h w sides of a level, F channels of the first level, K classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restorer.networks.layers import conv_shape, count_blocks, keys_like, without_wrapper
from restorer.networks.spec import Facts, NetworkSpec, StateDict, Traits, at_least_one

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's red, green and blue in [0, 1]."""
CLASSES: Mapping[str, int] = {
    "background": 0, "skin": 1, "left_brow": 2, "right_brow": 3, "left_eye": 4, "right_eye": 5, "glasses": 6,
    "left_ear": 7, "right_ear": 8, "earring": 9, "nose": 10, "mouth": 11, "upper_lip": 12, "lower_lip": 13, "neck": 14,
    "necklace": 15, "cloth": 16, "hair": 17, "hat": 18,
}  # fmt: skip
"""What the classes of the published weights are: those of CelebAMask-HQ, in the order of face-parsing.PyTorch."""


@dataclass(frozen=True, kw_only=True)
class BiSeNetConfig:
    """Numbers of the published network."""

    features: int = 64
    """Channels of the backbone's first stage; all other widths are multiples of it."""
    blocks: tuple[int, int, int, int] = (2, 2, 2, 2)
    """Residual blocks of each stage of the backbone."""

    def __post_init__(self) -> None:
        at_least_one(features=self.features, blocks=min(self.blocks))


class ConvNorm(nn.Module):
    """(N, Cin, h, w) -> (N, Cout, h, w): convolution, norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, side: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, side, padding=side // 2, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


class ResidualBlock(nn.Module):
    """(N, Cin, h, w) -> (N, Cout, h/stride, w/stride)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        straight = stride == 1 and in_channels == out_channels
        self.downsample = None if straight else _shortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)), inplace=True)


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels))


class ResNet(nn.Module):
    """(N, 3, H, W) -> levels (N, 2F, H/8, W/8), (N, 4F, H/16, W/16), (N, 8F, H/32, W/32)."""

    def __init__(self, features: int, blocks: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, features, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(features)
        self.layer1 = _stage(features, features, blocks[0], stride=1)
        self.layer2 = _stage(features, 2 * features, blocks[1], stride=2)
        self.layer3 = _stage(2 * features, 4 * features, blocks[2], stride=2)
        self.layer4 = _stage(4 * features, 8 * features, blocks[3], stride=2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        near = self.layer2(self.layer1(x))
        middle = self.layer3(near)
        return near, middle, self.layer4(middle)


def _stage(in_channels: int, out_channels: int, blocks: int, *, stride: int) -> nn.Sequential:
    rest = (ResidualBlock(out_channels, out_channels, 1) for _ in range(blocks - 1))
    return nn.Sequential(ResidualBlock(in_channels, out_channels, stride), *rest)


class Attention(nn.Module):
    """(N, Cin, h, w) -> (N, Cout, h, w): each channel counts as much as the whole picture says."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = ConvNorm(in_channels, out_channels)
        self.conv_atten = nn.Conv2d(out_channels, out_channels, 1, bias=False)
        self.bn_atten = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return y * torch.sigmoid(self.bn_atten(self.conv_atten(_average(y))))


class ContextPath(nn.Module):
    """(N, 3, H, W) -> (N, 2F, H/8, W/8) of the backbone, and same of what lies around, down to the whole picture."""

    def __init__(self, config: BiSeNetConfig) -> None:
        super().__init__()
        features = config.features
        self.resnet = ResNet(features, config.blocks)
        self.arm16 = Attention(4 * features, 2 * features)
        self.arm32 = Attention(8 * features, 2 * features)
        self.conv_head32 = ConvNorm(2 * features, 2 * features)
        self.conv_head16 = ConvNorm(2 * features, 2 * features)
        self.conv_avg = ConvNorm(8 * features, 2 * features, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        near, middle, far = self.resnet(x)
        around = self.arm32(far) + self.conv_avg(_average(far))  # (N, 2F, H/32, W/32)
        around = self.conv_head32(F.interpolate(around, size=middle.shape[2:], mode="nearest"))
        around = self.arm16(middle) + around
        return near, self.conv_head16(F.interpolate(around, size=near.shape[2:], mode="nearest"))


class Fusion(nn.Module):
    """(N, Cin, h, w) -> (N, C, h, w): all channels mixed, then strengthened as the whole picture says."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.convblk = ConvNorm(in_channels, channels, 1)
        self.conv1 = nn.Conv2d(channels, channels // 4, 1, bias=False)
        self.conv2 = nn.Conv2d(channels // 4, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.convblk(x)
        return y + y * torch.sigmoid(self.conv2(F.relu(self.conv1(_average(y)), inplace=True)))


class Head(nn.Module):
    """(N, C, h, w) -> (N, K, h, w)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = ConvNorm(channels, channels)
        self.conv_out = nn.Conv2d(channels, len(CLASSES), 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_out(self.conv(x))


class BiSeNet(nn.Module):
    """(N, 3, H, W) RGB in [0, 1] -> (N, K, H, W): how much each pixel looks like each class."""

    def __init__(self, config: BiSeNetConfig) -> None:
        super().__init__()
        self.cp = ContextPath(config)
        self.ffm = Fusion(4 * config.features, 4 * config.features)
        self.conv_out = Head(4 * config.features)

    def forward(self, x: Tensor) -> Tensor:
        near, around = self.cp(_as_trained(x))
        y = self.conv_out(self.ffm(torch.cat([near, around], dim=1)))  # (N, K, H/8, W/8)
        return F.interpolate(y, size=x.shape[2:], mode="bilinear", align_corners=True)


def _as_trained(x: Tensor) -> Tensor:
    """(N, 3, H, W) in [0, 1] -> same, with ImageNet's mean and deviation taken out."""
    channels = enumerate(zip(MEAN, STD, strict=True))
    return torch.cat([(x[:, at : at + 1] - mean) / std for at, (mean, std) in channels], dim=1)


def _average(x: Tensor) -> Tensor:
    """(N, C, h, w) -> (N, C, 1, 1)."""
    return x.mean(dim=(2, 3), keepdim=True)


def traits(config: BiSeNetConfig) -> Traits:
    """No radius: the whole picture weighs the channels. Memory peaks at the backbone's first layer, or at the end."""
    return Traits(
        radius=None,
        makes_pictures=False,
        out_channels=len(CLASSES),
        overlap=0,
        values_per_pixel=max(4 + config.features // 2, 3 + len(CLASSES)),
        operations=_operations(config),
        precisions=frozenset({"fp32"}),
    )


def _operations(config: BiSeNetConfig) -> float:
    """Multiplications per input pixel, without those on averages, which are few."""
    f = config.features
    total, before = 49 * 3 * f / 4, f
    for stage, blocks in enumerate(config.blocks):
        width = f * 2**stage
        shortcut = 0 if stage == 0 else before * width
        total += (9 * before * width + shortcut + 9 * (2 * blocks - 1) * width**2) / 16 / 4**stage
        before = width
    middle = 9 * (4 * f + 2 * f) * 2 * f / 256
    near = (9 * 4 * f**2 + 16 * f**2 + 9 * 16 * f**2 + 4 * f * len(CLASSES)) / 64
    return total + 9 * 16 * f**2 / 1024 + middle + near


def read_config(weights: StateDict, facts: Facts) -> BiSeNetConfig:
    """Recover the config from shapes."""
    stages = [count_blocks(weights, f"cp.resnet.layer{stage}.") for stage in (1, 2, 3, 4)]
    return BiSeNetConfig(
        features=conv_shape(weights, "cp.resnet.conv1.weight")[0],
        blocks=(stages[0], stages[1], stages[2], stages[3]),
    )


def rename(weights: StateDict, facts: Facts) -> StateDict:
    """Leave out the two heads of training, and what a wrapper for several devices put before every key."""
    weights = without_wrapper(weights)
    if not any(key.startswith("cp.resnet.") for key in weights):
        return weights
    return {key: tensor for key, tensor in weights.items() if not key.startswith(("conv_out16.", "conv_out32."))}


SPEC = NetworkSpec(
    name="bisenet",
    task="parse",
    config=BiSeNetConfig,
    build=BiSeNet,
    traits=traits,
    detect=keys_like(
        r"cp\.resnet\.(conv1|bn1|layer[1-4]\.\d+\.((conv|bn)[12]|downsample\.[01]))\.\w+"
        r"|cp\.(arm(16|32)\.conv|conv_(head16|head32|avg))\.(conv|bn)\.\w+|cp\.arm(16|32)\.(conv|bn)_atten\.\w+"
        r"|ffm\.(convblk\.(conv|bn)|conv[12])\.\w+|conv_out\.(conv\.(conv|bn)|conv_out)\.\w+",
        anchors=("cp.resnet.layer1.0.", "cp.arm16.", "cp.arm32.", "ffm.", "conv_out."),
    ),
    read_config=read_config,
    rename=rename,
)
