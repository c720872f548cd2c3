"""Runs of GFPGAN's game: where painter and identity come from, resumed runs, and what goes on from a checkpoint."""

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from face_players import TINY, batch, recipe
from torch import Tensor, nn

from restorer.api import open_model
from restorer.errors import DownloadError, UsageError, WeightsError
from restorer.losses.components import PARTS
from restorer.networks.arcface import ArcFace, ArcFaceConfig
from restorer.networks.discriminators import build_discriminator
from restorer.networks.gfpgan import GFPGAN, GFPGANConfig
from restorer.networks.style_discriminator import StyleDiscriminatorConfig
from restorer.networks.stylegan2 import StyleGAN2, StyleGAN2Config
from restorer.pipeline.picture import Picture, read_picture, write_picture
from restorer.training.averaging import AveragingConfig
from restorer.training.blur import BlurConfig
from restorer.training.build import build_objective, build_parts
from restorer.training.checkpoint import load_run, restore_run, save_run
from restorer.training.data import DataConfig
from restorer.training.degrade_faces import FaceDegradationConfig
from restorer.training.estimate import estimate
from restorer.training.face_restoration import FACE_RESTORATION, WHOLE
from restorer.training.loop import open_fabric, train
from restorer.training.recipe import Recipe, TrainConfig
from restorer.weights.read import write_safetensors

SMALL = GFPGANConfig(widths=(8, 8, 8, 8), style=8)
"""Of faces of 32 pixels, for runs."""


def painter(config: GFPGANConfig) -> StyleGAN2:
    """One that fits, and is not as it was made."""
    words = {"widths": config.widths, "style": config.style, "resampling": config.resampling}
    network = StyleGAN2(StyleGAN2Config(mapping=2, **words))
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)
    return network


def people() -> ArcFace:
    return ArcFace(ArcFaceConfig(side=32, features=4, blocks=(1, 1, 1, 1), embedding=6))


def saved(folder: Path, name: str, network: nn.Module) -> str:
    path = folder / f"{name}.safetensors"
    write_safetensors(path, dict(network.state_dict()), {})
    return str(path)


def test_a_recipe_brings_painter_and_identity(tmp_path):
    known = painter(TINY)
    paths = {"painter": saved(tmp_path, "painter", known), "faces": saved(tmp_path, "faces", people())}
    weights = replace(recipe().weights, identity=7.0, identity_network=paths["faces"], painter=paths["painter"])
    one = recipe(weights=weights)
    objective = FACE_RESTORATION.objective(one, GFPGAN(TINY), FACE_RESTORATION.discriminator(one), False)
    assert list(objective.d) == [WHOLE, *PARTS] and objective.d["mouth"].conv1.weight.shape[0] == 4
    painters = objective.g.painter.state_dict(), known.synthesis.state_dict()
    assert all(tensor.equal(painters[1][name]) for name, tensor in painters[0].items())
    assert objective.compared["identity"].weight == 7 and objective.compared["identity"].side == 32
    columns = FACE_RESTORATION.columns(objective.g, batch(1))
    assert [column.shape for column in columns] == [(1, 3, 64, 64)] * 3 and columns[1].min() >= 0
    for wrong in ({"painter": paths["faces"]}, {"identity_network": paths["painter"]}):
        with pytest.raises(UsageError, match=r"weights\.(painter|identity_network): .* is (arcface|stylegan2)"):
            FACE_RESTORATION.objective(recipe(weights=replace(weights, **wrong)), GFPGAN(TINY), None, False)
    with pytest.raises(UsageError, match=r"resampling bilinear, this recipe wants .* resampling fir"):
        FACE_RESTORATION.objective(one, GFPGAN(replace(TINY, resampling="fir")), None, False)


