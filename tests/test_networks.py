"""Every row of cases.py is held to what its network promises."""

import copy
import importlib
import subprocess
import sys
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cases import CASES, Case, random_batch, random_network
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from restorer.engines.shared import input_shape
from restorer.errors import UnknownNameError
from restorer.networks import NETWORKS
from restorer.networks.compact import Compact, CompactConfig
from restorer.networks.esrgan import ESRGANConfig
from restorer.networks.layers import Conv, ShuffleConv, lower
from restorer.networks.spec import Traits, get_spec, load_weights
from restorer.networks.srgan import SRGANConfig
from restorer.networks.style_layers import ModulatedConv

HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}

each_case = pytest.mark.parametrize("case", CASES, ids=str)
PAINTERS = [case for case in CASES if get_spec(case.name).traits(case.config).makes_pictures]
each_painter = pytest.mark.parametrize("case", PAINTERS, ids=str)


# The table


def test_table_is_read_without_torch() -> None:
    code = "import sys; from restorer.networks import NETWORKS; assert NETWORKS; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).resolve().parents[1])


@pytest.mark.parametrize("name", NETWORKS)
def test_every_name_has_its_module_and_its_row(name: str) -> None:
    assert importlib.import_module(f"restorer.networks.{name}").SPEC.name == name
    assert any(case.name == name for case in CASES)


def test_unknown_network_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'esrgan'"):
        get_spec("esrgam")


# The rows


@each_case
def test_output_has_the_promised_shape(case: Case) -> None:
    assert random_network(case)(random_batch(case.input)).shape == case.output


@each_case
def test_every_parameter_gets_a_gradient(case: Case) -> None:
    network = random_network(case)
    network(random_batch(case.input)).square().mean().backward()
    silent = [name for name, each in network.named_parameters() if each.grad is None or not each.grad.abs().sum() > 0]
    assert [name for name in silent if not name.startswith(case.unused)] == []


@each_case
def test_weights_find_their_network_and_config(case: Case) -> None:
    network = random_network(case)
    model = load_weights(network.state_dict(), facts=case.facts)
    assert (model.spec.name, model.config, model.facts) == (case.name, case.config, case.facts)
    x = random_batch(case.input)
    assert torch.equal(model.network(x), network(x))


@each_case
def test_traits_tell_the_truth_about_sides_and_channels(case: Case) -> None:
    network, traits = random_network(case), get_spec(case.name).traits(case.config)
    assert case.input[1] == traits.latent or traits.in_channels
    if not traits.makes_pictures:
        return
    assert case.output[1] == traits.out_channels
    if traits.fixed_size is not None:
        assert case.output[2:] == traits.fixed_size
        return
    for blocks in (1, 2, 5):
        side = max(traits.min_side, blocks * traits.multiple_of)
        y = network(random_batch((1, traits.in_channels, side, side + traits.multiple_of)))
        assert y.shape[2:] == (traits.scale * side, traits.scale * (side + traits.multiple_of))
        assert y.isfinite().all()


@pytest.mark.parametrize("scale", [1, 2])
def test_other_sides_than_multiples_do_not_work(scale: int) -> None:
    config = ESRGANConfig(scale=scale, features=4, grow=2, blocks=1)
    multiple = get_spec("esrgan").traits(config).multiple_of
    with pytest.raises(RuntimeError, match="divisible"):
        get_spec("esrgan").build(config)(torch.zeros(1, 3, multiple, multiple + 1))


@each_painter
@pytest.mark.parametrize("axis", [2, 3])
def test_radius_is_exactly_how_far_an_output_sees(case: Case, axis: int) -> None:
    network, traits = random_network(case).double(), get_spec(case.name).traits(case.config)
    if traits.radius is None:
        assert sees_everything(network, case.input)
    else:
        assert measured_radius(network, traits, axis) == traits.radius


