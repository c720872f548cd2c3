"""pix2pix, CycleGAN and what judges them equal their published layout, built a second time from plain layers."""

from dataclasses import replace

import pytest
import torch
from cases import random_batch
from torch import Tensor, nn
from torch.nn import functional as F
from translation_layouts import NORMS, ResNet, UNet, chain, drawn

from restorer.engines import open_engine
from restorer.errors import UnknownWeightsError, WeightsError
from restorer.networks import pix2pix
from restorer.networks.cyclegan import CycleGAN, CycleGANConfig
from restorer.networks.discriminators import build_discriminator
from restorer.networks.patch_discriminators import (
    MultiscaleDiscriminator,
    MultiscaleDiscriminatorConfig,
    PatchDiscriminator,
    PatchDiscriminatorConfig,
    PixelDiscriminator,
    PixelDiscriminatorConfig,
    rename_patch_discriminator,
)
from restorer.networks.pix2pix import Pix2Pix, Pix2PixConfig
from restorer.networks.spec import get_spec, load_weights
from restorer.networks.translation_layers import UpConv, UpConv3, as_shuffle, normalised, start_normal


def without_noise(network: nn.Module) -> nn.Module:
    """In training mode, as the published programs run it, but for the dropout."""
    for module in network.train().modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    return network


def native(shape: tuple[int, ...]) -> Tensor:
    return 2 * random_batch(shape) - 1


PAIRS = [
    (
        f"{norm}{'+dropout' * drop}",
        UNet(2, 3, 6, 4, norm, drop=drop),
        Pix2PixConfig(in_channels=2, levels=6, features=4, norm=norm, dropout=drop),
        (2, 2, 64, 128),
    )
    for norm, drop in (("batch", True), ("instance", False), ("none", False))
]
PAIRS += [
    (
        f"{norm}{'+dropout' * drop}",
        ResNet(3, 2, 4, blocks, norm, drop=drop),
        CycleGANConfig(out_channels=2, features=4, blocks=blocks, norm=norm, dropout=drop),
        (2, 3, 20, 28),
    )
    for norm, drop, blocks in (("instance", False, 3), ("instance", True, 1), ("batch", False, 2), ("batch", True, 1))
]
each_pair = pytest.mark.parametrize(
    ("published", "config", "shape"), [pair[1:] for pair in PAIRS], ids=[f"{type(p[2]).__name__}-{p[0]}" for p in PAIRS]
)


@each_pair
def test_generators_equal_their_published_layout_picture_by_picture(published, config, shape):
    network = without_noise(drawn(published))
    weights = dict(network.state_dict())
    x = native(shape)
    model = load_weights({key: tensor.clone() for key, tensor in weights.items()}, facts={"dropout": config.dropout})
    assert model.config == config
    with torch.no_grad():
        alone = torch.cat([network(picture) for picture in x.split(1)])
        assert alone.std() > 0.05
        for layout in (torch.contiguous_format, torch.channels_last):
            y = model.network(x.contiguous(memory_format=layout))
            assert float((y - alone).abs().max()) <= 1e-5
    y = model.network.requires_grad_()(x).detach()  # where gradients are wanted, norms go another way
    assert float((y - alone).abs().max()) <= 1e-5


@each_pair
def test_generators_learn_with_the_statistics_of_their_batch(published, config, shape):
    network = without_noise(drawn(published))
    model = load_weights({key: tensor.clone() for key, tensor in network.state_dict().items()})
    for module in model.network.modules():
        module.training = True
    model.network.config = replace(config, dropout=False)
    for module in model.network.modules():
        module.dropout = False
    x = native(shape)
    with torch.no_grad():
        assert float((model.network(x) - network(x)).abs().max()) <= 1e-5


