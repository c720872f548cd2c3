"""Recipes: their papers' numbers, one way to change them, and errors that say what is meant."""

import json
from dataclasses import replace

import pytest

from restorer.errors import UnknownNameError, UsageError
from restorer.networks.srgan import SRGANConfig
from restorer.training.estimate import estimate
from restorer.training.recipe import as_data, flattened, override
from restorer.training.recipes import RECIPES, changed, get_recipe


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_has_its_name_a_docstring_and_survives_being_data(name, tmp_path):
    recipe = get_recipe(name)
    assert recipe.name == name
    assert RECIPES[name].__doc__
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(as_data(override(recipe, {"train.steps": 7}))), encoding="utf-8")
    assert get_recipe(str(path)) == override(recipe, {"train.steps": 7})


def test_papers_numbers():
    srgan, esrgan = get_recipe("srgan_x4"), get_recipe("esrgan_x4")
    assert (srgan.weights.adversarial, srgan.weights.perceptual, srgan.weights.pixel) == (1e-3, 0.006, 0)
    assert srgan.features.layers == (("relu5_4", 1.0),)
    assert (srgan.data.crop, srgan.train.batch, srgan.train.steps) == (96, 16, 200_000)
    assert (esrgan.weights.pixel, esrgan.weights.perceptual, esrgan.weights.adversarial) == (1e-2, 1.0, 5e-3)
    assert esrgan.adversary.relativistic
    assert esrgan.schedule.milestones == (50_000, 100_000, 200_000, 300_000)
    assert esrgan.config.blocks == 23


def test_settings_are_read_from_text_by_their_type():
    recipe = override(
        get_recipe("srgan_x4"),
        {
            "train.g_rate": "2e-4",
            "train.betas": "[0, 0.9]",
            "schedule.milestones": "[10, 20]",
            "features.layers": '[["conv1_2", 0.1], ["conv5_4", 1]]',
            "data.flip": "false",
            "start": "12",
            "config.blocks": "8",
            "discriminator.features": 32,
            "train.order": "dg",
        },
    )
    assert recipe.train.g_rate == 2e-4
    assert recipe.train.betas == (0.0, 0.9)
    assert recipe.schedule.milestones == (10, 20)
    assert recipe.features.layers == (("conv1_2", 0.1), ("conv5_4", 1.0))
    assert recipe.data.flip is False
    assert recipe.start == "12"
    assert recipe.config.blocks == 8
    assert recipe.discriminator.features == 32
    assert recipe.train.order == "dg"


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("srresnet_x4", {"schedule.periods": "[1000]", "schedule.kind": "cosine"}),
        ("esrgan_psnr_x4", {"config.upsamples": "3", "config.scale": "8"}),
        ("srgan_x4", {"data.crop": "64", "discriminator.side": "64"}),
    ],
)
def test_settings_that_belong_together_need_no_order_and_survive_the_file(name, settings, tmp_path):
    there, back = (override(get_recipe(name), dict(items)) for items in (settings.items(), reversed(settings.items())))
    assert there == back
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(as_data(there)), encoding="utf-8")
    assert get_recipe(str(path)) == there


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("train.step", "1", "no setting in TrainConfig named 'step'; did you mean 'steps'?"),
        ("trian.steps", "1", "no setting in Recipe named 'trian'; did you mean 'train'?"),
        ("train.steps", "many", "train.steps takes int, e.g. 200000; got 'many'"),
        ("train.steps", "1.5", "train.steps takes int, e.g. 200000; got '1.5'"),
        ("train.steps", "true", "train.steps takes int"),
        ("train.steps", "0", "train.steps: steps must be at least 1, got 0"),
        ("train", "1", "'train' is a group of settings; name one, e.g. train.steps=..."),
        ("train.g_rate", "NaN", "train.g_rate takes float"),
        ("train.betas", "[2, 0.9]", "betas must be in [0, 1)"),
        ("features.layers", "[]", "at least one layer"),
        ("features.layers", '[["conv9_9", 1]]', "no layer of vgg19 named 'conv9_9'"),
        ("adversary.augment", "colour", "no augmentation named 'colour'; did you mean 'color'?"),
        ("weights.pixel", "0", "the generator would learn nothing"),
        ("cadence.warm_steps", "5", "is for a discriminator"),
        ("adversary.smoothing", "1", "smoothing must be in [0, 1)"),
        ("train.order", "gg", "train.order takes gd or dg; got 'gg'"),
        ("weights.pixel_kind", "l3", "no pixel loss named 'l3'"),
        ("weights.adversarial", "1", "weights.adversarial needs a discriminator"),
        ("discriminator.features", "1", "discriminator of Recipe is no group of settings here"),
    ],
)
def test_a_wrong_setting_says_what_is_meant(setting, value, told):
    with pytest.raises((UsageError, UnknownNameError)) as error:
        override(get_recipe("srresnet_x4"), {setting: value})
    assert told in str(error.value)


