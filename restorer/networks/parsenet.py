"""ParseNet of PSFRGAN: what each pixel of an aligned face belongs to (arXiv:2009.08709, the parsing network).

Letters: N batch, C channels, H W sides of a level, K classes.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from restorer.networks.layers import conv_shape, count_blocks, keys_like, leaky, without_wrapper
from restorer.networks.spec import Facts, NetworkSpec, StateDict, Traits, at_least_one

BODY_SIDE = 32
"""Side of the coarsest level."""
CLASSES: Mapping[str, int] = {
    "background": 0, "skin": 1, "nose": 2, "glasses": 3, "left_eye": 4, "right_eye": 5, "left_brow": 6, "right_brow": 7,
    "left_ear": 8, "right_ear": 9, "mouth": 10, "upper_lip": 11, "lower_lip": 12, "hair": 13, "hat": 14, "earring": 15,
    "necklace": 16, "neck": 17, "cloth": 18,
}  # fmt: skip
"""What the classes of the published weights are: those of CelebAMask-HQ, in the order of its colour table."""


@dataclass(frozen=True, kw_only=True)
class ParseNetConfig:
    """Numbers of the published network."""

    widths: tuple[int, ...] = (64, 128, 256, 256, 256)
    """Channels of the levels, the finest first; each is half as wide and high as the one before."""
    blocks: int = 10
    """Residual blocks at the coarsest level."""
    classes: int = 19

    def __post_init__(self) -> None:
        if not 2 <= len(self.widths) <= 8:
            raise ValueError(f"widths must be 2 to 8 numbers, got {len(self.widths)}")
        at_least_one(widths=min(self.widths), blocks=self.blocks, classes=self.classes)

    @property
    def side(self) -> int:
        """The only side of a face that it takes."""
        return BODY_SIDE * 2 ** (len(self.widths) - 1)


class MirrorConv(nn.Module):
    """(N, Cin, H, W) -> (N, Cout, H/stride, W/stride): mirrored at the borders; with a norm or else with a bias."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1, norm: bool = False) -> None:
        super().__init__()
        self.conv2d = nn.Conv2d(
            in_channels, out_channels, 3, stride=stride, padding=1, padding_mode="reflect", bias=not norm
        )
        layers = OrderedDict[str, nn.Module](norm=nn.BatchNorm2d(out_channels)) if norm else OrderedDict()
        self.norm = nn.Sequential(layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv2d(x))


class ResidualBlock(nn.Module):
    """(N, Cin, H, W) -> (N, Cout, H/stride, W/stride); `shortcut`: what is added is convolved too."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1, shortcut: bool = True) -> None:
        super().__init__()
        self.conv1 = MirrorConv(in_channels, out_channels, norm=True)
        self.conv2 = MirrorConv(out_channels, out_channels, stride=stride, norm=True)
        self.shortcut_func = MirrorConv(in_channels, out_channels, stride=stride) if shortcut else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(leaky(self.conv1(x)))
        return y + (x if self.shortcut_func is None else self.shortcut_func(x))


class UpBlock(ResidualBlock):
    """(N, Cin, H, W) -> (N, Cout, 2H, 2W)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.interpolate(x, scale_factor=2, mode="nearest"))


class ParseNet(nn.Module):
    """(N, 3, side, side) in [-1, 1] -> (N, K, side, side): how much each pixel looks like each class."""

    def __init__(self, config: ParseNetConfig) -> None:
        super().__init__()
        widths = config.widths
        downs = (ResidualBlock(fine, coarse, stride=2) for fine, coarse in pairwise(widths))
        self.encoder = nn.Sequential(MirrorConv(3, widths[0]), *downs)
        self.body = nn.Sequential(
            *(ResidualBlock(widths[-1], widths[-1], shortcut=False) for _ in range(config.blocks))
        )
        self.decoder = nn.Sequential(*(UpBlock(coarse, fine) for coarse, fine in pairwise(widths[::-1])))
        self.out_mask_conv = MirrorConv(widths[0], config.classes)

    def forward(self, x: Tensor) -> Tensor:
        y = self.encoder(x)
        return self.out_mask_conv(self.decoder(y + self.body(y)))


def traits(config: ParseNetConfig) -> Traits:
    """A face as a whole, at the size of its training. Memory peaks in the last block of the decoder."""
    return Traits(
        fixed_size=(config.side, config.side),
        min_side=config.side,
        radius=None,
        makes_pictures=False,
        out_channels=config.classes,
        overlap=0,
        values_per_pixel=3 * config.widths[1] + 2 * config.widths[0],
        operations=_operations(config),
        precisions=frozenset({"fp32"}),
        value_range=(-1.0, 1.0),
    )


def _operations(config: ParseNetConfig) -> float:
    """Multiplications per input pixel."""
    widths = config.widths
    total: float = 3 * widths[0] + widths[0] * config.classes
    for level, (fine, coarse) in enumerate(pairwise(widths)):
        down = fine * coarse * 5 / 4 + coarse**2 / 4
        up = 2 * fine * coarse + fine**2
        total += (down + up) / 4**level
    return 9 * (total + 2 * config.blocks * widths[-1] ** 2 / 4 ** (len(widths) - 1))


def read_config(weights: StateDict, facts: Facts) -> ParseNetConfig:
    """Recover the config from shapes."""
    downs = count_blocks(weights, "encoder.") - 1
    return ParseNetConfig(
        widths=(
            conv_shape(weights, "encoder.0.conv2d.weight")[0],
            *(conv_shape(weights, f"encoder.{level}.conv1.conv2d.weight")[0] for level in range(1, downs + 1)),
        ),
        blocks=count_blocks(weights, "body."),
        classes=conv_shape(weights, "out_mask_conv.conv2d.weight")[0],
    )


def rename(weights: StateDict, facts: Facts) -> StateDict:
    """Leave out the layer that draws the face again, and what a wrapper for several devices put before every key."""
    weights = without_wrapper(weights)
    if not any(key.startswith("out_mask_conv.") for key in weights):
        return weights
    return {key: tensor for key, tensor in weights.items() if not key.startswith("out_img_conv.")}


SPEC = NetworkSpec(
    name="parsenet",
    task="parse",
    config=ParseNetConfig,
    build=ParseNet,
    traits=traits,
    detect=keys_like(
        r"(encoder|body|decoder)\.\d+\.((conv[12]|shortcut_func)\.conv2d\.(weight|bias)|conv[12]\.norm\.norm\.\w+)"
        r"|(encoder\.0|out_mask_conv)\.conv2d\.(weight|bias)",
        anchors=("encoder.0.conv2d.", "encoder.1.conv1.", "body.0.conv1.", "decoder.0.conv1.", "out_mask_conv."),
    ),
    read_config=read_config,
    rename=rename,
)
