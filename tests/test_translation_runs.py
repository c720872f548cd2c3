"""Runs of pix2pix and CycleGAN: what they leave and start from, that they resume, and recipes that do not fit."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_training import same
from translation_players import batch, paired, side_by_side, two_folders, unpaired

from restorer.api import open_model
from restorer.errors import UsageError, WeightsError
from restorer.networks.cyclegan import CycleGAN, CycleGANConfig
from restorer.networks.spec import get_spec
from restorer.networks.srgan import SRGANConfig
from restorer.pipeline.picture import Picture, read_picture, write_picture
from restorer.training.build import build_parts, checked_traits, facts_of, in_layout, layout_of
from restorer.training.checkpoint import load_run, restore_run
from restorer.training.data import DataConfig
from restorer.training.estimate import estimate
from restorer.training.games import game_of
from restorer.training.loop import open_fabric, train
from restorer.training.recipe import override
from restorer.training.recipes import get_recipe
from restorer.training.schedule import Schedule, rate_at
from restorer.weights.safe import write_safetensors

pytest.importorskip("lightning")
CPU = torch.device("cpu")


def play(recipe, folder, **options):
    return train(recipe, folder, fabric=open_fabric(recipe, device="cpu"), say=str, **options)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Kind -> (its recipe, the last checkpoint of its run)."""
    made = {}
    for kind, make, lay in (("paired", paired, side_by_side), ("unpaired", unpaired, two_folders)):
        recipe = make(lay(tmp_path_factory.mktemp(f"{kind}-data")))
        if kind == "paired":
            recipe = replace(recipe, weights=replace(recipe.weights, pool=2))
        made[kind] = recipe, play(recipe, tmp_path_factory.mktemp(kind))
    return made


@pytest.mark.parametrize("kind", ["paired", "unpaired"])
@pytest.mark.parametrize("step", [2, 4])
def test_a_run_resumed_equals_one_never_stopped_with_its_pool(runs, kind, step, tmp_path):
    recipe, whole = runs[kind]
    shutil.copy(whole.parent / f"step-{step:07d}.safetensors", tmp_path)
    assert same(play(recipe, tmp_path, resume=True), whole)
    pools = {name: tensor for name, tensor in load_run(whole)[0].items() if "pool" in name}
    counts = [int(tensor) for name, tensor in pools.items() if name.endswith("count")]
    assert counts == [2] * (1 if kind == "paired" else 2)
    assert all(tensor.any() for tensor in pools.values())


def test_both_generators_are_models_and_make_what_the_average_makes(runs):
    recipe, path = runs["unpaired"]
    parts = build_parts(recipe, CPU)
    restore_run(parts, load_run(path)[0])
    x = torch.rand(1, 3, 16, 20) * 2 - 1
    made = []
    for name in ("a2b", "b2a"):
        model = open_model(path.parent / f"generator-{name}.safetensors")
        assert (model.spec.name, model.config) == ("cyclegan", recipe.config)
        average, last = (each[name].state_dict() for each in (parts.average, parts.objective.g))
        for key, value in model.network.state_dict().items():
            assert value.equal(average[key]) and value.equal(last[key])
        made.append(model.network.eval()(x))
        torch.testing.assert_close(made[-1], parts.average[name](x), atol=1e-5, rtol=0)  # in another layout
    assert not made[0].allclose(made[1], atol=1e-3)
    assert not (path.parent / "generator.safetensors").exists()


def test_a_generator_of_pairs_is_a_model_that_knows_whether_it_dropped(runs):
    recipe, path = runs["paired"]
    for file in (path, path.parent / "generator.safetensors"):
        model = open_model(file)
        assert (model.spec.name, model.config) == ("pix2pix", recipe.config) and not model.config.dropout
    assert facts_of(paired(dropout=True)) == {"dropout": True} and "dropout" not in facts_of(get_recipe("srgan_x4"))