def as_basicsr(key: str, value: Tensor) -> tuple[str, Tensor]:
    """A key of ours -> that of its StyleGAN2Generator, with the shape and without the factor that it has here."""
    equalised = value * math.sqrt(value[0].numel())
    if key in (names := {"w_average": "latent_avg", "synthesis.constant": "constant_input.weight"}):
        return names[key], value
    if match := re.fullmatch(r"synthesis\.noise_(\d+)", key):
        return f"noises.noise{match[1]}", value
    if match := re.fullmatch(r"mapping\.(\d+)\.(\w+)", key):
        return f"style_mlp.{int(match[1]) + 1}.{match[2]}", equalised / (0.01 * math.sqrt(2))
    match = re.fullmatch(r"synthesis\.(layers|to_rgb)\.(\d+)\.(.*)", key)
    kind, number = {"layers": "style_conv", "to_rgb": "to_rgb"}[match[1]], int(match[2])
    layer = f"{kind}s.{number - 1}" if number else f"{kind}1"
    if (kind, match[3]) == ("style_conv", "bias"):
        return f"{layer}.activate.bias", value / math.sqrt(2)
    part, shaped = {
        "conv.weight": ("modulated_conv.weight", equalised[None]),
        "modulation.weight": ("modulated_conv.modulation.weight", equalised),
        "modulation.bias": ("modulated_conv.modulation.bias", value),
        "noise_strength": ("weight", value / math.sqrt(2)),
        "bias": ("bias", value[None, :, None, None]),
    }[match[3]]
    return f"{layer}.{part}", shaped


@pytest.mark.parametrize("resampling", ["fir", "bilinear"])
def test_a_painter_that_does_not_say_how_it_resamples_does_as_the_recipe_says(resampling, tmp_path):
    config = replace(TINY, resampling=resampling)
    known = painter(config)
    path = tmp_path / "painter.pth"
    torch.save({"params_ema": dict(as_basicsr(*item) for item in known.state_dict().items() if item[0] != "fir")}, path)
    weights = replace(recipe().weights, painter=str(path), train_painter=False)
    objective = build_objective(recipe(weights=weights, config=config))
    found = objective.g.painter.state_dict()
    for name, tensor in known.synthesis.state_dict().items():
        torch.testing.assert_close(found[name], tensor, atol=1e-6, rtol=1e-5, msg=name)


