"""Pictures -> the batch of a step. What is in it follows from (seed, step, place in the batch) and nothing else.

However many threads read ahead, whichever process asks, and however often a run was stopped: step 1000 is the same.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from restorer.errors import DataError, PictureError
from restorer.networks.spec import Traits
from restorer.pipeline.prepare import with_channels
from restorer.training.keeping import Crop, Kept, LeftOut, shuffled
from restorer.training.objective import Batch, derived_seed
from restorer.training.pictures import open_pictures, paired

_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which pictures, and what is cut out of them."""

    place: ClassVar[str] = "high"
    """The setting that --data sets."""

    kind: Literal["pictures"] = "pictures"
    high: str = ""
    """The truth: a folder, a glob, a .txt list, .tar shards or an LMDB folder. --data sets it."""
    low: str = ""
    """Their small partners, paired by name; empty makes them from `high`."""
    crop: int = 128
    """Side of what is cut from the truth, in its pixels."""
    flip: bool = True
    """Mirror every second crop by chance."""
    turn: bool = True
    """Turn upside down and transpose, each by chance; with `flip`, all eight positions of a square."""
    cache: float = 0.25
    """Share of the machine's memory that decoded pictures may fill."""
    threads: int = 2
    """That read ahead."""

    def __post_init__(self) -> None:
        if self.crop < 1 or self.threads < 1:
            raise ValueError("crop and threads must be at least 1")
        if not 0 <= self.cache <= 0.9:
            raise ValueError(f"cache must be in [0, 0.9], got {self.cache}")

    @property
    def where(self) -> str:
        """The pictures as the user named them; empty where nobody did."""
        return self.high


class CropSource(Protocol):
    """What batches are made of: crops that follow from a position and a random state. Safe for several threads."""

    seed: int

    @property
    def bad(self) -> int:
        """How many pictures have been left out so far."""
        ...

    def __len__(self) -> int: ...

    def crops(self, position: int, rng: np.random.Generator) -> tuple[Crop, Crop | None]:
        """The place in an endless shuffled sequence -> (truth, partner), each (h, w, C)."""
        ...


