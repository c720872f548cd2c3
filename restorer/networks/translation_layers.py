"""What the networks that translate share: norms that never mix pictures, convolutions that halve, double and mirror.

Letters: N batch, C channels, H W sides.
"""

import re
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restorer.errors import WeightsError
from restorer.networks.layers import Conv, ShuffleConv
from restorer.networks.spec import Facts, StateDict

NormName = Literal["batch", "instance", "none"]
NORMS = ("batch", "instance", "none")
Order = Literal["rgb", "bgr"]
EPSILON = 1e-5
FLAT = 2**-20
"""Deviation over mean of a channel that is one number, up to its rounding: eight units in the last place."""
_BLOCK = 2**18
"""Numbers of a block that stay in a core's cache while they are looked at twice."""
_WORD, _BITS = 2**32 - 1, 32
"""What a hash keeps of a number, and how many channels share one."""
_MOST_NOISE = 2**63 - 1
_Number = TypeVar("_Number", int, Tensor)
_STATISTICS = re.compile(r"(.*)\.(running_mean|running_var|num_batches_tracked)")


def check_norm(name: str) -> None:
    """Refuse a norm that is none of `NORMS`."""
    if name not in NORMS:
        raise ValueError(f"norm must be one of {', '.join(NORMS)}, got {name}")


def check_order(order: str) -> None:
    """Refuse an order of colours that is neither "rgb" nor "bgr"."""
    if order not in ("rgb", "bgr"):
        raise ValueError(f"channel_order must be rgb or bgr, got {order}")


def check_noise(noise: int | None, *, drops: bool) -> None:
    """Refuse a seed that is none, and any where the network `drops` nothing."""
    if noise is None:
        return
    if not 0 <= noise <= _MOST_NOISE:
        raise ValueError(f"noise must be a whole number from 0 to {_MOST_NOISE}, got {noise}")
    if not drops:
        raise ValueError("noise needs a network that drops activations, and this one drops none; leave noise out")


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
        return _differentiable(x.to(wide), weight, bias).to(x.dtype)
    done = []
    for picture in x.split(1):
        mean, variance = statistics(picture, wide)
        variance = unless_flat(mean, variance)
        done.append(F.batch_norm(picture, mean, variance, weight, bias, eps=EPSILON))
    return done[0] if len(done) == 1 else torch.cat(done)


def _differentiable(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """As `normalised`. Of one picture instance norm is batch norm, which keeps the layout.

    And on a processor torch's own instance norm (2.14) takes a wrong gradient of one picture where what comes back has
    its channels last, as it does from convolutions with such weights.
    """
    if not torch.compiler.is_compiling() and len(x) == 1:  # the other way round a graph's batch is no longer free
        return torch.batch_norm(x, weight, bias, None, None, True, 0.0, EPSILON, False)
    return torch.instance_norm(x, weight, bias, None, None, True, 0.0, EPSILON, False)


def statistics(x: Tensor, wide: torch.dtype) -> tuple[Tensor, Tensor]:
    """(1, C, H, W) -> (C,), (C,): means and variances, put together from those of blocks of rows."""
    height, rows = x.shape[2], max(1, _BLOCK // (x.shape[1] * x.shape[3]))
    means, variances = [], []
    for part in x.split(rows, dim=2):
        block = part.to(wide)
        mean = block.mean((0, 2, 3), keepdim=True)
        means.append(mean.flatten())
        variances.append((block - mean).square_().mean((0, 2, 3)))
    parts = [min(rows, height - top) / height for top in range(0, height, rows)]
    shares = torch.tensor(parts, dtype=wide, device=x.device)[:, None]
    mean = (shares * torch.stack(means)).sum(0)
    between = (torch.stack(means) - mean).square()
    return mean, (shares * (torch.stack(variances) + between)).sum(0)


def unless_flat(mean: Tensor, variance: Tensor) -> Tensor:
    """(C,), (C,) -> (C,): the variances, infinite where they are what rounding leaves of none, so that 0 comes out.

    A norm makes a channel's rounding three hundred times larger; after a few, a picture of one colour would be noise.
    """
    return variance.masked_fill(variance <= (FLAT * mean).square(), torch.inf)


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


def drop(x: Tensor, *, training: bool, noise: int | None, layer: int, top: int = 0) -> Tensor:
    """(N, C, h, w) -> same: half of it dropped, by chance in training, else by the seed `noise`; None drops nothing."""
    if training or noise is None:
        return F.dropout(x, 0.5, training)
    return dropped(x, noise, layer, top)


def dropped(x: Tensor, seed: int, layer: int, top: int = 0) -> Tensor:
    """(N, C, h, w) -> same: about half of it 0, the rest doubled; `top` is the place of the first row in its picture.

    What is dropped follows from seed, layer, channel, row and column alone: it is the same in every process, batch and
    band of rows, and for all pictures of a batch.
    """
    channels, height, width = x.shape[1:]
    rows = torch.arange(height, device=x.device)[:, None, None] + top
    columns = torch.arange(width, device=x.device)[:, None]
    words = torch.arange(-(-channels // _BITS), device=x.device)
    key = _hashed(_hashed(_hashed(layer + 1) ^ (seed >> 32)) ^ (seed & _WORD))
    drawn = _hashed(_hashed(_hashed(words ^ key) ^ columns) ^ rows)  # (h, w, words), each of 32 bits
    places = torch.tensor([2**bit for bit in range(_BITS)], device=x.device)
    kept = (drawn[..., None] & places != 0).flatten(2)[:, :, :channels]  # (h, w, C): as convolutions lay it out
    return x * (2 * kept.to(x.dtype)).permute(2, 0, 1)


def _hashed(x: _Number) -> _Number:
    """Numbers below 2**32 -> such numbers, one to one, where every bit depends on all (found by search: lowbias32).

    Factors below 2**31 keep every product inside 63 bits; graphs know divisions, not the shifts that these are.
    """
    x = (x ^ x // 2**16) * 0x21F0AAAD & _WORD
    x = (x ^ x // 2**15) * 0x735A2D97 & _WORD
    return x ^ x // 2**15


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


def read_order(facts: Facts) -> Order:
    """Which order of colours the weights were trained on: a fact, since no key says it."""
    told = facts.get("channels", "rgb")
    if told not in ("rgb", "bgr"):
        raise WeightsError(f"channels must be rgb or bgr, got {told!r}")
    return "bgr" if told == "bgr" else "rgb"


def read_noise(facts: Facts) -> int | None:
    """The seed of what is dropped at rest, a fact; None where none is told."""
    told = facts.get("noise")
    number = int(told) if isinstance(told, str) and told.isascii() and told.isdigit() and len(told) < 20 else told
    if number is not None and (not isinstance(number, int) or isinstance(number, bool) or number < 0):
        raise WeightsError(f"noise must be a whole number that is not negative, got {told!r}")
    return number
