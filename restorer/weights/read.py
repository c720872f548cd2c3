"""Read a weights file of any known form: the content decides which, never the name.

Nothing in a file is executed. What cannot be read is refused in one line (`WeightsError`), before memory is taken.
"""

import io
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from torch import Tensor

from restorer.errors import AmbiguousWeightsError, WeightsError
from restorer.weights.ncnn import HALF_TAG, MAGIC, read_ncnn
from restorer.weights.nvidia import read_nvidia
from restorer.weights.pickles import StoredTensor
from restorer.weights.safe import read_safetensors, write_safetensors
from restorer.weights.tensors import FILE_LIMIT, check_weights, damaged, shown
from restorer.weights.torchfile import TorchFile, load_tensors, open_legacy, open_zip

__all__ = ["Checkpoint", "read_checkpoint", "write_safetensors"]

T = TypeVar("T")

_WRAPPERS = ("params_ema", "params", "g_ema", "G_ema", "ema_state_dict", "state_dict", "generator", "model")
"""Keys under which training programs put the generator's weights, the better first."""
RUN = "average"
"""The wrapper of a checkpoint of our own training: where it holds what is used."""
_OUTER_PREFIXES = ("module.", "_orig_mod.", "inner.")
_PLAYER_PREFIXES = ("generator_ema.", "generator.", "netG.")
_OTHER_PREFIXES = (
    *_PLAYER_PREFIXES,
    "discriminator.",
    "netD.",
    "perceptual_loss.",
    "data_preprocessor.",
    "step_counter",
)
"""What may stand beside a generator in one set of weights, and is left out."""

_LEGACY = b"\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
"""The number that PyTorch's older form begins with, as a pickle has it."""

