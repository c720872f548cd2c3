"""Every engine, every network: the pictures that PyTorch makes in float32, at odd sides, in any batch and memory."""

import numpy as np
import pytest
import torch
from cases import CASES, of_size, random_batch, random_network, traits_of
from some_pictures import random_array

from restorer import Picture, UpscaleSettings
from restorer.api import Restorer
from restorer.engines import ENGINES, open_engine
from restorer.engines import onnx as onnx_engine
from restorer.engines import openvino as openvino_engine
from restorer.engines.compiled import CompiledEngine
from restorer.engines.eager import EagerEngine
from restorer.engines.shared import from_native, to_native
from restorer.errors import OutOfMemoryError, UnsupportedError
from restorer.networks.spec import load_weights

NEEDS = {"onnx": ("onnxruntime", "onnx", "onnxscript"), "openvino": ("openvino", "onnx", "onnxscript")}
FIRST_OF_EACH = {case.name: case for case in reversed(CASES)}
COMPILED = [*FIRST_OF_EACH.values(), CASES[1]]


def rows():
    """Every pair, but that machine code is made of one form of each network, and one that folds.

    Seconds are slow; minutes, of networks that only ever run plainly here, are proofs.
    """
    for name in ENGINES:
        for case in CASES if name != "compiled" else COMPILED:
            quick = name == "eager" or (name != "compiled" and case is FIRST_OF_EACH["compact"])
            rare = not traits_of(case).makes_pictures or case.name == "stylegan2"
            mark = () if quick else pytest.mark.proof if rare and name != "eager" else pytest.mark.slow
            yield pytest.param(name, case, id=f"{name}-{case}", marks=mark)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RESTORER_CACHE", str(tmp_path / "cache"))


def model_of(case):
    return load_weights(random_network(case).state_dict(), facts=case.facts)


def opened(name, case, **rest):
    for package in NEEDS.get(name, ()):
        pytest.importorskip(package)
    return open_engine(model_of(case), kind=name, device="cpu", precision="fp32", **rest)


@pytest.mark.parametrize(("name", "case"), list(rows()))
def test_every_engine_gives_what_pytorch_gives(name, case):
    if name == "compiled":
        torch._dynamo.reset()
    engine = opened(name, case)
    assert engine.name == name
    assert engine.dtype == torch.float32
    assert engine.run_again is None
    network = random_network(case)
    for n, h, w in ((3, 7, 9), (1, 7, 9), (4, 7, 9), (1, 1, 2)):
        x = random_batch(of_size(engine.traits, n, h, w))
        with torch.no_grad():
            exact = from_native(network(to_native(x, engine.traits)), engine.traits)
        y = engine.run({"image": x})["image"]
        assert (y.dtype, y.shape) == (torch.float32, exact.shape)
        assert float((y - exact).abs().max()) <= 1e-4
    if name == "compiled":
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0, "machine code was made"


@pytest.mark.parametrize("name", [name for name in ENGINES if name != "compiled"])
def test_results_stay_when_the_engine_goes_on(name):
    engine = opened(name, FIRST_OF_EACH["compact"])
    x = random_batch((1, 3, 12, 12))
    first = engine.run({"image": x})["image"]
    kept = first.clone()
    engine.run({"image": 1 - x})
    assert torch.equal(first, kept)


OUT_OF_ROOM = {
    "onnx": (onnx_engine.Session, "__call__", RuntimeError("[ONNXRuntimeError] : 6 : Failed to allocate memory for")),
    "openvino": (openvino_engine.Compiled, "__call__", RuntimeError("Exception from src/core: std::bad_alloc")),
}


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_a_memory_error_makes_tiles_smaller_and_the_picture_the_same(name, monkeypatch):
    case = FIRST_OF_EACH["compact"]
    engine = opened(name, case)
    picture = Picture(pixels=random_array((90, 70, 3)))
    settings = UpscaleSettings(model="tiny")
    whole = Restorer(engine, settings).restore(picture).pixels
    kind, method, error = OUT_OF_ROOM[name]
    run, sizes = getattr(kind, method), []

    def small_only(self, x):
        sizes.append(x.shape)
        if x.shape[0] * x.shape[2] * x.shape[3] > 60 * 60:
            raise error
        return run(self, x)

    monkeypatch.setattr(kind, method, small_only)
    assert np.array_equal(Restorer(engine, settings).restore(picture).pixels, whole)
    assert len({size[2:] for size in sizes}) > 1
    with pytest.raises(OutOfMemoryError, match="does not fit on"):
        engine.run({"image": random_batch((1, 3, 90, 90))})


