"""Export: a file that is written equals the model, and is enough alone; one that does not equal it is never written."""

import json

import numpy as np
import pytest
import torch
from cases import CASES, of_size, random_batch, random_network
from some_pictures import random_array

from restorer import Picture, Restorer, UpscaleSettings
from restorer.engines import graph
from restorer.engines.graph import GraphForm
from restorer.engines.onnx_file import open_onnx_file
from restorer.engines.shared import from_native, to_native
from restorer.errors import NumericalError, RestorerError, UnsupportedError, UsageError, WriteError
from restorer.export import export_model, prove
from restorer.networks.spec import load_weights

ort = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

FIRST_OF_EACH = {case.name: case for case in reversed(CASES)}
QUICK = FIRST_OF_EACH["compact"]
EACH_CASE = [pytest.param(case, id=str(case), marks=() if case is QUICK else pytest.mark.slow) for case in CASES]
COMPACT = FIRST_OF_EACH["compact"]
UNSHUFFLED = CASES[1]


def model_of(case):
    return load_weights(random_network(case).state_dict(), facts=case.facts)


def run(path, x):
    session = ort.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


@pytest.mark.parametrize("case", EACH_CASE)
def test_every_network_becomes_a_file_of_free_sides(case, tmp_path):
    """Checked by ONNX Runtime directly, at sides that export itself did not try."""
    model, path = model_of(case), tmp_path / "a.onnx"
    proof = export_model(model, path)
    assert len(set(proof.shapes)) == 3
    assert proof.worst <= 1e-4
    onnx.checker.check_model(str(path), full_check=True)
    x = random_batch(of_size(model.traits, 4, 13, 6))
    with torch.no_grad():
        assert np.abs(run(path, x.numpy()) - random_network(case)(x).numpy()).max() <= 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("case", [*FIRST_OF_EACH.values(), UNSHUFFLED], ids=str)  # free sides are proven for every row
def test_every_network_becomes_a_half_precision_file_and_one_of_pixels(case, tmp_path):
    model = model_of(case)
    if "fp16" not in model.traits.precisions:
        with pytest.raises(UnsupportedError, match="not proven in fp16"):
            export_model(model, tmp_path / "half.onnx", form=GraphForm(precision="fp16"))
        return
    half = export_model(model, tmp_path / "half.onnx", form=GraphForm(precision="fp16"))
    assert half.db >= 50
    kinds = {tensor.data_type for tensor in onnx.load(str(tmp_path / "half.onnx")).graph.initializer}
    assert onnx.TensorProto.FLOAT16 in kinds
    odd = random_batch(of_size(model.traits, 1, 10, 7))
    with torch.no_grad():
        exact = random_network(case)(odd)
        apart = torch.from_numpy(run(tmp_path / "half.onnx", odd.numpy())) - exact
    assert 0 < float(apart.abs().max()) < 0.02 * max(1.0, float(exact.abs().max()))
    if model.traits.latent or not model.traits.makes_pictures:
        with pytest.raises(UnsupportedError, match="does not make pictures of pictures"):
            export_model(model, tmp_path / "pixels.onnx", form=GraphForm(with_io=True))
        return
    pixels = export_model(model, tmp_path / "pixels.onnx", form=GraphForm(with_io=True))
    assert pixels.worst <= 1
    n, channels, height, width = of_size(model.traits, 2, 9, 5)
    x = random_array((n, height, width, channels))
    y = run(tmp_path / "pixels.onnx", x)
    with torch.no_grad():
        native = to_native(torch.from_numpy(x).permute(0, 3, 1, 2).float() / 255, model.traits)
        exact = from_native(random_network(case)(native), model.traits).clamp(0, 1) * 255
    assert y.dtype == np.uint8
    assert np.abs(y.astype(float) - exact.permute(0, 2, 3, 1).numpy()).max() <= 0.51


def test_a_file_of_fixed_size_takes_that_alone(tmp_path):
    model, path = model_of(COMPACT), tmp_path / "a.onnx"
    export_model(model, path, form=GraphForm(size=(24, 40)))
    (taken,) = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).get_inputs()
    assert taken.shape == [1, 3, 24, 40]


