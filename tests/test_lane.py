"""The way to a device and back: what is late or early changes no pixel, and what is faulty is found before it is taken.

There is no GPU here: a lane whose answers come late stands for one, and what runs on it is what runs on a processor.
For CUDA's streams stands late_cuda.py.
"""

import contextlib
import logging
from functools import lru_cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from late_cuda import Stream, late_cuda
from test_pipeline import noise, run
from test_rows import COMPACT, SIZE, engine_of

from restorer.errors import NumericalError, OutOfMemoryError
from restorer.kernels.gather_tiles import PEAKS
from restorer.pipeline import restore, rows
from restorer.pipeline.guard import fault
from restorer.pipeline.lane import Direct, Streams, lane_to
from restorer.pipeline.picture import Picture
from restorer.pipeline.prepare import to_batch

CPU = torch.device("cpu")
FOUR = 128, 512
"""Four tiles of 128, one a batch."""


class Late(Direct):
    """Gives nothing before it is asked, and remembers what happened in which order."""

    ahead = 1

    def __init__(self):
        super().__init__(CPU)
        self.happened = []

    def send(self, block):
        self.happened.append("send")
        return super().send(block)

    def fetch(self, x):
        def wait():
            self.happened.append("wait")
            return x.numpy()

        return wait


def torch_of(dtype):
    """PyTorch's name of numpy's kind of numbers."""
    return torch.from_numpy(np.empty(0, dtype)).dtype


def put_late(monkeypatch):
    lane = Late()
    for module in (restore, rows):
        monkeypatch.setattr(module, "lane_to", lambda device: lane)
    return lane


@pytest.fixture
def late(monkeypatch):
    return put_late(monkeypatch)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize(("channels", "wanted"), [(1, 3), (3, 3), (1, 1)])
def test_what_is_sent_is_the_batch_that_is_made_here(dtype, channels, wanted):
    blocks = [noise(9, 7, channels, dtype, seed=seed) for seed in range(3)]
    made = to_batch(blocks, channels=wanted, lane=Direct(CPU))
    levels = np.stack(blocks).transpose(0, 3, 1, 2).astype(np.float32) / np.float32(PEAKS[torch_of(dtype)])
    assert np.array_equal(made, np.broadcast_to(levels.clip(0, 1), (3, wanted, 9, 7)))
    assert made.is_contiguous(memory_format=torch.channels_last)
    assert set(PEAKS) == {torch_of(each) for each in (np.uint8, np.uint16, np.float32)}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("wanted", [{}, {"tile": 64}, {"tile": 64, "wrap": True}, {"tile": 0}])
@pytest.mark.parametrize("alpha", [False, True])
def test_late_answers_change_no_pixel(dtype, wanted, alpha, monkeypatch):
    pixels = noise(*SIZE, 3, dtype)
    alpha = noise(*SIZE, 1, dtype, seed=1)[:, :, 0] if alpha else None
    engine, picture = engine_of(COMPACT), Picture(pixels=pixels, alpha=alpha)
    direct = run(picture, engine, **wanted)
    lane = put_late(monkeypatch)
    assert np.array_equal(run(picture, engine, **wanted), direct)
    assert "wait" in lane.happened


def test_the_next_batch_is_sent_before_the_last_is_waited_for(late):
    run(Picture(pixels=noise(*FOUR)), engine_of(COMPACT), tile=128)
    assert late.happened[:3] == ["send", "send", "wait"]
    assert late.happened.count("send") == 4


def spoiled(engine, *, calls):
    """The engine, whose results are NaN at those calls; and how often it was asked, in its precision and in float32."""
    asked = {"run": 0, "again": 0}
    inner = engine.run

    def broken(inputs):
        asked["run"] += 1
        y = inner(inputs)["image"]
        return {"image": y * float("nan") if asked["run"] in calls else y}

    def again(x):
        asked["again"] += 1
        return inner({"image": x})["image"]

    engine.run, engine.run_again = broken, again
    return asked


def test_a_faulty_batch_is_done_again_once_although_the_next_has_begun(late, caplog):
    engine, picture = engine_of(COMPACT), Picture(pixels=noise(*FOUR))
    good = run(picture, engine, tile=128)
    asked = spoiled(engine, calls={2})
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(run(picture, engine, tile=128), good)
    assert asked == {"run": 4, "again": 1}
    assert caplog.text.count("done again in float32") == 1


