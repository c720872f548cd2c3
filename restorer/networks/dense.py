"""The dense block of ESRGAN (arXiv:1809.00219), in one go, rows after rows, and by the kernels of a GPU.

Letters: N batch, F features, G growth, h w sides inside the network, W the width of a picture there.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restorer.kernels.choice import uses_triton
from restorer.kernels.dense_block import bias_leaky_into, scaled_residual
from restorer.networks.layers import Conv, leaky, start_small
from restorer.networks.stages import Piece, Stage, below_each_other, convolved, copied, map_of, together, zero_rows

SLOPE = 0.2


class DenseBlock(nn.Module):
    """(N, F, h, w) -> same: five convolutions, each of which sees all before it."""

    def __init__(self, features: int, grow: int, *, conv1x1: bool = False) -> None:
        super().__init__()
        self.conv1x1 = Conv(features, grow, 1, bias=False) if conv1x1 else None
        self.conv1 = Conv(features, grow)
        self.conv2 = Conv(features + grow, grow)
        self.conv3 = Conv(features + 2 * grow, grow)
        self.conv4 = Conv(features + 3 * grow, grow)
        self.conv5 = Conv(features + 4 * grow, features)
        start_small(self)

    def forward(self, x: Tensor) -> Tensor:
        if pays(x, self.conv1):
            return self.in_one_buffer(x)
        x0 = x.to(self.conv1.weight.dtype)
        x1 = leaky(self.conv1(x0))  # (N, G, h, w)
        x2 = leaky(self.conv2(torch.cat((x0, x1), 1)))
        if self.conv1x1 is not None:
            x2 = x2 + self.conv1x1(x0)
        x3 = leaky(self.conv3(torch.cat((x0, x1, x2), 1)))
        x4 = leaky(self.conv4(torch.cat((x0, x1, x2, x3), 1)))
        if self.conv1x1 is not None:
            x4 = x4 + x2
        y = self.conv5(torch.cat((x0, x1, x2, x3, x4), 1))  # (N, F, h, w)
        return torch.add(x, y, alpha=0.2)  # in x's dtype, when that is the wider one

    def in_one_buffer(self, x: Tensor, *, outer: Tensor | None = None) -> Tensor:
        """(N, F, h, w) -> same: every result goes straight to its place behind those before it.

        With `outer`, of the same shape, outer + a fifth of that: the residual around three blocks, in the same pass.
        """
        dtype, end, grow = self.conv1.weight.dtype, x.shape[1], self.conv1.out_channels
        shape = (len(x), end + 4 * grow, *x.shape[2:])
        buffer = torch.empty(shape, dtype=dtype, device=x.device, memory_format=torch.channels_last)
        buffer[:, :end] = x
        made = []
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            made.append(buffer[:, end : end + grow])
            y = F.conv2d(buffer[:, :end], conv.weight, padding=1)
            bias_leaky_into(y, bias_of(conv), made[-1], slope=SLOPE)
            end += grow
            if self.conv1x1 is not None and len(made) == 2:
                made[1] += self.conv1x1(buffer[:, : x.shape[1]])
            if self.conv1x1 is not None and len(made) == 4:
                made[3] += made[1]
        return scaled_residual(x, self.conv5(buffer), scale=0.2, outer=outer)


def pays(x: Tensor, conv: Conv) -> bool:
    """(...) -> whether the kernels of dense blocks are used: on a GPU that they are proven on, for inference."""
    return uses_triton("bias_leaky_into", "auto", x, conv.weight)


def bias_of(conv: Conv) -> Tensor:
    """() -> (G,): all convolutions of dense blocks have one."""
    assert conv.bias is not None
    return conv.bias


def leaky_into(conv: Conv, x: Tensor, out: Tensor) -> None:
    """(1, C, 1 + h + 1, W) -> written into `out` (1, G, h, W): leaky ReLU of what the convolution makes."""
    if pays(x, conv):
        bias_leaky_into(convolved(conv, x, bias=False), bias_of(conv), out, slope=SLOPE)
    else:
        torch.ops.aten.leaky_relu.out(convolved(conv, x), SLOPE, out=out)


class DenseRows(Stage):
    """A dense block, rows after rows: (1, F, h, W) -> same. Each convolution is a row behind the one before it."""

    def __init__(self, block: DenseBlock) -> None:
        self._block = block
        self._x: Tensor | None = None
        self._grown: list[Tensor] = []
        """x1 to x4 of `DenseBlock.forward`: like x from the row above the next result on, which is zeros at the top."""

    @property
    def held(self) -> Sequence[Tensor]:
        """See Stage.held."""
        return () if self._x is None else (self._x, *self._grown)

    def push(self, rows: Tensor, *, last: bool) -> Iterator[Piece]:
        """(1, F, h, W) -> pieces; see Stage.push."""
        block, dtype = self._block, self._block.conv1.weight.dtype
        above = zero_rows(rows, 1) if self._x is None else self._x
        below = zero_rows(rows, 1) if last else rows[:, :, :0]
        grow = block.conv1.out_channels
        maps = [below_each_other([above, rows, below], dtype)]
        have = maps[0].shape[2]
        for number, conv in enumerate((block.conv1, block.conv2, block.conv3, block.conv4)):
            old = self._grown[number] if self._grown else zero_rows(rows, 1)[:, :1].to(dtype).expand(-1, grow, -1, -1)
            given, stop = old.shape[2], max(old.shape[2], have - 1)
            grown = map_of(rows, grow, stop + below.shape[2], dtype)
            grown[:, :, :given] = old
            grown[:, :, stop:] = 0
            if stop > given:
                leaky_into(conv, together(maps, given - 1, stop + 1), grown[:, :, given:stop])
                self._add_paths(number, grown, maps, slice(given, stop))
            have = grown.shape[2]
            maps.append(grown)
        count = max(0, have - 2)
        if count:
            yield self._added(above, rows, convolved(block.conv5, together(maps, 0, have))), last
        self._x = None if last else below_each_other(_cut((above, rows), count, above.shape[2] + rows.shape[2]))
        self._grown = [] if last else [copied(each[:, :, count:]) for each in maps[1:]]

    def _added(self, above: Tensor, rows: Tensor, y: Tensor) -> Tensor:
        """The residual: x, which lies in two pieces, and a fifth of y."""
        out = map_of(rows, y.shape[1], y.shape[2], rows.dtype)
        top = 0
        for part in _cut((above, rows), 1, y.shape[2] + 1):
            bottom = top + part.shape[2]
            torch.add(part, y[:, :, top:bottom], alpha=0.2, out=out[:, :, top:bottom])
            top = bottom
        return out

    def _add_paths(self, number: int, grown: Tensor, maps: Sequence[Tensor], rows: slice) -> None:
        """The extra paths of ESRGAN+ to x2 and x4."""
        if self._block.conv1x1 is None:
            return
        if number == 1:
            grown[:, :, rows] += self._block.conv1x1(maps[0][:, :, rows])
        if number == 3:
            grown[:, :, rows] += maps[2][:, :, rows]


def _cut(pieces: Sequence[Tensor], top: int, bottom: int) -> list[Tensor]:
    """[(1, C, h, W), ...] -> the rows from `top` to `bottom` of all of them below each other."""
    found = []
    for piece in pieces:
        height = piece.shape[2]
        found.append(piece[:, :, max(0, top) : max(0, bottom)])
        top, bottom = top - height, bottom - height
    return found
