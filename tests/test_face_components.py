"""Eyes and mouth of a face: the discriminators that judge them, where they are, cut out, and how alike two are."""

import math
from itertools import pairwise

import pytest
import torch
from face_players import gfpgans
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import roi_align

from restorer.losses.components import PARTS, Box, component_style, crop, places
from restorer.networks.face_discriminators import ComponentDiscriminator, ComponentDiscriminatorConfig
from restorer.networks.style_dialects import Renaming, translated
from restorer.pipeline.faces.align import TEMPLATE

HALVING = (2, 4)
"""Layers of the small discriminators that halve."""
PUBLISHED = (
    Renaming(r"(conv[1-5])\.[01]\.weight", r"\1.weight", math.sqrt(2), True),
    Renaming(r"(conv[1-5])\.[12]\.bias", r"\1.bias", math.sqrt(2)),
    Renaming(r"final_conv\.0\.weight", "last.weight", 1.0, True),
    Renaming(r"final_conv\.0\.bias", "last.bias"),
)
"""What becomes of gfpgan's files of them."""


def published_weights(features: int) -> dict[str, Tensor]:
    """A small discriminator as gfpgan's files hold it, with random biases."""
    rng, found = torch.Generator().manual_seed(3), {}
    channels = (3, *(features * times for times in (1, 2, 2, 4, 4)), 1)
    for number, (into, out) in enumerate(pairwise(channels), start=1):
        layer, first = f"conv{number}" if number < 6 else "final_conv", int(number in HALVING)
        found[f"{layer}.{first}.weight"] = torch.randn(out, into, 3, 3, generator=rng)
        found[f"{layer}.{first + (number < 6)}.bias"] = torch.randn(out, generator=rng)
    return found


