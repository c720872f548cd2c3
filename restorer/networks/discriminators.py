"""Discriminators: they look at a picture and answer with logits, high for real. All take [0, 1].

Letters: N batch, C channels, H W sides of the picture, F features of the first layer.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from restorer.networks.layers import leaky, rename_keys
from restorer.networks.patch_discriminators import (
    MultiscaleDiscriminator,
    MultiscaleDiscriminatorConfig,
    PatchDiscriminator,
    PatchDiscriminatorConfig,
    PixelDiscriminator,
    PixelDiscriminatorConfig,
    rename_patch_discriminator,
)
from restorer.networks.spec import StateDict, at_least_one
from restorer.networks.style_discriminator import (
    StyleDiscriminator,
    StyleDiscriminatorConfig,
    rename_style_discriminator,
)

_PUBLISHED = (
    (r"(.*)\.weight_orig", r"\1.parametrizations.weight.original"),
    (r"(.*)\.weight_u", r"\1.parametrizations.weight.0._u"),
    (r"(.*)\.weight_v", r"\1.parametrizations.weight.0._v"),
    (r"((?:conv|bn)\d_\d\..*)", r"body.\1"),
)


@dataclass(frozen=True, kw_only=True)
class VGGDiscriminatorConfig:
    """Numbers of ESRGAN; SRGAN has side 96, hidden 1024, 4 halvings by kernels of side 3."""

    kind: Literal["vgg"] = "vgg"
    side: int = 128
    """The only side of a picture that it takes."""
    channels: int = 3
    features: int = 64
    hidden: int = 100
    """Width of the layer before the last."""
    halvings: int = 5
    kernel: int = 4
    """Side of the kernels that halve: 3 or 4."""

    def __post_init__(self) -> None:
        at_least_one(channels=self.channels, features=self.features, hidden=self.hidden, halvings=self.halvings)
        if self.side % 2**self.halvings or self.side < 2**self.halvings:
            raise ValueError(f"side must be a multiple of {2**self.halvings}, got {self.side}")
        if self.kernel not in (3, 4):
            raise ValueError(f"kernel must be 3 or 4, got {self.kernel}")


class VGGDiscriminator(nn.Module):
    """(N, C, side, side) in [0, 1] -> (N, 1): pairs of convolutions, the second one halving, then two linear layers.

    SRGAN's (arXiv:1609.04802, figure 4) and ESRGAN's (BasicSR's VGGStyleDiscriminator).
    """

    def __init__(self, config: VGGDiscriminatorConfig) -> None:
        super().__init__()
        self.side = config.side
        layers = OrderedDict[str, nn.Module]()
        into = config.channels
        for number in range(config.halvings):
            out = config.features * min(2**number, 8)
            layers |= _layer(f"{number}_0", into, out, kernel=3, stride=1, norm=number > 0)
            layers |= _layer(f"{number}_1", out, out, kernel=config.kernel, stride=2, norm=True)
            into = out
        self.body = nn.Sequential(layers)
        last = config.side // 2**config.halvings
        self.linear1 = nn.Linear(into * last**2, config.hidden)
        self.linear2 = nn.Linear(config.hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[-2:] == (self.side, self.side), f"takes {self.side}x{self.side}, got {tuple(x.shape)}"
        return self.linear2(leaky(self.linear1(self.body(x).flatten(1))))


def _layer(name: str, into: int, out: int, *, kernel: int, stride: int, norm: bool) -> OrderedDict[str, nn.Module]:
    """Named as in the published files."""
    layers = OrderedDict[str, nn.Module]()
    layers[f"conv{name}"] = nn.Conv2d(into, out, kernel, stride, padding=1, bias=not norm)
    if norm:
        layers[f"bn{name}"] = nn.BatchNorm2d(out)
    layers[f"act{name}"] = nn.LeakyReLU(0.2, inplace=True)
    return layers


@dataclass(frozen=True, kw_only=True)
class UNetDiscriminatorConfig:
    """Numbers of Real-ESRGAN."""

    kind: Literal["unet"] = "unet"
    channels: int = 3
    features: int = 64
    skip: bool = True
    """Add what the way down saw to the way up."""

    def __post_init__(self) -> None:
        at_least_one(channels=self.channels, features=self.features)


class UNetDiscriminator(nn.Module):
    """(N, C, H, W) in [0, 1] -> (N, 1, H, W): a logit for each pixel; spectral norm inside (arXiv:2107.10833).

    H and W are multiples of 8. Its names are those of the published files.
    """

    def __init__(self, config: UNetDiscriminatorConfig) -> None:
        super().__init__()
        f = config.features
        self.skip = config.skip
        self.conv0 = nn.Conv2d(config.channels, f, 3, padding=1)
        self.conv1 = _spectral(f, f * 2, side=4, stride=2)
        self.conv2 = _spectral(f * 2, f * 4, side=4, stride=2)
        self.conv3 = _spectral(f * 4, f * 8, side=4, stride=2)
        self.conv4 = _spectral(f * 8, f * 4)
        self.conv5 = _spectral(f * 4, f * 2)
        self.conv6 = _spectral(f * 2, f)
        self.conv7 = _spectral(f, f)
        self.conv8 = _spectral(f, f)
        self.conv9 = nn.Conv2d(f, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        down = [leaky(self.conv0(x))]
        for conv in (self.conv1, self.conv2, self.conv3):
            down.append(leaky(conv(down[-1])))
        y = down.pop()
        for conv in (self.conv4, self.conv5, self.conv6):
            y = leaky(conv(F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False)))
            across = down.pop()
            y = y + across if self.skip else y
        return self.conv9(leaky(self.conv8(leaky(self.conv7(y)))))


def _spectral(into: int, out: int, *, side: int = 3, stride: int = 1) -> nn.Module:
    return spectral_norm(nn.Conv2d(into, out, side, stride, padding=1, bias=False))


DiscriminatorConfig = (
    VGGDiscriminatorConfig
    | UNetDiscriminatorConfig
    | StyleDiscriminatorConfig
    | PatchDiscriminatorConfig
    | PixelDiscriminatorConfig
    | MultiscaleDiscriminatorConfig
)
"""What `build_discriminator` takes; the kind of the config says which."""


DISCRIMINATORS: Mapping[str, type[DiscriminatorConfig]] = {
    "vgg": VGGDiscriminatorConfig,
    "unet": UNetDiscriminatorConfig,
    "style": StyleDiscriminatorConfig,
    "patch": PatchDiscriminatorConfig,
    "pixel": PixelDiscriminatorConfig,
    "multiscale": MultiscaleDiscriminatorConfig,
}
"""Kind -> its config."""


class _Kind(NamedTuple):
    build: Callable[[Any], nn.Module]
    """config -> discriminator with random weights."""
    rename: Callable[[StateDict], StateDict]
    """Weights under published names -> under those here."""


def _rename(weights: StateDict) -> StateDict:
    """Bring old spectral norm (weight_orig, _u, _v), and ESRGAN's layers without `body.`, to the names above."""
    return rename_keys(weights, _PUBLISHED)


_KINDS: Mapping[str, _Kind] = {
    "vgg": _Kind(VGGDiscriminator, _rename),
    "unet": _Kind(UNetDiscriminator, _rename),
    "style": _Kind(StyleDiscriminator, rename_style_discriminator),
    "patch": _Kind(PatchDiscriminator, rename_patch_discriminator),
    "pixel": _Kind(PixelDiscriminator, rename_patch_discriminator),
    "multiscale": _Kind(MultiscaleDiscriminator, rename_patch_discriminator),
}


def build_discriminator(config: DiscriminatorConfig) -> nn.Module:
    """Config -> discriminator with random weights."""
    return _KINDS[config.kind].build(config)


def rename_discriminator(weights: StateDict, config: DiscriminatorConfig) -> StateDict:
    """Published names -> those here, for a discriminator of this config; others come back unchanged."""
    return _KINDS[config.kind].rename(weights)
