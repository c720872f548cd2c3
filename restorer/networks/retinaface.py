"""RetinaFace: faces and five landmarks in one pass, over ResNet-50 or a quarter of MobileNet (arXiv:1905.00641).

Letters: A anchors, F channels of the pyramid, L levels of it, each half as wide and high as the one before.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restorer.errors import AmbiguousWeightsError, WeightsError
from restorer.networks.layers import conv_shape, count_blocks, keys_like, without_wrapper
from restorer.networks.spec import Facts, NetworkSpec, StateDict, Traits, at_least_one

Backbone = Literal["resnet50", "mobilenet0.25"]
Form = Literal["original", "small"]
"""original: Pytorch_Retinaface and facexlib. small: Face-Detector-1MB: no leaky slopes, and smaller anchors."""

STRIDES = (8, 16, 32)
"""Input pixels between two places of each level."""
ANCHOR_SIDES: dict[Form, tuple[tuple[int, int], ...]] = {
    "original": ((16, 32), (64, 128), (256, 512)),
    "small": ((10, 20), (32, 64), (128, 256)),
}
"""Sides of the anchors at every place of each level, in input pixels."""
ANCHORS = 2
VARIANCES = (0.1, 0.2)
"""What the regression of places and of sides was divided by in training."""
WIDENINGS = (8, 16, 32)
"""Channels of the levels over those of the backbone's first convolution; the same for both backbones."""
MOBILE_STAGES = (
    ((2, 1), (4, 2), (4, 1), (8, 2), (8, 1)),
    ((16, 2), *((16, 1),) * 5),
    ((32, 2), (32, 1)),
)
"""(channels over the first convolution's, stride) of every pair of convolutions after the first."""


@dataclass(frozen=True, kw_only=True)
class RetinaFaceConfig:
    """Numbers of the larger published network; the smaller has 8 features and 64 of the pyramid."""

    backbone: Backbone = "resnet50"
    features: int = 64
    """Channels of the backbone's first convolution."""
    blocks: tuple[int, int, int, int] = (3, 4, 6, 3)
    """Residual blocks of each stage of a ResNet."""
    pyramid_features: int = 256
    form: Form = "original"

    def __post_init__(self) -> None:
        at_least_one(features=self.features, blocks=min(self.blocks), pyramid_features=self.pyramid_features)
        if self.form not in ANCHOR_SIDES:
            raise ValueError(f"form must be one of {', '.join(ANCHOR_SIDES)}, got {self.form}")
        if self.pyramid_features % 4:
            raise ValueError(f"pyramid_features must be a multiple of 4, got {self.pyramid_features}")

    @property
    def body_slope(self) -> float:
        """Slope below zero inside MobileNet."""
        return 0.1 if self.form == "original" else 0.0

    @property
    def pyramid_slope(self) -> float:
        """Slope below zero after the backbone: only narrow pyramids have one."""
        return 0.1 if self.form == "original" and self.pyramid_features <= 64 else 0.0


def conv_norm(
    in_channels: int, out_channels: int, side: int = 3, *, stride: int = 1, groups: int = 1, slope: float | None = None
) -> list[nn.Module]:
    """Make a convolution that keeps the sides, or divides them by `stride`, its norm, and a leaky ReLU if `slope`."""
    conv = nn.Conv2d(in_channels, out_channels, side, stride=stride, padding=side // 2, groups=groups, bias=False)
    norm = nn.BatchNorm2d(out_channels)
    return [conv, norm] if slope is None else [conv, norm, nn.LeakyReLU(slope, inplace=True)]


class MobileNet(nn.Module):
    """(N, 3, H, W) -> L levels (N, F', h, w): convolutions of one channel each, then across channels."""

    def __init__(self, features: int, slope: float) -> None:
        super().__init__()
        stages: list[list[nn.Module]] = []
        before = features
        for pairs in MOBILE_STAGES:
            stages.append([])
            for widening, stride in pairs:
                after = widening * features
                alone = conv_norm(before, before, stride=stride, groups=before, slope=slope)
                stages[-1].append(nn.Sequential(*alone, *conv_norm(before, after, 1, slope=slope)))
                before = after
        first = nn.Sequential(*conv_norm(3, features, stride=2, slope=slope))
        self.stage1 = nn.Sequential(first, *stages[0])
        self.stage2 = nn.Sequential(*stages[1])
        self.stage3 = nn.Sequential(*stages[2])

    def forward(self, x: Tensor) -> list[Tensor]:
        near = self.stage1(x)  # (N, 8f, H/8, W/8)
        middle = self.stage2(near)
        return [near, middle, self.stage3(middle)]


class Bottleneck(nn.Module):
    """(N, Cin, H, W) -> (N, 4*inner, H/stride, W/stride): fewer channels for the convolution that looks around."""

    def __init__(self, in_channels: int, inner: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv_norm(in_channels, inner, 1)
        self.conv2, self.bn2 = conv_norm(inner, inner, stride=stride)
        self.conv3, self.bn3 = conv_norm(inner, 4 * inner, 1)
        straight = stride == 1 and in_channels == 4 * inner
        self.downsample = None if straight else nn.Sequential(*conv_norm(in_channels, 4 * inner, 1, stride=stride))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)), inplace=True)


