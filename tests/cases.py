"""One row per kind of network: tiny configs, and the shapes to expect. Other tests take their networks from here."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from restorer.networks.compact import CompactConfig
from restorer.networks.esrgan import ESRGANConfig
from restorer.networks.spec import get_spec
from restorer.networks.srgan import SRGAN, SRGANConfig

Shape = tuple[int, int, int, int]


@dataclass(frozen=True)
class Case:
    """A network, and what is promised of it."""

    name: str
    config: ESRGANConfig | CompactConfig | SRGANConfig
    input: Shape
    output: Shape
    facts: Mapping[str, object] = field(default_factory=dict)
    bf16_db: float = 52
    """The least PSNR of the bf16 form against float32, for random weights and the output's own range as the peak."""

    def __str__(self) -> str:
        changed = ",".join(f"{key}={value}" for key, value in vars(self.config).items() if key in LABELS)
        return f"{self.name}({changed})"


LABELS = ("scale", "upsamples", "conv1x1", "activation", "form")
TINY_RRDB = {"features": 8, "grow": 4, "blocks": 2}

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
]


def random_network(case: Case) -> nn.Module:
    """Build the case's network in evaluation mode; every weight and statistic is random, the same on every call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = get_spec(case.name).build(case.config).eval()
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
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


def random_batch(shape: Shape, *, seed: int = 1) -> torch.Tensor:
    """Draw a batch of this shape in [0, 1]."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))
