"""restorer translate where something goes wrong, in one go and in bands alike: faults, little memory, tiny pictures."""

import logging

import numpy as np
import pytest
import torch
from cases import CASES, Case, random_network
from test_translate import CASES as COMMON
from test_translate import SHAPE, engine_of, photo, run

from restorer.engines.eager import EagerEngine
from restorer.errors import NumericalError, OutOfMemoryError
from restorer.networks.bands import PictureRows
from restorer.networks.pix2pix import Pix2PixConfig
from restorer.networks.spec import get_spec, load_weights
from restorer.pipeline import translate
from restorer.pipeline.picture import Picture
from restorer.pipeline.settings import TranslateSettings
from restorer.pipeline.source import ArrayTaker
from restorer.pipeline.translate import Translation

TRANSLATING = [case for case in CASES if get_spec(case.name).task == "translate"]
LOCAL = Case("pix2pix", Pix2PixConfig(features=4, levels=4, norm="none"), SHAPE, SHAPE)
NO_ROOM = "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: 9 bytes"
"""As torch says it."""
both_ways = pytest.mark.parametrize("tile", [0, 32], ids=["whole", "bands"])


def opened(case, **options):
    model = load_weights(dict(random_network(case).state_dict()), facts=case.facts)
    return EagerEngine(model, device="cpu", precision="fp32", self_check=False, **options)


def played(pixels, engine, **wanted):
    """(the work when it is done, the picture that came out, how often it was begun)."""
    work = Translation(Picture(pixels=pixels), engine, TranslateSettings(model="x", **wanted))
    takers = []

    def open_rows():
        takers.append(ArrayTaker(work.info.size, work.info.samples, work.info.dtype))
        return takers[-1]

    work.run(open_rows)
    return work, takers[-1].array, len(takers)


# What comes back is faulty


def at_the_end(value):
    def spoil(y):
        y = y.clone()
        y[:, -1, -1, -1] = value
        return y

    return spoil


WRONG = {
    "nan": at_the_end(float("nan")),
    "inf": at_the_end(float("inf")),
    "one colour": lambda y: torch.tensor([0.2, 0.5, 0.7])[:, None, None].expand_as(y).clone(),
}
each_wrong = pytest.mark.parametrize("wrong", WRONG)


def spoiled(wrong, *, hopeless):
    """An engine that computes in half precision as far as anyone can tell, whose answers are spoiled there."""
    engine, spoil = engine_of("cyclegan"), WRONG[wrong]
    honest, walk = engine.run, engine.walk

    def walked(picture, bands, *, exact=False):
        for top, y in walk(picture, bands):
            last = wrong == "one colour" or top + y.shape[2] == picture.height
            yield top, spoil(y) if last and (hopeless or not exact) else y

    def again(x):
        y = honest({"image": x})["image"]
        return spoil(y) if hopeless else y

    engine.run = lambda inputs: {"image": spoil(honest(inputs)["image"])}
    engine.walk, engine.run_again = walked, again
    return engine


@both_ways
@each_wrong
def test_a_fault_is_mended_in_float32_and_said(tile, wrong, caplog):
    pixels = photo(80, 40)
    with caplog.at_level(logging.WARNING):
        made = run(pixels, spoiled(wrong, hopeless=False), tile=tile)
    assert np.array_equal(made, run(pixels, engine_of("cyclegan"), tile=tile))
    assert len(caplog.records) == 1
    assert "again in float32" in caplog.text


@each_wrong
def test_a_fault_that_stays_is_refused_in_the_same_words_either_way(wrong):
    told = []
    for tile in (0, 32):
        for lowered in (True, False):
            engine = spoiled(wrong, hopeless=True)
            engine.run_again = engine.run_again if lowered else None
            with pytest.raises(NumericalError, match="the weights do not fit this picture") as caught:
                run(photo(80, 40), engine, tile=tile)
            told.append(str(caught.value))
    assert len(set(told)) == 1
    assert ("not finite" in told[0]) == (wrong != "one colour")


