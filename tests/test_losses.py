"""Losses against numbers worked by hand, and against independent definitions; gradients by finite differences."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from restorer.errors import UnknownNameError
from restorer.losses.adversarial import (
    F_DIVERGENCES,
    GAN_LOSSES,
    feature_matching,
    gan_loss,
    mean_feature_matching,
)
from restorer.losses.penalties import clip_weights, one_centred, zero_centred
from restorer.losses.perceptual import gram
from restorer.losses.pixel import charbonnier, frequency, pixel_loss, total_variation

REAL, FAKE = torch.tensor([0.0, 2.0]), torch.tensor([-1.0, 1.0])
SP = {v: math.log1p(math.exp(v)) for v in (-2, -1, 0, 1, 2)}

BY_HAND = {
    "minimax": ((SP[0] + SP[-2]) / 2 + (SP[-1] + SP[1]) / 2, -(SP[-1] + SP[1]) / 2),
    "non_saturating": ((SP[0] + SP[-2]) / 2 + (SP[-1] + SP[1]) / 2, (SP[1] + SP[-1]) / 2),
    "least_squares": (0.5 + 0.5, 1.0),
    "least_squares_pearson": (0.5 + 1.0, 0.5),
    "hinge": (0.5 + 1.0, 0.0),
    "wasserstein": (-1.0, 0.0),
}
F_OF_U = {
    "total_variation": lambda u: (u - 1).abs() / 2,
    "kl": lambda u: u * u.log(),
    "reverse_kl": lambda u: -u.log(),
    "pearson": lambda u: (u - 1) ** 2,
    "neyman": lambda u: (1 - u) ** 2 / u,
    "squared_hellinger": lambda u: (u.sqrt() - 1) ** 2,
    "jensen_shannon": lambda u: -(u + 1) * ((1 + u) / 2).log() + u * u.log(),
    "gan": lambda u: u * u.log() - (u + 1) * (u + 1).log(),
}
"""The divergences themselves, table 1 of f-GAN."""


@pytest.mark.parametrize("name", BY_HAND)
def test_adversarial_losses_equal_numbers_worked_by_hand(name):
    loss = gan_loss(name)
    d, g = BY_HAND[name]
    assert loss.d(REAL, FAKE).item() == pytest.approx(d, abs=1e-6)
    assert loss.g(None, FAKE).item() == pytest.approx(g, abs=1e-6)
    assert not loss.paired


@pytest.mark.parametrize("name", F_DIVERGENCES)
def test_conjugates_are_the_supremum_that_defines_them(name):
    active, conjugate = F_DIVERGENCES[name]
    u = torch.cat([torch.logspace(-9, 9, 2_000_001, dtype=torch.float64), torch.ones(1, dtype=torch.float64)])
    for v in torch.tensor([-2.0, -0.4, 0.0, 0.7, 2.0], dtype=torch.float64):
        supremum = (u * active(v) - F_OF_U[name](u)).max()
        assert conjugate(v).item() == pytest.approx(supremum.item(), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("relativistic", [False, True])
@pytest.mark.parametrize("name", GAN_LOSSES)
def test_gradients_are_those_of_the_loss(name, relativistic):
    loss = gan_loss(name, relativistic=relativistic)
    real = torch.tensor([[0.3], [-1.2], [0.8]], dtype=torch.float64, requires_grad=True)
    fake = torch.tensor([[-0.4], [1.6], [0.1]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss.d, (real, fake))
    assert torch.autograd.gradcheck(lambda f: loss.g(real.detach(), f), (fake,))


@pytest.mark.parametrize("name", GAN_LOSSES)
def test_losses_stay_finite_at_sure_logits_unless_they_grow_by_definition(name):
    sure = torch.tensor([-40.0, 40.0])
    loss = gan_loss(name)
    assert loss.d(sure, sure).isfinite()
    assert loss.g(None, sure).isfinite()


def test_the_relativistic_average_is_esrgan_s():
    def bce(v, target):
        return F.binary_cross_entropy_with_logits(v, torch.full_like(v, target))

    loss = gan_loss("non_saturating", relativistic=True)
    against_fake, against_real = REAL - FAKE.mean(), FAKE - REAL.mean()
    assert loss.paired
    assert torch.allclose(loss.d(REAL, FAKE), (bce(against_fake, 1.0) + bce(against_real, 0.0)) / 2)
    assert torch.allclose(loss.g(REAL, FAKE), (bce(against_fake, 0.0) + bce(against_real, 1.0)) / 2)


def test_smoothing_moves_the_target_of_real_alone():
    target = torch.full_like(REAL, 0.75)
    smooth, plain = gan_loss("non_saturating", smoothing=0.25), gan_loss("non_saturating")
    change = smooth.d(REAL, FAKE) - plain.d(REAL, FAKE)
    real = F.binary_cross_entropy_with_logits(REAL, target) - F.softplus(-REAL).mean()
    assert torch.allclose(change, real)
    assert torch.equal(smooth.g(None, FAKE), plain.g(None, FAKE))
    smooth, plain = (gan_loss("hinge", relativistic=True, smoothing=share) for share in (0.25, 0.0))
    assert torch.equal(smooth.g(REAL, FAKE), plain.g(REAL, FAKE))
    assert not torch.equal(smooth.d(REAL, FAKE), plain.d(REAL, FAKE))
    v = REAL.clone().requires_grad_()
    gan_loss("least_squares", smoothing=0.25).d(v, FAKE).backward()
    assert torch.allclose(v.grad, (REAL - 0.75) / 2)


def test_several_scales_are_averaged():
    loss = gan_loss("hinge")
    both = loss.d([REAL, FAKE], [FAKE, REAL])
    assert torch.allclose(both, (loss.d(REAL, FAKE) + loss.d(FAKE, REAL)) / 2)
    assert torch.allclose(loss.g(None, [FAKE, REAL]), -(FAKE.mean() + REAL.mean()) / 2)


def test_a_loss_of_unknown_name_says_which_is_meant():
    with pytest.raises(UnknownNameError, match="did you mean 'wasserstein'"):
        gan_loss("wassertein")
    with pytest.raises(UnknownNameError, match="did you mean 'charbonnier'"):
        pixel_loss("charbonier", REAL, FAKE)


def test_feature_matching_holds_real_still():
    real, fake = torch.tensor([[1.0, 5.0], [3.0, 1.0]], requires_grad=True), torch.zeros(2, 2, requires_grad=True)
    assert feature_matching([real, real], [fake, real.detach() + 1]).item() == pytest.approx((2.5 + 1) / 2)
    value = mean_feature_matching(real, fake)
    assert value.item() == pytest.approx(2.5)
    value.backward()
    assert real.grad is None


def test_pixel_losses_equal_numbers_worked_by_hand():
    x, y = torch.tensor([[[[0.0, 3.0], [0.0, 0.0]]]]), torch.zeros(1, 1, 2, 2)
    assert pixel_loss("l1", x, y).item() == pytest.approx(0.75)
    assert pixel_loss("l2", x, y).item() == pytest.approx(2.25)
    assert charbonnier(x, y, eps=4.0).item() == pytest.approx((5 + 3 * 4) / 4)
    # a single value of 3 in 2x2: every coefficient has magnitude 3 / 2 and is real; half the values are imaginary parts
    assert frequency(x, y).item() == pytest.approx(0.75)
    assert total_variation(x).item() == pytest.approx((0 + 3) / 2 + (3 + 0) / 2)
    assert total_variation(torch.zeros(1, 1, 1, 1)).item() == 0


def test_gram_matrices_equal_numbers_worked_by_hand():
    x = torch.tensor([[[[1.0, 2.0]], [[0.0, 3.0]]]])  # two channels of two pixels
    assert torch.allclose(gram(x), torch.tensor([[[5.0, 6.0], [6.0, 9.0]]]) / 4)


def test_r1_is_half_the_squared_gradient_over_everything():
    x = torch.tensor([[[[1.0, 2.0]]], [[[0.0, -3.0]]]])
    half_square = zero_centred(lambda x: (x**2).sum(dim=(1, 2, 3)) * 2, x)  # gradient 4x
    assert half_square.item() == pytest.approx(((16 * 5) + (16 * 9)) / 2 / 2)
    two_scales = zero_centred(lambda x: [x.sum(dim=(1, 2, 3)), 2 * x.sum(dim=(1, 2, 3))], x)  # gradient 3
    assert two_scales.item() == pytest.approx(9 * 2 / 2)


def test_the_gradient_penalty_takes_its_norm_over_all_dimensions():
    weight = torch.tensor([[[3.0]], [[4.0]]])  # two channels: the norm is 5, not one a channel
    judge = lambda x: (x * weight).sum(dim=(1, 2, 3))  # noqa: E731
    real, fake = torch.rand(2, 2, 1, 1), torch.rand(2, 2, 1, 1)
    assert one_centred(judge, real, fake, torch.Generator()).item() == pytest.approx(16)
    seen = []
    one_centred(lambda x: (seen.append(x), x.sum(dim=(1, 2, 3)))[1], real, fake, torch.Generator())
    place = (seen[0] - real) / (fake - real)
    assert torch.allclose(place[:, 0], place[:, 1], atol=1e-5)  # one place for each picture
    assert 0 <= place.min() <= place.max() <= 1


def test_penalties_reach_the_weights_of_the_judge():
    layer = nn.Linear(3, 1)
    zero_centred(layer, torch.rand(4, 3)).backward()
    assert torch.allclose(layer.weight.grad, layer.weight)  # d/dw of |w|^2 / 2


def test_clipping_cuts_every_weight():
    layer = nn.Linear(3, 1)
    nn.init.constant_(layer.weight, 7.0)
    clip_weights(layer, 0.01)
    assert layer.weight.abs().max() <= 0.01