@pytest.mark.parametrize("prefix", ["", "module."])
def test_old_files_with_statistics_of_instance_norms_load(prefix):
    network = drawn(ResNet(3, 3, 4, 2, "instance"))
    old = {f"{prefix}{key}": tensor for key, tensor in network.state_dict().items()}
    for place, width in (("2", 4), ("5", 8), ("8", 16), ("10.conv_block.2", 16), ("11.conv_block.6", 16), ("13", 8)):
        old |= {f"{prefix}model.{place}.running_{what}": torch.ones(width) for what in ("mean", "var")}
        old[f"{prefix}model.{place}.num_batches_tracked"] = torch.tensor(7)
    x = native((1, 3, 16, 16))
    with torch.no_grad():
        assert torch.allclose(load_weights(old).network(x), network(x), atol=1e-5)


@pytest.mark.parametrize(
    ("network", "count"),
    [
        (lambda: Pix2Pix(Pix2PixConfig()), 54_413_955),  # printed by the published program as 54.414 M
        (lambda: UNet(3, 3, 8, 64, "batch"), 54_413_955),
        (lambda: CycleGAN(CycleGANConfig()), 11_378_179),
        (lambda: CycleGAN(CycleGANConfig(blocks=6)), 7_837_699),
        (lambda: PatchDiscriminator(PatchDiscriminatorConfig(channels=6)), 2_768_705),
        (lambda: PatchDiscriminator(PatchDiscriminatorConfig(norm="instance")), 2_764_737),
    ],
)
def test_parameter_counts_are_the_published_ones(network, count):
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in network().parameters()) == count


def test_operations_of_cyclegan_are_those_worked_by_hand():
    """A 7x7 convolution at either end, 3x3 ones that halve and double, and eighteen at a quarter of the side."""
    assert (
        get_spec("cyclegan").traits(CycleGANConfig()).operations
        == 9408 + 18432 + 18432 + 18 * 589824 / 16 + 18432 + 18432 + 9408
    )


# Norms and convolutions


@pytest.mark.parametrize("shape", [(1, 3, 2, 2), (2, 5, 7, 9), (1, 64, 300, 40), (2, 300, 33, 50)])
@pytest.mark.parametrize("mean", [0, 30])
def test_norm_in_blocks_is_instance_norm_and_keeps_the_layout(shape, mean):
    x = (torch.randn(shape, generator=torch.Generator().manual_seed(0)) + mean).contiguous(
        memory_format=torch.channels_last
    )
    weight, bias = random_batch((shape[1],)) + 0.5, random_batch((shape[1],), seed=2)
    for dtype, close in ((torch.float32, 1e-5), (torch.bfloat16, 2**-7)):
        given = x.to(dtype)
        exact = F.instance_norm(given.double(), weight=weight.double(), bias=bias.double())
        with torch.no_grad():
            y = normalised(given, weight, bias)
        assert y.dtype == dtype
        assert y.is_contiguous(memory_format=torch.channels_last)
        assert bool(((y - exact).abs() <= close * exact.abs().clamp_min(1)).all())


def test_norm_of_a_large_picture_does_not_lose_its_small_numbers():
    """Sums of ten million numbers, one after another in float32, stop growing long before the last."""
    x = torch.full((1, 1, 3000, 4000), 1.0)
    x[..., ::2] = 3.0
    with torch.no_grad():
        y = normalised(x)
    assert torch.allclose(y[0, 0, -1, :2], torch.tensor([1.0, -1.0]), atol=2e-5)


