"""Networks that look at whole pictures, walked in bands of rows: the same numbers, and far less held at once."""

from fractions import Fraction

import pytest
import torch
from cases import CASES, of_size, random_batch, random_network, traits_of
from torch import nn
from torch.nn import functional as F

from restorer.engines.eager import EagerEngine
from restorer.networks.bands import DOUBLED, HALVED, Bands, Each, Held, PictureRows, Through
from restorer.networks.spec import get_spec, load_weights
from restorer.networks.translation_layers import InstanceNorm, PictureNorm, statistics

WALKED = [case for case in CASES if get_spec(case.name).walk is not None]


def rows_of(x):
    return PictureRows(x.shape[2], lambda top, bottom: x[:, :, top:bottom].clone())


def whole(bands, made):
    return torch.cat([band for _, band in bands.of(made)], 2)


def test_every_network_that_translates_by_the_whole_picture_can_be_walked():
    blind = {
        case.name
        for case in CASES
        if (spec := get_spec(case.name)).task == "translate" and traits_of(case).radius is None and spec.walk is None
    }
    assert not blind


@pytest.mark.parametrize("case", WALKED, ids=str)
@pytest.mark.parametrize("rows", [1, 5, 16, 1000])
def test_a_walk_gives_what_the_network_gives(case, rows):
    traits = traits_of(case)
    x = random_batch(of_size(traits, 1, 11, 6)) * 2 - 1
    network = random_network(case)
    with torch.inference_mode():
        expected = network(x)
        bands = Bands(rows)
        made = whole(bands, get_spec(case.name).walk(network, rows_of(x), bands))
    assert made.shape == expected.shape
    assert expected.std() > 1e-3, "an output that is flat shows nothing"
    assert (made - expected).abs().max() < 1e-5


@pytest.mark.parametrize("case", WALKED, ids=str)
def test_a_tight_walk_stays_above_forty_decibels(case):
    x = random_batch(of_size(traits_of(case), 1, 11, 6)) * 2 - 1
    network = random_network(case)
    with torch.inference_mode():
        bands = Bands(9, tight=True)
        made = whole(bands, get_spec(case.name).walk(network, rows_of(x), bands))
        error = (made - network(x)).square().mean() / 4  # in [0, 1]
    assert -10 * error.log10() > 40


@pytest.mark.parametrize("rows", [1, 3, 8])
@pytest.mark.parametrize(
    ("part", "radius", "scale"),
    [
        (nn.Conv2d(2, 3, 7, padding=3, padding_mode="reflect"), 3, Fraction(1)),
        (nn.Conv2d(2, 3, 3, stride=2, padding=1), 2, HALVED),
        (nn.Conv2d(2, 3, 4, stride=2, padding=1), 2, HALVED),
        (nn.ConvTranspose2d(2, 3, 4, stride=2, padding=1), 1, DOUBLED),
        (nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1, output_padding=1), 1, DOUBLED),
    ],
    ids=["mirrored", "halves by three", "halves by four", "doubles by four", "doubles by three"],
)
def test_a_part_reads_the_rows_around_a_band_that_it_needs(rows, part, radius, scale):
    x = torch.randn(1, 2, 16, 5, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        made = whole(Bands(rows), Through(rows_of(x), part, radius=radius, scale=scale))
        assert torch.allclose(made, part(x), atol=1e-6)


def test_too_small_a_radius_shows():
    x = torch.randn(1, 2, 16, 5, generator=torch.Generator().manual_seed(0))
    part = nn.Conv2d(2, 3, 5, padding=2)
    with torch.inference_mode():
        made = whole(Bands(4), Through(rows_of(x), part, radius=1))
        assert not torch.allclose(made, part(x), atol=1e-3)


def test_a_norm_is_that_of_the_whole_map_however_far_it_is_from_zero():
    x = torch.randn(1, 4, 37, 9, generator=torch.Generator().manual_seed(0)).double()
    x = (x * torch.tensor([1.0, 10, 0.1, 3])[:, None, None] + torch.tensor([0.0, 500, -3, 1])[:, None, None]).float()
    x[:, :, 20:] += 7  # bands differ
    batch = PictureNorm(4).eval().requires_grad_(False)
    batch.weight.copy_(torch.tensor([1.0, 2, -1, 0.5]))
    batch.bias.copy_(torch.tensor([0.0, 1, 2, -1]))
    with torch.inference_mode():
        for norm, weight, bias in ((InstanceNorm(), None, None), (batch, batch.weight.double(), batch.bias.double())):
            made = whole(Bands(5), Bands(5).normed(rows_of(x), norm))
            expected = F.instance_norm(x.double(), None, None, weight, bias)
            assert (made - expected).abs().max() < 2e-4, "as near as float32 is at 500 times the deviation"


def test_a_map_may_be_made_over_the_one_that_it_is_made_of():
    x = torch.randn(1, 2, 23, 5, generator=torch.Generator().manual_seed(0))
    part = nn.Conv2d(2, 2, 3, padding=1)
    with torch.inference_mode():
        for rows in (1, 4, 100):
            before = Held(x.clone(), Fraction(1), torch.float32)
            after = Bands(rows).held(Through(before, part, radius=1), over=before)
            assert isinstance(after, Held)
            assert after.values is before.values, "it takes no memory of its own"
            assert torch.allclose(after.values, part(x), atol=1e-6)


def test_no_more_than_a_band_of_the_full_size_is_ever_there():
    """Of a network with 64 channels at full size, walked in bands of 8 rows of 512."""
    seen = []

    def noted(x):
        seen.append(x.shape[2])
        return x

    x = torch.rand(1, 1, 512, 8)
    made = Each(noted, Through(rows_of(x), nn.Conv2d(1, 4, 7, padding=3), radius=3))
    with torch.inference_mode():
        whole(Bands(8), Through(made, nn.Conv2d(4, 1, 3, padding=1), radius=1))
    assert max(seen) == 10


@pytest.mark.parametrize("case", WALKED[:1], ids=str)
def test_an_engine_walks_in_its_own_precision_and_exactly_when_asked(case):
    model = load_weights(dict(random_network(case).state_dict()), facts=case.facts)
    x = random_batch(of_size(model.traits, 1, 11, 6))
    engine = EagerEngine(model, device="cpu", precision="bf16", self_check=False)
    exact = EagerEngine(model, device="cpu", precision="fp32").run({"image": x})["image"]
    errors = []
    for flag in (False, True):
        bands = [band for _, band in engine.walk(rows_of(x), Bands(7), exact=flag)]
        errors.append((torch.cat(bands, 2) - exact).abs().max().item())
    assert errors[1] < 1e-5
    assert 1e-5 < errors[0] < 0.1
    assert not torch.is_inference_mode_enabled()


def test_statistics_are_taken_where_the_map_is():
    mean, variance = statistics(torch.empty(1, 2, 4000, 200, device="meta"), torch.float32)
    assert mean.device.type == variance.device.type == "meta"
