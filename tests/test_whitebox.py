"""White-box Cartoonization equals TensorFlow 1's way of computing it, written a second time; its published weights."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from cases import random_batch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from restorer.api import open_model
from restorer.engines import open_engine
from restorer.errors import UnknownWeightsError, WeightsError
from restorer.networks.spec import get_spec, load_weights
from restorer.networks.whitebox import Whitebox, WhiteboxConfig, doubled, guided

PUBLISHED = Path(__file__).resolve().parents[2] / "shared" / "weights" / "translation"
PUBLISHED /= "whitebox_cartoon_unet.safetensors"
PICTURES = Path(__file__).parent / "pictures"


# TensorFlow 1, as its documentation defines it


def same(x: Tensor, weights: dict[str, Tensor], name: str, stride: int = 1) -> Tensor:
    """A convolution with "SAME" padding: what is needed, the odd one after the end."""
    kernel = weights[f"{name}.weight"]
    pads = []
    for side in (x.shape[3], x.shape[2]):
        needed = max((math.ceil(side / stride) - 1) * stride + kernel.shape[2] - side, 0)
        pads += [needed // 2, needed - needed // 2]
    return F.conv2d(F.pad(x, pads), kernel, weights[f"{name}.bias"], stride)


def resized(x: Tensor) -> Tensor:
    """`resize_bilinear` to twice the sides, align_corners and half_pixel_centers false, one axis after the other."""
    for axis in (2, 3):
        side = x.shape[axis]
        places = torch.arange(2 * side, dtype=torch.float64) * (side / (2 * side))
        lower = places.floor().long()
        upper = (lower + 1).clamp(max=side - 1)
        share = (places - lower).to(x.dtype).reshape([-1 if d == axis else 1 for d in range(4)])
        x = x.index_select(axis, lower) * (1 - share) + x.index_select(axis, upper) * share
    return x


def boxed(x: Tensor) -> Tensor:
    """Sums of three by three pixels over the count of those inside, as the published filter divides them."""
    channels = x.shape[1]
    box = torch.full((channels, 1, 3, 3), 1 / 9, dtype=x.dtype)
    inside = F.conv2d(torch.ones_like(x[:1, :1]), box[:1], padding=1)
    return F.conv2d(x, box, padding=1, groups=channels) / inside


def filtered(x: Tensor, y: Tensor, eps: float = 5e-3) -> Tensor:
    covariance = boxed(x * y) - boxed(x) * boxed(y)
    a = covariance / (boxed(x * x) - boxed(x) ** 2 + eps)
    b = boxed(y) - a * boxed(x)
    return boxed(a) * x + boxed(b)


def published(x: Tensor, weights: dict[str, Tensor]) -> Tensor:
    """The whole generator and its filter, under the names of a published conversion."""

    def step(x: Tensor, number: int, stride: int = 1) -> Tensor:
        return F.leaky_relu(same(x, weights, f"conv{number}", stride), 0.2)

    x0 = step(x, 0)
    x1 = step(step(x0, 1, 2), 2)
    x2 = step(step(x1, 3, 2), 4)
    for block in range(sum(name.endswith(".conv1.bias") for name in weights)):
        inner = F.leaky_relu(same(x2, weights, f"block{block}.conv1"), 0.2)
        x2 = x2 + same(inner, weights, f"block{block}.conv2")
    x3 = step(step(resized(step(x2, 5)) + x1, 6), 7)
    x4 = step(resized(x3) + x0, 8)
    return filtered(x, same(x4, weights, "conv9"))


def drawn(f: int, blocks: int) -> dict[str, Tensor]:
    """Random weights under the published names."""
    shapes = [(f, 3, 7), (f, f, 3), (2 * f, f, 3), (2 * f, 2 * f, 3), (4 * f, 2 * f, 3), (2 * f, 4 * f, 3)]
    shapes += [(2 * f, 2 * f, 3), (f, 2 * f, 3), (f, f, 3), (3, f, 7)]
    named = {f"conv{number}": shape for number, shape in enumerate(shapes)}
    named |= {f"block{block}.conv{number}": (4 * f, 4 * f, 3) for block in range(blocks) for number in (1, 2)}
    rng, weights = torch.Generator().manual_seed(0), {}
    for name, (out, into, side) in named.items():
        weights[f"{name}.weight"] = torch.randn(out, into, side, side, generator=rng) * (into * side**2) ** -0.5
        weights[f"{name}.bias"] = torch.randn(out, generator=rng) * 0.2
    return weights


@pytest.mark.parametrize("blocks", [1, 4])
@pytest.mark.parametrize("size", [(4, 4), (20, 28), (8, 52)])
def test_network_equals_tensorflows_way_of_computing_it(blocks: int, size: tuple[int, int]) -> None:
    weights = drawn(4, blocks)
    model = load_weights(weights)
    assert (model.spec.name, model.config) == ("whitebox", WhiteboxConfig(features=4, blocks=blocks))
    x = 2 * random_batch((2, 3, *size)).double() - 1
    expected = published(x, {name: tensor.double() for name, tensor in weights.items()})
    assert float(expected.std()) > 0.05
    with torch.no_grad():
        for layout in (torch.contiguous_format, torch.channels_last):
            y = model.network.float()(x.float().contiguous(memory_format=layout))
            assert float((y - expected).abs().max()) <= 1e-5
        assert float((model.network.double()(x) - expected).abs().max()) <= 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_doubling_leaves_every_pixel_at_twice_its_place(dtype: torch.dtype) -> None:
    """Means of neighbours worked by hand; the last row and column stand twice."""
    x = torch.tensor([[[[1, 2], [3, 6]]]], dtype=dtype)
    expected = torch.tensor([[1, 1.5, 2, 2], [2, 3, 4, 4], [3, 4.5, 6, 6], [3, 4.5, 6, 6]], dtype=dtype)
    assert torch.equal(doubled(x)[0, 0], expected)


def test_filter_takes_edges_from_the_guide_and_smooths_where_it_has_none() -> None:
    noisy = random_batch((1, 1, 6, 7))
    assert torch.allclose(guided(torch.full_like(noisy, 0.3), noisy), boxed(boxed(noisy)), atol=1e-5)
    step = torch.cat([-torch.ones(1, 1, 5, 4), torch.ones(1, 1, 5, 4)], 3)
    kept = guided(step, step)
    # two of the three windows around the last -1 hold the edge: means -1/3 and 1/3, variance 8/9; the third is even
    slope = (8 / 9) / (8 / 9 + 5e-3)
    assert kept[0, 0, 2, 3].item() == pytest.approx(-2 / 3 * slope - 1 / 3, abs=1e-5)
    assert torch.allclose(kept[..., :2], step[..., :2], atol=1e-5)


def test_size_work_and_reach_are_those_worked_by_hand() -> None:
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in Whitebox(WhiteboxConfig()).parameters())
    ends = 4736 + 9248 + 18496 + 36928 + 73856 + 73792 + 36928 + 18464 + 9248 + 4707
    assert count == ends + 8 * (9 * 128 * 128 + 128)
    traits = get_spec("whitebox").traits(WhiteboxConfig())
    full, half = 4704 + 9216 + 4704, (9216 + 18432 + 36864 + 18432) / 4
    assert traits.operations == full + half + (36864 + 73728 + 8 * 147456 + 73728) / 16
    # up from the last of four pixels: 9, then 5 and 7 at half the side, 4, 5 and 14 at a quarter; down 31 and 67
    assert traits.radius == traits.overlap == 67 - 3
    assert (traits.multiple_of, traits.value_range, traits.channel_order) == (4, (-1.0, 1.0), "bgr")


def test_names_that_are_numbered_otherwise_stay_unknown() -> None:
    weights = drawn(4, 1)
    for first in ("conv9.", "block0.", "conv0."):
        with pytest.raises(UnknownWeightsError):
            load_weights({name: tensor for name, tensor in weights.items() if not name.startswith(first)})
    with pytest.raises(WeightsError, match=r"lack 1 of 24 keys \(down\.1\.widen\.bias\)"):
        load_weights({name: tensor for name, tensor in weights.items() if name != "conv4.bias"})


def test_noise_is_refused_since_nothing_is_dropped() -> None:
    with pytest.raises(WeightsError, match="this one drops none; leave it out"):
        load_weights(drawn(4, 1), facts={"noise": "3"})


# The published weights


LITERT = {
    (0, 0): (0.28498, 0.60641, 0.64769),
    (0, 223): (-0.06058, 0.20718, 0.54742),
    (223, 0): (-0.19362, -0.45222, 0.14298),
    (223, 223): (0.22912, 0.19359, 0.28192),
    (95, 75): (0.39648, -0.3414, 0.22993),
    (60, 40): (-0.02123, -0.31741, 0.38573),
    (111, 180): (-0.57351, 0.65176, -0.04239),
    (17, 34): (0.38182, 0.62354, 0.14675),
}
"""(row, column) -> what ai-edge-litert 2.3.0 gives, from the TFLite file that these weights were taken out of."""


def waves() -> np.ndarray:
    """(224, 224, 3) in [-1, 1]: waves of three kinds, and an even patch."""
    y, x = np.mgrid[0:224, 0:224].astype(np.float64)
    picture = np.stack([np.sin(x / 9 + c) * np.cos(y / (5 + 3 * c)) for c in range(3)], -1)
    picture[60:130, 40:110] = (0.7, -0.2, 0.4)
    return picture.astype(np.float32)


@pytest.fixture(scope="module")
def model():
    if not PUBLISHED.is_file():
        pytest.skip(f"{PUBLISHED.name} is not among the shared weights here")
    return open_model(PUBLISHED)


def test_published_weights_give_what_another_runtime_gives(model) -> None:
    assert (model.spec.name, model.config) == ("whitebox", WhiteboxConfig())
    with torch.inference_mode():
        y = model.network(torch.from_numpy(waves()).permute(2, 0, 1)[None])[0].permute(1, 2, 0)
    for place, expected in LITERT.items():
        assert y[place].tolist() == pytest.approx(expected, abs=2e-4), place


def test_a_photo_becomes_a_cartoon_of_its_own_colours(model) -> None:
    """Large even areas, edges where the photo has them, and a nearer likeness than with red and blue confused."""
    photo = Image.open(PICTURES / "coffee.png").convert("RGB").resize((300, 200), Image.Resampling.LANCZOS)
    x = torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None].float() / 255
    engine = open_engine(model, kind="eager", device="cpu", precision="fp32")
    y = engine.run({"image": x})["image"].clamp(0, 1)
    confused = engine.run({"image": x.flip(1)})["image"].flip(1).clamp(0, 1)

    def fine(z: Tensor) -> float:
        """The share of neighbours that differ by less than half a level and more than none would show."""
        grey = z.mean(1)
        return float(((grey[..., 1:] - grey[..., :-1]).abs() < 0.5 / 255).float().mean())

    assert fine(y) > 1.5 * fine(x)
    assert float((y - x).mean((0, 2, 3)).abs().max()) < 0.1
    assert float((y - x).abs().mean()) < float((confused - x).abs().mean())
    edges, own = ((z[..., 1:] - z[..., :-1]).abs().flatten() for z in (x, y))
    assert float(torch.corrcoef(torch.stack([edges, own]))[0, 1]) > 0.5
