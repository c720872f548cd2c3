"""The ends of a dense block's convolutions: what comes out goes straight to its place among the channels, once.

A dense block reads all that it made so far. In one buffer of F+4G channels nothing is ever put together again: each
convolution reads the first so many channels, and `bias_leaky_into` writes its result behind them. `scaled_residual`
is the block's end. Letters: N batch, F features, G growth, C channels, h w sides.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from restorer.kernels.choice import Impl, uses_triton


def bias_leaky_into(
    x: Tensor, bias: Tensor, out: Tensor, *, slope: float = 0.2, gain: float = 1.0, impl: Impl = "auto"
) -> None:
    """(N, G, h, w), (G,) -> written into `out` (N, G, h, w): leaky_relu(x + bias) * gain, in `out`'s dtype.

    `out` may be a slice of the channels of a larger batch, in either memory format. No gradient goes through it.
    """
    if uses_triton("bias_leaky_into", impl, x, bias, out):
        from restorer.kernels.device import dense_block

        dense_block.bias_leaky_into(x, bias, out, slope=slope, gain=gain)
    else:
        _bias_leaky_into(x, bias, out, slope, gain)


def _bias_leaky_into(x: Tensor, bias: Tensor, out: Tensor, slope: float, gain: float) -> None:
    torch.add(x, bias[:, None, None], out=out)
    F.leaky_relu(out, slope, inplace=True)
    if gain != 1:
        out.mul_(gain)


def scaled_residual(
    x: Tensor,
    y: Tensor,
    *,
    scale: float = 0.2,
    outer: Tensor | None = None,
    out: Tensor | None = None,
    impl: Impl = "auto",
) -> Tensor:
    """(N, C, h, w), same -> same: x + scale * y; with `outer` outer + scale * (x + scale * y), all in x's dtype.

    The sums are float32. `out`, which may be a slice of channels and may be `x` itself, takes the result; None makes a
    new batch.
    """
    given = [each for each in (x, y, outer, out) if each is not None]
    if uses_triton("scaled_residual", impl, *given):
        from restorer.kernels.device import dense_block

        out = torch.empty_like(x) if out is None else out
        dense_block.scaled_residual(x, y, outer, out, scale=scale)
        return out
    result = _scaled_residual(x, y, scale, outer)
    return result if out is None else out.copy_(result)


def _scaled_residual(x: Tensor, y: Tensor, scale: float, outer: Tensor | None) -> Tensor:
    wide = x.float() if x.device.type == "cpu" else x  # on a processor `scale` would be rounded to half precision too
    inner = torch.add(wide, y, alpha=scale)
    return (inner if outer is None else torch.add(outer, inner, alpha=scale)).to(x.dtype)
