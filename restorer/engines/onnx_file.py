"""An ONNX file as a model: ours say all that is needed; of others, what the graph shows is read and the rest asked for.

Letters: N batch, C channels, h w sides in, H W sides out.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from restorer.engines.graph import METADATA, OUR_KEYS, read_traits
from restorer.engines.graph_engine import Graph, GraphEngine
from restorer.engines.onnx import Opened, Session, choose_provider, errors, open_session
from restorer.errors import AmbiguousWeightsError, MissingPackageError, UsageError, WeightsError, wrong_task
from restorer.networks.spec import Facts, Traits
from restorer.weights.tensors import FILE_LIMIT

NUMBERS: Mapping[str, Literal["float32", "float16", "uint8"]] = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(uint8)": "uint8",
}
MULTIPLES = (1, 2, 4, 8, 16, 32, 64)
LEAST_TRIED = 48
FACTS = frozenset({"value_range", "channel_order"})
"""What users may tell of a file that says nothing."""
OVERLAP = 32
VALUES_PER_PIXEL = 4096
"""What memory planning goes by where the network is not known: as much as the largest that is."""
UNTOLD_RANGE = (
    "this ONNX file does not say which numbers it takes; "
    "give --fact value_range=0,1 (most files), --fact value_range=-1,1 or --fact value_range=0,255"
)


def open_onnx_file(
    path: Path,
    *,
    facts: Facts,
    tasks: tuple[str, ...] = ("upscale", "restore"),
    kind: str = "auto",
    device: str = "auto",
    precision: str = "auto",
) -> GraphEngine:
    """Run a file in ONNX Runtime. Its precision is its own; `facts` tell the range and order of others' files.

    `tasks` are those that the caller is for; others' files do not say theirs.

    Raises WeightsError for a file that is damaged or no network from picture to picture, AmbiguousWeightsError where a
    fact is missing, UsageError where another engine or precision is asked for.
    """
    if kind not in ("auto", "onnx"):
        raise UsageError(f"{path.name}: ONNX files run in the onnx engine, not in {kind}; leave out --engine")
    opened = open_session(_read(path), choose_provider(device))
    told = _told(opened, path)
    if unknown := facts.keys() - (FACTS if told is None else ()):
        known = " and ".join(sorted(FACTS)) if told is None else "none, since it says all itself"
        raise UsageError(f"{path.name}: has no use for --fact {min(unknown)}; it takes {known}")
    graph = _foreign(opened, facts, path) if told is None else _ours(opened, told, path, tasks)
    own = "fp16" if graph.dtype == torch.float16 else "fp32"
    if precision not in ("auto", own):
        raise UsageError(f"{path.name}: is {own} and cannot be run in {precision}; leave out --precision")
    whose = f"licence of the weights: {opened.told.get('licence', 'not stated in the file')}"
    made = (f"{path.name} was made by others: its scale and sides are as tried out",) if told is None else ()
    return GraphEngine("onnx", graph, notes=(f"{own}: as the file is", *opened.notes, *made, whose))


def describe(path: Path) -> dict[str, str]:
    """What a file says of itself, each key with one line; empty where it says nothing."""
    opened = open_session(_read(path), choose_provider("cpu"))
    told = _told(opened, path) or {}
    lines = {key: str(told[key]) for key in ("network", "task", "precision", "config") if key in told}
    return lines | {key: opened.told[key] for key in OUR_KEYS if key in opened.told}


def _read(path: Path) -> bytes:
    """The file's bytes; one that keeps its weights in other files is refused, since those could be any."""
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as e:
        raise MissingPackageError('ONNX files need extra packages: pip install "restorer[onnx]"') from e
    if path.stat().st_size > FILE_LIMIT:
        raise WeightsError(f"{path.name}: is larger than {FILE_LIMIT // 2**30} GB, the most that is read")
    data = path.read_bytes()
    try:
        proto = onnx.load_model_from_string(data)
    except DecodeError as e:
        raise WeightsError(f"{path.name}: is damaged, or no ONNX file; export it again") from e
    bodies = [proto.graph.node, *(function.node for function in proto.functions)]
    tensors = [*_initial(proto.graph), *(tensor for body in bodies for tensor in _tensors(body))]
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in tensors):
        raise WeightsError(f"{path.name}: keeps its weights in another file; save it again with all inside")
    return data


def _tensors(nodes: Iterable[Any]) -> Iterator[Any]:
    """Every tensor that nodes hold, in graphs within graphs too."""
    for node in nodes:
        for attribute in node.attribute:
            yield attribute.t
            yield from attribute.tensors
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            for graph in (attribute.g, *attribute.graphs):
                yield from _initial(graph)
                yield from _tensors(graph.node)