_FOREIGN = {
    b"\x93NUMPY": "is a NumPy array; convert it to safetensors",
    b"\x89HDF": "is an HDF5 file (Keras); convert it to safetensors",
    b"\x1f\x8b": "is compressed with gzip; unpack it first",
    b"7z\xbc\xaf": "is a 7z archive; unpack it first",
    b"Rar!": "is a RAR archive; unpack it first",
    b"GGUF": "is a GGUF file; convert it to safetensors",
    b"<": "is a web page or XML, not weights; fetch the file itself again",
    b"version https://git-lfs": "is only a git-lfs pointer; run 'git lfs pull' to get the file itself",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """Weights as they were in a file."""

    weights: dict[str, Tensor]
    """Flat: wrappers opened, prefixes of training programs taken off."""
    facts: dict[str, object]
    """What the file itself says about its network."""
    path: Path
    wrapper: str
    """Key of the file from which the weights came; "" where they lay open."""


def read_checkpoint(path: Path) -> Checkpoint:
    """Read safetensors, PyTorch (.pth, both forms), NVIDIA's StyleGAN (.pkl) or ncnn (.param with .bin beside it)."""
    try:
        return _read(path)
    except WeightsError as error:
        raise type(error)(f"{shown(path.name, most=255)}: {error}") from None
    except OSError as error:
        raise WeightsError(
            f"{shown(path.name, most=255)}: cannot be read ({error.strerror}); give the path of a weights file"
        ) from None


def is_onnx(path: Path) -> bool:
    """Whether a file begins as ONNX does: with the field that holds the format's version, a small number."""
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError:
        return False
    return _begins_as_onnx(head)


def _begins_as_onnx(head: bytes) -> bool:
    return len(head) >= 16 and head[0] == 0x08 and 3 <= head[1] <= 64 and head[8:9] != b"{"


def _read(path: Path) -> Checkpoint:
    mode = path.stat()
    if stat.S_ISDIR(mode.st_mode):
        raise WeightsError("is a folder; name the weights file in it")
    if not stat.S_ISREG(mode.st_mode):
        raise WeightsError("is no regular file; copy the weights into one")
    if not mode.st_size:
        raise WeightsError("is empty; fetch it again")
    if mode.st_size > FILE_LIMIT:
        raise WeightsError(f"is larger than {FILE_LIMIT // 2**30} GB, the most that is read")
    with path.open("rb") as file:
        checkpoint = _read_open(file, path, mode.st_size)
    check_weights(checkpoint.weights)
    return checkpoint


def _read_open(file: io.BufferedReader, path: Path, size: int) -> Checkpoint:
    """Look at the first bytes and hand the file to its reader."""
    head = file.read(512)
    if head[8:9] == b"{":  # first, since the length before it may look like anything
        weights, facts = read_safetensors(file, size)
        if "training" in facts:
            return _from_run(weights, facts, path)
        return Checkpoint(weights=_strip_prefixes(weights), facts=facts, path=path, wrapper="")
    if head.startswith((b"PK\3\4", b"PK\5\6")):
        return _from_torch(open_zip(file, size), file, path)
    if head.startswith(b"\x80"):
        return _from_pickle(head, file, path, size)
    if head.startswith(MAGIC.encode()):
        return _from_ncnn(path, param=path, numbers=path.with_suffix(".bin"))
    return _read_rare(head, path)


def _from_run(weights: Mapping[str, Tensor], facts: Mapping[str, object], path: Path) -> Checkpoint:
    """A checkpoint of our own training: the generator's average, without what only training needs."""
    average = {name.removeprefix(f"{RUN}/"): value for name, value in weights.items() if name.startswith(f"{RUN}/")}
    if not average:
        raise damaged("it is a checkpoint of a run, and has no average of its generator")
    told = {name: value for name, value in facts.items() if name != "training"}
    return Checkpoint(weights=average, facts=told, path=path, wrapper=RUN)


def _read_rare(head: bytes, path: Path) -> Checkpoint:
    """An ncnn .bin has no magic of its own; the text beside it tells. All else is refused."""
    if path.suffix == ".bin" and path.with_suffix(".param").is_file():
        return _from_ncnn(path, param=path.with_suffix(".param"), numbers=path)
    if head.startswith(HALF_TAG.to_bytes(4, "little")):
        raise WeightsError("holds the numbers of an ncnn model; put its .param beside it")
    if head[257:262] == b"ustar":
        raise WeightsError("is a tar archive; unpack it, or save PyTorch's oldest form again with a newer PyTorch")
    if _begins_as_onnx(head):
        raise WeightsError("is an ONNX graph, which is finished; give the weights that it was made from")
    for magic, reason in _FOREIGN.items():
        if head.lstrip().startswith(magic):
            raise WeightsError(reason)
    raise WeightsError("is no weights file that is known here; give safetensors, a PyTorch .pth or an ncnn .param")


def _from_ncnn(path: Path, *, param: Path, numbers: Path) -> Checkpoint:
    weights, facts = read_ncnn(param, numbers)
    return Checkpoint(weights=weights, facts=facts, path=path, wrapper="")


def _from_pickle(head: bytes, file: io.BufferedReader, path: Path, size: int) -> Checkpoint:
    if _LEGACY in head[:32]:
        return _from_torch(open_legacy(file, size), file, path)
    weights, player = read_nvidia(file, size)
    return Checkpoint(weights=weights, facts={}, path=path, wrapper=player)


def _from_torch(content: TorchFile, file: io.BufferedReader, path: Path) -> Checkpoint:
    stored, wrapper = _open_wrapper(content.tree)
    weights = load_tensors(file, content.places, _strip_prefixes(stored))
    return Checkpoint(weights=weights, facts={}, path=path, wrapper=wrapper)


def _open_wrapper(tree: object) -> tuple[dict[str, StoredTensor], str]:
    """Find the generator's weights in what a training program saved, and the key they lay under."""
    found = _known_wrapper(tree, depth=2)
    if found is not None:
        return found
    items = tree.items() if isinstance(tree, dict) else ()
    others = {key: inner for key, value in items if isinstance(key, str) and (inner := _tensors(value))}
    if len(others) > 1:
        names = ", ".join(shown(name, most=30) for name in list(others)[:6])
        raise AmbiguousWeightsError(f"holds several sets of weights ({names}); save the generator's alone")
    if not others:
        raise WeightsError("holds no named tensors; save a state_dict")
    key, weights = others.popitem()
    return weights, key


def _known_wrapper(tree: object, *, depth: int) -> tuple[dict[str, StoredTensor], str] | None:
    """Known wrappers first, one inside another at most; else the tensors that lie here."""
    if not isinstance(tree, dict):
        return None
    for key in _WRAPPERS if depth else ():
        found = _known_wrapper(tree.get(key), depth=depth - 1)
        if found is not None:
            weights, inner = found
            return weights, f"{key}.{inner}" if inner else key
    here = _tensors(tree)
    return (here, "") if here else None


def _tensors(tree: object) -> dict[str, StoredTensor]:
    if not isinstance(tree, dict):
        return {}
    return {key: value for key, value in tree.items() if isinstance(key, str) and isinstance(value, StoredTensor)}


def _strip_prefixes(weights: Mapping[str, T]) -> dict[str, T]:
    """Take off what wrappers of modules put before every name, and leave out the generator's companions."""
    kept = dict(weights)
    while prefix := _common_prefix(list(kept)):
        kept = {name.removeprefix(prefix): value for name, value in kept.items() if name.startswith(prefix)}
    return kept


def _common_prefix(names: list[str]) -> str:
    """Find a known prefix that all names have, save those known to belong to others; "" where there is none."""
    for prefix in (*_OUTER_PREFIXES, *_PLAYER_PREFIXES):
        others = [name for name in names if not name.startswith(prefix)]
        known = ("n_averaged",) if prefix in _OUTER_PREFIXES else _OTHER_PREFIXES
        if len(others) < len(names) and all(name.startswith(known) for name in others):
            return prefix
    return ""
