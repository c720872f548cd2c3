"""Safetensors files: read strictly, written whole or not at all.

A file is eight bytes of header length, a JSON header, and the numbers. Files of ours say in their metadata what the
network must know (`restorer.facts`) and the SHA-256 of everything (`restorer.sha256`: tensor name -> hash of kind,
shape and bytes; "__metadata__" -> hash of the other metadata), so that a single wrong bit is refused.
"""

import hashlib
import io
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from restorer.errors import WeightsError
from restorer.weights.tensors import (
    COUNT_LIMIT,
    NAME_LIMIT,
    check_naturals,
    check_shape,
    check_weights,
    damaged,
    read_flat,
    shown,
)
from restorer.weights.whole import write_whole

HEADER_LIMIT = 4 * 2**20
"""Longest header, in bytes; a tensor takes about 200."""
_METADATA = "__metadata__"
_FACTS = "restorer.facts"
_HASHES = "restorer.sha256"
_HALF_LETTER = re.compile("[\ud800-\udfff]")
"""What JSON can spell and UTF-8 cannot: one half of a letter that UTF-16 writes in two."""
_KINDS = {
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """One tensor of the header: bytes `start` to `stop` after the header."""

    name: str
    kind: str
    shape: tuple[int, ...]
    start: int
    stop: int


def read_safetensors(file: io.BufferedReader, size: int) -> tuple[dict[str, Tensor], dict[str, object]]:
    """Read all tensors, and the facts where the file is one of ours."""
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if length > min(HEADER_LIMIT, size - 8):
        raise WeightsError(
            f"has a header of {length:,} bytes, more than the file or the limit allows; it is damaged or hostile"
        )
    header = _parse(file.read(length))
    metadata = header.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise damaged("its metadata are not texts")
    entries = [_read_entry(name, row) for name, row in header.items()]
    _check_layout(entries, size - 8 - length)
    weights = {e.name: _read_tensor(file, e, 8 + length) for e in entries}
    return weights, _check_hashes(weights, metadata)


def write_safetensors(path: Path, weights: Mapping[str, Tensor], facts: Mapping[str, object]) -> None:
    """Write `weights` with `facts` (plain JSON values) and hashes; `path` appears only when the file is whole."""
    check_weights(weights)
    ordered = sorted(weights, key=lambda name: -weights[name].element_size())  # so that every tensor is aligned
    dense = {name: weights[name].detach().cpu().contiguous() for name in ordered}
    text = json.dumps(dict(facts), allow_nan=False, sort_keys=True)
    metadata = {"format": "pt", _FACTS: text}
    hashes = {name: _hash(tensor) for name, tensor in dense.items()} | {_METADATA: _hash_texts(metadata)}
    header: dict[str, object] = {_METADATA: metadata | {_HASHES: json.dumps(hashes)}}
    at = 0
    for name, tensor in dense.items():
        stop = at + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _kind(tensor), "shape": list(tensor.shape), "data_offsets": [at, stop]}
        at = stop
    lead = json.dumps(header, separators=(",", ":")).encode()
    lead += b" " * (-len(lead) % 8)
    if len(lead) > HEADER_LIMIT:
        raise WeightsError(
            f"cannot write {len(dense):,} tensors: their header would be longer than {HEADER_LIMIT:,} bytes"
        )
    write_whole(path, [len(lead).to_bytes(8, "little"), lead, *(_bytes(tensor) for tensor in dense.values())])


def _parse(text: bytes, *, is_header: bool = True) -> dict[str, object]:
    """Read a JSON object; a key given twice, an endless one, NaN, half letters and endless nesting are refused."""
    hook = _unique_texts if is_header else _unique
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=hook, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise damaged("its header is not JSON") from None
    if not isinstance(header, dict):
        raise damaged("its header is not a table")
    return header


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise WeightsError("names one thing twice in its header; it is damaged or hostile")
    for name, _ in pairs:
        if len(name) > NAME_LIMIT:
            raise damaged(f"its header has a name of {len(name):,} letters; at most {NAME_LIMIT:,} are read")
        if _HALF_LETTER.search(name):
            raise damaged(f"'{shown(name)}' in its header is no text")
    return table