class Source:
    """Crops of pictures, and what went wrong with them. Safe to be asked by several threads."""

    def __init__(self, config: DataConfig, traits: Traits, *, seed: int, processes: int = 1, margin: int = 0,
                 whole: bool = False) -> None:  # fmt: skip
        """`processes` share the machine's memory. `margin` pixels of the truth around each crop are cut out with it.

        `whole`: pictures of another side than the crop's are left out, since a part of one would not do.
        """
        scale, multiple = traits.scale, traits.scale * traits.multiple_of
        self.config, self.scale, self.channels, self.seed = config, scale, traits.in_channels, seed
        if config.crop % multiple:
            raise DataError(f"data.crop must be a multiple of {multiple} for this network, got {config.crop}")
        self._side, self._whole = config.crop + 2 * margin, whole
        self.high = open_pictures(config.high)
        self.low = paired(self.high, open_pictures(config.low), scale) if config.low else None
        self._cache = Kept(config.cache, processes)
        self._bad = LeftOut(config.high)

    def __len__(self) -> int:
        return len(self.high.names)

    @property
    def bad(self) -> int:
        """How many pictures have been left out so far."""
        return len(self._bad)

    def crops(self, position: int, rng: np.random.Generator) -> tuple[Crop, Crop | None]:
        """The place in an endless shuffled sequence -> (truth, partner), each (h, w, C).

        A picture that cannot be used is named, counted and passed over for the next one.
        """
        epoch, place = divmod(position, len(self))
        number = int(shuffled(self.seed, epoch, len(self))[place])
        return self._bad.usable(number, len(self), lambda at: self._cut(at, rng))

    def _cut(self, number: int, rng: np.random.Generator) -> tuple[Crop, Crop | None]:
        high, low = self._read(number, small=False), self._read(number, small=True) if self.low else None
        side, scale, name = self._side, self.scale, self.high.names[number]
        height, width = high.shape[0] // scale, high.shape[1] // scale
        if self._whole and high.shape[:2] != (side, side):
            raise PictureError(
                f"{name}: is {high.shape[1]}x{high.shape[0]}, and this game takes whole pictures of {side}x{side}; "
                "bring all to that size first"
            )
        if low is not None and (low.shape[0], low.shape[1]) != (height, width):
            raise PictureError(
                f"{name}: its partner is {low.shape[1]}x{low.shape[0]}, a {scale}th of {high.shape[1]}x{high.shape[0]} "
                f"would be {width}x{height}"
            )
        if min(height, width) < side // scale:
            margin = f" and twice degradation.margin, {side}" if side > self.config.crop else f", {side}"
            raise PictureError(f"{name}: {high.shape[1]}x{high.shape[0]} is smaller than data.crop{margin}; lower it")
        y, x = (int(rng.integers(0, room - side // scale + 1)) for room in (height, width))
        small = side // scale
        bits = self._bits(rng)
        truth = _moved(high[y * scale : y * scale + side, x * scale : x * scale + side], bits)
        return truth, None if low is None else _moved(low[y : y + small, x : x + small], bits)

    def _bits(self, rng: np.random.Generator) -> tuple[bool, bool, bool]:
        """(mirror across, mirror down, transpose)."""
        across, down, transpose = (bool(bit) for bit in rng.integers(0, 2, 3))
        config = self.config
        return config.flip and across, config.turn and down, config.turn and transpose

    def _read(self, number: int, *, small: bool) -> Crop:
        source = self.low if small and self.low is not None else self.high
        (pixels,) = self._cache.get((small, number), lambda: (with_channels(source.read(number), self.channels),))
        return pixels


def _moved(crop: Crop, bits: tuple[bool, bool, bool]) -> Crop:
    across, down, transpose = bits
    crop = crop[:, ::-1] if across else crop
    crop = crop[::-1] if down else crop
    return crop.transpose(1, 0, 2) if transpose else crop


def to_tensor(crops: Sequence[Crop]) -> Tensor:
    """[(h, w, C), ...] of one size -> (N, C, h, w) in [0, 1]."""
    sizes = sorted({f"{crop.shape[1]}x{crop.shape[0]}" for crop in crops})
    if len(sizes) > 1:
        raise DataError(
            f"the pictures of one batch have several sizes ({', '.join(sizes[:_SHOWN])}); set train.batch=1, or choose "
            "data.preprocess=resize_and_crop"
        )
    stacked = [torch.from_numpy(np.ascontiguousarray(_unit(crop))) for crop in crops]
    return torch.stack(stacked).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def _unit(crop: Crop) -> NDArray[np.float32]:
    if crop.dtype == np.float32:
        return crop.clip(0, 1)
    return crop.astype(np.float32) / np.float32(np.iinfo(crop.dtype).max)


Make = Callable[[int, int], Batch]
"""(step, turn) -> the batch of this process."""


def batches_of(source: CropSource, *, batch: int, rank: int, processes: int, turns: int) -> Make:
    """Say how the batch of a turn is made: `batch` pictures over all processes, of which this one gets its share.

    `turns` is how many turns a step usually has, so that each picture is seen once before any is seen again.
    """
    share = batch // processes

    def make(step: int, turn: int) -> Batch:
        crops, seeds = [], []
        for slot in range(rank * share, (rank + 1) * share):
            rng = np.random.default_rng(derived_seed(source.seed, step, turn, slot))
            crops.append(source.crops((step * turns + turn) * batch + slot, rng))
            seeds.append(int(rng.integers(2**62)))
        low = [small for _, small in crops if small is not None]
        high = {"high": to_tensor([large for large, _ in crops]), "chance": torch.tensor(seeds)}
        return {**high, **({"low": to_tensor(low)} if low else {})}

    return make


class ReadAhead:
    """Make the batches of coming steps in threads; use as a context manager."""

    def __init__(self, make: Make, *, turns: Callable[[int], int], start: int, stop: int, threads: int) -> None:
        self._make, self._turns, self._threads = make, turns, threads
        self._steps = iter(range(start, stop))
        self._waiting: deque[list[Future[Batch]]] = deque()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="read-ahead")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __iter__(self) -> Iterator[list[Batch]]:
        """The batches of each step's turns, step after step."""
        while True:
            while len(self._waiting) <= self._threads:
                step = next(self._steps, None)
                if step is None:
                    break
                self._waiting.append([self._pool.submit(self._make, step, turn) for turn in range(self._turns(step))])
            if not self._waiting:
                return
            yield [future.result() for future in self._waiting.popleft()]
