"""The kinds of `data` of a recipe: each game has its own, and --data names the pictures of any."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from restorer.apps.cli.train import _chosen
from restorer.errors import UnknownNameError, UsageError
from restorer.training.build import checked_traits
from restorer.training.data import DataConfig, Source
from restorer.training.games import game_of
from restorer.training.recipe import as_data, override
from restorer.training.recipes import changed, get_recipe
from restorer.training.sources import open_source
from restorer.training.translation_data import TranslationDataConfig, TranslationSource


def test_each_game_has_its_kind_of_data(tmp_path):
    with pytest.raises(UsageError, match=r"played on data.kind=pictures, and the recipe has translation; set one"):
        checked_traits(override(get_recipe("srresnet_x4_tiny"), {"data.kind": "translation"}))
    for name, aligned in (("pix2pix_256_tiny", True), ("cyclegan_256_tiny", False)):
        recipe = get_recipe(name)
        assert isinstance(recipe.data, TranslationDataConfig)
        game = game_of(recipe.weights)
        assert (game.data, game.aligned) == ("translation", aligned)
        with pytest.raises(UsageError, match=r"played on data.kind=translation, and the recipe has pictures"):
            checked_traits(override(recipe, {"data.kind": "pictures"}))
        with pytest.raises(UsageError, match="set degradation=none"):
            checked_traits(override(recipe, {"degradation.kind": "real"}))
    pairs = get_recipe("pix2pix_256_tiny")
    with pytest.raises(UsageError, match=r"needs pairs, and data.layout=unaligned has none"):
        checked_traits(override(pairs, {"data.layout": "unaligned"}))
    for number in range(4):
        Image.fromarray(np.zeros((8, 16, 3), np.uint8)).save(tmp_path / f"{number}.png")
    opened = open_source(replace(pairs.data, root=str(tmp_path)), checked_traits(pairs), game_of(pairs.weights), seed=0)
    assert isinstance(opened, TranslationSource)
    assert len(opened) == 4
    small = get_recipe("srresnet_x4_tiny")
    pictures = replace(small.data, high=str(tmp_path))
    assert isinstance(open_source(pictures, checked_traits(small), game_of(small.weights), seed=0), Source)


def test_data_names_what_its_kind_calls_the_pictures():
    assert _chosen("pix2pix_256_tiny", None, [], "there").data.root == "there"
    assert _chosen("srgan_x4_tiny", None, [], "there").data.high == "there"
    assert _chosen("srresnet_x4_tiny", None, ["data.kind=translation"], "there").data.root == "there"
    assert get_recipe("srgan_x4_tiny").data.where == ""


def test_a_recipe_saved_before_there_were_kinds_of_data_still_loads(tmp_path):
    recipe = override(get_recipe("srgan_x4_tiny"), {"data.high": "x", "train.steps": 3})
    data = as_data(recipe)
    assert data["data"].pop("kind") == "pictures"
    (tmp_path / "recipe.json").write_text(json.dumps(data), encoding="utf-8")
    assert get_recipe(str(tmp_path / "recipe.json")) == recipe
    with pytest.raises(UnknownNameError, match="no kind of data named 'translations'; did you mean 'translation'"):
        changed(recipe, {"data.kind": "translations"})
    assert isinstance(recipe.data, DataConfig)