def _unique_texts(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """As `_unique`; values must be text, too, as those of facts need not: they may be paths that are none."""
    for _, value in pairs:
        if isinstance(value, str) and _HALF_LETTER.search(value):
            raise damaged(f"'{shown(value)}' in its header is no text")
    return _unique(pairs)


def _no_constant(name: str) -> object:
    raise ValueError(name)


def _read_entry(name: str, row: object) -> _Entry:
    if not isinstance(row, dict) or set(row) != {"dtype", "shape", "data_offsets"}:
        raise damaged(f"the header's entry '{shown(name)}' is no tensor")
    kind = row["dtype"]
    if not isinstance(kind, str) or kind not in _KINDS:
        raise WeightsError(
            f"tensor '{shown(name)}' is of kind {shown(str(kind))}; convert it to one of {', '.join(_KINDS)}"
        )
    offsets = check_naturals(row["data_offsets"])
    if len(offsets) != 2 or offsets[0] > offsets[1]:
        raise damaged(f"the place of tensor '{shown(name)}' is no place")
    count, rest = divmod(offsets[1] - offsets[0], _KINDS[kind].itemsize)
    shape = check_shape(row["shape"], most=count)
    if rest or math.prod(shape) != count:
        raise damaged(f"the shape of tensor '{shown(name)}' does not fit its bytes")
    return _Entry(name=name, kind=kind, shape=shape, start=offsets[0], stop=offsets[1])


def _check_layout(entries: list[_Entry], room: int) -> None:
    """Tensors must fill the file: no overlap, no hole, nothing left."""
    if len(entries) > COUNT_LIMIT:
        raise WeightsError(f"holds {len(entries):,} tensors; at most {COUNT_LIMIT:,} are read")
    at = 0
    for entry in sorted(entries, key=lambda e: (e.start, e.stop)):
        if entry.start != at:
            raise damaged(f"tensor '{shown(entry.name)}' does not begin where the one before it ends")
        at = entry.stop
    if at != room:
        raise damaged(f"{room:,} bytes follow its header where {at:,} are announced")


def _read_tensor(file: io.BufferedReader, entry: _Entry, base: int) -> Tensor:
    flat = read_flat(file, at=base + entry.start, count=math.prod(entry.shape), dtype=_KINDS[entry.kind])
    return flat.reshape(entry.shape)


def _check_hashes(weights: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, object]:
    """Compare everything with the hashes of a file of ours, and hand out its facts; other files have neither."""
    if _FACTS not in metadata and _HASHES not in metadata:
        return {}
    if _FACTS not in metadata or _HASHES not in metadata:
        raise damaged("its facts or its hashes are missing")
    hashes = _parse(metadata[_HASHES].encode())
    if set(hashes) != {_METADATA, *weights} or hashes[_METADATA] != _hash_texts(metadata):
        raise damaged("its hashes do not fit its header")
    for name, tensor in weights.items():
        if hashes[name] != _hash(tensor):
            raise damaged(f"the hash of tensor '{shown(name)}' is wrong")
    return _parse(metadata[_FACTS].encode(), is_header=False)


def _hash(tensor: Tensor) -> str:
    return _sha256([f"{_kind(tensor)}{list(tensor.shape)}".encode(), _bytes(tensor)])


def _hash_texts(metadata: Mapping[str, str]) -> str:
    return _sha256(f"{key}\0{metadata[key]}\0".encode() for key in sorted(metadata) if key != _HASHES)


def _sha256(parts: Iterable[bytes | memoryview]) -> str:
    sha = hashlib.sha256()
    for part in parts:
        sha.update(part)
    return sha.hexdigest()


def _kind(tensor: Tensor) -> str:
    for kind, dtype in _KINDS.items():
        if tensor.dtype == dtype:
            return kind
    raise WeightsError(f"cannot write tensors of kind {tensor.dtype}; convert them to one of {', '.join(_KINDS)}")


def _bytes(tensor: Tensor) -> memoryview:
    """(...) contiguous -> its bytes, not copied."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data
