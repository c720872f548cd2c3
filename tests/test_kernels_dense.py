"""A dense block's kernels: against hand, float64, and the network's own block; gradients as far as there are any."""

import pytest
import torch
from kernel_case import FLOATS, drawn
from kernel_cases_networks import cases_of, check_reference
from torch import Tensor
from torch.nn import functional as F

from restorer.kernels import choice
from restorer.kernels.dense_block import bias_leaky_into, scaled_residual
from restorer.networks import dense
from restorer.networks.dense import DenseBlock, DenseRows
from restorer.networks.esrgan import RRDB, ESRGANConfig
from restorer.networks.stages import passed


@pytest.mark.parametrize(
    "case", cases_of("bias_leaky_into", "scaled_residual"), ids=lambda case: case.name.replace(" ", "-")
)
def test_references_are_near_the_truth(case):
    check_reference(case)


def test_a_slice_of_channels_takes_the_result_and_the_others_stay():
    buffer = torch.full((1, 4, 1, 2), 7.0)
    x = torch.tensor([1.0, -2.0, 0.5, -0.5]).reshape(1, 2, 1, 2)
    bias_leaky_into(x, torch.tensor([0.5, -0.5]), buffer[:, 1:3], slope=0.2, gain=2)
    assert torch.equal(buffer.flatten(), torch.tensor([7, 7, 3, -0.6, 0, -0.4, 7, 7]))


def test_no_gradient_is_lost_without_a_word():
    with pytest.raises(RuntimeError, match="out="):
        bias_leaky_into(torch.zeros(1, 1, 2, 2, requires_grad=True), torch.zeros(1), torch.zeros(1, 1, 2, 2))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_a_dense_block_in_one_buffer_is_the_networks_own(memory_format):
    torch.manual_seed(0)
    block = DenseBlock(8, 4)
    x = drawn(2, 8, 9, 11, low=-1).contiguous(memory_format=memory_format)
    with torch.no_grad():
        torch.testing.assert_close(in_one_buffer(block, x), block(x), atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", FLOATS[1:], ids=str)
def test_a_residual_in_a_residual_is_the_networks_own(dtype):
    torch.manual_seed(0)
    rrdb = RRDB(ESRGANConfig(features=8, grow=4)).to(dtype)
    x = drawn(1, 8, 9, 11, low=-1)
    with torch.no_grad():
        y = in_one_buffer(rrdb.rdb2, in_one_buffer(rrdb.rdb1, x))
        torch.testing.assert_close(in_one_buffer(rrdb.rdb3, y, outer=x), rrdb(x), atol=1e-6, rtol=0)


def in_one_buffer(block: DenseBlock, x: Tensor, outer: Tensor | None = None) -> Tensor:
    """A dense block without one `cat`: how a network on a GPU would call the kernels."""
    features, grow = x.shape[1], block.conv1.out_channels
    weights = [getattr(block, f"conv{index}") for index in range(1, 6)]
    dtype = weights[0].weight.dtype
    shape = (x.shape[0], features + 4 * grow, *x.shape[2:])
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    buffer = torch.empty(shape, dtype=dtype, memory_format=torch.channels_last if last else torch.contiguous_format)
    buffer[:, :features] = x
    for index, conv in enumerate(weights[:4]):
        end = features + index * grow
        y = F.conv2d(buffer[:, :end], conv.weight, padding=1)
        bias_leaky_into(y, conv.bias, buffer[:, end : end + grow])
    return scaled_residual(x, weights[4](buffer), outer=outer)


@pytest.mark.parametrize("dtype", FLOATS[:2], ids=str)
@pytest.mark.parametrize("outer", [False, True])
def test_a_residual_is_rounded_once(dtype, outer):
    x, y, around = (drawn(1, 3, 5, 7, dtype=dtype, low=-1, seed=seed) for seed in (1, 2, 3))
    made = x.double() + 0.2 * y.double()
    made = around.double() + 0.2 * made if outer else made
    assert torch.equal(scaled_residual(x, y, outer=around if outer else None), made.to(dtype))


def test_a_wide_stream_stays_wide():
    x, y = torch.ones(1, 1, 1, 1), torch.full((1, 1, 1, 1), 2**-7, dtype=torch.bfloat16)
    assert scaled_residual(x, y, scale=0.5).item() == 1 + 2**-8  # which bfloat16 does not have
    assert scaled_residual(x, y, scale=0.5, outer=4 * x).item() == 4.5 + 2**-9


def test_a_result_may_be_written_over_its_input():
    x = torch.ones(1, 3, 2, 2)
    out = x[:, :2]
    assert scaled_residual(out, torch.full((1, 2, 2, 2), 5.0), out=out) is out
    assert x[0, :, 0, 0].tolist() == [2, 2, 1]


def test_residuals_hand_gradients_on():
    x, y, outer = (torch.ones(1, 1, 1, 1, requires_grad=True) for _ in range(3))
    scaled_residual(x, y, scale=0.5, outer=outer).backward()
    assert [each.grad.item() for each in (x, y, outer)] == [0.5, 0.25, 1]


@pytest.mark.parametrize("conv1x1", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_dense_block_by_kernels_makes_what_it_makes_without(conv1x1, dtype, monkeypatch):
    torch.manual_seed(0)
    block = DenseBlock(16, 8, conv1x1=conv1x1).to(dtype)
    for parameter in block.parameters():
        parameter.data.normal_(0, 0.2)
    x = torch.randn(2, 16, 9, 11)
    with torch.no_grad():
        plain, rows = block(x), list(passed([DenseRows(block)], x[:1], last=True))
        monkeypatch.setattr(dense, "uses_triton", lambda *named: True)
        ours, our_rows = block(x), list(passed([DenseRows(block)], x[:1], last=True))
    limit = 1e-6 if dtype == torch.float32 else 0.01  # on the mean: bfloat16 is rounded in other places
    assert (ours - plain).abs().mean() < limit * (plain - x).std()
    assert (our_rows[0][0] - rows[0][0]).abs().mean() < limit * (plain - x).std()


def test_three_dense_blocks_by_kernels_end_in_one_pass(monkeypatch):
    torch.manual_seed(0)
    three = RRDB(ESRGANConfig(features=16, grow=8, blocks=1))
    for parameter in three.parameters():
        parameter.data.normal_(0, 0.2)
    x = torch.randn(1, 16, 9, 11)
    with torch.no_grad():
        plain = three(x)
        monkeypatch.setattr(dense, "uses_triton", lambda *named: True)
        ended = []

        def added(*given, outer, **named):
            ended.append(outer)
            return scaled_residual(*given, outer=outer, **named)

        monkeypatch.setattr(dense, "scaled_residual", added)
        ours = three(x)
    assert [outer is x for outer in ended] == [False, False, True]
    assert (ours - plain).abs().mean() < 1e-6 * (plain - x).std()


def test_a_dense_block_learns_without_kernels(monkeypatch):
    monkeypatch.setattr(choice, "PROVEN", frozenset({"bias_leaky_into", "scaled_residual"}))
    block = DenseBlock(4, 2)
    block(torch.randn(1, 4, 5, 5)).sum().backward()
    assert block.conv1.weight.grad is not None
