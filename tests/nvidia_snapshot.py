"""NVIDIA's StyleGAN2 for tests: layers that are pickled as theirs, and the published definition of the picture.

Nothing of NVIDIA's is needed: two stand-ins lie under the names that its pickles use, and they make nothing.
"""

import math
import pickle
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTHS, STYLE, LAYERS = (8, 8, 6, 4), 16, 3
TAPS = torch.outer(torch.tensor([1.0, 3.0, 3.0, 1.0]), torch.tensor([1.0, 3.0, 3.0, 1.0])) / 64


EasyDict = type("EasyDict", (dict,), {"__module__": "dnnlib.util"})


def _reconstruct_persistent_obj(meta: object) -> object:
    """Theirs would run the source in `meta`."""
    raise AssertionError("an object was made")


_reconstruct_persistent_obj.__module__ = "torch_utils.persistence"


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put these two where pickles of NVIDIA's look for them."""
    for name in ("torch_utils", "torch_utils.persistence", "dnnlib", "dnnlib.util"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    for thing in (EasyDict, _reconstruct_persistent_obj):
        setattr(sys.modules[thing.__module__], thing.__name__, thing)


class Persistent(nn.Module):
    """Is pickled as its source, the name of its class and its state."""

    source = "import torch\n"

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__()
        self._init_args, self._init_kwargs = args, kwargs

    def __reduce__(self):
        meta = {"type": "class", "version": 6, "module_src": self.source, "class_name": type(self).__name__}
        return _reconstruct_persistent_obj, (meta | {"state": super().__reduce__()[2]},), None


class FullyConnectedLayer(Persistent):
    def __init__(self, inputs: int, outputs: int, *, activation: str = "linear", rate: float = 1, bias: float = 0):
        super().__init__(inputs, outputs, activation=activation)
        self.activation = activation
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(bias + 0.3 * torch.randn(outputs))
        self.weight_gain = rate / np.sqrt(inputs)
        self.bias_gain = rate


class MappingNetwork(Persistent):
    def __init__(self, *, labels: int = 0, rate: float = 0.01):
        super().__init__(EasyDict(num_layers=LAYERS, lr_multiplier=rate))
        self.c_dim, self.num_layers, self.w_avg_beta = labels, LAYERS, 0.995
        if labels:
            self.embed = FullyConnectedLayer(labels, STYLE)
        for index in range(LAYERS):
            inputs = STYLE * 2 if labels and not index else STYLE
            setattr(self, f"fc{index}", FullyConnectedLayer(inputs, STYLE, activation="lrelu", rate=rate))
        self.register_buffer("w_avg", torch.randn(STYLE))


class SynthesisLayer(Persistent):
    def __init__(self, inputs: int, outputs: int, side: int, *, up: int = 1):
        super().__init__(inputs, outputs, resolution=side, up=up)
        self.resolution, self.up, self.use_noise, self.activation, self.conv_clamp = side, up, True, "lrelu", 256
        self.register_buffer("resample_filter", TAPS.clone())
        self.padding, self.act_gain = 1, np.sqrt(2)
        self.affine = FullyConnectedLayer(STYLE, inputs, bias=1)
        weight = torch.randn(outputs, inputs, 3, 3)
        self.weight = nn.Parameter(weight.to(memory_format=torch.channels_last) if side > 8 else weight)
        self.register_buffer("noise_const", torch.randn(side, side))
        self.noise_strength = nn.Parameter(torch.randn([]) * 0.3)
        self.bias = nn.Parameter(torch.randn(outputs) * 0.3)


class ToRGBLayer(Persistent):
    def __init__(self, inputs: int):
        super().__init__(inputs, 3, w_dim=STYLE)
        self.conv_clamp = 256
        self.affine = FullyConnectedLayer(STYLE, inputs, bias=1)
        self.weight = nn.Parameter(torch.randn(3, inputs, 1, 1))
        self.bias = nn.Parameter(torch.randn(3) * 0.3)
        self.weight_gain = 1 / np.sqrt(inputs)


class SynthesisBlock(Persistent):
    def __init__(self, inputs: int, outputs: int, side: int):
        super().__init__(inputs, outputs, EasyDict(resolution=side))
        self.in_channels, self.resolution, self.architecture, self.use_fp16 = inputs, side, "skip", side > 8
        self.register_buffer("resample_filter", TAPS.clone())
        if inputs:
            self.conv0 = SynthesisLayer(inputs, outputs, side, up=2)
        else:
            self.const = nn.Parameter(torch.randn(outputs, side, side))
        self.conv1 = SynthesisLayer(outputs, outputs, side)
        self.torgb = ToRGBLayer(outputs)


class SynthesisNetwork(Persistent):
    def __init__(self) -> None:
        super().__init__(w_dim=STYLE)
        for index, width in enumerate(WIDTHS):
            side = 4 * 2**index
            setattr(self, f"b{side}", SynthesisBlock(WIDTHS[index - 1] if index else 0, width, side))


class Generator(Persistent):
    def __init__(self, *, labels: int = 0, rate: float = 0.01):
        super().__init__(z_dim=STYLE, synthesis_kwargs=EasyDict(num_fp16_res=np.int64(2), clamp=np.float32(2)))
        self.z_dim, self.c_dim = STYLE, labels
        self.synthesis, self.mapping = SynthesisNetwork(), MappingNetwork(labels=labels, rate=rate)


class Discriminator(Persistent):
    def __init__(self) -> None:
        super().__init__(c_dim=0)
        self.bias = None
        self.register_parameter("nothing", None)
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(2, 2, bias=False))


