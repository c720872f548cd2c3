"""ncnn models: a text of layers (.param) and, beside it, their numbers in the same order (.bin).

Weights come out by order, not by name, since ncnn keeps no names of the network they were trained in:
`ncnn.0000.Convolution.weight`, `ncnn.0000.Convolution.bias`, `ncnn.0001.PReLU.slope`, ...
"""

import io
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from restorer.errors import WeightsError
from restorer.weights.tensors import COUNT_LIMIT, FILE_LIMIT, damaged, read_flat, shown

MAGIC = "7767517"
PARAM_LIMIT = 16 * 2**20
"""Longest .param text, in bytes."""
HALF_TAG = 0x01306B47
_TAGS = {
    0x000D4B38: "8-bit integers",
    0x0002C056: "float32 with extra scaling",
}
_SHAPING = frozenset({"Input", "Split", "Concat", "Slice", "Crop", "Reshape", "Permute", "Noop", "Dropout", "Reorg"})
_COMPUTING = frozenset({"BinaryOp", "UnaryOp", "Eltwise", "Interp", "PixelShuffle", "ReLU"})
_BENDING = frozenset({"Sigmoid", "TanH", "Clip", "Mish", "Swish", "HardSwish"})
_FUSED = {0: "none", 1: "relu", 2: "leakyrelu", 3: "clip", 4: "sigmoid", 5: "mish", 6: "hardswish"}
_FILTERS = {1: "nearest", 2: "bilinear", 3: "bicubic"}
_WHOLE = re.compile(r"-?[0-9]{1,10}")
_NUMBER = re.compile(r"-?[0-9]{1,20}(\.[0-9]{0,20})?(e[-+]?[0-9]{1,3})?")
_ARRAY = -23300

Number = int | float


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One line of a .param text. `params` holds numbers, or tuples of numbers, by ncnn's ids."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    params: Mapping[int, Number | tuple[Number, ...]]

    def whole(self, key: int, default: int = 0) -> int:
        """The whole number under `key`."""
        value = self.params.get(key, default)
        if not isinstance(value, int):
            raise WeightsError(f"ncnn layer {self.name} has {value} under {key} where a whole number belongs")
        return value


@dataclass(frozen=True, kw_only=True)
class Graph:
    """A .param text: layers in the order in which they run and in which their numbers lie in the .bin."""

    layers: tuple[Layer, ...]


def read_ncnn(param: Path, numbers: Path | None = None) -> tuple[dict[str, Tensor], dict[str, object]]:
    """Read weights and facts; `numbers` is the .bin, by default the one beside `param` with the same stem."""
    graph = parse_param(_read_text(param))
    numbers = param.with_suffix(".bin") if numbers is None else numbers
    if not numbers.is_file():
        raise WeightsError(
            f"is the text of an ncnn model, but '{shown(numbers.name)}' is not beside it; put the two together"
        )
    with numbers.open("rb") as file:
        return read_numbers(graph, file), read_facts(graph)


def parse_param(text: str) -> Graph:
    r"""Read a .param text, strictly.

    >>> parse_param("7767517\n2 2\nInput in 0 1 a\nReLU act 1 1 a b 0=0.2\n").layers[1].params
    {0: 0.2}
    """
    lines = [line.split() for line in text.splitlines() if line.strip()]
    if len(lines) < 2 or lines[0] != [MAGIC] or len(lines[1]) != 2:
        raise damaged("an ncnn text begins with 7767517 and two counts")
    layers_count, blobs_count = (_whole(word, 2) for word in lines[1])
    if layers_count != len(lines) - 2 or not 0 < layers_count <= COUNT_LIMIT:
        raise damaged(f"{layers_count} layers are announced and {len(lines) - 2} follow")
    blobs: set[str] = set()
    layers = []
    for row, words in enumerate(lines[2:], start=3):
        layer = _parse_layer(words, row)
        if not blobs.issuperset(layer.inputs) or not blobs.isdisjoint(layer.outputs):
            raise damaged(f"line {row} uses what no line before it makes, or makes it again")
        blobs.update(layer.outputs)
        layers.append(layer)
    if len(blobs) != blobs_count:
        raise damaged(f"{blobs_count} blobs are announced and {len(blobs)} are made")
    return Graph(layers=tuple(layers))


