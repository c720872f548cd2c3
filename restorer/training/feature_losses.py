"""The losses of a recipe that look through a frozen network."""

from dataclasses import dataclass

from torch import nn

from restorer.errors import unknown_name
from restorer.losses.perceptual import Perceptual, Style
from restorer.losses.pixel import PIXEL_LOSSES
from restorer.networks.features import Features, get_backbone
from restorer.weights.feature_weights import feature_weights
from restorer.weights.read import read_checkpoint


@dataclass(frozen=True, kw_only=True)
class FeatureConfig:
    """The frozen network that perceptual and style losses look through."""

    network: str = "vgg19"
    """A name of `BACKBONES`."""
    weights: str = "vgg19-imagenet"
    """vgg19-imagenet, efficientnet-lite0-imagenet, or a file of such weights under torchvision's names."""
    layers: tuple[tuple[str, float], ...] = (("conv5_4", 1.0),)
    """Layer and its weight."""
    distance: str = "l1"
    """A name of `PIXEL_LOSSES`."""

    def __post_init__(self) -> None:
        if not self.layers:
            raise ValueError("layers must name at least one layer and its weight")
        if self.distance not in PIXEL_LOSSES:
            raise unknown_name("pixel loss", self.distance, PIXEL_LOSSES)
        known = get_backbone(self.network).layers
        for layer, _ in self.layers:
            if layer not in known:
                raise unknown_name(f"layer of {self.network}", layer, known)


def open_features(config: FeatureConfig, *, trust_first_use: bool = False) -> Features:
    """The frozen network of a recipe, cut after the last layer that counts."""
    layers = [layer for layer, _ in config.layers]
    path = feature_weights(config.weights, trust_first_use=trust_first_use)
    return Features(config.network, layers, read_checkpoint(path).weights)


def looking_through(
    config: FeatureConfig, *, perceptual: float, style: float, trust_first_use: bool = False
) -> dict[str, nn.Module]:
    """The losses that look through a recipe's features, with these weights; zero leaves one out."""
    if not perceptual and not style:
        return {}
    features = open_features(config, trust_first_use=trust_first_use)
    losses: dict[str, nn.Module] = {}
    if perceptual:
        weights = {layer: perceptual * each for layer, each in config.layers}
        losses["perceptual"] = Perceptual(features, weights, distance=config.distance)
    if style:
        losses["style"] = Style(features, {layer: style * each for layer, each in config.layers})
    return losses
