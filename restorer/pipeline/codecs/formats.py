"""The formats that are written: their names, suffixes and what each can hold. Needs only the standard library."""

from dataclasses import dataclass

from restorer.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Format:
    """What files of one format can hold."""

    suffixes: tuple[str, ...]
    """Of its files, the usual one first."""
    dtypes: tuple[str, ...] = ("uint8",)
    alpha: bool = True
    max_side: int = (1 << 31) - 1
    grey: bool = True
    density: bool = True
    """Has a place of its own for pixels per inch; else EXIF carries them."""
    quality: bool = False
    texts: str = ""
    """Which text it holds: "all", "comment" or none."""


FORMATS: dict[str, Format] = {
    "PNG": Format(suffixes=(".png",), dtypes=("uint8", "uint16"), texts="all"),
    "JPEG": Format(
        suffixes=(".jpg", ".jpeg", ".jpe", ".jfif"), alpha=False, max_side=65500, quality=True, texts="comment"
    ),
    "WEBP": Format(suffixes=(".webp",), max_side=16383, grey=False, density=False, quality=True),
    "TIFF": Format(suffixes=(".tif", ".tiff"), dtypes=("uint8", "uint16", "float32")),
    "AVIF": Format(suffixes=(".avif",), max_side=32768, density=False, quality=True),
}
WRITABLE = {suffix: name for name in FORMATS for suffix in FORMATS[name].suffixes}
"""Suffix of an output -> its format."""
_ALIASES = {"JPG": "JPEG", "TIF": "TIFF"}


def format_named(name: str) -> str:
    """A format's name as users write it -> its key in FORMATS.

    >>> format_named("jpg"), format_named("PNG")
    ('JPEG', 'PNG')
    """
    upper = name.upper()
    key = _ALIASES.get(upper, upper)
    if key not in FORMATS:
        raise UsageError(f"no format named '{name}'; use {', '.join(known.lower() for known in FORMATS)}")
    return key