def generator(seed: int = 0, **settings: object) -> Generator:
    torch.manual_seed(seed)
    return Generator(**settings).eval().requires_grad_(False)


def snapshot(path: Path, *, protocol: int = 4, **players: object) -> Path:
    """Write what NVIDIA's training writes; `players` take the places of its own."""
    kwargs = {"class_name": "training.dataset.ImageFolderDataset", "resolution": np.int32(32), "more": EasyDict(a=1)}
    if protocol < 5:  # of which arrays are laid down otherwise
        kwargs["array"] = np.ones(3)
    content = {"training_set_kwargs": kwargs, "G": generator(1), "D": Discriminator(), "G_ema": generator()}
    content |= {"augment_pipe": None, **players}
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


# The published definition, in float64 and picture by picture.


def published(weights: Mapping[str, Tensor], z: Tensor, *, truncation: float) -> Tensor:
    """(N, S) -> (N, 3, side, side)."""
    w = {name: tensor.double() for name, tensor in weights.items()}
    x = z.double() * (z.double().square().mean(1, keepdim=True) + 1e-8).rsqrt()
    for index in range(LAYERS):
        x = activated(dense(w, f"mapping.fc{index}", x, rate=0.01))
    styles = w["mapping.w_avg"].lerp(x, torch.tensor(truncation).double())
    return torch.stack([painted(w, style) for style in styles])


def painted(w: Mapping[str, Tensor], style: Tensor) -> Tensor:
    """(S,) -> (3, side, side)."""
    x, picture = w["synthesis.b4.const"], None
    for index in range(len(WIDTHS)):
        block = f"synthesis.b{4 * 2**index}"
        for layer in (f"{block}.conv0", f"{block}.conv1")[index == 0 :]:
            kernel = w[f"{layer}.weight"] * dense(w, f"{layer}.affine", style)[:, None, None]
            kernel = kernel * (kernel.square().sum((1, 2, 3), keepdim=True) + 1e-8).rsqrt()
            if layer.endswith("0"):  # a transposed convolution, as a convolution between zeros
                x = filtered(correlated(spread(x)[:, :-1, :-1], kernel.flip(2, 3), pad=2), pads=(1, 1))
            else:
                x = correlated(x, kernel, pad=1)
            x = x + w[f"{layer}.noise_const"] * w[f"{layer}.noise_strength"]
            x = activated(x + w[f"{layer}.bias"][:, None, None])
        scales = dense(w, f"{block}.torgb.affine", style) / math.sqrt(len(x))
        added = correlated(x, w[f"{block}.torgb.weight"] * scales[:, None, None], pad=0)
        added = added + w[f"{block}.torgb.bias"][:, None, None]
        picture = added if picture is None else filtered(spread(picture), pads=(2, 1)) + added
    return picture


def dense(w: Mapping[str, Tensor], name: str, x: Tensor, *, rate: float = 1.0) -> Tensor:
    weight = w[f"{name}.weight"]
    return x @ (weight * rate / math.sqrt(weight.shape[1])).T + w[f"{name}.bias"] * rate


def activated(x: Tensor) -> Tensor:
    return torch.where(x < 0, 0.2 * x, x) * math.sqrt(2)


def correlated(x: Tensor, kernel: Tensor, *, pad: int) -> Tensor:
    return F.conv2d(x[None], kernel, padding=pad)[0]


def spread(x: Tensor) -> Tensor:
    """(C, h, w) -> (C, 2h, 2w): a zero behind each pixel."""
    y = x.new_zeros(len(x), x.shape[1] * 2, x.shape[2] * 2)
    y[:, ::2, ::2] = x
    return y


def filtered(x: Tensor, *, pads: tuple[int, int]) -> Tensor:
    return F.conv2d(F.pad(x, pads * 2)[:, None], 4 * TAPS.double()[None, None])[:, 0]
