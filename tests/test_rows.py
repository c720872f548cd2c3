"""A picture that goes rows after rows: what one go makes, at any depth, and what happens when that goes wrong."""

import logging

import numpy as np
import pytest
import torch
from test_pipeline import noise, run

from restorer.engines.eager import EagerEngine
from restorer.errors import NumericalError, OutOfMemoryError
from restorer.networks.spec import load_weights
from restorer.pipeline import restore, rows
from restorer.pipeline.picture import Picture
from restorer.pipeline.restore import Upscale
from restorer.pipeline.settings import UpscaleSettings
from restorer.pipeline.tensors import restore_tensor
from tests.cases import CASES, random_network

SIZE = 231, 190
"""More than goes in one go, odd, and higher than a tiny network sees."""


def engine_of(place, **rest):
    """An engine of the place-th row of cases."""
    rest = {"device": "cpu", "precision": "fp32", **rest}
    return EagerEngine(load_weights(random_network(CASES[place]).state_dict()), **rest)


RRDB, DOUBLING, SAME, COMPACT = 0, 1, 2, 7


def goes_in_rows(work):
    return work.told()["tile"][0] == work.size_in[1] and work.told()["tiles"] > 1


@pytest.mark.parametrize("place", [RRDB, DOUBLING, SAME, COMPACT])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3])
def test_rows_make_what_one_go_makes(place, dtype, channels):
    engine, picture = engine_of(place), Picture(pixels=noise(*SIZE, channels, dtype))
    assert goes_in_rows(Upscale(picture, engine, UpscaleSettings()))
    one_go, in_rows = run(picture, engine, tile=0), run(picture, engine)
    assert in_rows.shape == one_go.shape
    assert in_rows.dtype == dtype
    apart = np.abs(in_rows.astype(np.float64) - one_go)
    assert apart.max() <= (1e-5 if dtype == np.float32 else 1)
    assert apart.mean() < (1e-6 if dtype == np.float32 else 1e-3)  # rounded otherwise in few places


def test_alpha_is_drawn_beside_the_colours():
    engine, pixels = engine_of(RRDB), noise(*SIZE)
    alpha = noise(*SIZE, 1, seed=1)[:, :, 0]
    made, one_go = (run(Picture(pixels=pixels, alpha=alpha), engine, **wanted) for wanted in ({}, {"tile": 0}))
    assert np.abs(made.astype(int) - one_go).max() <= 1
    assert made[:, :, 3].std() > 1


def test_an_even_alpha_stays_even():
    picture = Picture(pixels=noise(*SIZE), alpha=np.full(SIZE, 77, np.uint8))
    assert (run(picture, engine_of(RRDB))[:, :, 3] == 77).all()


def test_what_a_float_picture_holds_outside_is_added_again():
    pixels = noise(*SIZE, 3, np.float32)
    pixels[50:60, 40:80] += 3
    pixels[120:125] -= 2
    picture, engine = Picture(pixels=pixels), engine_of(DOUBLING)
    made, one_go = run(picture, engine), run(picture, engine, tile=0)
    np.testing.assert_allclose(made, one_go, atol=2e-5)
    assert made.max() > 2.5


def test_a_picture_that_is_enlarged_twice_goes_in_rows_twice():
    engine, picture = engine_of(DOUBLING), Picture(pixels=noise(120, 310))
    made, one_go = run(picture, engine, scale=4), run(picture, engine, scale=4, tile=0)
    assert np.abs(made.astype(int) - one_go).max() <= 1


@pytest.mark.parametrize("wanted", [{"tile": 64}, {"tile": 0}, {"wrap": True}])
def test_tiles_are_taken_where_they_are_asked_for_or_needed(wanted):
    assert not goes_in_rows(Upscale(Picture(pixels=noise(*SIZE)), engine_of(RRDB), UpscaleSettings(**wanted)))


def test_a_picture_too_wide_for_what_must_be_kept_goes_in_tiles():
    engine, picture = engine_of(RRDB), Picture(pixels=noise(*SIZE))
    engine.memory_total = int(4 * engine.traits.values_kept * SIZE[1] / rows.MEMORY_SHARE) - 1
    assert not goes_in_rows(Upscale(picture, engine, UpscaleSettings()))
    engine.memory_total += 1
    assert goes_in_rows(Upscale(picture, engine, UpscaleSettings()))


def test_without_room_for_rows_a_picture_begins_again_in_tiles(caplog):
    engine, picture = engine_of(RRDB), Picture(pixels=noise(*SIZE))
    whole = run(picture, engine, tile=0)
    honest = engine.stream

    def full(bands, *, exact=False):
        for number, made in enumerate(honest(bands, exact=exact)):
            if number == 2:
                raise OutOfMemoryError("no room")
            yield made

    engine.stream = full
    with caplog.at_level(logging.WARNING):
        made = run(picture, engine)
    assert [record.message for record in caplog.records] == ["not enough memory; begins again in tiles"]
    assert np.abs(made.astype(int) - whole).max() <= 1  # the overlap of so small a network is all it sees


