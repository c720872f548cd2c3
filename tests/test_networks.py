"""Every row of cases.py is held to what its network promises; what cannot be loaded is refused by name."""

import copy
import importlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cases import CASES, Case, random_batch, random_network
from dialects import mid, ncnn, oldest
from torch import Tensor, nn

from restorer.errors import AmbiguousWeightsError, UnknownNameError, UnknownWeightsError, WeightsError
from restorer.networks import NETWORKS
from restorer.networks.compact import CompactConfig
from restorer.networks.esrgan import ESRGANConfig
from restorer.networks.layers import Conv, lower
from restorer.networks.spec import Traits, get_spec, load_weights
from restorer.networks.srgan import SRGANConfig

SHARED = Path(__file__).resolve().parents[2] / "shared"
HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}

each_case = pytest.mark.parametrize("case", CASES, ids=str)


def weights_of(case: Case) -> dict[str, Tensor]:
    return dict(random_network(case).state_dict())


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
    silent = [name for name, parameter in network.named_parameters() if not parameter.grad.abs().sum() > 0]
    assert silent == []


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
    assert (case.input[1], case.output[1]) == (traits.in_channels, traits.out_channels)
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


@each_case
@pytest.mark.parametrize("axis", [2, 3])
def test_radius_is_exactly_how_far_an_output_sees(case: Case, axis: int) -> None:
    network, traits = random_network(case).double(), get_spec(case.name).traits(case.config)
    assert measured_radius(network, traits, axis) == traits.radius


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


# Half precision


@each_case
@pytest.mark.parametrize("precision", HALVES)
def test_lowered_network_keeps_its_ends_and_its_quality(case: Case, precision: str) -> None:
    spec, network, x = get_spec(case.name), random_network(case), random_batch(case.input)
    assert precision in spec.traits(case.config).precisions
    with torch.no_grad():
        exact = network(x)
        lower(network, dtype=HALVES[precision], float_parts=spec.float_parts)
        y = network(x)
    assert y.dtype == torch.float32
    assert psnr(y, exact) >= case.bf16_db
    ends = [network.get_submodule(part).weight.dtype for part in spec.float_parts]
    assert ends == [torch.float32, torch.float32]
    dtypes = [module.weight.dtype for module in network.modules() if isinstance(module, Conv)]
    assert dtypes.count(HALVES[precision]) == len(dtypes) - 2


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


# Loading


@each_case
def test_every_missing_key_is_named(case: Case) -> None:
    whole = weights_of(case)
    for key in whole:
        if key.endswith("num_batches_tracked"):
            continue
        layer = key.rpartition(".")[0]
        with pytest.raises(WeightsError, match=rf"lack.*{layer}\b"):
            load_weights({other: tensor for other, tensor in whole.items() if other != key}, facts=case.facts)


@each_case
def test_extra_key_is_named(case: Case) -> None:
    weights = weights_of(case) | {"step_counter": torch.ones(1)}
    with pytest.raises(WeightsError, match=f"these {case.name} weights have 1 key too many \\(step_counter\\)"):
        load_weights(weights, facts=case.facts)


@each_case
def test_every_wrong_shape_is_refused(case: Case) -> None:
    whole = weights_of(case)
    for key, tensor in whole.items():
        if tensor.ndim == 0:
            continue
        with pytest.raises(WeightsError):
            load_weights(whole | {key: torch.cat([tensor, tensor, tensor])}, facts=case.facts)


def test_wrong_shape_is_named_with_both_shapes() -> None:
    whole = weights_of(CASES[0])
    with pytest.raises(WeightsError, match=r"conv_hr\.bias .* has shape \(9,\), expected \(8,\)"):
        load_weights(whole | {"conv_hr.bias": torch.zeros(9)})


def test_integers_are_refused() -> None:
    weights = weights_of(CASES[0])
    weights["conv_hr.weight"] = weights["conv_hr.weight"].to(torch.int8)
    with pytest.raises(WeightsError, match=r"conv_hr\.weight .* holds torch\.int8"):
        load_weights(weights)


def test_loaded_network_is_float32_and_at_rest() -> None:
    weights = weights_of(CASES[0])
    halved = {key: tensor.half() for key, tensor in weights.items()}
    network = load_weights(halved).network
    assert not network.training
    for key, parameter in network.named_parameters():
        assert parameter.dtype == torch.float32
        assert not parameter.requires_grad
        assert torch.equal(parameter, halved[key].float())


def test_batch_norm_without_its_counter_loads() -> None:
    case = next(case for case in CASES if case.name == "srgan")
    weights = weights_of(case)
    whole = load_weights(weights).network
    old = {key: tensor for key, tensor in weights.items() if not key.endswith("num_batches_tracked")}
    assert len(old) < len(weights)
    x = random_batch(case.input)
    assert torch.equal(load_weights(old).network(x), whole(x))


FOREIGN = {
    "nothing": [],
    "another kind": ["encoder.0.weight", "encoder.0.bias"],
    "EDSR": [
        "conv_first.weight",
        "body.0.conv1.weight",
        "conv_after_body.weight",
        "upsample.0.weight",
        "conv_last.bias",
    ],
    "a discriminator": ["conv0.weight", "conv0.bias", "conv1.weight_orig", "conv9.weight"],
    "a sequence with batch norm": [
        f"body.{place}.{part}" for place in (0, 1, 2, 3) for part in ("weight", "bias", "running_mean", "running_var")
    ],
}


