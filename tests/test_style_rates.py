"""Plain weights learn and begin as equalised ones do: five steps of Adam, with one rate there and with many here."""

import math
from collections.abc import Callable
from typing import NamedTuple

import pytest
import test_style_parity as parity
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restorer.networks import gfpgan, stylegan2
from restorer.networks.gfpgan import GFPGAN, GFPGANConfig
from restorer.networks.spec import StateDict
from restorer.networks.style_discriminator import (
    StyleDiscriminator,
    StyleDiscriminatorConfig,
    rename_style_discriminator,
)
from restorer.networks.style_rates import layer_rates, rates_of
from restorer.networks.stylegan2 import StyleGAN2, StyleGAN2Config

archs = parity.archs
pytestmark = pytest.mark.filterwarnings("ignore")
ROOT = math.sqrt(2)
STEP = 2e-3
SAME = 2e-3
"""Of how far a weight moved; renaming rounds to float32, of which the mapping's weights move little."""


def test_factors_are_those_of_the_paper():
    """Worked by hand: 1 / sqrt(numbers summed up), the gain sqrt(2) before an activation, 0.01 in the mapping."""
    generator = StyleGAN2(StyleGAN2Config(widths=(8, 4), style=16, mapping=2))
    maker = generator.rates()
    assert maker.keys() == dict(generator.named_parameters()).keys()
    expected = {
        "mapping.1.weight": 0.01 * ROOT / 4,
        "mapping.0.bias": 0.01 * ROOT,
        "synthesis.constant": 1,
        "synthesis.layers.1.conv.weight": 1 / math.sqrt(8 * 9),
        "synthesis.layers.2.modulation.weight": 1 / 4,
        "synthesis.layers.2.modulation.bias": 1,
        "synthesis.layers.0.noise_strength": ROOT,
        "synthesis.layers.0.bias": ROOT,
        "synthesis.to_rgb.0.conv.weight": 1 / math.sqrt(8),
        "synthesis.to_rgb.1.bias": 1,
    }
    assert {name: maker[name] for name in expected} == pytest.approx(expected)
    judge = StyleDiscriminator(StyleDiscriminatorConfig(widths=(8, 4))).rates()
    assert judge == pytest.approx(
        {
            "from_rgb.weight": ROOT / math.sqrt(3),
            "from_rgb.bias": ROOT,
            "blocks.0.conv1.weight": ROOT / math.sqrt(4 * 9),
            "blocks.0.conv1.bias": ROOT,
            "blocks.0.conv2.weight": 1 / math.sqrt(4 * 9),  # the gain, over what a block's sum is divided by
            "blocks.0.conv2.bias": 1,
            "blocks.0.skip.weight": 1 / ROOT / math.sqrt(4),
            "final_conv.weight": ROOT / math.sqrt(9 * 9),  # 8 channels, and how alike the pictures are
            "final_conv.bias": ROOT,
            "linear1.weight": ROOT / math.sqrt(8 * 16),
            "linear1.bias": ROOT,
            "linear2.weight": 1 / math.sqrt(8),
            "linear2.bias": 1,
        }
    )
    face = GFPGAN(GFPGANConfig(widths=(8, 4), style=16, resampling="fir")).rates()
    expected = {
        "conv_first.weight": ROOT / math.sqrt(3),
        "up.0.skip.weight": 1 / ROOT / math.sqrt(4),
        "scale.0.0.bias": ROOT,
        "shift.0.2.weight": 1 / math.sqrt(2 * 9),
        "to_styles.weight": 1 / math.sqrt(4 * 16),
        "painter.layers.1.bias": ROOT,
    }
    assert {name: face[name] for name in expected} == pytest.approx(expected)


def test_a_parameter_without_a_rule_is_a_mistake():
    with pytest.raises(AssertionError, match=r"no rule tells how fast 1\.weight learns"):
        rates_of(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), layer_rates(r"0\."))


