"""MTCNN: three small networks, each of which judges and mends the boxes of the one before (arXiv:1604.02878)."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restorer.networks.layers import Rule, keys_like, rename_keys
from restorer.networks.spec import Facts, NetworkSpec, StateDict, Traits

Stage = Literal["p", "r", "o"]
"""Proposals over the whole picture, refined proposals, the output with its landmarks."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What tells the three networks apart."""

    side: int
    """Of the square that one answer sees."""
    convs: tuple[tuple[int, int], ...]
    """(channels, side) of every convolution."""
    pools: tuple[int, ...]
    """Side of the pooling after each convolution; 0 is none."""
    dense: tuple[int, int] | None = None
    """(in, out) of the layer across all places; None for a network that slides over the picture."""
    landmarks: bool = False


LAYOUTS: dict[Stage, Layout] = {
    "p": Layout(side=12, convs=((10, 3), (16, 3), (32, 3)), pools=(2, 0, 0)),
    "r": Layout(side=24, convs=((28, 3), (48, 3), (64, 2)), pools=(3, 3, 0), dense=(576, 128)),
    "o": Layout(
        side=48,
        convs=((32, 3), (64, 3), (64, 3), (128, 2)),
        pools=(3, 3, 2, 0),
        dense=(1152, 256),
        landmarks=True,
    ),
}


@dataclass(frozen=True, kw_only=True)
class MTCNNConfig:
    """Which of the three networks; each has one size."""

    stage: Stage = "p"

    def __post_init__(self) -> None:
        if self.stage not in LAYOUTS:
            raise ValueError(f"stage must be one of {', '.join(LAYOUTS)}, got {self.stage}")


class MTCNN(nn.Module):
    """(N, 3, H, W) in [0, 1] -> (N, 5, h, w) for "p", (N, 5) for "r", (N, 15) for "o".

    First the score, then how far left, top, right and bottom lie from those of the square seen, in parts of its side;
    "o" adds x of the five landmarks and y of them, from the square's left and top.
    """

    def __init__(self, config: MTCNNConfig) -> None:
        super().__init__()
        layout = LAYOUTS[config.stage]
        channels = [3, *(channels for channels, _ in layout.convs)]
        self.pools = layout.pools
        self.convs = nn.ModuleList(
            nn.Conv2d(before, after, side) for before, (after, side) in zip(channels, layout.convs, strict=False)
        )
        slopes = [*channels[1:], *(layout.dense or ())[1:]]
        self.slopes = nn.ModuleList(nn.PReLU(each) for each in slopes)
        self.dense = None if layout.dense is None else nn.Linear(*layout.dense)
        self.score = _answer(slopes[-1], 2, sliding=layout.dense is None)
        self.box = _answer(slopes[-1], 4, sliding=layout.dense is None)
        self.points = _answer(slopes[-1], 10, sliding=False) if layout.landmarks else None

    def forward(self, x: Tensor) -> Tensor:
        x = x * (255 / 128) - 127.5 / 128
        for conv, slope, pool in zip(self.convs, self.slopes, self.pools, strict=False):
            x = slope(conv(x))
            x = F.max_pool2d(x, pool, stride=2, ceil_mode=True) if pool else x
        if self.dense is not None:
            x = self.slopes[-1](self.dense(x.permute(0, 3, 2, 1).flatten(1)))  # columns before rows, as in Caffe
        answers = [self.score(x).softmax(dim=1)[:, 1:], self.box(x)]
        return torch.cat(answers if self.points is None else [*answers, self.points(x)], dim=1)


def _answer(channels: int, values: int, *, sliding: bool) -> nn.Module:
    return nn.Conv2d(channels, values, 1) if sliding else nn.Linear(channels, values)


def traits(config: MTCNNConfig) -> Traits:
    """Only the first network takes pictures of any size; of the others, most of what is held is the widest layer."""
    layout = LAYOUTS[config.stage]
    side, (inner, out) = layout.side, layout.dense or (0, 0)
    return Traits(
        min_side=side - 1 if layout.dense is None else side,  # its pooling rounds up
        fixed_size=None if layout.dense is None else (side, side),
        radius=None,
        makes_pictures=False,
        overlap=0,
        values_per_pixel=max(3 + 2 * layout.convs[0][0], inner * out // side**2 + 4),
        operations=_operations(layout),
        precisions=frozenset({"fp32"}),
    )


def _operations(layout: Layout) -> float:
    """Multiplications per input pixel; of the sliding network, in a large picture."""
    if layout.dense is None:
        first, second, third = layout.convs
        rest = 9 * (first[0] * second[0] + second[0] * third[0]) + 6 * third[0]
        return 27 * first[0] + rest / 4
    total, before, here = 0, 3, layout.side
    for (after, side), pool in zip(layout.convs, layout.pools, strict=True):
        here -= side - 1
        total += before * after * side**2 * here**2
        before = after
        here = -(-(here - pool) // 2) + 1 if pool else here
    inner, out = layout.dense
    return (total + inner * out + out * (16 if layout.landmarks else 6)) / layout.side**2


def read_config(weights: StateDict, facts: Facts) -> MTCNNConfig:
    """Only the last network has landmarks, and only the first none that look at all places."""
    if any(key.startswith("points.") for key in weights):
        return MTCNNConfig(stage="o")
    return MTCNNConfig(stage="r" if any(key.startswith("dense.") for key in weights) else "p")


_PUBLISHED: tuple[Rule, ...] = (
    (r"conv([1-4])\.(\w+)", lambda m: f"convs.{int(m[1]) - 1}.{m[2]}"),
    (r"prelu([1-5])\.(\w+)", lambda m: f"slopes.{int(m[1]) - 1}.{m[2]}"),
    (r"dense[45]\.(\w+)", r"dense.\1"),
    (r"(?:conv4|dense[56])_1\.(\w+)", r"score.\1"),
    (r"(?:conv4|dense[56])_2\.(\w+)", r"box.\1"),
    (r"dense6_3\.(\w+)", r"points.\1"),
)


def rename(weights: StateDict, facts: Facts) -> StateDict:
    """Bring the names of facenet-pytorch to those above."""
    ends = ("conv4_1.", "conv4_2.", "dense5_1.", "dense5_2.", "dense6_1.", "dense6_2.")
    if any(key.startswith("prelu1.") for key in weights) and any(key.startswith(ends) for key in weights):
        return rename_keys(weights, _PUBLISHED)
    return weights


SPEC = NetworkSpec(
    name="mtcnn",
    task="detect",
    config=MTCNNConfig,
    build=MTCNN,
    traits=traits,
    detect=keys_like(
        r"convs\.\d\.(weight|bias)|slopes\.\d\.weight|(dense|score|box|points)\.(weight|bias)",
        anchors=("convs.0.", "slopes.", "score.", "box."),
    ),
    read_config=read_config,
    rename=rename,
)