def test_a_discriminator_of_another_side_than_the_crop_is_refused():
    with pytest.raises(UsageError, match=r"takes pictures of side 96, data\.crop is 64"):
        override(get_recipe("srgan_x4"), {"data.crop": 64})


def test_a_recipe_tells_its_players_and_their_memory_before_anything_is_allocated():
    lines = list(estimate(get_recipe("esrgan_x4")))
    assert "16,697,987 parameters" in lines[0]
    assert "14,499,401 parameters" in lines[1]
    # five copies of the generator (weights, gradient, two moments, average), four of the discriminator, 4 bytes each
    assert f"{(16_697_987 * 5 + 14_499_401 * 4) * 4 / 1e6:,.1f} for weights and optimisers" in lines[3]


def test_another_network_brings_its_own_config(tmp_path):
    recipe = changed(get_recipe("srresnet_x4"), {"network": "compact", "config.convs": "8"})
    assert (recipe.network, recipe.config.convs) == ("compact", 8)
    path = tmp_path / "mine.toml"
    path.write_text('recipe = "srresnet_x4"\n[train]\nsteps = 5\n[config]\nblocks = 2\n', encoding="utf-8")
    assert get_recipe(str(path)) == replace(
        get_recipe("srresnet_x4"),
        train=replace(get_recipe("srresnet_x4").train, steps=5),
        config=SRGANConfig(blocks=2),
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [("[train]\nsteps = 5\n", "must name its recipe"), ("recipe = ", "Invalid"), ('recipe = "srgan"', "did you mean")],
)
def test_a_recipe_file_that_is_wrong_says_so(tmp_path, text, told):
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises((UsageError, UnknownNameError), match=told):
        get_recipe(str(path))
    with pytest.raises(UsageError, match="cannot read"):
        get_recipe(str(tmp_path / "other.toml"))


def test_a_group_of_several_kinds_is_chosen_by_kind():
    base = get_recipe("srgan_x4_tiny")
    unet = changed(base, {"discriminator.kind": "unet", "discriminator.features": "16", "degradation.kind": "real"})
    assert (unet.discriminator.kind, unet.discriminator.features, unet.degradation.margin) == ("unet", 16, 72)
    none = changed(base, {"discriminator": "none", "weights.adversarial": "0"})
    assert none.discriminator is None
    assert changed(base, {"discriminator.kind": "none", "weights.adversarial": "0"}) == none
    for recipe in (unet, none):
        assert changed(base, flattened(as_data(recipe))) == recipe
    for settings, message in (
        ({"discriminator.kind": "vgg19"}, "no kind of discriminator named 'vgg19'; did you mean 'vgg'"),
        ({"degradation.margin": "4"}, "choose degradation.kind too: real, face"),
        ({"degradation.kind": "real", "degradation": "none"}, "cannot both be set"),
        ({"discriminator.kind.x": "1"}, "no kind of discriminator"),
        ({"train.g_rate": "9" * 400}, "train.g_rate takes float"),
    ):
        with pytest.raises((UsageError, UnknownNameError), match=message):
            changed(base, settings)