class Twin(NamedTuple):
    """A network of ours and BasicSR's or GFPGAN's of the same size."""

    theirs: nn.Module
    ours: nn.Module
    rename: Callable[[StateDict], StateDict]
    loss_of_theirs: Callable[[], Tensor]
    loss_of_ours: Callable[[], Tensor]


def generators(archs, narrow: int = 32) -> Twin:
    torch.manual_seed(0)
    width, style = 512 // narrow, 16
    theirs = archs("basicsr", "stylegan2_arch").StyleGAN2Generator(16, style, num_mlp=2, narrow=1 / narrow).double()
    ours = StyleGAN2(StyleGAN2Config(widths=(width,) * 3, style=style, mapping=2)).double()
    z, target = torch.randn(4, style).double(), torch.rand(4, 3, 16, 16).double()
    noise = [torch.randn(4, 1, side, side).double() for side in (4, 8, 8, 16, 16)]

    def rename(weights: StateDict) -> StateDict:
        return stylegan2.rename({**weights, "latent_avg": torch.zeros(style)}, {"resampling": "fir"})

    return Twin(
        theirs,
        ours,
        rename,
        lambda: F.mse_loss(theirs([z], noise=noise)[0], target),
        lambda: F.mse_loss(ours.painted(ours.styles(z), noise), target),
    )


