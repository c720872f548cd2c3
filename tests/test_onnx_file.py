"""ONNX files that others made: what the graph shows is read, what it does not is asked for, the rest is refused."""

import logging
import re
import warnings

import numpy as np
import pytest
import torch
from cases import CASES, random_batch, random_network
from some_pictures import random_array
from torch import nn

from restorer import Picture, Restorer, UpscaleSettings
from restorer.engines.graph import GraphForm, WithPixels
from restorer.engines.onnx_file import describe, open_onnx_file
from restorer.errors import AmbiguousWeightsError, RestorerError, UnsupportedError, UsageError, WeightsError
from restorer.export import export_model
from restorer.networks.spec import load_weights
from restorer.weights.read import is_onnx

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

COMPACT = next(case for case in CASES if case.name == "compact")
UNIT = {"value_range": "0,1"}


def written(network, path, x, *, free=("batch", "height", "width"), **rest):
    """As others export: torch's own exporter, no metadata; a trace of `x`."""
    dims = {0: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO} if free else None
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, (x,), path, dynamo=True, external_data=False, verbose=False, opset_version=18,
            dynamic_shapes=(dims,) if dims else None, **rest,
        )  # fmt: skip
    return path


def test_a_free_graph_runs_once_its_range_is_told(tmp_path):
    network = random_network(COMPACT)
    path = written(network, tmp_path / "a.onnx", random_batch((2, 3, 12, 16)))
    with pytest.raises(AmbiguousWeightsError, match="give --fact value_range=0,1"):
        open_onnx_file(path, facts={})
    engine = open_onnx_file(path, facts=UNIT)
    assert (engine.traits.scale, engine.traits.multiple_of, engine.traits.fixed_size) == (4, 1, None)
    x = random_batch((3, 3, 9, 14))
    with torch.no_grad():
        assert torch.allclose(engine.run({"image": x})["image"], network(x), atol=1e-5)
    assert any("made by others" in note for note in engine.notes)


def test_range_and_order_are_obeyed(tmp_path):
    class Own(nn.Module):
        """A network on BGR in [-1, 1]: the identity, but for twice the first colour it sees."""

        def forward(self, x):
            return x * torch.tensor([2.0, 1.0, 1.0])[:, None, None]

    path = written(Own(), tmp_path / "a.onnx", random_batch((2, 3, 12, 16)))
    engine = open_onnx_file(path, facts={"value_range": "-1,1", "channel_order": "bgr"})
    x = random_batch((1, 3, 8, 8))
    y = engine.run({"image": x})["image"]
    assert torch.allclose(y[:, :2], x[:, :2], atol=1e-6)
    assert torch.allclose(y[:, 2], ((2 * x[:, 2] - 1) * 2 + 1) / 2, atol=1e-6), "blue comes first"


def test_sides_that_must_be_even_are_found_by_trial(tmp_path):
    class Folds(nn.Module):
        """Pixels become channels and again pixels: sides must be even."""

        def forward(self, x):
            return nn.functional.interpolate(
                nn.functional.pixel_shuffle(nn.functional.pixel_unshuffle(x, 2), 2), scale_factor=2
            )

    network = Folds()
    x, h, w = random_batch((1, 3, 24, 32)), torch.export.Dim("h", max=999), torch.export.Dim("w", max=999)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, (x,), tmp_path / "a.onnx", dynamo=True, dynamic_shapes=({2: 2 * h, 3: 2 * w},), verbose=False,
            external_data=False,
        )  # fmt: skip
    engine = open_onnx_file(tmp_path / "a.onnx", facts=UNIT)
    assert (engine.traits.scale, engine.traits.multiple_of, engine.traits.batch_of_one) == (2, 2, True)
    picture = Picture(pixels=random_array((31, 45, 3)))
    assert Restorer(engine, UpscaleSettings(model="a")).restore(picture).size == (62, 90)


