"""Several devices that share a picture: what one of them makes of it alone, whoever gets which part."""

import logging

import numpy as np
import pytest
import torch
from engines import FakeEngine, FaultyEngine, FullEngine
from test_pipeline import noise, run
from test_rows import COMPACT, DOUBLING, RRDB, SAME, SIZE, engine_of

from restorer.engines import eager, open_engine, precision
from restorer.engines.precision import device_names
from restorer.errors import NumericalError, OutOfMemoryError, UsageError
from restorer.networks.spec import load_weights
from restorer.pipeline.picture import Picture
from restorer.pipeline.restore import Upscale
from restorer.pipeline.rows import columns_for
from restorer.pipeline.settings import UpscaleSettings
from tests.cases import CASES, random_network


def shared(make, count, **rest):
    """An engine with twins, all made alike."""
    engine, *twins = [make(**rest) for _ in range(count)]
    engine.twins = twins
    return engine


def counted(engine):
    """How many rows each of the engines is given, by its number."""
    entered = []
    for number, each in enumerate((engine, *engine.twins)):

        def stream(bands, *, exact=False, honest=each.stream, number=number):
            return honest((entered.append((number, band.shape)) or band for band in bands), exact=exact)

        each.stream = stream
    return entered


@pytest.mark.parametrize("place", [RRDB, DOUBLING, SAME, COMPACT])
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_columns_on_several_devices_make_what_one_makes(place, count, dtype):
    picture, one = Picture(pixels=noise(*SIZE, 3, dtype)), engine_of(place)
    engine = shared(lambda: engine_of(place), count)
    entered = counted(engine)
    apart = np.abs(run(picture, engine).astype(np.float64) - run(picture, one))
    assert apart.max() <= (1e-5 if dtype == np.float32 else 1)
    assert {number for number, _ in entered} == set(range(len(columns_for(SIZE[1], engine))))
    assert len({shape[3] for _, shape in entered}) == 1
    if place == COMPACT:
        assert len(columns_for(SIZE[1], engine)) == count


def test_alpha_and_what_lies_outside_white_are_drawn_in_columns_too():
    alpha, pixels = noise(*SIZE, 1, np.float32, seed=1)[:, :, 0], noise(*SIZE, 3, np.float32)
    pixels[50:60, 40:120] += 3
    picture = Picture(pixels=pixels, alpha=alpha)
    made = run(picture, shared(lambda: engine_of(COMPACT), 2))
    np.testing.assert_allclose(made, run(picture, engine_of(COMPACT)), atol=2e-5)


@pytest.mark.parametrize(
    ("width", "radius", "count", "keep", "read"),
    [
        (100, 10, 2, [(0, 50), (50, 100)], [(0, 70), (30, 100)]),
        (90, 10, 3, [(0, 30), (30, 60), (60, 90)], [(0, 50), (20, 70), (40, 90)]),
        (50, 10, 3, [(0, 25), (25, 50)], [(0, 45), (5, 50)]),
        (39, 10, 2, [(0, 39)], [(0, 39)]),
        (100, 0, 1, [(0, 100)], [(0, 100)]),
    ],
)
def test_columns_are_read_with_what_the_network_sees_beside_them(width, radius, count, keep, read):
    spans = columns_for(width, shared(FakeEngine, count, radius=radius))
    assert ([span.keep for span in spans], [span.read for span in spans]) == (keep, read)


def test_columns_begin_where_the_network_can_begin():
    spans = columns_for(101, shared(FakeEngine, 2, radius=9, multiple_of=4))
    assert all(start % 4 == 0 and (stop - start) % 4 == 0 for start, stop in (span.read for span in spans))
    assert [span.keep for span in spans] == [(0, 48), (48, 101)]


@pytest.mark.parametrize("count", [2, 3])
def test_tiles_are_dealt_out_in_turn(count):
    picture, engine = Picture(pixels=noise(130, 200)), shared(FakeEngine, count, radius=3, batch_of_one=True)
    assert np.array_equal(run(picture, engine, tile=32), run(picture, FakeEngine(radius=3), tile=32))
    calls = [len(each.calls) for each in (engine, *engine.twins)]
    assert max(calls) - min(calls) <= 1 < min(calls)


