"""Resampling against hand-worked numbers, MATLAB's own output, basicsr, Pillow, OpenCV, and its own slow twin."""

import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from beside import basicsr
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from restorer.errors import UnknownNameError
from restorer.resample import (
    RowResizer,
    lowpass,
    lowpass_tensor,
    resize,
    resize_reference,
    resize_rows,
    resize_tensor,
    taps,
)

SET5 = Path(__file__).resolve().parents[2] / "shared" / "data" / "Set5"
KERNELS = ("cubic", "lanczos", "area")
SIZES = [
    ((7, 5), (28, 20)),
    ((40, 33), (10, 11)),
    ((31, 47), (70, 13)),
    ((1, 1), (3, 4)),
    ((9, 1), (2, 5)),
    ((200, 90), (3, 333)),
]


def noise(*shape, seed=0):
    return np.random.default_rng(seed).random(shape, np.float32)


def dense(t, side_in):
    matrix = np.zeros((len(t.index), side_in))
    for row, (index, weight) in enumerate(zip(t.index, t.weight, strict=True)):
        for i, w in zip(index, weight, strict=True):
            matrix[row, i] += w
    return matrix


def test_cubic_weights_of_half_size_are_those_worked_by_hand():
    expected = np.array([-3, -9, 29, 111, 111, 29, -9, -3]) / 256
    row = dense(taps(20, 10), 20)[5]
    assert np.allclose(row[7:15], expected, atol=1e-7)
    assert np.abs(row).sum() == pytest.approx(np.abs(expected).sum(), abs=1e-6)


def test_cubic_weights_of_double_size_mirror_the_edge_sample_as_worked_by_hand():
    seen_from_first = dense(taps(8, 16), 8)[:, 0] * 128
    assert np.allclose(seen_from_first, [140, 102, 26, -9, -3] + [0] * 11, atol=1e-4)


def test_wrapped_cubic_weights_follow_round_the_end_as_worked_by_hand():
    seen_from_first = dense(taps(8, 16, wrap=True), 8)[:, 0] * 128
    assert np.allclose(seen_from_first, [111, 111, 29, -9, -3] + [0] * 8 + [-3, -9, 29], atol=1e-4)


def test_without_antialias_half_size_uses_the_narrow_kernel():
    row = dense(taps(20, 10, antialias=False), 20)[5] * 16
    assert np.allclose(row[9:13], [-1, 9, 9, -1], atol=1e-5)  # cubic(0.5) = 9/16, cubic(1.5) = -1/16


def test_area_weights_share_a_split_sample():
    assert np.allclose(dense(taps(3, 2, kernel="area"), 3), [[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]], atol=1e-7)


def test_area_is_the_mean_of_blocks():
    x = noise(24, 30, 3)
    assert np.allclose(resize(x, (6, 10), kernel="area"), x.reshape(6, 4, 10, 3, 3).mean((1, 3)), atol=1e-6)


def test_area_repeats_samples_at_integer_scales_up():
    x = noise(4, 5)
    assert np.allclose(resize(x, (12, 10), kernel="area"), x.repeat(3, 0).repeat(2, 1), atol=1e-7)


@pytest.mark.skipif(not SET5.is_dir(), reason="Set5 with MATLAB's low-resolution pictures is not here")
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_cubic_equals_matlab_on_real_pictures(scale):
    paths = sorted((SET5 / "HR").glob("*.png"))
    assert len(paths) == 5
    for path in paths:
        high = np.asarray(Image.open(path))
        low = np.asarray(Image.open(SET5 / "LR_bicubic" / f"X{scale}" / f"{path.stem}x{scale}.png"))
        h, w = low.shape[:2]
        high = high[: h * scale, : w * scale]
        # MATLAB rounds and clips 8-bit pictures between its two passes, the first of which makes the rows
        halfway = np.clip(np.floor(resize(high, (h, high.shape[1])) + 0.5), 0, 255)
        ours = np.clip(np.floor(resize(halfway, (h, w)) + 0.5), 0, 255)
        assert np.array_equal(ours, low), path.stem


@pytest.fixture
def basicsr_imresize(monkeypatch):
    return basicsr(monkeypatch, "utils.matlab_functions").imresize


@pytest.mark.parametrize("scale", [4, 2, 1.7, 0.5, 0.25, 1 / 3, 0.61])
def test_cubic_equals_basicsr(basicsr_imresize, scale):
    x = noise(37, 50, 3)
    theirs = basicsr_imresize(x, scale)
    h, w = theirs.shape[:2]
    rows = dense(taps(37, h, scale=scale), 37)
    columns = dense(taps(50, w, scale=scale), 50)
    assert np.abs(np.einsum("ai,bj,ijc->abc", rows, columns, x) - theirs).max() < 1e-5


