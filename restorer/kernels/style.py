"""What follows a modulated convolution of a style-based network (arXiv:1912.04958), in one pass.

Letters: N batch, C channels, h w sides.
"""

from torch import Tensor
from torch.nn import functional as F

from restorer.kernels.choice import Impl, uses_triton


def noisy_leaky(
    x: Tensor,
    noise: Tensor,
    strength: Tensor,
    bias: Tensor,
    *,
    scales: Tensor | None = None,
    slope: float = 0.2,
    gain: float = 1.0,
    impl: Impl = "auto",
) -> Tensor:
    """(N, C, h, w), (1 or N, 1, h, w), (1,), (C,) -> (N, C, h, w): leaky(x * scales + strength * noise + bias) * gain.

    `scales` (N, C) takes the demodulation along. `gain` is sqrt(2) in the paper, and 1 where the weights hold it.
    """
    given = [each for each in (x, noise, strength, bias, scales) if each is not None]
    if uses_triton("noisy_leaky", impl, *given):
        from restorer.kernels.device import style

        return style.noisy_leaky(x, noise, strength, bias, scales, slope=slope, gain=gain)
    return _noisy_leaky(x, noise, strength, bias, scales, slope, gain)


def _noisy_leaky(
    x: Tensor, noise: Tensor, strength: Tensor, bias: Tensor, scales: Tensor | None, slope: float, gain: float
) -> Tensor:
    shift = (strength * noise + bias[None, :, None, None]).to(x.dtype)
    # a sum of its own would be one batch more in memory, while the caller still holds x
    y = x + shift if scales is None else (x * scales[:, :, None, None].to(x.dtype)).add_(shift)
    y = F.leaky_relu(y, slope, inplace=True)
    return y if gain == 1 else y * gain
