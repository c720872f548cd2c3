"""The losses of a recipe that look through a frozen network."""

from restorer.losses.perceptual import Perceptual, Style
from restorer.networks.features import Features
from restorer.training.recipe import FeatureConfig
from restorer.weights.feature_weights import feature_weights
from restorer.weights.read import read_checkpoint


def open_features(config: FeatureConfig, *, trust_first_use: bool = False) -> Features:
    """The frozen network of a recipe, cut after the last layer that counts."""
    layers = [layer for layer, _ in config.layers]
    path = feature_weights(config.weights, trust_first_use=trust_first_use)
    return Features(config.network, layers, read_checkpoint(path).weights)


def losses_of(
    features: Features, config: FeatureConfig, *, perceptual: float, style: float
) -> dict[str, Perceptual | Style]:
    """The losses that look through `features`, with these weights; zero leaves one out."""
    scaled = {name: {layer: weight * each for layer, each in config.layers} for name, weight in
              (("perceptual", perceptual), ("style", style))}  # fmt: skip
    losses: dict[str, Perceptual | Style] = {}
    if perceptual:
        losses["perceptual"] = Perceptual(features, scaled["perceptual"], distance=config.distance)
    if style:
        losses["style"] = Style(features, scaled["style"])
    return losses
