"""Engines: what is chosen and why, what is checked, and how errors come out."""

import logging
from dataclasses import replace

import pytest
import torch
from cases import CASES, random_network, traits_of
from torch import nn

from restorer import machine
from restorer.engines import open_engine
from restorer.engines.eager import EagerEngine
from restorer.engines.precision import choose_device, choose_precision, lowered
from restorer.engines.shared import psnr
from restorer.errors import OutOfMemoryError, RestorerError
from restorer.networks.layers import Conv, in_blocks
from restorer.networks.spec import Model, NetworkSpec, Traits

ALL = frozenset({"fp32", "fp16", "bf16"})
CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


def cpu_with(monkeypatch, *sets):
    here = replace(machine.look(), instruction_sets=frozenset(sets))
    monkeypatch.setattr(machine, "look", lambda: here)


@pytest.mark.parametrize(
    ("sets", "allowed", "dtype"),
    [
        (("avx2", "avx512_bf16"), ALL, torch.bfloat16),
        (("amx_bf16",), ALL, torch.bfloat16),
        (("avx2", "avx512f"), ALL, torch.float32),
        (("amx_bf16",), frozenset({"fp32", "fp16"}), torch.float32),
    ],
)
def test_on_a_processor_auto_takes_bf16_where_it_is_native_and_proven(monkeypatch, sets, allowed, dtype):
    cpu_with(monkeypatch, *sets)
    choice = choose_precision("auto", CPU, allowed)
    assert choice.dtype == dtype
    assert choice.why


def test_on_cuda_auto_takes_fp16_where_it_is_proven():
    assert choose_precision("auto", CUDA, ALL).dtype == torch.float16
    assert choose_precision("auto", CUDA, frozenset({"fp32"})).dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "device", "allowed", "words"),
    [("fp16", CPU, ALL, "auto, bf16 or fp32"), ("fp8", CPU, ALL, "fp8"), ("bf16", CUDA, frozenset({"fp32"}), "fp32")],
)
def test_a_precision_that_cannot_be_is_refused_with_the_cure(name, device, allowed, words):
    with pytest.raises(RestorerError, match=words):
        choose_precision(name, device, allowed)


@pytest.mark.parametrize(("name", "words"), [("tpu", "auto, cpu, cuda"), ("cuda:x", "auto, cpu, cuda")])
def test_a_device_of_no_kind_is_refused(name, words):
    with pytest.raises(RestorerError, match=words):
        choose_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_cuda_without_a_device_is_refused_with_the_cure():
    with pytest.raises(RestorerError, match="--device cpu"):
        choose_device("cuda")


class OneConv(nn.Module):
    """A convolution, and then whatever `after` does to what it gave."""

    def __init__(self, after=None):
        super().__init__()
        self.conv = Conv(3, 3)
        self.after = after or (lambda conv, y: y)
        nn.init.dirac_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)

    def forward(self, x):
        return self.after(self.conv, self.conv(x))


def model_of(network, **traits):
    facts = Traits(**{"radius": 1, "overlap": 1, "precisions": ALL, **traits})
    spec = NetworkSpec(
        name="one", task="upscale", config=object, build=lambda c: network, traits=lambda c: facts,
        detect=lambda w, f: False, read_config=lambda w, f: None,
    )  # fmt: skip
    return Model(spec=spec, config=None, network=network.eval().requires_grad_(False), traits=facts, facts={})


def half_only(spoil):
    return lambda conv, y: spoil(y) if conv.weight.dtype != torch.float32 else y


def test_a_half_precision_that_disagrees_is_given_up_loudly(caplog):
    network = OneConv(half_only(lambda y: y * 0.8))
    with caplog.at_level(logging.WARNING):
        engine = EagerEngine(model_of(network), device="cpu", precision="bf16")
    assert engine.dtype == torch.float32
    assert engine.run_again is None
    assert "disagrees with fp32" in caplog.text
    x = torch.rand(1, 3, 8, 8)
    assert torch.allclose(engine.run({"image": x})["image"], x, atol=1e-6)


def test_a_half_precision_that_overflows_is_given_up_too(caplog):
    with caplog.at_level(logging.WARNING):
        engine = EagerEngine(model_of(OneConv(half_only(lambda y: y / 0))), device="cpu", precision="bf16")
    assert engine.dtype == torch.float32
    assert "0 dB" in caplog.text