def _initial(graph: Any) -> Iterator[Any]:
    """A graph's weights, dense and sparse."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)


def _told(opened: Opened, path: Path) -> dict[str, Any] | None:
    text = opened.told.get(METADATA)
    if text is None:
        return None
    try:
        told = json.loads(text)
        read_traits(told)
        if not (isinstance(told["task"], str) and told["precision"] in ("fp32", "fp16") and "with_io" in told):
            raise ValueError(text)
    except (ValueError, KeyError, TypeError) as e:
        raise WeightsError(f"{path.name}: its metadata are damaged; export it again") from e
    return dict(told)


def _ours(opened: Opened, told: Mapping[str, Any], path: Path, tasks: tuple[str, ...]) -> Graph:
    if told["task"] not in tasks:
        raise wrong_task(path.name, told["task"])
    with_io = bool(told["with_io"])
    traits = read_traits(told)
    if traits.latent is not None or not traits.makes_pictures:
        raise WeightsError(
            f"{path.name}: says what it is for, and that it makes no pictures of pictures; export it anew"
        )
    return Graph(
        compute=opened.run,
        traits=replace(traits, value_range=(0.0, 1.0), channel_order="rgb") if with_io else traits,
        where=opened.where,
        on_cpu=opened.provider.kind == "cpu",
        memory_total=opened.memory_total,
        dtype=torch.float16 if told["precision"] == "fp16" else torch.float32,
        takes="uint8" if with_io else "float32",
        channels_last=with_io,
        errors=errors(),
    )


def _foreign(opened: Opened, facts: Facts, path: Path) -> Graph:
    """Read what the graph shows, and try out what it does not: its scale and which sides it takes."""
    inputs, outputs = opened.run.inputs, opened.run.outputs
    if len(outputs) != 1 or outputs[0].type not in NUMBERS:
        names = ", ".join(f"{one.name} {one.type}" for one in outputs)
        raise WeightsError(f"{path.name}: gives {names}; one picture of floats or uint8 is expected")
    if len(inputs) != 1 or len(inputs[0].shape or ()) != 4 or inputs[0].type not in NUMBERS:
        names = ", ".join(f"{one.name} {one.type} {one.shape}" for one in inputs)
        raise WeightsError(f"{path.name}: takes {names}; one picture, (N, C, H, W) or (N, H, W, C), is expected")
    shape, takes = inputs[0].shape, NUMBERS[inputs[0].type]
    channels_last = shape[3] in (1, 3) and shape[1] not in (1, 3)
    batch, channels, height, width = (shape[i] for i in ((0, 3, 1, 2) if channels_last else (0, 1, 2, 3)))
    fixed = (height, width) if isinstance(height, int) and isinstance(width, int) else None
    channels = channels if isinstance(channels, int) else 3
    if channels not in (1, 3) or (fixed is None and (isinstance(height, int) or isinstance(width, int))):
        raise WeightsError(
            f"{path.name}: takes {shape}; 1 or 3 channels, and both sides free or both fixed, are expected"
        )
    multiple, scale, many = _tried(opened.run, takes, channels, fixed, path, channels_last=channels_last)
    return Graph(
        compute=opened.run,
        traits=Traits(
            scale=scale,
            in_channels=channels,
            out_channels=channels,
            multiple_of=multiple,
            fixed_size=fixed,
            radius=None,
            overlap=OVERLAP,
            values_per_pixel=VALUES_PER_PIXEL,
            precisions=frozenset({"fp32"}),
            value_range=(0.0, 1.0) if inputs[0].type == outputs[0].type == "tensor(uint8)" else _range(facts, path),
            channel_order=_order(facts),
            batch_of_one=batch == 1 or not many,
        ),
        where=opened.where,
        on_cpu=opened.provider.kind == "cpu",
        memory_total=opened.memory_total,
        dtype=torch.float16 if takes == "float16" else torch.float32,
        takes=takes,
        channels_last=channels_last,
        errors=errors(),
    )


def _tried(
    compute: Session, takes: str, channels: int, fixed: tuple[int, int] | None, path: Path, *, channels_last: bool
) -> tuple[int, int, bool]:
    """(what sides must be a multiple of, scale, whether two share a batch): the first that comes out in scale."""
    for multiple in MULTIPLES if fixed is None else (1,):
        count = -(-LEAST_TRIED // multiple)
        height, width = fixed or (count * multiple, (count + 1) * multiple)
        size = (1, height, width, channels) if channels_last else (1, channels, height, width)
        try:
            shape = compute(np.zeros(size, takes)).shape
        except errors():
            continue
        if len(shape) != 4:
            break
        _, out, tall, wide = (shape[i] for i in ((0, 3, 1, 2) if channels_last else (0, 1, 2, 3)))
        scale = tall // height
        if scale >= 1 and (scale * height, scale * width) == (tall, wide) and out == channels:
            return multiple, scale, _takes_two(compute, (2, *size[1:]), takes, shape)
    raise WeightsError(
        f"{path.name}: does not make a picture of a picture at any size that was tried; use another file"
    )


def _takes_two(compute: Session, size: tuple[int, ...], takes: str, shape: tuple[int, ...]) -> bool:
    """Many exporters call the batch free where a one is written into the graph."""
    try:
        return compute(np.zeros(size, takes)).shape == (2, *shape[1:])
    except errors():
        return False


def _range(facts: Facts, path: Path) -> tuple[float, float]:
    try:
        low, high = (float(end) for end in str(facts["value_range"]).split(","))
    except KeyError:
        raise AmbiguousWeightsError(f"{path.name}: {UNTOLD_RANGE}") from None
    except ValueError:
        raise UsageError(f"value_range takes two numbers, such as 0,1; got {facts['value_range']}") from None
    if not low < high:
        raise UsageError(f"value_range takes the lower number first; got {facts['value_range']}")
    return low, high


def _order(facts: Facts) -> Literal["rgb", "bgr"]:
    told = str(facts.get("channel_order", "rgb"))
    if told not in ("rgb", "bgr"):
        raise UsageError(f"channel_order takes rgb or bgr, got {told}")
    return "bgr" if told == "bgr" else "rgb"