def test_a_fixed_graph_upscales_pictures_of_any_size(tmp_path):
    """As the reference implementation's script writes them: 64x64, one picture at a time."""
    network = random_network(COMPACT)
    path = written(network, tmp_path / "a.onnx", random_batch((1, 3, 64, 64)), free=())
    engine = open_onnx_file(path, facts=UNIT)
    assert engine.traits.fixed_size == (64, 64)
    assert engine.traits.batch_of_one
    pixels = random_array((100, 150, 3))
    with torch.no_grad():
        exact = network(torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255)
    exact = (exact[0].permute(1, 2, 0).clamp(0, 1) * 255).numpy()
    done = Restorer(engine, UpscaleSettings(model="a")).restore(Picture(pixels=pixels)).pixels
    assert np.abs(done - exact).max() <= 0.51


def test_a_graph_of_whole_pixels_needs_no_facts(tmp_path):
    model = load_weights(random_network(COMPACT).state_dict())
    x = torch.from_numpy(random_array((1, 24, 24, 3)))
    path = written(WithPixels(model.network, model.traits), tmp_path / "a.onnx", x, free=())
    engine = open_onnx_file(path, facts={})
    assert (engine.graph.takes, engine.graph.channels_last, engine.traits.scale) == ("uint8", True, 4)


class Two(nn.Module):
    """Two pictures in."""

    def forward(self, x, y):
        return x + y


class Flat(nn.Module):
    """A picture in, a number out."""

    def forward(self, x):
        return x.mean((1, 2, 3))


class Grows(nn.Module):
    """Not in scale: a border is added."""

    def forward(self, x):
        return nn.functional.pad(x, (3, 3, 3, 3))


@pytest.mark.parametrize(
    ("network", "shapes", "words"),
    [
        (Two(), [(1, 3, 48, 48)] * 2, "one picture"),
        (Flat(), [(1, 3, 48, 48)], "does not make a picture of a picture"),
        (Grows(), [(1, 3, 48, 48)], "does not make a picture of a picture"),
        (nn.Conv2d(7, 7, 3, padding=1), [(1, 7, 48, 48)], "1 or 3 channels"),
        (nn.Linear(8, 8), [(1, 8)], "one picture"),
    ],
)
def test_what_is_no_way_from_picture_to_picture_is_refused(network, shapes, words, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inputs = tuple(torch.zeros(shape) for shape in shapes)
        torch.onnx.export(network, inputs, tmp_path / "a.onnx", dynamo=True, verbose=False, external_data=False)
    with pytest.raises(WeightsError, match=words):
        open_onnx_file(tmp_path / "a.onnx", facts=UNIT)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"value_range": "often"}, "two numbers"),
        ({"value_range": "1,0"}, "lower number first"),
        ({**UNIT, "channel_order": "gbr"}, "rgb or bgr"),
    ],
)
def test_facts_that_make_no_sense_are_refused(facts, words, tmp_path):
    path = written(random_network(COMPACT), tmp_path / "a.onnx", random_batch((1, 3, 48, 48)), free=())
    with pytest.raises(UsageError, match=words):
        open_onnx_file(path, facts=facts)


def ours(path, **form):
    export_model(load_weights(random_network(COMPACT).state_dict()), path, form=GraphForm(**form))
    return path


@pytest.mark.parametrize(
    ("words", "cure"),
    [({"kind": "eager"}, "leave out --engine"), ({"precision": "fp16"}, "leave out --precision")],
)
def test_what_a_file_is_cannot_be_changed(words, cure, tmp_path):
    path = ours(tmp_path / "a.onnx", size=(16, 16))
    with pytest.raises(UsageError, match=cure):
        open_onnx_file(path, facts={}, **words)


