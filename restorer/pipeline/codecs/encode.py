"""Writing: which format a name asks for, what each format can hold, and writers that take rows.

What a format cannot hold is refused before any pixel is computed (alpha in JPEG, floats anywhere but in TIFF), or
left out with a notice from `check_format` (16 bits rounded to 8, text in WebP).
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol, Self

import numpy as np
from PIL import features

from restorer.errors import PictureError, UnsupportedError, UsageError
from restorer.pipeline.codecs import exif as exif_block
from restorer.pipeline.codecs.atomic import AtomicFile, Output, StreamOutput
from restorer.pipeline.codecs.formats import FORMATS, WRITABLE, Format, format_named
from restorer.pipeline.codecs.gather import GatherEncoder
from restorer.pipeline.codecs.intake import shown
from restorer.pipeline.codecs.png import PngEncoder
from restorer.pipeline.codecs.tiff import TiffEncoder
from restorer.pipeline.picture_types import Picture, PictureInfo, Pixels, SourceInfo

BAND = 1 << 22
MOST_IN_MARKER = {"exif": 65527, "xmp": 65504, "text:Comment": 65533}
USUAL_GAMMA = 45455


class Encoder(Protocol):
    """Turns rows into a file's bytes."""

    def write_rows(self, rows: Pixels) -> None:
        """(h, W, S) of the picture's dtype."""

    def finish(self) -> None:
        """Write what is left."""

    def cancel(self) -> None:
        """Let go of threads and memory; harmless after `finish`."""


class RowWriter:
    """Takes a picture's rows from top to bottom; as a context manager it keeps the file only if all goes well."""

    def __init__(self, output: Output, encoder: Encoder, info: PictureInfo) -> None:
        self.info = info
        self._output, self._encoder = output, encoder
        self._left = info.size[0]
        self._open = True

    def write_rows(self, rows: Pixels) -> None:
        """(h, W, C), with one more channel where there is alpha, of the dtype that was announced."""
        if not self._open:
            raise ValueError("rows were given to a writer that is closed")
        width, samples = self.info.size[1], self.info.samples
        if rows.dtype != self.info.dtype or rows.shape[1:] != (width, samples) or len(rows) > self._left:
            want = f"at most {self._left} rows of {(width, samples)} {self.info.dtype}"
            raise ValueError(f"expected {want}, got {rows.shape} {rows.dtype}")
        self._encoder.write_rows(rows)
        self._left -= len(rows)

    def close(self) -> None:
        """Finish the file, bring it to the disk and give it its name; harmless when done before."""
        if not self._open:
            return
        try:
            if self._left:
                raise ValueError(f"{self._left} of {self.info.size[0]} rows are missing")
            self._encoder.finish()
            self._output.commit()
        finally:
            self.abort()

    def abort(self) -> None:
        """Leave nothing behind; harmless after `close`."""
        self._open = False
        self._encoder.cancel()
        self._output.abort()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


def format_for(path: str | Path | None, *, format: str | None = None, source: SourceInfo | None = None) -> str:
    """Name the format to write, a key of FORMATS: the one asked for, else the suffix's, else the source's, else PNG."""
    if format is not None:
        return format_named(format)
    suffix = Path(path).suffix.lower() if path is not None else ""
    if suffix in WRITABLE:
        return WRITABLE[suffix]
    if suffix:
        known_suffixes = ", ".join(known.suffixes[0] for known in FORMATS.values())
        raise UsageError(f"{shown(str(path))}: cannot write {suffix} files; use one of {known_suffixes}")
    return source.format if source is not None and source.format in FORMATS else "PNG"


def check_format(format: str, info: PictureInfo, *, quality: int | None = None) -> list[str]:
    """Refuse what the format cannot hold (UsageError with the cure); list what will be left out or rounded."""
    known = FORMATS[format]
    if format == "AVIF" and not features.check("avif"):
        raise UnsupportedError("this Pillow was built without AVIF; choose PNG or WebP, or install another Pillow")
    if quality is not None and not 1 <= quality <= 100:
        raise UsageError(f"quality must be from 1 to 100, got {quality}")
    if max(info.size) > known.max_side:
        raise UsageError(
            f"{format} holds at most {known.max_side} pixels a side, the picture would be"
            f" {info.size[1]} x {info.size[0]}; choose PNG or TIFF"
        )
    if info.alpha and not known.alpha:
        raise UsageError(f"{format} holds no transparency, and the picture has some; choose PNG, WebP or TIFF")
    if info.dtype.name == "float32" and "float32" not in known.dtypes:
        raise UsageError(f"{format} holds no floating-point samples, and the picture has them; choose TIFF")
    _, notices = _fitted(format, info)
    if info.dtype.name not in known.dtypes:
        notices.insert(0, f"{format} holds 8 bits: the 16-bit samples are rounded; choose PNG or TIFF to keep them")
    if quality is not None and not known.quality:
        notices.append(f"{format} loses nothing: quality {quality} is ignored")
    return notices


