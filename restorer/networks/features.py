"""Frozen networks that were trained to recognise things; losses and metrics look at pictures through their layers.

They are chains of steps, cut after the last layer that somebody looks at.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restorer.errors import WeightsError, unknown_name
from restorer.networks.spec import StateDict, listed

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A network that can be looked through."""

    build: Callable[[], nn.Sequential]
    """-> its steps, with random weights."""
    layers: Mapping[str, int]
    """Name of a layer -> the step that it is the answer of."""
    prefix: str
    """What published weights put before a step's number; all else in them belongs to the classifier."""
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    """(x - mean) / std of RGB in [0, 1] is what the network takes."""
    rename: Callable[[StateDict], StateDict] = lambda weights: weights
    """Published names -> prefix and number of the step."""


class Features(nn.Module):
    """(N, 3, H, W) or (N, 1, H, W) in [0, 1] -> {layer: (N, C, h, w)}; frozen, and in no checkpoint of what uses it."""

    def __init__(self, name: str, layers: Iterable[str], weights: StateDict | None = None) -> None:
        """Weights in the published form; None for random ones."""
        super().__init__()
        backbone = get_backbone(name)
        self.layers = {layer: _index(name, backbone, layer) for layer in layers}
        steps = list(backbone.build())[: max(self.layers.values()) + 1]
        for index in self.layers.values():
            after = steps[index + 1] if index + 1 < len(steps) else None
            if isinstance(after, nn.ReLU):
                after.inplace = False  # what a layer gave must stay what it was
        self.steps = nn.Sequential(*steps)
        if weights is not None:
            self.steps.load_state_dict(_chosen(name, backbone, weights, self.steps.state_dict()))
        self.mean, self.std = (torch.tensor(each).view(1, -1, 1, 1) for each in (backbone.mean, backbone.std))
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = (x.expand(-1, 3, -1, -1) - self.mean.to(x)) / self.std.to(x)
        wanted = {index: layer for layer, index in self.layers.items()}
        seen = {}
        for index, step in enumerate(self.steps):
            y = step(y)
            if index in wanted:
                seen[wanted[index]] = y
        return seen

    def train(self, mode: bool = True) -> "Features":
        """Stays in evaluation mode, whatever the network around it does."""
        return super().train(False)

    def state_dict(self, *args: object, **kwargs: object) -> dict[str, Tensor]:  # type: ignore[override]
        """Nothing: what never changes is not saved with what does."""
        return {}


def get_backbone(name: str) -> Backbone:
    """Find a network of `BACKBONES`."""
    if name not in BACKBONES:
        raise unknown_name("feature network", name, BACKBONES)
    return BACKBONES[name]


def _index(name: str, backbone: Backbone, layer: str) -> int:
    if layer not in backbone.layers:
        raise unknown_name(f"layer of {name}", layer, backbone.layers)
    return backbone.layers[layer]


def _chosen(name: str, backbone: Backbone, weights: StateDict, expected: StateDict) -> dict[str, Tensor]:
    """The tensors of the steps that are there, by their names in `nn.Sequential`."""
    renamed = backbone.rename(weights)
    found = {key: renamed[backbone.prefix + key] for key in expected if backbone.prefix + key in renamed}
    wrong = [key for key in expected if key not in found or found[key].shape != expected[key].shape]
    if wrong:
        raise WeightsError(f"these are not the weights of {name} ({listed(wrong)} missing or of another shape)")
    return {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in found.items()}


def _torchvision(name: str) -> nn.Sequential:
    from torchvision import models

    build = {
        "vgg16": models.vgg16,
        "vgg19": models.vgg19,
        "alexnet": models.alexnet,
        "squeezenet1_1": models.squeezenet1_1,
        "mobilenet_v2": models.mobilenet_v2,
    }[name]
    return build(weights=None).features


