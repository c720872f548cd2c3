"""How far apart two pictures are for a network that recognises things; with learned weights of its channels, LPIPS.

Lower is better. Letters: N batch, C channels of a layer, h w its sides.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from restorer.errors import MissingPackageError, PictureError, WeightsError
from restorer.metrics.fidelity import Bytes
from restorer.networks.features import Features
from restorer.weights.feature_weights import LITE0, feature_weights
from restorer.weights.read import read_checkpoint

LEAST = 32
"""Pixels a side that every one of the networks can look at."""
LITE0_LAYERS = ("stem", "block2", "block4", "block8", "block14")
"""What `lite0` looks at: a layer of each size of EfficientNet-Lite0, from a half of the picture's to a 32nd."""
LPIPS_LAYERS: Mapping[str, Sequence[str]] = {
    "alexnet": ("relu1", "relu2", "relu3", "relu4", "relu5"),
    "vgg16": ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3"),
    "squeezenet1_1": ("relu1", "fire3", "fire5", "fire6", "fire7", "fire8", "fire9"),
}
_LPIPS_FILES = {"alexnet": "alex.pth", "vgg16": "vgg.pth", "squeezenet1_1": "squeeze.pth"}


class FeatureDistance:
    """Two pictures -> a number, 0 where they are equal."""

    def __init__(self, features: Features, channels: Mapping[str, Tensor] | None = None) -> None:
        """`channels` weighs those of each layer, (C,); without them they count alike."""
        self.features, self.channels = features, channels

    def __call__(self, x: Bytes, y: Bytes, *, border: int = 0) -> float:
        """(H, W, 1 or 3) uint8, same -> distance; `border` pixels at every edge are left out."""
        if min(x.shape[:2]) - 2 * border < LEAST:
            raise PictureError(f"distances of features need {LEAST} pixels a side inside the border of {border}")
        a, b = (_batch(each, border) for each in (x, y))
        with torch.no_grad():
            return float(self.measure(a, b))

    def measure(self, x: Tensor, y: Tensor) -> Tensor:
        """(N, 3, H, W), same, in [0, 1] -> (N,).

        In each layer, features of length one at each place, their squared difference, over places the mean and over
        channels the weighted sum (without weights, the sum); summed over layers (arXiv:1801.03924, equation 1).
        """
        seen, truth = self.features(x), self.features(y)
        distances = []
        for layer in self.features.layers:
            apart = (_unit(seen[layer]) - _unit(truth[layer])).square()  # (N, C, h, w)
            if self.channels is not None:
                apart = apart * self.channels[layer].view(1, -1, 1, 1)
            distances.append(apart.sum(1).mean((1, 2)))
        return torch.stack(distances).sum(0)


def lite0_features(layers: Sequence[str]) -> Features:
    """These layers of EfficientNet-Lite0, whose weights a package brings."""
    return Features("efficientnet_lite0", layers, read_checkpoint(feature_weights(LITE0)).weights)


def open_lite0() -> FeatureDistance:
    """By EfficientNet-Lite0; all channels count alike. It is not LPIPS."""
    return FeatureDistance(lite0_features(LITE0_LAYERS))


def open_lpips(network: str, *, trust_first_use: bool = False) -> FeatureDistance:
    """LPIPS 0.1 by alexnet, vgg16 or squeezenet1_1: the network by torchvision's address, channels by torchmetrics."""
    channels = lpips_channels(network)
    weights = read_checkpoint(feature_weights(f"{network}-imagenet", trust_first_use=trust_first_use)).weights
    return FeatureDistance(Features(network, LPIPS_LAYERS[network], weights), channels)


def lpips_channels(network: str) -> dict[str, Tensor]:
    """The learned weights of LPIPS 0.1 for the channels of each layer, from the file that torchmetrics brings."""
    try:
        from torchmetrics.functional.image import lpips
    except ImportError:
        raise MissingPackageError('metrics need extra packages: pip install "restorer[train]"') from None
    path = Path(str(lpips.__file__)).parent / "lpips_models" / _LPIPS_FILES[network]
    if not path.is_file():
        raise WeightsError(f"torchmetrics brings no {path.name} any more; install torchmetrics 1.x")
    learned = read_checkpoint(path).weights
    layers = LPIPS_LAYERS[network]
    return {layer: learned[f"lin{number}.model.1.weight"].flatten().float() for number, layer in enumerate(layers)}


def _unit(x: Tensor) -> Tensor:
    return x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)


def _batch(x: Bytes, border: int) -> Tensor:
    inside = x[border : x.shape[0] - border, border : x.shape[1] - border]
    batch = torch.from_numpy(inside.copy()).permute(2, 0, 1)[None].float() / 255
    return batch.expand(-1, 3, -1, -1)
