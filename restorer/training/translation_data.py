"""Two domains of pictures -> pairs to translate between: side by side, in two folders by name, or with nothing shared.

What is where, and how pictures are brought to size, is as in pytorch-CycleGAN-and-pix2pix, so that folders made for it
work unchanged. Pictures are resized by Pillow's bicubic, label maps too: nothing is treated as a label.
"""

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from PIL import Image

from restorer.errors import DataError, PictureError
from restorer.networks.spec import Traits
from restorer.pipeline.files import READABLE
from restorer.pipeline.prepare import with_channels
from restorer.training.keeping import Crop, Kept, LeftOut, shuffled
from restorer.training.pictures import Pictures, open_pictures, paired

Layout = Literal["auto", "aligned", "folders", "unaligned"]
Preprocess = Literal["resize_and_crop", "crop", "scale_width", "scale_width_and_crop", "none"]
Size = tuple[int, int]
CHANNELS = (1, 3)
"""That pictures have."""
_COARSE = 4
"""What sides are rounded to a multiple of, at least, where pictures keep their size."""
_SHOWN = 6


@dataclass(frozen=True, kw_only=True)
class TranslationDataConfig:
    """Which pictures of two domains, a and b, and what is cut out of them. The numbers are the papers'."""

    place: ClassVar[str] = "root"
    """The setting that --data sets."""

    kind: Literal["translation"] = "translation"
    root: str = ""
    """The folder that holds both domains. --data sets it."""
    layout: Layout = "auto"
    """aligned: pictures side by side, a left and b right, in ROOT/train or in ROOT itself. folders: pairs of one name,
    in ROOT/A/train and ROOT/B/train, or in ROOT/trainA and ROOT/trainB. unaligned: any pictures, in the same folders.
    auto: the first of those that is there; the last only in games that need no pairs, where it comes first."""
    phase: str = "train"
    """Which part of the data: the word "train" of the folders' names, such as val or test."""
    direction: Literal["a2b", "b2a"] = "a2b"
    """b2a: the input is of b, the truth of a."""
    preprocess: Preprocess = "resize_and_crop"
    """resize_and_crop: to a square of `load_size`, whatever the shape was, then a crop. scale_width: to that width, as
    high as the shape wants, but not lower than `crop`. none: only to the nearest sides that networks take."""
    load_size: int = 286
    """Side or width that pictures are resized to."""
    crop: int = 256
    """Side of what is cut out."""
    flip: bool = True
    """Mirror every second picture by chance."""
    cache: float = 0.25
    """Share of the machine's memory that pictures may fill."""
    threads: int = 2
    """That read ahead."""

    def __post_init__(self) -> None:
        if self.crop < 1 or self.load_size < 1 or self.threads < 1:
            raise ValueError("crop, load_size and threads must be at least 1")
        if not 0 <= self.cache <= 0.9:
            raise ValueError(f"cache must be in [0, 0.9], got {self.cache}")
        if self.crops and self.resizes and self.load_size < self.crop:
            raise ValueError(
                f"load_size must be at least crop, {self.crop}, to be cut from; got {self.load_size}: set both together"
            )
        if not self.phase or set("/\\") & set(self.phase):
            raise ValueError(f"phase must be a word such as train or test, got '{self.phase}'")

    @property
    def where(self) -> str:
        """The pictures as the user named them; empty where nobody did."""
        return self.root

    @property
    def crops(self) -> bool:
        """All pictures come out with sides of `crop`."""
        return self.preprocess in ("resize_and_crop", "crop", "scale_width_and_crop")

    @property
    def resizes(self) -> bool:
        """`load_size` counts."""
        return self.preprocess in ("resize_and_crop", "scale_width", "scale_width_and_crop")


@dataclass(frozen=True, kw_only=True, eq=False)
class Domains:
    """Where the pictures of both domains are."""

    layout: Literal["aligned", "folders", "unaligned"]
    a: Pictures
    """Of aligned pictures, both domains at once."""
    b: Pictures
    """Of aligned pictures, the same."""

    def __len__(self) -> int:
        """Pictures of an epoch: of two folders that share nothing, as many as the larger has."""
        return max(len(self.a.names), len(self.b.names))


