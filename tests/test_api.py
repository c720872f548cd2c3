"""The Python door: whatever kind of picture goes in comes out, larger; one path, two doors; nothing global changes."""

import io
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from engines import FakeEngine, FullEngine
from PIL import Image, ImageCms, PngImagePlugin
from tiny import HOME, network, noise, save_picture, save_tiny
from torch.nn import functional as F

import restorer
from restorer.api import Restorer, enhance, open_model
from restorer.errors import PictureError, RestorerError, UnknownWeightsError, UsageError
from restorer.networks.compact import Compact, CompactConfig
from restorer.pipeline.picture import Picture, read_picture, write_picture
from restorer.pipeline.settings import UpscaleSettings
from restorer.weights.read import write_safetensors
from restorer.weights.record import Record
from restorer.weights.records import CHECKPOINTS

FP32 = UpscaleSettings(precision="fp32", device="cpu")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture(scope="module")
def tiny(weights):
    """The random network, in float32."""
    return Restorer.open(weights, settings=FP32)


@pytest.fixture
def repeats():
    """Repeats every pixel four times: what must come out is known."""
    return Restorer(FakeEngine(), FP32)


def by_hand(array):
    """(H, W, 3) uint8 -> (4H, 4W, 3): the network without anything of ours around it."""
    x = torch.from_numpy(array.astype(np.float32) / 255).permute(2, 0, 1)[None]
    with torch.inference_mode():
        y = network()(x)[0].permute(1, 2, 0).clamp(0, 1)
    return (y * 255).round().to(torch.uint8).numpy()


def enlarged(array):
    return array.repeat(4, axis=0).repeat(4, axis=1)


def close(one, other):
    """Equal but for a rounding at the border of two levels."""
    return one.shape == other.shape and np.abs(one.astype(float) - other).max() <= 1 and np.mean(one != other) < 1e-3


# ---- arrays


def test_an_array_comes_out_as_the_network_alone_makes_it(tiny):
    assert close(tiny(noise(40, 50)), by_hand(noise(40, 50)))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "float32", "float64", ">u2", ">f4"])
@pytest.mark.parametrize("shape", [(9, 7), (9, 7, 1), (9, 7, 2), (9, 7, 3), (9, 7, 4), (2, 9, 7, 3), (3, 1, 1, 4)])
def test_arrays_keep_kind_and_shape(repeats, dtype, shape):
    x = np.random.default_rng(0).random(shape) * 0.9 + 0.05  # nowhere transparent, where colour is bled
    x = (x * (255 if dtype == "uint8" else 65535)).astype(dtype) if "u" in dtype else x.astype(dtype)
    before = x.copy()
    y = repeats(x)
    axis = 1 if x.ndim == 4 else 0
    expected = x.repeat(4, axis=axis).repeat(4, axis=axis + 1)
    assert (y.dtype, y.shape) == (x.dtype, expected.shape)
    # grey goes through the network as three equal channels, whose luma may round by one level
    step = {"uint8": 1, "uint16": 1, ">u2": 1, "float16": 2e-3}.get(dtype, 1e-6)
    assert np.abs(y.astype(float) - expected.astype(float)).max() <= step
    assert np.array_equal(x, before)


def test_float_arrays_stay_in_their_range_and_scene_values_pass_it(tiny, repeats):
    y = tiny(np.random.default_rng(0).random((30, 30, 3)))
    assert (y.min() >= 0, y.max() <= 1) == (True, True)
    bright = np.full((8, 8, 3), 2.5, np.float32)
    assert np.allclose(repeats(bright), 2.5)


@pytest.mark.parametrize("top", [1.0, 3.0, 255.0])
def test_floats_that_look_like_bytes_are_told(repeats, caplog, top):
    repeats(np.full((4, 4, 3), top, np.float32))
    repeats(torch.full((1, 3, 4, 4), top))
    assert caplog.text.count("divide by 255") == 2 * (top > 64)