def test_tensors_without_room_for_rows_begin_again_in_tiles(caplog):
    engine, x = engine_of(RRDB), torch.rand(1, 3, *SIZE)
    whole = restore_tensor(x, engine, UpscaleSettings(tile=0))

    def full(bands, *, exact=False):
        raise OutOfMemoryError("no room")

    engine.stream = full
    torch.testing.assert_close(restore_tensor(x, engine, UpscaleSettings()), whole, atol=1e-5, rtol=0)
    assert "begins again in tiles" in caplog.text


def spoiling(engine, wrong, *, always=False):
    """Rows come back as `wrong` makes them: only in half precision, or always."""
    honest = engine.stream
    engine.run_again = engine.run  # as where half precision was chosen

    def stream(bands, *, exact=False):
        for made in honest(bands, exact=exact):
            yield made if exact and not always else wrong(made)

    engine.stream = stream
    return engine


WRONG = {
    "values that are not finite": lambda y: y.where(y != y.max(), float("inf")),
    "one single colour although the input varies": lambda y: torch.zeros_like(y) + 0.5,
}


@pytest.mark.parametrize("words", WRONG)
def test_a_faulty_result_is_made_again_in_float32(words, caplog):
    picture, engine = Picture(pixels=noise(*SIZE)), engine_of(RRDB)
    whole = run(picture, engine)
    with caplog.at_level(logging.WARNING):
        made = run(picture, spoiling(engine, WRONG[words]))
    assert words in caplog.text
    assert np.array_equal(made, whole)


@pytest.mark.parametrize("words", WRONG)
def test_a_result_that_stays_faulty_is_refused_in_a_line(words):
    engine = spoiling(engine_of(RRDB), WRONG[words], always=True)
    with pytest.raises(NumericalError, match=f"{words}, in float32 too"):
        run(Picture(pixels=noise(*SIZE)), engine)


def test_a_picture_of_one_colour_may_become_one():
    engine = spoiling(engine_of(RRDB), WRONG["one single colour although the input varies"], always=True)
    made = run(Picture(pixels=np.full((*SIZE, 3), 90, np.uint8)), engine)
    assert (made == 128).all()


def test_progress_ends_with_all_pixels():
    told = []
    work = Upscale(Picture(pixels=noise(*SIZE)), engine_of(RRDB), UpscaleSettings())
    work.run(lambda: lambda block: None, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (SIZE[0] * SIZE[1], SIZE[0] * SIZE[1])
    assert len(told) > 3
    assert told == sorted(told)


def test_progress_is_told_long_before_the_first_rows_come():
    told, taken = [], []
    work = Upscale(Picture(pixels=noise(*SIZE)), engine_of(RRDB), UpscaleSettings())
    work.run(lambda: taken.append, progress=lambda done, total: told.append((done / total, len(taken))))
    early = [share for share, rows_taken in told if not rows_taken]
    assert early
    assert max(early) < 0.6


def test_the_estimate_counts_each_pixel_once():
    work = Upscale(Picture(pixels=noise(*SIZE)), engine_of(RRDB), UpscaleSettings())
    seconds = SIZE[0] * SIZE[1] / work.engine.pixels_per_second
    assert work.told()["estimated_seconds"] == pytest.approx(seconds, abs=0.06)
    assert restore.rows_at_once(SIZE[1], work.engine) == work.told()["tile"][1]


@pytest.mark.parametrize("channels", [1, 3])
def test_tensors_go_in_rows_as_well(channels):
    engine = engine_of(DOUBLING)
    x = torch.rand(2, channels, *SIZE)
    made, one_go = (restore_tensor(x, engine, UpscaleSettings(tile=tile)) for tile in (None, 0))
    torch.testing.assert_close(made, one_go, atol=1e-5, rtol=0)


def test_a_faulty_tensor_is_made_again_in_float32_or_refused(caplog):
    words = "one single colour although the input varies"
    x, honest = torch.rand(1, 3, *SIZE), engine_of(RRDB)
    made = restore_tensor(x, spoiling(engine_of(RRDB), WRONG[words]), UpscaleSettings())
    assert words in caplog.text
    torch.testing.assert_close(made, restore_tensor(x, honest, UpscaleSettings()))
    with pytest.raises(NumericalError, match=f"{words}, in float32 too"):
        restore_tensor(x, spoiling(engine_of(RRDB), WRONG[words], always=True), UpscaleSettings())