class TranslationSource:
    """Crops of both domains, and what went wrong with them. Safe to be asked by several threads.

    Pairs share their place and their flip. In other layouts a goes by the shuffled order, b by chance, and an epoch is
    as long as the larger folder: the smaller one is gone through again.
    """

    def __init__(
        self, config: TranslationDataConfig, traits: Traits, *, seed: int, processes: int = 1, aligned: bool = True
    ) -> None:
        """`processes` share the machine's memory. `aligned`: partners must show the same scene."""
        self.config, self.seed = config, seed
        self._multiple, self._least = traits.multiple_of, traits.min_side
        _check_network(config, traits)
        sides = (traits.in_channels, traits.out_channels)
        self._channels = sides if config.direction == "a2b" else (sides[1], sides[0])
        self.domains = open_domains(config, aligned=aligned)
        self._kept = Kept(config.cache, processes)
        self._bad = (LeftOut(self.domains.a.where), LeftOut(self.domains.b.where))

    def __len__(self) -> int:
        return len(self.domains)

    @property
    def bad(self) -> int:
        """How many pictures have been left out so far."""
        return sum(len(each) for each in self._bad)

    def crops(self, position: int, rng: np.random.Generator) -> tuple[Crop, Crop]:
        """The place in an endless shuffled sequence -> (truth, input), each (h, w, C).

        A picture that cannot be used is named, counted and passed over for the next one.
        """
        epoch, place = divmod(position, len(self))
        number = int(shuffled(self.seed, epoch, len(self))[place])
        if self.domains.layout == "unaligned":
            a, b = self._strangers(number, rng)
        else:
            a, b = self._bad[0].usable(number, len(self), self._pair)
            at, flip = self._drawn(a, rng)
            a, b = self._cut(a, at, flip), self._cut(b, at, flip)
        return (b, a) if self.config.direction == "a2b" else (a, b)

    def _strangers(self, number: int, rng: np.random.Generator) -> tuple[Crop, Crop]:
        """One of each domain, each cut and flipped for itself."""
        counts = len(self.domains.a.names), len(self.domains.b.names)
        numbers = number % counts[0], int(rng.integers(counts[1]))
        found = []
        for side in (0, 1):
            pixels = self._bad[side].usable(numbers[side], counts[side], partial(self._one, side))
            found.append(self._cut(pixels, *self._drawn(pixels, rng)))
        return found[0], found[1]

    def _one(self, side: int, number: int) -> Crop:
        pictures = self.domains.b if side else self.domains.a
        return self._kept.get((side, number), lambda: (self._sized(pictures, number, side),))[0]

    def _pair(self, number: int) -> tuple[Crop, Crop]:
        a, b = self._kept.get(number, lambda: self._read_pair(number))
        return a, b

    def _read_pair(self, number: int) -> tuple[Crop, Crop]:
        domains = self.domains
        name = domains.a.names[number]
        if domains.layout == "aligned":
            both = domains.a.read(number)
            half, odd = divmod(both.shape[1], 2)
            if odd or not half:
                raise PictureError(
                    f"{name}: is {both.shape[1]} wide, which has no two halves; put two pictures of one size in it"
                )
            a, b = both[:, :half], both[:, half:]
        else:
            a, b = domains.a.read(number), domains.b.read(number)
            if a.shape[:2] != b.shape[:2]:
                raise PictureError(
                    f"{name}: is {a.shape[1]}x{a.shape[0]} in '{domains.a.where}' and {b.shape[1]}x{b.shape[0]} in "
                    f"'{domains.b.where}'; bring both to one size"
                )
        return self._to_size(a, 0, name), self._to_size(b, 1, name)

    def _sized(self, pictures: Pictures, number: int, side: int) -> Crop:
        return self._to_size(pictures.read(number), side, pictures.names[number])

    def _to_size(self, pixels: Crop, side: int, name: str) -> Crop:
        """(h, w, 1 or 3) -> (H, W, C) of the domain's channels, as large as what crops are cut from."""
        config = self.config
        was = pixels.shape[0], pixels.shape[1]
        height, width = size = size_for(config, was, multiple=self._multiple)
        if config.crops and min(size) < config.crop:
            raise PictureError(
                f"{name}: {width}x{height} is smaller than data.crop, {config.crop}; lower it, or set "
                "data.preprocess=resize_and_crop"
            )
        fits = height % self._multiple == 0 and width % self._multiple == 0 and min(size) >= self._least
        if not config.crops and not fits:
            raise PictureError(
                f"{name}: would be {width}x{height}, and this network takes multiples of {self._multiple} from "
                f"{self._least}; choose data.preprocess=resize_and_crop, or another data.load_size"
            )
        return resized(with_channels(pixels, self._channels[side]), size)

    def _drawn(self, pixels: Crop, rng: np.random.Generator) -> tuple[Size | None, bool]:
        """(where a crop begins, or None where nothing is cut, whether it is mirrored)."""
        config, at = self.config, None
        if config.crops:
            rooms = pixels.shape[0] - config.crop, pixels.shape[1] - config.crop
            at = int(rng.integers(0, rooms[0] + 1)), int(rng.integers(0, rooms[1] + 1))
        flip = bool(rng.integers(0, 2))
        return at, config.flip and flip

    def _cut(self, pixels: Crop, at: Size | None, flip: bool) -> Crop:
        if at is not None:
            side = self.config.crop
            pixels = pixels[at[0] : at[0] + side, at[1] : at[1] + side]
        return pixels[:, ::-1] if flip else pixels


