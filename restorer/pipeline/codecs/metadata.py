"""What travels beside the pixels, out of Pillow's opened image: density, EXIF, XMP, text and PNG's colour chunks."""

from typing import NamedTuple

from PIL.ImageFile import ImageFile

from restorer.pipeline.codecs import exif as exif_block

XMP_LIMIT = 4 << 20
COLOUR_CHUNKS = (b"gAMA", b"cHRM", b"sRGB", b"cICP")
RAW_PROFILE = "Raw profile type "


class Metadata(NamedTuple):
    """Of one file; `meta` as in Picture, already upright."""

    meta: dict[str, bytes]
    dpi: tuple[float, float] | None
    orientation: int
    notices: tuple[str, ...] = ()


def read_metadata(image: ImageFile, data: bytes, kind: str) -> Metadata:
    """Collect all of it from an image that Pillow has decoded."""
    meta = {f"text:{keyword}": text.encode() for keyword, text in _texts(image, kind).items()}
    if kind == "PNG":
        meta |= _png_colour(data)
    exif, xmp = _exif(image), _xmp(image)
    return finish_metadata(meta, exif, xmp, _density(image, kind))


def finish_metadata(
    meta: dict[str, bytes], exif: bytes, xmp: bytes, dpi: tuple[float, float] | None, *, orientation: int | None = None
) -> Metadata:
    """Add EXIF and XMP to `meta`, made upright; a damaged block is dropped, with a notice."""
    notices: list[str] = []
    if len(xmp) > XMP_LIMIT:
        notices.append(f"the XMP was dropped: it is over {XMP_LIMIT >> 20} MiB")
        xmp = b""
    try:
        found = exif_block.orientation_of(exif, xmp)
        if exif:
            dpi = dpi or exif_block.density_of(exif)
            meta["exif"] = exif_block.upright(exif)
    except ValueError:
        notices.append("the EXIF was dropped: it is damaged")
        found = exif_block.orientation_of(b"", xmp)
    if xmp:
        meta["xmp"] = exif_block.upright_xmp(xmp)
    orientation = orientation or found
    if dpi is not None and orientation >= 5:
        dpi = dpi[1], dpi[0]
    return Metadata(meta, dpi, orientation, tuple(notices))


def _texts(image: ImageFile, kind: str) -> dict[str, str]:
    """PNG's text chunks, or the one comment that a JPEG or GIF may hold."""
    if kind == "PNG":
        found = {str(k): str(v) for k, v in getattr(image, "text", {}).items()}
        return {k: v for k, v in found.items() if not k.startswith((RAW_PROFILE, "XML:com.adobe.xmp"))}
    comment = image.info.get("comment")
    if not isinstance(comment, bytes) or not comment.strip(b"\0"):
        return {}
    try:
        return {"Comment": comment.rstrip(b"\0").decode()}
    except UnicodeDecodeError:
        return {"Comment": comment.rstrip(b"\0").decode("latin-1")}


def _exif(image: ImageFile) -> bytes:
    """The block without its prefix; older programs hid it in a text chunk, in hexadecimal."""
    found = image.info.get("exif")
    if found is None and RAW_PROFILE + "exif" in image.info:
        lines = str(image.info[RAW_PROFILE + "exif"]).split("\n")
        try:
            found = bytes.fromhex("".join(lines[3:]))
        except ValueError:
            found = b"damaged"
    if not isinstance(found, bytes):
        return b""
    return found.removeprefix(exif_block.PREFIX)


def _xmp(image: ImageFile) -> bytes:
    found = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
    return found if isinstance(found, bytes) else str(found).encode()


def _density(image: ImageFile, kind: str) -> tuple[float, float] | None:
    """From the file's own header; JPEG's only where a unit of length is given."""
    found = image.info.get("dpi")
    if kind == "JPEG":
        inch = {1: 1.0, 2: 2.54}.get(image.info.get("jfif_unit", 0))
        across, down = image.info.get("jfif_density", (0, 0))
        found = (across * inch, down * inch) if inch else None
    if not isinstance(found, tuple) or not all(0 < side < 1e6 for side in found):
        return None
    return float(found[0]), float(found[1])


def _png_colour(data: bytes) -> dict[str, bytes]:
    """The chunks before the pixels that say what their colours mean."""
    found: dict[str, bytes] = {}
    at = 8
    while at + 8 <= len(data) and data[at + 4 : at + 8] != b"IDAT":
        length, name = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if name in COLOUR_CHUNKS and length <= 32:
            found["png:" + name.decode()] = data[at + 8 : at + 8 + length]
        at += 12 + length
    return found
