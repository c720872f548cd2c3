"""restorer translate by exported networks: in one go, at sides of any length, and with what it cannot do said."""

import numpy as np
import pytest
from cases import random_network
from test_translate import CASES, expected, photo

import restorer
from restorer.errors import PictureError, UsageError
from restorer.networks.spec import load_weights
from restorer.pipeline.settings import TranslateSettings

pytest.importorskip("onnxruntime")
from restorer.engines.graph import GraphForm
from restorer.export import export_model


def test_an_onnx_file_translates_in_one_go_and_says_what_it_cannot(tmp_path):

    path = tmp_path / "cyclegan.onnx"
    export_model(load_weights(dict(random_network(CASES["cyclegan"]).state_dict())), path, form=GraphForm())
    pixels = photo(42, 53)
    made = restorer.translate(pixels, model=path)
    error = np.abs(made.astype(int) - np.rint(expected("cyclegan", pixels).clip(0, 1) * 255)).max()
    assert error <= 1
    with pytest.raises(UsageError, match="--tile 0"):
        restorer.translate(pixels, model=path, settings=TranslateSettings(model=str(path), tile=32))
    export_model(
        load_weights(dict(random_network(CASES["cyclegan"]).state_dict())),
        tmp_path / "fixed.onnx",
        form=GraphForm(size=(40, 48)),
    )
    assert restorer.translate(photo(40, 48), model=tmp_path / "fixed.onnx").shape == (40, 48, 3)
    with pytest.raises(PictureError, match="48x40 only"):
        restorer.translate(pixels, model=tmp_path / "fixed.onnx")


def test_a_finished_file_takes_neither_noise_nor_facts(tmp_path):

    path = tmp_path / "net.onnx"
    export_model(load_weights(dict(random_network(CASES["cyclegan"]).state_dict())), path, form=GraphForm())
    with pytest.raises(UsageError, match="takes no noise"):
        restorer.Translator.open(settings=TranslateSettings(model=str(path), noise=3))
    with pytest.raises(UsageError, match="no use for --fact"):
        restorer.Translator.open(settings=TranslateSettings(model=str(path), facts={"value_range": "-1,1"}))