@pytest.mark.parametrize("keys", FOREIGN.values(), ids=FOREIGN)
def test_foreign_weights_are_unknown_and_their_first_keys_shown(keys: list[str]) -> None:
    with pytest.raises(UnknownWeightsError) as caught:
        load_weights({key: torch.ones(4, 4, 3, 3) for key in keys})
    assert str(caught.value).startswith("no network recognises these weights (first keys: " + ", ".join(keys[:3]))


def test_relative_of_esrgan_with_much_more_in_it_is_unknown() -> None:
    weights = weights_of(CASES[0])
    weights |= {f"de_net.body.{index}.weight": torch.ones(1) for index in range(len(weights) // 4)}
    with pytest.raises(UnknownWeightsError):
        load_weights(weights)


def test_message_stays_one_line_whatever_the_keys_are() -> None:
    with pytest.raises(UnknownWeightsError) as caught:
        load_weights({"a\nb\x1b[31m": torch.ones(1), "x" * 10_000: torch.ones(1)})
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("index", [3, 999_999, 10**30])
def test_gap_between_blocks_is_refused(index: int) -> None:
    weights = {key.replace("body.1.", f"body.{index}."): tensor for key, tensor in weights_of(CASES[0]).items()}
    with pytest.raises(WeightsError, match=r"lack.*body\.1|too many"):
        load_weights(weights)


@pytest.mark.parametrize("place", [40, 10**6, 10**30])
def test_gap_in_the_chain_is_refused(place: int) -> None:
    weights = {key.replace("body.8.", f"body.{place}."): tensor for key, tensor in weights_of(CASES[7]).items()}
    with pytest.raises(WeightsError):
        load_weights(weights)


@pytest.mark.parametrize("shape", [(0, 3, 3, 3), (8, 3, 3, 1), (8, 3), ()])
def test_damaged_first_convolution_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(WeightsError, match=r"conv_first\.weight has shape"):
        load_weights(weights_of(CASES[0]) | {"conv_first.weight": torch.zeros(shape)})


def test_channels_that_make_no_whole_scale_are_refused() -> None:
    weights = weights_of(CASES[7]) | {"body.8.weight": torch.zeros(47, 8, 3, 3), "body.8.bias": torch.zeros(47)}
    with pytest.raises(
        WeightsError, match="these compact weights cannot be used: 47 channels cannot be shuffled into 3"
    ):
        load_weights(weights)


def test_two_dialects_in_one_file_are_refused() -> None:
    weights = weights_of(CASES[0])
    with pytest.raises(WeightsError, match="same layer under two names"):
        load_weights(weights | mid(weights))


# Facts


def silent_weights() -> dict[str, Tensor]:
    return weights_of(next(case for case in CASES if case.facts))


def test_silent_activation_is_asked_for() -> None:
    with pytest.raises(AmbiguousWeightsError, match="--fact activation=relu or --fact activation=leakyrelu"):
        load_weights(silent_weights())


@pytest.mark.parametrize("told", ["relu", "leakyrelu"])
def test_told_activation_is_used(told: str) -> None:
    assert load_weights(silent_weights(), facts={"activation": told}).config.activation == told


@pytest.mark.parametrize("told", ["prelu", "gelu", 3])
def test_activation_that_cannot_be_is_refused(told: object) -> None:
    with pytest.raises(WeightsError, match=f"activation={told} does not fit"):
        load_weights(silent_weights(), facts={"activation": told})


# Dialects


@pytest.mark.parametrize("case", [case for case in CASES if case.name == "esrgan"], ids=str)
@pytest.mark.parametrize("dialect", [mid, oldest])
def test_named_dialects_of_esrgan_load_to_the_same_output(case: Case, dialect: object) -> None:
    weights, x = weights_of(case), random_batch(case.input)
    foreign = dialect(weights)
    assert not set(foreign) & {key for key in weights if key.startswith("body.")}
    model = load_weights(foreign)
    assert model.config == case.config
    assert torch.equal(model.network(x), load_weights(weights).network(x))


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.name != "srgan" and not getattr(case.config, "conv1x1", False)], ids=str
)
def test_ncnn_layers_load_by_their_order(case: Case) -> None:
    weights, x = weights_of(case), random_batch(case.input)
    model = load_weights(ncnn(weights), facts=case.facts)
    assert (model.spec.name, model.config) == (case.name, case.config)
    assert torch.equal(model.network(x), load_weights(weights, facts=case.facts).network(x))


def test_missing_key_of_a_dialect_is_named() -> None:
    weights = oldest(weights_of(CASES[0]))
    del weights["model.3.bias"]
    with pytest.raises(WeightsError, match=r"lack 1 of 72 keys \(conv_up1\.bias\)"):
        load_weights(weights)


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


def test_lowering_leaves_the_original_alone_when_copied() -> None:
    network = random_network(CASES[0])
    lower(copy.deepcopy(network), dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