def test_identity_s_weights_are_trusted_when_asked_to_and_before_others_are_downloaded(tmp_path, monkeypatch):
    """The model of that name has no published hash; the file lies in the cache, as if it had been downloaded."""
    monkeypatch.setenv("RESTORER_CACHE", str(tmp_path))
    monkeypatch.delenv("RESTORER_WEIGHTS", raising=False)
    monkeypatch.delenv("RESTORER_OFFLINE", raising=False)
    (tmp_path / "weights").mkdir()
    network = people()
    torch.save(network.state_dict(), tmp_path / "weights" / "arcface_resnet18.pth")
    one = recipe(weights=replace(recipe().weights, identity=1.0, identity_network="arcface-resnet18", perceptual=1.0))
    opened = []
    monkeypatch.setattr("restorer.training.face_restoration.looking_through", lambda *a, **k: opened.append(k) or {})
    with pytest.raises(DownloadError, match="add --trust-first-use"):
        build_objective(one)
    assert not opened
    objective = build_objective(one, trust_first_use=True)
    assert [each["trust_first_use"] for each in opened] == [True]
    assert objective.compared["identity"].network.state_dict().keys() == network.state_dict().keys()
    assert list(build_objective(one).compared) == ["identity"]  # trusted from now on


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        write_picture(Picture(pixels=pixels), folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module", params=[False, True], ids=["painter_held", "painter_learns"])
def finished(request, data, tmp_path_factory):
    """Six steps, of which the last three are without pyramid."""
    files = tmp_path_factory.mktemp("files")
    pictures = DataConfig(high=str(data), crop=SMALL.side, turn=False)
    usual = recipe(config=SMALL, discriminator=StyleDiscriminatorConfig(widths=SMALL.widths), data=pictures)
    blur = BlurConfig(kinds=(0.5, 0.5, 0, 0, 0, 0), sides=(9,), sigma=(0.1, 1.5), sinc=0.0)
    one = replace(
        usual,
        weights=replace(
            usual.weights, identity=1.0, identity_network=saved(files, "people", people()), pyramid_steps=3,
            painter="" if request.param else saved(files, "painter", painter(SMALL)),
            train_painter=request.param,
        ),
        adversary=replace(usual.adversary, r1=2.5, every=4),
        averaging=AveragingConfig(decay=0.5),
        degradation=FaceDegradationConfig(blur=blur, shrink=(1.0, 4.0)),
        train=TrainConfig(
            steps=6, batch=2, precision="fp32", betas=(0.0, 0.99), log_every=2, picture_every=6, save_every=2, keep=9,
            on_trouble="warn",
        ),
    )  # fmt: skip
    return one, play(one, tmp_path_factory.mktemp("run"))


def play(one: Recipe, folder: Path, *, resume: bool = False) -> Path:
    return train(one, folder, fabric=open_fabric(one, device="cpu"), resume=resume, say=str)


@pytest.mark.slow
def test_a_run_resumed_equals_one_never_stopped(finished, tmp_path):
    one, whole = finished
    (tmp_path / "step-0000004.safetensors").write_bytes((whole.parent / "step-0000004.safetensors").read_bytes())
    a, b = (load_run(path)[0] for path in (whole, play(one, tmp_path, resume=True)))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    first = load_run(whole.parent / "step-0000000.safetensors")[0]
    moved = {name for name in a if name[:2] in ("g/", "d/") and not torch.equal(a[name], first[name])}
    assert {name.split(".")[0] for name in moved if name[0] == "d"} == {f"d/{part}" for part in (WHOLE, *PARTS)}
    assert any(name.startswith("g/painter.layers.") for name in moved) == one.weights.train_painter
    assert "g/to_styles.weight" in moved and "average/to_styles.weight" in a
    assert {name for name in a if name.startswith("objective/")} == {"objective/adversary.probability"}


@pytest.mark.slow
def test_its_checkpoint_is_a_model_and_it_showed_what_it_makes(finished):
    one, path = finished
    model = open_model(str(path))
    assert (model.spec.name, model.config) == ("gfpgan", one.config)
    average = load_run(path)[0]
    assert all(tensor.equal(average[f"average/{name}"]) for name, tensor in model.network.state_dict().items())
    if not one.weights.train_painter:
        known = open_model(one.weights.painter).network.synthesis.state_dict()
        assert all(tensor.equal(average[f"g/painter.{name}"]) for name, tensor in known.items())
    pixels = read_picture(path.parent / "pictures" / "step-0000006.png").pixels
    assert pixels.shape[1] >= 3 * SMALL.side and pixels.shape[0] >= 2 * SMALL.side


@pytest.mark.slow
def test_another_goes_on_from_both_players(finished, tmp_path):
    """From a run come all discriminators; a file of one discriminator is the whole face's."""
    one, path = finished
    tensors = load_run(path)[0]
    weights = replace(one.weights, painter="")
    started = replace(one, weights=weights, start=str(path), discriminator_start=str(path))
    objective = build_parts(started, torch.device("cpu")).objective
    for name, tensor in objective.d.state_dict().items():
        assert tensor.equal(tensors[f"d/{name}"]), name
    for name, tensor in objective.g.state_dict().items():
        assert tensor.equal(tensors[f"average/{name}"]), name
    learns = all(parameter.requires_grad for parameter in objective.g.painter.parameters())
    assert learns == one.weights.train_painter
    whole = build_discriminator(one.discriminator)
    for parameter in whole.parameters():
        nn.init.normal_(parameter)
    objective = build_objective(replace(one, discriminator_start=saved(tmp_path, "whole", whole)))
    assert all(tensor.equal(objective.d[WHOLE].state_dict()[name]) for name, tensor in whole.state_dict().items())


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda tensors: tensors.pop("objective/adversary.probability"), "adversary.probability"),
        (lambda tensors: tensors.update({"objective/path_mean": torch.zeros(())}), "path_mean"),
        (lambda tensors: tensors.update({"objective/adversary.probability": torch.zeros(3)}), "adversary.probability"),
    ],
    ids=["missing", "unknown", "of_another_shape"],
)
def test_what_a_game_remembers_is_checked_like_its_players(change, name, tmp_path):
    parts = build_parts(recipe(), torch.device("cpu"))
    tensors, _ = load_run(save_run(tmp_path, parts, step=0, recipe={}, facts={}))
    parts.objective.adversary.probability.fill_(0.5)
    restore_run(parts, tensors)
    assert parts.objective.adversary.probability == 0
    change(tensors)
    with pytest.raises(WeightsError, match=rf"does not hold what the game remembers of this recipe \({name}\)"):
        restore_run(parts, tensors)


def test_what_it_takes_is_told_with_all_four_discriminators():
    """By hand: a component's layers have 3, 4, 8, 8, 16, 16 and 1 channels, kernels of 9 and biases."""
    component = sum(9 * into * out + out for into, out in ((3, 4), (4, 8), (8, 8), (8, 16), (16, 16), (16, 1)))
    whole = sum(parameter.numel() for parameter in build_discriminator(recipe().discriminator).parameters())
    generator = sum(parameter.numel() for parameter in GFPGAN(TINY).parameters())
    lines = list(estimate(recipe()))
    assert lines[0] == f"generator      gfpgan, {generator:,} parameters"
    assert lines[1] == f"discriminator  {whole + 3 * component:,} parameters"
