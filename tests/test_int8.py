"""Convolutions in whole numbers of 8 bits: their arithmetic, what they cost, and when they are refused."""

import dataclasses
import logging
from itertools import pairwise

import numpy as np
import pytest
import torch
from cases import CASES, random_network
from torch import nn

from restorer import machine
from restorer.engines import int8, int8_ranges, open_engine
from restorer.engines import openvino as openvino_engine
from restorer.engines.shared import closeness
from restorer.errors import UnsupportedError
from restorer.networks.spec import load_weights

HAS_FAST_INT8 = machine.has_fast_int8
FIRST_OF_EACH = {case.name: case for case in reversed(CASES)}


@pytest.fixture(autouse=True)
def able(tmp_path, monkeypatch):
    """A cache of its own, and a processor whose instructions are taken for quick, whatever it is."""
    monkeypatch.setenv("RESTORER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(machine, "has_fast_int8", lambda here: True)
    monkeypatch.setattr(int8_ranges, "PICTURES", 4)
    monkeypatch.setattr(int8_ranges, "JUDGES", 2)


def model_of(name):
    case = FIRST_OF_EACH[name]
    return load_weights(random_network(case).state_dict(), facts=case.facts)


def opened(name="esrgan", precision="int8", kind="openvino"):
    for package in ("openvino", "onnx", "onnxscript"):
        pytest.importorskip(package)
    return open_engine(model_of(name), kind=kind, device="cpu", precision=precision)


# Arithmetic


def test_no_value_that_was_seen_is_cut_and_zero_is_a_level():
    reach = np.array([[-3.0, -0.1, 0.0, 0.5], [1.0, 4.0, 0.0, 2.0]], np.float32)
    steps = int8.steps_of(reach)
    assert steps == pytest.approx([3 / 128, 4 / 127, 2 / 127, 2 / 127])
    assert (steps * 127 >= reach[1] - 1e-6).all()
    assert (-128 * steps <= reach[0] + 1e-6).all()
    assert int8.steps_of(np.zeros((2, 1), np.float32)) > 0, "a map of zeros divides nothing by zero"


def test_taps_that_are_not_alike_are_rounded_one_by_one():
    weight = np.random.default_rng(0).uniform(-200, 200, (4, 3, 3, 3))
    assert np.array_equal(int8.rounded(weight, likeness=0.0), np.clip(np.round(weight), -127, 127))


def test_errors_of_taps_cancel_where_a_map_is_flat():
    """Nine errors of plain rounding add up to a deviation of sqrt(9 / 12) = 0.87 steps; here the last tap's remains."""
    weight = np.random.default_rng(1).uniform(-100, 100, (16, 64, 3, 3))

    def deviation(whole):
        return float((whole - weight).sum((2, 3)).std())

    assert deviation(np.round(weight)) == pytest.approx(0.87, abs=0.05)
    assert deviation(int8.rounded(weight)) < 0.45
    assert set(np.unique(int8.rounded(weight) % 1)) == {0.0}


def test_generated_pictures_are_the_same_every_time():
    first, again, other = (int8.patterns(4, 3, 32, seed=seed) for seed in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(first, other, strict=True))
    assert {x.shape for x in first} == {(1, 3, 32, 32)}
    assert all(0 <= x.min() < x.max() <= 1 for x in first)


@torch.no_grad()
def test_whole_numbers_give_what_plain_arithmetic_says():
    """PyTorch in floats, which finds ranges and rounds inputs by itself, beside OpenVINO's integers."""
    runtime = pytest.importorskip("openvino")
    pytest.importorskip("onnxscript")
    from restorer.engines.graph import GraphForm, build_graph

    model = model_of("esrgan")
    parts = model.spec.int8_parts(model.config)[-1]
    data = build_graph(model, GraphForm())
    pictures = int8.patterns(3, 3, 24, seed=0)
    ranges = int8.measured(
        runtime, runtime.Core().read_model(data), parts,
        lambda graph: [np.stack(rows) for rows in zip(*(_ran(graph, x) for x in pictures), strict=True)],
    )  # fmt: skip
    graph = runtime.Core().read_model(data)
    assert int8.quantise(runtime, graph, parts, ranges) == len(parts)
    expected = _by_hand(model.network, model.config, parts, pictures)
    exact = model.network(torch.from_numpy(pictures[0]))
    ours = torch.from_numpy(_ran(graph, pictures[0])[0])
    assert closeness(ours, expected, model.traits) > closeness(exact, expected, model.traits) + 6


def _ran(graph, x):
    return list(openvino_engine.outputs_of(graph, "f32")(x))


def _by_hand(network, config, parts, pictures):
    """The first picture, through convolutions whose inputs and weights are rounded; ranges of all pictures."""
    seen = {}

    def look(name):
        def hook(conv, inputs):
            lows, highs = seen.setdefault(name, ([], []))
            lows.append(inputs[0].amin((0, 2, 3)))
            highs.append(inputs[0].amax((0, 2, 3)))

        return hook

    hooks = [network.get_submodule(part).register_forward_pre_hook(look(part)) for part in parts]
    for x in pictures:
        network(torch.from_numpy(x))
    for hook in hooks:
        hook.remove()
    kept = {}
    for part in parts:
        conv = network.get_submodule(part)
        assert isinstance(conv, nn.Conv2d)
        low, high = (torch.stack(ends) for ends in seen[part])
        own = torch.maximum(-low.amin(0) / 128, high.amax(0) / 127)
        each = own.split([config.features, *[config.grow] * (int(part[-1]) - 1)])  # x0, x1, ...
        step = torch.cat([torch.maximum(one, one.max() / 2) for one in each])[:, None, None]
        kept[part] = conv.weight.clone()
        folded = conv.weight * step
        unit = folded.abs().amax((1, 2, 3), keepdim=True) / 127
        whole = torch.from_numpy(int8.rounded((folded / unit).numpy())).float()
        conv.weight.copy_(whole * unit)
        hooks.append(
            conv.register_forward_pre_hook(
                lambda conv, inputs, step=step: ((inputs[0] / step).round().clamp(-128, 127),)
            )
        )
    made = network(torch.from_numpy(pictures[0]))
    for hook in hooks:
        hook.remove()
    for part in parts:
        network.get_submodule(part).weight.copy_(kept[part])
    return made


# The engine


def test_int8_says_what_it_costs_and_computes_in_integers():
    engine = opened()
    assert engine.dtype == torch.int8
    assert engine.run_again is not None, "a tile that fails is computed in float32"
    assert any("dB to fp32 on 2 generated pictures" in note for note in engine.notes)
    assert any("OpenVINO's CPU in int8 computes" in note for note in engine.notes)


def test_ranges_are_measured_once(monkeypatch):
    first = opened()
    monkeypatch.setattr(int8_ranges, "measured", None)
    assert opened().notes == first.notes


def convolutions_in_int8(engine):
    """As its notes say."""
    return next(int(note.split()[2]) for note in engine.notes if note.startswith("int8 in "))


def test_as_many_convolutions_compute_in_8_bits_as_are_faithful(monkeypatch):
    many, few = (len(parts) for parts in model_of("esrgan").spec.int8_parts(model_of("esrgan").config))
    assert convolutions_in_int8(opened()) == many
    faithful = int8_ranges.Quantised.faithful
    monkeypatch.setattr(
        int8_ranges.Quantised, "faithful", property(lambda made: made.convs == few and faithful.fget(made))
    )
    measured = []
    monkeypatch.setattr(int8_ranges, "measured", lambda *wanted: measured.append(wanted))
    assert convolutions_in_int8(opened()) == few
    assert convolutions_in_int8(opened()) == few
    assert not measured, "the ranges of many hold those of few"


def test_weights_that_int8_costs_too_much_are_computed_in_more(monkeypatch, caplog):
    monkeypatch.setattr(int8_ranges, "FAITHFUL", 201.0)
    with caplog.at_level(logging.WARNING):
        engine = opened()
    assert engine.dtype in (torch.float32, torch.bfloat16)
    assert "int8 costs these weights too much" in caplog.text
    assert any("is used instead" in note for note in engine.notes)


def test_int8_is_refused_where_the_processor_has_no_instructions_for_it(monkeypatch):
    monkeypatch.setattr(machine, "has_fast_int8", HAS_FAST_INT8)
    here = dataclasses.replace(machine.look(), instruction_sets=frozenset({"avx2"}))
    monkeypatch.setattr(machine, "look", lambda: here)
    with pytest.raises(UnsupportedError, match=r"avx512_vnni.*--precision auto"):
        opened()


@pytest.mark.parametrize(
    ("name", "kind", "cure"),
    [("esrgan", "eager", "--engine openvino"), ("compact", "openvino", "not proven in int8; use --precision auto")],
)
def test_int8_is_refused_elsewhere_with_the_cure(name, kind, cure):
    with pytest.raises(UnsupportedError, match=cure):
        opened(name, kind=kind)


def test_the_parts_in_int8_are_convolutions_of_the_network():
    model = model_of("esrgan")
    sets = model.spec.int8_parts(model.config)
    for parts in sets:
        assert len(set(parts)) == len(parts) > 0
        assert all(isinstance(model.network.get_submodule(part), nn.Conv2d) for part in parts)
    assert all(set(few) < set(many) for many, few in pairwise(sets))
