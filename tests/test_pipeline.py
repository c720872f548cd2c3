"""A picture's way through: any tiling, any depth, nothing lost, nothing silently wrong."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from engines import FakeEngine, FaultyEngine, FullEngine
from hypothesis import given, settings
from hypothesis import strategies as st

from restorer.errors import NumericalError, OutOfMemoryError, RestorerError
from restorer.kernels.blend_tiles import blend_tiles, plan_seams
from restorer.pipeline.picture import Picture
from restorer.pipeline.plan import Box, plan_tiles
from restorer.pipeline.restore import Upscale, passes
from restorer.pipeline.settings import UpscaleSettings
from restorer.pipeline.source import ArrayTaker, PictureSource, bleed
from restorer.pipeline.tensors import restore_tensor
from restorer.resample import resize


def noise(height, width, channels=3, dtype=np.uint8, seed=0):
    rng = np.random.default_rng(seed)
    if dtype == np.float32:
        return rng.random((height, width, channels), dtype=np.float32)
    return rng.integers(0, np.iinfo(dtype).max, (height, width, channels), dtype=dtype, endpoint=True)


def run(picture, engine, **wanted):
    work = Upscale(picture, engine, UpscaleSettings(**wanted))
    takers = []

    def open_rows():
        channels = picture.pixels.shape[2] + (picture.alpha is not None)
        takers.append(ArrayTaker(work.size_out, channels, picture.pixels.dtype))
        return takers[-1]

    work.run(open_rows)
    return takers[-1].array


def enlarged(pixels, scale=4):
    return pixels.repeat(scale, axis=0).repeat(scale, axis=1)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 130), st.integers(1, 130), st.sampled_from([0, 32, 48, 100]),
    st.sampled_from([1, 3]), st.sampled_from([np.uint8, np.uint16]),
)  # fmt: skip
def test_identity_survives_any_tiling(height, width, tile, channels, dtype):
    pixels = noise(height, width, channels, dtype)
    out = run(Picture(pixels=pixels), FakeEngine(), tile=tile)
    assert out.dtype == dtype
    if channels == 3:
        assert np.array_equal(out, enlarged(pixels))
    else:  # luma of three equal channels, its weights summing to one but for rounding
        assert np.abs(out.astype(int) - enlarged(pixels)).max() <= 1


@pytest.mark.parametrize("multiple", [1, 2, 4])
@pytest.mark.parametrize("size", [(97, 61), (64, 200), (5, 150)])
def test_tiles_equal_the_whole_picture_when_overlap_covers_the_radius(size, multiple):
    pixels = noise(*size)
    whole = run(Picture(pixels=pixels), FakeEngine(radius=6, multiple_of=multiple), tile=0)
    tiled = run(Picture(pixels=pixels), FakeEngine(radius=6, multiple_of=multiple), tile=32)
    assert np.array_equal(whole, tiled)


def test_tiles_differ_when_overlap_is_too_small():
    pixels = noise(90, 90)
    whole = run(Picture(pixels=pixels), FakeEngine(radius=6), tile=0)
    tiled = run(Picture(pixels=pixels), FakeEngine(radius=6, overlap=2), tile=32)
    assert not np.array_equal(whole, tiled)


class UnevenEngine(FakeEngine):
    """Makes every tile a little brighter than the one before: what a seam looks like is seen."""

    def __init__(self, **rest):
        super().__init__(**rest, batch_of_one=True)
        self.traits = replace(self.traits, radius=None)

    def compute(self, x):
        return super().compute(x) / 2 + 0.01 * len(self.calls)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("size", [(70, 150), (33, 90), (100, 40)])
def test_tiles_that_differ_run_into_each_other_as_the_kernel_blends_them(dtype, alpha, size):
    pixels, engine = noise(*size, 3, dtype), UnevenEngine(overlap=20, scale=2)
    peak = {np.uint8: 255, np.uint16: 65535, np.float32: 1}[dtype]
    picture = Picture(pixels=pixels, alpha=np.full(size, 77 if peak > 1 else 0.25, dtype) if alpha else None)
    made = run(picture, engine, tile=32)
    plan = plan_tiles(size, engine.traits, tile=(32, 32))
    assert plan.feather == 5
    tiles, seams = [], []
    for number, tile in enumerate((tile for band in plan.bands() for tile in band), 1):
        window = pixels[tile.window.top : tile.window.bottom, tile.window.left : tile.window.right]
        tiles.append(torch.from_numpy(enlarged(window, 2) / np.float32(peak)).permute(2, 0, 1) / 2 + 0.01 * number)
    for spans, side in zip((plan.rows, plan.columns), size, strict=True):
        edges, starts = [*(2 * span.keep[0] for span in spans), 2 * side], [2 * span.read[0] for span in spans]
        length = 2 * (spans[0].read[1] - spans[0].read[0])
        seams.append(plan_seams(edges, starts, length, feather=10, device=torch.device("cpu")))
    blended = blend_tiles(torch.stack(tiles), *seams, dtype=torch.float32).clamp(0, 1).numpy()
    apart = np.abs(made[:, :, :3] - blended * np.float64(peak))
    assert apart.max() <= (1e-6 if dtype == np.float32 else 1.51)  # rounded once a tile, and once where they meet
    assert not alpha or (made[:, :, 3] == picture.alpha[0, 0]).all()


def test_over_a_seam_brightness_changes_evenly():
    pixels = np.zeros((40, 128, 3), np.float32)
    pixels[::2] = 0.5
    made = run(Picture(pixels=pixels), UnevenEngine(overlap=20, scale=1), tile=64, scale=1)
    steps = np.diff(made[0, :, 0])
    assert made[0, 0, 0] == pytest.approx(0.26)
    assert made[0, -1, 0] == pytest.approx(0.27)
    np.testing.assert_allclose(steps[60:67], 0.001, atol=1e-6)  # 0.01 over 10 pixels, where hard seams are one step
    assert np.flatnonzero(np.abs(steps) > 1e-6).tolist() == list(range(58, 69))


@pytest.mark.parametrize("height", [1, 2, 3, 5])
@pytest.mark.parametrize("width", [1, 2, 7])
def test_pictures_smaller_than_any_window_pass(height, width):
    pixels = noise(height, width)
    out = run(Picture(pixels=pixels), FakeEngine(min_side=8, multiple_of=4, scale=2), scale=2)
    assert np.array_equal(out, enlarged(pixels, 2))


def test_wrapping_commutes_with_rolling_the_texture():
    pixels = noise(40, 56)
    rolled = np.roll(pixels, (12, 20), axis=(0, 1))
    a = run(Picture(pixels=pixels), FakeEngine(radius=5), wrap=True, tile=32)
    b = run(Picture(pixels=rolled), FakeEngine(radius=5), wrap=True, tile=0)
    assert np.array_equal(np.roll(a, (48, 80), axis=(0, 1)), b)
    c = run(Picture(pixels=pixels), FakeEngine(radius=5), tile=0)
    assert not np.array_equal(a, c)


@pytest.mark.parametrize(
    ("asked", "size", "times"),
    [
        ({"scale": 3}, (90, 120), 1), ({"width": 41}, (31, 41), 1), ({"scale": 10}, (300, 400), 2),
        ({"scale": 0.5}, (15, 20), 1), ({"width": 90, "height": 31}, (31, 90), 1),
    ],
)  # fmt: skip
def test_any_output_size_is_met_exactly_by_filtering_what_the_network_made(asked, size, times):
    pixels = noise(30, 40)
    out = run(Picture(pixels=pixels), FakeEngine(), tile=32, **asked)
    made = enlarged(pixels, 4**times)
    assert out.shape[:2] == size
    assert np.abs(out - np.clip(resize(made, size, kernel="lanczos"), 0, 255)).max() <= 0.51


def test_a_network_is_applied_as_often_as_the_size_needs():
    engine = FakeEngine(scale=2)
    run(Picture(pixels=noise(8, 8)), engine, scale=7)
    assert [call[2] for call in engine.calls] == [8, 16, 32]
    assert passes((8, 8), (56, 56), 2) == 3


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_strength_zero_is_a_plain_resample_and_half_lies_between(dtype):
    pixels = noise(33, 47, dtype=dtype)
    peak = 1.0 if dtype == np.float32 else np.iinfo(dtype).max
    plain = np.clip(resize(pixels, (132, 188)), 0 if dtype != np.float32 else -9, peak if dtype != np.float32 else 9)
    none, half, full = (
        run(Picture(pixels=pixels), FakeEngine(), strength=s, tile=32).astype(float) for s in (0, 0.5, 1)
    )
    assert np.abs(none - plain).max() <= (0.51 if dtype != np.float32 else 1e-5)
    assert np.abs(half - (none + full) / 2).max() <= (1.01 if dtype != np.float32 else 1e-4)


class Tinted(FakeEngine):
    def compute(self, x):
        return super().compute(x) * torch.tensor([0.9, 1.0, 0.8])[:, None, None] + 0.03


@pytest.mark.parametrize("tile", [0, 32])
@pytest.mark.parametrize("wrap", [False, True])
def test_keep_colour_gives_back_the_low_frequencies(tile, wrap):
    pixels = np.clip(resize(noise(4, 4, seed=3).astype(np.float32), (80, 96)) * 0.6 + 40, 0, 255).astype(np.uint8)
    tinted = run(Picture(pixels=pixels), Tinted(), tile=tile, wrap=wrap)
    kept = run(Picture(pixels=pixels), Tinted(), tile=tile, wrap=wrap, keep_colour=True)
    true = enlarged(pixels).astype(float)
    assert np.abs(tinted - true).mean() > 8
    assert np.abs(kept - true).mean() < 1.5


def test_keep_colour_changes_nothing_where_colours_are_right_already():
    pixels = noise(40, 64)
    assert np.array_equal(run(Picture(pixels=pixels), FakeEngine(), keep_colour=True, tile=32), enlarged(pixels))


def test_alpha_takes_the_same_way_and_an_even_one_costs_nothing():
    pixels, alpha = noise(50, 60), noise(50, 60, 1)[:, :, 0]
    out = run(Picture(pixels=pixels, alpha=np.maximum(alpha, 1)), FakeEngine(), tile=32)
    assert np.array_equal(out[:, :, :3], enlarged(pixels))
    assert np.abs(out[:, :, 3].astype(int) - enlarged(np.maximum(alpha, 1))).max() <= 1
    engine = FakeEngine()
    out = run(Picture(pixels=pixels, alpha=np.full((50, 60), 77, np.uint8)), engine, tile=0)
    assert (out[:, :, 3] == 77).all()
    assert len(engine.calls) == 1


def test_colour_bleeds_under_transparent_edges_from_the_nearest_visible_pixel():
    pixels = np.zeros((300, 200, 3), np.uint8)
    pixels[:, 100:] = (200, 100, 50)
    pixels[40, 40] = (1, 2, 3)
    alpha = np.zeros((300, 200), np.uint8)
    alpha[:, 100:] = 255
    alpha[40, 40] = 9
    out = bleed(pixels, alpha)
    assert tuple(out[200, 60]) == (200, 100, 50)
    assert tuple(out[42, 41]) == (1, 2, 3)
    assert np.array_equal(out[alpha > 0], pixels[alpha > 0])
    assert abs(int(out[200, 5, 0]) - 200) <= 1  # too far from anything: the mean of what is visible


def test_bleeding_in_bands_equals_bleeding_at_once(monkeypatch):
    pixels, alpha = noise(400, 50), (noise(400, 50, 1)[:, :, 0] > 253).astype(np.uint8) * 255
    monkeypatch.setattr("restorer.pipeline.source.BLEED_BAND", 10_000)
    once = bleed(pixels, alpha)
    monkeypatch.setattr("restorer.pipeline.source.BLEED_BAND", 64)
    bands = bleed(pixels, alpha)
    far = np.abs(once.astype(int) - bands).max(axis=2) > 0
    assert far.mean() < 0.02  # a tie between two nearest pixels may fall either way


def test_float_pictures_keep_what_lies_outside_the_networks_range():
    pixels = noise(20, 20, dtype=np.float32)
    pixels[8:12, 8:12] = 7.5
    out = run(Picture(pixels=pixels), FakeEngine(), tile=0)
    assert out.dtype == np.float32
    assert out.max() > 7
    inside = enlarged(pixels)[:16, :16]
    assert np.allclose(out[:16, :16], inside, atol=1e-6)


@pytest.mark.parametrize("shape", [(230, 230), (70, 400), (400, 70)])
@pytest.mark.parametrize("after", range(4))
def test_memory_errors_shrink_the_tile_and_give_the_bytes_of_a_run_begun_so(shape, after, caplog):
    pixels = noise(*shape)
    engine = FullEngine(most=60 * 60, after=after, radius=6, overlap=3, batch_of_one=True)
    with caplog.at_level(logging.WARNING):
        out = run(Picture(pixels=pixels), engine, tile=100)
    used = [r.args[0] for r in caplog.records if r.args][-1]
    assert np.array_equal(out, run(Picture(pixels=pixels), FakeEngine(radius=6, overlap=3), tile=used))


def test_without_room_for_the_smallest_tile_the_run_gives_up_in_one_line():
    with pytest.raises(OutOfMemoryError, match="even for tiles of 32 pixels"):
        run(Picture(pixels=noise(64, 64)), FullEngine(most=10))


@pytest.mark.parametrize("wrong", ["nan", "inf", "flat"])
@pytest.mark.parametrize("at", range(6))
def test_a_faulty_tile_is_done_again_in_float32_and_said(wrong, at, caplog):
    pixels = noise(64, 96)
    with caplog.at_level(logging.WARNING):
        out = run(Picture(pixels=pixels), FaultyEngine(at=at, wrong=wrong, batch_of_one=True), tile=32)
    assert np.array_equal(out, enlarged(pixels))
    assert len(caplog.records) == 1
    assert "float32" in caplog.text


@pytest.mark.parametrize("wrong", ["nan", "inf", "flat"])
def test_a_tile_that_stays_faulty_is_refused(wrong):
    with pytest.raises(NumericalError):
        run(Picture(pixels=noise(64, 64)), FaultyEngine(at=0, wrong=wrong, hopeless=True), tile=32)


class BrokenEngine(FakeEngine):
    def compute(self, x):
        if len(self.calls) == self.traits.min_side:  # any number will do to say which batch breaks
            raise RuntimeError("a kernel failed")
        return super().compute(x)


@pytest.mark.parametrize("at", range(1, 7))
def test_any_other_error_ends_the_picture(at):
    with pytest.raises(RuntimeError, match="a kernel failed"):
        run(Picture(pixels=noise(64, 96)), BrokenEngine(min_side=at, batch_of_one=True), tile=32)


def test_a_flat_input_may_stay_flat():
    pixels = np.full((40, 40, 3), 99, np.uint8)
    assert (run(Picture(pixels=pixels), FaultyEngine(at=99, wrong="nan"), tile=32) == 99).all()


def test_progress_ends_at_the_whole():
    seen = []
    work = Upscale(Picture(pixels=noise(70, 90)), FakeEngine(scale=2), UpscaleSettings(scale=4, tile=32))
    taker = ArrayTaker((280, 360), 3, np.dtype(np.uint8))
    work.run(lambda: taker, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] == 70 * 90 + 140 * 180
    assert seen == sorted(seen)


def test_blocks_outside_the_picture_are_mirrored():
    source = PictureSource(Picture(pixels=np.arange(6, dtype=np.uint8).reshape(1, 6, 1)))
    assert source.read(Box(0, -2, 1, 9))[0, :, 0].tolist() == [2, 1, 0, 1, 2, 3, 4, 5, 4, 3, 2]


@pytest.mark.parametrize(
    "wanted", [{}, {"scale": 3}, {"keep_colour": True}, {"strength": 0.4}, {"wrap": True}, {"scale": 6}]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_tensors_take_the_same_way_as_pictures(wanted, channels):
    pixels = noise(48, 66, channels, np.float32) * np.float32(0.5) + np.float32(0.25)  # no overshoot leaves [0, 1]
    engine = Tinted(radius=3) if channels == 3 else FakeEngine(radius=3)
    asked = UpscaleSettings(tile=32, **wanted)
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    y = restore_tensor(torch.cat([x, x.flip(3)]), engine, asked)
    expected = run(Picture(pixels=pixels), engine, tile=32, **wanted).clip(0, 1)
    assert np.abs(y[0].permute(1, 2, 0).numpy() - expected).max() < 2e-5
    assert y.dtype == x.dtype


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_tensors_are_mixed_at_seams_as_pictures_are(wrap, dtype):
    pixels = noise(70, 90)
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    x = x if dtype == torch.uint8 else x / 255
    made = restore_tensor(x, UnevenEngine(overlap=20, scale=2), UpscaleSettings(tile=32, wrap=wrap))
    assert made.dtype == dtype
    levels = made[0].permute(1, 2, 0).double().numpy() * (1 if dtype == torch.uint8 else 255)
    picture = run(Picture(pixels=pixels), UnevenEngine(overlap=20, scale=2), tile=32, wrap=wrap)
    assert np.abs(levels - picture).max() <= (1 if dtype == torch.uint8 else 1.51)


def test_tiles_of_several_tensors_share_a_batch():
    engine = FakeEngine()
    restore_tensor(torch.rand(4, 3, 40, 40), engine, UpscaleSettings())
    assert engine.calls == [(4, 3, 40, 40)]


def test_uint8_tensors_stay_uint8():
    x = torch.from_numpy(noise(20, 20)).permute(2, 0, 1)[None]
    y = restore_tensor(x, FakeEngine(), UpscaleSettings())
    assert y.dtype == torch.uint8
    assert torch.equal(y[:, :, ::4, ::4], x)


@pytest.mark.parametrize(
    "bad", [torch.zeros(3, 8, 8), torch.zeros(1, 2, 8, 8), torch.zeros(1, 3, 8, 8, dtype=torch.int64)]
)
def test_tensors_of_another_kind_are_refused(bad):
    with pytest.raises(RestorerError, match="expected a tensor"):
        restore_tensor(bad, FakeEngine(), UpscaleSettings())
