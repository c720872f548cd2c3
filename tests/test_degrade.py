"""Degradations: kernels, noise and JPEG are what theory and other implementations say, and follow from a seed alone."""

import io
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from restorer.training.blur import KINDS, BlurConfig, bell, draw_kernel, sinc
from restorer.training.degrade import (
    DegradationConfig,
    Draw,
    Round,
    RoundConfig,
    degrade,
    degrade_batch,
    draw,
    filtered,
    sharpened,
    to_gamma,
    to_linear,
    told,
)
from restorer.training.degrade_faces import FaceDegradationConfig, degrade_face_batch
from restorer.training.jpeg import model_jpeg, quantisation, real_jpeg, soft_round
from restorer.training.pairing import paired_up

PICTURES = Path(__file__).parent / "pictures"


def photo(name="chelsea.png"):
    with Image.open(PICTURES / name) as image:
        pixels = np.array(image.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255


def rng(seed=0):
    return np.random.default_rng(seed)


# kernels


@pytest.mark.parametrize("sigma", [0.2, 1.0, 3.0])
def test_a_bell_of_one_deviation_is_opencvs(sigma):
    row = cv2.getGaussianKernel(21, sigma)
    np.testing.assert_allclose(bell(21, (sigma, sigma), 0.7), row @ row.T, atol=1e-12)


def test_a_bell_turned_a_quarter_lies_on_its_side():
    np.testing.assert_allclose(bell(15, (1, 3), math.pi / 2), bell(15, (1, 3), 0).T, atol=1e-12)
    assert not np.allclose(bell(15, (1, 3), 0), bell(15, (1, 3), 0).T, atol=1e-3)


def test_shapes_fall_off_as_worked_by_hand():
    """At one deviation: exp(-1/2) whatever the shape, a half for plateaus; at two, exp(-4^b / 2) and 1 / (1 + 4^b)."""
    for shape in (0.5, 1.0, 2.0):
        round_, flat = (bell(21, (2, 2), 0, shape=shape, plateau=plateau) for plateau in (False, True))
        assert round_[10, 12] / round_[10, 10] == pytest.approx(math.exp(-0.5))
        assert round_[10, 14] / round_[10, 10] == pytest.approx(math.exp(-(4**shape) / 2))
        assert flat[10, 12] / flat[10, 10] == pytest.approx(0.5)
        assert flat[10, 14] / flat[10, 10] == pytest.approx(1 / (1 + 4**shape))


def test_a_sinc_filter_passes_what_is_below_its_cut_and_stops_what_is_above():
    kernel = sinc(201, math.pi / 2)
    assert kernel.sum() == pytest.approx(1)
    response = np.abs(np.fft.fft(kernel.sum(axis=0), 512))  # along one axis, as a plane wave meets it
    frequency = np.arange(257) / 256 * math.pi
    assert np.all(np.abs(response[:257][frequency < 0.46 * math.pi] - 1) < 0.03)
    assert np.all(response[:257][frequency > 0.54 * math.pi] < 0.03)


def test_kernels_are_drawn_as_often_as_their_chances_say():
    config, chance, count = BlurConfig(chance=0.8, sinc=0.25), rng(), 4000
    names = Counter()
    for _ in range(count):
        drawn = draw_kernel(config, chance)
        names[drawn[0].split()[0] if drawn else "none"] += 1
        if drawn:
            assert drawn[1].shape[0] in config.sides
            assert drawn[1].sum() == pytest.approx(1)
    expected = {"none": 0.2, "sinc": 0.8 * 0.25} | {
        kind: 0.8 * 0.75 * share for kind, share in zip(KINDS, config.kinds, strict=True)
    }
    for name, share in expected.items():
        assert names[name] / count == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / count))


def test_filters_mirror_at_borders_as_opencv_does():
    x, kernel = photo()[..., :40, :30].double(), bell(21, (1, 4), 0.3)
    expected = cv2.filter2D(x[0].permute(1, 2, 0).numpy(), -1, kernel, borderType=cv2.BORDER_REFLECT_101)
    np.testing.assert_allclose(filtered(x, kernel)[0].permute(1, 2, 0), expected, atol=1e-12)