def test_norm_takes_no_small_difference_for_rounding():
    x = 1 + 2**-18 * torch.randn(1, 2, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y = normalised(x)
        flat = normalised(torch.full((1, 2, 64, 64), 1 / 3), torch.tensor([3.0, 4.0]), torch.tensor([0.5, -1.0]))
    assert y.std().item() == pytest.approx(2**-18 / 1e-5**0.5, rel=0.05)
    assert bool((flat == torch.tensor([0.5, -1.0])[:, None, None]).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_doubling_convolutions_are_transposed_ones(dtype):
    four, three = nn.ConvTranspose2d(5, 3, 4, 2, 1), nn.ConvTranspose2d(5, 3, 3, 2, 1, output_padding=1)
    up, up3 = UpConv(5, 3), UpConv3(5, 3)
    x = torch.randn(2, 5, 4, 7)
    with torch.no_grad():
        up.weight.copy_(as_shuffle(four.weight))
        up.bias.copy_(four.bias)
        up3.weight.copy_(three.weight)
        up3.bias.copy_(three.bias)
        for mine, theirs in ((up, four), (up3, three)):
            y, exact = mine.to(dtype)(x), theirs(x)
            assert y.dtype == dtype
            assert y.shape == (2, 3, 8, 14)
            assert float((y - exact).abs().max()) <= (1e-6 if dtype == torch.float32 else 0.03)


# Dropout, start, refusals


def test_dropout_is_off_at_rest_and_leaves_one_level_of_six_and_three_of_eight(monkeypatch):
    for levels, expected in ((5, 0), (6, 1), (8, 3)):
        network = Pix2Pix(Pix2PixConfig(features=1, levels=levels))
        seen = []
        monkeypatch.setattr(pix2pix.F, "dropout", lambda y, share, on, seen=seen: seen.append((share, on)) or y)
        with torch.no_grad():
            network.eval()(torch.zeros(1, 3, 2**levels, 2**levels))
            network.train()(torch.zeros(2, 3, 2**levels, 2**levels))
        assert seen == [(0.5, False)] * expected + [(0.5, True)] * expected


@pytest.mark.parametrize("told", [False, "false"])
def test_dropout_is_told_in_words_too(told):
    network = Pix2Pix(Pix2PixConfig(features=1, levels=2, dropout=False))
    assert load_weights(network.state_dict(), facts={"dropout": told}).config.dropout is False


@pytest.mark.parametrize("prefix", ["", "module."])
def test_published_keys_of_cyclegan_tell_of_dropout(prefix):
    """A layer without weights, dropout, moves the second convolution of every block one place on."""
    for drop in (False, True):
        network = drawn(ResNet(3, 3, 2, 2, "instance", drop=drop))
        weights = {f"{prefix}{key}": tensor for key, tensor in network.state_dict().items()}
        model = load_weights(weights)
        assert (model.config.dropout, model.facts) == (drop, {"dropout": True} if drop else {})
        told = load_weights(weights, facts={"dropout": "false"})
        assert told.config.dropout is False, "what is told wins"


ORDERED = [Pix2Pix(Pix2PixConfig(features=2, levels=2)), CycleGAN(CycleGANConfig(features=2, blocks=1))]


@pytest.mark.parametrize("network", ORDERED, ids=["pix2pix", "cyclegan"])
def test_weights_trained_on_bgr_take_and_give_rgb_all_the_same(network):
    weights = drawn(network).state_dict()
    plain, turned = (load_weights(weights, facts=facts) for facts in ({"channels": "rgb"}, {"channels": "bgr"}))
    assert (plain.traits.channel_order, turned.traits.channel_order) == ("rgb", "bgr")
    assert load_weights(weights).traits.channel_order == "rgb"
    x = random_batch((1, 3, 16, 16))
    made, swapped = (
        open_engine(model, kind="eager", device="cpu", precision="fp32").run({"image": given})["image"]
        for model, given in ((plain, x), (turned, x.flip(1)))
    )
    assert torch.allclose(swapped.flip(1), made, atol=1e-6)
    assert made.std(1).mean() > 0.01, "colours that are equal show nothing"


@pytest.mark.parametrize("network", ORDERED, ids=["pix2pix", "cyclegan"])
@pytest.mark.parametrize("told", ["grb", "BGR", "", 3])
def test_an_order_of_colours_that_is_neither_is_refused(network, told):
    with pytest.raises(WeightsError, match=f"channels must be rgb or bgr, got {told!r}") as caught:
        load_weights(network.state_dict(), facts={"channels": told})
    assert "\n" not in str(caught.value)


def test_a_foreign_file_with_a_key_like_a_level_is_no_pix2pix():
    with pytest.raises(UnknownWeightsError):
        load_weights({"model.model.1.model.1.conv.weight": torch.zeros(4, 4, 4, 4)})


def test_networks_start_as_published():
    torch.manual_seed(0)
    network = Pix2Pix(Pix2PixConfig(features=16, levels=5))
    weights = torch.cat([p.flatten() for name, p in network.named_parameters() if name.endswith("conv.weight")])
    gains = torch.cat([p for name, p in network.named_parameters() if name.endswith("norm.weight")])
    assert weights.mean().abs() < 1e-3
    assert weights.std().item() == pytest.approx(0.02, rel=0.02)
    assert gains.mean().item() == pytest.approx(1, abs=0.005)
    assert gains.std().item() == pytest.approx(0.02, rel=0.2)
    linear = nn.Linear(3, 3)
    before = linear.weight.clone()
    start_normal(linear)
    assert torch.equal(linear.weight, before)


@pytest.mark.parametrize(
    "network",
    [
        PatchDiscriminator(PatchDiscriminatorConfig(features=4)),
        PixelDiscriminator(PixelDiscriminatorConfig(features=4)),
    ],
    ids=["patch", "pixel"],
)
def test_file_of_a_discriminator_is_refused_in_one_line(network):
    for prefix in ("", "module."):
        weights = {f"{prefix}{key}": tensor for key, tensor in network.state_dict().items()}
        with pytest.raises(WeightsError, match=r"a discriminator.*give the generator's file") as caught:
            load_weights(weights)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["model", "net"])
def test_other_chains_stay_unknown(name):
    published = {f"{name}.0.weight": torch.ones(4, 3, 4, 4), f"{name}.2.weight": torch.ones(1, 4, 4, 4)}
    with pytest.raises(WeightsError, match="a discriminator"):
        load_weights(published)
    with pytest.raises(UnknownWeightsError):
        load_weights(published | {f"{name}.0.weight": torch.ones(4, 3, 3, 3)})
    with pytest.raises(UnknownWeightsError):  # a generator of transposed convolutions, from noise to colours
        load_weights(published | {f"{name}.2.weight": torch.ones(4, 3, 4, 4)})
    with pytest.raises(UnknownWeightsError):
        load_weights(published | {"classifier.weight": torch.ones(2, 2)})


@pytest.mark.parametrize(
    ("config", "change", "reason"),
    [
        (Pix2PixConfig(), {"levels": 1}, "levels must be from 2 to 12"),
        (Pix2PixConfig(), {"norm": "layer"}, "norm must be one of batch, instance, none"),
        (CycleGANConfig(), {"norm": "none"}, "norm must be instance or batch"),
        (CycleGANConfig(), {"blocks": 0}, "blocks must be at least 1"),
        (CycleGANConfig(), {"channel_order": "grb"}, "channel_order must be rgb or bgr, got grb"),
        (Pix2PixConfig(), {"channel_order": "BGR"}, "channel_order must be rgb or bgr, got BGR"),
        (PatchDiscriminatorConfig(), {"norm": "layer"}, "norm must be one of"),
        (MultiscaleDiscriminatorConfig(), {"scales": 0}, "scales must be at least 1"),
    ],
)
def test_config_that_makes_no_network_is_refused(config, change, reason):
    with pytest.raises(ValueError, match=reason):
        replace(config, **change)


def test_dropout_that_is_no_truth_is_refused():
    weights = Pix2Pix(Pix2PixConfig(features=2, levels=2)).state_dict()
    with pytest.raises(WeightsError, match="dropout must be true or false, got 'yes'"):
        load_weights(weights, facts={"dropout": "yes"})


# Discriminators


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("layers", [1, 3, 5])
def test_patch_discriminator_equals_its_published_layout(norm, layers):
    published = drawn(chain(6, 4, layers, norm))
    network = PatchDiscriminator(PatchDiscriminatorConfig(channels=6, features=4, layers=layers, norm=norm))
    weights = {f"module.model.{key}": tensor for key, tensor in published.state_dict().items()}
    if norm == "instance":
        weights["module.model.3.running_mean"] = torch.ones(8)
    network.load_state_dict(dict(rename_patch_discriminator(weights)))
    x = random_batch((2, 6, 128, 192))
    y = network(x)
    assert torch.allclose(y, published(2 * x - 1), atol=1e-5)
    assert y.shape == (2, 1, 128 // 2**layers - 2, 192 // 2**layers - 2)


@pytest.mark.parametrize(("layers", "side"), [(1, 16), (2, 34), (3, 70), (4, 142), (5, 286)])
def test_patches_have_the_published_sides(layers, side):
    """Seen by the gradient of one logit; from the sides in the published documentation."""
    network = PatchDiscriminator(PatchDiscriminatorConfig(features=1, layers=layers, norm="none")).double()
    for module in network.model:
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 0.1)
    x = torch.rand(1, 3, 512, 512, dtype=torch.float64, requires_grad=True)
    y = network(x)
    y[0, 0, y.shape[2] // 2, y.shape[3] // 2].backward()
    seen = x.grad[0].abs().sum(0)
    assert int((seen.sum(0) != 0).sum()) == int((seen.sum(1) != 0).sum()) == side


@pytest.mark.parametrize("norm", NORMS)
def test_pixel_discriminator_equals_its_published_layout(norm):
    bias = norm == "instance"
    steps = [nn.Conv2d(3, 4, 1), nn.LeakyReLU(0.2), nn.Conv2d(4, 8, 1, bias=bias), NORMS[norm](8), nn.LeakyReLU(0.2)]
    published = drawn(nn.Sequential(*steps, nn.Conv2d(8, 1, 1, bias=bias)))
    network = PixelDiscriminator(PixelDiscriminatorConfig(features=4, norm=norm))
    weights = {f"net.{key}": tensor for key, tensor in published.state_dict().items()}
    network.load_state_dict(dict(rename_patch_discriminator(weights)))
    x = random_batch((2, 3, 9, 7))
    assert torch.allclose(network(x), published(2 * x - 1), atol=1e-5)
    assert network(x).shape == (2, 1, 9, 7)


def test_multiscale_discriminator_sees_the_picture_and_smaller_ones():
    network = drawn(MultiscaleDiscriminator(MultiscaleDiscriminatorConfig(features=4, layers=2)))
    x = random_batch((2, 3, 64, 96))
    logits = network(x)
    assert [tuple(each.shape) for each in logits] == [(2, 1, 14, 22), (2, 1, 6, 10), (2, 1, 2, 4)]
    inside = F.avg_pool2d(F.pad(x, (1, 1, 1, 1)), 3, stride=2)
    count = F.avg_pool2d(F.pad(torch.ones_like(x), (1, 1, 1, 1)), 3, stride=2)
    assert torch.allclose(logits[1], network.scales[1](inside / count), atol=1e-5)


@pytest.mark.parametrize(
    "config",
    [
        PatchDiscriminatorConfig(features=2, layers=layers, norm="instance") for layers in (1, 3)
    ] + [MultiscaleDiscriminatorConfig(features=2, layers=2, scales=3)],
)  # fmt: skip
def test_the_least_side_is_enough_and_half_of_it_is_not(config):
    judge = build_discriminator(config).train()
    judge(torch.rand(1, 3, config.least, config.least))
    with pytest.raises((ValueError, RuntimeError)):
        judge(torch.rand(1, 3, config.least // 2, config.least // 2))