@both_ways
def test_a_picture_of_one_colour_may_become_one_colour(tile, caplog):
    pixels = np.full((80, 40, 3), (200, 40, 90), np.uint8)
    with caplog.at_level(logging.WARNING):
        made = run(pixels, spoiled("one colour", hopeless=True), tile=tile)
    assert np.array_equal(made, np.full((80, 40, 3), np.rint(np.multiply((0.2, 0.5, 0.7), 255)), np.uint8))
    assert not caplog.records


@both_ways
def test_an_honest_network_may_make_one_colour_of_one(tile):
    network = random_network(COMMON["cyclegan"])
    with torch.no_grad():
        network.last.weight.zero_()
        network.last.bias.fill_(0.5)
    engine = EagerEngine(load_weights(dict(network.state_dict())), device="cpu", precision="fp32", self_check=False)
    colour = np.full((40, 44, 3), (200, 40, 90), np.uint8)
    assert np.all(run(colour, engine, tile=tile) == round((np.tanh(0.5) + 1) / 2 * 255))
    with pytest.raises(NumericalError, match="one single colour"):
        run(photo(40, 44), engine, tile=tile)


@pytest.mark.parametrize("size", [(1, 1), (40, 44), (150, 100)], ids=str)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_rounding_of_one_colour_is_not_blown_up_to_a_picture(size, precision):
    """Norms without weights leave nothing of it, ReLU nothing of that: what is left is the last bias."""
    network = random_network(COMMON["cyclegan"])
    expected = (network.last.bias.detach().double().tanh() + 1) / 2
    model = load_weights(dict(network.state_dict()))
    engine = EagerEngine(model, device="cpu", precision=precision, self_check=False)
    for colour in ((200, 40, 90), (255, 255, 255), (1, 2, 3)):
        pixels = (np.full((*size, 3), colour) / 255).astype(np.float32)
        for tile in (0, 32):
            assert np.abs(run(pixels, engine, tile=tile) - expected.numpy()).max() < 1e-6


# Maps that are held in half precision


def test_tight_maps_that_overflow_are_held_in_float32_the_second_time(monkeypatch, caplog):
    """A norm undoes any factor before it; half precision ends at 65,504."""
    network = random_network(COMMON["cyclegan"])
    with torch.no_grad():
        network.down[1].conv.weight.mul_(1e6)
    engine = EagerEngine(load_weights(dict(network.state_dict())), device="cpu", precision="fp32", self_check=False)
    assert engine.run_again is None, "it is float32 already, but for what is held"
    pixels = photo(80, 40, dtype=np.float32)
    whole = run(pixels, engine, tile=0)
    monkeypatch.setattr(translate, "TIGHT_FROM", 0)
    work, made, begun = played(pixels, engine, tile=32)
    assert np.abs(made - whole).max() < 2e-5
    assert begun == 2
    assert "again in float32" in caplog.text
    assert work.notices == [], "nothing of it was held in half precision"


def test_tight_maps_are_said_and_near(monkeypatch):
    pixels = photo(80, 40, dtype=np.float32)
    whole = run(pixels, engine_of("cyclegan"), tile=0)
    monkeypatch.setattr(translate, "TIGHT_FROM", 0)
    work, made, begun = played(pixels, engine_of("cyclegan"), tile=32)
    assert begun == 1
    assert 1e-6 < np.abs(made - whole).max() < 0.02
    assert "half precision" in work.notices[0]


# Little memory


def reads_of(engine, pixels):
    """How often a walk in bands of 32 rows reads the picture."""
    seen = []
    honest = engine.walk

    def counted(picture, bands, *, exact=False):
        def read(top, bottom):
            seen.append(bottom - top)
            return picture.read(top, bottom)

        return honest(PictureRows(picture.height, read), bands, exact=exact)

    engine.walk = counted
    run(pixels, engine, tile=32)
    return len(seen)


