"""StyleGAN2's discriminator: its published size, its look at how alike pictures are, and BasicSR's answers."""

import re

import pytest
import test_style_parity as parity
import torch
from torch import Tensor, nn

from restorer.errors import WeightsError
from restorer.networks.style_discriminator import (
    StyleDiscriminator,
    StyleDiscriminatorConfig,
    deviation,
    rename_style_discriminator,
)

archs = parity.archs
pytestmark = pytest.mark.filterwarnings("ignore")
TINY = StyleDiscriminatorConfig(widths=(16, 16, 16, 12))


def test_the_size_is_what_nvidias_code_prints_when_training_begins():
    """Of configuration F at 1024 pixels."""
    widths = (512, 512, 512, 512, 512, 256, 128, 64, 32)
    with torch.device("meta"):
        network = StyleDiscriminator(StyleDiscriminatorConfig(widths=widths))
    assert parameters(network) == 29_012_513


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_the_default_size_is_basicsrs_at_256_pixels(archs):
    with torch.device("meta"):
        theirs = archs("basicsr", "stylegan2_arch").StyleGAN2Discriminator(256, channel_multiplier=2)
        ours = StyleDiscriminator(StyleDiscriminatorConfig())
    assert (ours.config.side, parameters(ours)) == (256, parameters(theirs))


def test_one_side_of_pictures_is_taken_and_every_weight_learns():
    torch.manual_seed(0)
    network = StyleDiscriminator(TINY)
    assert (TINY.side, TINY.channels) == (32, 3)
    logits = network(torch.rand(4, 3, 32, 32))
    assert logits.shape == (4, 1)
    logits.square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters())
    with pytest.raises(AssertionError, match="takes 32x32"):
        network(torch.rand(4, 3, 64, 64))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"widths": (8,)}, "2 to 10 levels"),
        ({"statistics": 3}, "statistics must divide"),
        ({"group": 0}, "group must be at least 1"),
        ({"resampling": "cubic"}, "resampling must be one of bilinear, fir"),
    ],
)
def test_configs_that_cannot_be_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        StyleDiscriminatorConfig(**{"widths": (16, 16), **change})


def test_pictures_are_compared_within_their_group():
    """Of 8 pictures, 0, 2, 4, 6 are one group, the others one; of 6, by threes; of 5, each by itself."""
    x = torch.zeros(8, 4, 2, 2)
    x[0, :2], x[2, :2] = 2, -2  # variance (4 + 4) / 4 in half of the channels
    x[1], x[3] = 3, 3  # mean 1.5, variance 2.25
    halves = deviation(x, group=4, statistics=2)
    assert halves.shape == (8, 2, 2, 2)
    expected = torch.tensor([[2**0.5, 1e-4], [1.5, 1.5]]).repeat(4, 1)  # 1e-4: the root of what keeps it off zero
    torch.testing.assert_close(halves, expected[:, :, None, None].expand(-1, -1, 2, 2))
    torch.testing.assert_close(deviation(x, group=4)[:2, 0, 0, 0], torch.tensor([(2**0.5 + 1e-4) / 2, 1.5]))
    threes = torch.zeros(6, 1, 1, 1)
    threes[0] = 3  # of 0, 2, 4: mean 1, variance (4 + 1 + 1) / 3
    torch.testing.assert_close(deviation(threes, group=4).flatten(), torch.tensor([2**0.5, 1e-4]).repeat(3))
    torch.testing.assert_close(deviation(torch.rand(5, 2, 1, 1), group=4), torch.full((5, 1, 1, 1), 1e-4))


def test_a_part_of_a_batch_is_compared_with_itself_alone():
    torch.manual_seed(0)
    network = StyleDiscriminator(TINY).eval()
    x = torch.rand(8, 3, 32, 32)
    with torch.no_grad():
        whole, parts = network(x), torch.cat([network(x[:4]), network(x[4:])])
        again = network(x[[2, 3, 0, 1, 4, 5, 6, 7]])
    assert (whole - parts).abs().max() > 1e-4
    torch.testing.assert_close(again, whole[[2, 3, 0, 1, 4, 5, 6, 7]])  # 0 and 2 are of one group, so are 1 and 3