# JPEG


def test_steps_are_those_of_libjpeg_at_every_quality():
    grey = Image.new("RGB", (8, 8))
    for quality in range(1, 101):
        file = io.BytesIO()
        grey.save(file, "JPEG", quality=quality)
        with Image.open(file) as image:
            tables = image.quantization
        for table, steps in zip((tables[0], tables[1]), quantisation(quality), strict=True):
            assert list(table) == steps.flatten().int().tolist(), quality


@pytest.mark.parametrize("quality", [30, 60, 95])
@pytest.mark.parametrize("name", ["chelsea.png", "coffee.png"])
def test_the_model_makes_nearly_what_the_encoder_makes(name, quality):
    x = photo(name)[..., :293, :451]
    real, model = real_jpeg(x, quality), model_jpeg(x, quality)
    assert model.shape == x.shape
    apart, lost = (model - real).square().mean(), (real - x).square().mean()
    assert apart < lost / 4  # what the model leaves out is small beside what JPEG does
    assert (model - real).abs().mean() < 1 / 255


def test_grey_pictures_go_through_jpeg():
    x = photo()[:, :1]
    real, model = real_jpeg(x, 50), model_jpeg(x, 50)
    assert (model - real).abs().mean() < 1 / 255


def test_rounding_is_exact_and_has_the_derivative_of_a_cube():
    x = torch.tensor([2.3, -0.4, 7.0], requires_grad=True)
    y = soft_round(x)
    y.sum().backward()
    assert y.tolist() == [2.0, 0.0, 7.0]
    torch.testing.assert_close(x.grad, torch.tensor([3 * 0.3**2, 3 * 0.4**2, 0.0]), atol=1e-5, rtol=0)


def test_gradients_pass_the_model_to_every_pixel():
    x = photo()[..., :37, :45].clone().requires_grad_()
    model_jpeg(x, 40).square().sum().backward()
    assert torch.isfinite(x.grad).all()
    assert (x.grad != 0).float().mean() > 0.99


# noise


def one_round(noise, strength, *, grey=False):
    """A draw that does nothing but add noise once."""
    still = {"blur": None, "resize": 1.0, "filter": "area", "quality": 100}
    first = Round(**still, noise=noise, strength=strength, grey=grey)
    return Draw(
        first=first, second=Round(**still, noise="gaussian", strength=0.0, grey=False), sinc=None, filter="area",
        jpeg_last=True, seed=1,
    )  # fmt: skip


def test_gaussian_noise_has_its_deviation():
    x = torch.full((1, 1, 128, 128), 0.5)
    y = degrade(x, (128, 128), one_round("gaussian", 20.0), DegradationConfig())
    assert float((y - x).std() * 255) == pytest.approx(20, rel=0.03)


def test_grey_noise_is_the_same_in_all_channels():
    x = torch.full((1, 3, 64, 64), 0.5)
    for noise, strength in (("gaussian", 20.0), ("poisson", 2.0)):
        spread = [
            (degrade(x, (64, 64), one_round(noise, strength, grey=grey), DegradationConfig()) - x).std(1).mean()
            for grey in (True, False)
        ]
        assert spread[0] < 1 / 255 < spread[1]


def test_counted_light_has_the_variance_that_theory_gives():
    """256 levels: counts of 256 for white, so variance x / 256, times the square of the strength."""
    levels = torch.arange(256).repeat(64, 1) / 255
    x = levels[None, None]
    y = degrade(x, (64, 256), one_round("poisson", 1.5), DegradationConfig())
    near = (y - x)[..., 100:156].square().mean()
    assert float(near) == pytest.approx(1.5**2 * 0.5 / 256, rel=0.05)


# the whole


