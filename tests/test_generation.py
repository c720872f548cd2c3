"""StyleGAN2's game: path lengths by hand and beside basicsr, mixed styles, the mean of styles, whole steps, runs."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from beside import basicsr
from PIL import Image
from runs import pictures
from torch import nn

from restorer.errors import UnknownNameError, UsageError
from restorer.networks.style_discriminator import StyleDiscriminatorConfig
from restorer.networks.stylegan2 import StyleGAN2, StyleGAN2Config
from restorer.training.build import build_parts, checked_traits, groups_of
from restorer.training.checkpoint import load_run
from restorer.training.data import Source
from restorer.training.games import game_of
from restorer.training.generation import Generation, path_lengths
from restorer.training.loop import open_fabric, train
from restorer.training.objective import Clock, Now, Rules, Turns, gan_step
from restorer.training.recipe import Recipe, override
from restorer.training.recipes import get_recipe

WIDTHS = (8, 8, 8)


def small(folder: object = "", **changed: object) -> Recipe:
    tiny = get_recipe("stylegan2_256_tiny")
    return replace(
        tiny,
        config=StyleGAN2Config(widths=WIDTHS, style=8, mapping=2),
        discriminator=StyleDiscriminatorConfig(widths=WIDTHS),
        data=replace(tiny.data, high=str(folder), crop=16),
        train=replace(
            tiny.train, steps=6, batch=4, precision="fp32", log_every=2, picture_every=6, save_every=2, keep=9,
            on_trouble="warn", **changed,
        ),
    )  # fmt: skip


def game(**weights: float) -> Generation:
    recipe = small()
    objective = build_parts(replace(recipe, weights=replace(recipe.weights, **weights)), torch.device("cpu")).objective
    assert isinstance(objective, Generation)
    return objective


def now(step: int = 0, seed: int = 1) -> Now:
    return Now(step=step, rng=torch.Generator().manual_seed(seed))


def test_path_lengths_of_a_linear_painter_are_those_of_its_matrices():
    """x = sum over l of A_l w_l: the gradient of x . n by w_l is A_l^T n, whatever w is."""
    matrices = torch.randn(3, 5, 2 * 4 * 4, dtype=torch.float32)  # (L, S, C H W)
    styles = torch.randn(2, 3, 5, requires_grad=True)
    made = torch.einsum("nls,lsp->np", styles, matrices).view(2, 2, 4, 4)
    noise = torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(1)).flatten(1) / 4
    by_hand = [math.sqrt(sum(float((a @ each).square().sum()) for a in matrices) / 3) for each in noise]
    found = path_lengths(made, styles, torch.Generator().manual_seed(1))
    assert found.tolist() == pytest.approx(by_hand, rel=1e-5)


def test_path_length_is_basicsr_s(monkeypatch):
    losses = basicsr(monkeypatch, "losses.gan_loss")
    matrix = torch.randn(4, 3 * 8 * 8)
    styles = torch.randn(2, 6, 4, requires_grad=True)
    made = torch.tanh(styles.mean(1) @ matrix).view(2, 3, 8, 8)
    noise = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    monkeypatch.setattr(losses.torch, "randn_like", lambda x: noise)
    theirs, lengths, mean = losses.g_path_regularize(made, styles, torch.tensor(0.5), decay=0.01)
    ours = path_lengths(made, styles, torch.Generator().manual_seed(1))
    torch.testing.assert_close(ours.mean(), lengths)
    moved = torch.lerp(torch.tensor(0.5), ours.mean(), 0.01)
    torch.testing.assert_close(moved.detach(), mean)
    torch.testing.assert_close((ours - moved).square().mean(), theirs)
    (mine,) = torch.autograd.grad((ours - moved).square().mean(), styles, retain_graph=True)
    (other,) = torch.autograd.grad(theirs, styles)
    torch.testing.assert_close(mine, other)


def test_styles_meet_once_from_coarse_to_fine_as_often_as_they_should():
    styles = game(mixing=0.5)._styles(400, now())
    changes = (styles[:, 1:] != styles[:, :-1]).any(2).sum(1)
    assert set(changes.tolist()) == {0, 1}
    assert float((changes == 1).float().mean()) == pytest.approx(0.5, abs=0.1)  # four deviations
    first = (styles[:, 1:] != styles[:, :-1]).any(2).float()[changes == 1].argmax(1)
    assert set(first.tolist()) == set(range(styles.shape[1] - 1))
    assert not (game(mixing=0.0)._styles(50, now()).diff(dim=1) != 0).any()
    assert (game(mixing=1.0)._styles(50, now()).diff(dim=1) != 0).any(2).any(1).all()


def test_the_mean_of_styles_nears_the_mean_of_the_mapping():
    objective = game(average_decay=0.99)
    for step in range(300):
        objective._styles(64, now(step, step))
    network = objective.g
    with torch.no_grad():
        mean = network.mapping(torch.randn(50_000, 8, generator=torch.Generator().manual_seed(0))).mean(0)
    spread = float(mean.abs().max())
    assert float((network.w_average - mean).abs().max()) < 0.1 * spread


def step_of(objective: Generation, number: int) -> dict[str, float]:
    batch = {"high": torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(number))}
    rules = Rules(optimisers={p: torch.optim.Adam(groups_of(n, 2e-3), betas=(0.0, 0.99))
                              for p, n in (("g", objective.g), ("d", objective.d))})  # fmt: skip
    shared = [batch]
    return gan_step(objective, Turns(d=[shared], g=shared), rules=rules, clock=Clock(seed=0, step=number))


def test_penalties_are_paid_in_their_steps_for_part_of_the_batch():
    objective = game()
    seen = []
    objective.g.synthesis.register_forward_pre_hook(lambda module, given: seen.append(len(given[0])))
    first = step_of(objective, 0)
    assert {"g/path_length", "d/r1"} <= set(first)
    assert seen == [4, 2]  # the batch, and half of it for path length
    assert float(objective.path_mean) > 0
    kept = objective.path_mean.clone()
    assert not {"g/path_length", "d/r1"} & set(step_of(objective, 1))
    assert torch.equal(objective.path_mean, kept)
    assert "g/path_length" in step_of(objective, 4)


def test_path_length_is_paid_as_often_as_it_is_left_out():
    objective = game(path_length=3.0, path_every=5)
    penalty = objective.penalties()["g/path_length"]
    batch = {"high": torch.rand(4, 3, 16, 16)}
    value = penalty.fn(batch, now()).detach()
    objective.path_mean.zero_()
    styles = objective._styles(2, at := now())
    lengths = path_lengths(objective._painted(styles, at), styles, at.rng)
    assert (penalty.player, penalty.every) == ("g", 5)
    assert float(value) == pytest.approx(
        3 * float((lengths - 0.01 * lengths.mean()).square().mean().detach()), rel=1e-5
    )


def test_r1_on_pictures_in_0_1_is_four_times_that_on_minus_1_1():
    objective = game()
    x = torch.rand(3, 3, 16, 16)
    r1 = objective.penalties()["d/r1"].fn({"high": x}, now()) / objective.adversary.config.r1
    r1 = r1.detach()
    wide = (x * 2 - 1).requires_grad_(True)
    (gradient,) = torch.autograd.grad(objective.d((wide + 1) / 2).sum(), wide)
    assert float(r1) == pytest.approx(4 * float(gradient.square().sum((1, 2, 3)).mean() / 2), rel=1e-4)


def test_each_parameter_learns_at_its_rate():
    objective = game()
    groups = groups_of(objective.g, 2e-3)
    assert sum(len(group["params"]) for group in groups) == len(list(objective.g.parameters()))
    by_id = {id(p): group["lr"] for group in groups for p in group["params"]}
    rate = by_id[id(objective.g.synthesis.layers[1].conv.weight)]
    assert rate == pytest.approx(2e-3 / math.sqrt(8 * 9))  # equalised: 1 / sqrt(8 channels times a kernel of 9)
    assert by_id[id(objective.g.mapping[0].weight)] == pytest.approx(2e-3 * 0.01 * math.sqrt(2 / 8))
    assert by_id[id(objective.g.synthesis.constant)] == pytest.approx(2e-3)


def test_a_plain_network_learns_at_one_rate():
    groups = groups_of(nn.Sequential(nn.Conv2d(1, 1, 1), nn.Linear(1, 1)), 0.5)
    assert [(group["lr"], group["factor"], len(group["params"])) for group in groups] == [(0.5, 1.0, 4)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    data = pictures(tmp_path_factory.mktemp("data"), count=5, size=(16, 16))
    recipe = small(data)
    return recipe, train(recipe, tmp_path_factory.mktemp("run"), fabric=open_fabric(recipe, device="cpu"), say=str)


@pytest.mark.parametrize("name", ["stylegan2_256", "gfpgan_512"])
def test_a_part_of_a_larger_picture_is_not_taken_for_a_whole_one(name, tmp_path):
    recipe = get_recipe(name)
    side = recipe.data.crop
    for number, size in enumerate(((side, side), (2 * side, 2 * side))):
        Image.new("RGB", size).save(tmp_path / f"{number}.png")
    config, traits = replace(recipe.data, high=str(tmp_path)), checked_traits(recipe)
    source = Source(config, traits, seed=0, whole=game_of(recipe.weights).whole)
    crops = [source.crops(position, np.random.default_rng(0))[0] for position in range(4)]
    assert [crop.shape for crop in crops] == [(side, side, 3)] * 4
    assert source.bad == 1


@pytest.mark.slow
def test_a_run_resumed_equals_one_never_stopped(finished, tmp_path):
    recipe, whole = finished
    (tmp_path / "step-0000004.safetensors").write_bytes((whole.parent / "step-0000004.safetensors").read_bytes())
    again = train(recipe, tmp_path, fabric=open_fabric(recipe, device="cpu"), resume=True, say=str)
    a, b = load_run(whole)[0], load_run(again)[0]
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert a["objective/path_mean"] > 0
    assert a["average/w_average"].abs().sum() > 0


@pytest.mark.slow
def test_a_run_shows_what_it_makes_and_its_checkpoint_is_a_model(finished):
    from restorer.api import open_model
    from restorer.pipeline.picture import read_picture

    _, path = finished
    assert read_picture(path.parent / "pictures" / "step-0000006.png").pixels.shape == (4 * 20 - 4, 8 * 20 - 4, 3)
    assert "32 draws of noise" in (path.parent / "report.html").read_text()
    model = open_model(str(path))
    assert model.spec.name == "stylegan2"
    assert isinstance(model.network, StyleGAN2)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"discriminator": "none"}, "weights.adversarial needs a discriminator"),
        ({"data.crop": "32"}, "pictures of side 16, data.crop is 32"),
        ({"data.low": "x"}, "have no partners"),
        ({"discriminator.channels": "1"}, "discriminator.channels is 1"),
        ({"weights.mixing": "2"}, "mixing must be in"),
        ({"weights": "none"}, "no kind of weights named 'none'"),
        ({"weights.kind": "restoration"}, "stylegan2 cannot be trained to enlarge"),
        ({"weights.pixel": "1"}, "no setting in GenerationWeights named 'pixel'"),
        ({"weights.adversarial": "0"}, "would learn nothing"),
    ],
)
def test_what_does_not_fit_is_told(changes, told):
    with pytest.raises((UsageError, UnknownNameError), match=told):
        checked_traits(override(small(), changes))


def test_another_network_is_refused():
    recipe = replace(small(), network="srgan", config=get_recipe("srresnet_x4").config)
    with pytest.raises(UsageError, match="makes no pictures from noise"):
        checked_traits(recipe)


def test_papers_numbers():
    recipe = get_recipe("stylegan2_256")
    assert recipe.config.widths == (512, 512, 512, 512, 512, 256, 128)
    assert recipe.adversary.r1 * 4 == 10
    assert (recipe.adversary.every, recipe.weights.path_every, recipe.weights.path_length) == (16, 4, 2)
    assert recipe.train.steps * recipe.train.batch == 25_000_000
    assert (recipe.train.g_rate, recipe.train.d_rate, recipe.train.betas) == (2e-3, 2e-3, (0, 0.99))
    assert (recipe.averaging.decay, recipe.averaging.half_life) == (0, 10_000)
    assert recipe.adversary.loss == "non_saturating"
    assert get_recipe("stylegan2_512").config.widths == (512, 512, 512, 512, 512, 256, 128, 64)
