"""NVIDIA's StyleGAN pickles (.pkl of stylegan2-ada-pytorch and stylegan3): whole networks, of which numbers are taken.

Such a file holds every layer as an object, with the Python source of its class. No source is ever looked at: an object
becomes the name of its class and its state, and tensors are found by walking along layers. Their numbers lie within
the program, each row as a small file of PyTorch's older form.
"""

import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from restorer.errors import UnsafeWeightsError, WeightsError
from restorer.weights.pickles import NAMES, Inert, Known, Lump, Maker, Storage, StoredTensor, run_pickle
from restorer.weights.tensors import COUNT_LIMIT, NAME_LIMIT, damaged, shown
from restorer.weights.torchfile import load_tensors, open_legacy

PLAYERS = ("G_ema", "G")
"""Keys of the generator, the better first."""
_VERSION = 6
_HEAD_LIMIT = 512
"""Most bytes before the numbers of a storage; PyTorch writes about 250."""
_STORAGE_LIMIT = 3000
"""Most storages of one file; three networks have about 450."""
_TENSORFLOW = "dnnlib.tflib."
_LAYER = re.compile(r"torch\.nn\.modules\.[a-z_]+\.[A-Z][A-Za-z0-9]*")
_TABLES = ("_parameters", "_buffers", "_modules")
_TAPS = (1.0, 3.0, 3.0, 1.0)

_USUAL: tuple[tuple[str, str, tuple[object, ...]], ...] = (
    (r"mapping", "c_dim", (0,)),
    (r"mapping\.fc\d+", "activation", ("lrelu",)),
    (r"mapping\.fc\d+", "bias_gain", (0.01,)),
    (r"synthesis\.b\d+", "architecture", ("skip",)),
    (r"synthesis\.b\d+\.conv[01]", "activation", ("lrelu",)),
    (r"synthesis\.b\d+\.conv[01]", "use_noise", (True,)),
    (r"synthesis\.b\d+\.(conv[01]|torgb)", "conv_clamp", (None, 256)),
)
"""What StyleGAN2 does that its tensors do not tell: layers, an attribute, the values that are right.

The clamp at 256 keeps half precision from overflowing; the network here goes without.
"""


def read_nvidia(file: io.BufferedReader, size: int) -> tuple[dict[str, Tensor], str]:
    """Read the tensors of the generator, named as PyTorch would, and the key that it lay under."""
    names = _Names(file)
    file.seek(0)
    content = run_pickle(file, names.find)
    if content.storages or not isinstance(content.tree, dict) or not names.storages:
        raise UnsafeWeightsError(
            "is a pickle, but not one of PyTorch's or NVIDIA's; convert it to safetensors with a tool you trust"
        )
    if file.tell() != size:
        raise damaged("more follows after its networks")
    key = next((key for key in PLAYERS if isinstance(content.tree.get(key), Inert)), None)
    if key is None:
        raise WeightsError(f"holds no generator ({' or '.join(PLAYERS)}); use a whole snapshot")
    layers, stored = _walk(content.tree[key])
    if not stored:
        raise WeightsError(f"holds no tensors in {key}; use a whole snapshot")
    is_stylegan2 = "synthesis.b4.const" in stored
    if is_stylegan2:
        _check_usual(layers)
    weights = load_tensors(file, names.places, stored)
    if is_stylegan2:
        _check_filters(weights)
    return weights, key


@dataclass(eq=False)
class _Names:
    """What a file may name, and the storages that it has shown so far."""

    file: io.BufferedReader
    storages: dict[int, Storage] = field(default_factory=dict)
    """By the place of what describes them."""
    places: dict[str, int] = field(default_factory=dict)
    """Where the numbers of a storage begin, by its key."""

    def find(self, name: str) -> Known | None:
        if name == "torch.storage._load_from_bytes":
            return Maker(name="_load_from_bytes", make=self.open_storage)
        if name.startswith(_TENSORFLOW):
            raise WeightsError(
                "holds networks of TensorFlow; convert it with NVIDIA's stylegan2-ada-pytorch: "
                "python legacy.py --source=OLD.pkl --dest=NEW.pkl"
            )
        if name in _INERT or _LAYER.fullmatch(name):
            return Maker(name=name, make=lambda arguments: Inert(name))
        return NAMES.get(name) or _MORE_NAMES.get(name)

    def open_storage(self, arguments: tuple[object, ...]) -> Storage:
        """Stand in for torch.storage._load_from_bytes(bytes): find out what lies there, and leave it there."""
        lump = arguments[0] if len(arguments) == 1 else None
        if not isinstance(lump, Lump):
            raise damaged("a storage is made of something else than bytes")
        if lump.at not in self.storages:
            if len(self.storages) == _STORAGE_LIMIT:
                raise WeightsError(f"has more than {_STORAGE_LIMIT:,} storages; it is damaged or hostile")
            back = self.file.tell()
            self.file.seek(lump.at)
            head = self.file.read(min(lump.size, _HEAD_LIMIT))
            self.file.seek(back)
            content = open_legacy(io.BufferedReader(io.BytesIO(head)), lump.size)
            if not isinstance(content.tree, Storage) or len(content.places) != 1:
                raise damaged("bytes of a storage hold something else")
            key = str(lump.at)
            self.places[key] = lump.at + content.places[content.tree.key]
            self.storages[lump.at] = Storage(key=key, dtype=content.tree.dtype, count=content.tree.count)
        return self.storages[lump.at]


