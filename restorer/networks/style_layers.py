"""What style-based networks share: convolutions that a style modulates, and the pyramid of them that paints a picture.

Weights are plain: what published files multiply at run time (equalised learning rates, the activation's gain) is in
them. Letters: N batch, C channels, h w sides of a layer, S length of a style, L styles of one picture.
"""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restorer.kernels.style import noisy_leaky
from restorer.kernels.upfirdn2d import upfirdn2d
from restorer.networks.layers import Conv, leaky
from restorer.networks.spec import at_least_one

Resampling = Literal["bilinear", "fir"]
"""How sides are doubled and halved: bilinear, or zeros between the pixels and the filter [1, 3, 3, 1]."""
RESAMPLINGS: tuple[Resampling, ...] = ("bilinear", "fir")
TAPS = (1.0, 3.0, 3.0, 1.0)
GAIN = 2**0.5
"""What keeps the variance through a leaky ReLU of slope 0.2, as StyleGAN2 has it."""
EPSILON = 1e-8
MOST_LEVELS = 10
"""Up to pictures of 2048 pixels."""
WIDTHS_512 = (512, 512, 512, 512, 512, 256, 128, 64)
"""The published channels at 4, 8, ... 512 pixels, with the multiplier 2 (configuration F)."""


class ModulatedConv(Conv):
    """(N, Cin, h, w), (N, Cin) -> (N, Cout, h, w), or twice the sides: a convolution under a style (arXiv:1912.04958).

    The style scales the input's channels, and `back` is what scales the result's: the same numbers as with a kernel
    for each picture, and the weights stay constant. Styles and scales are float32, whatever the weights are.
    """

    def __init__(self, in_channels: int, out_channels: int, side: int = 3, *, up: Resampling | None = None) -> None:
        super().__init__(in_channels, out_channels, side, bias=False)
        self.up = up
        nn.init.normal_(self.weight, std=1 / math.sqrt(in_channels * side**2))

    def forward(self, x: Tensor, scales: Tensor) -> Tensor:  # type: ignore[override]
        x = x * scales[:, :, None, None].to(x.dtype)
        if self.up == "fir":
            kernel = self.weight.transpose(0, 1)
            return filtered(F.conv_transpose2d(x.to(kernel.dtype), kernel, stride=2), pad=1, gain=4)
        return super().forward(doubled(x, "bilinear") if self.up == "bilinear" else x)

    def back(self, scales: Tensor) -> Tensor:
        """(N, Cin) -> (N, Cout): what gives the result's channels the variance that leaky ReLU keeps."""
        power = self.weight.float().square().sum((2, 3))  # (Cout, Cin)
        total = (scales.float().square()[:, None] * power).sum(2)  # no matrix product, which autocast would make half
        return GAIN * torch.rsqrt(total + EPSILON)


class StyleConv(nn.Module):
    """(N, Cin, h, w), (N, S), (1 or N, 1, h', w') -> (N, Cout, h', w'): modulated, noise added, activated."""

    def __init__(self, in_channels: int, out_channels: int, style: int, *, up: Resampling | None = None) -> None:
        super().__init__()
        self.modulation = modulation(style, in_channels)
        self.conv = ModulatedConv(in_channels, out_channels, up=up)
        self.noise_strength = nn.Parameter(torch.zeros(1))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor, style: Tensor, noise: Tensor) -> Tensor:
        scales = asked(self.modulation, style)
        # `back` takes any common factor out again, so that half precision does not overflow
        scales = scales / scales.abs().amax(1, keepdim=True).clamp_min(EPSILON)
        y = self.conv(x, scales)
        return noisy_leaky(y, noise, self.noise_strength, self.bias, scales=self.conv.back(scales))


class ToRGB(nn.Module):
    """(N, Cin, h, w), (N, S) -> (N, 3, h, w), float32."""

    def __init__(self, in_channels: int, style: int) -> None:
        super().__init__()
        self.modulation = modulation(style, in_channels)
        self.conv = ModulatedConv(in_channels, 3, 1)
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        y = self.conv(x.to(self.conv.weight.dtype), asked(self.modulation, style))
        return y.to(self.bias.dtype) + self.bias[None, :, None, None]