def discriminators(archs, narrow: int = 32) -> Twin:
    torch.manual_seed(0)
    theirs = archs("basicsr", "stylegan2_arch").StyleGAN2Discriminator(16, narrow=1 / narrow).double()
    ours = StyleDiscriminator(StyleDiscriminatorConfig(widths=(512 // narrow,) * 3)).double()
    real, fake = torch.rand(2, 8, 3, 16, 16).double()
    fake = fake**3

    def loss(judge: Callable[[Tensor], Tensor]) -> Tensor:
        return F.softplus(-judge(real)).mean() + F.softplus(judge(fake)).mean()

    return Twin(theirs, ours, rename_style_discriminator, lambda: loss(lambda x: theirs(2 * x - 1)), lambda: loss(ours))


def faces(archs, narrow: int = 64) -> Twin:
    torch.manual_seed(0)
    words = {**parity.FACE, "num_style_feat": 16, "channel_multiplier": 2, "narrow": 1 / narrow, "sft_half": True}
    theirs = archs("gfpgan", "gfpganv1_arch").GFPGANv1(16, **words).double()
    config = GFPGANConfig(widths=(512 // narrow,) * 3, style=16, resampling="fir")
    ours = GFPGAN(config).double()
    x = torch.rand(2, 3, 16, 16).double() * 2 - 1

    def loss(face: Tensor, pyramid: list[Tensor]) -> Tensor:
        return sum((each - F.adaptive_avg_pool2d(x, each.shape[-1])).square().mean() for each in (face, *pyramid))

    def loss_of_ours() -> Tensor:
        face, features = ours.painted(x)
        return loss(face, ours.pyramid(features))

    return Twin(
        theirs,
        ours,
        lambda weights: gfpgan.rename(weights, {"resampling": "fir"}),
        lambda: loss(*theirs(x, return_rgb=True, randomize_noise=False)),
        loss_of_ours,
    )


TWINS = pytest.mark.parametrize("make", [generators, discriminators, faces], ids=lambda make: make.__name__)


@TWINS
def test_factors_are_what_renaming_multiplies_with(archs, make):
    twin = make(archs)
    factors = twin.rename({key: torch.ones_like(tensor) for key, tensor in twin.theirs.state_dict().items()})
    rates = twin.ours.rates()
    assert rates.keys() == dict(twin.ours.named_parameters()).keys()
    for name, rate in rates.items():
        torch.testing.assert_close(factors[name].double().unique(), torch.tensor([rate]).double(), rtol=1e-6, atol=0)


@TWINS
def test_adam_moves_plain_weights_as_it_moves_equalised_ones(archs, make):
    """Epsilon is not divided by the factors here: beside large gradients it does not matter. One rate for all does."""
    twin = started(make(archs))
    expected = moved(twin.theirs, twin.loss_of_theirs, None, times=1000)
    rates = twin.ours.rates()
    assert worst(twin, expected, moved(twin.ours, twin.loss_of_ours, rates, times=1000)) < SAME
    ones = dict.fromkeys(rates, 1.0)
    assert worst(twin, expected, moved(twin.ours, twin.loss_of_ours, ones, times=1000)) > 1


def test_an_epsilon_that_matters_is_divided_by_the_factor(archs):
    twin = started(discriminators(archs))
    expected = moved(twin.theirs, twin.loss_of_theirs, None, epsilon=1e-3)
    rates = twin.ours.rates()
    divided = moved(twin.ours, twin.loss_of_ours, rates, epsilon=1e-3, divided=True)
    assert worst(twin, expected, divided) < SAME
    assert worst(twin, expected, moved(twin.ours, twin.loss_of_ours, rates, epsilon=1e-3)) > 0.1


def started(twin: Twin) -> Twin:
    """Biases and noise strengths at random, and the same weights on both sides."""
    parity.random(twin.theirs)
    twin.ours.load_state_dict(twin.rename(twin.theirs.state_dict()))
    return twin


def moved(
    network: nn.Module,
    loss: Callable[[], Tensor],
    factors: dict[str, float] | None,
    *,
    times: float = 1,
    epsilon: float = 1e-8,
    divided: bool = False,
) -> dict[str, Tensor]:
    """What five steps of Adam make of the weights; the network is as it was before."""
    start = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    groups = []
    for name, parameter in network.named_parameters():
        factor = factors[name] if factors else 1
        groups.append({"params": [parameter], "lr": STEP * factor, "eps": epsilon / factor if divided else epsilon})
    optimiser = torch.optim.Adam(groups, betas=(0.0, 0.99))
    for _ in range(5):
        optimiser.zero_grad()
        loss().mul(times).backward()
        optimiser.step()
    after = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.load_state_dict(start)
    return after


def worst(twin: Twin, theirs: dict[str, Tensor], ours: dict[str, Tensor]) -> float:
    """How far apart the sides moved, over how far they moved: the largest of all parameters."""
    start, expected = twin.ours.state_dict(), twin.rename(theirs)
    return max(
        float((ours[name] - expected[name]).norm() / (expected[name] - start[name]).norm())
        for name, _ in twin.ours.named_parameters()
    )


@TWINS
def test_weights_begin_as_theirs(archs, make):
    """Biases to the digit; deviations of weights from 0 within 5 per cent, where there are 4000 or more."""
    twin = make(archs, narrow=8)
    others = twin.rename(twin.theirs.state_dict())
    compared = 0
    for name, parameter in twin.ours.named_parameters():
        other = others[name].double()
        if parameter.ndim == 1:
            torch.testing.assert_close(parameter.detach(), other, rtol=0, atol=0)
        elif parameter.numel() >= 4000:
            deviation, expected = (float(each.square().mean().sqrt()) for each in (parameter, other))
            assert deviation == pytest.approx(expected, rel=0.05), name
            compared += 1
    assert compared >= 5


def test_a_mapping_begins_with_the_variance_that_its_layers_keep():
    """0.01 is in the rate and not in the weights, which are published as N(0, 1 / 0.01^2)."""
    torch.manual_seed(0)
    network = StyleGAN2(StyleGAN2Config(widths=(4, 4), style=128, mapping=2))
    found = float(network.mapping[0].weight.std())
    assert found == pytest.approx(ROOT / math.sqrt(128), rel=0.05)
    assert found == pytest.approx(network.rates()["mapping.0.weight"] / 0.01, rel=0.05)
