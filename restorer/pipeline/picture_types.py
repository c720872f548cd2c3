"""What a picture is inside the house: pixels as they were in the file, and everything that travels beside them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restorer.errors import PictureError

Pixels = NDArray[Any]
"""(H, W, C) or (H, W) of uint8, uint16 or float32."""

PEAKS: dict[str, float] = {"uint8": 255, "uint16": 65535, "float32": 1.0}
"""White, per dtype. Float pictures keep scene values, so theirs may lie above it."""


@dataclass(frozen=True, kw_only=True)
class SourceInfo:
    """What the file was, before anything was done to it."""

    format: str = ""
    """"PNG", "JPEG", ...; "" for a picture that did not come from a file."""
    mode: str = ""
    """The file's own pixel kind, in Pillow's words: "RGB", "P", "CMYK", "I;16"."""
    bits: int = 0
    """Bits per sample in the file; 0 where there is no file."""
    frames: int = 1
    notices: tuple[str, ...] = ()
    """What could not be kept, one sentence each, for the caller to show."""


@dataclass(frozen=True, kw_only=True)
class PictureInfo:
    """All of a picture but its pixels: what a writer must know before the first row."""

    size: tuple[int, int]
    """(height, width)"""
    channels: int
    alpha: bool
    dtype: np.dtype[Any]
    icc: bytes | None = None
    dpi: tuple[float, float] | None = None
    meta: Mapping[str, bytes] = field(default_factory=dict)
    source: SourceInfo = field(default_factory=SourceInfo)

    @property
    def samples(self) -> int:
        """Colour channels, and one more where there is alpha."""
        return self.channels + self.alpha


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """Pixels upright and as deep as in the file, with alpha, profile, density and metadata."""

    pixels: Pixels
    """(H, W, C), C-contiguous; C is 1 for grey, 3 for RGB; uint8, uint16 or float32."""
    alpha: Pixels | None = None
    """(H, W) of the same dtype; not multiplied into the colour."""
    icc: bytes | None = None
    dpi: tuple[float, float] | None = None
    """Pixels per inch (across, down)."""
    meta: Mapping[str, bytes] = field(default_factory=dict)
    """"exif" (a TIFF stream, upright), "xmp", "text:<keyword>" in UTF-8, and "png:<chunk>" for PNG's colour chunks."""
    source: SourceInfo = field(default_factory=SourceInfo)

    def __post_init__(self) -> None:
        _check(self.pixels, self.alpha)
        object.__setattr__(self, "pixels", np.ascontiguousarray(self.pixels))
        if self.alpha is not None:
            object.__setattr__(self, "alpha", np.ascontiguousarray(self.alpha))

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)"""
        return self.pixels.shape[0], self.pixels.shape[1]

    @property
    def channels(self) -> int:
        """1 for grey, 3 for RGB."""
        return self.pixels.shape[2]

    @property
    def peak(self) -> float:
        """White: 255, 65535 or 1.0."""
        return PEAKS[self.pixels.dtype.name]

    @property
    def info(self) -> PictureInfo:
        """All but the pixels; for another size, `dataclasses.replace(picture.info, size=(h, w))`."""
        return PictureInfo(
            size=self.size,
            channels=self.channels,
            alpha=self.alpha is not None,
            dtype=self.pixels.dtype,
            icc=self.icc,
            dpi=self.dpi,
            meta=self.meta,
            source=self.source,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """One picture of an animation or of a file with several pages."""

    picture: Picture
    """Composed: what is seen at this moment, not what changed."""
    duration: float | None = None
    """Seconds on the screen; None for pages."""
    disposal: str = "none"
    """What the file does with the frame afterwards: none, background or previous."""


def without_channel_words(meta: Mapping[str, bytes]) -> dict[str, bytes]:
    """Leave out what PNG says of a picture's channels: where grey becomes colour, or colour grey, it is untrue."""
    return {key: value for key, value in meta.items() if not key.startswith("png:")}


def _check(pixels: Pixels, alpha: Pixels | None) -> None:
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or 0 in pixels.shape:
        raise PictureError(
            f"pixels have the shape {pixels.shape}; give (height, width, 1) for grey or (height, width, 3) for RGB"
        )
    if pixels.dtype.name not in PEAKS:
        raise PictureError(f"pixels are {pixels.dtype}; give one of {', '.join(PEAKS)}")
    if alpha is not None and (alpha.shape != pixels.shape[:2] or alpha.dtype != pixels.dtype):
        raise PictureError(
            f"alpha is {alpha.shape} {alpha.dtype}; give one of the picture's own: {pixels.shape[:2]} {pixels.dtype}"
        )