def test_a_half_precision_that_agrees_stays_and_can_be_run_again_in_float32():
    engine = EagerEngine(model_of(OneConv()), device="cpu", precision="bf16")
    assert engine.dtype == torch.bfloat16
    x = torch.rand(1, 3, 8, 8)
    rounded = engine.run({"image": x})["image"]
    assert torch.equal(rounded, x.bfloat16().float())
    assert torch.allclose(engine.run_again(x), x, atol=1e-6)
    assert engine.pixels_per_second > 0


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: not enough memory"),
    ],
)
def test_every_kind_of_memory_error_becomes_one(error):
    def fail(conv, y):
        raise error

    engine = EagerEngine(model_of(OneConv(fail)), device="cpu", precision="fp32", self_check=False)
    with pytest.raises(OutOfMemoryError):
        engine.run({"image": torch.rand(1, 3, 8, 8)})


def test_other_errors_stay_what_they_are():
    def fail(conv, y):
        raise RuntimeError("a kernel failed")

    engine = EagerEngine(model_of(OneConv(fail)), device="cpu", precision="fp32", self_check=False)
    with pytest.raises(RuntimeError, match="a kernel failed"):
        engine.run({"image": torch.rand(1, 3, 8, 8)})


def test_range_and_colour_order_are_the_networks_own():
    seen = []

    def look(conv, y):
        seen.append(y.clone())
        return y

    traits = {"value_range": (-1.0, 1.0), "channel_order": "bgr"}
    engine = EagerEngine(model_of(OneConv(look), **traits), device="cpu", precision="fp32", self_check=False)
    x = torch.rand(1, 3, 4, 4)
    y = engine.run({"image": x})["image"]
    assert torch.allclose(seen[0], x.flip(1) * 2 - 1, atol=1e-6)
    assert torch.allclose(y, x, atol=1e-6)


def test_engines_are_opened_by_name():
    assert open_engine(model_of(OneConv()), kind="eager", device="cpu").name == "eager"
    with pytest.raises(RestorerError, match="did you mean 'eager'"):
        open_engine(model_of(OneConv()), kind="eagr", device="cpu")


@pytest.mark.parametrize("case", [case for case in CASES if "bf16" in traits_of(case).precisions], ids=str)
def test_lowering_copies_and_leaves_the_model_as_it_was(case):
    from restorer.networks.spec import get_spec

    spec, network = get_spec(case.name), random_network(case)
    model = Model(spec=spec, config=case.config, network=network, traits=traits_of(case), facts={})
    low = lowered(model, torch.bfloat16)
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    assert torch.bfloat16 in {p.dtype for p in low.parameters()}
    for part in spec.float_parts(case.config):
        assert {p.dtype for p in low.get_submodule(part).parameters()} <= {torch.float32}


@pytest.mark.parametrize("size", [(50, 50), (33, 91), (17, 64), (100, 9)])
@pytest.mark.parametrize("scale", [1, 2])
def test_working_in_blocks_equals_working_in_one_go(size, scale):
    torch.manual_seed(0)
    convs = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(4, 5, 3, padding=1))
    part = nn.Sequential(convs, nn.Upsample(scale_factor=scale)) if scale > 1 else convs
    x = torch.randn(2, 4, *size)
    with torch.no_grad():
        whole, blocks = part(x), in_blocks(part, x, radius=2, side=16, scale=scale)
        less = in_blocks(part, x, radius=1, side=16, scale=scale)
    assert torch.allclose(blocks, whole, atol=1e-6)
    assert not torch.allclose(less, whole, atol=1e-6)


def test_blocks_are_not_used_where_gradients_flow():
    x = torch.randn(1, 1, 40, 40, requires_grad=True)
    in_blocks(lambda x: x * 2, x, radius=0, side=8).sum().backward()
    assert torch.equal(x.grad, torch.full_like(x, 2))


def test_psnr_is_the_textbooks():
    assert psnr(torch.zeros(1, 1, 2, 2), torch.full((1, 1, 2, 2), 0.1)) == pytest.approx(20.0, abs=1e-4)
    assert psnr(torch.zeros(4), torch.zeros(4)) == 200
    assert psnr(torch.zeros(4), torch.full((4,), float("nan"))) == 0