@pytest.mark.parametrize("size", [(160, 120), (20, 15), (57, 91)])
def test_lanczos_equals_pillow_inside(size):
    x = noise(40, 60)
    theirs = np.asarray(Image.fromarray(x).resize(size[::-1], Image.Resampling.LANCZOS))
    ours = resize(x, size, kernel="lanczos")
    margin = [int(np.ceil(3 * max(1, out / side))) + 1 for side, out in zip(x.shape, size, strict=True)]
    inside = tuple(slice(m, -m) for m in margin)
    assert ours[inside].size > 0
    assert np.abs(ours - theirs)[inside].max() < 1e-4


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize(("size_in", "size_out"), SIZES)
def test_fast_paths_equal_the_slow_twin(size_in, size_out, kernel, wrap):
    x = noise(*size_in, 3)
    slow = resize_reference(x, size_out, kernel=kernel, wrap=wrap)
    assert slow.shape == (*size_out, 3)
    assert np.abs(resize(x, size_out, kernel=kernel, wrap=wrap) - slow).max() < 1e-5
    tensor = torch.from_numpy(x).permute(2, 0, 1)[None]
    twin = resize_tensor(tensor, size_out, kernel=kernel, wrap=wrap)[0].permute(1, 2, 0)
    assert np.abs(twin.numpy() - slow).max() < 1e-5


def test_fast_paths_equal_the_slow_twin_without_antialias_where_inputs_are_skipped():
    x = noise(100, 90, 3)
    slow = resize_reference(x, (9, 8), antialias=False)
    assert np.abs(resize(x, (9, 8), antialias=False) - slow).max() < 1e-5
    tensor = torch.from_numpy(x).permute(2, 0, 1)[None]
    assert np.abs(resize_tensor(tensor, (9, 8), antialias=False)[0].permute(1, 2, 0).numpy() - slow).max() < 1e-5
    stream = RowResizer((100, 90), (9, 8), antialias=False)
    assert np.abs(np.concatenate([stream.push(x[y : y + 1]) for y in range(100)]) - slow).max() < 1e-5


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
def test_range_is_kept_for_every_dtype_and_result_is_float32(dtype):
    x = (noise(9, 8, 2) * 250).astype(dtype)
    y = resize(x, (18, 20))
    assert y.dtype == np.float32
    assert np.abs(y - resize_reference(x.astype(np.float64), (18, 20))).max() < 1e-3


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("wrap", [False, True])
def test_same_size_is_the_identity_bit_for_bit(kernel, wrap):
    x = noise(70, 45, 3)
    assert np.array_equal(resize(x, (70, 45), kernel=kernel, wrap=wrap), x)


@settings(max_examples=40, deadline=None)
@given(
    h=st.integers(1, 50), w=st.integers(1, 50), h_out=st.integers(1, 90), w_out=st.integers(1, 90),
    kernel=st.sampled_from(KERNELS), wrap=st.booleans(),
)  # fmt: skip
def test_a_constant_stays_constant(*, h, w, h_out, w_out, kernel, wrap):
    y = resize(np.full((h, w), 0.7, np.float32), (h_out, w_out), kernel=kernel, wrap=wrap)
    assert y.shape == (h_out, w_out)
    assert np.abs(y - 0.7).max() < 1e-6


@pytest.mark.parametrize("side_out", [100, 131, 17])
def test_cubic_keeps_a_ramp_inside(side_out):
    ramp = np.arange(50, dtype=np.float32)[None]
    y = resize(ramp, (1, side_out))[0]
    centres = (np.arange(side_out) + 0.5) * 50 / side_out - 0.5
    reach = 2 * max(1, 50 / side_out) + 1
    inside = (centres > reach) & (centres < 49 - reach)
    assert inside.sum() > 5
    # stretched cubic weights, sampled between grid points, keep the ramp to about 1 %
    assert np.abs(y - centres)[inside].max() < (1e-4 if side_out > 50 else 0.02)


@pytest.mark.parametrize("kernel", KERNELS)
def test_wrapped_resize_follows_a_rolled_picture(kernel):
    x = noise(12, 10, 3)
    y = resize(x, (36, 20), kernel=kernel, wrap=True)
    rolled = resize(np.roll(x, (5, 3), (0, 1)), (36, 20), kernel=kernel, wrap=True)
    assert np.allclose(rolled, np.roll(y, (15, 6), (0, 1)), atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(), h=st.integers(1, 60), w=st.integers(1, 12), h_out=st.integers(1, 120), w_out=st.integers(1, 24),
    kernel=st.sampled_from(KERNELS),
)  # fmt: skip
def test_streamed_rows_equal_the_whole_for_any_cuts(*, data, h, w, h_out, w_out, kernel):
    x = noise(h, w, 3)
    whole = resize(x, (h_out, w_out), kernel=kernel)
    cuts = sorted(data.draw(st.lists(st.integers(0, h), max_size=8)))
    stream = RowResizer((h, w), (h_out, w_out), kernel=kernel)
    parts = [stream.push(x[a:b]) for a, b in zip([0, *cuts], [*cuts, h], strict=True)]
    stream.finish()
    streamed = np.concatenate(parts)
    assert streamed.shape == whole.shape
    assert np.abs(streamed - whole).max() < 1e-5