@pytest.mark.parametrize("form", [GraphForm(), GraphForm(size=(24, 40)), GraphForm(with_io=True)], ids=str)
def test_the_file_alone_is_a_model(form, tmp_path):
    """What `upscale --model a.onnx` gives equals what the weights give."""
    model, path = model_of(COMPACT), tmp_path / "a.onnx"
    export_model(model, path, form=form, beside={"licence": "CC0-1.0"})
    engine = open_onnx_file(path, facts={})
    assert "licence of the weights: CC0-1.0" in engine.notes
    assert (engine.traits.scale, engine.traits.radius) == (model.traits.scale, model.traits.radius)
    from restorer.engines import open_engine

    plain = open_engine(model, kind="eager", device="cpu", precision="fp32")
    settings = UpscaleSettings(model="tiny")
    for size in ((50, 70), (24, 40), (7, 90), (1, 1)):
        picture = Picture(pixels=random_array((*size, 3)))
        apart = Restorer(engine, settings).restore(picture).pixels.astype(int)
        apart -= Restorer(plain, settings).restore(picture).pixels
        # what a fixed window reads past the end of a smaller picture is mirrored; the network alone sees zeros there
        reach = model.traits.radius if form.size else 0
        far = [4 * (side - reach if side < least else side) for side, least in zip(size, (24, 40), strict=True)]
        assert np.abs(apart[: max(0, far[0]), : max(0, far[1])]).max(initial=0) <= 1
    tensor = random_batch((3, 3, 30, 44))
    apart = Restorer(engine, settings)(tensor) - Restorer(plain, settings)(tensor)
    assert float(apart.abs().max()) <= (0.01 if form.with_io else 1e-4)


def test_the_metadata_say_what_others_need(tmp_path):
    model, path = model_of(COMPACT), tmp_path / "a.onnx"
    export_model(model, path, beside={"licence": "BSD-3-Clause", "source": "https://example.org"})
    found = {entry.key: entry.value for entry in onnx.load(str(path)).metadata_props}
    assert found["licence"] == "BSD-3-Clause"
    assert (found["scale"], found["value_range"], found["channel_order"]) == ("4", "0,1", "rgb")
    told = json.loads(found["restorer"])
    assert told["network"] == "compact"
    traits = graph.read_traits(told)
    assert (traits.scale, traits.radius, traits.overlap) == (4, 5, 5)  # three convolutions between two


@pytest.mark.slow
def test_a_graph_that_differs_is_not_written(tmp_path, monkeypatch):
    other = graph.build_graph(model_of(CASES[8]), GraphForm())
    same_shape = load_weights({k: v * 1.001 for k, v in random_network(COMPACT).state_dict().items()})
    for wrong in (other, graph.build_graph(same_shape, GraphForm())):
        monkeypatch.setattr("restorer.export.build_graph", lambda *words, wrong=wrong, **rest: wrong)
        with pytest.raises((NumericalError, UnsupportedError), match="not written"):
            export_model(model_of(COMPACT), tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


def test_not_finite_is_no_proof(monkeypatch):
    model = model_of(COMPACT)
    data = graph.build_graph(model, GraphForm())
    monkeypatch.setattr("restorer.export._ran", lambda compute, x: torch.full((1, 3, 44, 64), float("nan")))
    monkeypatch.setattr("restorer.export.SHAPES", ((1, 11, 16),))
    with pytest.raises(NumericalError):
        prove(model, data, GraphForm())


@pytest.mark.parametrize(
    ("name", "form", "kind", "cure"),
    [
        ("a.pt", GraphForm(), UsageError, "written as .onnx"),
        ("there.onnx", GraphForm(), UsageError, "--overwrite"),
        ("no/a.onnx", GraphForm(), WriteError, "make it first"),
        ("a.onnx", GraphForm(size=(13, 16)), UnsupportedError, "multiples of 2"),
    ],
)
def test_what_cannot_be_written_is_refused_before_any_work(name, form, kind, cure, tmp_path):
    (tmp_path / "there.onnx").write_bytes(b"what was there")
    with pytest.raises(kind, match=cure):
        export_model(model_of(UNSHUFFLED), tmp_path / name, form=form)
    assert (tmp_path / "there.onnx").read_bytes() == b"what was there"
    assert [path.name for path in tmp_path.iterdir()] == ["there.onnx"]


def test_a_precision_that_graphs_do_not_hold_is_refused():
    with pytest.raises(RestorerError, match="fp32 or fp16"):
        GraphForm(precision="bf16")
