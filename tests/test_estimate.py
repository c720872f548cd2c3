"""What a run will take, said before it: all that its players and their critics keep in memory."""

import re
from dataclasses import replace

import pytest
from face_players import recipe

from restorer.networks.arcface import ArcFace, ArcFaceConfig
from restorer.training.estimate import estimate
from restorer.training.recipes import changed, get_recipe


def kept(one):
    """MB for gradients."""
    (told,) = re.findall(r"([\d,.]+) kept for gradients", list(estimate(one))[3])
    return float(told.replace(",", ""))


def test_what_is_kept_grows_with_the_batch_and_holds_no_weights_that_learn():
    """Without frozen networks all of it belongs to pictures."""
    one = changed(get_recipe("srresnet_x4"), {"train.batch": 4})
    assert kept(changed(one, {"train.batch": 8})) == pytest.approx(2 * kept(one), abs=0.2)


def test_the_discriminators_of_eyes_and_mouth_are_in_the_memory():
    """By hand: eyes of 64-pixel faces have 10 pixels a side, mouths 15; each convolution keeps what it is given."""
    weights = replace(recipe().weights, component_features=64)
    without = replace(weights, component=0, component_style=0)
    f, values = 64, 0
    for whole, half, quarter in ((10, 5, 2), (10, 5, 2), (15, 7, 3)):
        values += 3 * whole**2 + f * whole**2 + 2 * (2 * f) * half**2 + 2 * (4 * f) * quarter**2
    least = values * recipe().train.batch * 4 / 1e6
    assert least - 0.1 <= kept(recipe(weights=weights)) - kept(recipe(weights=without)) <= 3 * least


def test_the_network_that_tells_people_apart_is_in_the_memory():
    """Its weights alone are 112 MB; its file need not be there."""
    weights = replace(recipe().weights, identity=10.0, identity_network="nowhere.safetensors")
    least = sum(each.numel() for each in ArcFace(ArcFaceConfig()).parameters() if each.dim() > 1) * 4 / 1e6
    assert least > 100
    assert kept(recipe(weights=weights)) - kept(recipe()) >= least - 0.1