class Synthesis(nn.Module):
    """(N, L, S) -> (N, 3, side, side) in [-1, 1] or so: from a constant of 4x4 up, each size adding to the picture."""

    def __init__(self, widths: Sequence[int], style: int, resampling: Resampling) -> None:
        """`widths` are the channels at 4, 8, 16, ... pixels."""
        super().__init__()
        self.resampling = resampling
        self.constant = nn.Parameter(torch.randn(1, widths[0], 4, 4))
        self.layers = nn.ModuleList([StyleConv(widths[0], widths[0], style)])
        self.to_rgb = nn.ModuleList([ToRGB(widths[0], style)])
        for into, out in pairwise(widths):
            self.layers.extend([StyleConv(into, out, style, up=resampling), StyleConv(out, out, style)])
            self.to_rgb.append(ToRGB(out, style))
        for index in range(len(self.layers)):
            side = 2 ** ((index + 5) // 2)
            self.register_buffer(f"noise_{index}", torch.randn(1, 1, side, side))

    def forward(
        self, styles: Tensor, conditions: Sequence[tuple[Tensor, Tensor]] = (), noise: Sequence[Tensor] | None = None
    ) -> Tensor:
        """`conditions` are scale and shift of half or all channels at 8, 16, ... pixels; `noise` None is the stored."""
        noise = self.stored_noise() if noise is None else noise
        x = self.constant.expand(styles.shape[0], -1, -1, -1)
        x = self.layers[0](x, styles[:, 0], noise[0])
        picture = self.to_rgb[0](x, styles[:, 1])
        for level in range(1, len(self.to_rgb)):
            first, second = 2 * level - 1, 2 * level
            x = self.layers[first](x, styles[:, first], noise[first])
            if level <= len(conditions):
                x = conditioned(x, *conditions[level - 1])
            x = self.layers[second](x, styles[:, second], noise[second])
            picture = doubled(picture, self.resampling) + self.to_rgb[level](x, styles[:, second + 1])
        return picture

    def stored_noise(self) -> list[Tensor]:
        """-> the noise that is part of the weights, (1, 1, h, w) for each layer."""
        return [self.get_buffer(f"noise_{index}") for index in range(len(self.layers))]

    def fresh_noise(self, count: int, rng: torch.Generator | None = None) -> list[Tensor]:
        """-> new noise for `count` pictures, (count, 1, h, w) for each layer."""
        stored = self.stored_noise()
        return [torch.randn((count, *each.shape[1:]), generator=rng, device=each.device) for each in stored]

    @property
    def styles(self) -> int:
        """L, how many styles a picture has."""
        return 2 * len(self.to_rgb)


class DownBlock(nn.Module):
    """(N, Cin, h, w) -> (N, Cout, h/2, w/2)."""

    def __init__(self, in_channels: int, out_channels: int, resampling: Resampling) -> None:
        super().__init__()
        self.resampling = resampling
        self.conv1 = Conv(in_channels, in_channels)
        self.conv2 = HalvingConv(in_channels, out_channels) if resampling == "fir" else Conv(in_channels, out_channels)
        self.skip = Conv(in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = leaky(self.conv1(x))
        y = leaky(self.conv2(y if self.resampling == "fir" else halved(y, "bilinear")))
        return y + self.skip(halved(x, self.resampling))


class HalvingConv(Conv):
    """(N, Cin, h, w) -> (N, Cout, h/2, w/2): filtered, then every second pixel convolved."""

    def forward(self, x: Tensor) -> Tensor:
        x = filtered(x.to(self.weight.dtype), pad=2)
        return F.conv2d(x, self.weight, self.bias, stride=2)


def modulation(style: int, channels: int) -> nn.Linear:
    """(N, S) -> (N, C): what a style asks of a layer's channels, one by one; about 1 at the start."""
    linear = nn.Linear(style, channels)
    nn.init.normal_(linear.weight, std=1 / math.sqrt(style))
    nn.init.ones_(linear.bias)
    return linear


def asked(linear: nn.Linear, style: Tensor) -> Tensor:
    """(N, S) -> (N, C): what a style asks of a layer's channels, in the precision of the weights."""
    with in_full(style):
        return linear(style.to(linear.weight.dtype))


def in_full(x: Tensor) -> AbstractContextManager[object]:
    """(...) -> inside it autocast, where there is any, lowers nothing on the tensor's device."""
    kind = x.device.type
    lowers = kind != "meta" and torch.is_autocast_enabled(kind)  # there is none for shapes without numbers
    return torch.autocast(kind, enabled=False) if lowers else nullcontext()


def conditioned(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """(N, C, h, w), (N, c, h, w), same -> (N, C, h, w): scale and shift the last c channels."""
    kept = x.shape[1] - scale.shape[1]
    if kept == 0:
        return x * scale + shift
    return torch.cat([x[:, :kept], x[:, kept:] * scale + shift], dim=1)


def doubled(x: Tensor, resampling: Resampling) -> Tensor:
    """(N, C, h, w) -> (N, C, 2h, 2w)."""
    if resampling == "bilinear":
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    with in_full(x):
        return upfirdn2d(x, _taps(x, gain=4), up=2, pad=(2, 1, 2, 1))


def halved(x: Tensor, resampling: Resampling) -> Tensor:
    """(N, C, h, w) -> (N, C, h/2, w/2)."""
    if resampling == "bilinear":
        return F.interpolate(x, scale_factor=0.5, mode="bilinear", align_corners=False)
    return filtered(x, pad=1, stride=2)


def filtered(x: Tensor, *, pad: int, gain: float = 1.0, stride: int = 1) -> Tensor:
    """(N, C, h, w) -> each channel through the filter [1, 3, 3, 1] both ways, with `pad` zeros around."""
    with in_full(x):
        return upfirdn2d(x, _taps(x, gain=gain), down=stride, pad=(pad, pad, pad, pad))


def _taps(x: Tensor, *, gain: float) -> Tensor:
    taps = torch.tensor(TAPS, dtype=x.dtype, device=x.device) / sum(TAPS)
    return gain * taps[:, None] * taps[None, :]


def check_widths(widths: Sequence[int]) -> None:
    """Refuse channels of a pyramid that cannot be built."""
    at_least_one(**{f"widths[{index}]": width for index, width in enumerate(widths)})
    if not 2 <= len(widths) <= MOST_LEVELS:
        raise ValueError(f"widths must name the channels of 2 to {MOST_LEVELS} levels, got {len(widths)}")


def operations_of(widths: Sequence[int], resampling: Resampling) -> int:
    """Multiplications of the convolutions of a `Synthesis`, for one picture; between zeros there are none to do."""
    total = 16 * (9 * widths[0] ** 2 + 3 * widths[0])
    for level, (into, out) in enumerate(pairwise(widths), start=1):
        low, high = (2 * 2**level) ** 2, (4 * 2**level) ** 2
        total += 9 * into * out * (low if resampling == "fir" else high) + (9 * out**2 + 3 * out) * high
    return total
