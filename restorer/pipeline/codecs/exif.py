"""EXIF: the few tags that change when a picture does; all others stay the bytes they were.

An EXIF block is a small TIFF stream. A changed tag gets a new first directory at the end of the block, and the header
is pointed there: no other byte moves, so the maker's notes, which hold offsets of their own, stay readable.
"""

import re
import struct

from restorer.pipeline.codecs.ifd import (
    LONG,
    SHORT,
    Field,
    Header,
    Tree,
    directory_bytes,
    entry_places,
    fraction,
    intact,
    integers,
    rational,
    read_directory,
    read_header,
    read_tree,
    stream_bytes,
    swapped,
    tree_size,
    whole,
)
from restorer.pipeline.codecs.tags import TELLING, Tag

PREFIX = b"Exif\0\0"
LIMIT = 4 << 20
XMP_ORIENTATION = re.compile(rb'(tiff:Orientation(?:="|>))([0-9])')


def orientation_of(exif: bytes, xmp: bytes) -> int:
    """1 to 8 as EXIF says, or XMP where EXIF is silent; 1 where neither says anything that exists."""
    found: tuple[int, ...] = ()
    if exif:
        header = _header(exif)
        found = integers(read_directory(exif, header, header.first).get(Tag.ORIENTATION), header.order)
    match = XMP_ORIENTATION.search(xmp)
    if not found and match:
        found = (int(match[2]),)
    return found[0] if found and 1 <= found[0] <= 8 else 1


def density_of(exif: bytes) -> tuple[float, float] | None:
    """Pixels per inch (across, down), where the block gives them."""
    header = _header(exif)
    return density_in(dict(read_directory(exif, header, header.first)), header.order)


def density_in(tree: Tree, order: str) -> tuple[float, float] | None:
    """Pixels per inch (across, down) of a directory; None without them or without a unit of length."""
    across, down = rational(tree.get(Tag.ACROSS), order), rational(tree.get(Tag.DOWN), order)
    unit = integers(tree.get(Tag.DENSITY_UNIT), order) or (2,)
    inch = {2: 1.0, 3: 2.54}.get(unit[0])
    return (across * inch, down * inch) if inch and across > 0 and down > 0 else None


def density_fields(dpi: tuple[float, float], order: str) -> dict[int, Field]:
    """The tags for pixels per inch (across, down)."""
    across, down = (fraction(side, order) for side in dpi)
    return {Tag.ACROSS: across, Tag.DOWN: down, Tag.DENSITY_UNIT: whole(SHORT, [2], order)}


def upright(exif: bytes) -> bytes:
    """The block of a picture that has been turned upright: orientation 1, the old thumbnail gone."""
    header = _header(exif)
    places, after = entry_places(exif, header, header.first)
    exif = _without_thumbnail(exif, header, after)
    fields = read_directory(exif, header, header.first)
    changes: dict[int, Field] = {Tag.ORIENTATION: whole(SHORT, [1], header.order)} if Tag.ORIENTATION in fields else {}
    return _changed(exif, header, places, changes) if changes or after else exif


def upright_xmp(xmp: bytes) -> bytes:
    """XMP with orientation 1."""
    return XMP_ORIENTATION.sub(rb"\g<1>1", xmp)


def resized(exif: bytes, *, size: tuple[int, int], dpi: tuple[float, float] | None) -> bytes:
    """The block for a picture of `size` (height, width) and `dpi` (across, down); b"" in may give a new block."""
    if not exif:
        if dpi is None:
            return b""
        exif = stream_bytes({}, "<")
    header = _header(exif)
    places, _ = entry_places(exif, header, header.first)
    fields = read_directory(exif, header, header.first)
    changes = {
        tag: whole(LONG, [side], header.order) for tag, side in _sides(size, Tag.WIDTH, Tag.HEIGHT) if tag in fields
    }
    if dpi is not None:
        changes |= density_fields(dpi, header.order)
    exif = _resized_inside(exif, header, fields.get(Tag.EXIF), size)
    return _changed(exif, header, places, changes) if changes else exif


def from_tiff(tree: Tree, order: str) -> bytes:
    """Gather what a TIFF's directory says about the photograph into a block of its own; b"" where it says nothing."""
    telling: Tree = {tag: field for tag, field in intact(tree).items() if tag in TELLING}
    return stream_bytes(telling, order) if telling and tree_size(telling) <= LIMIT else b""


def for_tiff(exif: bytes) -> Tree:
    """The block's tags that a TIFF file carries in its own directory, in little-endian order."""
    header = _header(exif)
    tree = read_tree(exif, header, header.first)
    tree = {tag: field for tag, field in intact(tree).items() if tag in TELLING}
    return tree if header.order == "<" else swapped(tree)


def _header(exif: bytes) -> Header:
    header = read_header(exif)
    if header.big:
        raise ValueError("EXIF with 64-bit offsets")
    return header


def _sides(size: tuple[int, int], width: int, height: int) -> tuple[tuple[int, int], tuple[int, int]]:
    return (width, size[1]), (height, size[0])


def _without_thumbnail(exif: bytes, header: Header, after: int) -> bytes:
    """Wipe the thumbnail that the second directory describes; cut it off where it is the end of the block."""
    if not after:
        return exif
    try:
        fields = read_directory(exif, header, after)
    except ValueError:
        return exif
    start = integers(fields.get(Tag.THUMBNAIL), header.order)
    length = integers(fields.get(Tag.THUMBNAIL_LENGTH), header.order)
    if not start or not length or start[0] < after or start[0] + length[0] > len(exif):
        return exif
    rest = exif[start[0] + length[0] :]
    wiped = b"" if len(rest) < 8 else b"\0" * length[0] + rest
    return exif[: start[0]] + wiped


def _changed(exif: bytes, header: Header, places: list[int], changes: dict[int, Field]) -> bytes:
    """Append a first directory with `changes` in it, and no directory after it."""
    exif += b"\0" * (len(exif) % 2)
    here = len(exif)
    kept = [exif[place : place + 12] for place in places]
    kept = [entry for entry in kept if struct.unpack_from(header.order + "H", entry)[0] not in changes]
    values_at = here + 2 + 12 * (len(kept) + len(changes)) + 4
    # directory_bytes lays out the new fields as if they stood alone: entries first, then values
    alone = directory_bytes(dict(changes), header, values_at - (2 + 12 * len(changes) + 4))
    new = [alone[2 + 12 * i : 14 + 12 * i] for i in range(len(changes))]
    entries = sorted(kept + new, key=lambda entry: struct.unpack_from(header.order + "H", entry)[0])
    head = struct.pack(header.order + "H", len(entries))
    last = struct.pack(header.order + "L", 0)
    values = alone[2 + 12 * len(changes) + 4 :]
    return exif[:4] + struct.pack(header.order + "L", here) + exif[8:] + head + b"".join(entries) + last + values


def _resized_inside(exif: bytes, header: Header, pointer: Field | None, size: tuple[int, int]) -> bytes:
    """Overwrite PixelXDimension and PixelYDimension where they stand."""
    where = integers(pointer, header.order)
    if not where:
        return exif
    try:
        places, _ = entry_places(exif, header, where[0])
    except ValueError:
        return exif
    sides = dict(_sides(size, Tag.EXIF_WIDTH, Tag.EXIF_HEIGHT))
    patched = bytearray(exif)
    for place in places:
        (tag,) = struct.unpack_from(header.order + "H", exif, place)
        if tag in sides:
            struct.pack_into(header.order + "HHLL", patched, place, tag, LONG, 1, sides[tag])
    return bytes(patched)