def size_for(config: TranslationDataConfig, size: Size, *, multiple: int = 1) -> Size:
    """(height, width) of a picture -> of what crops are cut from, in a network that takes multiples of `multiple`.

    >>> size_for(TranslationDataConfig(preprocess="scale_width", load_size=100, crop=64), (30, 60))
    (64, 100)
    >>> size_for(TranslationDataConfig(preprocess="none"), (30, 61))
    (32, 60)
    """
    height, width = size
    if config.preprocess == "resize_and_crop":
        return config.load_size, config.load_size
    if config.preprocess in ("scale_width", "scale_width_and_crop"):
        return max(config.load_size * height // width, config.crop), config.load_size
    if config.preprocess == "none":
        base = max(_COARSE, multiple)
        return round(height / base) * base, round(width / base) * base
    return size


def resized(pixels: Crop, size: Size) -> Crop:
    """(h, w, 1 or 3) -> (*size, same): Pillow's bicubic; beyond 8 bits channel by channel, in float."""
    if pixels.shape[:2] == size:
        return pixels
    there = (size[1], size[0])
    if pixels.dtype == np.uint8:
        image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else np.ascontiguousarray(pixels))
        return np.asarray(image.resize(there, Image.Resampling.BICUBIC)).reshape(*size, pixels.shape[2])
    channels = np.moveaxis(pixels.astype(np.float32), 2, 0)
    images = [Image.fromarray(np.ascontiguousarray(each)).resize(there, Image.Resampling.BICUBIC) for each in channels]
    y = np.stack([np.asarray(image) for image in images], axis=2)
    if pixels.dtype == np.float32:
        return y
    return np.rint(y).clip(0, np.iinfo(pixels.dtype).max).astype(pixels.dtype)


def open_domains(config: TranslationDataConfig, *, aligned: bool) -> Domains:
    """Find both domains in `root`; DataError says what was looked for and what is there.

    `aligned`: partners must show the same scene; then folders of two domains are paired by name.
    """
    if not config.root:
        raise DataError("name the folder of pictures to translate between: --data DIR, or data.root")
    root = Path(config.root)
    if not root.is_dir():
        raise DataError(f"'{root}' is no folder; give the one that holds both domains, such as datasets/facades")
    layouts = _LAYOUTS if aligned else ("unaligned", *_LAYOUTS)
    wanted = layouts if config.layout == "auto" else (config.layout,)
    for layout in wanted:
        found = _aligned(root, config.phase) if layout == "aligned" else _two_folders(root, config.phase)
        if found is not None:
            return _opened(layout, found)
    raise DataError(
        f"'{root}' has no pictures in the layout {config.layout}: looked for {_sought(wanted, config.phase)}; found "
        f"{_listed(root)}; set data.layout or data.phase, or name another folder"
    )


_LAYOUTS: tuple[Literal["aligned", "folders", "unaligned"], ...] = ("aligned", "folders")
"""Those of pairs, in the order in which they are looked for."""


def _opened(layout: Literal["aligned", "folders", "unaligned"], found: Sequence[str]) -> Domains:
    a = open_pictures(found[0])
    if layout == "aligned":
        return Domains(layout=layout, a=a, b=a)
    b = open_pictures(found[1])
    if layout == "unaligned":
        return Domains(layout=layout, a=a, b=b)
    paired(b, a, 1)  # none of b may be alone either
    return Domains(layout=layout, a=a, b=paired(a, b, 1))


def _aligned(root: Path, phase: str) -> list[str] | None:
    """The folder of pictures side by side; of ROOT itself only what lies directly in it."""
    if (root / phase).is_dir():
        return [str(root / phase)]
    if any(file.suffix.lower() in READABLE and file.is_file() for file in root.iterdir()):
        return [f"{glob.escape(str(root))}/*"]
    return None


def _two_folders(root: Path, phase: str) -> list[str] | None:
    for a, b in ((root / f"{phase}A", root / f"{phase}B"), (root / "A" / phase, root / "B" / phase)):
        if a.is_dir() and b.is_dir():
            return [str(a), str(b)]
    return None


def _sought(layouts: Sequence[str], phase: str) -> str:
    one = f"{phase}/ or pictures in the folder itself"
    two = f"{phase}A/ with {phase}B/ or A/{phase}/ with B/{phase}/"
    return ", then for ".join(dict.fromkeys(one if layout == "aligned" else two for layout in layouts))


def _listed(root: Path) -> str:
    names = sorted(f"{each.name}/" if each.is_dir() else each.name for each in root.iterdir())
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}" if names else "nothing"


def _check_network(config: TranslationDataConfig, traits: Traits) -> None:
    """Refuse what no picture could be made to fit."""
    for channels in (traits.in_channels, traits.out_channels):
        if channels not in CHANNELS:
            raise DataError(f"pictures have 1 or 3 channels, and this network has {channels}; set config.*_channels")
    multiple = traits.multiple_of
    if config.crops and (config.crop % multiple or config.crop < traits.min_side):
        raise DataError(
            f"data.crop must be a multiple of {multiple} for this network, from {traits.min_side}; got {config.crop}"
        )
