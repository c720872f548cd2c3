"""What a loss must know of the whole batch when processes share it."""

import torch
from torch import Tensor, distributed


def processes() -> int:
    """How many share the batch."""
    is_shared = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if is_shared else 1


def batch_mean(x: Tensor, dim: int | None = None) -> Tensor:
    """(N, ...) -> (), or (...) with dim 0: the mean, and that over every process where several share the batch.

    Gradients flow to all of them: averaged over processes they are those of one process with the whole batch. Every
    process must call it equally often, with equally large shares.
    """
    mean = x.mean() if dim is None else x.mean(dim)
    return mean if processes() == 1 else _Sum.apply(mean) / processes()


class _Sum(torch.autograd.Function):
    """Sum over processes; so is the gradient."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        total = x.detach().clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        distributed.all_reduce(total)
        return total
