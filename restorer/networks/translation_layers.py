"""What the networks that translate share: norms that never mix pictures, convolutions that halve, double and mirror.

Letters: N batch, C channels, H W sides.
"""

import re
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restorer.errors import WeightsError
from restorer.networks.layers import Conv, ShuffleConv
from restorer.networks.spec import Facts, StateDict

NormName = Literal["batch", "instance", "none"]
NORMS = ("batch", "instance", "none")
EPSILON = 1e-5
_BLOCK = 2**18
"""Numbers of a block that stay in a core's cache while they are looked at twice."""
_STATISTICS = re.compile(r"(.*)\.(running_mean|running_var|num_batches_tracked)")


def check_norm(name: str) -> None:
    """Refuse a norm that is none of `NORMS`."""
    if name not in NORMS:
        raise ValueError(f"norm must be one of {', '.join(NORMS)}, got {name}")


class InstanceNorm(nn.Module):
    """(N, C, H, W) -> same: each channel of each picture with mean 0 and variance 1 (arXiv:1607.08022)."""

    def forward(self, x: Tensor) -> Tensor:
        return normalised(x)


class PictureNorm(nn.BatchNorm2d):
    """(N, C, H, W) -> same: batch norm in training; at rest by each picture's own statistics, not by those kept.

    That is what the published programs do, which run their networks in training mode on one picture at a time; here
    a picture comes out the same whatever it shares a batch with.
    """

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if self.training else normalised(x, self.weight, self.bias)


def norm(name: NormName, channels: int) -> nn.Module:
    """Make a norm of a generator; only that of a batch has weights."""
    if name == "batch":
        return PictureNorm(channels)
    return InstanceNorm() if name == "instance" else nn.Identity()


