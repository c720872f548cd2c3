"""Work as a GPU gets it around a network, for each kernel; and how many bytes plain PyTorch moves for it."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from restorer.kernels.blend_tiles import blend_tiles, plan_seams
from restorer.kernels.choice import Impl
from restorer.kernels.dense_block import bias_leaky_into, scaled_residual
from restorer.kernels.gather_tiles import gather_tiles
from restorer.kernels.paste_face import paste_face
from restorer.kernels.style import noisy_leaky
from restorer.kernels.to_bytes import to_bytes
from restorer.kernels.upfirdn2d import upfirdn2d

Answer = Callable[[Impl], Tensor]
MAKES_NOTHING = ("aten::empty", "aten::new_empty", "aten::lift_fresh")
"""Operations that write no memory, though they give a tensor."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """One call of a kernel, of a size that occurs."""

    kernel: str
    """As `PROVEN` names it."""
    what: str
    make: Callable[[torch.device], Answer]
    """Puts the inputs on a device."""
    least_bytes: int
    """What must be read and written if each value is touched once."""


class Traffic(TorchDispatchMode):
    """Adds up what every operation under it reads and writes, as if nothing stayed in a cache."""

    def __init__(self) -> None:
        super().__init__()
        self.moved = 0

    def __torch_dispatch__(
        self, func: Any, types: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run the operation and count it, unless it only looks at memory in another way."""
        given = {} if kwargs is None else dict(kwargs)
        out = func(*args, **given)
        if not func.is_view and func._schema.name not in MAKES_NOTHING:
            read = {name: value for name, value in given.items() if name != "out"}
            self.moved += sum(_bytes_of(each) for each in _tensors((args, read, out)))
        return out


def _tensors(tree: object) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))


def _bytes_of(x: Tensor) -> int:
    """(any shape) -> bytes that it lies in; what is repeated by a stride of 0 lies there once."""
    sides = [side for side, stride in zip(x.shape, x.stride(), strict=True) if stride != 0]
    return math.prod(sides) * x.element_size()


def _gather(device: torch.device) -> Answer:
    pixels = torch.randint(0, 256, (1024, 1024, 3), dtype=torch.uint8, device=device)
    corners = torch.tensor([(y, x) for y in range(-16, 1024, 256) for x in range(-16, 1024, 256)][:16], device=device)
    return lambda impl: gather_tiles(pixels, corners, (288, 288), channels=3, dtype=torch.float16, impl=impl)


def _bytes(device: torch.device) -> Answer:
    made = torch.rand(16, 3, 1152, 1152, device=device).to(torch.float16)
    return lambda impl: to_bytes(made, (64, 64, 1088, 1088), impl=impl)


def _blend(device: torch.device) -> Answer:
    made = torch.rand(16, 3, 1152, 1152, device=device).to(torch.float16)
    edges, starts = [0, 1024, 2048, 3072, 4096], [0, 960, 1984, 2944]
    seams = plan_seams(edges, starts, 1152, feather=32, device=device)
    return lambda impl: blend_tiles(made, seams, seams, impl=impl)


def _dense(device: torch.device) -> Answer:
    buffer = torch.rand(4, 192, 288, 288, device=device).to(torch.float16, memory_format=torch.channels_last)
    made = torch.randn(4, 32, 288, 288, device=device).to(torch.float16, memory_format=torch.channels_last)
    bias, out = torch.randn(32, device=device).to(torch.float16), buffer[:, 96:128]

    def answer(impl: Impl) -> Tensor:
        bias_leaky_into(made, bias, out, impl=impl)
        return out

    return answer


def _residual(device: torch.device) -> Answer:
    x, y, outer = (
        torch.randn(4, 64, 288, 288, device=device).to(dtype, memory_format=torch.channels_last)
        for dtype in (torch.float32, torch.float16, torch.float32)
    )
    return lambda impl: scaled_residual(x, y, outer=outer, impl=impl)