@pytest.mark.parametrize(("kind", "columns"), [("paired", 3), ("unpaired", 6)])
def test_a_grid_shows_what_was_given_and_what_was_made(runs, kind, columns):
    recipe, path = runs[kind]
    parts = build_parts(recipe, CPU)
    shown = batch(recipe, count=2, dtype=torch.float32)
    found = game_of(recipe.weights).columns(parts.average, shown)
    assert [column.shape for column in found] == [(2, 3, 16, 16)] * columns
    assert all(column.min() >= 0 and column.max() <= 1 for column in found)
    truths = {"paired": {0: "low", 2: "high"}, "unpaired": {0: "a", 3: "b"}}[kind]
    assert all(found[place].equal(shown[name]) for place, name in truths.items())
    there = parts.average if kind == "paired" else parts.average["a2b"]
    torch.testing.assert_close(found[1], (there(2 * found[0] - 1) + 1) / 2)
    lines = [json.loads(line) for line in (path.parent / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6] and "d/accuracy_real" in lines[-1]


@pytest.mark.parametrize(("kind", "columns", "rows"), [("paired", 3, 3), ("unpaired", 6, 4)])
def test_a_grid_shows_up_to_four_pictures_however_small_the_batch(runs, kind, columns, rows):
    recipe, path = runs[kind]
    assert recipe.train.batch == 1
    pixels = read_picture(path.parent / "pictures" / "step-0000006.png").pixels
    assert pixels.shape == (rows * 20 - 4, columns * 20 - 4, 3), "of 16 pixels, with 4 between"
    given = [pixels[top : top + 16, :16] for top in range(0, rows * 20, 20)]
    assert len({each.tobytes() for each in given}) == rows


def test_pictures_of_several_sizes_are_shown_one_by_one(tmp_path):
    (tmp_path / "train").mkdir()
    for side in (16, 24):
        write_picture(Picture(pixels=np.zeros((side, 2 * side, 3), np.uint8)), tmp_path / "train" / f"{side}.png")
    recipe = override(paired(tmp_path), {"data.preprocess": "none", "train.steps": 1, "train.picture_every": 1})
    path = play(recipe, tmp_path / "run")
    height, width, _ = read_picture(path.parent / "pictures" / "step-0000001.png").pixels.shape
    assert (height, width) in ((16, 16 * 3 + 8), (24, 24 * 3 + 8))


def test_grey_stands_beside_colour_in_a_grid():
    recipe = paired()
    recipe = replace(recipe, config=replace(recipe.config, in_channels=1))
    parts = build_parts(override(recipe, {"discriminator.channels": 4}), CPU)
    found = game_of(recipe.weights).columns(parts.average, batch(recipe, dtype=torch.float32))
    assert [column.shape[1] for column in found] == [3, 3, 3]


def test_a_run_goes_on_from_all_networks_of_another_or_from_one(runs, tmp_path):
    recipe, path = runs["unpaired"]
    tensors = load_run(path)[0]
    whole = build_parts(replace(recipe, start=str(path), discriminator_start=str(path)), CPU).objective
    for network, prefix in ((whole.g, "average/"), (whole.d, "d/")):
        assert all(value.equal(tensors[f"{prefix}{name}"]) for name, value in network.state_dict().items())
    back, one = path.parent / "generator-b2a.safetensors", tmp_path / "d.safetensors"
    write_safetensors(one, {name.removeprefix("d/a."): x for name, x in tensors.items() if name[:4] == "d/a."}, {})
    fresh = build_parts(recipe, CPU).objective
    half = build_parts(replace(recipe, start=str(back), discriminator_start=str(one)), CPU).objective
    assert half.g["a2b"].last.weight.equal(tensors["average/b2a.last.weight"])
    assert half.d["b"].model[0].weight.equal(tensors["d/a.model.0.weight"])
    assert half.g["b2a"].last.weight.equal(fresh.g["b2a"].last.weight)
    assert half.d["a"].model[0].weight.equal(fresh.d["a"].model[0].weight)
    other = override(replace(recipe, start=str(path)), {"config.features": 2})
    with pytest.raises(WeightsError, match=r"start: .*size mismatch"):
        build_parts(other, CPU)
    with pytest.raises(UsageError, match="this recipe wants cyclegan"):
        build_parts(override(replace(recipe, start=str(back)), {"config.features": 2}), CPU)


@pytest.mark.parametrize("make", [paired, unpaired])
@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"discriminator.channels": 2}, "discriminator.channels is 2; set it to"),
        ({"data": "pictures"}, "is a group of settings"),
        ({"data.kind": "pictures", "data.high": "x"}, "played on data.kind=translation, and the recipe has pictures"),
        ({"degradation.kind": "real"}, "set degradation=none"),
        ({"weights.pool": 3, "data.preprocess": "none"}, "pool=0, or data.preprocess=resize_and_crop"),
        ({"weights.pool": -1}, "pool must not be negative"),
        ({"config.channel_order": "bgr"}, "set config.channel_order=rgb"),
    ],
)
def test_recipes_that_do_not_fit_are_refused(make, changed, told):
    with pytest.raises(UsageError, match=told):
        checked_traits(override(make(), changed))


