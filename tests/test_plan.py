"""Tiles: every pixel once, every window equal, never more read than the picture holds."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from restorer.errors import OutOfMemoryError
from restorer.networks.spec import Traits
from restorer.pipeline.plan import fixed_spans, plan_auto, plan_for, plan_spans, plan_tiles, smaller_tile, window_pixels

SIDES = st.integers(1, 700)
TILES = st.integers(32, 300)
OVERLAPS = st.integers(0, 40)
MULTIPLES = st.sampled_from([1, 2, 4])


def traits(**changes) -> Traits:
    return Traits(**{"radius": 8, "overlap": 8, "precisions": frozenset({"fp32"}), **changes})


@given(SIDES, TILES, OVERLAPS, MULTIPLES)
def test_cores_cover_a_side_exactly_once(side, tile, overlap, multiple):
    spans = plan_spans(side, tile=tile, overlap=overlap, multiple=multiple)
    assert [i for s in spans for i in range(*s.keep)] == list(range(side))


@given(SIDES, TILES, OVERLAPS, MULTIPLES)
def test_windows_are_equal_aligned_and_hold_their_core_with_overlap(side, tile, overlap, multiple):
    spans = plan_spans(side, tile=tile, overlap=overlap, multiple=multiple)
    padded = -(-side // multiple) * multiple
    assert len({stop - start for start, stop in (s.read for s in spans)}) == 1
    for (a, b), (start, stop) in ((s.keep, s.read) for s in spans):
        assert start % multiple == 0
        assert 0 <= start <= max(0, a - overlap)
        assert min(side, b + overlap) <= stop <= padded


@given(SIDES, TILES, MULTIPLES)
def test_cores_are_even(side, tile, multiple):
    cores = [b - a for a, b in (s.keep for s in plan_spans(side, tile=tile, overlap=8, multiple=multiple))]
    assert max(cores) - min(cores) <= 2 * multiple - 1
    assert max(cores) <= tile + multiple


@given(SIDES, TILES, OVERLAPS)
def test_wrapped_windows_always_hold_the_whole_overlap(side, tile, overlap):
    for span in plan_spans(side, tile=tile, overlap=overlap, wrap=True):
        assert span.read[0] == span.keep[0] - overlap
        assert span.read[1] >= span.keep[1] + overlap


def test_tile_zero_is_the_whole_picture():
    plan = plan_tiles((123, 457), traits(), tile=(0, 0))
    assert (plan.count, plan.window) == (1, (123, 457))


def test_small_windows_share_a_batch_and_networks_that_mix_pictures_do_not():
    assert plan_tiles((256, 256), traits(), tile=(32, 32), batch_pixels=128 * 128).batch == 7  # 128 * 128 / 48 / 48
    assert plan_tiles((256, 256), traits(batch_of_one=True), tile=(32, 32), batch_pixels=128 * 128).batch == 1


def test_a_tile_shrinks_by_halves_down_to_32_and_then_gives_up():
    sides = []
    tile = 200
    with pytest.raises(OutOfMemoryError, match="32 pixels"):
        while True:
            tile = smaller_tile(plan_tiles((1000, 1000), traits(), tile=(tile, tile)))
            sides.append(tile)
    assert sides == [100, 50, 32]


def test_a_small_picture_shrinks_from_its_own_size():
    assert smaller_tile(plan_tiles((90, 120), traits(), tile=(1024, 1024))) == 60


def test_the_largest_window_follows_total_memory_and_network_only():
    few = window_pixels(traits(), memory_total=2**28, on_cpu=False)
    many = window_pixels(traits(), memory_total=2**40, on_cpu=False)
    assert few == 2**28 / 4 / 4000 // 64**2 * 64**2
    assert many == 2048**2
    assert window_pixels(traits(), memory_total=2**20, on_cpu=True) == 64**2
    blocks = window_pixels(traits(values_in_blocks=100), memory_total=2**40, on_cpu=True)
    assert blocks == 400_000_000 / 400 // 64**2 * 64**2


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 1500), st.integers(1, 1500), MULTIPLES)
def test_an_automatic_plan_keeps_to_its_window_and_takes_one_tile_where_one_will_do(height, width, multiple):
    plan = plan_auto((height, width), traits(multiple_of=multiple), window=128 * 128)
    assert plan.window[0] * plan.window[1] <= 128 * 128
    if (height + 4) * (width + 4) <= 128 * 128:
        assert plan.count == 1


def test_an_automatic_plan_reads_less_than_square_tiles_would():
    size = (600, 100)
    auto = plan_auto(size, traits(), window=128 * 128)
    square = plan_tiles(size, traits(), tile=(112, 112))
    assert auto.count * auto.window[0] * auto.window[1] <= square.count * square.window[0] * square.window[1]


@given(SIDES, st.integers(1, 60), OVERLAPS, st.sampled_from([1, 2, 4, 16, 64]), st.booleans())
def test_fixed_windows_have_their_size_and_hold_their_core_with_overlap(side, units, overlap, multiple, wrap):
    length = units * multiple
    spans = fixed_spans(side, length=length, overlap=overlap, multiple=multiple, wrap=wrap)
    kept = min(-(-overlap // multiple) * multiple, length // 4 // multiple * multiple)
    assert len(spans) <= 2 + side // max(1, length - 2 * kept)
    assert [i for s in spans for i in range(*s.keep)] == list(range(side))
    for (a, b), (start, stop) in ((s.keep, s.read) for s in spans):
        assert stop - start == length
        assert start % multiple == 0
        least, most = (a - kept, b + kept) if wrap else (max(0, a - kept), min(side, b + kept))
        assert start <= least
        assert stop >= most
        assert wrap or start >= 0


def test_a_network_of_one_size_is_planned_with_it_whatever_tile_is_asked_for():
    fixed = traits(fixed_size=(64, 96), batch_of_one=True)
    for plan in (plan_tiles((200, 90), fixed, tile=(32, 32)), plan_auto((200, 90), fixed, window=9)):
        assert plan.window == (64, 96)
        assert (len(plan.columns), plan.batch) == (1, 1)


def test_larger_windows_are_taken_only_where_they_spare_a_fifth_of_what_is_read():
    wide, narrow = traits(overlap=40, values_per_pixel=6000), traits(overlap=2, values_per_pixel=6000)
    size, memory = (1024, 1024), 2**35
    usual = {t.overlap: window_pixels(t, memory_total=memory, on_cpu=True) for t in (wide, narrow)}
    assert max(usual.values()) * 6000 * 4 <= 400_000_000
    larger = plan_for(size, wide, memory_total=memory, on_cpu=True)
    assert larger.read_share <= 0.8 * plan_auto(size, wide, window=usual[40]).read_share
    assert larger.window[0] * larger.window[1] * 6000 * 4 <= 1_600_000_000
    assert plan_for(size, narrow, memory_total=memory, on_cpu=True) == plan_auto(size, narrow, window=usual[2])
    assert plan_for(size, wide, memory_total=2**31, on_cpu=True) == plan_auto(size, wide, window=usual[40])


@pytest.mark.parametrize(
    ("changes", "tile", "feather"),
    [
        ({"radius": 349, "overlap": 32}, 160, 8),
        ({"radius": None, "overlap": 32}, 160, 8),
        ({"radius": 349, "overlap": 6}, 160, 1),
        ({"radius": 32, "overlap": 32}, 160, 0),
        ({"radius": 349, "overlap": 32}, 12, 5),
        ({"radius": 349, "overlap": 32, "fixed_size": (64, 64)}, 0, 8),
    ],
)
def test_tiles_that_are_not_exact_share_a_quarter_of_their_overlap(changes, tile, feather):
    plan = plan_tiles((320, 480), traits(**changes), tile=(tile, tile))
    assert plan.feather == feather


@given(st.tuples(SIDES, SIDES), TILES, OVERLAPS, MULTIPLES, st.booleans())
def test_what_is_made_lies_in_its_window_and_neighbours_share_it(size, tile, overlap, multiple, wrap):
    h, w = size
    given_traits = traits(radius=None, overlap=overlap, multiple_of=multiple)
    plan = plan_tiles((h, w), given_traits, tile=(tile, tile), wrap=wrap)
    bands = list(plan.bands())
    for band in bands:
        for one in band:
            made, window = one.made, one.window
            assert window.top <= made.top <= one.core.top < one.core.bottom <= made.bottom <= window.bottom
            assert window.left <= made.left <= one.core.left < one.core.right <= made.right <= window.right
            assert (made.top >= 0, made.left >= 0, made.bottom <= h, made.right <= w) == (True,) * 4
        assert {a.made.right - b.made.left for a, b in pairwise(band)} <= {2 * plan.feather}
    assert {a[0].made.bottom - b[0].made.top for a, b in pairwise(bands)} <= {2 * plan.feather}
