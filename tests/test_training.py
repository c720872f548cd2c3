"""Runs from start to end: they resume bit for bit, their checkpoints work everywhere, mistakes are told in a line."""

import errno
import json
import logging
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import pictures, play, recipe

from restorer import Restorer, UpscaleSettings, read_picture
from restorer.apps.cli import main
from restorer.errors import DataError, NumericalError, UsageError, WeightsError, WriteError
from restorer.networks.patch_discriminators import (
    MultiscaleDiscriminatorConfig,
    PatchDiscriminatorConfig,
    PixelDiscriminatorConfig,
)
from restorer.networks.srgan import SRGANConfig
from restorer.training.build import build_parts
from restorer.training.checkpoint import latest, load_run, restore_run
from restorer.training.data import DataConfig
from restorer.training.loop import open_fabric, train
from restorer.training.objective import Now
from restorer.training.super_resolution import RestorationWeights
from restorer.training.watch import COLLAPSED, GIVE_UP, PATIENCE, RUNAWAY, VANISHED, Watch, looked_at

pytest.importorskip("lightning")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, data):
    """A whole run of six steps."""
    folder = tmp_path_factory.mktemp("run")
    return play(data, folder)


def same(one: Path, other: Path) -> bool:
    """Whether two checkpoints hold the same bits under the same names."""
    a, b = load_run(one)[0], load_run(other)[0]
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_leaves_checkpoints_pictures_a_log_and_a_report(finished):
    folder = finished.parent
    assert finished.name == "step-0000006.safetensors"
    drawn = [path.name for path in sorted((folder / "pictures").iterdir())]
    assert drawn == ["step-0000000.png", "step-0000003.png", "step-0000006.png"]
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6]
    assert {"g/pixel", "g/adversarial", "d/adversarial", "d/r1", "g/gradient", "g/diversity"} <= set(lines[-1])
    assert list((folder / "tensorboard").glob("events.*"))
    report = (folder / "report.html").read_text()
    assert report.count("<svg") >= 6
    assert report.count("data:image/png;base64,") == 3
    assert "http" not in report


@pytest.mark.parametrize("step", [2, 4])
def test_a_run_resumed_equals_one_never_stopped(finished, data, tmp_path, step):
    shutil.copy(finished.parent / f"step-{step:07d}.safetensors", tmp_path)
    assert same(play(data, tmp_path, resume=True), finished)


def test_every_state_is_in_the_checkpoint(finished):
    tensors, told = load_run(finished)
    kinds = {name.partition("/")[0] for name in tensors}
    assert kinds == {"g", "d", "average", "objective", "g_optimiser", "d_optimiser"}
    assert tensors["objective/adversary.probability"] > 0
    assert told["step"] == 6


def test_a_torn_checkpoint_is_told_and_passed_over(finished, data, tmp_path, caplog):
    for step in (2, 4):
        shutil.copy(finished.parent / f"step-{step:07d}.safetensors", tmp_path)
    torn = tmp_path / "step-0000004.safetensors"
    torn.write_bytes(torn.read_bytes()[:-100])
    with caplog.at_level(logging.WARNING):
        assert latest(tmp_path).name == "step-0000002.safetensors"
    assert "an older one is used" in caplog.text
    flipped = bytearray((finished.parent / "step-0000004.safetensors").read_bytes())
    flipped[-50] ^= 1
    torn.write_bytes(flipped)
    assert latest(tmp_path).name == "step-0000002.safetensors"


