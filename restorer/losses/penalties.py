"""What keeps a discriminator smooth: gradient penalties, and the clipping that came before them."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

Judge = Callable[[Tensor], Tensor | Sequence[Tensor]]
"""A discriminator: (N, C, H, W) -> logits of any shape, one or several."""


def gradient_square(logits: Tensor | Sequence[Tensor], x: Tensor) -> Tensor:
    """(N, ...), (N, C, H, W) -> (): half the mean over N of ||d sum(logits) / dx||^2, over all of C, H and W.

    On real pictures this is R1, on fakes R2 (arXiv:1801.04406); times gamma. `x` must have taken part with gradients.
    """
    return _gradients(logits, x).square().sum(dim=1).mean() / 2


def zero_centred(judge: Judge, x: Tensor) -> Tensor:
    """judge, (N, C, H, W) -> (): R1 where x is real, R2 where it is fake: `gradient_square` at x."""
    at = x.detach().requires_grad_(True)
    return gradient_square(judge(at), at)


def one_centred(judge: Judge, real: Tensor, fake: Tensor, rng: torch.Generator) -> Tensor:
    """judge, (N, C, H, W), same -> (): mean of (||d logits / dx|| - 1)^2 between real and fake; WGAN-GP.

    One place on each line from real to fake, drawn evenly; the norm is over all of C, H and W (arXiv:1704.00028).
    """
    place = torch.rand(len(real), 1, 1, 1, generator=rng, device=rng.device).to(real)
    at = torch.lerp(real.detach(), fake.detach(), place).requires_grad_(True)
    norm = torch.linalg.vector_norm(_gradients(judge(at), at), dim=1)
    return (norm - 1).square().mean()


@torch.no_grad()
def clip_weights(network: nn.Module, limit: float = 0.01) -> None:
    """Cut every parameter to [-limit, limit], as WGAN does before each turn of its critic (arXiv:1701.07875)."""
    for parameter in network.parameters():
        parameter.clamp_(-limit, limit)


def _gradients(logits: Tensor | Sequence[Tensor], x: Tensor) -> Tensor:
    """-> (N, C*H*W), itself differentiable."""
    several = [logits] if isinstance(logits, Tensor) else logits
    total = torch.stack([each.float().sum() for each in several]).sum()
    (gradient,) = torch.autograd.grad(total, x, create_graph=True)
    return gradient.flatten(1).float()
