"""ParseNet and BiSeNet equal facexlib's; their weights say all, and bring more than is needed."""

import math
from types import ModuleType

import pytest
import torch
from cases import random_batch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from restorer.errors import WeightsError
from restorer.networks import bisenet, parsenet
from restorer.networks.bisenet import BiSeNetConfig
from restorer.networks.parsenet import ParseNetConfig
from restorer.networks.spec import NetworkSpec

TINY = ParseNetConfig(widths=(4, 8, 16), blocks=2, classes=5)
TINY_WIDE = BiSeNetConfig(features=4, blocks=(1, 2, 1, 1))
ROWS = [(parsenet.SPEC, TINY, "out_img_conv.conv2d.bias"), (bisenet.SPEC, TINY_WIDE, "conv_out16.conv.bn.bias")]
each_row = pytest.mark.parametrize(("spec", "config", "unused"), ROWS, ids=lambda value: getattr(value, "name", ""))


def lively(network: nn.Module) -> nn.Module:
    """Every weight and statistic random and repeatable, and answers of a size that shows differences."""
    rng = torch.Generator().manual_seed(0)
    for name, tensor in network.state_dict().items():
        if tensor.ndim == 4:
            tensor.normal_(0, math.sqrt(2 / tensor[0].numel()), generator=rng)
        elif name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
            tensor.uniform_(0.5, 1.5, generator=rng)
        elif tensor.ndim == 1:
            tensor.uniform_(-0.3, 0.3, generator=rng)
    return network.eval()


def loaded(spec: NetworkSpec, weights: dict[str, Tensor]) -> nn.Module:
    """As weights are loaded, without the other networks."""
    renamed = spec.rename(weights, {})
    assert spec.detect(renamed, {})
    network = spec.build(spec.read_config(renamed, {}))
    network.load_state_dict(dict(renamed))
    return network.eval()


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    """Within 1e-4 of the largest."""
    assert theirs.std() > 0.05
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()


# facexlib


def facexlib(name: str) -> ModuleType:
    return pytest.importorskip(f"facexlib.parsing.{name}", reason="facexlib is not installed")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("words", "config"),
    [
        ({}, ParseNetConfig(widths=(64, 128), blocks=10)),
        ({"base_ch": 8, "ch_range": [4, 16], "res_depth": 2, "parsing_ch": 5, "in_size": 128, "out_size": 128},
         ParseNetConfig(widths=(8, 16, 16), blocks=2, classes=5)),
    ],
    ids=["wide", "deep"],
)  # fmt: skip
def test_parsenet_equals_facexlib(words: dict[str, object], config: ParseNetConfig) -> None:
    theirs = lively(facexlib("parsenet").ParseNet(**{"in_size": 64, "out_size": 64, **words}))
    network, x = loaded(parsenet.SPEC, theirs.state_dict()), random_batch((2, 3, config.side, config.side)) * 2 - 1
    assert parsenet.SPEC.read_config(theirs.state_dict(), {}) == config
    with torch.no_grad():
        assert_close(network(x), theirs(x)[0])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("size", [(64, 96), (75, 52)])
def test_bisenet_equals_facexlib(size: tuple[int, int]) -> None:
    theirs = lively(facexlib("bisenet").BiSeNet(num_class=19))
    network, x = loaded(bisenet.SPEC, theirs.state_dict()), random_batch((2, 3, *size))
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        assert_close(network(x), theirs((x - mean) / std)[0])


@pytest.mark.filterwarnings("ignore")
def test_published_networks_are_theirs_but_for_what_only_training_needs() -> None:
    with torch.device("meta"):
        face = facexlib("parsenet").ParseNet(in_size=512, out_size=512, parsing_ch=19)
        wide = facexlib("bisenet").BiSeNet(num_class=19)
    for spec, config, theirs, extra in (
        (parsenet.SPEC, ParseNetConfig(), face, ("out_img_conv.",)),
        (bisenet.SPEC, BiSeNetConfig(), wide, ("conv_out16.", "conv_out32.")),
    ):
        weights = theirs.state_dict()
        renamed = spec.rename(weights, {})
        assert spec.detect(renamed, {}) and spec.read_config(renamed, {}) == config
        with torch.device("meta"):
            ours = spec.build(config).state_dict()
        assert {key: tensor.shape for key, tensor in ours.items()} == {k: t.shape for k, t in renamed.items()}
        assert {key for key in weights if key not in renamed} == {key for key in weights if key.startswith(extra)}