@pytest.mark.slow
def test_a_checkpoint_works_in_upscale_and_export_and_equals_the_generator_alone(finished, data, tmp_path, capsys):
    settings = UpscaleSettings(device="cpu", precision="fp32")
    photo = read_picture(data / "0.png")
    one, two = (
        Restorer.open(path, settings=settings).restore(photo).pixels
        for path in (finished, finished.parent / "generator.safetensors")
    )
    assert one.shape == (96, 112, 3)
    assert np.array_equal(one, two)
    parts = build_parts(recipe(data), torch.device("cpu"))
    restore_run(parts, load_run(finished)[0])
    x = torch.from_numpy(photo.pixels).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        mine = (parts.average(x)[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    assert np.abs(mine.astype(int) - one.astype(int)).max() <= 1
    pytest.importorskip("onnxruntime")
    assert main(["export", str(finished), "-o", str(tmp_path / "x.onnx")]) == 0


@pytest.mark.parametrize(
    "judge",
    [
        PatchDiscriminatorConfig(features=2, layers=1),
        PixelDiscriminatorConfig(features=2),
        MultiscaleDiscriminatorConfig(features=2, layers=1, scales=2),
    ],
    ids=lambda config: config.kind,
)
def test_every_kind_of_discriminator_judges_a_run(judge, data, tmp_path):
    chosen = replace(recipe(data, steps=2), discriminator=judge)
    path = train(chosen, tmp_path, fabric=open_fabric(chosen, device="cpu"), say=str)
    tensors, line = load_run(path)[0], json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    assert {"d/adversarial", "d/accuracy_real", "d/r1"} <= set(line)
    again = replace(chosen, discriminator_start=str(path))
    objective = build_parts(again, torch.device("cpu")).objective
    assert all(torch.equal(value, tensors[f"d/{name}"]) for name, value in objective.d.state_dict().items())


def test_a_run_goes_on_from_both_players_of_another(finished, data):
    started = replace(recipe(data), start=str(finished), discriminator_start=str(finished))
    objective = build_parts(started, torch.device("cpu")).objective
    tensors = load_run(finished)[0]
    assert torch.equal(objective.g.conv_last.weight, tensors["average/conv_last.weight"])
    assert torch.equal(objective.d.linear2.weight, tensors["d/linear2.weight"])


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"config": SRGANConfig(features=4, blocks=1, channels=1)}, "1 or 3 channels"),
        (
            {"data": DataConfig(high="x", crop=18), "discriminator": None, "weights": RestorationWeights()},
            "multiple of 4",
        ),
    ],
)
def test_players_and_crops_that_do_not_fit_are_refused(changed, told, data, tmp_path):
    chosen = replace(recipe(data), **changed)
    with pytest.raises((UsageError, DataError), match=told):
        train(chosen, tmp_path, fabric=open_fabric(chosen, device="cpu"))
    with pytest.raises(UsageError, match="--processes must be between 1"):
        open_fabric(chosen, device="cpu", devices=0)


def test_only_the_last_checkpoints_are_kept(data, tmp_path):
    play(data, tmp_path, keep=2)
    names = [path.name for path in sorted(tmp_path.glob("step-*"))]
    assert names == ["step-0000004.safetensors", "step-0000006.safetensors"]


def test_what_cannot_go_on_is_refused_and_nothing_is_lost(finished, data, tmp_path):
    with pytest.raises(UsageError, match="holds a run already"):
        play(data, finished.parent)
    with pytest.raises(UsageError, match="has all its 6 steps"):
        play(data, finished.parent, resume=True)
    with pytest.raises(UsageError, match="no whole checkpoint"):
        play(data, tmp_path, resume=True)
    other = build_parts(recipe(data), torch.device("cpu"))
    tensors = dict(load_run(finished)[0])
    del tensors["g/conv_last.bias"]
    with pytest.raises(WeightsError, match=r"does not hold the generator of this recipe \(conv_last.bias\)"):
        restore_run(other, tensors)


@pytest.mark.slow
def test_a_game_without_finite_gradients_stops_with_its_checkpoints_whole(data, tmp_path, monkeypatch):
    from restorer.training.super_resolution import SuperResolution

    before = SuperResolution.g_terms
    monkeypatch.setattr(
        SuperResolution, "g_terms", lambda *a: {**before(*a), "g/bad": before(*a)["g/pixel"] * float("nan")}
    )
    with pytest.raises(NumericalError, match="gradients of g were not finite"):
        play(data, tmp_path, on_trouble="stop")
    assert latest(tmp_path).name == "step-0000000.safetensors"
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    with pytest.raises(NumericalError, match=f"no finite gradient for {GIVE_UP} steps"):
        play(data, tmp_path, steps=GIVE_UP + 5, log_every=10**6, save_every=10**6, picture_every=10**6)


def test_a_full_disk_is_one_line_and_the_run_goes_on_from_its_checkpoint(data, tmp_path, monkeypatch):
    def full(folder, *rest):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("restorer.training.loop.write_report", full)
        with pytest.raises(WriteError, match=r"No space left on device; make room, then: restorer train --resume"):
            play(data, tmp_path)
    play(data, tmp_path, resume=True)


def test_watching_disturbs_nothing(data):
    parts = build_parts(recipe(data), torch.device("cpu"))
    before = {name: tensor.clone() for name, tensor in parts.objective.state_dict().items()}
    batch = {"low": torch.rand(8, 3, 4, 4), "high": torch.rand(8, 3, 16, 16)}
    readings = looked_at(parts.objective, batch, Now(step=0, rng=torch.Generator()))
    assert set(readings) == {"d/accuracy_real", "d/accuracy_fake", "g/diversity"}
    assert parts.objective.training
    after = parts.objective.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_trouble_is_told_when_it_lasts():
    for line, readings in (
        (RUNAWAY, {"d/accuracy_real": 1.0, "d/accuracy_fake": 1.0}),
        (VANISHED, {"g/gradient": 1e-9}),
        (COLLAPSED, {"g/diversity": 0.01}),
    ):
        watch = Watch()
        assert not any(watch.troubles(readings) for _ in range(PATIENCE - 1))
        assert watch.troubles(readings) == [line]
        watch.troubles({"g/gradient": 1.0})
        assert not watch.troubles(readings)  # it had passed


