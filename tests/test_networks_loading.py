"""Weights find their network in every dialect; what cannot be loaded is refused by name."""

import pytest
import torch
from cases import CASES, Case, random_batch, random_network
from dialects import mid, ncnn, oldest
from torch import Tensor

from restorer.errors import AmbiguousWeightsError, UnknownWeightsError, WeightsError
from restorer.networks.spec import load_weights

each_case = pytest.mark.parametrize("case", CASES, ids=str)


def weights_of(case: Case) -> dict[str, Tensor]:
    return dict(random_network(case).state_dict())


@each_case
def test_every_missing_key_is_named(case: Case) -> None:
    whole = weights_of(case)
    for key in some_of(whole):
        if key.endswith("num_batches_tracked"):
            continue
        layer = key.rpartition(".")[0]
        with pytest.raises(WeightsError, match=rf"lack.*{layer}\b"):
            load_weights({other: tensor for other, tensor in whole.items() if other != key}, facts=case.facts)


def some_of(weights: dict[str, torch.Tensor]) -> list[str]:
    """All of up to 100 keys, and of many as many from beginning to end."""
    keys = list(weights)
    return keys[:: -(-len(keys) // 100)]


@each_case
def test_extra_key_is_named(case: Case) -> None:
    weights = weights_of(case) | {"step_counter": torch.ones(1)}
    with pytest.raises(WeightsError, match=f"these {case.name} weights have 1 key too many \\(step_counter\\)"):
        load_weights(weights, facts=case.facts)


@each_case
def test_every_wrong_shape_is_refused(case: Case) -> None:
    whole = weights_of(case)
    for key in some_of(whole):
        tensor = whole[key]
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


@pytest.mark.parametrize(("index", "slope"), [(0, 0.1), (10, 0.2), (10, "steep")])
def test_slope_of_another_network_is_refused(index: int, slope: object) -> None:
    case = CASES[index]
    with pytest.raises(WeightsError, match=f"slope of {slope}"):
        load_weights(weights_of(case), facts={**case.facts, "slope": slope})


def test_own_slope_is_welcome() -> None:
    assert load_weights(weights_of(CASES[0]), facts={"activation": "leakyrelu", "slope": 0.2}).spec.name == "esrgan"


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
    "case",
    [case for case in CASES if case.name in ("esrgan", "compact") and not getattr(case.config, "conv1x1", False)],
    ids=str,
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