@pytest.mark.parametrize("name", ["pix2pix", "cyclegan"])
@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_without_memory_inside_a_band_it_begins_again_lower_and_ends_with_the_same_picture(name, where, caplog):
    pixels = photo(120, 40, dtype=np.float32)
    count = reads_of(engine_of(name), pixels)
    at = {"first": 1, "middle": count // 2, "last": count}[where]
    engine, failures = engine_of(name), [at, 1]
    honest = engine.walk

    def failing(picture, bands, *, exact=False):
        reads = iter(range(1, 10**6))
        now = failures.pop(0) if failures else 0

        def read(top, bottom):
            if next(reads) == now:
                raise RuntimeError(NO_ROOM)
            return picture.read(top, bottom)

        return honest(PictureRows(picture.height, read), bands, exact=exact)

    engine.walk = failing
    with caplog.at_level(logging.WARNING):
        work, made, begun = played(pixels, engine, tile=32)
    assert (work.rows, begun) == (8, 3)
    assert np.abs(made - run(pixels, engine_of(name), tile=0)).max() < 2e-5
    assert [record.message for record in caplog.records if "not enough memory" in record.message] == [
        "not enough memory; begins again with less of the picture at once"
    ] * 2


def test_without_memory_for_any_band_it_gives_up():
    engine = engine_of("cyclegan")
    honest, begun = engine.walk, []

    def failing(picture, bands, *, exact=False):
        begun.append(1)

        def read(top, bottom):
            raise RuntimeError(NO_ROOM)

        return honest(PictureRows(picture.height, read), bands, exact=exact)

    engine.walk = failing
    with pytest.raises(OutOfMemoryError, match="this picture's maps"):
        run(photo(80, 40), engine, tile=32)
    assert len(begun) == 4, "32, 16, 8 and 4 rows"


# Sides below what networks take


def truth(case, pixels):
    """(H, W, C) of the network on the picture mirrored by NumPy, in [0, 1]."""
    network, traits = random_network(case), get_spec(case.name).traits(case.config)
    height, width = pixels.shape[:2]
    least, multiple = traits.min_side, traits.multiple_of
    pad = [(0, -(-max(side, least) // multiple) * multiple - side) for side in (height, width)]
    x = torch.from_numpy(np.pad(pixels, [*pad, (0, 0)], mode="reflect")).permute(2, 0, 1)[None]
    with torch.no_grad():
        y = (network((x.flip(1) if case.name == "whitebox" else x) * 2 - 1) + 1) / 2
    y = y.flip(1) if case.name == "whitebox" else y
    return y[0].permute(1, 2, 0).numpy()[:height, :width].clip(0, 1)


@pytest.mark.parametrize("case", TRANSLATING, ids=str)
@pytest.mark.parametrize("size", [(1, 1), (3, 3), (3, 40), (1, 9), (5, 7), (40, 3)], ids=str)
def test_a_tiny_picture_is_mirrored_alike_in_one_go_and_in_bands(case, size):
    engine = opened(case)
    pixels = photo(*size, channels=engine.traits.in_channels, dtype=np.float32)
    made = {tile: run(pixels, engine, tile=tile) for tile in (None, 0, 32)}
    expected = truth(case, pixels)
    for each in made.values():
        assert each.shape == (*size, engine.traits.out_channels)
        assert np.abs(each - expected).max() < 1e-5


# A U-Net without norms, which sees far all the same


def test_a_unet_without_norms_goes_in_one_go_or_in_bands_and_reads_nothing_twice():
    engine = opened(LOCAL)
    assert engine.traits.radius > 16, "tiles of it would be mostly overlap"
    pixels = photo(150, 100, dtype=np.float32)
    whole, made, _ = played(pixels, engine)
    assert (whole.told()["tiles"], whole.rows) == (1, 0)
    assert np.abs(made - truth(LOCAL, pixels)).max() < 1e-5
    engine.memory_total = 1  # where a window has room for 64 x 64 pixels
    bands, in_bands, _ = played(pixels, engine)
    assert bands.rows == 32, "the least automatic height"
    assert bands.told()["tile"] == [100, 32]
    assert bands.told()["tiles"] == 5
    assert np.abs(in_bands - made).max() < 1e-5
    asked = played(pixels, engine, tile=64)[0]
    assert asked.told()["tile"] == [100, 64]


def test_a_unet_without_norms_is_tiled_where_an_engine_has_no_bands():
    engine = opened(LOCAL)
    engine.walk = None
    pixels = photo(150, 100, dtype=np.float32)
    tiled, made, _ = played(pixels, engine, tile=64)
    assert tiled.told()["tiles"] == 6
    assert np.abs(made - truth(LOCAL, pixels)).max() < 1e-5
