"""PyTorch's checkpoint files: the zip form (stored members, checksums) and the older row of pickles.

Both come down to one pickle program and to places in the file where rows of numbers lie.
"""

import io
import logging
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from restorer.errors import UnsafeWeightsError, WeightsError
from restorer.weights.pickles import PROGRAM_LIMIT, Storage, StoredTensor, run_pickle
from restorer.weights.tensors import COUNT_LIMIT, damaged, read_flat, shown

log = logging.getLogger(__name__)

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_CHUNK = 2**20
_TABLE_LIMIT = 32 * 2**20
_SHARED_LIMIT = 8
"""Tensors may show their storages this many times over (tied weights)..."""
_SLACK = 64 * 2**20
"""...and this many bytes more; so many bytes more than all storages may be copied, too."""
_SMALL_MEMBERS = frozenset({"version", "byteorder", ".data/serialization_id", ".format_version", ".storage_alignment"})


@dataclass(frozen=True, kw_only=True)
class TorchFile:
    """An open checkpoint: what its program made, and at which byte of the file each storage begins."""

    tree: object
    places: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class _Member:
    """One stored member of a zip file: its data are `size` bytes from `at`; its header begins at `head`."""

    head: int
    at: int
    size: int
    crc: int


def load_tensors(
    file: io.BufferedReader, places: Mapping[str, int], wanted: Mapping[str, StoredTensor]
) -> dict[str, Tensor]:
    """Read the storages that the `wanted` tensors show, each once; contiguous tensors share them, others are copied."""
    storages = {stored.storage.key: stored.storage for stored in wanted.values()}
    room = sum(storage.count * storage.dtype.itemsize for storage in storages.values())
    if sum(stored.size for stored in wanted.values()) > room * _SHARED_LIMIT + _SLACK or len(wanted) > COUNT_LIMIT:
        raise WeightsError("has more tensors than its numbers account for; it is damaged or hostile")
    flats = {key: read_flat(file, at=places[key], count=s.count, dtype=s.dtype) for key, s in storages.items()}
    tensors = {}
    for name, stored in wanted.items():
        view = torch.as_strided(flats[stored.storage.key], stored.shape, stored.strides, stored.offset)
        room -= 0 if view.is_contiguous() else stored.size
        if room < -_SLACK:
            raise WeightsError(f"tensor '{shown(name)}' overlaps others; it is damaged or hostile")
        tensors[name] = view.contiguous()
    return tensors


def open_legacy(file: io.BufferedReader, size: int) -> TorchFile:
    """Read the form before PyTorch 1.6: five pickles (magic, version, machine, content, keys), then the storages."""
    file.seek(0)
    if run_pickle(file).tree != _LEGACY_MAGIC or run_pickle(file).tree != _LEGACY_PROTOCOL:
        raise UnsafeWeightsError(
            "is a pickle, but not one of PyTorch's; convert it to safetensors with a tool you trust"
        )
    machine = run_pickle(file).tree
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise WeightsError("was written on a big-endian machine; save it again on a little-endian one")
    content = run_pickle(file)
    keys = run_pickle(file).tree
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise damaged("its list of storages is not one")
    if len(keys) != len(content.storages) or set(keys) != set(content.storages):
        raise damaged("its list of storages does not fit its content")
    places = _legacy_places(file, size, [content.storages[key] for key in keys])
    return TorchFile(tree=content.tree, places=places)


def _legacy_places(file: io.BufferedReader, size: int, storages: list[Storage]) -> dict[str, int]:
    """Walk along the storages, each led by its count; they must fill the file."""
    places = {}
    at = file.tell()
    for storage in storages:
        file.seek(at)
        if file.read(8) != struct.pack("<q", storage.count):
            raise damaged("a row of numbers has another length than announced")
        places[storage.key] = at + 8
        at += 8 + storage.count * storage.dtype.itemsize
        if at > size:
            raise damaged("the file ends within its numbers")
    if at != size:
        raise damaged("more follows after its numbers")
    return places


def open_zip(file: io.BufferedReader, size: int) -> TorchFile:
    """Read PyTorch's form since 1.6: a zip file of stored members. Every member's checksum is checked."""
    members = _without_folder(_read_directory(file, size))
    _check_checksums(file, members)
    if _small(file, members.get("byteorder"), b"little") != b"little":
        raise WeightsError("was written on a big-endian machine; save it again on a little-endian one")
    program = members["data.pkl"]
    if program.size > PROGRAM_LIMIT:
        raise WeightsError(f"has a pickle program of more than {PROGRAM_LIMIT:,} bytes; it is damaged or hostile")
    file.seek(program.at)
    content = run_pickle(io.BytesIO(file.read(program.size)))
    places = {}
    for key, storage in content.storages.items():
        member = members.get(f"data/{key}")
        if member is None or member.size < storage.count * storage.dtype.itemsize:
            raise damaged(f"the numbers of storage '{shown(key)}' are missing")
        places[key] = member.at
    return TorchFile(tree=content.tree, places=places)