def read_numbers(graph: Graph, file: io.BufferedReader) -> dict[str, Tensor]:
    """Read the tensors of all layers in order; the file must end where they end."""
    reader = _Reader(file)
    weights: dict[str, Tensor] = {}
    order = 0
    for layer in graph.layers:
        found = _read_layer(layer, reader)
        weights |= {f"ncnn.{order:04d}.{layer.kind}.{part}": tensor for part, tensor in found.items()}
        order += bool(found)
    if reader.left:
        raise damaged(f"{reader.left:,} bytes of the .bin belong to no layer of the .param")
    return weights


def read_facts(graph: Graph) -> dict[str, object]:
    """Say what the graph knows and the weights do not: layers, activation, and a resize after the network."""
    facts: dict[str, object] = {"ncnn.layers": [layer.kind for layer in graph.layers]}
    kinds = {kind for layer in graph.layers if (kind := _activation(layer))}
    if len(kinds) == 1:
        facts["activation"], slope = kinds.pop()
        facts |= {} if slope is None else {"slope": slope}
    last = graph.layers[-1]
    if last.kind == "Interp":
        factors = (last.params.get(1, 1.0), last.params.get(2, 1.0))
        if factors[0] != factors[1] or last.whole(3) or last.whole(4) or last.whole(0) not in _FILTERS:
            raise WeightsError(f"ncnn layer {last.name} resizes in a way that is not known; use the model without it")
        facts |= {"resize_after": factors[0], "resize_filter": _FILTERS[last.whole(0)]}
    return facts


def _activation(layer: Layer) -> tuple[str, Number | None] | None:
    """Say what bends in this layer: its kind, and the slope below zero where there is one number."""
    if layer.kind == "PReLU":
        return "prelu", None
    if layer.kind == "ReLU":
        slope = layer.params.get(0, 0.0)
        return ("leakyrelu", slope) if isinstance(slope, Number) and slope else ("relu", None)
    if layer.kind == "Convolution" and layer.whole(9):
        kind = _FUSED.get(layer.whole(9), "unknown")
        numbers = layer.params.get(10, ())
        return kind, numbers[0] if kind == "leakyrelu" and isinstance(numbers, tuple) and numbers else None
    return ("other", None) if layer.kind in _BENDING else None