def test_arrays_need_not_lie_in_order(repeats):
    x = noise(12, 10)
    for view in (x[::-1, ::-1], x.transpose(1, 0, 2), x[::2, ::3], x[:, :, ::-1]):
        assert np.array_equal(repeats(view), enlarged(view))


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.zeros((4, 4, 5), np.uint8), "shape"),
        (np.zeros((4, 4, 3), np.int32), "int32"),
        (np.zeros((4, 4, 3), bool), "bool"),
        (np.zeros((4, 4, 3), complex), "complex128"),
        (np.zeros((3,), np.uint8), "shape"),
        (np.zeros((0, 4, 3), np.uint8), "shape"),
        (np.zeros((0, 4, 4, 3), np.uint8), "shape"),
        (np.full((4, 4, 3), np.nan), "NaN"),
        (np.full((4, 4), np.inf, np.float32), "infinity"),
        (np.concatenate([np.zeros((4, 4, 3)), np.full((4, 4, 1), np.nan)], axis=2), "NaN"),
        (torch.zeros(3, 4, 4), r"x\[None\]"),
        (torch.zeros(1, 4, 4, 4), "shape"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.int64), "int64"),
        (torch.full((1, 3, 4, 4), float("nan")), "NaN"),
        (b"no picture", "not a picture"),
        (b"", "empty"),
        ("nowhere.png", "no such file"),
        (Path("nowhere.png"), "no such file"),
        (Image.new("F", (4, 4)), "mode F"),
        (Image.new("I", (4, 4)), "mode I"),
        (7, "int"),
        (None, "NoneType"),
        ({"a": 1}, "dict"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_picture_is_refused_in_one_line(repeats, x, words):
    with pytest.raises(PictureError, match=words) as caught:
        repeats(x)
    assert "\n" not in str(caught.value)


def test_an_absurd_size_is_refused_with_the_limit(tiny):
    huge = Restorer(tiny.engine, replace(FP32, scale=10_000))
    for x in (noise(40, 50), torch.zeros(1, 3, 40, 50), Image.new("RGB", (50, 40))):
        with pytest.raises(UsageError, match=r"500000x400000 .* limit is 1000"):
            huge(x)


# ---- tensors


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 3, 9, 7), (3, 3, 5, 6), (2, 1, 4, 4)])
def test_tensors_keep_kind_and_device(repeats, dtype, shape):
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    x = (x * 255).to(dtype) if dtype == torch.uint8 else x.to(dtype)
    y = repeats(x)
    assert (y.dtype, y.device) == (x.dtype, x.device)
    step = 1 if dtype == torch.uint8 else 1e-6
    assert (y.double() - F.interpolate(x.double(), scale_factor=4)).abs().max() <= step