def test_light_is_what_the_standard_says():
    code = torch.tensor([0.0, 0.04045, 0.5, 1.0], dtype=torch.float64)
    light = torch.tensor([0.0, 0.0031308, 0.21404114, 1.0], dtype=torch.float64)
    torch.testing.assert_close(to_linear(code), light, atol=1e-7, rtol=0)
    torch.testing.assert_close(to_gamma(to_linear(code)), code, atol=1e-7, rtol=0)


def test_in_linear_light_black_and_white_mix_to_a_bright_grey():
    """Half the light is code value 0.7354; half the code value is 0.5."""
    board = (torch.arange(64)[:, None] + torch.arange(64)) % 2.0
    still = one_round("gaussian", 0.0)
    seen = [
        degrade(board[None, None], (32, 32), still, DegradationConfig(linear_light=linear)) for linear in (True, False)
    ]
    assert float(seen[0].mean()) == pytest.approx(0.7354, abs=1 / 255)
    assert float(seen[1].mean()) == pytest.approx(0.5, abs=1 / 255)


def test_sharpening_is_opencvs_unsharp_mask():
    x = photo("coffee.png")[..., :120, :160].double()
    pixels = x[0].permute(1, 2, 0).numpy()

    def blurred(y):
        return cv2.GaussianBlur(y, (51, 51), 0, borderType=cv2.BORDER_REFLECT_101)

    missing = pixels - blurred(pixels)
    where = blurred((np.abs(missing) * 255 > 10).astype(np.float64))
    expected = where * np.clip(pixels + 0.5 * missing, 0, 1) + (1 - where) * pixels
    np.testing.assert_allclose(sharpened(x)[0].permute(1, 2, 0), expected, atol=1e-6)
    assert np.abs(expected - pixels).max() > 0.05