@pytest.mark.parametrize(
    ("recipe", "changed", "told"),
    [
        (unpaired(), {"config.in_channels": 1}, r"the domains have 1 and 3 channels: set weights\.identity=0"),
        (unpaired(), {"discriminator": "none", "weights.adversarial": 0}, "set discriminator.kind=patch"),
        (paired(), {"data.layout": "unaligned"}, "this game needs pairs"),
        (paired(), {"config.in_channels": 1}, "1 channels with 3 behind them, .* is 6; set it to 4"),
        (
            paired(),
            {"config.out_channels": 1, "discriminator.channels": 4, "weights.perceptual": 1},
            "set weights.perceptual=0",
        ),
        (replace(paired(), network="srgan", config=SRGANConfig()), {}, "srgan does not translate; choose network=pix2"),
        (replace(get_recipe("srresnet_x4"), data=paired().data), {}, "played on data.kind=pictures"),
        (
            replace(get_recipe("srresnet_x4"), network="cyclegan", config=CycleGANConfig(), data=DataConfig(crop=96)),
            {},
            "cyclegan cannot be trained to enlarge",
        ),
    ],
)
def test_players_that_do_not_fit_are_refused(recipe, changed, told):
    with pytest.raises(UsageError, match=told):
        checked_traits(override(recipe, changed))


def test_published_numbers():
    pairs, cycle, small = (get_recipe(name) for name in ("pix2pix_256", "cyclegan_256", "cyclegan_resnet6_128"))
    assert (pairs.weights.pixel, pairs.weights.adversarial, pairs.weights.pool) == (100, 1, 0)
    assert (cycle.weights.cycle, cycle.weights.cycle_b, cycle.weights.identity) == (10, 10, 0.5)
    assert (cycle.weights.pool, cycle.adversary.loss, pairs.adversary.loss) == (50, "least_squares", "non_saturating")
    assert (pairs.train.order, cycle.train.order) == ("dg", "gd")
    assert pairs.config.dropout and not cycle.config.dropout
    assert (small.config.blocks, small.data.crop, small.data.load_size) == (6, 128, 143)
    for recipe in (pairs, cycle, small):
        train = recipe.train
        assert (train.g_rate, train.d_rate, train.betas, train.batch) == (2e-4, 2e-4, (0.5, 0.999), 1)
        assert recipe.averaging.decay == 0
    for recipe, lines in ((pairs, ("54,413,955", "2,768,705")), (cycle, (f"{2 * 11_378_179:,}", f"{2 * 2_764_737:,}"))):
        told = list(estimate(recipe))
        assert all(f"{count} parameters" in line for count, line in zip(lines, told, strict=False))


def test_the_rate_falls_as_in_the_original_but_within_epochs_too():
    """There, at epoch e of 200: 1 - max(0, e + 1 - 100) / 101; a line through ours, which may be two epochs apart."""
    steps, schedule = 200 * 400, Schedule(kind="linear", flat=0.5)
    for epoch in range(1, 201):
        theirs = 1 - max(0, epoch + 1 - 100) / 101
        ours = [rate_at(schedule, 1.0, (epoch - 1) * 400 + at, steps) for at in (0, 399)]
        assert all(abs(rate - theirs) < 0.021 for rate in ours)
    assert [rate_at(schedule, 1.0, at, steps) for at in (0, 40_000, 60_000, 80_000)] == pytest.approx([1, 1, 0.5, 0])
    assert rate_at(Schedule(kind="linear", flat=0.5, milestones=(10,)), 1.0, 15, 20) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="flat must be in"):
        Schedule(flat=2)


def test_two_generators_of_a_recipe_begin_differently_and_learn_with_one_optimiser():
    parts = build_parts(unpaired(), CPU)
    g = parts.objective.g
    assert isinstance(g["a2b"], CycleGAN) and not g["a2b"].last.weight.equal(g["b2a"].last.weight)
    for player, network in (("g", g), ("d", parts.objective.d)):
        learned = [each for group in parts.optimisers[player].param_groups for each in group["params"]]
        assert len(learned) == len(list(network.parameters()))
    traits = get_spec("cyclegan").traits(CycleGANConfig(in_channels=1))
    grey = override(unpaired(), {"config.in_channels": 1, "weights.identity": 0})
    back = build_parts(grey, CPU).objective.g["b2a"]
    assert (traits.in_channels, back.last.out_channels, back.first.conv.in_channels) == (1, 1, 3)


def test_networks_and_pictures_lie_as_they_are_quickest_to_learn_from():
    cases = ((paired(), "cpu", torch.contiguous_format), (paired(), "cuda", torch.channels_last))
    cases += ((unpaired(), "cpu", torch.channels_last),)
    for recipe, device, layout in cases:
        traits = get_spec(recipe.network).traits(recipe.config)
        assert layout_of(traits, torch.device(device)) == layout
        picture = in_layout(torch.rand(2, 3, 4, 5), layout)
        assert picture.is_contiguous(memory_format=layout)
        if device == "cpu":
            networks = build_parts(recipe, CPU)
            for network in (networks.objective.g, networks.objective.d, networks.average):
                assert all(
                    weight.is_contiguous(memory_format=layout) for weight in network.parameters() if weight.ndim == 4
                )
    numbers = torch.arange(3)
    assert in_layout(numbers, torch.channels_last) is numbers