class NormedConv(nn.Module):
    """(N, Cin, H, W) -> (N, Cout, H', W'): a convolution and a norm."""

    def __init__(self, conv: nn.Module, name: NormName, channels: int) -> None:
        super().__init__()
        self.conv = conv
        self.norm = norm(name, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


def normalised(x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """(N, C, H, W), (C,), (C,) -> (N, C, H, W): instance norm, then times `weight`, plus `bias`.

    Where nothing else than the result is wanted of a processor, the layout stays and the sums are taken in blocks:
    four times as fast as torch's own, which turns the layout, and as exact for pictures of any size.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    weight, bias = (None if each is None else each.to(wide) for each in (weight, bias))
    if x.device.type != "cpu" or torch.is_grad_enabled() or torch.compiler.is_compiling():
        y = torch.instance_norm(x.to(wide), weight, bias, None, None, True, 0.0, EPSILON, False)
        return y.to(x.dtype)
    done = []
    for picture in x.split(1):
        mean, variance = _statistics(picture, wide)
        done.append(F.batch_norm(picture, mean, variance, weight, bias, eps=EPSILON))
    return done[0] if len(done) == 1 else torch.cat(done)


def _statistics(x: Tensor, wide: torch.dtype) -> tuple[Tensor, Tensor]:
    """(1, C, H, W) -> (C,), (C,): means and variances, put together from those of blocks of rows."""
    height, rows = x.shape[2], max(1, _BLOCK // (x.shape[1] * x.shape[3]))
    means, variances = [], []
    for part in x.split(rows, dim=2):
        block = part.to(wide)
        mean = block.mean((0, 2, 3), keepdim=True)
        means.append(mean.flatten())
        variances.append((block - mean).square_().mean((0, 2, 3)))
    shares = torch.tensor([min(rows, height - top) / height for top in range(0, height, rows)], dtype=wide)[:, None]
    mean = (shares * torch.stack(means)).sum(0)
    between = (torch.stack(means) - mean).square()
    return mean, (shares * (torch.stack(variances) + between)).sum(0)


class MirrorConv(Conv):
    """(N, Cin, H, W) -> (N, Cout, H, W): a convolution that sees the picture mirrored at its edges."""

    def __init__(self, in_channels: int, out_channels: int, side: int = 3, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, side, bias=bias)
        self.padding_mode = "reflect"


class DownConv(Conv):
    """(N, Cin, H, W) -> (N, Cout, H/2, W/2): of side 3 or 4, at every second place."""

    def __init__(self, in_channels: int, out_channels: int, side: int, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, side, bias=bias)
        self.stride, self.padding = (2, 2), (1, 1)


class UpConv(ShuffleConv):
    """(N, Cin, H, W) -> (N, Cout, 2H, 2W): a transposed convolution of side 4 as one of side 2 and a pixel shuffle.

    Its weight is `as_shuffle` of the transposed one's: the same numbers, in an order that every machine is quick with.
    """

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        Conv.__init__(self, in_channels, 4 * out_channels, 2, bias=False)
        self.factor = 2
        if bias:
            self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        return _doubled(x.to(self.weight.dtype), self.weight, self.bias)


class UpConv3(ShuffleConv):
    """(N, Cin, H, W) -> (N, Cout, 2H, 2W): a transposed convolution of side 3, one row and column longer at the end."""

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        Conv.__init__(self, out_channels, in_channels, 3, bias=False)  # the weight of one is the other's, transposed
        self.factor = 2
        if bias:
            self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.weight.dtype)
        if x.device.type == "cpu" and x.dtype in (torch.float16, torch.bfloat16):  # transposed, it is slow beyond use
            return _doubled(x, as_shuffle(F.pad(self.weight, (0, 1, 0, 1))), self.bias)
        return F.conv_transpose2d(x, self.weight, self.bias, stride=2, padding=1, output_padding=1)


def _doubled(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(N, Cin, H, W), (4*Cout, Cin, 2, 2), (Cout,) -> (N, Cout, 2H, 2W)."""
    y = F.conv2d(x, weight, None if bias is None else bias.repeat_interleave(4), padding=1)
    return F.pixel_shuffle(y, 2)[:, :, 1:-1, 1:-1]


def as_shuffle(weight: Tensor) -> Tensor:
    """(Cin, Cout, 4, 4) of a transposed convolution that doubles the sides -> (4*Cout, Cin, 2, 2) of `UpConv`.

    Of the four rows, the first and third make the odd rows of the result, the second and fourth the even ones.
    """
    into, out = weight.shape[:2]
    taps = weight.reshape(into, out, 2, 2, 2, 2).flip(2, 4)  # (Cin, Cout, tap, row, tap, column)
    return taps.permute(1, 3, 5, 0, 2, 4).reshape(4 * out, into, 2, 2)


def start_normal(network: nn.Module) -> None:
    """Draw weights of convolutions from N(0, 0.02) and of batch norms from N(1, 0.02); biases begin at 0."""
    for module in network.modules():
        if not isinstance(module, nn.Conv2d | nn.BatchNorm2d) or module.weight.is_meta:
            continue  # without numbers there is nothing to draw, yet torch would load its compiler to draw it
        nn.init.normal_(module.weight, 0.0 if isinstance(module, nn.Conv2d) else 1.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def without_old_statistics(weights: StateDict) -> StateDict:
    """Leave out the running statistics of norms without weights, which files of 2018 have and nothing ever read."""
    left_out = {key for key in weights if (found := _STATISTICS.fullmatch(key)) and f"{found[1]}.weight" not in weights}
    return {key: tensor for key, tensor in weights.items() if key not in left_out}


def read_norm(weights: StateDict) -> NormName:
    """Tell the norm by keys: that of a batch has weights; of the others, only instance norm stands beside biases.

    The last layer's bias, pix2pix's `up.0`, says nothing, since it may stand beside any norm.
    """
    if any(re.search(r"\.norm\d?\.", key) for key in weights):
        return "batch"
    inner = re.compile(r"(down\.|up\.[1-9]|blocks\.|first\.).*conv\d?\.bias")
    return "instance" if any(inner.match(key) for key in weights) else "none"


def read_dropout(facts: Facts, default: bool) -> bool:
    """Whether training drops activations: a fact, as plain weights do not say and, at rest, nothing depends on it."""
    told = facts.get("dropout", default)
    told = {"true": True, "false": False}.get(told, told) if isinstance(told, str) else told
    if not isinstance(told, bool):
        raise WeightsError(f"dropout must be true or false, got {told!r}")
    return told
