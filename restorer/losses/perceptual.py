"""How far two pictures are apart for a network that recognises things (arXiv:1603.08155)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from restorer.losses.pixel import pixel_loss
from restorer.networks.features import Features


class Perceptual(nn.Module):
    """(N, C, H, W), same, in [0, 1] -> (): weighted sum over layers of the mean distance of their features.

    The second picture, the truth, is held still.
    """

    def __init__(self, features: Features, weights: Mapping[str, float], *, distance: str = "l1") -> None:
        """`weights` of each layer; `distance` is a name of `PIXEL_LOSSES`."""
        super().__init__()
        self.features, self.weights, self.distance = features, dict(weights), distance

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            truth = self.features(y)
        made = self.features(x)
        return torch.stack(
            [weight * pixel_loss(self.distance, made[layer], truth[layer]) for layer, weight in self.weights.items()]
        ).sum()


class Style(nn.Module):
    """(N, C, H, W), same, in [0, 1] -> (): weighted sum over layers of the L1 of their Gram matrices."""

    def __init__(self, features: Features, weights: Mapping[str, float]) -> None:
        super().__init__()
        self.features, self.weights = features, dict(weights)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            truth = {layer: gram(each) for layer, each in self.features(y).items()}
        made = self.features(x)
        return torch.stack(
            [weight * (gram(made[layer]) - truth[layer]).abs().mean() for layer, weight in self.weights.items()]
        ).sum()


def gram(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, C): how channels go together, over C*H*W (arXiv:1508.06576)."""
    with torch.autocast(x.device.type, enabled=False):
        flat = x.flatten(2).float()
        return flat @ flat.transpose(1, 2) / (x.shape[1] * flat.shape[2])