@pytest.mark.slow
def test_the_command_trains_resumes_and_shows_its_plan(data, tmp_path, capsys):
    sets = ["train.steps=2", "train.batch=2", "config.features=4", "config.blocks=1", "data.crop=16"]
    words = [word for text in sets for word in ("--set", text)]
    run = tmp_path / "run"
    assert main(["train", "srresnet_x4_tiny", "--data", str(data), "--dry-run", *words]) == 0
    shown = capsys.readouterr().out
    assert '"steps": 2' in shown
    assert "generator      srgan" in shown
    assert not run.exists()
    command = ["train", "srresnet_x4_tiny", "--data", str(data), "--out", str(run), "--device", "cpu", *words]
    assert main(command) == 0
    assert "restorer upscale --model" in capsys.readouterr().out
    assert main(["train", "--resume", str(run), "--device", "cpu", "--set", "train.steps=3"]) == 0
    assert latest(run).name == "step-0000003.safetensors"
    assert main(["upscale", str(data / "0.png"), "-o", str(tmp_path / "up.png"), "--model", str(latest(run))]) == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["srgan"], "no recipe named 'srgan'; did you mean 'srgan_x4'?"),
        (["srgan_x4", "--out", "x"], "--data DIR"),
        (["srgan_x4", "--data", "x"], "--out RUN"),
        (["srgan_x4", "--set", "train.steps"], "--set takes group.name=value"),
        ([], "name a recipe"),
        (["--resume", "nowhere"], "is no run"),
    ],
)
def test_wrong_words_are_told_in_one_line(words, told, capsys):
    assert main(["train", *words, *(["--set", "train.seed=1"] if not words else [])]) != 0
    assert told in capsys.readouterr().err


def test_a_run_that_is_asked_to_stop_saves_its_step_and_goes_on_as_if_never_stopped(data, tmp_path):
    whole = play(data, tmp_path / "whole", steps=5, save_every=5)
    asked = iter([False, False, True])
    chosen = recipe(data, steps=5, save_every=5)
    path = train(chosen, tmp_path / "run", fabric=open_fabric(chosen, device="cpu"), say=str, stop=lambda: next(asked))
    assert path.name == "step-0000003.safetensors"
    assert same(play(data, tmp_path / "run", resume=True, steps=5, save_every=5), whole)


@pytest.mark.slow
def test_ctrl_c_saves_and_says_how_to_go_on(data, tmp_path):
    small = [f"--set={change}" for change in ("data.crop=16", "train.batch=2", "train.log_every=1")]
    words = ["train", "srresnet_x4_tiny", "--data", str(data), "--out", "run", "--device", "cpu", *small]
    command = [sys.executable, "-m", "restorer", *words]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    assert "step 1/" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    lines = errors.splitlines()
    assert any("once more to stop at once" in line for line in lines)
    stopped = latest(tmp_path / "run")
    assert f"{stopped.relative_to(tmp_path)} is whole; to go on: restorer train --resume run" in lines[-1]
    assert int(stopped.stem.removeprefix("step-")) > 0


@pytest.mark.slow
def test_a_run_killed_ten_times_equals_one_never_stopped(data, tmp_path):
    steps = 60
    whole = play(data, tmp_path / "whole", steps=steps, save_every=steps)
    script = Path(__file__).with_name("runs.py")
    command = [sys.executable, str(script), str(data), str(tmp_path / "killed"), str(steps)]
    rng, kills = random.Random(5), 0
    deadline = time.monotonic() + 400
    while time.monotonic() < deadline:
        last = latest(tmp_path / "killed")
        if last is not None and last.name == whole.name:
            break
        seen = set((tmp_path / "killed").glob("step-*"))
        process = subprocess.Popen(command, stderr=subprocess.PIPE)
        if kills < 10:
            wanted = rng.randint(1, 5)  # checkpoints; then at any moment of a step
            while process.poll() is None and len(set((tmp_path / "killed").glob("step-*")) - seen) < wanted:
                time.sleep(0.002)
            time.sleep(rng.random() * 0.02)
            process.send_signal(signal.SIGKILL)
            kills += 1
        _, errors = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), errors.decode()
    assert kills == 10
    assert same(latest(tmp_path / "killed"), whole)
