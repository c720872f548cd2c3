"""What the discriminator is shown: each change does what it says, keeps gradients, and ADA finds its probability."""

import pytest
import torch

from restorer.errors import UnknownNameError
from restorer.training.adversary import Adversary, AdversaryConfig
from restorer.training.augment import (
    ADA_CHANGES,
    DIFF_AUGMENT,
    AdaptiveConfig,
    adapted,
    adaptive_augment,
    brightness,
    contrast,
    cutout,
    diff_augment,
    flip,
    quarter_turn,
    saturation,
    translation,
)
from restorer.training.objective import Now


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(1)


X = torch.rand(64, 3, 8, 8, generator=rng())


def test_brightness_is_one_number_a_picture():
    change = brightness(X, rng()) - X
    assert torch.allclose(change, change[:, :1, :1, :1].expand_as(change), atol=1e-6)
    assert -0.25 <= change.min() < -0.2
    assert 0.2 < change.max() <= 0.25


def test_saturation_keeps_the_mean_of_channels_and_contrast_that_of_the_picture():
    assert torch.allclose(saturation(X, rng()).mean(dim=1), X.mean(dim=1), atol=1e-6)
    changed = contrast(X, rng())
    assert torch.allclose(changed.mean(dim=(1, 2, 3)), X.mean(dim=(1, 2, 3)), atol=1e-6)
    ratio = changed.std(dim=(1, 2, 3)) / X.std(dim=(1, 2, 3))
    assert 0.5 <= ratio.min() < 0.6
    assert 1.4 < ratio.max() <= 1.5


def test_translation_moves_by_whole_pixels_and_fills_with_grey():
    moved = translation(X, rng(), ratio=0.25)
    shifts = set()
    for before, after in zip(X, moved, strict=True):
        padded = torch.nn.functional.pad(before, (2, 2, 2, 2), value=0.5)
        fits = [
            (dy, dx)
            for dy in range(5)
            for dx in range(5)
            if torch.allclose(padded[:, dy : dy + 8, dx : dx + 8], after, atol=1e-6)
        ]
        assert len(fits) == 1
        shifts.add(fits[0])
    assert len(shifts) > 15  # of 25


def test_cutout_covers_half_of_each_side_with_grey():
    cut = cutout(X, rng()) == 0.5
    assert torch.equal(cut.all(dim=1), cut.any(dim=1))
    covered = cut[:, 0].sum(dim=(1, 2))
    assert covered.max() == 16
    assert covered.min() >= 4  # a corner at least


def test_flips_and_turns_are_among_what_they_can_be():
    flipped = flip(X, rng())
    mirrored = [torch.equal(a, b.flip(-1)) for a, b in zip(flipped, X, strict=True)]
    assert all(m or torch.equal(a, b) for m, a, b in zip(mirrored, flipped, X, strict=True))
    assert 16 < sum(mirrored) < 48
    kinds = [
        next(n for n in range(4) if torch.equal(a, b.rot90(n, dims=(-2, -1))))
        for a, b in zip(quarter_turn(X, rng()), X, strict=True)
    ]
    assert set(kinds) == {0, 1, 2, 3}


@pytest.mark.parametrize("policy", ["color", "color,translation,cutout", "ada"])
def test_gradients_pass_through(policy):
    x = X[:4].clone().requires_grad_()
    made = adaptive_augment(x, torch.tensor(0.5), rng()) if policy == "ada" else diff_augment(x, policy, rng())
    made.sum().backward()
    assert x.grad.isfinite().all()
    assert x.grad.abs().sum() > 0


def test_probability_0_changes_nothing_and_1_everything():
    assert torch.equal(adaptive_augment(X, torch.tensor(0.0), rng()), X)
    assert (adaptive_augment(X, torch.tensor(1.0), rng()) != X).flatten(1).any(dim=1).all()
    assert len(ADA_CHANGES) == 6


def test_a_policy_of_unknown_name_says_which_is_meant():
    with pytest.raises(UnknownNameError, match="did you mean 'cutout'"):
        diff_augment(X, "cutuot", rng())
    assert set(DIFF_AUGMENT) == {"color", "translation", "cutout"}


def test_ada_s_probability_rises_while_real_is_told_for_sure_and_falls_again():
    config = AdaptiveConfig(target=0.6, pictures=40)
    p = torch.zeros(())
    p = adapted(p, torch.ones(4), config)
    assert p.item() == pytest.approx(0.1)
    p = adapted(p, torch.tensor([1.0, -1.0, 1.0, 1.0]), config)  # mean sign 0.5
    assert p.item() == pytest.approx(0.0)
    assert adapted(p, -torch.ones(4), config).item() == 0


def test_the_adversary_remembers_ada_and_lets_noise_fade():
    adversary = Adversary(AdversaryConfig(augment="ada", ada_pictures=8, loss="hinge"))
    now = Now(step=0, rng=rng())
    adversary.d_term(lambda x: x.mean(dim=(1, 2, 3)) + 1, X[:4], X[:4], now)
    assert adversary.state_dict()["probability"].item() == pytest.approx(0.5)
    noisy = Adversary(AdversaryConfig(instance_noise=0.2, noise_steps=100))
    for step, deviation in ((0, 0.2), (50, 0.1), (100, 0.0)):
        change = noisy.shown(X, Now(step=step, rng=rng())) - X
        assert change.std().item() == pytest.approx(deviation, rel=0.03)