def _style(device: torch.device) -> Answer:
    x = torch.randn(8, 64, 512, 512, device=device).to(torch.float16)
    noise, strength, bias = (torch.randn(shape, device=device) for shape in ((1, 1, 512, 512), (1,), (64,)))
    scales = torch.rand(8, 64, device=device)
    return lambda impl: noisy_leaky(x, noise, strength, bias, scales=scales, impl=impl)


def _filter(device: torch.device) -> Answer:
    x = torch.randn(8, 64, 513, 513, device=device).to(torch.float16)
    taps = _taps(device)
    return lambda impl: upfirdn2d(x, taps, pad=(1, 1, 1, 1), impl=impl)


def _doubling(device: torch.device) -> Answer:
    x = torch.randn(8, 3, 256, 256, device=device)
    taps = _taps(device)
    return lambda impl: upfirdn2d(x, taps, up=2, pad=(2, 1, 2, 1), impl=impl)


def _taps(device: torch.device) -> Tensor:
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], device=device) / 4
    return taps[:, None] * taps[None, :]


def _paste(device: torch.device) -> Answer:
    """Each twin pastes into a region of its own, again and again, so that both have pasted equally often."""
    face, mask = torch.rand(3, 512, 512, device=device).to(torch.float16), torch.ones(512, 512, device=device)
    region = torch.randint(0, 256, (1024, 1024, 3), dtype=torch.uint8, device=device)
    regions = {True: region, False: region.clone()}

    def answer(impl: Impl) -> Tensor:
        paste_face(regions[impl == "triton"], face, mask, (0.5, 0.0, -0.25, 0.0, 0.5, -0.25), impl=impl)
        return regions[impl == "triton"]

    return answer


WORK = [
    Work(
        kernel="gather_tiles",
        what="16 tiles of 288x288 of an 8-bit picture, to fp16",
        make=_gather,
        least_bytes=16 * 288 * 288 * 3 * (1 + 2),
    ),
    Work(
        kernel="to_bytes",
        what="16 tiles of 1024x1024 cut from 1152x1152, fp16",
        make=_bytes,
        least_bytes=16 * 1024 * 1024 * 3 * (2 + 1),
    ),
    Work(
        kernel="blend_tiles",
        what="16 tiles of 1152x1152, fp16, to 4096x4096 with a feather of 32",
        make=_blend,
        least_bytes=3 * ((4096 + 3 * 64) ** 2 * 2 + 4096**2),
    ),
    Work(
        kernel="bias_leaky_into",
        what="32 of 192 channels, 4 tiles of 288x288, fp16 channels last",
        make=_dense,
        least_bytes=2 * 4 * 32 * 288 * 288 * 2,
    ),
    Work(
        kernel="scaled_residual",
        what="both residuals of 64 channels, 4 tiles of 288x288, fp16 onto fp32 channels last",
        make=_residual,
        least_bytes=4 * 64 * 288 * 288 * (4 + 2 + 4 + 4),
    ),
    Work(
        kernel="noisy_leaky",
        what="64 channels of 8 faces of 512x512, fp16",
        make=_style,
        least_bytes=2 * 8 * 64 * 512 * 512 * 2 + 512 * 512 * 4,
    ),
    Work(
        kernel="upfirdn2d",
        what="64 channels of 8 faces of 513x513 filtered to 512x512, fp16",
        make=_filter,
        least_bytes=8 * 64 * (513 * 513 + 512 * 512) * 2,
    ),
    Work(
        kernel="upfirdn2d",
        what="8 faces of 256x256 doubled, fp32",
        make=_doubling,
        least_bytes=8 * 3 * (256 * 256 + 512 * 512) * 4,
    ),
    Work(
        kernel="paste_face",
        what="a face of 512x512, fp16, turned into 1024x1024 of an 8-bit picture",
        make=_paste,
        least_bytes=2 * 1024 * 1024 * 3 + 512 * 512 * (3 * 2 + 4),
    ),
]