def _small(file: io.BufferedReader, member: _Member | None, default: bytes) -> bytes:
    if member is None:
        return default
    file.seek(member.at)
    return file.read(min(member.size, 100))


def _read_directory(file: io.BufferedReader, size: int) -> dict[str, _Member]:
    """Read the table at the end of a zip file. Written here since zipfile takes memory for a hostile table unasked."""
    file.seek(max(size - 22, 0))
    end = file.read(22)
    if len(end) != 22 or end[:4] != b"PK\5\6" or end[20:] != b"\0\0":
        raise damaged("a zip file without a table at its end")
    count, length, start = struct.unpack("<HII", end[10:20])
    if count == 0xFFFF or length > _TABLE_LIMIT or start + length > size:
        raise damaged("its zip table does not fit the file")
    file.seek(start)
    table = file.read(length)
    members: dict[str, _Member] = {}
    at = 0
    for _ in range(count):
        if table[at : at + 4] != b"PK\1\2" or len(table) < at + 46:
            raise damaged("its zip table is broken")
        name_length, extra_length, note_length = struct.unpack("<HHH", table[at + 28 : at + 34])
        name = table[at + 46 : at + 46 + name_length]
        _add_member(file, members, table[at : at + 46], name)
        at += 46 + name_length + extra_length + note_length
    if at != length:
        raise damaged("its zip table is broken")
    _check_apart(members, start)
    return members


def _add_member(file: io.BufferedReader, members: dict[str, _Member], row: bytes, name: bytes) -> None:
    """Read one row of the table and the local header it points at; the two must agree."""
    flags, method = struct.unpack("<HH", row[8:12])
    crc, stored, size = struct.unpack("<III", row[16:28])
    head = struct.unpack("<I", row[42:46])[0]
    file.seek(head)
    local = file.read(30)
    if len(local) != 30 or local[:4] != b"PK\3\4" or file.read(len(name)) != name:
        raise damaged("its zip table and its members differ")
    text = name.decode("utf-8", errors="replace")
    if flags & 1 or method or stored != size or local[8:10] != row[10:12]:
        raise WeightsError(
            f"has the member '{shown(text)}' compressed or encrypted, which PyTorch never writes; save it again"
        )
    if text in members:
        raise WeightsError(f"has the member '{shown(text)}' twice; it is damaged or hostile")
    at = head + 30 + sum(struct.unpack("<HH", local[26:30]))
    members[text] = _Member(head=head, at=at, size=size, crc=crc)


def _check_apart(members: Mapping[str, _Member], end: int) -> None:
    """No two members may share bytes, or a small file could hold a large one."""
    at = 0
    for member in sorted(members.values(), key=lambda m: m.head):
        if member.head < at:
            raise damaged("members of its zip file overlap")
        at = member.at + member.size
    if at > end:
        raise damaged("a member of its zip file reaches into the table")


def _without_folder(members: Mapping[str, _Member]) -> dict[str, _Member]:
    """Take away the folder that all names begin with, and refuse zip files that are no plain checkpoint."""
    folder = next(iter(members), "").split("/")[0] + "/"
    inner = {name.removeprefix(folder): member for name, member in members.items()}
    for name in inner:
        _refuse_other_zip(name)
    if "data.pkl" not in inner or not all(name.startswith(folder) for name in members):
        raise WeightsError("is a zip file, but not a PyTorch checkpoint; give the weights file itself")
    for name in inner:
        if name != "data.pkl" and name not in _SMALL_MEMBERS and not name.removeprefix("data/").isdecimal():
            raise WeightsError(f"has a member '{shown(name)}', which PyTorch does not write; save it again")
    return inner


def _refuse_other_zip(name: str) -> None:
    if name.endswith((".npy", ".npz")):
        raise WeightsError("is a NumPy archive; convert it to safetensors")
    if name.startswith("code/") or name in {"constants.pkl", "bytecode.pkl"}:
        raise UnsafeWeightsError("is a TorchScript program, not weights; save its state_dict instead")
    if name in {"archive_format", "archive_version"} or name.startswith(("models/", "serialized_")):
        raise UnsafeWeightsError("is an exported program (.pt2), not weights; save the state_dict instead")


def _check_checksums(file: io.BufferedReader, members: Mapping[str, _Member]) -> None:
    """Compare every member with its CRC-32. PyTorch can be told to write none: then all are zero, which is logged."""
    if all(member.crc == 0 for member in members.values()):
        log.warning("the checkpoint was saved without checksums; damage to its numbers cannot be seen")
        return
    for name, member in members.items():
        crc = 0
        for chunk in _chunks(file, member):
            crc = zlib.crc32(chunk, crc)
        if crc != member.crc:
            raise damaged(f"the checksum of '{shown(name)}' is wrong")


def _chunks(file: io.BufferedReader, member: _Member) -> Iterator[bytes]:
    file.seek(member.at)
    left = member.size
    while left and (chunk := file.read(min(left, _CHUNK))):
        left -= len(chunk)
        yield chunk