def test_a_batch_that_stays_faulty_is_refused_before_it_is_taken(late):
    engine = engine_of(COMPACT)
    spoiled(engine, calls={3})
    engine.run_again = lambda x: torch.full((len(x), 3, 2 * x.shape[2], 2 * x.shape[3]), float("nan"))
    with pytest.raises(NumericalError, match="not finite"):
        run(Picture(pixels=noise(*FOUR)), engine, tile=128)


def test_what_finds_no_room_on_the_way_is_said_as_out_of_memory(monkeypatch):
    def full(x, y):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(restore, "spans", full)
    with pytest.raises(OutOfMemoryError, match="32 pixels"):
        run(Picture(pixels=noise(64, 80)), engine_of(COMPACT), tile=64)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_value_that_is_not_finite_is_a_fault(place):
    x, y = torch.rand(3, 3, 8, 8), torch.rand(3, 3, 16, 16)
    for value in (float("nan"), float("inf"), -float("inf")):
        spoilt = y.clone()
        spoilt[place, 1, 5, 5] = value
        assert "not finite" in (fault(x, spoilt) or "")
        spoilt[place] = value
        assert "not finite" in (fault(x, spoilt) or "")
    assert fault(x, y) is None


def test_a_processor_has_nothing_to_wait_for():
    assert lane_to(CPU).ahead == 0


def run_late(picture, monkeypatch, count=1, **wanted):
    """What comes out of so many late devices, and how much memory was used without a word."""
    with late_cuda() as late:
        for module in (restore, rows):
            monkeypatch.setattr(module, "lane_to", lru_cache(Streams))
        engine, *twins = engines = [engine_of(COMPACT) for _ in range(count)]
        for number, each in enumerate(engines):
            each.device = torch.device("cpu", number)
        engine.twins = twins
        made = run(picture, engine, **wanted)
    assert len(late.mains) == count
    return made, late.unkept()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("wanted", [{}, {"tile": 64}])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("count", [1, 2])
def test_streams_wait_for_all_they_need(dtype, wanted, alpha, count, monkeypatch):
    pixels = noise(*SIZE, 3, dtype)
    picture = Picture(pixels=pixels, alpha=noise(*SIZE, 1, dtype, seed=1)[:, :, 0] if alpha else None)
    direct = run(picture, engine_of(COMPACT), **wanted)
    made, unkept = run_late(picture, monkeypatch, count, **wanted)
    apart = np.abs(made.astype(np.float64) - direct)
    assert apart.max() <= (1e-5 if dtype == np.float32 else 1 if dtype == np.uint8 else 3)
    assert unkept == 0


@pytest.mark.parametrize("wanted", [{}, {"tile": 64}])
def test_who_forgets_to_wait_for_a_stream_is_found(wanted, monkeypatch):
    picture = Picture(pixels=noise(*SIZE))
    direct = run(picture, engine_of(COMPACT), **wanted)
    monkeypatch.setattr(Stream, "wait_stream", lambda *streams: None)
    with contextlib.suppress(NumericalError):
        assert not np.array_equal(run_late(picture, monkeypatch, **wanted)[0], direct)


@pytest.mark.parametrize("wanted", [{}, {"tile": 64}])
def test_who_forgets_to_wait_for_what_is_fetched_is_found(wanted, monkeypatch):
    picture = Picture(pixels=noise(*SIZE))
    direct = run(picture, engine_of(COMPACT), **wanted)
    monkeypatch.setattr(Stream, "record_event", lambda stream: SimpleNamespace(synchronize=lambda: None))
    with contextlib.suppress(NumericalError):
        assert not np.array_equal(run_late(picture, monkeypatch, **wanted)[0], direct)


def test_who_does_not_say_that_another_stream_uses_memory_is_found(monkeypatch):
    with late_cuda() as late:
        keep, lane = torch.Tensor.record_stream, Streams(torch.device("cpu", 0))
        for kept in (True, False):
            monkeypatch.setattr(torch.Tensor, "record_stream", keep if kept else lambda x, stream: None)
            lane.fetch(lane.send(np.zeros(3, np.uint8)) + 1)()
            assert (late.unkept() == 0) == kept


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("wanted", [{}, {"tile": 64}])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_streams_bring_back_what_was_sent_and_computed(wanted, dtype):
    device = torch.device("cuda")
    assert isinstance(lane_to(device), Streams)
    picture = Picture(pixels=noise(*SIZE, 3, dtype))
    ours = run(picture, engine_of(COMPACT, device="cuda"), **wanted).astype(np.float64)
    apart = np.abs(ours - run(picture, engine_of(COMPACT), **wanted))
    assert apart.max() <= (1e-4 if dtype == np.float32 else 1 if dtype == np.uint8 else 8)
