"""pix2pix and CycleGAN as published, built from plain layers under the published names."""

import torch
from torch import Tensor, nn

NORMS = {"batch": nn.BatchNorm2d, "instance": nn.InstanceNorm2d, "none": lambda channels: nn.Identity()}


class Nested(nn.Module):
    """One level of pix2pix's U-Net, around the next."""

    def __init__(self, out: int, inner: int, into: int, within: "Nested | None", norm: str, *, outer=False, drop=False):
        super().__init__()
        bias, wide, self.outer = norm == "instance", inner if within is None else 2 * inner, outer
        down = nn.Conv2d(into, inner, 4, 2, 1, bias=bias)
        up = nn.ConvTranspose2d(wide, out, 4, 2, 1, bias=bias or outer)
        if outer:
            layers = [down, within, nn.ReLU(), up, nn.Tanh()]
        elif within is None:
            layers = [nn.LeakyReLU(0.2), down, nn.ReLU(), up, NORMS[norm](out)]
        else:
            layers = [nn.LeakyReLU(0.2), down, NORMS[norm](inner), within, nn.ReLU(), up, NORMS[norm](out)]
            layers += [nn.Dropout(0.5)] if drop else []
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x) if self.outer else torch.cat([x, self.model(x)], 1)


class UNet(nn.Module):
    """pix2pix's `UnetGenerator`, from the inside out."""

    def __init__(self, into: int, out: int, levels: int, f: int, norm: str, *, drop: bool = False) -> None:
        super().__init__()
        level = Nested(f * 8, f * 8, f * 8, None, norm)
        for _ in range(levels - 5):
            level = Nested(f * 8, f * 8, f * 8, level, norm, drop=drop)
        for width in (f * 4, f * 2, f):
            level = Nested(width, width * 2, width, level, norm)
        self.model = Nested(out, f, into, level, norm, outer=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class Block(nn.Module):
    """CycleGAN's `ResnetBlock`."""

    def __init__(self, width: int, norm: str, drop: bool) -> None:
        super().__init__()
        bias = norm == "instance"
        layers = [nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3, bias=bias), NORMS[norm](width), nn.ReLU()]
        layers += [nn.Dropout(0.5)] if drop else []
        layers += [nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3, bias=bias), NORMS[norm](width)]
        self.conv_block = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


class ResNet(nn.Module):
    """CycleGAN's `ResnetGenerator`."""

    def __init__(self, into: int, out: int, f: int, blocks: int, norm: str, *, drop: bool = False) -> None:
        super().__init__()
        bias = norm == "instance"
        layers = [nn.ReflectionPad2d(3), nn.Conv2d(into, f, 7, bias=bias), NORMS[norm](f), nn.ReLU()]
        for width in (f, 2 * f):
            layers += [nn.Conv2d(width, 2 * width, 3, 2, 1, bias=bias), NORMS[norm](2 * width), nn.ReLU()]
        layers += [Block(4 * f, norm, drop) for _ in range(blocks)]
        for width in (4 * f, 2 * f):
            layers.append(nn.ConvTranspose2d(width, width // 2, 3, 2, 1, output_padding=1, bias=bias))
            layers += [NORMS[norm](width // 2), nn.ReLU()]
        self.model = nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(f, out, 7), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


def drawn(network: nn.Module) -> nn.Module:
    """The same network with weights that leave no part without effect."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            fan = tensor[0].numel() if tensor.ndim > 1 else 25
            tensor.normal_(1.0 if tensor.ndim == 1 and name.endswith("weight") else 0.0, fan**-0.5, generator=generator)
            tensor.abs_() if name.endswith("running_var") else None
    return network


def chain(channels: int, f: int, layers: int, norm: str) -> nn.Sequential:
    """pix2pix's `NLayerDiscriminator`."""
    steps = [nn.Conv2d(channels, f, 4, 2, 1), nn.LeakyReLU(0.2)]
    width = f
    for number in range(1, layers + 1):
        out, stride = f * min(2**number, 8), 2 if number < layers else 1
        steps += [nn.Conv2d(width, out, 4, stride, 1, bias=norm == "instance"), NORMS[norm](out), nn.LeakyReLU(0.2)]
        width = out
    return nn.Sequential(*steps, nn.Conv2d(width, 1, 4, 1, 1))
