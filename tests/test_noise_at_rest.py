"""What a seed drops at rest: by place alone, evenly, without a pattern, and the same in any batch, band or graph."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from cases import random_batch
from torch import Tensor, nn
from translation_layouts import ResNet, UNet, drawn

from restorer.engines import open_engine
from restorer.errors import WeightsError
from restorer.networks.bands import Bands, PictureRows
from restorer.networks.cyclegan import CycleGAN, CycleGANConfig
from restorer.networks.pix2pix import Pix2Pix, Pix2PixConfig
from restorer.networks.spec import get_spec, load_weights
from restorer.networks.translation_layers import dropped

# The mask, a second time


def hashed(x: int) -> int:
    """A published mixing of 32 bits (lowbias32 as improved in 2022), in whole numbers."""
    x ^= x >> 16
    x = x * 0x21F0AAAD % 2**32
    x ^= x >> 15
    x = x * 0x735A2D97 % 2**32
    return x ^ (x >> 15)


def kept(seed: int, layer: int, channel: int, row: int, column: int) -> int:
    key = hashed(hashed(hashed(layer + 1) ^ (seed >> 32)) ^ (seed % 2**32))
    word = hashed(hashed(hashed((channel // 32) ^ key) ^ column) ^ row)
    return word >> (channel % 32) & 1


def mask(seed: int, layer: int, shape: tuple[int, ...], top: int = 0) -> Tensor:
    """(C, h, w) of 0 and 2."""
    channels, height, width = shape
    places = [(c, y, x) for c in range(channels) for y in range(height) for x in range(width)]
    return 2.0 * torch.tensor([kept(seed, layer, c, y + top, x) for c, y, x in places]).reshape(shape)


@pytest.mark.parametrize(("seed", "layer", "top"), [(0, 0, 0), (7, 3, 0), (2**40 + 5, 8, 6), (2**63 - 1, 1, 70_000)])
def test_what_is_dropped_follows_from_the_place_alone(seed: int, layer: int, top: int) -> None:
    x = random_batch((2, 37, 5, 6)) - 0.5
    for each in (x, x.half(), x.double()):
        y = dropped(each, seed, layer, top)
        assert y.dtype == each.dtype
        assert torch.equal(y, each * mask(seed, layer, (37, 5, 6), top).to(each.dtype))


def test_a_band_of_rows_is_dropped_from_as_its_picture_is() -> None:
    x = random_batch((3, 40, 30, 11))
    whole = dropped(x, 5, 2)
    assert torch.equal(torch.cat([dropped(x[:, :, top : top + 7], 5, 2, top) for top in range(0, 30, 7)], 2), whole)
    assert torch.equal(dropped(x[1:2], 5, 2), whole[1:2])


def bits(seed: int = 0, layer: int = 0) -> Tensor:
    """(256, 64, 64) of -1 and 1."""
    return dropped(torch.ones(1, 256, 64, 64), seed, layer)[0] - 1


def test_half_is_kept_of_all_of_every_channel_row_and_column() -> None:
    """Within five standard deviations of the mean of fair coins."""
    drawn_bits = bits()
    assert drawn_bits.unique().tolist() == [-1, 1]
    for dims in ((0, 1, 2), (1, 2), (0, 2), (0, 1)):
        means = drawn_bits.mean(dims)
        assert float(means.abs().max()) < 5 * (drawn_bits.numel() / means.numel()) ** -0.5


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("apart", [1, 2, 31, 32, 33])
def test_neighbours_tell_nothing_of_each_other(axis: int, apart: int) -> None:
    drawn_bits = bits()
    both = drawn_bits * drawn_bits.roll(apart, axis)
    assert abs(float(both.mean())) < 5 * both.numel() ** -0.5


@pytest.mark.parametrize("other", [(1, 0), (2, 0), (2**32, 0), (0, 1), (0, 7), (1, 1)])
def test_other_seeds_and_layers_drop_otherwise(other: tuple[int, int]) -> None:
    both = bits(0, 0) * bits(*other)
    assert abs(float(both.mean())) < 5 * both.numel() ** -0.5


# The networks


class Masked(nn.Module):
    """Stands where the published layout has its dropout."""

    def __init__(self, seed: int, layer: int) -> None:
        super().__init__()
        self.seed, self.layer = seed, layer

    def forward(self, x: Tensor) -> Tensor:
        return x * mask(self.seed, self.layer, tuple(x.shape[1:]))


def with_masks(network: nn.Module, seed: int, layers: list[int]) -> nn.Module:
    """The published network with masks instead of its dropout, from the first one of `modules` on."""
    places = [
        (parent, name)
        for parent in network.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.Dropout)
    ]
    found = [getattr(parent, name) for parent, name in places]
    order = [module for module in network.modules() if any(module is each for each in found)]
    for layer, dropout in zip(layers, order, strict=True):
        parent, name = next(place for place in places if getattr(*place) is dropout)
        setattr(parent, name, Masked(seed, layer))
    return network.train()


PIX2PIX = partial(UNet, 3, 3, 7, 1, "batch", drop=True)
CYCLEGAN = partial(ResNet, 3, 3, 4, 3, "instance", drop=True)
NETWORKS = [
    pytest.param(PIX2PIX, [5, 4], (1, 3, 128, 128), id="pix2pix"),  # the inner level stands inside the outer one
    pytest.param(CYCLEGAN, [0, 1, 2], (1, 3, 16, 20), id="cyclegan"),
]
each_network = pytest.mark.parametrize(("published", "layers", "shape"), NETWORKS)


def loaded(published, noise: object = None):
    facts = {} if noise is None else {"noise": noise}
    return load_weights({key: tensor.clone() for key, tensor in drawn(published()).state_dict().items()}, facts=facts)


@each_network
def test_published_layout_with_such_masks_gives_the_same_picture(published, layers, shape) -> None:
    x = 2 * random_batch(shape) - 1
    model = loaded(published, 11)
    assert model.config.noise == 11
    with torch.no_grad():
        expected = with_masks(drawn(published()), 11, layers)(x)
        assert float((model.network(x) - expected).abs().max()) <= 2e-5
        plain = loaded(published).network(x)
    assert float((plain - expected).abs().max()) > 0.1, "noise shows"


@each_network
def test_one_seed_makes_one_picture_in_any_batch_layout_and_band(published, layers, shape) -> None:
    model = loaded(published, "3")
    x = 2 * random_batch((2, *shape[1:])) - 1
    with torch.inference_mode():
        y = model.network(x)
        assert torch.allclose(model.network(x[1:].contiguous(memory_format=torch.channels_last)), y[1:], atol=1e-5)
        assert not torch.allclose(loaded(published, 4).network(x), y, atol=0.01)
        bands = Bands(9)
        rows = PictureRows(shape[2], lambda top, bottom: x[:1, :, top:bottom].clone())
        made = model.spec.walk(model.network, rows, bands)
        walked = torch.cat([band for _, band in bands.of(made)], 2)
        assert torch.allclose(walked, y[:1], atol=2e-5)


@each_network
def test_training_does_not_ask_the_seed(published, layers, shape) -> None:
    outputs = []
    for noise in (None, 3):
        network = loaded(published, noise).network.train()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            outputs += [network(2 * random_batch((2, *shape[1:])) - 1) for _ in range(2)]
    assert torch.equal(outputs[0], outputs[2])
    assert torch.equal(outputs[1], outputs[3])
    assert not torch.equal(outputs[0], outputs[1])


def test_tiles_know_that_noise_depends_on_the_place() -> None:
    traits, config = get_spec("pix2pix").traits, Pix2PixConfig(levels=6, norm="none")
    assert traits(config).radius is not None
    assert traits(replace(config, noise=0)).radius is None


@pytest.mark.slow
@each_network
def test_noise_is_written_into_graphs(published, layers, shape, tmp_path, monkeypatch) -> None:
    for package in ("onnxruntime", "onnx", "onnxscript"):
        pytest.importorskip(package)
    monkeypatch.setenv("RESTORER_CACHE", str(tmp_path))
    model = loaded(published, 5)
    graph, plain = (open_engine(model, kind=kind, device="cpu", precision="fp32") for kind in ("onnx", "eager"))
    x = random_batch((2, *shape[1:]))
    assert float((graph.run({"image": x})["image"] - plain.run({"image": x})["image"]).abs().max()) <= 1e-4


# Seeds that are none


@pytest.mark.parametrize("told", [-1, "-1", "x", "", "1.5", 1.5, True, "1e3", " 1", "٣", "9" * 30])
@pytest.mark.parametrize("published", [PIX2PIX, CYCLEGAN], ids=["pix2pix", "cyclegan"])
def test_a_seed_that_is_no_whole_number_is_refused_in_one_line(published, told: object) -> None:
    with pytest.raises(WeightsError, match="noise must be a whole number") as caught:
        loaded(published, told)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("told", [0, "0", 2**63 - 1, str(2**63 - 1)])
def test_seeds_are_told_in_words_too(told: object) -> None:
    assert loaded(CYCLEGAN, told).config.noise == int(str(told))


@pytest.mark.parametrize(
    "network",
    [
        Pix2Pix(Pix2PixConfig(features=1, levels=6, dropout=False)),
        Pix2Pix(Pix2PixConfig(features=1, levels=5)),  # too few levels for any that drops
        CycleGAN(CycleGANConfig(features=1, blocks=1)),
    ],
    ids=["told so", "no level drops", "cyclegan"],
)
def test_noise_of_a_network_that_drops_nothing_is_refused(network) -> None:
    facts = {"noise": 1, "dropout": network.config.dropout} if isinstance(network, Pix2Pix) else {"noise": 1}
    with pytest.raises(WeightsError, match="this one drops none; leave noise out"):
        load_weights(network.state_dict(), facts=facts)


@pytest.mark.parametrize("config", [Pix2PixConfig(), CycleGANConfig(dropout=True)])
@pytest.mark.parametrize("noise", [-1, 2**63])
def test_configs_refuse_such_seeds(config, noise: int) -> None:
    with pytest.raises(ValueError, match="noise must be a whole number from 0"):
        replace(config, noise=noise)