def test_what_is_faulty_on_one_device_is_done_again_there(caplog):
    picture = Picture(pixels=noise(64, 96))
    engine = FakeEngine(batch_of_one=True)
    engine.twins = [FaultyEngine(at=1, wrong="nan", batch_of_one=True)]
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(run(picture, engine, tile=32), run(picture, FakeEngine(), tile=32))
    assert caplog.text.count("done again in float32") == 1
    engine.twins = [FaultyEngine(at=1, wrong="nan", hopeless=True, batch_of_one=True)]
    with pytest.raises(NumericalError):
        run(picture, engine, tile=32)


def test_one_device_without_room_begins_anew_with_less_on_all(caplog):
    picture, engine = Picture(pixels=noise(70, 400)), FakeEngine(radius=3, batch_of_one=True)
    engine.twins = [FullEngine(most=60 * 60, after=1, radius=3, batch_of_one=True)]
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(run(picture, engine, tile=100), run(picture, FakeEngine(radius=3), tile=100))
    assert "not enough memory" in caplog.text


def test_columns_without_room_on_one_device_begin_again_in_tiles(caplog):
    engine, picture = shared(lambda: engine_of(COMPACT), 2), Picture(pixels=noise(*SIZE))

    def full(bands, *, exact=False):
        raise OutOfMemoryError("no room")
        yield

    engine.twins[0].stream = full
    with caplog.at_level(logging.WARNING):
        made = run(picture, engine)
    assert "begins again in tiles" in caplog.text
    assert np.abs(made.astype(int) - run(picture, engine_of(COMPACT))).max() <= 1


def test_progress_never_goes_back_and_ends_with_the_picture():
    engine, picture = shared(lambda: engine_of(COMPACT), 2), Picture(pixels=noise(*SIZE))
    seen, work = [], Upscale(picture, engine, UpscaleSettings())
    work.run(lambda: lambda block: None, progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1] == (work.pixels, work.pixels)
    told = work.told()
    seen = columns_for(SIZE[1], engine)[0].read[1]
    assert told["tile"][0] == seen < SIZE[1]
    assert told["tiles"] == 2 * -(-SIZE[0] // told["tile"][1])


@pytest.mark.parametrize(
    ("name", "names"),
    [("auto", ["auto"]), ("cuda:1", ["cuda:1"]), ("cuda:0,cuda:2", ["cuda:0", "cuda:2"]), ("cuda:all", ["cuda"])],
)
def test_devices_are_named_with_commas_between(name, names, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert device_names(name) == names


def test_all_devices_are_as_many_as_there_are(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert device_names("cuda:all") == ["cuda:0", "cuda:1", "cuda:2"]


def model_of(place):
    return load_weights(random_network(CASES[place]).state_dict())


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"device": "cpu,cpu"}, "names cpu twice"),
        ({"device": "cuda:0,cuda:1", "kind": "onnx"}, "runs on one device"),
        ({"device": "cuda:0,1"}, "no device named '1'|no CUDA device"),
    ],
)
def test_devices_that_cannot_share_are_refused(wanted, words):
    with pytest.raises((UsageError, precision.UnsupportedError), match=words):
        open_engine(model_of(COMPACT), **wanted)


@pytest.fixture
def two_here(monkeypatch):
    """Any device is the processor."""
    monkeypatch.setattr(eager, "choose_device", lambda name: torch.device("cpu"))


def test_opened_on_two_devices_one_engine_has_the_other_as_its_twin(two_here):
    engine = open_engine(model_of(COMPACT), device="cuda:0,cuda:1", precision="fp32")
    (twin,) = engine.twins
    assert engine.name == twin.name == "eager"
    assert engine.where == "cpu, cpu"
    assert engine.pixels_per_second > twin.pixels_per_second
    picture = Picture(pixels=noise(*SIZE))
    assert np.abs(run(picture, engine).astype(int) - run(picture, engine_of(COMPACT))).max() <= 1


def test_a_device_that_computes_otherwise_takes_no_part(two_here, monkeypatch, caplog):
    made = iter([torch.float32, torch.bfloat16])
    monkeypatch.setattr(
        eager, "choose_precision", lambda *wanted: precision.Choice(dtype=next(made), why="as this test says")
    )
    engine = open_engine(model_of(COMPACT), device="cuda:0,cuda:1")
    assert not engine.twins
    assert "takes no part" in caplog.text