def test_a_batch_equals_its_pictures_one_by_one(tiny):
    batch = torch.rand(3, 3, 40, 30, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(tiny(batch), torch.cat([tiny(one[None]) for one in batch]), atol=1e-6)


def test_a_tensor_equals_the_array_of_the_same_values(tiny):
    array = noise(40, 30)
    tensor = torch.from_numpy(array).permute(2, 0, 1)[None]
    assert close(tiny(tensor)[0].permute(1, 2, 0).numpy(), tiny(array))


def test_a_tensor_that_does_not_fit_goes_through_in_smaller_tiles():
    cramped = Restorer(FullEngine(most=130 * 130), FP32)
    x = torch.rand(1, 3, 200, 190, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(cramped(x), F.interpolate(x, scale_factor=4))


# ---- PIL


def pil_image(mode):
    rgba = Image.fromarray(np.maximum(noise(20, 30, 4), 1))  # nowhere transparent, where colour is bled
    if mode == "I;16":
        return Image.fromarray(np.random.default_rng(0).integers(0, 65536, (20, 30), dtype=np.uint16))
    return (
        rgba.convert("RGB").convert(mode) if mode in ("P", "1", "CMYK", "YCbCr", "HSV", "LAB") else rgba.convert(mode)
    )


@pytest.mark.parametrize(
    ("mode", "comes_back"),
    [
        ("L", "L"), ("LA", "LA"), ("RGB", "RGB"), ("RGBA", "RGBA"), ("I;16", "I;16"), ("P", "RGB"), ("1", "L"),
        ("CMYK", "RGB"), ("YCbCr", "RGB"), ("HSV", "RGB"), ("RGBa", "RGBA"), ("La", "LA"), ("PA", "RGBA"),
    ],
)  # fmt: skip
def test_pil_images_come_back_as_images(repeats, mode, comes_back):
    image = pil_image(mode)
    expected = enlarged(np.array(image.convert(comes_back)))
    out = repeats(image)
    assert (type(out), out.mode, out.size) == (Image.Image, comes_back, (120, 80))
    assert np.abs(np.array(out).astype(int) - expected).max() <= 1
    assert image.size == (30, 20)


def test_a_transparent_colour_of_a_palette_becomes_alpha(repeats):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.putpixel((0, 0), 0)
    image.info["transparency"] = 0
    out = repeats(image)
    assert out.mode == "RGBA"
    assert (out.getpixel((0, 0))[3], out.getpixel((15, 15))) == (0, (10, 20, 30, 255))
    assert "transparency" not in out.info


def test_an_image_from_a_file_keeps_profile_density_and_exif(repeats, tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[271] = "Maker"
    beside = {"icc_profile": profile, "dpi": (300, 300), "exif": exif.tobytes()}
    with Image.open(save_picture(tmp_path / "a.jpg", **beside)) as image:
        out = repeats(image)
        assert {key: out.info[key] for key in beside} == {key: image.info[key] for key in beside}
    assert out.getexif()[271] == "Maker"


def test_a_profile_that_describes_other_channels_is_not_kept(repeats):
    image = pil_image("CMYK")
    image.info["icc_profile"] = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert "icc_profile" not in repeats(image).info


def test_a_damaged_image_is_refused_when_its_pixels_are_needed(repeats, tmp_path):
    path = save_picture(tmp_path / "a.png", height=60, width=60)
    path.write_bytes(path.read_bytes()[:4000])
    with Image.open(path) as image, pytest.raises(PictureError, match="PIL image: cannot be decoded"):
        repeats(image)


# ---- files and lists


def test_a_file_gives_a_picture_with_everything_kept(repeats, tmp_path):
    info = PngImagePlugin.PngInfo()
    info.add_text("Title", "noise")
    path = save_picture(tmp_path / "a.png", channels=4, dpi=(72, 72), pnginfo=info)
    for source in (path, str(path), path.read_bytes(), read_picture(path)):
        out = repeats(source)
        assert isinstance(out, Picture)
        assert np.array_equal(out.alpha, enlarged(noise(24, 32, 4))[:, :, 3])
        assert (out.meta["text:Title"], out.source.format) == (b"noise", "PNG")
        assert out.dpi == pytest.approx((72, 72), abs=0.01)
    write_picture(out, tmp_path / "b.png")
    with Image.open(tmp_path / "b.png") as image:
        assert (image.size, image.text["Title"]) == ((128, 96), "noise")


def test_lists_come_back_as_lists_of_the_same_kinds(repeats):
    out = repeats([Image.new("L", (3, 2)), (noise(4, 4), torch.zeros(1, 3, 2, 2))])
    assert [type(out[0]), type(out[1][0]), type(out[1][1])] == [Image.Image, np.ndarray, torch.Tensor]
    assert repeats([]) == []


# ---- opening


def test_enhance_is_open_and_call(weights, tiny):
    x = noise(33, 21)
    assert np.array_equal(enhance(x, model=weights, settings=FP32), tiny(x))
    assert np.array_equal(restorer.enhance(x, settings=replace(FP32, model=weights)), tiny(x))


def test_settings_hold_for_every_kind(weights):
    half = Restorer.open(weights, settings=replace(FP32, width=50, strength=0.5))
    assert half(noise(30, 25)).shape == (60, 50, 3)
    assert half(torch.zeros(1, 3, 30, 25)).shape == (1, 3, 60, 50)
    assert half(Image.new("RGB", (25, 30))).size == (50, 60)


def test_unknown_names_and_weights_are_refused_by_name(tmp_path):
    with pytest.raises(RestorerError, match="did you mean 'realesrgan-x4plus'"):
        Restorer.open("realesrgan-x4plu")
    torch.save({"enc.0.w": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(UnknownWeightsError, match=r"other\.pth: no network .* enc\.0\.w"):
        Restorer.open(tmp_path / "other.pth")


def pair_of(monkeypatch, folder):
    """Two records of one pair whose weights are random, and those weights."""
    monkeypatch.setenv("RESTORER_WEIGHTS", str(folder))
    made = {}
    for name, partner, denoise in (("pair-x4", "pair-wdn-x4", 1.0), ("pair-wdn-x4", "pair-x4", 0.0)):
        made[name] = {key: value + (denoise == 0) * 0.125 for key, value in network().state_dict().items()}
        write_safetensors(folder / f"{name}.safetensors", made[name], {})
        record = Record(
            name=name, network="compact", scale=4, file=f"{name}.safetensors", licence="none", source="here",
            summary="random", partner=partner, denoise=denoise,
        )  # fmt: skip
        monkeypatch.setitem(CHECKPOINTS, name, record)
    return made["pair-x4"], made["pair-wdn-x4"]


@pytest.mark.parametrize("name", ["pair-x4", "pair-wdn-x4"])
@pytest.mark.parametrize("denoise", [0.0, 0.25, 0.5, 1.0])
def test_denoise_mixes_the_pair_whichever_is_named(monkeypatch, tmp_path, name, denoise):
    strong, weak = pair_of(monkeypatch, tmp_path)
    mixed = open_model(name, denoise=denoise).network.state_dict()
    for key, value in mixed.items():
        expected = denoise * strong[key].double() + (1 - denoise) * weak[key].double()
        assert torch.allclose(value.double(), expected, atol=1e-6)
        if denoise in (0.0, 1.0):
            assert torch.equal(value, strong[key] if denoise else weak[key])


def test_without_denoise_each_of_a_pair_is_itself(monkeypatch, tmp_path):
    strong, weak = pair_of(monkeypatch, tmp_path)
    for name, own in (("pair-x4", strong), ("pair-wdn-x4", weak)):
        assert all(torch.equal(value, own[key]) for key, value in open_model(name).network.state_dict().items())


def test_facts_of_the_user_win(tmp_path):
    plain = Compact(CompactConfig(features=8, convs=2, activation="relu"))
    write_safetensors(tmp_path / "a.safetensors", dict(plain.state_dict()), {"activation": "leakyrelu"})
    assert open_model(tmp_path / "a.safetensors").config.activation == "leakyrelu"
    assert open_model(tmp_path / "a.safetensors", facts={"activation": "relu"}).config.activation == "relu"


# ---- with others in one process


def test_many_threads_get_what_one_gets(tiny):
    pictures = [noise(20 + k, 30, seed=k) for k in range(8)]
    expected = [tiny(x) for x in pictures]
    wrong = []

    def work(k):
        wrong.extend(k for _ in range(5) if not np.array_equal(tiny(pictures[k]), expected[k]))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


GLOBALS = """
import warnings, random, logging, os, signal, locale, sys
import numpy, torch, cv2
from PIL import Image, ImageFile
def seen():
    return {
        "largest image": Image.MAX_IMAGE_PIXELS, "truncated images": ImageFile.LOAD_TRUNCATED_IMAGES,
        "dtype": torch.get_default_dtype(), "threads": torch.get_num_threads(), "grad": torch.is_grad_enabled(),
        "torch random": torch.get_rng_state().numpy().tobytes(), "numpy random": repr(numpy.random.get_state()),
        "random": random.getstate(), "warnings": list(warnings.filters), "handlers": list(logging.getLogger().handlers),
        "environment": dict(os.environ), "signals": signal.getsignal(signal.SIGTERM), "errors": numpy.geterr(),
        "cv2 threads": cv2.getNumThreads(), "deterministic": torch.are_deterministic_algorithms_enabled(),
        "stderr": sys.stderr, "matmul": torch.get_float32_matmul_precision(), "locale": locale.setlocale(locale.LC_ALL),
    }
before = seen()
import restorer
for name in restorer.__all__:
    getattr(restorer, name)
out = restorer.enhance(numpy.zeros((9, 9, 3), "uint8"), model=sys.argv[1])
after = seen()
assert out.shape == (36, 36, 3)
print(*[name for name in before if before[name] != after[name]], sep=", ")
"""


def test_importing_and_using_changes_nothing_global(weights):
    done = subprocess.run(
        [sys.executable, "-c", GLOBALS, weights], cwd=HOME, capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_bytes_of_a_stream_are_a_picture(repeats):
    buffer = io.BytesIO()
    Image.fromarray(noise()).save(buffer, "PNG")
    assert np.array_equal(repeats(buffer.getvalue()).pixels, enlarged(noise()))