class ResNet(nn.Module):
    """(N, 3, H, W) -> L levels (N, F', h, w): four stages of residual blocks, of which the last three are levels."""

    def __init__(self, features: int, blocks: Sequence[int]) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv_norm(3, features, 7, stride=2)
        self.layer1 = _residual_stage(features, features, blocks[0], stride=1)
        self.layer2 = _residual_stage(4 * features, 2 * features, blocks[1], stride=2)
        self.layer3 = _residual_stage(8 * features, 4 * features, blocks[2], stride=2)
        self.layer4 = _residual_stage(16 * features, 8 * features, blocks[3], stride=2)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        near = self.layer2(self.layer1(x))  # (N, 8f, H/8, W/8)
        middle = self.layer3(near)
        return [near, middle, self.layer4(middle)]


def _residual_stage(in_channels: int, inner: int, blocks: int, *, stride: int) -> nn.Sequential:
    rest = (Bottleneck(4 * inner, inner, 1) for _ in range(blocks - 1))
    return nn.Sequential(Bottleneck(in_channels, inner, stride), *rest)


class Pyramid(nn.Module):
    """L levels (N, F', h, w) -> L levels (N, F, h, w): each learns what the coarser one after it saw."""

    def __init__(self, channels: Sequence[int], features: int, slope: float) -> None:
        super().__init__()
        near, middle, far = (nn.Sequential(*conv_norm(each, features, 1, slope=slope)) for each in channels)
        self.output1, self.output2, self.output3 = near, middle, far
        self.merge1 = nn.Sequential(*conv_norm(features, features, slope=slope))
        self.merge2 = nn.Sequential(*conv_norm(features, features, slope=slope))

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        near, middle, far = self.output1(levels[0]), self.output2(levels[1]), self.output3(levels[2])
        middle = self.merge2(middle + F.interpolate(far, size=middle.shape[2:], mode="nearest"))
        near = self.merge1(near + F.interpolate(middle, size=near.shape[2:], mode="nearest"))
        return [near, middle, far]


class Context(nn.Module):
    """(N, F, h, w) -> same: what lies 1, 2 and 3 places around, side by side (SSH, arXiv:1708.03979)."""

    def __init__(self, features: int, slope: float) -> None:
        super().__init__()
        half, quarter = features // 2, features // 4
        self.conv3X3 = nn.Sequential(*conv_norm(features, half))
        self.conv5X5_1 = nn.Sequential(*conv_norm(features, quarter, slope=slope))
        self.conv5X5_2 = nn.Sequential(*conv_norm(quarter, quarter))
        self.conv7X7_2 = nn.Sequential(*conv_norm(quarter, quarter, slope=slope))
        self.conv7x7_3 = nn.Sequential(*conv_norm(quarter, quarter))

    def forward(self, x: Tensor) -> Tensor:
        inner = self.conv5X5_1(x)
        around = [self.conv3X3(x), self.conv5X5_2(inner), self.conv7x7_3(self.conv7X7_2(inner))]
        return F.relu(torch.cat(around, dim=1), inplace=True)