@pytest.mark.parametrize("by", ["area", "bilinear", "bicubic"])
def test_without_harm_a_picture_is_only_shrunk_as_opencv_does(by):
    """Area is the mean of blocks; the others look at the nearest pixels alone, as OpenCV's do."""
    x = photo()[:, :1, :296, :448]  # grey: of colours, JPEG keeps but a quarter
    drawn = replace(one_round("gaussian", 0.0), filter=by)
    drawn = replace(drawn, second=replace(drawn.second, filter=by))
    pixels = x[0, 0].numpy()
    flag = {"area": cv2.INTER_AREA, "bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}[by]
    plain = torch.from_numpy(cv2.resize(pixels, (112, 74), interpolation=flag))[None, None].clamp(0, 1)
    made = degrade(x, (74, 112), drawn, DegradationConfig(encoder="real"))
    assert (made - plain).abs().mean() < 1 / 255  # what two times JPEG at quality 100 leaves


@pytest.mark.parametrize("encoder", ["model", "real"])
@pytest.mark.parametrize(("channels", "size"), [(3, (40, 28)), (1, (8, 4)), (3, (4, 4))])
def test_a_sample_follows_from_its_seed_whatever_the_batch(encoder, channels, size):
    config = DegradationConfig(encoder=encoder)
    high = torch.rand(3, channels, *size, generator=torch.Generator().manual_seed(0))
    made = degrade_batch(high, [5, 6, 7], 4, config)
    assert made.shape == (3, channels, size[0] // 4, size[1] // 4)
    assert torch.equal(made, (made * 255).round() / 255)
    assert 0 <= made.min() <= made.max() <= 1
    alone = degrade_batch(high[1:2], [6], 4, config)
    assert torch.equal(made[1], alone[0])
    assert size == (4, 4) or not torch.equal(degrade_batch(high[1:2], [60], 4, config), alone)


def test_both_orders_of_the_end_are_played_and_told():
    config = DegradationConfig()
    draws = [draw(config, rng(seed)) for seed in range(40)]
    assert 10 < sum(each.jpeg_last for each in draws) < 30
    words = told(draws[0])
    assert words["first"].startswith("blur ")
    assert f"jpeg {draws[0].first.quality}" in words["first"]


def test_the_order_of_the_end_matters():
    config = DegradationConfig()
    drawn = draw(config, rng(3))
    last, first = (degrade(photo(), (75, 112), replace(drawn, jpeg_last=way), config) for way in (True, False))
    assert not torch.equal(last, first)


def test_a_batch_gets_partners_a_sharp_truth_and_loses_its_margin():
    high = photo()[..., :96, :96]
    batch = {"high": high, "chance": torch.tensor([1])}
    made = paired_up(batch, DegradationConfig(margin=16), scale=4)
    assert torch.equal(made["high"], high[..., 16:-16, 16:-16])
    torch.testing.assert_close(made["sharp"], sharpened(high)[..., 16:-16, 16:-16])
    whole = degrade_batch(sharpened(high), [1], 4, DegradationConfig())
    assert torch.equal(made["low"], whole[..., 4:-4, 4:-4])
    assert "sharp" not in paired_up(batch, DegradationConfig(sharpen=False), scale=4)
    low = torch.zeros(1, 3, 24, 24)
    assert paired_up({**batch, "low": low}, None, scale=4)["low"] is low


def test_faces_keep_their_size_and_follow_from_their_seeds():
    config = FaceDegradationConfig(shift_chance=1, jitter_chance=1)
    high = photo("astronaut-face.png")[..., :128, :128].expand(2, -1, -1, -1)
    made = degrade_face_batch(high, [1, 2], config)
    assert made.shape == high.shape
    assert torch.equal(made[1], degrade_face_batch(high[1:], [2], config)[0])
    assert torch.equal(made, (made * 255).round() / 255)
    grey = degrade_face_batch(high[:1], [1], replace(config, shift_chance=0, jitter_chance=0, grey=1.0))
    assert torch.equal(grey[:, 0], grey[:, 1])
    assert degrade_face_batch(high[:, :1], [1, 2], config).shape == high.shape


@pytest.mark.parametrize(
    ("changed", "least"),
    [
        ({"blur": BlurConfig(kinds=(1, 0, 0, 0, 0, 0), sides=(41,), sigma=(6, 6), sinc=0)}, 4),
        ({"shrink": (8, 8)}, 4),
        ({"noise": (20, 20)}, 10),
        ({"jpeg": (1, 1)}, 4),
        ({"shift_chance": 1.0, "shift": 20.0}, 2),
        ({"jitter_chance": 1.0, "brightness": (0.5, 0.5)}, 20),
    ],
)
def test_each_step_of_a_face_s_way_does_something(changed, least):
    still = FaceDegradationConfig(
        blur=BlurConfig(chance=0), shrink=(1, 1), noise=(0, 0), jpeg=(100, 100), shift_chance=0, jitter_chance=0, grey=0
    )
    high = photo("astronaut-face.png")[..., :128, :128]
    neutral = {"brightness": (1, 1), "contrast": (1, 1), "saturation": (1, 1), "hue": (0, 0)}
    calm = degrade_face_batch(high, [3], replace(still, **neutral))
    assert (calm - high).abs().mean() * 255 < 1.5
    assert (degrade_face_batch(high, [3], replace(still, **{**neutral, **changed})) - high).abs().mean() * 255 > least


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: BlurConfig(kinds=(1.0,)), "kinds must be 6 chances"),
        (lambda: BlurConfig(sides=(8,)), "sides must be odd"),
        (lambda: BlurConfig(chance=2), "chance must be in"),
        (lambda: RoundConfig(directions=(1, 1, 1)), "directions must be chances"),
        (lambda: RoundConfig(noise=(5, 1)), "noise must be"),
        (lambda: RoundConfig(jpeg=(0, 95)), "jpeg must be qualities"),
        (lambda: RoundConfig(resize=(1.2, 1.5)), "resize must go from"),
        (lambda: DegradationConfig(margin=-1), "margin must not be negative"),
        (lambda: FaceDegradationConfig(hue=(-1, 1)), "hue must be"),
        (lambda: FaceDegradationConfig(shrink=(0, 1)), "shrink must be above 0"),
        (lambda: FaceDegradationConfig(shift=-1), "shift not below"),
    ],
)
def test_wrong_numbers_are_refused_by_name(build, message):
    with pytest.raises(ValueError, match=message):
        build()
