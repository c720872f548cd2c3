"""Which engine is fastest here: measured, kept, and chosen by rules that can be read."""

from dataclasses import replace

import pytest
import torch
from cases import CASES, random_network

from restorer import machine
from restorer.engines import open_engine, tune
from restorer.engines.eager import EagerEngine
from restorer.engines.tune import Row
from restorer.errors import UnsupportedError
from restorer.networks.spec import load_weights

EAGER = Row(engine="eager", precision="fp32", automatic=True, seconds_per_megapixel=2.0, db=200)
FAST = Row(engine="onnx", precision="fp32", automatic=True, seconds_per_megapixel=1.0, db=120)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RESTORER_CACHE", str(tmp_path))


@pytest.fixture
def model():
    return load_weights(random_network(CASES[7]).state_dict())


@pytest.mark.parametrize(
    ("other", "chosen"),
    [
        (FAST, "onnx"),
        (replace(FAST, seconds_per_megapixel=1.95), "eager"),
        (replace(FAST, setup_seconds=60), "eager"),
        (replace(FAST, db=70), "eager"),
        (replace(FAST, fault="no such library"), "eager"),
        (replace(FAST, automatic=False), "eager"),
        (replace(FAST, precision="bf16", db=50), "onnx"),
        (replace(FAST, precision="bf16", db=39), "eager"),
    ],
)
def test_the_fastest_faithful_engine_whose_setup_pays_is_chosen(other, chosen):
    assert tune.choose([EAGER, other]).engine == chosen


def test_a_precision_asked_for_by_name_is_compared_within_itself():
    half = replace(EAGER, precision="bf16", automatic=False, seconds_per_megapixel=1.0, db=60)
    fast_half = replace(half, engine="openvino", seconds_per_megapixel=0.5, db=45)
    assert tune.choose([EAGER, FAST, half, fast_half], "bf16") == fast_half
    assert tune.choose([EAGER, FAST], "bf16") is None


def test_a_table_is_kept_for_its_network_machine_and_packages(model, monkeypatch):
    assert tune.kept(model) == []
    tune.keep(model, [EAGER, FAST])
    assert tune.kept(model) == [EAGER, FAST]
    other = load_weights(random_network(CASES[0]).state_dict())
    assert tune.kept(other) == []
    tune.keep(other, [EAGER])
    assert (tune.kept(model), tune.kept(other)) == ([EAGER, FAST], [EAGER])
    here = replace(machine.look(), cores=99)
    monkeypatch.setattr(machine, "look", lambda: here)
    assert tune.kept(model) == []


@pytest.mark.parametrize("text", ["", "[]", "{", '{"%s": 3}', '{"%s": {"rows": [{"engine": "x"}]}}', '{"%s": []}'])
def test_a_damaged_table_is_no_table(text, model, tmp_path):
    key = tune._key(model)
    (tmp_path / "engines.json").write_text(text.replace("%s", key))
    assert tune.kept(model) == []
    tune.keep(model, [EAGER])
    assert tune.kept(model) == [EAGER]


def test_every_engine_is_measured_and_one_that_cannot_run_says_why(model):
    def fails(model, **words):
        raise UnsupportedError("not here; elsewhere")

    rows = tune.measure(model, {"eager": EagerEngine, "compiled": fails}, say=lambda text: None)
    eager = [row for row in rows if row.engine == "eager"]
    assert eager[0].automatic
    assert eager[0].seconds_per_megapixel > 0
    assert next(row for row in eager if row.precision == "fp32").db == 200
    assert {row.fault for row in rows if row.engine == "compiled"} == {"not here; elsewhere"}
    twice = tune.measure(model, {"eager": EagerEngine}, say=lambda text: None, read_share=lambda engine: 1000.0)
    assert twice[0].seconds_per_megapixel > 100 * eager[0].seconds_per_megapixel  # what is read twice is paid twice
    shown = list(tune.table_lines(rows, tune.choose(rows)))
    assert len(shown) == 1 + len(rows)
    assert sum("<- auto" in line for line in shown) == 1


def test_auto_takes_what_was_measured_and_says_so(model):
    assert open_engine(model, device="cpu").name == "eager"
    assert any("not measured here" in note for note in open_engine(model, device="cpu").notes)
    pytest.importorskip("onnxruntime")
    tune.keep(model, [EAGER, FAST])
    engine = open_engine(model, precision="fp32", device="auto")
    assert engine.name == ("onnx" if not torch.cuda.is_available() else engine.name)
    assert any("the fastest measured here, 1.00 s per output MP" in note for note in engine.notes)


def test_a_chosen_engine_that_cannot_take_these_weights_gives_way_loudly(model, monkeypatch, caplog):
    pytest.importorskip("onnxruntime")
    tune.keep(model, [EAGER, FAST])

    def fails(*words, **rest):
        raise UnsupportedError("this graph is not to be had")

    monkeypatch.setattr("restorer.engines.onnx.open_onnx", fails)
    engine = open_engine(model)
    assert engine.name == "eager"
    assert "eager is used instead" in caplog.text
    assert "eager: onnx cannot run this model (this graph is not to be had)" in engine.notes
    assert not any("fastest measured" in note for note in engine.notes)
    with pytest.raises(UnsupportedError):
        open_engine(model, kind="onnx")


def test_a_user_without_a_home_has_no_table_and_still_an_engine(model, monkeypatch):
    from restorer.errors import WeightsError

    def homeless():
        raise WeightsError("this user has no home folder")

    monkeypatch.setattr("restorer.engines.tune.cache_home", homeless)
    assert open_engine(model, device="cpu").name == "eager"


def test_a_table_in_which_nothing_is_faithful_is_not_called_missing(model):
    tune.keep(model, [replace(EAGER, db=10)])
    assert any("nothing that was measured here is faithful" in note for note in open_engine(model).notes)
