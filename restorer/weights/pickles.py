"""A small machine for the pickle programs of PyTorch checkpoints.

It knows the instructions that plain containers and tensors need, and a few names. Nothing is imported, and nothing
that a file names is called: a name either stands in `NAMES`, with a function of ours, or the file is refused. Tensors
come out as descriptions (`StoredTensor`) whose sizes were checked: no memory is taken before the numbers are wanted.
No function here recurses, so that nesting costs a hostile file no more than its own length.
"""

import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

import torch

from restorer.errors import UnsafeWeightsError, WeightsError
from restorer.weights.tensors import NAME_LIMIT, check_naturals, check_shape, damaged, shown

PROGRAM_LIMIT = 64 * 2**20
"""Longest pickle program, in bytes."""
STEP_LIMIT = 1_000_000
"""Most instructions of one program; a tensor takes about 30."""
_INTEGER_LIMIT = 2**63
_PAIRS = 10_000
"""Most pairs of one ordered dictionary; larger ones are filled step by step."""


@dataclass(frozen=True, kw_only=True)
class Storage:
    """A row of `count` values that lies elsewhere in the file under `key`."""

    key: str
    dtype: torch.dtype
    count: int


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """A window on a storage; shape, strides and offset lie within it, all counted in values."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes of the values that the window shows."""
        return math.prod(self.shape) * self.storage.dtype.itemsize


@dataclass(frozen=True, kw_only=True)
class Lump:
    """Bytes in the program, which were passed over: `size` of them from `at` of the file."""

    at: int
    size: int


@dataclass(eq=False)
class Inert:
    """What lies where an object would be: the name of its class, and the state that it would have."""

    name: str
    state: object = None


@dataclass(frozen=True, kw_only=True)
class Pickled:
    """What one program made: plain containers, numbers, texts and `StoredTensor`s, and all storages it named."""

    tree: object
    storages: Mapping[str, Storage]


def run_pickle(file: BinaryIO, find: "Find | None" = None) -> Pickled:
    """Run the program that begins where `file` stands, and leave the file behind its end; `NAMES` may be replaced."""
    machine = _Machine(file, find or NAMES.get)
    for _ in range(STEP_LIMIT):
        code = machine.take(1)
        if code == b".":
            return Pickled(tree=machine.result(), storages=machine.storages)
        operation = _OPERATIONS.get(code)
        if operation is None:
            raise UnsafeWeightsError(
                f"asks for the pickle operation 0x{code.hex()}, which plain tensors do not need; {_CURE}"
            )
        operation(machine)
    raise WeightsError(
        f"has a pickle program of more than {STEP_LIMIT:,} steps, which plain tensors do not need; {_CURE}"
    )


_CURE = "convert it to safetensors with a tool you trust"


@dataclass(eq=False)
class _Machine:
    """What a program works on: its file, a stack that marks cut into parts, and a memo."""

    file: BinaryIO
    find: "Find"
    left: int = PROGRAM_LIMIT
    stack: list[object] = field(default_factory=list)
    below: list[list[object]] = field(default_factory=list)
    memo: dict[int, object] = field(default_factory=dict)
    storages: dict[str, Storage] = field(default_factory=dict)

    def take(self, count: int) -> bytes:
        if not 0 <= count <= self.left:
            raise WeightsError(f"has a pickle program of more than {PROGRAM_LIMIT:,} bytes; it is damaged or hostile")
        self.left -= count
        data = self.file.read(count)
        if len(data) != count:
            raise damaged("its pickle program ends early")
        return data

    def number(self, layout: str) -> int:
        return int(struct.unpack(layout, self.take(struct.calcsize(layout)))[0])

    def text(self, count: int, encoding: str = "utf-8") -> str:
        try:
            return self.take(count).decode(encoding)
        except UnicodeDecodeError:
            raise damaged("a text in its pickle program is not UTF-8") from None

    def lump(self, size: int) -> Lump:
        at = self.file.tell()
        self.file.seek(size, 1)  # where the file is shorter, the next instruction is missing
        return Lump(at=at, size=size)

    def line(self) -> str:
        letters = bytearray()
        while (letter := self.take(1)) != b"\n":
            letters += letter
            if len(letters) > NAME_LIMIT:
                raise damaged("a name in its pickle program has no end")
        return letters.decode("utf-8", errors="replace")

    def push(self, value: object) -> None:
        self.stack.append(value)

    def top(self) -> object:
        if not self.stack:
            raise damaged("its pickle program takes from an empty stack")
        return self.stack[-1]

    def pop(self) -> object:
        value = self.top()
        del self.stack[-1]
        return value

    def pop_several(self, count: int) -> tuple[object, ...]:
        if len(self.stack) < count:
            raise damaged("its pickle program takes from an empty stack")
        values = tuple(self.stack[-count:])
        del self.stack[-count:]
        return values

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def pop_mark(self) -> list[object]:
        if not self.below:
            raise damaged("its pickle program lacks a mark")
        values, self.stack = self.stack, self.below.pop()
        return values

    def remember(self, place: int) -> None:
        self.memo[place] = self.top()

    def recall(self, place: int) -> None:
        if place not in self.memo:
            raise damaged("its pickle program recalls what it never stored")
        self.push(self.memo[place])

    def result(self) -> object:
        if self.below or len(self.stack) != 1:
            raise damaged("its pickle program leaves more or less than one thing")
        return self.stack[0]