def test_onnx_runtimes_own_errors_of_memory_are_known(monkeypatch):
    engine = opened("onnx", FIRST_OF_EACH["compact"])
    from onnxruntime.capi.onnxruntime_pybind11_state import Fail, RuntimeException

    for kind, words in ((Fail, "Failed to allocate memory"), (RuntimeException, "bad allocation")):

        def full(self, x, kind=kind, words=words):
            raise kind(words)

        monkeypatch.setattr(onnx_engine.Session, "__call__", full)
        with pytest.raises(OutOfMemoryError):
            engine.run({"image": random_batch((1, 3, 9, 9))})


@pytest.mark.slow
def test_compiled_code_is_made_once_for_a_shape_and_not_for_ever_more(monkeypatch, caplog):
    engine = opened("compiled", FIRST_OF_EACH["compact"])
    assert isinstance(engine, CompiledEngine)
    runs = []
    forward = EagerEngine.forward
    monkeypatch.setattr(
        EagerEngine, "forward", lambda self, network, x: runs.append(tuple(x.shape)) or forward(self, network, x)
    )
    engine.run({"image": random_batch((3, 3, 8, 8))})
    assert runs == [(3, 3, 8, 8)] * 3, "once for the result, twice to hold machine code against PyTorch"
    runs.clear()
    assert len(engine.run({"image": random_batch((2, 3, 8, 8))})["image"]) == 2
    assert runs == [(3, 3, 8, 8)], "a smaller batch is filled up"
    runs.clear()
    assert len(engine.run({"image": random_batch((4, 3, 8, 8))})["image"]) == 4
    assert runs == [(3, 3, 8, 8)] * 2, "a larger one is cut"
    monkeypatch.setattr("restorer.engines.compiled.MOST_SHAPES", 1)
    engine.run({"image": random_batch((1, 3, 9, 9))})
    assert "not compiled" in caplog.text


@pytest.mark.slow
def test_compiled_code_that_disagrees_is_refused(monkeypatch):
    engine = opened("compiled", FIRST_OF_EACH["compact"])
    monkeypatch.setattr("restorer.engines.compiled.closeness", lambda y, exact, traits: 42.0)
    for _ in range(2):  # a second try is no better
        with pytest.raises(UnsupportedError, match="use --engine eager"):
            engine.run({"image": random_batch((1, 3, 8, 8))})


@pytest.mark.slow
def test_a_compiler_that_fails_is_one_line(monkeypatch):
    engine = opened("compiled", FIRST_OF_EACH["compact"])
    from torch._inductor.exc import CppCompileError

    def fails(network, x):
        raise CppCompileError(["g++"], "Python.h: No such file or directory")

    monkeypatch.setattr(engine._plain, "forward", fails)
    with pytest.raises(UnsupportedError, match="cannot build this here") as caught:
        engine.run({"image": random_batch((1, 3, 8, 8))})
    assert "\n" not in str(caught.value)


