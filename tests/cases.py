"""One row per kind of network: tiny configs, and the shapes to expect. Other tests take their networks from here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from restorer.engines.shared import input_shape
from restorer.networks.arcface import ArcFaceConfig
from restorer.networks.bisenet import BiSeNetConfig
from restorer.networks.compact import CompactConfig
from restorer.networks.cyclegan import CycleGANConfig
from restorer.networks.esrgan import ESRGANConfig
from restorer.networks.gfpgan import GFPGANConfig
from restorer.networks.mtcnn import MTCNNConfig
from restorer.networks.parsenet import ParseNetConfig
from restorer.networks.pix2pix import Pix2PixConfig
from restorer.networks.retinaface import RetinaFaceConfig
from restorer.networks.spec import Traits, get_spec
from restorer.networks.srgan import SRGAN, SRGANConfig
from restorer.networks.style_layers import ModulatedConv, StyleConv
from restorer.networks.stylegan2 import StyleGAN2Config
from restorer.networks.whitebox import WhiteboxConfig

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Case:
    """A network, and what is promised of it."""

    name: str
    config: Any
    """Of the network."""
    input: Shape
    output: Shape
    facts: Mapping[str, object] = field(default_factory=dict)
    bf16_db: float = 52
    """The least PSNR of the bf16 form against float32, for random weights and the output's own range as the peak."""
    unused: str = " "
    """Beginning of the names of parameters that only training looks at."""

    def __str__(self) -> str:
        changed = ",".join(f"{key}={value}" for key, value in vars(self.config).items() if key in LABELS)
        return f"{self.name}({changed})"


LABELS = ("scale", "upsamples", "conv1x1", "activation", "form", "resampling", "half", "one_style", "backbone", "stage")
LABELS += ("norm", "levels")
TINY_RRDB = {"features": 8, "grow": 4, "blocks": 2}
TINY_STYLE = {"widths": (16, 16, 8, 8), "style": 12, "mapping": 2}
TINY_FACE = {"widths": (16, 16, 8, 8), "style": 12}