class _Reader:
    """The numbers of a .bin, taken one after another."""

    def __init__(self, file: io.BufferedReader) -> None:
        self.file = file
        self.at = 0
        self.left = file.seek(0, os.SEEK_END)
        if self.left > FILE_LIMIT:
            raise WeightsError(f"is larger than {FILE_LIMIT // 2**30} GB, the most that is read")

    def take(self, count: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """-> (count,)."""
        size = count * dtype.itemsize
        size += -size % 4
        if not 0 < size <= self.left:
            raise damaged("the .bin is shorter than its .param says, or belongs to another")
        values = read_flat(self.file, at=self.at, count=count, dtype=dtype)
        self.at, self.left = self.at + size, self.left - size
        return values

    def take_tagged(self, count: int, layer: Layer) -> Tensor:
        """-> (count,) float16 or float32, as the tag before the numbers says."""
        tag = int(self.take(1, torch.int32)) & 0xFFFFFFFF
        if tag not in {0, HALF_TAG}:
            what = _TAGS.get(tag, f"an unknown form (tag 0x{tag:08X})")
            raise WeightsError(f"ncnn layer {layer.name} holds {what}; only float32 and float16 are read")
        return self.take(count, torch.float16 if tag else torch.float32)


def _read_layer(layer: Layer, reader: _Reader) -> dict[str, Tensor]:
    """Read what one layer keeps in the .bin; a kind that may keep something unknown is refused."""
    if layer.kind == "Convolution":
        return _read_convolution(layer, reader)
    if layer.kind == "PReLU":
        return {"slope": reader.take(layer.whole(0))}
    if layer.kind not in _SHAPING | _COMPUTING | _BENDING:
        raise WeightsError(
            f"ncnn layer {layer.name} is of kind {layer.kind}, which is not known here; use the network's own file"
        )
    return {}


def _read_convolution(layer: Layer, reader: _Reader) -> dict[str, Tensor]:
    """-> weight (Cout, Cin, kh, kw), bias (Cout,) where there is one."""
    outputs, width, size = layer.whole(0), layer.whole(1), layer.whole(6)
    height = layer.whole(11, width)
    if min(outputs, width, height, size) < 1 or size % (outputs * height * width):
        raise damaged(f"the sizes of ncnn layer {layer.name} do not fit each other")
    _refuse_unusual(layer, height, width)
    weight = reader.take_tagged(size, layer).reshape(outputs, -1, height, width)
    return {"weight": weight} | ({"bias": reader.take(outputs)} if layer.whole(5) else {})


def _refuse_unusual(layer: Layer, height: int, width: int) -> None:
    """The networks here convolve at stride 1 with zeros around; another convolution would give wrong pictures."""
    dilation, stride, left = layer.whole(2, 1), layer.whole(3, 1), layer.whole(4)
    top = layer.whole(14, left)
    steps = (dilation, layer.whole(12, dilation), stride, layer.whole(13, stride))
    around = (left, layer.whole(15, left), top, layer.whole(16, top))
    if steps != (1, 1, 1, 1) or around != (width // 2, width // 2, height // 2, height // 2):
        raise WeightsError(f"ncnn layer {layer.name} has a stride, dilation or padding that no network here has")
    if layer.whole(8) or layer.whole(19) or layer.params.get(18, 0) != 0:
        raise WeightsError(
            f"ncnn layer {layer.name} is quantised, dynamic or padded with a value; only plain ones are read"
        )


def _parse_layer(words: list[str], row: int) -> Layer:
    """Read `kind name inputs outputs names... id=value...`."""
    if len(words) < 4:
        raise damaged(f"line {row} of the ncnn text is too short")
    inputs, outputs = _whole(words[2], row), _whole(words[3], row)
    blobs = words[4 : 4 + inputs + outputs]
    if min(inputs, outputs) < 0 or len(blobs) != inputs + outputs or any("=" in blob for blob in blobs):
        raise damaged(f"line {row} of the ncnn text names too few blobs")
    params: dict[int, Number | tuple[Number, ...]] = {}
    for word in words[4 + inputs + outputs :]:
        key, value = _parse_param(word, row)
        if key in params:
            raise damaged(f"line {row} of the ncnn text gives {key} twice")
        params[key] = value
    return Layer(
        kind=shown(words[0], most=40),
        name=shown(words[1], most=40),
        inputs=tuple(blobs[:inputs]),
        outputs=tuple(blobs[inputs:]),
        params=params,
    )


def _parse_param(word: str, row: int) -> tuple[int, Number | tuple[Number, ...]]:
    """Read `id=number`, or `-23300-id=count,number,number,...`."""
    key, _, value = word.partition("=")
    number = _whole(key, row)
    if _ARRAY < number < 0:
        raise damaged(f"line {row} of the ncnn text has the id {number}")
    if number >= 0:
        return number, _number(value, row)
    count, *items = value.split(",")
    if _whole(count, row) != len(items):
        raise damaged(f"line {row} of the ncnn text has an array of another length than announced")
    return _ARRAY - number, tuple(_number(item, row) for item in items)


def _whole(word: str, row: int) -> int:
    if not _WHOLE.fullmatch(word):
        raise damaged(f"line {row} of the ncnn text has '{shown(word)}' where a whole number belongs")
    return int(word)


def _number(word: str, row: int) -> Number:
    if not _NUMBER.fullmatch(word):
        raise damaged(f"line {row} of the ncnn text has '{shown(word)}' where a number belongs")
    return int(word) if _WHOLE.fullmatch(word) else float(word)


def _read_text(param: Path) -> str:
    if param.stat().st_size > PARAM_LIMIT:
        raise WeightsError(f"is an ncnn text of more than {PARAM_LIMIT:,} bytes; it is damaged or hostile")
    try:
        return param.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        raise damaged("the ncnn text is not text") from None