@pytest.mark.parametrize("resampling", ["fir", "bilinear"])
def test_answers_and_gradients_of_a_penalty_are_theirs(archs, monkeypatch, resampling):
    """Theirs take [-1, 1], so that a gradient at the picture is half of ours, and R1 a quarter."""
    theirs = basicsr(archs, monkeypatch, resampling)
    ours = StyleDiscriminator(StyleDiscriminatorConfig(widths=(16,) * 4, resampling=resampling))
    ours.load_state_dict(rename_style_discriminator(theirs.state_dict()))
    for count in (8, 4, 3, 1):
        x = torch.rand(count, 3, 32, 32)
        with torch.no_grad():
            torch.testing.assert_close(ours(x), theirs(2 * x - 1), atol=1e-5, rtol=1e-4)
    x = torch.rand(8, 3, 32, 32, requires_grad=True)
    y = (2 * x - 1).detach().requires_grad_()
    r1 = [torch.autograd.grad(net(at).sum(), at, create_graph=True)[0] for net, at in ((ours, x), (theirs, y))]
    torch.testing.assert_close(r1[0], 2 * r1[1], atol=1e-6, rtol=1e-3)
    (r1[0].square().sum() / 4).backward()
    r1[1].square().sum().backward()
    grads = {name: parameter.grad for name, parameter in theirs.named_parameters() if parameter.grad is not None}
    factors = ours.rates()
    for name, grad in rename_style_discriminator(grads).items():  # multiplied with the factor once, and needs it twice
        mine = ours.get_parameter(name).grad * factors[name] ** 2
        torch.testing.assert_close(mine, grad, atol=1e-4 * float(grad.abs().max()), rtol=1e-3)
    assert len(grads) > 10


def basicsr(archs, monkeypatch, resampling: str = "fir") -> nn.Module:
    """Its discriminator with weights at random; that with bilinear resampling has other blocks, which gfpgan brings."""
    torch.manual_seed(0)
    module = archs("basicsr", "stylegan2_arch")
    if resampling == "bilinear":
        bilinear = archs("gfpgan", "stylegan2_bilinear_arch").ResBlock
        monkeypatch.setattr(module, "ResBlock", lambda into, out, kernel: bilinear(into, out))
    return parity.random(module.StyleGAN2Discriminator(32, narrow=1 / 32))


def test_rosinalitys_and_nvidias_files_answer_the_same(archs, monkeypatch):
    """The same numbers under the names that the three projects give them; a kernel among them is the usual one."""
    weights = basicsr(archs, monkeypatch).state_dict()
    ours = rename_style_discriminator(weights)
    one = {key.replace("conv_body", "convs"): tensor for key, tensor in weights.items()}
    one |= {"convs.1.conv2.0.kernel": parity.TAPS, "convs.1.skip.0.kernel": parity.TAPS}
    other = {nvidia(key): tensor for key, tensor in weights.items()}
    other |= {"b32.resample_filter": parity.TAPS, "b8.conv1.resample_filter": parity.TAPS}
    other["b4.conv.resample_filter"] = parity.TAPS
    for foreign, kernel in ((one, "convs.1.conv2.0.kernel"), (other, "b8.conv1.resample_filter")):
        renamed = rename_style_discriminator(foreign)
        assert renamed.keys() == ours.keys()
        assert all(torch.equal(renamed[key], ours[key]) for key in ours)
        with pytest.raises(WeightsError, match=r"another filter than \[1, 3, 3, 1\]"):
            rename_style_discriminator(foreign | {kernel: torch.ones(4, 4)})


def nvidia(key: str) -> str:
    """A key of basicsr's for 32 pixels -> NVIDIA's, by the published table."""
    ends = {"final_conv.0": "b4.conv", "final_conv.1": "b4.conv", "final_linear.0": "b4.fc", "final_linear.1": "b4.out"}
    layer, _, part = key.rpartition(".")
    if layer in ends:
        return f"{ends[layer]}.{part}"
    if match := re.fullmatch(r"conv_body\.(\d)\.(conv1|conv2|skip)\.\d", layer):
        name = {"conv1": "conv0", "conv2": "conv1", "skip": "skip"}[match[2]]
        return f"b{2 ** (5 - int(match[1]) + 1)}.{name}.{part}"
    return f"b32.fromrgb.{part}"


def test_own_names_stay_and_names_at_two_sides_are_refused():
    own = StyleDiscriminator(TINY).state_dict()
    assert rename_style_discriminator(own) is own
    skipping: dict[str, Tensor] = {f"b{side}.fromrgb.weight": torch.zeros(4, 3, 1, 1) for side in (8, 16)}
    with pytest.raises(WeightsError, match=r"from_rgb\.weight under two names"):
        rename_style_discriminator(skipping | {"b4.out.weight": torch.zeros(1, 4)})