class Head(nn.Module):
    """(N, F, h, w) -> (N, h*w*ANCHORS, values): row by row, place by place, anchor by anchor."""

    def __init__(self, features: int, values: int) -> None:
        super().__init__()
        self.values = values
        self.conv1x1 = nn.Conv2d(features, ANCHORS * values, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv1x1(x).permute(0, 2, 3, 1).reshape(x.shape[0], -1, self.values)


class RetinaFace(nn.Module):
    """(N, 3, H, W) RGB in [0, 1] -> (N, A, 15): of every anchor a score, 4 numbers of its box, 10 of its landmarks."""

    def __init__(self, config: RetinaFaceConfig) -> None:
        super().__init__()
        features, width, slope = config.features, config.pyramid_features, config.pyramid_slope
        self.body: nn.Module = (
            ResNet(features, config.blocks) if config.backbone == "resnet50" else MobileNet(features, config.body_slope)
        )
        self.fpn = Pyramid([widening * features for widening in WIDENINGS], width, slope)
        self.ssh1, self.ssh2, self.ssh3 = (Context(width, slope) for _ in STRIDES)
        self.ClassHead = nn.ModuleList(Head(width, 2) for _ in STRIDES)
        self.BboxHead = nn.ModuleList(Head(width, 4) for _ in STRIDES)
        self.LandmarkHead = nn.ModuleList(Head(width, 10) for _ in STRIDES)

    def forward(self, x: Tensor) -> Tensor:
        levels = self.fpn(self.body(_as_trained(x)))
        levels = [context(level) for context, level in zip((self.ssh1, self.ssh2, self.ssh3), levels, strict=True)]
        classes, boxes, landmarks = (
            torch.cat([head(level) for head, level in zip(heads, levels, strict=True)], dim=1)
            for heads in (self.ClassHead, self.BboxHead, self.LandmarkHead)
        )
        return torch.cat([classes.softmax(dim=-1)[..., 1:], boxes, landmarks], dim=-1)


def _as_trained(x: Tensor) -> Tensor:
    """(N, 3, H, W) RGB in [0, 1] -> BGR in [0, 255] less a mean colour, which is what the published weights know."""
    return torch.cat([x[:, at : at + 1] * 255 - mean for at, mean in ((2, 104), (1, 117), (0, 123))], dim=1)


def anchors(size: tuple[int, int], form: Form) -> Tensor:
    """-> (A, 4): centre x, y, width and height of every anchor, as parts of a picture of (height, width) `size`.

    >>> anchors((8, 16), "original")[2]  # the second place of the first level
    tensor([0.7500, 0.5000, 1.0000, 2.0000])
    """
    height, width = size
    found = []
    for stride, sides in zip(STRIDES, ANCHOR_SIDES[form], strict=True):
        rows, columns = (torch.arange(-(-side // stride), dtype=torch.float64) for side in size)
        y, x, side = torch.meshgrid(
            (rows + 0.5) * stride / height,
            (columns + 0.5) * stride / width,
            torch.tensor(sides, dtype=torch.float64),
            indexing="ij",
        )
        found.append(torch.stack([x, y, side / width, side / height], dim=-1).reshape(-1, 4))
    return torch.cat(found).float()


def decode_boxes(regression: Tensor, anchors: Tensor) -> Tensor:
    """(A, 4), (A, 4) -> (A, 4): left, top, right, bottom, as parts of the picture's sides."""
    place, side = VARIANCES
    centres = anchors[:, :2] + regression[:, :2] * place * anchors[:, 2:]
    half = anchors[:, 2:] * torch.exp(regression[:, 2:] * side) / 2
    return torch.cat([centres - half, centres + half], dim=1)


def decode_landmarks(regression: Tensor, anchors: Tensor) -> Tensor:
    """(A, 10), (A, 4) -> (A, 5, 2): x and y of every landmark, as parts of the picture's sides."""
    offsets = regression.reshape(-1, 5, 2) * VARIANCES[0]
    return anchors[:, None, :2] + offsets * anchors[:, None, 2:]


def traits(config: RetinaFaceConfig) -> Traits:
    """No radius: answers about anchors are not put together from tiles. Memory peaks in the backbone's first stage."""
    return Traits(
        radius=None,
        makes_pictures=False,
        overlap=0,
        values_per_pixel=6 + config.features,
        operations=_operations(config),
        precisions=frozenset({"fp32"}),
    )


def _operations(config: RetinaFaceConfig) -> float:
    """Multiplications per input pixel."""
    f, width = config.features, config.pyramid_features
    total = _resnet_operations(config) if config.backbone == "resnet50" else _mobile_operations(f)
    context = 9 * (width * width * 3 // 4 + 3 * (width // 4) ** 2)
    for widening, stride in zip(WIDENINGS, STRIDES, strict=True):
        merge = 0 if stride == STRIDES[-1] else 9 * width**2
        total += (widening * f * width + merge + context + 16 * ANCHORS * width) / stride**2
    return total


def _mobile_operations(features: int) -> float:
    total, before, stride = 9 * 3 * features / 4, features, 2
    for widening, step in (pair for pairs in MOBILE_STAGES for pair in pairs):
        stride, after = stride * step, widening * features
        total += (9 * before + before * after) / stride**2
        before = after
    return total


def _resnet_operations(config: RetinaFaceConfig) -> float:
    total, before, stride = 49 * 3 * config.features / 4, config.features, 4
    for stage, blocks in enumerate(config.blocks):
        inner, step = config.features * 2**stage, 1 if stage == 0 else 2
        for block in range(blocks):
            total += before * inner / stride**2
            stride *= step if block == 0 else 1
            total += (13 * inner**2 + (4 * before * inner if block == 0 else 0)) / stride**2
            before = 4 * inner
    return total


def read_config(weights: StateDict, facts: Facts) -> RetinaFaceConfig:
    """Recover the config from keys and shapes; the form of a MobileNet must be told."""
    width = conv_shape(weights, "fpn.output1.0.weight")[0]
    if any(key.startswith("body.layer1.") for key in weights):
        stages = [count_blocks(weights, f"body.layer{stage}.") for stage in (1, 2, 3, 4)]
        return RetinaFaceConfig(
            backbone="resnet50",
            features=conv_shape(weights, "body.conv1.weight")[0],
            blocks=(stages[0], stages[1], stages[2], stages[3]),
            pyramid_features=width,
            form=_told_form(facts) or "original",
        )
    form = _told_form(facts)
    if form is None:
        raise AmbiguousWeightsError(
            "these retinaface weights do not say which form they were trained in; "
            "give --fact form=original (facexlib) or --fact form=small (Face-Detector-1MB)"
        )
    features = conv_shape(weights, "body.stage1.0.0.weight")[0]
    return RetinaFaceConfig(backbone="mobilenet0.25", features=features, pyramid_features=width, form=form)


def _told_form(facts: Facts) -> Form | None:
    told = facts.get("form")
    if told is None:
        return None
    for form in ANCHOR_SIDES:
        if told == form:
            return form
    raise WeightsError(f"form={told} is no form of retinaface; give --fact form=original or --fact form=small")


def rename(weights: StateDict, facts: Facts) -> StateDict:
    """Take off what a wrapper for several devices put before every key."""
    return without_wrapper(weights)


SPEC = NetworkSpec(
    name="retinaface",
    task="detect",
    config=RetinaFaceConfig,
    build=RetinaFace,
    traits=traits,
    detect=keys_like(
        r"body\.(conv1|bn1|layer[1-4]\.\d+\.((conv|bn)[123]|downsample\.[01])|stage[123]\.\d+\.[0134])\.\w+"
        r"|fpn\.(output[123]|merge[12])\.[01]\.\w+|ssh[123]\.conv(3X3|5X5_[12]|7X7_2|7x7_3)\.[01]\.\w+"
        r"|(Class|Bbox|Landmark)Head\.[012]\.conv1x1\.(weight|bias)",
        anchors=("body.", "fpn.output1.", "ssh1.", "ClassHead.0.", "BboxHead.0.", "LandmarkHead.0."),
    ),
    read_config=read_config,
    rename=rename,
)