def open_writer(
    target: str | Path | BinaryIO,
    *,
    like: Picture | PictureInfo,
    format: str | None = None,
    quality: int | None = None,
    before_rename: Callable[[Path], None] | None = None,
) -> RowWriter:
    """Open a writer of rows for a picture like this one; the file appears under its name on `close`.

    An open stream gets all bytes at once, on `close`. PNG and TIFF need memory for a few rows only. `quality`, from 1
    to 100, is for JPEG, WebP (100: lossless) and AVIF; without it 95, 95 and 90.
    `before_rename` is given the whole temporary file before it gets its name; a stream has none.
    """
    info = like.info if isinstance(like, Picture) else like
    path = target if isinstance(target, str | Path) else None
    name = format_for(path, format=format, source=_kept_source(info))
    check_format(name, info, quality=quality)
    fitted, _ = _fitted(name, info)
    output: Output = (
        AtomicFile(target, before_rename=before_rename) if isinstance(target, str | Path) else StreamOutput(target)
    )
    try:
        encoder: Encoder
        if name == "PNG":
            encoder = PngEncoder(output, fitted)
        elif name == "TIFF":
            encoder = TiffEncoder(output, fitted)
        else:
            encoder = GatherEncoder(output, fitted, format=name, quality=quality)
    except BaseException:
        output.abort()
        raise
    return RowWriter(output, encoder, info)


def write_picture(
    picture: Picture, path: str | Path | BinaryIO, *, format: str | None = None, quality: int | None = None
) -> None:
    """Write a picture with all that travels beside it; nothing appears at `path` before it is whole."""
    with open_writer(path, like=picture, format=format, quality=quality) as writer:
        rows = max(1, BAND // (picture.size[1] * picture.info.samples))
        for top in range(0, picture.size[0], rows):
            writer.write_rows(_joined(picture, top, top + rows))


def _joined(picture: Picture, top: int, bottom: int) -> Pixels:
    """(h, W, C[+1]): a band of the picture, alpha last."""
    rows = picture.pixels[top:bottom]
    return rows if picture.alpha is None else np.concatenate([rows, picture.alpha[top:bottom, :, None]], axis=2)


def _kept_source(info: PictureInfo) -> SourceInfo:
    """The source, where its format can hold what the picture has become."""
    if info.dtype.name == "float32":
        return SourceInfo(format="TIFF")
    known = FORMATS.get(info.source.format)
    fits = known is not None and info.dtype.name in known.dtypes and (known.alpha or not info.alpha)
    return info.source if fits else SourceInfo()


def _fitted(format: str, info: PictureInfo) -> tuple[PictureInfo, list[str]]:
    """The picture's info with EXIF brought up to date, without what the format cannot hold, and what that was."""
    known = FORMATS[format]
    notices: list[str] = []
    meta = dict(info.meta)
    try:
        exif = exif_block.resized(meta.pop("exif", b""), size=info.size, dpi=_dpi_for_exif(format, info))
    except ValueError as error:
        raise PictureError(f"the EXIF that came with the picture is damaged ({error}); leave it out") from error
    if exif:
        meta["exif"] = exif
    icc = info.icc
    if icc is not None and icc[16:20] == b"GRAY" and not known.grey:
        icc = None
        notices.append(f"{format} stores grey as RGB: the grey colour profile is left out")
    if format == "JPEG":
        for key, most in MOST_IN_MARKER.items():
            if len(meta.get(key, b"")) > most:
                del meta[key]
                notices.append(f"JPEG holds at most {most} bytes of {key.removeprefix('text:')}: it is left out")
    kept = {key: value for key, value in meta.items() if _holds(known, key)}
    texts = [key.removeprefix("text:") for key in meta if key.startswith("text:") and key not in kept]
    if texts:
        notices.append(f"{format} has no place for these texts, they are left out: {', '.join(map(shown, texts))}")
    if format != "PNG" and _unusual_colour(meta) and icc is None:
        notices.append(f"{format} has no place for PNG's colour chunks: colours may look different")
    return replace(info, icc=icc, meta=kept), notices


def _dpi_for_exif(format: str, info: PictureInfo) -> tuple[float, float] | None:
    """Density goes into EXIF where there is EXIF, or where the format has no other place for it."""
    return info.dpi if "exif" in info.meta or not FORMATS[format].density else None


def _holds(known: Format, key: str) -> bool:
    if key.startswith("text:"):
        return known.texts == "all" or (known.texts == "comment" and key == "text:Comment")
    return not key.startswith("png:") or known.texts == "all"


def _unusual_colour(meta: Mapping[str, bytes]) -> bool:
    """Whether the colour chunks say anything else than sRGB."""
    gamma = meta.get("png:gAMA")
    return "png:cICP" in meta or (gamma is not None and abs(int.from_bytes(gamma, "big") - USUAL_GAMMA) > 100)
