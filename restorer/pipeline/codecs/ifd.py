"""TIFF's directories of tags, as they stand in TIFF files and in EXIF: read and written without interpretation.

A `Tree` is one directory: tag -> field, or tag -> another directory where the tag is a pointer to one.
Values stay the bytes they were, in the byte order of where they came from; `order` is struct's "<" or ">".
"""

import struct
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple, TypeAlias

from restorer.pipeline.codecs.tags import POINTERS

SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
UNITS = {3: 2, 4: 4, 5: 4, 8: 2, 9: 4, 10: 4, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
INTEGERS = {1: "B", 3: "H", 4: "L", 6: "b", 8: "h", 9: "l", 13: "L", 16: "Q", 17: "q", 18: "Q"}
BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED, LONG8 = 1, 2, 3, 4, 5, 7, 16
MOST_NUMBERS = 1 << 20


class Header(NamedTuple):
    """How a TIFF stream begins."""

    order: str
    big: bool
    first: int
    """Where the first directory is."""


class Field(NamedTuple):
    """One tag's value: `items` numbers or characters of `kind`, as bytes."""

    kind: int
    items: int
    value: memoryview


Tree: TypeAlias = dict[int, "Field | Tree"]


def read_header(data: bytes) -> Header:
    """Read the first 8 or 16 bytes of a TIFF stream; ValueError where it is none."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 8:
        raise ValueError("no TIFF header")
    version, first = struct.unpack_from(order + "HL", data, 2)
    if version == 42:
        return Header(order, False, first)
    if version != 43 or len(data) < 16:
        raise ValueError("no TIFF header")
    return Header(order, True, struct.unpack_from(order + "Q", data, 8)[0])


def entry_places(data: bytes, header: Header, offset: int) -> tuple[list[int], int]:
    """Where the entries of the directory at `offset` begin, and where the directory after it is (0: none)."""
    count_form, width, next_form = ("Q", 20, "Q") if header.big else ("H", 12, "L")
    try:
        (count,) = struct.unpack_from(header.order + count_form, data, offset)
        start = offset + struct.calcsize(header.order + count_form)
        if count > (len(data) - start) // width:
            raise ValueError("a TIFF directory that reaches past the end of the data")
        places = [start + width * i for i in range(count)]
        (after,) = struct.unpack_from(header.order + next_form, data, start + width * count)
    except struct.error:
        raise ValueError("a TIFF directory that reaches past the end of the data") from None
    return places, after


def read_directory(data: bytes, header: Header, offset: int) -> dict[int, Field]:
    """Read one directory; a field that reaches past the end of the data comes empty, one of unknown kind not at all."""
    view = memoryview(data)
    fields: dict[int, Field] = {}
    inline = 8 if header.big else 4
    form = header.order + ("HHQ" if header.big else "HHL")
    for place in entry_places(data, header, offset)[0]:
        tag, kind, count = struct.unpack_from(form, data, place)
        size = SIZES.get(kind, 0) * count
        start = place + struct.calcsize(form)
        if size > inline:
            (start,) = struct.unpack_from(header.order + ("Q" if header.big else "L"), data, start)
        if size:
            whole_field = Field(kind, count, view[start : start + size])
            fields.setdefault(tag, whole_field if start + size <= len(data) else Field(kind, 0, view[:0]))
    return fields


def read_tree(data: bytes, header: Header, offset: int, *, depth: int = 3) -> Tree:
    """Read a directory and the EXIF, GPS and interoperability directories that it points to."""
    tree: Tree = {}
    for tag, field in read_directory(data, header, offset).items():
        if tag not in POINTERS:
            tree[tag] = field
            continue
        where = integers(field, header.order)
        try:
            tree[tag] = read_tree(data, header, where[0], depth=depth - 1) if where and depth else {}
        except ValueError:
            tree[tag] = field._replace(items=0)  # a pointer to nowhere
    return tree


def integers(field: Field | Tree | None, order: str) -> tuple[int, ...]:
    """The whole numbers of a field; () where it holds none, or more than any picture needs."""
    if not isinstance(field, Field) or field.kind not in INTEGERS or field.items > MOST_NUMBERS:
        return ()
    return struct.unpack(f"{order}{field.items}{INTEGERS[field.kind]}", field.value)


def rational(field: Field | Tree | None, order: str) -> float:
    """The first value of a field of fractions; 0.0 where it holds none."""
    if not isinstance(field, Field) or field.kind != RATIONAL or not field.items:
        return 0.0
    over, under = struct.unpack_from(order + "LL", field.value)
    return over / under if under else 0.0


def whole(kind: int, values: Sequence[int], order: str) -> Field:
    """Make a field of whole numbers."""
    return Field(kind, len(values), memoryview(struct.pack(f"{order}{len(values)}{INTEGERS[kind]}", *values)))


def fraction(value: float, order: str) -> Field:
    """Make a field of one fraction, to a thousandth."""
    near = Fraction(min(max(value, 0.001), 4e6)).limit_denominator(1000)
    return Field(RATIONAL, 1, memoryview(struct.pack(order + "LL", near.numerator, near.denominator)))


def swapped(tree: Tree) -> Tree:
    """Turn every value of a directory into the other byte order."""
    turned: Tree = {}
    for tag, field in tree.items():
        if not isinstance(field, Field):
            turned[tag] = swapped(field)
            continue
        unit = UNITS.get(field.kind, 1)
        value = bytes(field.value)
        parts = [value[i : i + unit][::-1] for i in range(0, len(value), unit)]
        turned[tag] = Field(field.kind, field.items, memoryview(b"".join(parts)))
    return turned


def directory_bytes(tree: Tree, header: Header, at: int, *, after: int = 0) -> bytes:
    """Write a directory that will stand at offset `at`: entries, then values, then the directories it points to."""
    word, inline = ("Q", 8) if header.big else ("L", 4)
    entries, tail = b"", b""
    base = at + (8 + 20 * len(tree) + 8 if header.big else 2 + 12 * len(tree) + 4)
    for tag in sorted(tree):
        field = tree[tag]
        if not isinstance(field, Field):
            tail += b"\0" * (-(base + len(tail)) % 8)
            inner = directory_bytes(field, header, base + len(tail))
            field = whole(LONG8 if header.big else LONG, [base + len(tail)], header.order)
            tail += inner
        value = bytes(field.value)
        if len(value) > inline:
            tail += b"\0" * (-(base + len(tail)) % 8)
            place = struct.pack(header.order + word, base + len(tail))
            tail += value
            value = place
        entries += struct.pack(header.order + "HH" + word, tag, field.kind, field.items) + value.ljust(inline, b"\0")
    count = struct.pack(header.order + ("Q" if header.big else "H"), len(tree))
    return count + entries + struct.pack(header.order + word, after) + tail


def stream_bytes(tree: Tree, order: str) -> bytes:
    """Write a whole small TIFF stream, as EXIF wants it: header and one directory."""
    mark = b"II" if order == "<" else b"MM"
    return mark + struct.pack(order + "HL", 42, 8) + directory_bytes(tree, Header(order, False, 8), 8)


def intact(tree: Tree) -> Tree:
    """The fields whose values, and the directories that they point to, were within the data."""
    whole_tree = {tag: field if isinstance(field, Field) else intact(field) for tag, field in tree.items()}
    return {tag: field for tag, field in whole_tree.items() if not isinstance(field, Field) or field.items}


def tree_size(tree: Tree) -> int:
    """Bytes that the values of a tree take together."""
    return sum(len(f.value) if isinstance(f, Field) else tree_size(f) for f in tree.values())