def as_published(weights: dict[str, Tensor], x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """(N, 3, h, w) in [-1, 1]: equalised weights, gains after activations, and the filter by shifted sums."""
    seen = []
    for number in range(1, 6):
        halves = number in HALVING
        weight, bias = weights[f"conv{number}.{int(halves)}.weight"], weights[f"conv{number}.{int(halves) + 1}.bias"]
        if halves:
            x, (height, width) = F.pad(x, (2, 2, 2, 2)), x.shape[-2:]
            x = sum(t / 8 * x[:, :, at : at + height + 1] for at, t in enumerate((1, 3, 3, 1)))
            x = sum(t / 8 * x[:, :, :, at : at + width + 1] for at, t in enumerate((1, 3, 3, 1)))
        x = F.conv2d(x, weight / math.sqrt(weight[0].numel()), stride=1 + halves, padding=int(not halves))
        x = F.leaky_relu(x + bias[:, None, None], 0.2) * math.sqrt(2)
        seen.append(x)
    last = weights["final_conv.0.weight"]
    logits = F.conv2d(x, last / math.sqrt(last[0].numel()), weights["final_conv.0.bias"], padding=1)
    return logits, [seen[2], seen[4]]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("side", [20, 45])
@pytest.mark.parametrize("by", ["hand", "gfpgan"])
def test_component_discriminator_is_the_published_one_with_its_factors_in_the_weights(monkeypatch, by, side):
    weights = published_weights(64)
    x = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    if by == "gfpgan":
        theirs = gfpgans(monkeypatch, "archs.gfpganv1_arch").FacialComponentDiscriminator()
        theirs.load_state_dict(weights)
        expected, levels = theirs(2 * x - 1, return_feats=True)
    else:
        expected, levels = as_published(weights, 2 * x - 1)
    network = ComponentDiscriminator(ComponentDiscriminatorConfig())
    network.load_state_dict(translated(weights, PUBLISHED))
    logits, features = network.judged(x)
    assert logits.shape == (1, 1, side // 4, side // 4) and network(x).equal(logits)
    for ours, other in zip((logits, *features), (expected, *levels), strict=True):
        torch.testing.assert_close(ours, other, atol=1e-4, rtol=1e-5)


def test_rates_are_what_the_published_network_multiplies_with():
    network = ComponentDiscriminator(ComponentDiscriminatorConfig(features=4))
    ones = {name: torch.ones_like(tensor) for name, tensor in published_weights(4).items()}
    factors = {name: float(tensor.flatten()[0]) for name, tensor in translated(ones, PUBLISHED).items()}
    assert network.rates() == pytest.approx(factors)
    assert network.rates()["conv1.weight"] == pytest.approx(math.sqrt(2 / 27))
    assert network.rates()["last.weight"] == pytest.approx(1 / 12)  # 9 places, 16 channels
    assert (network.rates()["conv5.bias"], network.rates()["last.bias"]) == (pytest.approx(math.sqrt(2)), 1)
    assert network.rates().keys() == dict(network.named_parameters()).keys()


def test_places_are_those_of_the_template_made_symmetric():
    """By hand: eyes are 125.92139 apart around 255.5, at the mean of their heights; so are the mouth's corners."""
    large, half = places(512), places(256)
    middle = 255.5 - 125.92139 / 2
    assert large["left_eye"].box == pytest.approx((middle - 40, 200.07034, middle + 40, 280.07034))
    assert large["mouth"].box == pytest.approx((195.5, 311.280805, 315.5, 431.280805))
    assert [large[part].side for part in PARTS] == [80, 80, 120]
    assert half["left_eye"].box.left == pytest.approx((middle + 0.5) / 2 - 0.5 - 20)  # centres at whole numbers
    assert [places(64)[part].side for part in PARTS] == [10, 10, 15]
    assert abs(middle - TEMPLATE[0][0]) < 0.5 and abs(255.5 - (TEMPLATE[3][0] + TEMPLATE[4][0]) / 2) < 2


@pytest.mark.parametrize("side", [32, 64, 512])
def test_components_are_interpolated_at_the_middle_of_each_pixel(side):
    faces = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    for place in places(side).values():
        (left, top, right, bottom), count = place
        middles = (torch.arange(count, dtype=torch.float64) + 0.5) / count
        x, y = left + middles * (right - left), top + middles * (bottom - top)
        grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1) * 2 / (side - 1) - 1
        expected = F.grid_sample(faces.double(), grid.expand(2, -1, -1, -1), align_corners=True)
        torch.testing.assert_close(crop(faces, *place), expected.float(), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("side", "count"), [(32, None), (64, None), (512, None), (512, 17)])
def test_crop_and_its_gradient_are_roi_align_s(side, count):
    """Which shifts by no half pixel unless asked to; worked out in float64."""
    faces = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    for box, usual in places(side).values():
        wanted = count or usual
        samples = math.ceil(usual / wanted)
        ours, theirs = faces.clone().requires_grad_(), faces.double().requires_grad_()
        boxes = torch.tensor([[number, *box] for number in range(2)], dtype=torch.float64)
        one, other = crop(ours, box, wanted), roi_align(theirs, boxes, wanted, sampling_ratio=samples)
        torch.testing.assert_close(one, other.float(), atol=1e-5, rtol=0)
        towards = torch.randn(one.shape, generator=torch.Generator().manual_seed(1))
        one.backward(towards)
        other.backward(towards.double())
        torch.testing.assert_close(ours.grad, theirs.grad.float(), atol=1e-5, rtol=0)


def test_what_is_cut_out_loses_nothing_to_half_precision_around_it():
    faces, (box, side) = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)), places(64)["mouth"]
    exact = crop(faces, box, side)
    with torch.autocast("cpu", torch.bfloat16):
        assert crop(faces, box, side).equal(exact)
        half = crop(faces.bfloat16(), box, side)
    assert half.dtype == torch.bfloat16 and half.equal(crop(faces.bfloat16().float(), box, side).bfloat16())


def test_a_smaller_crop_is_the_mean_of_as_many_samples_as_pixels():
    """Squares, between which the line is at 0.5, 2.5, 6.5, 12.5, ... ; two of them make a pixel."""
    squares = (torch.arange(9.0) ** 2).expand(1, 1, 9, 9)
    assert crop(squares, Box(0, 0, 8, 8), 4)[0, 0].tolist() == [[1.5, 9.5, 25.5, 49.5]] * 4


def test_a_mirrored_face_has_its_components_mirrored():
    faces = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    where = places(64)
    for part, other in (("left_eye", "right_eye"), ("right_eye", "left_eye"), ("mouth", "mouth")):
        torch.testing.assert_close(crop(faces.flip(-1), *where[part]), crop(faces, *where[other]).flip(-1))


def test_style_is_the_distance_of_gram_matrices():
    """By hand: (1 + 4) / 2 and (9 + 16) / 2 are 10 apart, 4 and 1 are 3 apart; half of the first, all of the second."""
    fake = [torch.tensor([[[[1.0, 2.0]]]], requires_grad=True), torch.tensor([[[[2.0]]]])]
    real = [torch.tensor([[[[3.0, 4.0]]]], requires_grad=True), torch.tensor([[[[1.0]]]])]
    loss = component_style(fake, real)
    loss.backward()
    assert loss.item() == 8
    assert fake[0].grad is not None and real[0].grad is None