def sees_everything(network: nn.Module, shape: tuple[int, ...]) -> bool:
    """Whether a corner of what comes out depends on all that goes in."""
    x = random_batch((1, *shape[1:])).double().requires_grad_()
    network(x)[0, :, 0, 0].sum().backward()
    return bool((x.grad != 0).all())


def measured_radius(network: nn.Module, traits: Traits, axis: int) -> int:
    """The largest distance between an input pixel in the middle and another that its outputs depend on."""
    multiple = traits.multiple_of
    middle = -(-(traits.radius + 2) // multiple) * multiple
    sides = [4 * multiple, 4 * multiple]
    sides[axis - 2] = 2 * middle + multiple
    x = random_batch((1, traits.in_channels, *sides)).double().requires_grad_()
    y = network(x)
    mixture = random_batch(tuple(y.shape), seed=2).double()
    farthest = 0
    for pixel in range(middle, middle + multiple):
        seen = (y * mixture).narrow(axis, pixel * traits.scale, traits.scale).sum()
        (gradient,) = torch.autograd.grad(seen, x, retain_graph=True)
        reached = gradient.abs().amax(dim=[d for d in range(4) if d != axis]).nonzero()
        farthest = max(farthest, int((reached - pixel).abs().max()))
    return farthest


@each_case
def test_planned_values_cover_what_is_held_at_once(case: Case) -> None:
    traits = get_spec(case.name).traits(case.config)
    with torch.device("meta"):
        height, width = traits.fixed_size or (64, 64)
        network, x = get_spec(case.name).build(case.config).eval(), torch.zeros(input_shape(traits, 1, (64, 64)))
    with torch.no_grad(), HeldValues() as held:
        network(x)
    assert held.peak / (height * width) <= traits.values_per_pixel <= 2 * held.peak / (height * width)


class HeldValues(TorchDispatchMode):
    """The most numbers that live results of operations held at one time."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: list[weakref.ref[Tensor]] = []
        self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # torch's signature
        out = func(*args, **(kwargs or {}))
        new = [weakref.ref(leaf) for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        self.alive = [ref for ref in self.alive if ref() is not None] + new
        storages = {
            t.untyped_storage()._cdata: t.untyped_storage().nbytes() // 4 for ref in self.alive for t in [ref()]
        }
        self.peak = max(self.peak, sum(storages.values()))
        return out


# Half precision


@each_painter
@pytest.mark.parametrize("precision", HALVES)
def test_lowered_network_keeps_its_ends_and_its_quality(case: Case, precision: str) -> None:
    spec, network, x = get_spec(case.name), random_network(case), random_batch(case.input)
    kept = spec.float_parts(case.config)
    assert precision in spec.traits(case.config).precisions
    with torch.no_grad():
        exact = network(x)
        lower(network, dtype=HALVES[precision], float_parts=kept)
        y = network(x)
    assert y.dtype == torch.float32
    assert psnr(y, exact) >= case.bf16_db
    ends = [module.weight.dtype for part in kept for module in convs_of(network.get_submodule(part))]
    assert set(ends) == {torch.float32}
    dtypes = [module.weight.dtype for module in convs_of(network)]
    assert dtypes.count(HALVES[precision]) == len(dtypes) - len(ends) > 0


def convs_of(module: nn.Module) -> list[Conv]:
    return [inner for inner in module.modules() if isinstance(inner, Conv)]


@each_case
@pytest.mark.parametrize("precision", HALVES)
def test_network_that_is_half_throughout_stays_half(case: Case, precision: str) -> None:
    half = HALVES[precision]
    with torch.no_grad():
        y = random_network(case).to(half)(random_batch(case.input).to(half))
    assert y.dtype == half
    assert y.isfinite().all()


def psnr(y: Tensor, exact: Tensor) -> float:
    """dB, with the range of `exact` as the peak."""
    return float(10 * torch.log10((exact.max() - exact.min()) ** 2 / (y - exact).square().mean()))


# Configs


@pytest.mark.parametrize(
    ("config", "change", "reason"),
    [
        (ESRGANConfig(), {"scale": 3}, "scale must be"),
        (ESRGANConfig(), {"scale": 8}, "scale must be"),
        (ESRGANConfig(), {"upsamples": 4, "scale": 2}, "scale must be"),
        (ESRGANConfig(), {"upsamples": 6}, "upsamples must be"),
        (ESRGANConfig(), {"blocks": 0}, "blocks must be at least 1, got 0"),
        (CompactConfig(), {"convs": 0}, "convs must be at least 1, got 0"),
        (SRGANConfig(), {"scale": 6}, "scale must be"),
        (SRGANConfig(), {"form": "papers"}, "form must be one of paper, tanh"),
    ],
)
def test_config_that_makes_no_network_is_refused(config: object, change: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        replace(config, **change)


def test_traits_refuse_an_unknown_precision() -> None:
    with pytest.raises(ValueError, match="fp8"):
        Traits(radius=1, overlap=1, precisions=frozenset({"fp8"}))


# Published figures: gans.md, from the authors' repositories


@pytest.mark.parametrize(
    ("name", "config", "count"),
    [
        ("esrgan", ESRGANConfig(), 16_697_987),
        ("esrgan", ESRGANConfig(scale=2), 16_703_171),
        ("esrgan", ESRGANConfig(blocks=6), 4_467_779),
        ("compact", CompactConfig(), 621_424),
        ("compact", CompactConfig(convs=32), 1_213_296),
        ("srgan", SRGANConfig(form="plain"), 1_517_571),
    ],
)
def test_parameter_counts_are_the_published_ones(name: str, config: object, count: int) -> None:
    with torch.device("meta"):
        network = get_spec(name).build(config)
    assert sum(parameter.numel() for parameter in network.parameters()) == count


@pytest.mark.parametrize(
    ("name", "config", "count"),
    [
        ("esrgan", ESRGANConfig(), 17_926_848),
        ("esrgan", ESRGANConfig(blocks=6), 5_706_432),
        ("compact", CompactConfig(), 619_200),
        ("compact", CompactConfig(scale=2), 598_464),
        ("compact", CompactConfig(convs=32), 1_209_024),
        ("srgan", SRGANConfig(), 2_218_176),
        ("srgan", SRGANConfig(form="plain"), 2_536_128),
    ],
)
def test_operations_are_those_worked_by_hand(name: str, config: object, count: int) -> None:
    assert get_spec(name).traits(config).operations == count


@each_painter
def test_operations_are_those_of_the_convolutions(case: Case) -> None:
    network, counts = random_network(case), []
    for module in network.modules():
        if isinstance(module, Conv):
            module.register_forward_hook(lambda conv, x, y: counts.append(work(conv, x[0], y)))
    network(random_batch(case.input)[:1])
    traits = get_spec(case.name).traits(case.config)
    height, width = traits.fixed_size or case.input[2:]
    assert traits.operations == sum(counts) / (height * width)


def work(conv: Conv, x: Tensor, y: Tensor) -> int:
    """Multiplications: weights times the pixels that they meet."""
    few = isinstance(conv, ShuffleConv) or (isinstance(conv, ModulatedConv) and conv.up == "fir")
    return conv.weight.numel() * (x if few else y)[0, 0].numel()


def test_lowering_leaves_the_original_alone_when_copied() -> None:
    network = random_network(CASES[0])
    lower(copy.deepcopy(network), dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


def test_gradients_pass_the_whole_chain_of_a_fresh_compact_network():
    """Trained from scratch, its first convolution must learn too."""
    torch.manual_seed(0)
    network = Compact(CompactConfig())
    x = torch.rand(2, 3, 16, 16)
    (network(x) - torch.rand(2, 3, 64, 64)).abs().mean().backward()
    norms = [layer.weight.grad.norm() for layer in network.body if isinstance(layer, nn.Conv2d)]
    assert 0.01 < norms[0] / norms[-1] < 100
