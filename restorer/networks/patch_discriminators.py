"""pix2pix's and CycleGAN's discriminators: each logit judges one patch of the picture (arXiv:1611.07004, 1711.11585).

Where they judge a pair, its two pictures stand behind each other as channels. Names of the first two are those of
pix2pix's files, but that the pixel discriminator's chain is `net` there.
Letters: N batch, C channels, H W sides of the picture.
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from restorer.networks.layers import rename_keys, without_wrapper
from restorer.networks.spec import StateDict, at_least_one
from restorer.networks.translation_layers import (
    InstanceNorm,
    NormName,
    check_norm,
    start_normal,
    without_old_statistics,
)


@dataclass(frozen=True, kw_only=True)
class PatchDiscriminatorConfig:
    """Numbers of pix2pix, whose patches have a side of 70 pixels; it judges pairs, with 6 channels."""

    kind: Literal["patch"] = "patch"
    channels: int = 3
    features: int = 64
    layers: int = 3
    """Convolutions that halve; 1 gives patches of 16 pixels, 2 of 34, 3 of 70, 4 of 142, 5 of 286."""
    norm: NormName = "batch"

    def __post_init__(self) -> None:
        at_least_one(channels=self.channels, features=self.features, layers=self.layers)
        check_norm(self.norm)

    @property
    def least(self) -> int:
        """The smallest side of a picture whose last norm sees more than one place, and that gives a logit."""
        return 3 * 2**self.layers


class PatchDiscriminator(nn.Module):
    """(N, C, H, W) in [0, 1] -> (N, 1, H', W'): a logit for each patch; H' is H / 2**layers - 2."""

    def __init__(self, config: PatchDiscriminatorConfig) -> None:
        super().__init__()
        f = config.features
        widths = [f * min(2**number, 8) for number in range(config.layers + 1)]
        steps: list[nn.Module] = [nn.Conv2d(config.channels, f, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True)]
        for number, out in enumerate(widths[1:], start=1):
            stride = 2 if number < config.layers else 1
            bias = config.norm == "instance"
            steps.append(nn.Conv2d(widths[number - 1], out, 4, stride, 1, bias=bias))
            steps += [_norm(config.norm, out), nn.LeakyReLU(0.2, inplace=True)]
        steps.append(nn.Conv2d(widths[-1], 1, 4, 1, 1))
        self.model = nn.Sequential(*steps)
        start_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(2 * x - 1)


@dataclass(frozen=True, kw_only=True)
class PixelDiscriminatorConfig:
    """Numbers of pix2pix's smallest, which sees colours and no shapes."""

    kind: Literal["pixel"] = "pixel"
    channels: int = 3
    features: int = 64
    norm: NormName = "batch"

    def __post_init__(self) -> None:
        at_least_one(channels=self.channels, features=self.features)
        check_norm(self.norm)


class PixelDiscriminator(nn.Module):
    """(N, C, H, W) in [0, 1] -> (N, 1, H, W): a logit for each pixel by itself."""

    def __init__(self, config: PixelDiscriminatorConfig) -> None:
        super().__init__()
        f, bias = config.features, config.norm == "instance"
        self.model = nn.Sequential(
            nn.Conv2d(config.channels, f, 1),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(f, 2 * f, 1, bias=bias),
            _norm(config.norm, 2 * f),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(2 * f, 1, 1, bias=bias),
        )
        start_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(2 * x - 1)


@dataclass(frozen=True, kw_only=True)
class MultiscaleDiscriminatorConfig:
    """Numbers of pix2pixHD, which has three scales, but with pix2pix's padding; SPADE has two."""

    kind: Literal["multiscale"] = "multiscale"
    channels: int = 3
    features: int = 64
    layers: int = 3
    norm: NormName = "instance"
    scales: int = 3
    """Discriminators: of the whole picture, of half of it, and so on."""

    def __post_init__(self) -> None:
        at_least_one(channels=self.channels, features=self.features, layers=self.layers, scales=self.scales)
        check_norm(self.norm)

    @property
    def least(self) -> int:
        """The smallest side of a picture that is large enough at the smallest scale."""
        return 3 * 2 ** (self.layers + self.scales - 1)


class MultiscaleDiscriminator(nn.Module):
    """(N, C, H, W) in [0, 1] -> a list of (N, 1, h, w): logits of the same look at the picture and at smaller ones."""

    def __init__(self, config: MultiscaleDiscriminatorConfig) -> None:
        super().__init__()
        one = PatchDiscriminatorConfig(
            channels=config.channels, features=config.features, layers=config.layers, norm=config.norm
        )
        self.scales = nn.ModuleList(PatchDiscriminator(one) for _ in range(config.scales))

    def forward(self, x: Tensor) -> list[Tensor]:
        logits = []
        for number, judge in enumerate(self.scales):
            if number:
                x = F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)
            logits.append(judge(x))
        return logits


def rename_patch_discriminator(weights: StateDict) -> StateDict:
    """Published weights -> those of the discriminators here, without the statistics that old files kept in vain."""
    bare = without_old_statistics(without_wrapper(weights))
    return rename_keys(bare, [(r"net\.(\d+\.\w+)", r"model.\1")])  # the pixel discriminator's


def _norm(name: NormName, channels: int) -> nn.Module:
    if name == "batch":
        return nn.BatchNorm2d(channels)
    return InstanceNorm() if name == "instance" else nn.Identity()