def _make_object(arguments: tuple[object, ...]) -> Inert:
    """Stand in for torch_utils.persistence._reconstruct_persistent_obj(meta), which would run the source in `meta`."""
    meta = arguments[0] if len(arguments) == 1 else None
    if not isinstance(meta, dict) or meta.get("type") != "class":
        raise damaged("an object is described in no known way")
    kind, state = meta.get("class_name"), meta.get("state")
    if not isinstance(kind, str) or not isinstance(state, dict):
        raise damaged("an object is described in no known way")
    if meta.get("version") != _VERSION:
        raise WeightsError(
            f"was written in another version of NVIDIA's form than {_VERSION}; save it again with stylegan3"
        )
    return Inert(kind, state)


def _make_easy_dict(arguments: tuple[object, ...]) -> dict[object, object]:
    """Stand in for dnnlib.util.EasyDict(); its items are set afterwards."""
    if arguments:
        raise damaged("a dictionary is made of something else than pairs")
    return {}


_MORE_NAMES: Mapping[str, Known] = {
    "torch_utils.persistence._reconstruct_persistent_obj": Maker(name="_reconstruct_persistent_obj", make=_make_object),
    "dnnlib.util.EasyDict": Maker(name="EasyDict", make=_make_easy_dict),
}
_INERT = frozenset(
    {
        "builtins.set",
        "numpy.dtype",
        "numpy.ndarray",
        *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    }
)
"""Of these nothing is kept; so it is with the layers of PyTorch, save their state."""


def _walk(player: Inert) -> tuple[dict[str, Inert], dict[str, StoredTensor]]:
    """Name all layers and tensors; layers may be shared, even with themselves, so there is a limit."""
    layers: dict[str, Inert] = {}
    tensors: dict[str, StoredTensor] = {}
    waiting = [("", player)]
    left = COUNT_LIMIT
    while waiting:
        prefix, layer = waiting.pop()
        layers[prefix.removesuffix(".")] = layer
        below = []
        for kind, key, value in _entries(layer):
            left -= 1
            name = f"{prefix}{key}" if isinstance(key, str) and "." not in key else ""
            if not 0 < len(name) <= NAME_LIMIT or name in tensors or not left:
                raise WeightsError("has layers without end or with doubtful names; it is damaged or hostile")
            if isinstance(value, Inert) and kind == "_modules":
                below.append((f"{name}.", value))
            elif isinstance(value, StoredTensor) and kind != "_modules":
                tensors[name] = value
            elif value is not None:
                raise damaged(f"'{shown(name)}' is neither a layer nor a tensor")
        waiting.extend(reversed(below))
    return layers, tensors


def _entries(layer: Inert) -> Iterable[tuple[str, object, object]]:
    """-> ("_parameters", name, tensor) and so on."""
    for kind in _TABLES:
        table = layer.state.get(kind) if isinstance(layer.state, dict) else None
        if not isinstance(table, dict):
            raise damaged(f"a layer of class {shown(layer.name)} has no {kind}")
        yield from ((kind, key, value) for key, value in table.items())


def _check_usual(layers: Mapping[str, Inert]) -> None:
    """Refuse what would make other pictures here than at its authors'."""
    for name, layer in layers.items():
        for pattern, attribute, usual in _USUAL:
            if re.fullmatch(pattern, name) and isinstance(layer.state, dict):
                _check_value(f"{name}.{attribute}", layer.state.get(attribute), usual)


def _check_value(name: str, value: object, usual: tuple[object, ...]) -> None:
    is_plain = isinstance(value, str | int | float | None)
    if is_plain and value in usual:
        return
    why = "was trained with labels" if name.endswith("c_dim") else "is an unusual StyleGAN2"
    found = shown(str(value), most=20) if is_plain else "something else"
    raise WeightsError(
        f"{why} ({name} is {found}, known is {' or '.join(map(str, usual))}); use a network of the usual form"
    )


def _check_filters(weights: Mapping[str, Tensor]) -> None:
    """The filter that doubles sides is a buffer of every layer, and always the same."""
    taps = torch.tensor(_TAPS) / sum(_TAPS)
    usual = torch.outer(taps, taps)
    for name, tensor in weights.items():
        is_filter = name.endswith("resample_filter")
        if is_filter and not (tensor.shape == usual.shape and torch.allclose(tensor.float(), usual)):
            raise WeightsError(
                f"is an unusual StyleGAN2 ({shown(name)} is not [1, 3, 3, 1]); use a network of the usual form"
            )