# What weights say


@each_row
@pytest.mark.parametrize("prefix", ["", "module."])
def test_weights_say_all_themselves(spec: NetworkSpec, config: object, unused: str, prefix: str) -> None:
    network = lively(spec.build(config))
    weights = {prefix + key: tensor for key, tensor in {**network.state_dict(), unused: torch.ones(1)}.items()}
    assert spec.read_config(spec.rename(weights, {}), {}) == config
    x = random_batch((1, 3, 128, 128))
    assert torch.equal(loaded(spec, weights)(x), network(x))


@each_row
def test_foreign_weights_stay_as_they_are(spec: NetworkSpec, config: object, unused: str) -> None:
    foreign = {"encoder.0.weight": torch.ones(1), unused: torch.ones(1)}
    assert spec.rename(foreign, {}) is foreign
    assert not spec.detect(foreign, {})
    assert not any(other.detect(spec.build(config).state_dict(), {}) for other, _, _ in ROWS if other is not spec)


@each_row
def test_missing_weight_is_named(spec: NetworkSpec, config: object, unused: str) -> None:
    first = {"parsenet": "encoder.0.conv2d.weight", "bisenet": "cp.resnet.conv1.weight"}[spec.name]
    weights = {key: tensor for key, tensor in spec.build(config).state_dict().items() if key != first}
    with pytest.raises(WeightsError, match=f"lack {first}"):
        spec.read_config(weights, {})


@pytest.mark.parametrize(
    ("make", "change", "reason"),
    [
        (ParseNetConfig, {"widths": (8,)}, "widths must be 2 to 8 numbers, got 1"),
        (ParseNetConfig, {"widths": (8,) * 9}, "widths must be 2 to 8 numbers, got 9"),
        (ParseNetConfig, {"widths": (8, 0)}, "widths must be at least 1, got 0"),
        (ParseNetConfig, {"blocks": 0}, "blocks must be at least 1, got 0"),
        (BiSeNetConfig, {"features": 0}, "features must be at least 1, got 0"),
        (BiSeNetConfig, {"blocks": (1, 1, 0, 1)}, "blocks must be at least 1, got 0"),
    ],
)
def test_config_that_makes_no_network_is_refused(make: type, change: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        make(**change)


# Traits


@pytest.mark.parametrize(
    ("spec", "config"),
    [(spec, config) for spec, config, _ in ROWS] + [(parsenet.SPEC, ParseNetConfig()), (bisenet.SPEC, BiSeNetConfig())],
    ids=lambda value: getattr(value, "name", ""),
)
def test_operations_are_those_of_the_convolutions(spec: NetworkSpec, config: object) -> None:
    traits = spec.traits(config)
    height, width = traits.fixed_size or (512, 512)
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        spec.build(config).eval()(torch.zeros(1, 3, height, width))
    assert traits.operations == pytest.approx(counter.get_total_flops() / 2 / (height * width), rel=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (7, 2), (33, 64), (65, 97)])
def test_bisenet_takes_pictures_of_any_size(size: tuple[int, int]) -> None:
    y = lively(bisenet.SPEC.build(TINY_WIDE))(random_batch((2, 3, *size)))
    assert y.shape == (2, 19, *size)
    assert y.isfinite().all()


def test_classes_have_the_same_names_in_another_order() -> None:
    assert set(parsenet.CLASSES) == set(bisenet.CLASSES)
    for classes in (parsenet.CLASSES, bisenet.CLASSES):
        assert sorted(classes.values()) == list(range(19))