@dataclass(frozen=True, kw_only=True)
class Maker:
    """A name that a program may call: our function takes the arguments."""

    name: str
    make: Callable[[tuple[object, ...]], object]

    def __call__(self, arguments: object) -> object:
        """Check that there are arguments, and hand them on."""
        if not isinstance(arguments, tuple):
            raise damaged(f"{self.name} is called without arguments")
        return self.make(arguments)


def _make_tensor(arguments: tuple[object, ...]) -> StoredTensor:
    """Stand in for torch._utils._rebuild_tensor_v2(storage, offset, shape, strides, grad, hooks[, metadata]).

    Before PyTorch 0.4 it was _rebuild_tensor(storage, offset, shape, strides).
    """
    if len(arguments) not in {4, 6, 7} or not isinstance(arguments[0], Storage):
        raise UnsafeWeightsError(f"describes a tensor that is no plain row of numbers; {_CURE}")
    if len(arguments) == 7 and arguments[6]:
        raise UnsafeWeightsError(f"has a tensor with a conjugate or negative flag; {_CURE}")
    storage = arguments[0]
    offset = check_naturals((arguments[1],))[0]
    shape = check_shape(arguments[2], most=storage.count)
    strides = check_naturals(arguments[3])
    if len(shape) != len(strides):
        raise damaged("a tensor's shape and strides differ in length")
    last = offset + sum((side - 1) * step for side, step in zip(shape, strides, strict=True))
    if 0 not in shape and last >= storage.count:
        raise damaged("a tensor reaches beyond its storage")
    strides = tuple(step if side > 1 else 1 for side, step in zip(shape, strides, strict=True))
    return StoredTensor(storage=storage, offset=0 if 0 in shape else offset, shape=shape, strides=strides)


def _make_parameter(arguments: tuple[object, ...]) -> StoredTensor:
    """Stand in for torch._utils._rebuild_parameter(tensor, grad, hooks): the tensor itself."""
    if len(arguments) != 3 or not isinstance(arguments[0], StoredTensor):
        raise UnsafeWeightsError(f"describes a parameter that is no tensor; {_CURE}")
    return arguments[0]


def _make_dict(arguments: tuple[object, ...]) -> dict[object, object]:
    """Stand in for OrderedDict() and OrderedDict([(key, value), ...])."""
    pairs = arguments[0] if arguments else []
    if len(arguments) > 1 or not isinstance(pairs, list) or len(pairs) > _PAIRS or {*map(type, pairs)} - {list, tuple}:
        raise damaged("a dictionary is made of something else than pairs")
    made: dict[object, object] = {}
    for pair in pairs:
        _fill(made, list(pair))
    return made


def _make_counter(arguments: tuple[object, ...]) -> dict[object, object]:
    """Stand in for Counter() and Counter({key: count}); learning-rate schedules keep their milestones so."""
    counts = arguments[0] if arguments else {}
    if len(arguments) > 1 or not isinstance(counts, dict):
        raise damaged("a counter is made of something else than a dictionary")
    return {}  # nobody reads the counts, and copies of a large table would add up


Known = Maker | torch.dtype
Find = Callable[[str], Known | None]
NAMES: dict[str, Known] = {
    "collections.OrderedDict": Maker(name="OrderedDict", make=_make_dict),
    "collections.Counter": Maker(name="Counter", make=_make_counter),
    "torch._utils._rebuild_tensor": Maker(name="_rebuild_tensor", make=_make_tensor),
    "torch._utils._rebuild_tensor_v2": Maker(name="_rebuild_tensor_v2", make=_make_tensor),
    "torch._utils._rebuild_parameter": Maker(name="_rebuild_parameter", make=_make_parameter),
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.BoolStorage": torch.bool,
    "torch.ByteStorage": torch.uint8,
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.LongStorage": torch.int64,
}
"""All that a plain file may name. Storages are kinds of numbers and cannot be called."""


def _push_name(machine: _Machine, module: object, name: object) -> None:
    is_text = isinstance(module, str) and isinstance(name, str)
    what = f"{module}.{name}" if is_text else "a name that is no text"
    known = machine.find(what) if is_text else None
    if known is None:
        raise UnsafeWeightsError(f"asks for '{shown(what)}', which plain tensors do not need; {_CURE}")
    machine.push(known)


def _global(machine: _Machine) -> None:
    _push_name(machine, machine.line(), machine.line())


def _stack_global(machine: _Machine) -> None:
    module, name = machine.pop_several(2)
    _push_name(machine, module, name)


def _reduce(machine: _Machine) -> None:
    maker, arguments = machine.pop_several(2)
    if not isinstance(maker, Maker):
        raise UnsafeWeightsError(f"calls something that is no maker of tensors; {_CURE}")
    machine.push(maker(arguments))


