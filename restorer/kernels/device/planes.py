"""How a program's block lies on a batch: so many channels times so many pixels, whichever of the two is dense.

Letters: N batch, C channels, h w sides; a plane is the h*w pixels of one channel of one picture.
"""

from collections.abc import Callable

from torch import Tensor

VALUES = 1024
"""Of a block: 8 for each of 128 threads, the widest load in half precision; with twice as many, registers spill."""
WIDEST_PIXELS, WIDEST_CHANNELS = 512, 64


def strides_of(x: Tensor) -> tuple[int, int, int] | None:
    """(N, C, h, w) -> its strides from picture to picture, channel and pixel; None where rows leave a gap.

    Both memory formats have them, and so has a slice of the channels of either.
    """
    _, _, height, width = x.shape
    of_picture, of_channel, of_row, of_pixel = x.stride()
    if height > 1 and of_row != width * of_pixel:
        return None
    return of_picture, of_channel, of_pixel


def flat(x: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
    """(N, C, h, w) -> same, copied only if its rows leave a gap, and its strides."""
    strides = strides_of(x)
    if strides is not None:
        return x, strides
    x = x.contiguous()
    return x, (x.stride(0), x.stride(1), x.stride(3))


def strides_to_write(out: Tensor) -> tuple[int, int, int]:
    """(N, C, h, w) -> the strides of what a kernel writes into, which a copy would not reach."""
    strides = strides_of(out)
    assert strides is not None, f"rows of shape {tuple(out.shape)}, strides {out.stride()} leave a gap"
    return strides


def block_of(channels: int, pixels: int, of_channel: int, values: int = VALUES) -> tuple[int, int]:
    """-> channels and pixels of a program's block of `values`, powers of two: wide along what is dense in memory."""
    most_channels, most_pixels = power_of_two(channels), power_of_two(pixels)
    if of_channel == 1 and channels > 1:
        wide = min(WIDEST_CHANNELS, most_channels)
        return wide, min(values // wide, most_pixels)
    wide = min(WIDEST_PIXELS, most_pixels)
    return min(values // wide, most_channels), wide


def grid_of(x: Tensor, block: tuple[int, int]) -> tuple[int, int, int]:
    """(N, C, h, w) -> how many blocks along pixels, channels and pictures."""
    count, channels, height, width = x.shape
    return -(-height * width // block[1]), -(-channels // block[0]), count


def power_of_two(count: int) -> int:
    """The least power of two that is not less.

    >>> [power_of_two(count) for count in (1, 3, 32)]
    [1, 4, 32]
    """
    return 1 << (count - 1).bit_length()


Part = tuple[dict[str, str], dict[str, object]]
"""Of a `Build`: types of arguments, and constants."""


def in_planes(*names: str, values: int = VALUES) -> Part:
    """The sizes and strides of batches, each plane dense; a launch turns a stride of 1 into a constant too."""
    return _part(names, dense="pixel", block=block_of(64, 64**2, 64**2, values))


def in_channels_last(*names: str, values: int = VALUES) -> Part:
    """The same, the channels of each pixel dense."""
    return _part(names, dense="channel", block=block_of(64, 64**2, 1, values))


def _part(names: tuple[str, ...], *, dense: str, block: tuple[int, int]) -> Part:
    strides = {f"{name}_{of}" for name in names for of in ("picture", "channel", "pixel")}
    ones = {f"{name}_{dense}" for name in names}
    signature = dict.fromkeys(("channels", "pixels", *sorted(strides - ones)), "i32")
    return signature, {**dict.fromkeys(sorted(ones), 1), "CHANNELS": block[0], "PIXELS": block[1]}


FORMATS: dict[str, Callable[..., Part]] = {"planes": in_planes, "channels last": in_channels_last}
"""Memory formats in which kernels are compiled."""