class SameConv(nn.Conv2d):
    """(N, Cin, H, W) -> (N, Cout, ceil(H / s), ceil(W / s)): padded as TensorFlow does, odd pixels at the end."""

    def forward(self, x: Tensor) -> Tensor:
        pads: list[int] = []
        for axis in (1, 0):
            side, stride, kernel = x.shape[2 + axis], self.stride[axis], self.kernel_size[axis]
            total = max(0, (math.ceil(side / stride) - 1) * stride + kernel - side)
            pads += [total // 2, total - total // 2]
        return super().forward(F.pad(x, pads))


class InvertedResidual(nn.Sequential):
    """(N, Cin, H, W) -> (N, Cout, H / s, W / s): widen, filter each channel, narrow; plus the input where it fits."""

    def __init__(self, channels: tuple[int, int], *, widen: int, side: int, stride: int) -> None:
        into, out = channels
        wide = into * widen
        first = [] if widen == 1 else [SameConv(into, wide, 1, bias=False), _norm(wide), nn.ReLU6(inplace=True)]
        middle = [SameConv(wide, wide, side, stride, groups=wide, bias=False), _norm(wide), nn.ReLU6(inplace=True)]
        super().__init__(*first, *middle, SameConv(wide, out, 1, bias=False), _norm(out))
        self.adds = stride == 1 and into == out

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
        return x + y if self.adds else y


_LITE0 = ((1, 1, 3, 1, 16), (2, 6, 3, 2, 24), (2, 6, 5, 2, 40), (3, 6, 3, 2, 80), (3, 6, 5, 1, 112), (4, 6, 5, 2, 192),
          (1, 6, 3, 1, 320))  # fmt: skip
"""(blocks, widening, kernel side, first stride, channels) of each stage; EfficientNet-B0 without squeeze-excitation."""
_LITE0_PARTS = {"_expand_conv": 0, "_bn0": 1, "_depthwise_conv": 3, "_bn1": 4, "_project_conv": 6, "_bn2": 7}


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


def _lite0() -> nn.Sequential:
    stem = nn.Sequential(SameConv(3, 32, 3, 2, bias=False), _norm(32), nn.ReLU6(inplace=True))
    steps: list[nn.Module] = [stem]
    into = 32
    for blocks, widen, side, stride, out in _LITE0:
        for number in range(blocks):
            first = number == 0
            steps.append(InvertedResidual((into, out), widen=widen, side=side, stride=stride if first else 1))
            into = out
    return nn.Sequential(*steps)


def _rename_lite0(weights: StateDict) -> StateDict:
    """_conv_stem, _bn0, _blocks.K._expand_conv ... -> steps."""
    renamed = {}
    for key, tensor in weights.items():
        head, _, rest = key.partition(".")
        if head in ("_conv_stem", "_bn0"):
            renamed[f"0.{0 if head == '_conv_stem' else 1}.{rest}"] = tensor
        block, _, inner = rest.partition(".")
        part, _, name = inner.partition(".")
        if head == "_blocks" and (part not in _LITE0_PARTS or not block.isdecimal()):
            raise WeightsError(f"these are not the weights of efficientnet_lite0 ({key!a} has no place in it)")
        if head == "_blocks":
            place = _LITE0_PARTS[part] - (3 if block == "0" else 0)  # the first block does not widen
            renamed[f"{int(block) + 1}.{place}.{name}"] = tensor
    return renamed


_VGG19 = {
    "1_1": 0, "1_2": 2, "2_1": 5, "2_2": 7, "3_1": 10, "3_2": 12, "3_3": 14, "3_4": 16,
    "4_1": 19, "4_2": 21, "4_3": 23, "4_4": 25, "5_1": 28, "5_2": 30, "5_3": 32, "5_4": 34,
}  # fmt: skip
_VGG16 = {
    "1_1": 0, "1_2": 2, "2_1": 5, "2_2": 7, "3_1": 10, "3_2": 12, "3_3": 14, "4_1": 17, "4_2": 19, "4_3": 21,
    "5_1": 24, "5_2": 26, "5_3": 28,
}  # fmt: skip
"""Block and convolution, as the field numbers them -> torchvision's step; the step after it is the ReLU."""

BACKBONES: dict[str, Backbone] = {
    "vgg19": Backbone(
        build=lambda: _torchvision("vgg19"),
        layers={**{f"conv{n}": _VGG19[n] for n in _VGG19}, **{f"relu{n}": _VGG19[n] + 1 for n in _VGG19}},
        prefix="features.",
    ),
    "vgg16": Backbone(
        build=lambda: _torchvision("vgg16"),
        layers={**{f"conv{n}": _VGG16[n] for n in _VGG16}, **{f"relu{n}": _VGG16[n] + 1 for n in _VGG16}},
        prefix="features.",
    ),
    "alexnet": Backbone(
        build=lambda: _torchvision("alexnet"),
        layers={"relu1": 1, "relu2": 4, "relu3": 7, "relu4": 9, "relu5": 11},
        prefix="features.",
    ),
    "squeezenet1_1": Backbone(
        build=lambda: _torchvision("squeezenet1_1"),
        layers={"relu1": 1, "fire3": 4, "fire5": 7, "fire6": 9, "fire7": 10, "fire8": 11, "fire9": 12},
        prefix="features.",
    ),
    "mobilenet_v2": Backbone(
        build=lambda: _torchvision("mobilenet_v2"),
        layers={"stem": 0, **{f"block{number}": number for number in range(1, 18)}},
        prefix="features.",
    ),
    "efficientnet_lite0": Backbone(
        build=_lite0,
        layers={"stem": 0, **{f"block{number}": number for number in range(1, 17)}},
        prefix="",
        mean=(127 / 255,) * 3,
        std=(128 / 255,) * 3,
        rename=_rename_lite0,
    ),
}
"""Feature networks. All but the last are torchvision's; that one has a package of weights on the index."""
