"""StyleGAN2's kernels: against hand and float64, with the gradients of gradients that its penalties need."""

import pytest
import torch
from kernel_cases_networks import WAYS, cases_of, check_reference, filtered
from torch.autograd import gradcheck, gradgradcheck

from restorer.kernels.style import noisy_leaky
from restorer.kernels.upfirdn2d import upfirdn2d
from restorer.networks.style_layers import StyleConv, doubled, halved

each_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: f"up{way[1]}-down{way[2]}-of{way[0][0]}x{way[0][1]}")


def drawn64(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("case", cases_of("noisy_leaky", "upfirdn2d"), ids=lambda case: case.name.replace(" ", "-"))
def test_references_are_near_the_truth(case):
    check_reference(case)


def test_noise_bias_and_gain_come_in_their_order():
    """2 * 1 - 3 + 0.5 is -0.5, a fifth of which is doubled; 2 * 4 - 3 + 0.5 is 5.5."""
    x, noise = torch.tensor([1.0, 4.0]).reshape(1, 1, 1, 2), torch.full((1, 1, 1, 2), 3.0)
    scales, strength, bias = torch.tensor([[2.0]]), torch.tensor([-1.0]), torch.tensor([0.5])
    made = noisy_leaky(x, noise, strength, bias, scales=scales, gain=2)
    torch.testing.assert_close(made.flatten(), torch.tensor([-0.2, 11.0]))


@pytest.mark.parametrize("gain", [1.0, 2**0.5])
def test_noise_has_gradients_of_gradients(gain):
    shapes = ((2, 3, 2, 2), (2, 1, 2, 2), (1,), (3,), (2, 3))
    inputs = [drawn64(*shape).requires_grad_() for shape in shapes]

    def call(x, noise, strength, bias, scales):
        return noisy_leaky(x, noise, strength, bias, scales=scales, gain=gain)

    assert gradcheck(call, inputs)
    assert gradgradcheck(call, inputs)


@each_way
@pytest.mark.parametrize("size", [(6, 7), (5, 4)])
def test_filters_do_what_they_are_told(way, size):
    taps, up, down, pad = way
    x, kernel = drawn64(2, 3, *size), drawn64(*taps)
    expected = filtered(x.numpy(), kernel.numpy(), up, down, pad)
    made = upfirdn2d(x, kernel, up=up, down=down, pad=pad)
    torch.testing.assert_close(made, torch.from_numpy(expected), atol=1e-12, rtol=0)


@each_way
def test_filters_have_gradients_of_gradients(way):
    taps, up, down, pad = way
    x, kernel = drawn64(1, 2, 5, 4).requires_grad_(), drawn64(*taps).requires_grad_()

    def call(x, kernel):
        return upfirdn2d(x, kernel, up=up, down=down, pad=pad)

    assert gradcheck(call, (x, kernel))
    assert gradgradcheck(call, (x, kernel))


def test_a_point_shows_the_filter_the_right_way_round():
    taps = torch.arange(16.0).reshape(4, 4)
    point = torch.zeros(1, 1, 7, 7)
    point[0, 0, 3, 3] = 1
    assert torch.equal(upfirdn2d(point, taps)[0, 0], taps)
    assert upfirdn2d(torch.ones(1, 1, 1, 1), taps, up=2, pad=(2, 1, 2, 1))[0, 0].tolist() == [[5, 6], [9, 10]]


def test_what_is_smaller_than_its_filter_is_refused():
    with pytest.raises(ValueError, match=r"sides \(2, 9\) with pad \(0, 0, 0, 1\) are less than the filter's \(4, 4\)"):
        upfirdn2d(torch.zeros(1, 1, 2, 9), torch.ones(4, 4), pad=(0, 0, 0, 1))
    with pytest.raises(ValueError, match="up and down must be 1 or more, got 1 and 0"):
        upfirdn2d(torch.zeros(1, 1, 9, 9), torch.ones(4, 4), down=0)


def test_doubling_and_halving_keep_what_is_even():
    """Away from the border, where zeros come in; on a slope, a half pixel is a quarter step to either side."""
    even = torch.full((1, 2, 8, 8), 0.7)
    assert torch.allclose(doubled(even, "fir")[:, :, 2:-2, 2:-2], torch.tensor(0.7))
    assert torch.allclose(halved(even, "fir")[:, :, 1:-1, 1:-1], torch.tensor(0.7))
    slope = torch.arange(8.0).expand(1, 1, 8, 8)
    assert torch.allclose(doubled(slope, "fir")[0, 0, 8, 2:8], torch.tensor([0.75, 1.25, 1.75, 2.25, 2.75, 3.25]))
    assert torch.allclose(halved(slope, "fir")[0, 0, 2, 1:3], torch.tensor([2.5, 4.5]))


def test_a_style_is_a_kernel_for_each_picture():
    """Equation 1 to 3 of arXiv:1912.04958, a picture at a time; the activation's gain is in the weights here."""
    torch.manual_seed(0)
    layer = StyleConv(4, 6, 5).double()
    layer.noise_strength.data.fill_(0.3)
    layer.bias.data.uniform_(-0.5, 0.5)
    x, style, noise = drawn64(3, 4, 5, 7), drawn64(3, 5), drawn64(1, 1, 5, 7)
    made = layer(x, style, noise)
    for n in range(3):  # float32 scales it back
        kernel = layer.conv.weight * layer.modulation(style[n])[None, :, None, None]
        kernel = 2**0.5 * kernel / kernel.square().sum((1, 2, 3), keepdim=True).sqrt()
        y = torch.nn.functional.conv2d(x[n : n + 1], kernel, padding=1) + 0.3 * noise + layer.bias[:, None, None]
        torch.testing.assert_close(made[n : n + 1], torch.maximum(y, 0.2 * y), atol=1e-5, rtol=0)