def test_damaged_files_are_refused_in_one_line(tmp_path):
    whole = ours(tmp_path / "a.onnx", size=(16, 16)).read_bytes()
    for name, data in {
        "cut": whole[: len(whole) // 2],
        "noise": whole[:16] + bytes(range(256)) * 8,
        "metadata": whole.replace(b'"with_io"', b'"with_no"'),
        "json": whole.replace(b'{"config"', b'["config"'),
        "traits": re.sub(rb'"traits": \{.*?\}', lambda m: b'"traits": []'.ljust(len(m[0])), whole),
        "size": whole.replace(b'"fixed_size": [16, 16]', b'"fixed_size": [16    ]'),
        "scale": whole.replace(b'"scale": 4', b'"scale": 2'),
        "operator": whole.replace(b"PRelu", b"PRalu"),
    }.items():
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(data)
        assert is_onnx(path)
        with pytest.raises(WeightsError) as caught:
            open_onnx_file(path, facts={})
        assert "\n" not in str(caught.value), name


def test_weights_in_another_file_are_refused(tmp_path):
    """They could be any file of this machine."""
    model = onnx.load(str(ours(tmp_path / "a.onnx", size=(16, 16))))
    onnx.save(model, str(tmp_path / "b.onnx"), save_as_external_data=True, location="b.bin", size_threshold=0)
    with pytest.raises(WeightsError, match="save it again with all inside"):
        open_onnx_file(tmp_path / "b.onnx", facts={})


def test_a_file_is_known_by_its_content(tmp_path):
    path = ours(tmp_path / "a.onnx", size=(16, 16))
    assert is_onnx(path)
    assert describe(path)["network"] == "compact"
    for name, data in {
        "empty": b"",
        "zip": b"PK\3\4" + bytes(20),
        "safetensors": b"\x08" + bytes(7) + b"{" + bytes(9),
    }.items():
        (tmp_path / name).write_bytes(data)
        assert not is_onnx(tmp_path / name)
    assert not is_onnx(tmp_path / "nowhere")


def test_the_door_opens_files(tmp_path):
    path = ours(tmp_path / "a.onnx", size=(16, 16))
    opened = Restorer.open(path)
    assert opened.engine.name == "onnx"
    with pytest.raises(RestorerError, match="an ONNX file is finished"):
        Restorer.open(path, settings=UpscaleSettings(denoise=0.5))


def test_a_run_that_the_library_refuses_is_one_line(tmp_path):
    engine = Restorer.open(ours(tmp_path / "a.onnx", size=(16, 16))).engine
    with pytest.raises(UnsupportedError, match=r"cannot run a batch of \(1, 3, 9, 9\)"):
        engine.run({"image": torch.rand(1, 3, 9, 9)})


def test_floats_that_come_of_whole_pixels_need_their_range(tmp_path):
    class Floats(nn.Module):
        """uint8 in, floats from 0 to 255 out."""

        def forward(self, x):
            return x.float()

    x = torch.from_numpy(random_array((1, 48, 48, 3)))
    path = written(Floats(), tmp_path / "a.onnx", x, free=())
    with pytest.raises(AmbiguousWeightsError, match="value_range=0,255"):
        open_onnx_file(path, facts={})
    engine = open_onnx_file(path, facts={"value_range": "0,255"})
    pixels = random_array((48, 48, 3))
    assert np.array_equal(Restorer(engine, UpscaleSettings()).restore(Picture(pixels=pixels)).pixels, pixels)


def test_a_half_precision_file_of_others_is_called_so(tmp_path):
    path = written(random_network(COMPACT).half(), tmp_path / "a.onnx", random_batch((1, 3, 48, 48)).half(), free=())
    engine = open_onnx_file(path, facts=UNIT, precision="fp16")
    assert engine.dtype == torch.float16
    with pytest.raises(UsageError, match="is fp16"):
        open_onnx_file(path, facts=UNIT, precision="fp32")


def test_facts_that_a_file_has_no_use_for_are_refused(tmp_path):
    path = ours(tmp_path / "a.onnx", size=(16, 16))
    with pytest.raises(UsageError, match="no use for --fact value_range"):
        open_onnx_file(path, facts=UNIT)
    theirs = written(random_network(COMPACT), tmp_path / "b.onnx", random_batch((1, 3, 48, 48)), free=())
    with pytest.raises(UsageError, match="no use for --fact channel_ordr; it takes channel_order and value_range"):
        open_onnx_file(theirs, facts={**UNIT, "channel_ordr": "bgr"})


def test_weights_in_another_file_are_found_inside_branches_too(tmp_path):
    far = onnx.TensorProto(name="w", data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    far.external_data.add(key="location", value="secret.bin")
    inner = onnx.helper.make_graph([], "then", [], [onnx.helper.make_tensor_value_info("w", 1, [1])], [far])
    branch = onnx.helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    infos = [onnx.helper.make_tensor_value_info(name, kind, [1]) for name, kind in (("c", 9), ("y", 1))]
    graph = onnx.helper.make_graph([branch], "main", infos[:1], infos[1:])
    onnx.save(onnx.helper.make_model(graph), str(tmp_path / "a.onnx"))
    with pytest.raises(WeightsError, match="save it again with all inside"):
        open_onnx_file(tmp_path / "a.onnx", facts={})


def test_deep_pictures_through_eight_bits_are_told(tmp_path, caplog):
    opened = Restorer.open(ours(tmp_path / "a.onnx", with_io=True))
    opened.restore(Picture(pixels=random_array((9, 9, 3))))
    assert "--with-io" not in caplog.text
    opened.restore(Picture(pixels=random_array((9, 9, 3), np.uint16)))
    assert "export without --with-io" in caplog.text


def test_what_a_file_says_is_shown_and_its_weights_are_not_to_be_had(tmp_path, capsys):
    from restorer.apps.cli import main

    path = ours(tmp_path / "a.onnx", size=(16, 16))
    assert main(["models", "info", str(path)]) == 0
    assert "network      compact" in capsys.readouterr().out
    assert main(["export", str(path), "-o", str(tmp_path / "b.onnx")]) == 1
    assert "give the weights that it was made from" in capsys.readouterr().err


@pytest.mark.parametrize(("takes", "gives"), [("uint8", "uint8"), ("uint8", "float"), ("float", "uint8")])
def test_the_order_of_colours_is_obeyed_in_whole_pixels_too(takes, gives, tmp_path):
    class Doubles(nn.Module):
        """BGR from 0 to 255: the first colour it sees, blue, is halved."""

        def forward(self, x):
            y = x.float() * torch.tensor([0.5, 1.0, 1.0])[:, None, None]
            return y.to(torch.uint8) if gives == "uint8" else y

    x = torch.zeros(1, 3, 48, 48, dtype=torch.uint8 if takes == "uint8" else torch.float32)
    facts = {"channel_order": "bgr"} | ({} if takes == gives else {"value_range": "0,255"})
    engine = open_onnx_file(written(Doubles(), tmp_path / "a.onnx", x, free=()), facts=facts)
    colour = torch.tensor([100, 120, 200]).reshape(1, 3, 1, 1) / 255
    y = engine.run({"image": colour.expand(1, 3, 48, 48)})["image"]
    assert torch.allclose(y[0, :, 5, 5] * 255, torch.tensor([100.0, 120.0, 100.0]), atol=1e-3)


def test_a_batch_that_is_only_called_free_is_one(tmp_path):
    class One(nn.Module):
        """Whatever comes, one picture leaves."""

        def forward(self, x):
            return x[:1] * 1.0

    path = written(One(), tmp_path / "a.onnx", random_batch((2, 3, 48, 48)))
    engine = open_onnx_file(path, facts=UNIT)
    assert engine.traits.batch_of_one
    x = random_batch((3, 3, 9, 9))
    assert torch.allclose(Restorer(engine, UpscaleSettings())(x), x, atol=1e-6)
