"""How far two sets of pictures are apart: Fréchet-lite0 and kernel-lite0, of features of EfficientNet-Lite0.

The formulas are FID's (arXiv:1706.08500) and KID's (arXiv:1801.01401), but the network is another, and it looks at the
pictures in their own size: numbers of one size compare with each other, never with published ones. Lower is better.

Letters: N M pictures of two sets, D features of one picture.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from restorer.errors import DataError
from restorer.metrics.features import lite0_features
from restorer.networks.features import Features

LAYER = "block16"
"""The last one, of 320 channels, each pixel of which stands for 32x32 of the picture."""
_AT_ONCE = 16


def open_pooled() -> Features:
    """EfficientNet-Lite0, whose weights a package brings, up to its last layer."""
    return lite0_features((LAYER,))


def pooled_features(pictures: Tensor, features: Features) -> Tensor:
    """(N, 3 or 1, H, W) in [0, 1] -> (N, D): the mean over places of the deepest of the layers that are looked at."""
    deepest = max(features.layers, key=lambda layer: features.layers[layer])
    with torch.no_grad():
        return torch.cat([features(part)[deepest].mean((2, 3)) for part in pictures.split(_AT_ONCE)])


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """(N, D), (M, D) -> |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)): how far Gaussians fitted to both are apart.

    Few pictures make it larger: compare sets of the same sizes, or use `kernel_distance`.
    """
    a, b = _checked(a, b)
    (root_a, spread_a), (root_b, spread_b) = _root_of_covariance(a), _root_of_covariance(b)
    # the root of C_a C_b has the trace of that of C_a^(1/2) C_b C_a^(1/2): the singular values of C_a^(1/2) C_b^(1/2)
    shared = torch.linalg.svdvals(root_a @ root_b).sum()
    return float((a.mean(0) - b.mean(0)).square().sum() + spread_a + spread_b - 2 * shared)


def kernel_distance(a: Tensor, b: Tensor) -> float:
    """(N, D), (M, D) -> squared maximum mean discrepancy by the kernel (x.y / D + 1)^3, estimated without bias.

    It is 0 on average for sets of one source, whatever their sizes, and so below 0 as often as above.
    """
    a, b = _checked(a, b)
    return float(_mean_of_pairs(a) + _mean_of_pairs(b) - 2 * _kernel(a, b).mean())


DISTANCES: Mapping[str, Callable[[Tensor, Tensor], float]] = {
    "frechet_lite0": frechet_distance,
    "kernel_lite0": kernel_distance,
}
"""By name, of what `pooled_features` gives of two sets."""


def _checked(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """In float64."""
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"expected features (N, D) and (M, D), got {tuple(a.shape)} and {tuple(b.shape)}")
    if min(len(a), len(b)) < 2:
        raise DataError(f"a distance of sets needs at least 2 pictures in each, got {len(a)} and {len(b)}")
    return a.double(), b.double()


def _root_of_covariance(x: Tensor) -> tuple[Tensor, Tensor]:
    """(N, D) -> the symmetric root (D, D) of the covariance, and the covariance's trace."""
    covariance = torch.cov(x.T, correction=1).reshape(x.shape[1], x.shape[1])
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp(min=0).sqrt() @ vectors.T, covariance.trace()


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    """(N, D), (M, D) -> (N, M)."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def _mean_of_pairs(x: Tensor) -> Tensor:
    """(N, D) -> (): the kernel's mean over pairs of different pictures; each with itself would be the bias."""
    kernel = _kernel(x, x)
    return (kernel.sum() - kernel.trace()) / (len(x) * (len(x) - 1))