CASES = [
    Case("esrgan", ESRGANConfig(**TINY_RRDB), (2, 3, 12, 10), (2, 3, 48, 40)),
    Case("esrgan", ESRGANConfig(**TINY_RRDB, scale=2), (2, 3, 12, 10), (2, 3, 24, 20)),
    Case("esrgan", ESRGANConfig(**TINY_RRDB, scale=1), (2, 3, 12, 16), (2, 3, 12, 16)),
    Case(
        "esrgan",
        ESRGANConfig(**TINY_RRDB, scale=1, upsamples=0, in_channels=1, out_channels=1),
        (1, 1, 5, 7),
        (1, 1, 5, 7),
    ),
    Case(
        "esrgan",
        ESRGANConfig(**TINY_RRDB, scale=2, upsamples=1, in_channels=4, out_channels=4),
        (1, 4, 5, 7),
        (1, 4, 10, 14),
    ),
    Case("esrgan", ESRGANConfig(**TINY_RRDB, scale=8, upsamples=3), (1, 3, 5, 3), (1, 3, 40, 24)),
    Case("esrgan", ESRGANConfig(**TINY_RRDB, conv1x1=True), (1, 3, 6, 5), (1, 3, 24, 20)),
    Case("compact", CompactConfig(features=8, convs=3), (2, 3, 12, 10), (2, 3, 48, 40)),
    Case("compact", CompactConfig(features=8, convs=4, scale=3, channels=1), (1, 1, 5, 4), (1, 1, 15, 12)),
    Case(
        "compact",
        CompactConfig(features=8, convs=2, scale=2, activation="relu"),
        (1, 3, 5, 4),
        (1, 3, 10, 8),
        facts={"activation": "relu"},
    ),
    Case(
        "compact",
        CompactConfig(features=8, convs=2, scale=1, activation="leakyrelu"),
        (1, 3, 5, 4),
        (1, 3, 5, 4),
        facts={"activation": "leakyrelu"},
    ),
    Case("srgan", SRGANConfig(features=8, blocks=2), (2, 3, 12, 10), (2, 3, 48, 40)),
    Case("srgan", SRGANConfig(features=8, blocks=2, scale=8, form="tanh"), (1, 3, 5, 4), (1, 3, 40, 32)),
    Case("srgan", SRGANConfig(features=8, blocks=2, scale=2, form="tanh_norm"), (1, 3, 5, 4), (1, 3, 10, 8)),
    Case("srgan", SRGANConfig(features=8, blocks=3, scale=4, form="plain"), (1, 3, 5, 4), (1, 3, 20, 16)),
    Case(
        "srgan",
        SRGANConfig(features=8, blocks=2, scale=3, channels=1, form="plain_linear"),
        (1, 1, 5, 4),
        (1, 1, 15, 12),
    ),
    Case("stylegan2", StyleGAN2Config(**TINY_STYLE), (2, 12), (2, 3, 32, 32)),
    Case("stylegan2", StyleGAN2Config(**TINY_STYLE, resampling="bilinear"), (2, 12), (2, 3, 32, 32)),
    Case("gfpgan", GFPGANConfig(**TINY_FACE), (2, 3, 32, 32), (2, 3, 32, 32), unused="to_rgb."),
    Case(
        "gfpgan",
        GFPGANConfig(**TINY_FACE, resampling="fir", half=False, one_style=True),
        (2, 3, 32, 32),
        (2, 3, 32, 32),
        unused="to_rgb.",
    ),
    Case(
        "retinaface", RetinaFaceConfig(features=4, blocks=(1, 2, 1, 1), pyramid_features=8), (2, 3, 40, 33), (2, 76, 15)
    ),
    Case(
        "retinaface",
        RetinaFaceConfig(backbone="mobilenet0.25", features=2, pyramid_features=8, form="small"),
        (2, 3, 40, 33),
        (2, 76, 15),
        facts={"form": "small"},
    ),
    Case("mtcnn", MTCNNConfig(), (2, 3, 21, 30), (2, 5, 6, 10)),
    Case("mtcnn", MTCNNConfig(stage="r"), (2, 3, 24, 24), (2, 5)),
    Case("mtcnn", MTCNNConfig(stage="o"), (2, 3, 48, 48), (2, 15)),
    Case("parsenet", ParseNetConfig(widths=(4, 8), blocks=2, classes=5), (2, 3, 64, 64), (2, 5, 64, 64)),
    Case("bisenet", BiSeNetConfig(features=4, blocks=(1, 2, 1, 1)), (2, 3, 40, 33), (2, 19, 40, 33)),
    Case("arcface", ArcFaceConfig(side=32, features=4, blocks=(1, 2, 1, 1), embedding=6), (2, 1, 32, 32), (2, 6)),
    Case("pix2pix", Pix2PixConfig(features=4, levels=2), (2, 3, 8, 12), (2, 3, 8, 12)),
    Case(
        "pix2pix",
        Pix2PixConfig(features=4, levels=3, norm="instance", dropout=False, in_channels=1),
        (2, 1, 16, 24),
        (2, 3, 16, 24),
        facts={"dropout": False},
    ),
    Case("pix2pix", Pix2PixConfig(features=4, levels=2, norm="none"), (2, 3, 8, 12), (2, 3, 8, 12)),
    Case("cyclegan", CycleGANConfig(features=4, blocks=1), (2, 3, 12, 16), (2, 3, 12, 16)),
    Case(
        "cyclegan",
        CycleGANConfig(features=4, blocks=2, norm="batch", dropout=True, out_channels=1),
        (2, 3, 12, 16),
        (2, 1, 12, 16),
        facts={"dropout": True},
        bf16_db=48,
    ),
    Case("whitebox", WhiteboxConfig(features=4, blocks=1), (2, 3, 12, 16), (2, 3, 12, 16)),
]


def random_network(case: Case) -> nn.Module:
    """Build the case's network in evaluation mode; every weight and statistic is random, the same on every call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = get_spec(case.name).build(case.config).eval()
        for module in network.modules():
            if isinstance(module, StyleConv):
                module.noise_strength.data.fill_(0.3)
                module.bias.data.uniform_(-0.2, 0.2)
            elif isinstance(module, nn.Conv2d) and not isinstance(module, ModulatedConv):
                module.reset_parameters()  # not the small start of residual blocks, which would hide their errors
            if isinstance(module, nn.BatchNorm2d):
                for tensor in (module.weight.data, module.running_var):
                    tensor.uniform_(0.5, 1.5)
                for tensor in (module.bias.data, module.running_mean):
                    tensor.uniform_(-0.2, 0.2)
            if isinstance(module, nn.PReLU):
                module.weight.data.uniform_(0.1, 0.4)
        if isinstance(network, SRGAN):
            network.conv_last.bias.data += 0.5  # outputs inside [0, 1], where the paper's form does not cut them
    return network


def traits_of(case: Case) -> Traits:
    """What the case's network promises."""
    return get_spec(case.name).traits(case.config)


def of_size(traits: Traits, count: int, height: int, width: int) -> Shape:
    """Shape of a batch of so many units of the network's multiple, or of its own size where it has one."""
    sides = [max(side, -(-traits.min_side // traits.multiple_of)) * traits.multiple_of for side in (height, width)]
    return input_shape(traits, count, (sides[0], sides[1]))


def random_batch(shape: Shape, *, seed: int = 1) -> torch.Tensor:
    """Draw a batch of this shape in [0, 1]."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))
