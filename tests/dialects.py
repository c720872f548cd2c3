"""ESRGAN's and compact's weights under the key names of other publishers, written from their layouts."""

import re

from torch import Tensor

Weights = dict[str, Tensor]


def mid(weights: Weights) -> Weights:
    """xinntao/ESRGAN's RRDBNet_arch.py."""
    names = {"body": "RRDB_trunk", "conv_body": "trunk_conv", "conv_hr": "HRconv"}
    return {
        ".".join(
            [
                names.get(first, first.replace("conv_up", "upconv")),
                *(part.replace("rdb", "RDB") for part in rest),
            ]
        ): tensor
        for key, tensor in weights.items()
        for first, *rest in [key.split(".")]
    }


def oldest(weights: Weights) -> Weights:
    """One sequence named `model`: the layers of the ends by their place, the blocks below place 1."""
    blocks = 1 + max(int(key.split(".")[1]) for key in weights if key.startswith("body."))
    upsamples = len({key.split(".")[0] for key in weights if key.startswith("conv_up")})
    places = {"conv_first": "0", "conv_body": f"1.sub.{blocks}"}
    places |= {f"conv_up{index}": str(3 * index) for index in range(1, upsamples + 1)}
    places |= {"conv_hr": str(3 * upsamples + 2), "conv_last": str(3 * upsamples + 4)}
    return {f"model.{_oldest_name(key, places)}": tensor for key, tensor in weights.items()}


def _oldest_name(key: str, places: dict[str, str]) -> str:
    if match := re.fullmatch(r"body\.(\d+)\.rdb(\d)\.(conv\d)\.(\w+)", key):
        return "1.sub.{}.RDB{}.{}.0.{}".format(*match.groups())
    if match := re.fullmatch(r"body\.(\d+)\.rdb(\d)\.conv1x1\.weight", key):
        return "1.sub.{}.RDB{}.conv1x1.weight".format(*match.groups())
    layer, part = key.split(".")
    return f"{places[layer]}.{part}"


def ncnn(weights: Weights) -> Weights:
    """Layers by their order in the file; weights of one dimension without a bias beside them are slopes."""
    layers = list(dict.fromkeys(key.rpartition(".")[0] for key in weights))
    numbered = {}
    for key, tensor in weights.items():
        layer, _, part = key.rpartition(".")
        is_slope = part == "weight" and tensor.ndim == 1
        kind, part = ("PReLU", "slope") if is_slope else ("Convolution", part)
        numbered[f"ncnn.{layers.index(layer):04d}.{kind}.{part}"] = tensor
    return numbered
