"""An assembler for PyTorch's files, so that tests can write what no honest program would.

Every function of the first part gives the instructions that leave one thing on the pickle machine's stack.
"""

import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
VERSION = b"\x80\x02M\xe9\x03."
MACHINE = b"\x80\x02}(X\x0d\x00\x00\x00little_endian\x88u."
KEYS = b"\x80\x02]X\x01\0\0\x000a."
ZEROS = {"0": bytes(16)}


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    size = value.bit_length() // 8 + 1
    return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)


def row(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def table(**items: bytes) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def name(dotted: str) -> bytes:
    module, _, attribute = dotted.rpartition(".")
    return f"c{module}\n{attribute}\n".encode()


def call(dotted: str | bytes, *arguments: bytes) -> bytes:
    return (name(dotted) if isinstance(dotted, str) else dotted) + row(*arguments) + b"R"


def storage(kind: bytes = name("torch.FloatStorage"), key: str = "0", count: int = 4) -> bytes:
    return row(text("storage"), kind, text(key), text("cpu"), number(count)) + b"Q"


def tensor(
    source: bytes | None = None, *, offset: int = 0, shape: tuple[int, ...] = (4,), strides: tuple[int, ...] = (1,)
) -> bytes:
    sizes = row(*map(number, shape)), row(*map(number, strides))
    hooks = call("collections.OrderedDict")
    return call(
        "torch._utils._rebuild_tensor_v2",
        storage() if source is None else source,
        number(offset),
        *sizes,
        b"\x89",
        hooks,
    )


def program(body: bytes) -> bytes:
    return b"\x80\x02" + body + b"."


def save_zip(path: Path, body: bytes, data: Mapping[str, bytes] = ZEROS, *, method: int = zipfile.ZIP_STORED) -> Path:
    """Write what torch.save writes, with `body` as its program; `method` says how the numbers are packed."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x/data.pkl", program(body))
        file.writestr("x/byteorder", "little")
        for key, value in data.items():
            file.writestr(f"x/data/{key}", value, method)
        file.writestr("x/version", "3\n")
    return path


def save_legacy(path: Path, body: bytes, *, machine: bytes = MACHINE, keys: bytes = KEYS, count: int = 4) -> Path:
    """Write what torch.save wrote before 1.6: one storage "0", of 16 bytes whatever `count` claims."""
    path.write_bytes(MAGIC + VERSION + machine + program(body) + keys + struct.pack("<q", count) + bytes(16))
    return path