def _build(machine: _Machine) -> None:
    """Drop the attributes of a dictionary: PyTorch keeps `_metadata` there. What is inert keeps its state."""
    state, target = machine.pop(), machine.top()
    if isinstance(target, Inert):
        target.state = state
    elif not isinstance(target, dict) or not isinstance(state, dict):
        raise UnsafeWeightsError(f"sets the state of an object that is no plain container; {_CURE}")


def _storage(machine: _Machine) -> None:
    """Take ("storage", kind, key, device, count) from the stack; older files add None."""
    pid = machine.pop()
    if not isinstance(pid, tuple) or len(pid) not in {5, 6} or pid[0] != "storage" or pid[5:] not in ((), (None,)):
        raise damaged("a storage is described in no known way")
    dtype, key, count = pid[1], pid[2], pid[4]
    is_count = type(count) is int and 0 <= count < _INTEGER_LIMIT
    if not isinstance(dtype, torch.dtype) or not isinstance(key, str) or not is_count:
        raise damaged("a storage is described in no known way")
    storage = Storage(key=key, dtype=dtype, count=count)
    if machine.storages.setdefault(key, storage) != storage:
        raise damaged("one storage is described in two ways")
    machine.push(storage)


def _append(machine: _Machine, values: list[object]) -> None:
    row = machine.top()
    if not isinstance(row, list):
        raise damaged("its pickle program appends to what is no list")
    row.extend(values)


def _set(machine: _Machine, values: list[object]) -> None:
    target = machine.top()
    if not isinstance(target, dict):
        raise damaged("its pickle program sets an item of what is no dictionary")
    _fill(target, values)


def _fill(target: dict[object, object], values: list[object]) -> dict[object, object]:
    """Add key, value, key, value, ...; keys are plain, since the hash of a hostile tuple can take for ever."""
    if len(values) % 2:
        raise damaged("a dictionary has a key without a value")
    for key, value in zip(values[::2], values[1::2], strict=True):
        if not isinstance(key, str | int | float | None) or (type(key) is int and abs(key) >= _INTEGER_LIMIT):
            raise UnsafeWeightsError(f"has a dictionary key that is no plain text or number; {_CURE}")
        if key in target:
            raise WeightsError(f"names '{shown(str(key))}' twice; it is damaged or hostile")
        target[key] = value
    return target


def _long(machine: _Machine) -> None:
    machine.push(int.from_bytes(machine.take(machine.number("<B")), "little", signed=True))


def _pop_or_unmark(machine: _Machine) -> None:
    if machine.stack:
        machine.pop()
    else:
        machine.pop_mark()


_OPERATIONS: dict[bytes, Callable[[_Machine], object]] = {
    b"\x80": lambda m: m.take(1),  # protocol
    b"\x95": lambda m: m.take(8),  # frame: only a hint for buffering
    b"(": _Machine.mark,
    b"0": _pop_or_unmark,
    b"1": _Machine.pop_mark,
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"J": lambda m: m.push(m.number("<i")),
    b"K": lambda m: m.push(m.number("<B")),
    b"M": lambda m: m.push(m.number("<H")),
    b"\x8a": _long,
    b"G": lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
    b"X": lambda m: m.push(m.text(m.number("<I"))),
    b"\x8c": lambda m: m.push(m.text(m.number("<B"))),
    b"\x8d": lambda m: m.push(m.text(m.number("<Q"))),
    b"T": lambda m: m.push(m.text(m.number("<I"), "latin-1")),  # texts of Python 2
    b"U": lambda m: m.push(m.text(m.number("<B"), "latin-1")),
    b"B": lambda m: m.push(m.lump(m.number("<I"))),
    b"C": lambda m: m.push(m.lump(m.number("<B"))),
    b")": lambda m: m.push(()),
    b"t": lambda m: m.push(tuple(m.pop_mark())),
    b"\x85": lambda m: m.push(m.pop_several(1)),
    b"\x86": lambda m: m.push(m.pop_several(2)),
    b"\x87": lambda m: m.push(m.pop_several(3)),
    b"]": lambda m: m.push([]),
    b"l": lambda m: m.push(m.pop_mark()),
    b"\x8f": lambda m: m.push([]),  # a set: nobody asks it for anything
    b"\x90": lambda m: _append(m, m.pop_mark()),
    b"a": lambda m: _append(m, [m.pop()]),
    b"e": lambda m: _append(m, m.pop_mark()),
    b"}": lambda m: m.push({}),
    b"d": lambda m: m.push(_fill({}, m.pop_mark())),
    b"s": lambda m: _set(m, list(m.pop_several(2))),
    b"u": lambda m: _set(m, m.pop_mark()),
    b"q": lambda m: m.remember(m.number("<B")),
    b"r": lambda m: m.remember(m.number("<I")),
    b"\x94": lambda m: m.remember(len(m.memo)),
    b"h": lambda m: m.recall(m.number("<B")),
    b"j": lambda m: m.recall(m.number("<I")),
    b"c": _global,
    b"\x93": _stack_global,
    b"R": _reduce,
    b"\x81": _reduce,  # makes a new object of a class, which is a call, too
    b"b": _build,
    b"Q": _storage,
}