def test_stream_gives_rows_early_and_holds_few():
    stream = RowResizer((3000, 40), (6000, 40))
    row = np.ones((10, 40, 3), np.float32)
    tracemalloc.start()
    made = 0
    for i in range(1, 301):
        made += len(stream.push(row))
        assert made >= 2 * (10 * i - 3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert made == 6000
    assert peak < 400_000  # the whole output has 2.9 MB


def test_stream_refuses_too_many_rows_and_says_when_rows_are_missing():
    stream = RowResizer((4, 4), (8, 8))
    stream.push(noise(3, 4))
    with pytest.raises(ValueError, match="4 rows, only 3 came"):
        stream.finish()
    with pytest.raises(ValueError, match="4 rows, got 5"):
        stream.push(noise(2, 4))


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(), h=st.integers(1, 50), h_out=st.integers(1, 100), kernel=st.sampled_from(KERNELS), wrap=st.booleans()
)
def test_rows_equal_the_whole_wherever_they_are_cut(*, data, h, h_out, kernel, wrap):
    x = noise(h, 6, 3)
    y0 = data.draw(st.integers(0, h_out - 1))
    y1 = data.draw(st.integers(y0 + 1, h_out))
    rows = resize_rows(lambda a, b: x[a:b], (h, 6), (h_out, 9), y0, y1, kernel=kernel, wrap=wrap)
    assert np.abs(rows - resize_reference(x, (h_out, 9), kernel=kernel, wrap=wrap)[y0:y1]).max() < 1e-5


def test_rows_read_only_what_they_need():
    x = noise(1000, 4)
    asked = []

    def read(a, b):
        asked.append((a, b))
        return x[a:b]

    resize_rows(read, (1000, 4), (2000, 8), 1000, 1010)
    assert asked == [(498, 507)]
    asked.clear()
    resize_rows(read, (1000, 4), (2000, 8), 0, 2, wrap=True)
    assert asked == [(0, 3), (998, 1000)]


@pytest.mark.parametrize("sigma", [0.5, 1.7, 6.0])
def test_lowpass_equals_opencv(sigma):
    x = noise(60, 50, 3)
    side = 2 * int(np.ceil(4 * sigma)) + 1
    theirs = cv2.GaussianBlur(x, (side, side), sigma, borderType=cv2.BORDER_REFLECT)
    assert np.abs(lowpass(x, sigma) - theirs).max() < 1e-5
    twin = lowpass_tensor(torch.from_numpy(x).permute(2, 0, 1)[None], sigma)[0].permute(1, 2, 0)
    assert np.abs(twin.numpy() - theirs).max() < 1e-5


def test_lowpass_of_sigma_zero_changes_nothing():
    x = noise(5, 6)
    assert np.array_equal(lowpass(x, 0), x)


def test_lowpass_reaches_over_a_picture_smaller_than_itself():
    assert np.abs(lowpass(noise(3, 2), 50.0) - noise(3, 2).mean()).max() < 1e-3


def test_wrapped_lowpass_follows_a_rolled_picture():
    x = noise(12, 10, 3)
    rolled = lowpass(np.roll(x, (5, 3), (0, 1)), 2.0, wrap=True)
    assert np.allclose(rolled, np.roll(lowpass(x, 2.0, wrap=True), (5, 3), (0, 1)), atol=1e-6)
    tensor = torch.from_numpy(x).permute(2, 0, 1)[None]
    assert np.allclose(
        lowpass_tensor(tensor, 2.0, wrap=True)[0].permute(1, 2, 0), lowpass(x, 2.0, wrap=True), atol=1e-6
    )


def test_gradient_of_the_tensor_twin_is_true():
    x = torch.rand(1, 2, 5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: resize_tensor(t, (3, 9)), (x,))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_tensor_dtype_is_kept(dtype):
    assert resize_tensor(torch.rand(2, 3, 4, 4).to(dtype), (8, 8)).dtype == dtype


def test_autocast_does_not_coarsen_the_tensor_twin():
    x = torch.rand(1, 3, 16, 16)
    plain = resize_tensor(x, (32, 32))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(resize_tensor(x, (32, 32)), plain)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: resize(noise(4, 4), (0, 4)), "sides must be at least 1, got 4 -> 0"),
        (lambda: resize(noise(4), (4, 4)), r"expected \(H, W\)"),
        (lambda: resize_tensor(torch.rand(3, 4, 4), (4, 4)), "add a batch dimension with"),
        (lambda: lowpass(noise(4, 4), -1.0), "sigma must be at least 0, got -1"),
    ],
)
def test_wrong_arguments_are_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_unknown_kernel_names_the_nearest():
    with pytest.raises(UnknownNameError, match="no kernel named 'lanczso'; did you mean 'lanczos'"):
        taps(4, 8, kernel="lanczso")
