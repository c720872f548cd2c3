"""A run that goes on needs its checkpoint; the weights that it began with may be gone by then."""

import shutil
from dataclasses import replace

import pytest
import runs
import torch
from face_players import recipe as face_recipe

from restorer.errors import WeightsError
from restorer.training.build import build_objective, build_parts
from restorer.training.checkpoint import load_run
from restorer.training.loop import open_fabric, train

GONE = "gone.safetensors"


@pytest.fixture
def data(tmp_path):
    return runs.pictures(tmp_path / "data")


def play(one, folder, *, resume=False):
    return train(one, folder, fabric=open_fabric(one, device="cpu"), resume=resume, say=str)


def test_a_run_goes_on_to_the_last_bit_when_what_it_began_with_is_gone(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = play(runs.recipe(data, steps=1), tmp_path / "before")
    shutil.copy(before, GONE)
    one = replace(runs.recipe(data, steps=4), start=GONE, discriminator_start=GONE)
    whole = play(one, tmp_path / "whole")
    (tmp_path / "again").mkdir()
    shutil.copy(tmp_path / "whole" / "step-0000002.safetensors", tmp_path / "again")
    (tmp_path / GONE).unlink()
    a, b = (load_run(path)[0] for path in (whole, play(one, tmp_path / "again", resume=True)))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    with pytest.raises(WeightsError, match=GONE):
        play(one, tmp_path / "fresh")


def test_faces_go_on_without_the_painter_that_they_began_with(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one = face_recipe(weights=replace(face_recipe().weights, painter=GONE, train_painter=False))
    parts = build_parts(one, torch.device("cpu"), resumed=True)
    assert not any(parameter.requires_grad for parameter in parts.objective.g.painter.parameters())
    assert any(parameter.requires_grad for parameter in parts.objective.g.parameters())
    with pytest.raises(WeightsError, match=GONE):
        build_objective(one)
    started = face_recipe(start=GONE, weights=replace(face_recipe().weights, train_painter=False))
    build_parts(started, torch.device("cpu"), resumed=True)
    with pytest.raises(WeightsError, match=GONE):
        build_objective(started)