def test_compiling_without_a_compiler_is_refused_with_the_cure(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(UnsupportedError, match="install one, or use --engine eager"):
        opened("compiled", FIRST_OF_EACH["compact"])


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_a_graph_that_disagrees_with_pytorch_is_refused(name, monkeypatch):
    for package in NEEDS[name]:
        pytest.importorskip(package)
    model = model_of(FIRST_OF_EACH["compact"])
    other = load_weights({key: value * 0.9 for key, value in model.network.state_dict().items()})
    from restorer.engines import graph

    data = graph.build_graph(other, graph.GraphForm())
    monkeypatch.setattr(f"restorer.engines.{name}.cached_graph", lambda model, *rest: data)
    with pytest.raises(UnsupportedError, match="disagrees with PyTorch"):
        open_engine(model, kind=name, device="cpu", precision="fp32")


@pytest.mark.parametrize(
    ("name", "words", "cure"),
    [
        ("onnx", {"precision": "bf16"}, "--engine eager"),
        ("onnx", {"precision": "fp16", "device": "cpu"}, "--precision auto"),
        ("onnx", {"device": "tpu"}, "use auto, cpu, cuda"),
        ("onnx", {"device": "directml"}, "--device cpu"),
        ("openvino", {"precision": "fp16"}, "fp32 or bf16"),
        ("openvino", {"device": "cuda"}, "--device cpu"),
        ("compiled", {"device": "tpu"}, "use auto, cpu"),
    ],
)
def test_what_an_engine_cannot_do_is_refused_with_the_cure(name, words, cure):
    from restorer.errors import RestorerError

    with pytest.raises(RestorerError, match=cure):
        open_engine(model_of(FIRST_OF_EACH["compact"]), kind=name, **words)


def test_the_provider_that_computes_is_named():
    engine = opened("onnx", FIRST_OF_EACH["compact"])
    assert "ONNX Runtime's CPUExecutionProvider computes" in engine.notes


def test_a_provider_that_does_not_load_is_no_silent_fall_back(monkeypatch, caplog):
    """`auto` may go on to the processor, and says so; a device by name may not."""
    pytest.importorskip("onnxruntime")
    from restorer.engines.graph import cached_graph

    model = model_of(FIRST_OF_EACH["compact"])
    data = cached_graph(model)
    nowhere = onnx_engine.Provider(kind="cuda")
    with pytest.raises(UnsupportedError, match=r"CUDAExecutionProvider .*--device cpu"):
        onnx_engine.open_session(data, (nowhere,))
    here = onnx_engine.Provider(kind="cpu")
    found = onnx_engine.open_session(data, (nowhere, here))
    assert found.where == "ONNX Runtime's CPUExecutionProvider"
    assert found.notes[0].startswith("CUDAExecutionProvider ")
    assert "CPUExecutionProvider computes instead" in caplog.text
    monkeypatch.setattr(onnx_engine, "choose_provider", lambda device: (nowhere, here))
    assert open_engine(model, kind="onnx").dtype == torch.float32, "half precision was for the device"


def test_a_device_that_leaves_the_convolutions_to_the_processor_is_refused():
    pytest.importorskip("onnxruntime")
    from restorer.engines.graph import cached_graph

    found = onnx_engine.open_session(
        cached_graph(model_of(FIRST_OF_EACH["compact"])), onnx_engine.choose_provider("cpu")
    )
    assert onnx_engine._strays(found.run._session, {"CPUExecutionProvider"}) == []
    assert onnx_engine._strays(found.run._session, {"CUDAExecutionProvider"}) == ["Conv"] * 5


def test_openvino_computes_in_the_precision_that_is_said():
    engine = opened("openvino", FIRST_OF_EACH["compact"])
    assert "OpenVINO's CPU in fp32 computes" in engine.notes


@pytest.mark.slow
def test_a_graph_is_made_once_and_a_damaged_one_again(monkeypatch, tmp_path):
    pytest.importorskip("onnxscript")
    from restorer.engines import graph

    model = model_of(FIRST_OF_EACH["compact"])
    made, build = [], graph.build_graph
    monkeypatch.setattr(graph, "build_graph", lambda *words, **rest: made.append(1) or build(*words, **rest))
    first = graph.cached_graph(model)
    assert graph.cached_graph(model) == first
    assert len(made) == 1
    (file,) = (tmp_path / "cache" / "graphs").iterdir()
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    assert graph.cached_graph(model) == first
    assert len(made) == 2
    other = load_weights({key: value * 0.9 for key, value in model.network.state_dict().items()})
    assert graph.cached_graph(other) != first


def test_only_the_newest_graphs_are_kept(tmp_path, monkeypatch):
    import os

    from restorer.engines import graph

    for index in range(12):
        (tmp_path / f"{index}.onnx").write_bytes(b"")
        os.utime(tmp_path / f"{index}.onnx", (index, index))
    graph._drop_oldest(tmp_path, ".onnx")
    assert {path.stem for path in tmp_path.iterdir()} == {str(index) for index in range(4, 12)}
